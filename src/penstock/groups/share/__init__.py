"""Share groups (KIP-932): who is a member, and which partitions it reads. How it reads them is in `penstock.share`."""
