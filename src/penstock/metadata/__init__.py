"""Metadata: a narrow database port, its implementations, and the schema migrations."""
