"""Bounds on the number of members of a group and on the size of their metadata, which is held in memory. Pure.

Kafka bounds the number of members only, and by default not even that (`group.max.size` and similar settings). A virtual
cluster's limit counts groups, so a single group must be bounded as well.
"""

from __future__ import annotations

from collections.abc import Iterable

MAX_MEMBERS = 16_384
"""Includes members that were given an id and have not come back with it yet (KIP-394)."""
MAX_METADATA_BYTES = 64 * 1024 * 1024
"""The most metadata of all members of a group: client ids, instance ids, protocols or subscribed topics."""
SMALL_METADATA_BYTES = 4 * 1024
"""A member with no more metadata than this is always accepted, without adding up that of the others: most have less."""
MAX_SUBSCRIBED_TOPICS = 10_000
"""Topics that a member may subscribe to by name. All of them are checked after every change of a topic; for more there
are regular expressions."""
MAX_PARSED_TOPICS = 50_000
"""Topics that all members of a classic group may name in total, to be parsed."""
ITEM_OVERHEAD_BYTES = 64
"""The overhead of each piece of metadata in memory."""


def size_of(metadata: Iterable[str | bytes]) -> int:
    """About how many bytes of memory metadata takes."""
    return sum(ITEM_OVERHEAD_BYTES + len(piece) for piece in metadata)


def has_metadata_room(size_bytes: int, others: Iterable[int]) -> bool:
    """Whether there is room for a member's metadata, beside that of the others."""
    return size_bytes <= SMALL_METADATA_BYTES or size_bytes + sum(others) <= MAX_METADATA_BYTES
