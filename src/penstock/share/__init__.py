"""Share groups (KIP-932): many consumers of one partition; records are locked, acknowledged and counted one by one."""
