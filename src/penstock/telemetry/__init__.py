"""Client telemetry (KIP-714): clients push metrics that somebody subscribed to, and they are handed on."""
