"""What consumers put into the classic group protocol's opaque blobs: subscriptions and assignments.

The broker never needs to look inside; tools that describe groups do, and OffsetDelete asks what is subscribed.
A blob starts with its version. Clients newer than this file only append fields, so an unknown version is read
as the newest known one and the rest ignored. Like a request, a blob has at most so many elements.
"""

from __future__ import annotations

from struct import Struct, error
from typing import TYPE_CHECKING, Any

from penstock.wire.messages.consumer_protocol import (
    READ_ASSIGNMENT,
    READ_SUBSCRIPTION,
    WRITE_ASSIGNMENT,
    WRITE_SUBSCRIPTION,
    ConsumerProtocolAssignment,
    ConsumerProtocolSubscription,
)
from penstock.wire.primitives import MAX_ELEMENTS, UNLIMITED, Malformed, room

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from penstock.wire.primitives import Buffer

    Reader = Callable[[Buffer, int], tuple[Any, int]]
    Writer = Callable[[Any, Callable[[bytes], None], None], None]

SUBSCRIBED_MAX_ELEMENTS = 25_000
"""Topics and partitions of a subscription. Rules read it, whom nothing else can pass meanwhile."""
_VERSION = Struct(">h")


def read_subscription(blob: Buffer) -> ConsumerProtocolSubscription:
    """The topics a member subscribes to. `Malformed` if the blob is something else, as with Kafka Connect."""
    subscription: ConsumerProtocolSubscription = _read(READ_SUBSCRIPTION, blob, SUBSCRIBED_MAX_ELEMENTS)
    return subscription


def read_assignment(blob: Buffer) -> ConsumerProtocolAssignment:
    """The partitions assigned to a member."""
    assignment: ConsumerProtocolAssignment = _read(READ_ASSIGNMENT, blob, MAX_ELEMENTS)
    return assignment


def encode_subscription(subscription: ConsumerProtocolSubscription, version: int) -> bytes:
    return _encode(WRITE_SUBSCRIPTION, version, subscription)


def encode_assignment(assignment: ConsumerProtocolAssignment, version: int) -> bytes:
    return _encode(WRITE_ASSIGNMENT, version, assignment)


def _encode(writers: Mapping[int, Writer], version: int, message: object) -> bytes:
    parts: list[bytes] = [_VERSION.pack(version)]
    writers[version](message, parts.append, None)
    return b"".join(parts)


def _read(readers: Mapping[int, Reader], blob: Buffer, at_most: int) -> Any:
    room.left = at_most
    try:
        (version,) = _VERSION.unpack_from(blob, 0)
        if version < 0:
            raise Malformed(f"a consumer protocol blob has version {version}")
        message, end = readers[min(version, max(readers))](blob, 2)
    except (error, IndexError, UnicodeDecodeError) as problem:
        raise Malformed(f"consumer protocol: {problem}") from problem
    finally:
        room.left = UNLIMITED
    if end > len(blob):
        raise Malformed("a consumer protocol blob is cut short")
    return message
