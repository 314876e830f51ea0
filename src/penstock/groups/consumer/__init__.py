"""Consumer groups of KIP-848: the broker assigns, members work towards their assignments with heartbeats."""
