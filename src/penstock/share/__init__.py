"""Share groups (KIP-932): many consumers of one partition, each record locked, acknowledged and counted on its own."""
