"""The read path: where the batches from an offset on are, and how they are read.

Recent batches come from memory, without waiting (`tail`). Everything else is a cold read (`read_batches`): WAL objects
and segments are read on worker threads into memory of their own, which never evicts the tail, unless the store can send
a range of a segment directly (`stored`, sendfile) or has it in the page cache (`at_hand`). Whole batches are returned,
beginning with the one that contains the offset, and always at least one.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from functools import partial
from operator import attrgetter
from struct import Struct
from typing import Protocol, TypeVar

from penstock.base.errors import CorruptData, InvalidRequest, Unavailable
from penstock.log.batch_cuts import batch_start, cut, first_batch, whole_batches
from penstock.log.model import LEADER_EPOCH, EntrySeal, Partition, Seal, Span
from penstock.log.sealing import Sealing, StoredRange, read_range, read_span
from penstock.log.seals import BrokenSeal
from penstock.storage.arena import Arena
from penstock.storage.object_store import Piece
from penstock.storage.wal import WalLocation, WalStore
from penstock.wire.records import HEADER_BYTES, LENGTH_OVERHEAD, PREFIX

T = TypeVar("T")

COLD_READ_BYTES = 1024 * 1024
"""The most that one cold read returns, unless a single batch is larger."""
COPIED_PER_TURN_BYTES = 2 * COLD_READ_BYTES
"""The most that is copied from the page cache in one turn of the event loop: some 0.3 ms."""
MAX_COLD_READS = 8
MAX_PIECES = 16
"""The most segments that are sent directly in one answer for one partition."""
_PINNED_WAIT_S = 0.05
_ATTEMPTS = 3
_HEAD = Struct(">qi")
_LAST_OFFSET_DELTA = Struct(">i")
_LAST_OFFSET_DELTA_AT = 23
_by_base_offset = attrgetter("base_offset")
_by_last_offset = attrgetter("last_offset")


class StoredSegment(StoredRange, Protocol):
    """A segment: a range of one partition's offsets inside an object."""

    @property
    def base_offset(self) -> int: ...
    @property
    def last_offset(self) -> int: ...

    def position_for(self, offset: int) -> int:
        """A position, relative to the segment's start, at or before the batch that contains the offset."""

    def range_from(self, offset: int, max_bytes: int) -> tuple[int, int] | None:
        """Start and end of whole batches from an offset on, as many as fit, if the index knows them without reading."""

    def point_before(self, position: int) -> int:
        """The last position up to this one at which a batch is known to begin."""


class SegmentLookup(Protocol):
    """Finds segments by offset."""

    def cached(self, partition: Partition, offset: int) -> StoredSegment | None:
        """The segment that covers an offset, if it is in memory."""

    async def lookup(self, partition: Partition, offset: int) -> StoredSegment | None:
        """The first segment whose last offset is not below `offset`."""

    def following(self, partition: Partition, last_offset: int) -> Iterable[StoredSegment]:
        """The segments directly after the one with that last offset, as far as they are in memory."""


class ObjectRanges(Protocol):
    """What is needed of an object store; called on worker threads unless stated otherwise."""

    def read_into(self, key: str, start: int, buffer: memoryview) -> int:
        """Fill the buffer from a position of an object; the number of bytes read."""

    def piece(self, key: str, start: int, length: int) -> Piece | None:
        """A range that can be sent directly, if it can be opened without blocking. Called on the event loop."""

    def read_cached(self, key: str, start: int, buffer: memoryview) -> int:
        """As `read_into`, but only what is there without waiting. Called on the event loop."""


class _KeyMissing(Exception):
    """A range cannot be opened, because its key is not in memory."""

    def __init__(self, seal: Seal | EntrySeal) -> None:
        super().__init__(seal)
        self.seal = seal


