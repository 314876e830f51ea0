"""The topics that the consumers of a classic group subscribe to, parsed from their metadata.

Metadata is opaque except for the protocol type `consumer`, whose first version is a prefix of all later ones: int16
version, array of topic names, and more that is not needed here.
"""

from __future__ import annotations

from struct import Struct, error

from penstock.groups.capacity import MAX_PARSED_TOPICS
from penstock.groups.model import CONSUMER, ClassicGroup

_INT16 = Struct(">h")
_INT32 = Struct(">i")


def subscribed_topics(group: ClassicGroup) -> frozenset[str] | None:
    """The topics of all members; None if the group is not of consumers, or metadata of a member cannot be parsed, or
    they name too many."""
    if group.protocol_type != CONSUMER:
        return None
    topics: set[str] = set()
    left = MAX_PARSED_TOPICS
    for member in group.members.values():
        try:
            named = _topics(member.metadata(group.protocol_name), left)
        except (error, UnicodeDecodeError, ValueError):
            return None
        left -= len(named)
        topics.update(named)
    return frozenset(topics)


def _topics(metadata: bytes, at_most: int) -> list[str]:
    (count,) = _INT32.unpack_from(metadata, 2)
    position = 6
    if not 0 <= count <= min(len(metadata) // 2, at_most):
        raise ValueError(f"impossible number of topics: {count}")
    topics = []
    for _ in range(count):
        (size,) = _INT16.unpack_from(metadata, position)
        position += 2
        if size < 0 or position + size > len(metadata):
            raise ValueError(f"impossible length of a topic name: {size}")
        topics.append(metadata[position : position + size].decode())
        position += size
    return topics
