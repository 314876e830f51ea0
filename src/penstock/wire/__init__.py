"""The Kafka wire protocol without I/O: frames, messages, record batches. `codec` is the door to the messages."""
