"""The produce request that brokers see most, read and answered without building a message.

A producer that sends small requests sends the same bytes again and again around its records: its client id, its
settings, the topic. `learn` notes that frame's front once, as bytes; `take` recognises the next one by a single
comparison and reads the three things that differ. `answer` is the matching response. Larger requests, of several
partitions and topics, and those of transactions are read by `read_produce` and answered by `answer_produce`. Everything
else (versions without compact lengths, refusals) goes through `penstock.wire.codec`, which is also what the tests
compare these functions with.

Pure functions over buffers, returning flat tuples. Those that are `twinned` have a compiled twin, which may do without
what makes sense in Python only.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct, error
from typing import Any, NamedTuple

from penstock.base.twins import twinned
from penstock.wire.primitives import MAX_ELEMENTS, ZERO_UUID, Buffer, encode_uvarint

OLDEST_VERSION = 9
"""The first version with compact lengths."""
TOPIC_IDS_SINCE = 13
NEWEST_VERSION = 13

_HEAD = Struct(">hhih")
_SETTINGS = Struct(">hi")
_INDEX = Struct(">iB")
_ID = Struct(">i")
_SIZE_ID = Struct(">ii")
_RESULT = Struct(">ihqqq")
_ENDS = b"\0\0\0"
"""No tags: of the partition, of the topic, of the request."""
_AFTER_RESULT = bytes((1, 0, 0, 0, 0, 0, 0, 0, 0))
"""No record errors, no message, no tags of partition and topic, no throttling, no tags of the response."""
_THROTTLED = Struct(">4sIB")
"""The same with throttling."""
_PREAMBLE = Struct(">hiB")
"""Acknowledgements, time-out, number of topics."""
_END_OF_RESULT = b"\1\0\0"
_THROTTLE = Struct(">iB")
_SIZE_ID_TAGS = Struct(">iiB")
_ONE = 2
"""A compact array's length of one."""


ProduceShare = tuple[str, bytes, int, int, int]
"""One partition's part of a request: its topic's name or (from `TOPIC_IDS_SINCE` on) id, its index, and where its
records are in the frame."""


class PlainProduce(NamedTuple):
    """A produce request that wants an acknowledgement. Each topic and partition is named once."""

    version: int
    correlation_id: int
    client_id: str | None
    shares: list[ProduceShare]
    transactional_id: str | None
    timeout_ms: int


class ProduceShape(NamedTuple):
    """What the requests of one producer for one topic have in common."""

    kind: bytes
    """API key and version."""
    front: bytes
    """From the client id to the number of partitions."""
    start: int
    """Where the partition's index is."""
    version: int
    client_id: str | None
    acks: int
    timeout_ms: int
    topic_name: str
    topic_id: bytes
    answer_front: bytes
    """The response from its header's tags to the number of partitions."""
    answer_bytes: int
    """The response's size as its frame announces it."""


class TakenProduce(NamedTuple):
    """What one request of a shape has of its own. The records are the frame's bytes [start, end)."""

    correlation_id: int
    partition_index: int
    start: int
    end: int


def learn(frame: bytes) -> ProduceShape | None:
    """The shape of a produce request's frame; None where it is not the common one, or not a request at all."""
    try:
        shape = _learn(frame)
    except (error, IndexError, UnicodeDecodeError):
        return None
    return shape if shape is not None and take(shape, frame) is not None else None


def _learn(frame: bytes) -> ProduceShape | None:
    key, version, _, length = _HEAD.unpack_from(frame)
    if key != 0 or not OLDEST_VERSION <= version <= NEWEST_VERSION:
        return None
    position = _HEAD.size
    client_id = None
    if length >= 0:
        client_id = str(frame[position : position + length], "utf-8")
        position += length
    tags, transactional = frame[position], frame[position + 1]
    acks, timeout_ms = _SETTINGS.unpack_from(frame, position + 2)
    position += 2 + _SETTINGS.size
    # An acknowledgement that nobody wants, or that is not one, has an answer of another kind.
    if tags or transactional or acks not in (1, -1) or frame[position] != _ONE:
        return None
    position += 1
    named_at = position
    name, topic_id = "", ZERO_UUID
    if version >= TOPIC_IDS_SINCE:
        position += 16
        topic_id = frame[named_at:position]
    else:
        size = frame[position] - 1
        if not 0 <= size < 127:
            return None
        position += 1 + size
        name = str(frame[named_at + 1 : position], "utf-8")
    named = frame[named_at:position]
    if frame[position] != _ONE:
        return None
    position += 1
    answer_front = b"".join((b"\0", bytes((_ONE,)), named, bytes((_ONE,))))
    return ProduceShape(
        frame[:4], frame[8:position], position, version, client_id, acks, timeout_ms, name, topic_id, answer_front,
        _ID.size + len(answer_front) + _RESULT.size + len(_AFTER_RESULT),
    )  # fmt: skip


@twinned
def take(shape: ProduceShape, frame: bytes) -> TakenProduce | None:
    """Read a request of that shape; None if it is of another."""
    kind, front, position = shape[:3]
    if not (frame.startswith(kind) and frame.startswith(front, 8)):
        return None
    try:
        index, length = _INDEX.unpack_from(frame, position)
    except error:
        return None
    position += 5
    if length > 127:
        # An unsigned varint of up to four bytes: a frame this small cannot hold more.
        length &= 0x7F
        shift = 7
        while True:
            if position >= len(frame) or shift > 21:
                return None
            byte = frame[position]
            position += 1
            length |= (byte & 0x7F) << shift
            if byte < 128:
                break
            shift += 7
    end = position + length - 1
    if length < 1 or end + 3 != len(frame) or not frame.endswith(_ENDS):
        return None
    (correlation_id,) = _ID.unpack_from(frame, 4)
    return TakenProduce(correlation_id, index, position, end)


