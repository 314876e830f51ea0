"""Which topics the consumers of a group subscribe, as far as their metadata tells.

Metadata is opaque for every protocol type but `consumer`, whose first version is a prefix of all later ones: int16
version, array of topic names, and more that is not needed here.
"""

from __future__ import annotations

from struct import Struct, error

from penstock.groups.model import CONSUMER, Group

_INT16 = Struct(">h")
_INT32 = Struct(">i")


def subscribed_topics(group: Group) -> frozenset[str] | None:
    """The topics of all members together; None if the group is none of consumers, or one of them is not understood."""
    if group.protocol_type != CONSUMER:
        return None
    topics: set[str] = set()
    for member in group.members.values():
        try:
            topics.update(_topics(member.metadata(group.protocol_name)))
        except (error, UnicodeDecodeError, ValueError):
            return None
    return frozenset(topics)


def _topics(metadata: bytes) -> list[str]:
    (count,) = _INT32.unpack_from(metadata, 2)
    position = 6
    if not 0 <= count <= len(metadata) // 2:
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
