"""How many members a group may have, and how much they may say together: it is all held in memory. Pure.

Kafka has a limit of members only, and by default none of these (`group.max.size` and its kin). Limits of a virtual
cluster count its groups, so a single one must not be without end.
"""

from __future__ import annotations

from collections.abc import Iterable

MAX_MEMBERS = 16_384
"""With those who were given an id and have not come back with it yet."""
MAX_SAID_BYTES = 64 * 1024 * 1024
SHORT_BYTES = 4 * 1024
"""Who says no more than this may always say it: others are not looked at for the sake of most members."""
MAX_TOPICS = 10_000
"""Topics that a member subscribes by name. Every change of a topic has them all looked at again; for more there are
patterns."""
MAX_NAMED = 50_000
"""Topics that all members of a classic group name together, and are looked at."""
PART_BYTES = 64
"""What each piece takes beside its own bytes."""


def size_of(said: Iterable[str | bytes]) -> int:
    """About how many bytes it takes in memory."""
    return sum(PART_BYTES + len(piece) for piece in said)


def is_room(size_bytes: int, others: Iterable[int]) -> bool:
    """Whether a member may say so much, beside what the others say."""
    return size_bytes <= SHORT_BYTES or size_bytes + sum(others) <= MAX_SAID_BYTES
