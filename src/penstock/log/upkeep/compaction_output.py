"""The output of a pass of WAL compaction: the batches of many commits, written into one object, grouped by partition.

Bytes that are in memory are written as they are. Others are read back from the WAL, many objects at once, and get their
offsets. Memory is bounded by the size of a pass; the object is uploaded in pieces.

Data damaged on disk is kept, as a segment of its own that can be read up to the damage only: it must not keep
everything else in the WAL. The same goes for data that the disk does not return at all: the WAL file becomes an object
as it is (see adoption.py), in which these batches are segments in place, in case the disk returns them some day.

Reading and writing is done on the executor. Work per entry or batch is done on the event loop, in short slices: a
thread busy with Python code would delay the loop more than that.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from struct import Struct

from penstock.base.errors import CorruptData, Unavailable
from penstock.keys.model import KeysErased, LockReason
from penstock.log.model import LEADER_EPOCH, EntrySeal, Partition, Seal, Span
from penstock.log.sealing import read_span
from penstock.log.seals import BrokenSeal, SealedWriting, stored_bytes
from penstock.log.segments import (
    INDEX_STEP_BYTES,
    MAX_SEGMENT_BYTES,
    MAX_SEGMENT_OFFSETS,
    SegmentBuilder,
    SegmentRef,
)
from penstock.log.upkeep.rewriting import SegmentChanges
from penstock.log.upkeep.uploads import Upload
from penstock.log.upkeep.wal_plan import PartitionRange, is_long
from penstock.storage.arena import Arena
from penstock.storage.object_store import ObjectWriter
from penstock.storage.wal import Buffer, WalLocation, WalStore, pages_of
from penstock.wire.records import HEADER_BYTES, LENGTH_OVERHEAD, PREFIX

READ_BYTES = 4 * 1024 * 1024
WRITE_BYTES = 2 * 1024 * 1024
SMALL_BYTES = 32 * 1024
"""Pieces below this size are joined before they are written: each write costs more than the copy."""
SLICE = 128
"""How many batches, or other small items, are processed before the event loop is yielded."""
SEGMENT_PARTS = 4
"""What beginning and ending a segment counts as, in addition to its spans."""
_HOP = Struct(">qi11xi8xq")
_BASE_TIMESTAMP = Struct(">q")
_BASE_TIMESTAMP_AT = 27
_LENGTH = Struct(">i")
_LENGTH_AT = 8
_TOO_LONG = 2**30
"""The length written into a damaged batch's header: truncated wherever it is, so readers stop there."""
Keep = Callable[[str], Awaitable[Upload | None]]
"""Makes the WAL file of a key an object as it is; None where that does not work now."""
_log = logging.getLogger(__name__)


