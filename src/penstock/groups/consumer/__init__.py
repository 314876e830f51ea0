"""Consumer groups (KIP-848): the broker assigns, and members reconcile towards their targets with heartbeats."""
