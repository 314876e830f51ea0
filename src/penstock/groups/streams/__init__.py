"""Streams groups (KIP-1071): the broker knows what Kafka Streams computes, makes its topics and spreads its tasks."""
