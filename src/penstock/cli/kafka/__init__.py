"""A small synchronous Kafka client: what the commands need, over plain sockets. No terminal, no click."""