class Reader:
    """Reads batches of any partition."""

    def __init__(
        self, *, segments: SegmentLookup, wal: WalStore, objects: ObjectRanges, executor: Executor | None, arena: Arena,
        sealing: Sealing | None = None, pinned_max_bytes: int = 64 * 1024 * 1024,
    ) -> None:  # fmt: skip
        """Reads wait while clients that do not read their responses hold more than `pinned_max_bytes` beyond the
        arena's budget."""
        self._segments, self._wal, self._objects, self._sealing = segments, wal, objects, sealing
        self._executor = executor
        self._arena, self._pinned_max_bytes = arena, pinned_max_bytes
        self._probe = memoryview(bytearray(1))
        self._copied_bytes = 0
        """In this turn of the event loop."""
        self._slots = asyncio.Semaphore(MAX_COLD_READS)
        self.cold_reads = 0
        self.cold_bytes = 0
        self.tail_reads = 0

    def tail(self, partition: Partition, offset: int, max_bytes: int, *, at_least_one: bool) -> list[memoryview] | None:
        """Batches from memory, or None when the first of them is not there.

        An empty list means that the first batch is larger than `max_bytes` and need not be returned.
        """
        spans = partition.spans
        if not spans:
            return None
        first = len(spans) - 1
        if spans[first].base_offset > offset:
            first = bisect_left(spans, offset, key=_by_last_offset)
        if spans[first].base_offset > offset or spans[first].view is None:
            return None
        found: list[memoryview] = []
        for number in range(first, len(spans)):
            view = spans[number].view
            if view is None:
                break
            if number == first and spans[number].base_offset < offset:
                view = view[batch_start(view, offset) :]
            if len(view) > max_bytes:
                view = whole_batches(view, max_bytes, at_least_one=at_least_one and not found)
                if view:
                    found.append(view)
                break
            found.append(view)
            max_bytes -= len(view)
        self.tail_reads += 1
        return found

    def stored(self, partition: Partition, offset: int, max_bytes: int) -> list[Piece] | None:
        """Batches as ranges of segments, if they can be sent from storage without being read first."""
        ref = self._segments.cached(partition, offset)
        found = None if ref is None or ref.seal is not None else ref.range_from(offset, max_bytes)
        if ref is None or found is None:
            return None
        start, end = found
        pieces: list[Piece] = []
        while len(pieces) < MAX_PIECES:
            piece = self._objects.piece(ref.object_key, ref.byte_offset + start, end - start)
            if piece is None:
                break
            pieces.append(piece)
            max_bytes -= end - start
            following = next(iter(self._segments.following(partition, ref.last_offset)), None)
            if end < ref.byte_length or following is None or following.byte_length > max_bytes or following.seal:
                break
            ref, start, end = following, 0, following.byte_length
        if not pieces:
            return None
        self._count_cold(pieces)
        return pieces

    def at_hand(self, partition: Partition, offset: int, max_bytes: int) -> list[memoryview] | None:
        """Batches from the one that contains `offset`, from memory or else from the page cache, without waiting; at
        least one. None: `read_batches` must wait for them."""
        found = self.tail(partition, offset, max_bytes, at_least_one=True)
        return self._cached(partition, offset) if found is None else found

    def _cached(self, partition: Partition, offset: int) -> list[memoryview] | None:
        """Batches of a segment in the page cache, copied into memory: at least the first, up to `COLD_READ_BYTES`."""
        ref = self._segments.cached(partition, offset)
        if ref is None or ref.seal is not None or not self._has_memory():
            return None
        start, size = self._extent(ref, offset, COLD_READ_BYTES)
        if not self._may_copy(size):
            return None
        key, position = ref.object_key, ref.byte_offset + start
        # The last byte first, as files are read ahead in order: memory is not taken in vain.
        if not self._objects.read_cached(key, position + size - 1, self._probe):
            return None
        target, _ = self._arena.reserve(size)
        target = target[: self._objects.read_cached(key, position, target)]
        skipped, needed = first_batch(target, offset)
        if skipped + needed > len(target):
            return None
        found = cut(target, offset, COLD_READ_BYTES)
        self._count_cold([found])
        return [found]

    def _may_copy(self, size_bytes: int) -> bool:
        """Whether so much may be copied in this turn of the event loop. Beyond it worker threads read."""
        if not self._copied_bytes:
            asyncio.get_running_loop().call_soon(self._end_turn)
        self._copied_bytes += size_bytes
        return self._copied_bytes <= COPIED_PER_TURN_BYTES

    def _end_turn(self) -> None:
        self._copied_bytes = 0

    async def read_batches(
        self, partition: Partition, offset: int, max_bytes: int, *, gives_up: Callable[[], bool] = lambda: False
    ) -> list[memoryview]:
        """Batches from the one that contains `offset`, wherever they are; at least one if there is one.

        While there is no memory for them, it waits, or returns nothing if `gives_up`: who reads several times for one
        response must not wait for memory with what was read before, because that would wait for itself.

        Raises `Unavailable` when the store fails, `CorruptData` when what it returns is not the log.
        """
        attempt = 0
        while True:
            found = self.tail(partition, offset, max_bytes, at_least_one=True)
            if found is not None:
                return found
            if offset >= partition.next_offset or not await self._have_memory(gives_up):
                return []
            try:
                async with self._slots:
                    if not self._has_memory():
                        continue  # A slot is not held while waiting: who holds memory may need it to go on.
                    found = await self._read_cold(partition, offset, min(max_bytes, COLD_READ_BYTES))
            except _KeyMissing as missing:
                # Without a slot: the key service may not answer, and others need nothing of it.
                assert self._sealing is not None
                await self._sealing.ready((missing.seal,))
                continue
            except InvalidRequest as problem:
                # What was found has been compacted away meanwhile: the next look-up finds where it went.
                attempt += 1
                if attempt == _ATTEMPTS:
                    raise Unavailable(f"offset {offset} keeps moving: {problem}") from problem
                continue
            self._count_cold(found)
            return found

    def _count_cold(self, found: Iterable[Piece]) -> None:
        self.cold_reads += 1
        self.cold_bytes += sum(map(len, found))

    def _has_memory(self) -> bool:
        """Whether responses that have not been sent leave enough memory."""
        if self._arena.pinned_bytes > self._pinned_max_bytes:
            self._arena.trim()
        return self._arena.pinned_bytes <= self._pinned_max_bytes

    async def _have_memory(self, gives_up: Callable[[], bool]) -> bool:
        """Wait until earlier responses have been sent; False if the caller gives up. There is no notification: their
        views are just released."""
        while not self._has_memory():
            if gives_up():
                return False
            await asyncio.sleep(_PINNED_WAIT_S)
        return True

    async def _read_cold(self, partition: Partition, offset: int, max_bytes: int) -> list[memoryview]:
        span = _span_at(partition, offset)
        if span is not None and span.location is not None:
            return await self._read_wal(partition, span, offset, max_bytes)
        ref = await self._segments.lookup(partition, offset)
        if ref is None or ref.base_offset > offset:
            # A gap left by key compaction or trimming: continue after it, perhaps in memory.
            after = _next_base(partition, offset)
            if ref is not None:
                after = min(ref.base_offset, after)
            if after >= partition.next_offset:
                return []
            found = self.tail(partition, after, max_bytes, at_least_one=True)
            return await self._read_cold(partition, after, max_bytes) if found is None else found
        return await self._read_segments(partition, ref, offset, max_bytes)

    async def _read_wal(self, partition: Partition, first: Span, offset: int, max_bytes: int) -> list[memoryview]:
        """Consecutive spans from WAL objects; their offsets are written into them."""
        spans: list[tuple[WalLocation, int, int, int, int, EntrySeal | None]] = []
        total = 0
        start = bisect_left(partition.spans, first.last_offset, key=_by_last_offset)
        for span in partition.spans[start:]:
            if span.location is None or span.view is not None or (spans and total + span.byte_length > max_bytes):
                break
            if not self._opens_like(first.seal, span.seal):
                break
            spans.append(
                (span.location, span.byte_start, span.byte_length, span.base_offset, span.last_offset, span.seal)
            )
            total += span.byte_length
        await self._have_key(first.seal)
        target, _ = self._arena.reserve(total)

        def read() -> int:
            """How many bytes are good. A span that is damaged or unreadable ends the read, unless it is the one that
            was requested."""
            position = 0
            for location, byte_start, byte_length, base_offset, last_offset, seal in spans:
                piece = target[position : position + byte_length]
                try:
                    if seal is None:
                        piece[:] = self._wal.read(location, byte_start, byte_start + byte_length)
                    else:
                        read_span(partial(self._wal.read, location), self._sealing, seal, partition, piece)
                except (BrokenSeal, Unavailable):
                    if position:
                        break
                    raise
                good = give_offsets(piece, base_offset, last_offset)
                position += good
                if good < byte_length:
                    break
            return position

        good = await self._in_thread(read)
        found = cut(target[:good], offset, max_bytes)
        if not found:
            raise CorruptData(f"the batch with offset {offset} is damaged in {first.location}")
        return [found]

    async def _read_segments(
        self, partition: Partition, ref: StoredSegment, offset: int, max_bytes: int
    ) -> list[memoryview]:
        """The rest of a segment and the segments after it, if they are short enough for one read on one thread."""
        start = ref.position_for(offset)
        pieces = [(ref, start, ref.byte_length - start)]
        total = ref.byte_length - start
        for following in self._segments.following(partition, ref.last_offset):
            if total + following.byte_length > max_bytes or not self._opens_like(ref.seal, following.seal):
                break
            pieces.append((following, 0, following.byte_length))
            total += following.byte_length
        await self._have_key(ref.seal)
        if len(pieces) == 1:
            return await self._read_segment(partition, ref, offset, max_bytes)
        target, _ = self._arena.reserve(total)

        def read() -> int:
            """How many bytes there are. A segment that is gone or unreadable ends the read, unless it is the one that
            was requested."""
            position = 0
            for number, (piece, first, size) in enumerate(pieces):
                try:
                    count = read_range(
                        self._objects, self._sealing, piece, partition, first, target[position : position + size]
                    )
                except (InvalidRequest, BrokenSeal, Unavailable):
                    if number:
                        break
                    raise
                if count < size:
                    raise CorruptData(f"{piece.object_key} ends {size - count} bytes before its segment does")
                position += size
            return position

        good = await self._in_thread(read)
        try:
            found = cut(target[:good], offset, max_bytes)
        except CorruptData:
            found = target[:0]
        # If another one of them is damaged, this one is returned all the same.
        return [found] if found else await self._read_segment(partition, ref, offset, max_bytes)

    async def _read_segment(
        self, partition: Partition, ref: StoredSegment, offset: int, max_bytes: int
    ) -> list[memoryview]:
        start, size = self._extent(ref, offset, max_bytes)
        while True:
            target, _ = self._arena.reserve(size)
            count = await self._in_thread(
                lambda start=start, target=target: read_range(  # type: ignore[misc]
                    self._objects, self._sealing, ref, partition, start, target
                )
            )
            if count < size:
                raise CorruptData(f"{ref.object_key} ends {size - count} bytes before its segment does")
            skipped, needed = first_batch(target, offset)
            if skipped + needed <= size:
                return [cut(target, offset, max_bytes)]
            if start + skipped + needed > ref.byte_length:
                raise CorruptData(f"a batch of {ref.object_key} reaches beyond its segment")
            # The batch with the offset does not fit: read again from its start, as much as it needs.
            start += skipped
            size = max(needed, min(max_bytes, ref.byte_length - start))

    @staticmethod
    def _extent(ref: StoredSegment, offset: int, max_bytes: int) -> tuple[int, int]:
        """Start and size of what to read of a segment, from a batch at or before the one with the offset on."""
        start = ref.position_for(offset)
        size = ref.byte_length - start
        if size > max_bytes:
            # Up to a point of the index, so that what follows can be sent directly.
            size = ref.point_before(start + max_bytes) - start
            size = size if size > 0 else max_bytes
        return start, size

    def _opens_like(self, first: Seal | EntrySeal | None, seal: Seal | EntrySeal | None) -> bool:
        """Whether a following range needs no key beyond the first one's, or one that is in memory: it must not add a
        wait or a failure."""
        if self._sealing is None or seal is None or (first is not None and first.key_id == seal.key_id):
            return True
        return self._sealing.is_ready(seal)

    async def _have_key(self, seal: Seal | EntrySeal | None) -> None:
        """Keep a key in memory that is there. Raises `_KeyMissing` otherwise."""
        if self._sealing is None or seal is None:
            return
        if not self._sealing.is_ready(seal):
            raise _KeyMissing(seal)
        await self._sealing.ready((seal,))

    async def _in_thread(self, work: Callable[[], T]) -> T:
        if self._executor is None:
            await asyncio.sleep(0)
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)


