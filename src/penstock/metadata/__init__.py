"""The database behind everything that must agree: one port, SQLite and PostgreSQL behind it, numbered migrations."""
