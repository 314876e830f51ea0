"""The log: topics and partitions, the write path, the read path, and what keeps the store small."""
