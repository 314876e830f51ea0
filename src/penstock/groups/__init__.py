"""The group coordinator: groups of every protocol, and committed offsets."""
