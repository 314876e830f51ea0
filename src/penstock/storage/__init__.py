"""Storage: the WAL, the object store, and recycled memory for bytes in flight."""
