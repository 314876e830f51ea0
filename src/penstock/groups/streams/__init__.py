"""Streams groups (KIP-1071): the broker knows the topology, creates its internal topics and assigns its tasks."""
