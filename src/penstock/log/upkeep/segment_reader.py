"""Reading a segment for its rewriting: whole batches, a piece at a time."""

from __future__ import annotations

from struct import Struct

from penstock.base.errors import CorruptData, Unavailable
from penstock.log.model import Partition
from penstock.log.sealing import Sealing, read_range
from penstock.log.segments import SegmentRef
from penstock.storage.object_store import ObjectStore
from penstock.wire.records import HEADER_BYTES, LENGTH_OVERHEAD

DECODED_PIECE_BYTES = 512 * 1024
"""How much is decoded at once: few enough bytes that a processor's cache has them until they are done with."""
_LENGTH = Struct(">8xi")


class SegmentUnavailable(Unavailable):
    """A segment, or the key that seals it, is unavailable; possibly only this one, and possibly for long."""


class KeyUnavailable(SegmentUnavailable):
    """The key that seals a segment is unavailable; everything not sealed by it can be read."""


class SegmentReader:
    """Reads the whole batches of one segment, in pieces. Used by one thread at a time, after its keys are
    loaded."""

    def __init__(
        self, objects: ObjectStore, sealing: Sealing | None, partition: Partition, ref: SegmentRef, *,
        position: int = 0, piece_bytes: int,
    ) -> None:  # fmt: skip
        self._objects, self._sealing, self._partition, self._ref = objects, sealing, partition, ref
        self._position = position
        self._buffer = memoryview(bytearray(min(piece_bytes, max(ref.byte_length - position, HEADER_BYTES))))
        self._rest = self._buffer[:0]
        """The beginning of a batch, after the last piece."""

    def read(self) -> memoryview | None:
        """The next piece, at least one batch, or None at the end. The next call reuses the memory."""
        while self._position < self._ref.byte_length or self._rest:
            piece = self._filled()
            end = self._whole_batches(piece)
            self._rest = piece[end:]
            if end:
                return piece[:end]
        return None

    def _filled(self) -> memoryview:
        """The buffer with what was left of the last piece, and what follows it in the segment."""
        ref, left = self._ref, len(self._rest)
        self._buffer[:left] = self._rest
        self._rest = self._buffer[:left]
        piece = self._buffer[: left + ref.byte_length - self._position]
        try:
            count = read_range(self._objects, self._sealing, ref, self._partition, self._position, piece[left:])
        except Unavailable as problem:
            raise SegmentUnavailable(str(problem)) from problem
        if left + count < len(piece):
            raise CorruptData(f"{ref.object_key} ends {len(piece) - left - count} bytes before its segment does")
        self._position += count
        return piece

    def _whole_batches(self, piece: memoryview) -> int:
        """Where the last whole batch ends; if not even the first one is complete, makes room for it."""
        end, size, length_at = 0, len(piece), _LENGTH.unpack_from
        needed = HEADER_BYTES
        while size - end >= HEADER_BYTES:
            needed = length_at(piece, end)[0] + LENGTH_OVERHEAD
            if needed < HEADER_BYTES:
                raise CorruptData(f"a batch of {self._ref.object_key} claims a size of {needed} bytes")
            if end + needed > size:
                break
            end += needed
        if end == 0:
            if self._position - size + needed > self._ref.byte_length:
                raise CorruptData(f"a batch of {self._ref.object_key} reaches beyond its segment")
            # And some more: its neighbours are probably as large, or a little larger.
            self._buffer = memoryview(bytearray(needed + DECODED_PIECE_BYTES))
        return end
