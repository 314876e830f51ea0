"""Membership of share groups (KIP-932), and which partitions members read. Fetching is in `penstock.share`."""