class CompactionOutput:
    """The object of one pass, while it is written to the store."""

    def __init__(
        self, changes: SegmentChanges, wal: WalStore, arena: Arena, upload: Upload, adopted: Mapping[str, Upload],
        keep: Keep,
    ) -> None:  # fmt: skip
        self._changes, self._wal, self._arena, self._upload = changes, wal, arena, upload
        self._adopted = dict(adopted)
        """WAL files that became objects: their long spans are segments already."""
        self._keep = keep
        self._unreadable: set[WalLocation] = set()
        self.unreadable_bytes = 0
        """Locations that could not be read, and stay where they are."""
        self.read_bytes = 0
        """Bytes that had to be read back from the WAL."""
        self.written_bytes = 0
        self._writer: ObjectWriter | None = None
        self._refs: list[SegmentRef] = []
        self._small: list[Buffer] = []
        self._small_bytes = 0
        self._ready: list[Buffer | Callable[[], None]] = []
        """Pieces to write, and functions that write some when they are called."""
        self._ready_bytes = 0
        self._handled = 0
        self._without_keys: set[int] = set()
        """Partitions for which nothing can be sealed or opened now."""

    async def write(self, ranges: Iterable[PartitionRange]) -> list[SegmentRef]:
        """Write the ranges of a pass; the segments that they became."""
        ranges = [moved for moved in ranges if moved.spans and not moved.partition.topic.deleted]
        ranges.sort(key=lambda moved: moved.partition.partition_id)
        await self._find_keys(ranges)
        loaded = await self._load(ranges)
        try:
            for moved in ranges:
                if moved.partition.partition_id in self._without_keys:
                    await self._copy_range(moved, loaded)
                else:
                    await self._write_range(moved, loaded)
            await self._flush_pieces()
            if self._writer is not None:
                await self._changes.in_thread(self._writer.commit)
        except BaseException:
            if self._writer is not None:
                self._writer.abort()
            raise
        return self._refs

    async def _find_keys(self, ranges: Iterable[PartitionRange]) -> None:
        """Load the keys that are needed, and find out for which partitions there are none now.

        What those have sealed is copied as it is: other partitions must not wait for a key service, nor for keys that
        are gone for good.
        """
        changes, sealing = self._changes, self._changes.sealing
        if sealing is None:
            return
        for moved in ranges:
            await self._count(2 + len(moved.spans) // 8)
            if changes.is_locked(moved.partition):
                self._without_keys.add(moved.partition.partition_id)
                continue
            try:
                await sealing.ready_soon(
                    span.seal
                    for span, view in zip(moved.spans, moved.views, strict=True)
                    if view is None and not self._is_adopted(span)
                )
            except (Unavailable, KeysErased):
                self._without_keys.add(moved.partition.partition_id)

    async def _load(self, ranges: Iterable[PartitionRange]) -> dict[WalLocation, memoryview]:
        """Read the WAL objects whose bytes are needed and not in memory."""
        wanted: dict[WalLocation, int] = {}
        for moved in ranges:
            await self._count(1 + len(moved.spans) // 8)
            is_closed = moved.partition.partition_id in self._without_keys
            for span, view in zip(moved.spans, moved.views, strict=True):
                if view is not None and not (is_closed and span.seal is not None):
                    continue
                if span.location is not None and not self._is_adopted(span):
                    wanted[span.location] = span.seq
        loaded: dict[WalLocation, memoryview] = {}
        for locations in _runs(sorted(wanted, key=wanted.__getitem__)):
            size_bytes = pages_of(locations)
            buffer, _ = self._arena.reserve(size_bytes)
            loaded.update(await self._read(locations, buffer))
            self.read_bytes += size_bytes
        return loaded

    async def _read(self, locations: Sequence[WalLocation], buffer: memoryview) -> dict[WalLocation, memoryview]:
        """The objects that can be read. Raises the problem of the others, where these cannot stay where they are."""
        try:
            views = await self._changes.in_thread(partial(self._wal.read_many, locations, buffer))
            return dict(zip(locations, views, strict=True))
        except (Unavailable, CorruptData):
            found, position = {}, 0
            for location in locations:  # One by one: usually only one of them is damaged.
                end = position + pages_of((location,))
                alone = partial(self._wal.read_many, (location,), buffer[position:end])
                try:
                    (found[location],) = await self._changes.in_thread(alone)
                except (Unavailable, CorruptData) as problem:
                    await self._keep_unreadable(location, problem)
                position = end
            return found

    async def _keep_unreadable(self, location: WalLocation, problem: Unavailable | CorruptData) -> None:
        """Leave an object where it is, as part of an object made of its WAL file."""
        key = location.key
        if key not in self._adopted:
            kept = await self._keep(key)
            if kept is None:
                raise problem
            self._adopted[key] = kept
        self._unreadable.add(location)
        self.unreadable_bytes += location.length
        _log.error(
            "cannot read the write-ahead log at offset %d of %s: %d bytes are kept unread in the object %s: %s",
            location.offset, key, location.length, self._adopted[key].key, problem,
        )  # fmt: skip

    async def _write_range(self, moved: PartitionRange, loaded: dict[WalLocation, memoryview]) -> None:
        segment: _Segment | None = None
        for span, view in zip(moved.spans, moved.views, strict=True):
            if self._is_adopted(span) or (view is None and span.location in self._unreadable):
                self._end(moved.partition, segment)
                segment = None
                self._refs.append(self._adopt(moved.partition, span))
                continue
            is_patched = view is not None
            if view is None:
                try:
                    view = await self._view(moved.partition, span, loaded)
                except BrokenSeal as problem:
                    _log.error(
                        "partition %d is damaged from offset %d on; the data is kept as it is: %s",
                        moved.partition.partition_id,
                        span.base_offset,
                        problem,
                    )
                    self._end(moved.partition, segment)
                    segment = None
                    self._copy_sealed(moved.partition, span, loaded, is_lost=True)
                    continue
            if segment is None or not segment.has_room_for(span):
                self._end(moved.partition, segment)
                segment = self._begin(moved.partition, span, view)
            if not is_patched:
                if not await self._is_sound(moved.partition, span, view, segment.builder):
                    self._end(moved.partition, segment if segment.record_count else None)
                    segment = self._begin(moved.partition, span, view)
                    segment.builder.add(span.base_offset, span.byte_length, span.max_timestamp)
                    segment.is_full = True
            elif span.byte_length <= INDEX_STEP_BYTES or span.batch_count == 1:
                segment.builder.add(span.base_offset, span.byte_length, span.max_timestamp)
            else:
                await self._walk(view, None, segment.builder)
            segment.record_count += span.last_offset - span.base_offset + 1
            segment.last_offset = span.last_offset
            if segment.sealed is None:
                self._append(view)
            else:
                self._append_sealed(segment.sealed, view)
            if self._ready_bytes >= WRITE_BYTES:
                await self._flush_pieces()
            await self._count()
        self._end(moved.partition, segment)

    async def _view(self, partition: Partition, span: Span, loaded: Mapping[WalLocation, memoryview]) -> memoryview:
        """The plain bytes of a span that are not in memory."""
        assert span.location is not None
        seal, stored = span.seal, loaded[span.location]
        if seal is None:
            return stored[span.byte_start : span.byte_start + span.byte_length]
        view = memoryview(bytearray(span.byte_length))
        work = partial(read_span, lambda start, end: stored[start:end], self._changes.sealing, seal, partition, view)
        if span.byte_length > SMALL_BYTES:
            await self._changes.in_thread(work)
        else:
            work()
            self._handled += 1
        return view

    async def _copy_range(self, moved: PartitionRange, loaded: Mapping[WalLocation, memoryview]) -> None:
        """Write sealed spans as they are, each as a segment, and others in the same way."""
        for span, view in zip(moved.spans, moved.views, strict=True):
            is_needed = view is None or span.seal is not None
            if self._is_adopted(span) or (is_needed and span.location in self._unreadable):
                self._refs.append(self._adopt(moved.partition, span))
                continue
            if span.seal is not None:
                self._copy_sealed(moved.partition, span, loaded, is_lost=self._is_erased(moved.partition))
            else:
                view = view if view is not None else await self._view(moved.partition, span, loaded)
                builder = SegmentBuilder(span.base_offset)
                await self._is_sound(moved.partition, span, view, builder)
                self._add_span(moved.partition, span, view, builder.index, None)
            if self._ready_bytes >= WRITE_BYTES:
                await self._flush_pieces()
            await self._count()

    def _copy_sealed(
        self, partition: Partition, span: Span, loaded: Mapping[WalLocation, memoryview], *, is_lost: bool
    ) -> None:  # fmt: skip
        """Make a segment of a sealed span as it is. If its offsets differ from the log's, it has to be opened first, so
        compaction waits for the key; if the key `is_lost` for good, the segment is written as unreadable."""
        assert span.location is not None
        assert span.seal is not None
        seal = span.seal
        salt = seal.salt
        if not _is_as_sealed(span, seal):
            if not is_lost:
                raise Unavailable("what is sealed has other offsets than it is to have, and cannot be opened now")
            salt = bytes(len(salt))
        view = loaded[span.location][seal.start : seal.start + stored_bytes(seal.length)]
        self._add_span(partition, span, view, span.index or (b"", b""), Seal(seal.key_id, salt))

    def _add_span(
        self, partition: Partition, span: Span, view: memoryview, index: tuple[bytes, bytes], seal: Seal | None
    ) -> None:  # fmt: skip
        ref = _ref_of(partition, span, self._upload, byte_offset=self.written_bytes, index=index, seal=seal)
        self._refs.append(ref)
        self._append(view)

    def _is_erased(self, partition: Partition) -> bool:
        sealing = self._changes.sealing
        return sealing is not None and sealing.locked.get(partition.topic.cluster_id) is LockReason.ERASED

    def _begin(self, partition: Partition, span: Span, view: memoryview) -> _Segment:
        segment = _Segment(span, self.written_bytes, _BASE_TIMESTAMP.unpack_from(view, _BASE_TIMESTAMP_AT)[0])
        sealing = self._changes.sealing
        made = None if sealing is None else sealing.new_range(partition)
        if made is not None:
            cipher, segment.seal = made
            segment.sealed = SealedWriting(cipher, self._store)
        return segment

    def _is_adopted(self, span: Span) -> bool:
        return is_long(span) and span.location is not None and span.location.key in self._adopted

    def _adopt(self, partition: Partition, span: Span) -> SegmentRef:
        """A span as a segment in place."""
        assert span.location is not None
        start, seal = span.byte_start, None
        if span.seal is not None:
            if not _is_as_sealed(span, span.seal):
                raise Unavailable("what is sealed has other offsets than it is to have, and cannot be read now")
            start, seal = span.seal.start, Seal(span.seal.key_id, span.seal.salt)
        return _ref_of(
            partition, span, self._adopted[span.location.key], byte_offset=span.location.offset + start,
            index=span.index or (b"", b""), seal=seal,
        )  # fmt: skip

    async def _is_sound(self, partition: Partition, span: Span, view: memoryview, builder: SegmentBuilder) -> bool:
        """Write offsets into the batches of a span that was read back, and index them; whether they match the span.

        If not, reading cannot continue after the first batch that does not, and the index omits the span.
        """
        mark, damaged_at = builder.mark, 0
        try:
            if await self._walk(view, span.base_offset, builder) == span.last_offset + 1:
                return True
        except _Damaged as problem:
            damaged_at = problem.position
        builder.back_to(mark)
        if len(view) - damaged_at >= HEADER_BYTES:
            _LENGTH.pack_into(view, damaged_at + _LENGTH_AT, _TOO_LONG)
        _log.error(
            "partition %d is damaged from offset %d to %d in the write-ahead log; the data is kept as it is",
            partition.partition_id,
            span.base_offset,
            span.last_offset,
        )
        return False

    async def _walk(self, view: memoryview, offset: int | None, builder: SegmentBuilder) -> int | None:
        """Walk from batch to batch for the index, and write their offsets unless `offset` is None; returns the next
        offset then."""
        position = 0
        while position < len(view):
            position, offset, count = _walk_some(view, position, offset, builder)
            await self._count(count)
        return offset

    def _end(self, partition: Partition, segment: _Segment | None) -> None:
        if segment is None:
            return
        self._handled += SEGMENT_PARTS
        builder = segment.builder
        builder.cover(segment.last_offset, segment.record_count, segment.min_timestamp)
        if segment.sealed is not None:
            self._ready.append(segment.sealed.end)
            self.written_bytes = segment.byte_offset + stored_bytes(builder.byte_length)
        self._refs.append(
            builder.finish(
                partition_id=partition.partition_id, object_id=self._upload.object_id, object_key=self._upload.key,
                byte_offset=segment.byte_offset, seal=segment.seal,
            )
        )  # fmt: skip

    def _append(self, view: memoryview) -> None:
        size_bytes = len(view)
        self.written_bytes += size_bytes
        if size_bytes < SMALL_BYTES:
            self._small.append(view)
            self._small_bytes += size_bytes
            if self._small_bytes >= SMALL_BYTES:
                self._join()
        else:
            self._join()
            self._ready.append(view)
            self._ready_bytes += size_bytes

    def _append_sealed(self, sealed: SealedWriting, view: memoryview) -> None:
        self._join()
        self._ready.append(partial(sealed.add, view))
        self._ready_bytes += len(view)

    def _join(self) -> None:
        if self._small:
            self._ready.append(self._small[0] if len(self._small) == 1 else b"".join(self._small))
            self._ready_bytes += self._small_bytes
            self._small, self._small_bytes = [], 0

    async def _flush_pieces(self) -> None:
        """Write what is ready."""
        self._join()
        pieces, self._ready, self._ready_bytes = self._ready, [], 0
        if not pieces:
            return
        if self._writer is None:
            self._writer = await self._changes.in_thread(lambda: self._changes.objects.open_writer(self._upload.key))
        await self._changes.in_thread(partial(self._write_pieces, pieces))

    def _write_pieces(self, pieces: Sequence[Buffer | Callable[[], None]]) -> None:
        for piece in pieces:
            if callable(piece):
                piece()
            else:
                self._store(piece)

    def _store(self, piece: Buffer) -> None:
        assert self._writer is not None
        self._writer.write(piece)

    async def _count(self, handled: int = 1) -> None:
        """Count so many items; yields to the event loop when it is time to."""
        self._handled += handled
        if self._handled >= SLICE:
            self._handled = 0
            await asyncio.sleep(0)


class _Damaged(Exception):
    """There is no valid batch at a position."""

    def __init__(self, position: int) -> None:
        super().__init__(position)
        self.position = position


class _Segment:
    """A segment under construction."""

    __slots__ = ("builder", "byte_offset", "is_full", "last_offset", "min_timestamp", "record_count", "seal", "sealed")

    def __init__(self, first: Span, byte_offset: int, min_timestamp: int) -> None:
        self.builder = SegmentBuilder(first.base_offset)
        self.byte_offset = byte_offset
        self.last_offset = first.last_offset
        self.min_timestamp = min_timestamp
        self.record_count = 0
        self.is_full = False
        self.seal: Seal | None = None
        self.sealed: SealedWriting | None = None

    def has_room_for(self, span: Span) -> bool:
        """Whether a span may still be part of it."""
        return (
            not self.is_full
            and self.builder.byte_length + span.byte_length <= MAX_SEGMENT_BYTES
            and span.last_offset - self.builder.base_offset < MAX_SEGMENT_OFFSETS
        )


def _is_as_sealed(span: Span, seal: EntrySeal) -> bool:
    """Whether a span is complete as sealed, with the offsets it was sealed with."""
    return not seal.skipped and seal.length == span.byte_length and seal.base_offset == span.base_offset


def _ref_of(
    partition: Partition, span: Span, upload: Upload, *, byte_offset: int, index: tuple[bytes, bytes], seal: Seal | None
) -> SegmentRef:
    """A span as a segment."""
    return SegmentRef(
        partition_id=partition.partition_id, base_offset=span.base_offset, last_offset=span.last_offset,
        object_id=upload.object_id, object_key=upload.key, byte_offset=byte_offset, byte_length=span.byte_length,
        record_count=span.last_offset - span.base_offset + 1, min_timestamp=span.max_timestamp,
        max_timestamp=span.max_timestamp, offset_index=index[0], time_index=index[1], seal=seal,
    )  # fmt: skip


def _walk_some(
    view: memoryview, position: int, offset: int | None, builder: SegmentBuilder
) -> tuple[int, int | None, int]:
    """Index the next batches; the position and, if offsets are given, the offset of the one after them; how many."""
    hop, prefix, add, end, count = _HOP.unpack_from, PREFIX.pack_into, builder.add, len(view), 0
    while position < end and count < SLICE:
        if end - position < HEADER_BYTES:
            raise _Damaged(position)
        base_offset, length, last_delta, max_timestamp = hop(view, position)
        following = position + length + LENGTH_OVERHEAD
        if length < HEADER_BYTES - LENGTH_OVERHEAD or following > end or last_delta < 0:
            raise _Damaged(position)
        if offset is not None:
            base_offset = offset
            prefix(view, position, offset, length, LEADER_EPOCH)
            offset += last_delta + 1
        add(base_offset, length + LENGTH_OVERHEAD, max_timestamp)
        position = following
        count += 1
    return position, offset, count


def _runs(locations: Sequence[WalLocation]) -> Iterator[list[WalLocation]]:
    """The same locations, ordered, in groups that are read at once."""
    run: list[WalLocation] = []
    run_bytes = 0
    for location in locations:
        size_bytes = pages_of((location,))
        if run and run_bytes + size_bytes > READ_BYTES:
            yield run
            run, run_bytes = [], 0
        run.append(location)
        run_bytes += size_bytes
    if run:
        yield run


async def in_slices(work: Iterator[int]) -> None:
    """Run work that yields how much it did, and yield to the event loop in between."""
    handled = 0
    for count in work:
        handled += count
        if handled >= SLICE:
            handled = 0
            await asyncio.sleep(0)
