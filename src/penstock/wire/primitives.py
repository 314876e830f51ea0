"""What the generated message modules stand on: the base class, varints, tag sections, the malformed-bytes error.

Readers take a buffer and a position and return the position after what they read. They do not check every
slice: a slice beyond the end comes out short, but the position still moves by the announced length, so the
next index, the next `struct` call or the final comparison with the buffer's end notices. What *is* checked
on the spot is everything that would allocate or loop before that happens: array lengths against the bytes
that are left, varints against five bytes. An element of two bytes becomes an object of a hundred, so requests are
also held to a number of elements (`room`). `penstock.wire.codec` turns the rest into `Malformed`.

Writers append small buffers to a list through `w` and hand record data, which is never copied, to `put`.
"""

from __future__ import annotations

from threading import local
from typing import TYPE_CHECKING, Any

from penstock.base.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Iterator

Buffer = bytes | bytearray | memoryview

new = object.__new__

# Stands for "a fresh default" in keyword constructors: a list or a struct must not be shared between messages.
EMPTY: Any = ()

ZERO_UUID = bytes(16)

MAX_ELEMENTS = 100_000
"""Array elements of one request, all its arrays together: as many partitions as one broker is ever asked about."""
UNLIMITED = 1 << 62
STRING_MAX_BYTES = 0x7FFF


class _Room(local):
    """How many more array elements this thread may read."""

    left = UNLIMITED


room = _Room()


class Malformed(InvalidRequest):
    """Bytes that are not what the protocol says they are. Close the connection."""


class Message:
    """Base of every generated struct: equality, a readable form, and nothing else."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.fields())

    __hash__ = None  # type: ignore[assignment]  # Messages are mutable; this is how Python spells "unhashable".

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={_brief(getattr(self, name))}" for name in self.fields())
        return f"{type(self).__name__}({values})"

    @classmethod
    def fields(cls) -> Iterator[str]:
        """Names of the fields, in schema order."""
        return iter(cls.__slots__)


PART_CHARS = 100
LET_GO_AT_ONCE = 250


def parts_of(message: Message, at_most: int = UNLIMITED) -> int:
    """How much a message is: itself, the elements of all its lists, and so many characters or bytes as one more. It is
    not counted on beyond `at_most`."""
    parts, waiting = 0, [message]
    while waiting and parts + len(waiting) <= at_most:
        one = waiting.pop()
        parts += 1
        for name in one.fields():
            value = getattr(one, name)
            if isinstance(value, Message):
                waiting.append(value)
            elif isinstance(value, str | bytes):
                parts += len(value) // PART_CHARS
            elif type(value) is list and value:
                if isinstance(value[0], Message):
                    waiting += value
                else:
                    parts += len(value)
                    if isinstance(value[0], str | bytes):
                        parts += sum(map(len, value)) // PART_CHARS
    return parts + len(waiting)


def let_go(held: list[Message]) -> None:
    """Forget messages bit by bit. Nobody else may hold them, and nobody has to wait: Python frees what is in a list of
    a hundred thousand without a break, and lets no other thread run meanwhile.
    """
    kept: list[object] = list(held)
    held.clear()
    # Each is kept until what it is part of is gone, so that nothing takes much with it.
    for one in kept:
        if isinstance(one, Message):
            for name in one.fields():
                value = getattr(one, name)
                if isinstance(value, Message) or (type(value) is list and value):
                    kept.append(value)
        elif type(one) is list and isinstance(one[0], Message):
            kept += one
    kept.reverse()
    while kept:
        del kept[-LET_GO_AT_ONCE:]


def _brief(value: object) -> str:
    # Log lines must not carry a client's records, nor its password tokens.
    if isinstance(value, bytes | bytearray | memoryview) and len(value) != 16:
        return f"<{len(value)} bytes>"
    return repr(value)


def uvarint(b: Buffer, p: int) -> tuple[int, int]:
    """Read an unsigned varint of at most five bytes; return it and the position after it."""
    byte = b[p]
    p += 1
    if byte < 128:
        return byte, p
    value = byte & 127
    shift = 7
    while shift < 35:
        byte = b[p]
        p += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, p
        shift += 7
    raise Malformed("a varint is longer than five bytes")


def string_size(b: Buffer, p: int) -> tuple[int, int]:
    """The same for the size of a compact string and one. It has an int16 for its size elsewhere, and Kafka takes no
    longer one here either."""
    size, p = uvarint(b, p)
    if size > STRING_MAX_BYTES + 1:
        raise Malformed(f"a string announces {size - 1} bytes")
    return size, p


def encode_uvarint(value: int) -> bytes:
    """Bytes of a non-negative integer as an unsigned varint."""
    if value < 128:
        return ONE_BYTE[value]
    if value < 16384:
        return bytes((value & 127 | 128, value >> 7))
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


ONE_BYTE = [bytes((value,)) for value in range(128)]


def skip_tags(b: Buffer, p: int) -> int:
    """Step over a tag section whose tags we do not know. Newer clients may send any."""
    count, p = uvarint(b, p)
    for _ in range(count):
        _, p = uvarint(b, p)
        size, p = uvarint(b, p)
        p += size
    return p


def null_error() -> Malformed:
    return Malformed("a field that must be present is null")


def length_error() -> Malformed:
    return Malformed("an array announces more elements than the message has bytes for")


def crowded(count: int) -> bool:
    """Whether that many more elements are too many for one request."""
    room.left -= count
    return room.left < 0


def tag_error() -> Malformed:
    return Malformed("a tagged field does not fill the size it announces")


def length_of(records: Buffer | list[Buffer]) -> int:
    """Bytes of a records field: one buffer, or a list of buffers that follow each other."""
    return sum(map(len, records)) if type(records) is list else len(records)
