"""Consumer groups: classic groups and committed offsets."""
