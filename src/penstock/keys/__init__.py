"""Keys that what a cluster stores is sealed by: data keys here, the master keys that wrap them in a key service."""
