"""Whole batches of a part of a log, as it was read: where they begin and end, by their headers. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct

from penstock.base.errors import CorruptData
from penstock.wire.records import HEADER_BYTES, LENGTH_OVERHEAD

_HEAD = Struct(">qi")
_LAST_OFFSET_DELTA = Struct(">i")
_LAST_OFFSET_DELTA_AT = 23


def _batches(view: memoryview) -> Iterator[tuple[int, int, int]]:
    """Position, size and last offset of each batch whose header is in the view."""
    position, end = 0, len(view)
    while position + HEADER_BYTES <= end:
        base, length = _HEAD.unpack_from(view, position)
        (last_delta,) = _LAST_OFFSET_DELTA.unpack_from(view, position + _LAST_OFFSET_DELTA_AT)
        if length < HEADER_BYTES - LENGTH_OVERHEAD:
            raise CorruptData(f"a stored batch claims a length of {length} bytes")
        yield position, length + LENGTH_OVERHEAD, base + last_delta
        position += length + LENGTH_OVERHEAD


def batch_start(view: memoryview, offset: int) -> int:
    """The start of the batch that contains the offset, or of the first one after it."""
    for position, _, last_offset in _batches(view):
        if last_offset >= offset:
            return position
    return len(view)


def first_batch(view: memoryview, offset: int) -> tuple[int, int]:
    """Start and size of the batch with the offset, even if it ends beyond the view."""
    following = 0
    for position, size, last_offset in _batches(view):
        if last_offset >= offset:
            return position, size
        following = position + size
    return following, HEADER_BYTES


def whole_batches(view: memoryview, max_bytes: int, *, at_least_one: bool) -> memoryview:
    """As many whole batches as fit."""
    end = 0
    for position, size, _ in _batches(view):
        if position + size > max_bytes and (end or not at_least_one):
            break
        end = min(position + size, len(view))
        if end >= max_bytes:
            break
    return view[:end]


def cut(view: memoryview, offset: int, max_bytes: int) -> memoryview:
    """Whole batches, beginning with the one that contains the offset."""
    start = batch_start(view, offset)
    view = view[start:]
    end = 0
    for position, size, _ in _batches(view):
        if position + size > len(view) or (end and position + size > max_bytes):
            break
        end = position + size
    return view[:end]
