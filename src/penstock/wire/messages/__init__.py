"""Generated Kafka messages: the server's half. `penstock.wire.codec` is the door."""
