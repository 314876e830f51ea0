"""The kinds of groups, and how each is stored in the database.

A group's row contains everything but its members. Members of classic groups join and leave in rebalances, so they are
part of that row. With server-side assignment each member changes on its own: it has a row of its own, so that a
heartbeat of one of a thousand members writes one small row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from penstock.base.dataclasses import dataclass
from penstock.base.errors import CorruptData
from penstock.groups import encoding
from penstock.groups.consumer import encoding as consumer_encoding
from penstock.groups.consumer.model import ConsumerGroup
from penstock.groups.model import AnyGroup, ClassicGroup
from penstock.groups.share import encoding as share_encoding
from penstock.groups.share.model import ShareGroup
from penstock.groups.streams import encoding as streams_encoding
from penstock.groups.streams.model import StreamsGroup


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupFormat:
    """The storage format of one kind of group."""

    encode: Callable[[Any], bytes]
    """Encode the group, without members that have rows of their own."""
    decode: Callable[[bytes, Sequence[bytes]], AnyGroup]
    """Decode the group from its row and those of its members. Raises `CorruptData`."""
    encode_member: Callable[[Any], bytes] = bytes
    """Encode one member, where members have rows of their own."""
    stores_members: bool = True


def _classic(stored: bytes, members: Sequence[bytes]) -> AnyGroup:
    if members:
        raise CorruptData("a classic group has members that are stored one by one")
    return encoding.decode(stored)


FORMATS: Mapping[str, GroupFormat] = {
    ClassicGroup.kind: GroupFormat(encode=encoding.encode, decode=_classic, stores_members=False),
    ConsumerGroup.kind: GroupFormat(
        encode=consumer_encoding.encode,
        decode=consumer_encoding.decode,
        encode_member=consumer_encoding.encode_member,
    ),
    ShareGroup.kind: GroupFormat(
        encode=share_encoding.encode, decode=share_encoding.decode, encode_member=share_encoding.encode_member
    ),
    StreamsGroup.kind: GroupFormat(
        encode=streams_encoding.encode, decode=streams_encoding.decode, encode_member=streams_encoding.encode_member
    ),
}
"""By the name that clients see, in lower case."""