@twinned
def answer(
    shape: ProduceShape, correlation_id: int, index: int, base_offset: int, append_time_ms: int, log_start: int,
    throttle_ms: int = 0,
) -> bytes:  # fmt: skip
    """The whole frame that says that the records were appended."""
    return b"".join(
        (
            _SIZE_ID.pack(shape.answer_bytes, correlation_id),
            shape.answer_front,
            _RESULT.pack(index, 0, base_offset, append_time_ms, log_start),
            _THROTTLED.pack(_AFTER_RESULT[:4], throttle_ms, 0) if throttle_ms else _AFTER_RESULT,
        )
    )


@twinned
def read_produce(frame: Buffer) -> PlainProduce | None:
    """Read a request of any number of topics and partitions; None where it is not a plain one, or not well-formed."""
    try:
        return _read_produce(frame)
    except (error, IndexError, UnicodeDecodeError):
        return None


def _read_produce(frame: Buffer) -> PlainProduce | None:
    key, version, correlation_id, length = _HEAD.unpack_from(frame)
    if key != 0 or not OLDEST_VERSION <= version <= NEWEST_VERSION:
        return None
    position, client_id = _HEAD.size, None
    if length >= 0:
        client_id = str(frame[position : position + length], "utf-8")
        position += length
    tags, size, transactional_id = frame[position], frame[position + 1], None
    position += 2
    if size > 127:
        size, position = _long_uvarint(frame, position - 1)
    if size:
        end = position + size - 1
        transactional_id = str(frame[position:end], "utf-8")
        position = end
    acks, timeout_ms, topics = _PREAMBLE.unpack_from(frame, position)
    if tags or acks not in (1, -1):
        return None
    position += _PREAMBLE.size
    if topics > 127:
        topics, position = _long_uvarint(frame, position - 1)
    shares: list[ProduceShare] = []
    topics_named: set[tuple[str, bytes]] = set()
    shares_named: set[tuple[str, bytes, int]] = set()
    by_id = version >= TOPIC_IDS_SINCE
    for _ in range(topics - 1):
        name, topic_id = "", ZERO_UUID
        if by_id:
            topic_id = bytes(frame[position : position + 16])
            position += 16
        else:
            size = frame[position]
            position += 1
            if size > 127:
                size, position = _long_uvarint(frame, position - 1)
            if size < 1:
                return None
            end = position + size - 1
            name = str(frame[position:end], "utf-8")
            position = end
        count = frame[position]
        position += 1
        if count > 127:
            count, position = _long_uvarint(frame, position - 1)
        if count < 2 or (name, topic_id) in topics_named or len(shares) + count > MAX_ELEMENTS + 1:
            return None
        topics_named.add((name, topic_id))
        for _ in range(count - 1):
            index, length = _INDEX.unpack_from(frame, position)
            position += 5
            if length > 127:
                length, position = _long_uvarint(frame, position - 1)
            end = position + length - 1
            if length < 1 or frame[end]:
                return None
            shares.append((name, topic_id, index, position, end))
            shares_named.add((name, topic_id, index))
            position = end + 1
        if frame[position]:
            return None
        position += 1
    if not shares or frame[position] or position + 1 != len(frame) or len(shares_named) != len(shares):
        return None
    return PlainProduce(version, correlation_id, client_id, shares, transactional_id, timeout_ms)


def _long_uvarint(frame: Buffer, position: int) -> tuple[int, int]:
    """An unsigned varint of up to four bytes, and the position after it. Nothing in a frame has a longer one."""
    value = shift = 0
    while shift < 28:
        byte = frame[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 128:
            return value, position
        shift += 7
    raise IndexError


@twinned
def answer_produce(request: PlainProduce, results: Sequence[Any], throttle_ms: int) -> bytes | None:
    """The whole frame of the answer, if all records were appended; None if some were not.

    A result is a tuple that begins with its error, base offset, append time and log start.
    """
    version, correlation_id, _, shares = request[:4]
    parts: list[bytes] = []
    by_id = version >= TOPIC_IDS_SINCE
    topics = first = 0
    while first < len(shares):
        name, topic_id = shares[first][:2]
        end = first + 1
        while end < len(shares) and shares[end][0] == name and shares[end][1] == topic_id:
            end += 1
        encoded = name.encode()
        parts.append(topic_id if by_id else encode_uvarint(len(encoded) + 1) + encoded)
        parts.append(encode_uvarint(end - first + 1))
        for share, result in zip(shares[first:end], results[first:end], strict=True):
            if result[0]:
                return None
            parts.append(_RESULT.pack(share[2], 0, result[1], result[2], result[3]) + _END_OF_RESULT)
        parts.append(b"\0")
        topics += 1
        first = end
    body = b"".join((encode_uvarint(topics + 1), *parts, _THROTTLE.pack(throttle_ms, 0)))
    return _SIZE_ID_TAGS.pack(len(body) + 5, correlation_id, 0) + body
