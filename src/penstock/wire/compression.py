"""Compression of record batches, bounded on the way out.

A few kilobytes can decompress to gigabytes, so `decompress` never gives a decoder more room than the caller's
limit. It decodes into a guess first; if that was too small, into an anonymous mapping as large as the limit, of
which the operating system provides only the pages that are really written.

Two formats have Kafka's own conventions. Snappy is written in the framing of the xerial Java library and read
with it or without. LZ4 frames must have independent blocks, which Kafka's Java decoder insists on and cramjam's
frame encoder does not do, so the (trivial) frame is written here.
"""

from __future__ import annotations

from enum import IntEnum
from mmap import mmap
from struct import Struct
from typing import TYPE_CHECKING

from penstock.base.lazy import lazy_import
from penstock.wire.primitives import Malformed

if TYPE_CHECKING:
    from collections.abc import Callable

    import cramjam

    from penstock.wire.primitives import Buffer
else:
    cramjam = lazy_import("cramjam")

MAX_DECOMPRESSED_BYTES = 100 * 1024 * 1024

_FIRST_GUESS_BYTES = 64 * 1024
_XERIAL_MAGIC = b"\x82SNAPPY\0"
_XERIAL_HEADER = _XERIAL_MAGIC + bytes((0, 0, 0, 1, 0, 0, 0, 1))
_XERIAL_BLOCK_BYTES = 32 * 1024
_BLOCK_SIZE = Struct(">i")
# Snappy's densest element is a copy: two bytes make up to 64.
_SNAPPY_MAX_RATIO = 64
# Version 1, independent blocks, no checksums, blocks of at most 64 KiB, and the checksum of these two bytes.
_LZ4_HEADER = bytes((0x04, 0x22, 0x4D, 0x18, 0x60, 0x40, 0x82))
_LZ4_BLOCK_BYTES = 64 * 1024
_LZ4_BLOCK_SIZE = Struct("<I")
_LZ4_STORED = 0x80000000
_LZ4_END = bytes(4)


class UnsupportedCompression(Malformed):
    """The batch names a compression that Kafka does not have."""


class Compression(IntEnum):
    """The low three bits of a batch's attributes."""

    NONE = 0
    GZIP = 1
    SNAPPY = 2
    LZ4 = 3
    ZSTD = 4

    @classmethod
    def parse(cls, number: int) -> Compression:
        try:
            return cls(number)
        except ValueError:
            raise UnsupportedCompression(f"compression type {number} is unknown") from None


def compress(data: bytes, compression: Compression, *, level: int | None = None) -> bytes:
    """Compress the records section of a batch. `level` is the codec's own; snappy and LZ4 have none here."""
    match compression:
        case Compression.NONE:
            return data
        case Compression.GZIP:
            return bytes(memoryview(cramjam.gzip.compress(data, 6 if level is None else level)))
        case Compression.SNAPPY:
            return _compress_xerial(data)
        case Compression.LZ4:
            return _compress_lz4(data)
        case Compression.ZSTD:
            return bytes(memoryview(cramjam.zstd.compress(data, 3 if level is None else level)))


def decompress(data: Buffer, compression: Compression, *, max_bytes: int = MAX_DECOMPRESSED_BYTES) -> Buffer:
    """Undo `compress`, whoever did it. `Malformed` if the data is broken or larger than `max_bytes` once decoded."""
    try:
        match compression:
            case Compression.NONE:
                return data
            case Compression.GZIP:
                return _bounded(cramjam.gzip.decompress_into, data, max_bytes)
            case Compression.SNAPPY:
                return _decompress_snappy(data, max_bytes)
            case Compression.LZ4:
                return _bounded(cramjam.lz4.decompress_into, data, max_bytes)
            case Compression.ZSTD:
                return _bounded(cramjam.zstd.decompress_into, data, max_bytes)
    except (cramjam.DecompressionError, OSError, ValueError) as problem:
        raise Malformed(f"{compression.name.lower()} data cannot be decompressed: {problem}") from problem


def _bounded(decode_into: Callable[[Buffer, Buffer | mmap], int], data: Buffer, max_bytes: int) -> Buffer:
    guess = min(max_bytes, max(_FIRST_GUESS_BYTES, 4 * len(data)))
    small = bytearray(guess)
    try:
        return memoryview(small)[: decode_into(data, small)]
    except cramjam.DecompressionError as problem:
        if guess == max_bytes or "write" not in str(problem):
            raise
    large = mmap(-1, max_bytes)
    return memoryview(large)[: decode_into(data, large)]


def _compress_xerial(data: bytes) -> bytes:
    pieces = [_XERIAL_HEADER]
    for start in range(0, len(data), _XERIAL_BLOCK_BYTES):
        block = bytes(memoryview(cramjam.snappy.compress_raw(data[start : start + _XERIAL_BLOCK_BYTES])))
        pieces += (_BLOCK_SIZE.pack(len(block)), block)
    return b"".join(pieces)


def _decompress_snappy(data: Buffer, max_bytes: int) -> Buffer:
    view = memoryview(data)
    if bytes(view[: len(_XERIAL_MAGIC)]) != _XERIAL_MAGIC:
        return _decompress_block(view, max_bytes)
    pieces = []
    total = 0
    position = len(_XERIAL_HEADER)
    while position < len(view):
        if position + 4 > len(view):
            raise Malformed("snappy data ends inside a block's size")
        (size,) = _BLOCK_SIZE.unpack_from(view, position)
        position += 4
        if size < 0 or size > len(view) - position:
            raise Malformed("a snappy block is longer than its data")
        piece = _decompress_block(view[position : position + size], max_bytes - total)
        total += len(piece)
        pieces.append(piece)
        position += size
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _decompress_block(block: memoryview, max_bytes: int) -> bytes:
    size = cramjam.snappy.decompress_raw_len(block)
    if size > max_bytes:
        raise Malformed("snappy data is larger than allowed once decompressed")
    if size > len(block) * _SNAPPY_MAX_RATIO:
        raise Malformed("a snappy block announces more than it can hold")
    return bytes(memoryview(cramjam.snappy.decompress_raw(block)))


def _compress_lz4(data: bytes) -> bytes:
    pieces = [_LZ4_HEADER]
    for start in range(0, len(data), _LZ4_BLOCK_BYTES):
        plain = data[start : start + _LZ4_BLOCK_BYTES]
        block = bytes(memoryview(cramjam.lz4.compress_block(plain, store_size=False)))
        if len(block) < len(plain):
            pieces += (_LZ4_BLOCK_SIZE.pack(len(block)), block)
        else:
            pieces += (_LZ4_BLOCK_SIZE.pack(len(plain) | _LZ4_STORED), plain)
    pieces.append(_LZ4_END)
    return b"".join(pieces)