def give_offsets(batches: memoryview, base_offset: int, last_offset: int) -> int:
    """Write the log's offsets into consecutive batches as producers sent them, up to the span's last one.

    Returns the position of the first one that is not a valid batch, which is the end if all are. The content of a batch
    is for its consumers to verify.
    """
    position, end = 0, len(batches)
    while position + HEADER_BYTES <= end:
        _, length = _HEAD.unpack_from(batches, position)
        (last_delta,) = _LAST_OFFSET_DELTA.unpack_from(batches, position + _LAST_OFFSET_DELTA_AT)
        following = position + length + LENGTH_OVERHEAD
        if following < position + HEADER_BYTES or following > end or not 0 <= last_delta <= last_offset - base_offset:
            return position
        PREFIX.pack_into(batches, position, base_offset, length, LEADER_EPOCH)
        base_offset += last_delta + 1
        position = following
    # Offsets are missing at the end: there is no telling which batch is wrong.
    return position if base_offset == last_offset + 1 else 0


def _span_at(partition: Partition, offset: int) -> Span | None:
    spans = partition.spans
    index = bisect_left(spans, offset, key=_by_last_offset)
    if index == len(spans) or spans[index].base_offset > offset:
        return None
    return spans[index]


def _next_base(partition: Partition, offset: int) -> int:
    """The base of the first span after an offset, or the log end offset."""
    spans = partition.spans
    index = bisect_right(spans, offset, key=_by_base_offset)
    return partition.next_offset if index == len(spans) else spans[index].base_offset
