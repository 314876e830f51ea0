"""Client telemetry (KIP-714): subscriptions to metrics that clients push, and forwarding of these metrics."""
