"""Metadata: a narrow database port, its implementations, and the migrations that shape the tables."""
