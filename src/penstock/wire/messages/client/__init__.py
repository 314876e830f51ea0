"""Generated Kafka messages: the client's half. Servers never import it."""
