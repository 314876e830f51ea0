"""Signed variable-length integers (zigzag), as record batches use them. Readers raise IndexError at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.wire.primitives import Malformed

if TYPE_CHECKING:
    from penstock.wire.primitives import Buffer


def read_varint(data: Buffer, position: int) -> tuple[int, int]:
    """A varint of at most 32 bits: its value and the position after it."""
    byte = data[position]
    position += 1
    if byte < 128:
        return (byte >> 1) ^ -(byte & 1), position
    value = byte & 127
    shift = 7
    while shift < 35:
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            if value > 0xFFFFFFFF:
                break
            return (value >> 1) ^ -(value & 1), position
        shift += 7
    raise Malformed("a varint has more than 32 bits")


def read_varlong(data: Buffer, position: int) -> tuple[int, int]:
    """A varint of at most 64 bits: its value and the position after it."""
    value = shift = 0
    while shift < 70:
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            if value > 0xFFFFFFFFFFFFFFFF:
                break
            return (value >> 1) ^ -(value & 1), position
        shift += 7
    raise Malformed("a varint has more than 64 bits")


def encode_varint(value: int) -> bytes:
    """Bytes of an integer of up to 64 bits."""
    if -1024 <= value < 1024:
        return _SHORT[value]
    value = (value << 1) ^ (value >> 63)
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _short(value: int) -> bytes:
    value = (value << 1) ^ (value >> 63)
    return bytes((value,)) if value < 128 else bytes((value & 127 | 128, value >> 7))


# Nearly every delta and length of a record is this small. Negative values index from the end.
_SHORT = [_short(value) for value in range(1024)] + [_short(value) for value in range(-1024, 0)]
