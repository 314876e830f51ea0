"""Lists of 64-bit integers as bytes, big-endian: ids and offsets in columns of the database."""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from struct import Struct


@lru_cache(maxsize=256)
def _layout(count: int) -> Struct:
    return Struct(f">{count}q")


def pack_i64s(values: Collection[int]) -> bytes:
    """Encode integers, in order."""
    return _layout(len(values)).pack(*values)


def unpack_i64s(blob: bytes) -> tuple[int, ...]:
    """Decode integers. Raises `struct.error` if the size of the blob is not a multiple of 8."""
    return _layout(len(blob) // 8).unpack(blob)
