"""Member epochs with a special meaning in heartbeats of consumer, share and streams groups (KIP-848)."""

from __future__ import annotations

JOIN_EPOCH = 0
"""The member joins the group."""
LEAVE_EPOCH = -1
"""The member leaves the group."""
STATIC_LEAVE_EPOCH = -2
"""A static member leaves temporarily, and keeps its assignment until its session expires. Not in share groups."""
