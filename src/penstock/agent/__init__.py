"""The data-plane process: sockets, the table of Kafka APIs, and the wiring of everything below."""
