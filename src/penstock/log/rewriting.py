"""Putting segments in the place of others: what merging and key compaction have in common.

A `Rewrite` reads consecutive segments of one partition, oldest first, and writes one segment into a new object: the
same batches, or what a `Transform` leaves of each. It works in pieces of `PIECE_BYTES`, so memory holds one piece
(or one batch, if that is larger), and in steps of a few pieces, so that others get their turn. The last step names
the object and removes the old rows in one transaction, bound to those rows being there still. If they are not, the
work was for nothing and its object is garbage. Readers that had looked up the old segments finish undisturbed: the
objects live on for the grace period of garbage collection.

`SegmentChanges` is the only way segments change once they are there. It keeps what is in memory in step with the
database: the index, and the sizes of partitions.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from struct import Struct
from typing import TypeVar

from penstock.base.clock import Clock
from penstock.base.errors import Conflict, CorruptData, OutcomeUnknown, PlatformError
from penstock.log import segment_store
from penstock.log.model import NO_TIMESTAMP, Partition
from penstock.log.segment_store import NewObject
from penstock.log.segments import SegmentBuilder, SegmentIndex, SegmentRef
from penstock.log.uploads import Upload, Uploads
from penstock.metadata.database import Database
from penstock.storage.object_store import ObjectStore, ObjectWriter
from penstock.storage.wal import Buffer
from penstock.wire.records import HEADER_BYTES, LENGTH_OVERHEAD, BatchHeader, iter_batches, parse_header, verify_crc

T = TypeVar("T")
Transform = Callable[[BatchHeader, Buffer], Buffer | None]
"""From a batch to what is left of it: the same object if nothing changes, other bytes, or None."""

PIECE_BYTES = 256 * 1024
STEP_PIECES = 8
STEP_S = 0.1
"""Steps end after so many pieces or so much time, whichever comes first."""
_LENGTH = Struct(">8xi")
_log = logging.getLogger(__name__)


class SegmentChanges:
    """Changes of segments: durably first, then in memory. On the loop's thread."""

    def __init__(
        self, *, database: Database, segments: SegmentIndex, objects: ObjectStore, uploads: Uploads, clock: Clock,
        executor: Executor | None, shard_id: int = 1, on_garbage: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self.database, self.segments, self.objects, self.uploads = database, segments, objects, uploads
        self.clock = clock
        self.shard_id = shard_id
        self.on_garbage = on_garbage
        """Called when objects may have lost their last segment."""
        self.rewriting: set[int] = set()
        """Partitions whose segments are being rewritten: by one chore at a time."""
        self._executor = executor
        self._doubtful: set[Partition] = set()
        """Partitions whose size in memory may be wrong: the answer of a change was lost."""

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Run work that waits for storage where it stops nobody."""
        if self._executor is None:
            await asyncio.sleep(0)
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    async def replace(
        self, partition: Partition, new: NewObject | None, removed: Sequence[SegmentRef], added: Sequence[SegmentRef]
    ) -> None:
        """Put segments in the place of others; raise `Conflict` if one of those is not there any more."""
        now_ms = self.clock.now_ms()
        await self._settle(partition)
        try:
            while True:
                try:
                    await self.database.transaction(
                        lambda: segment_store.replace(new, removed, added, now_ms), background=True
                    )
                except OutcomeUnknown:
                    if await self._is_there(removed[0]):
                        continue
                    if new is not None and not await self.database.read(
                        lambda: segment_store.has_object(new.object_id)
                    ):
                        raise Conflict("the segments went while they were replaced") from None
                break
        except BaseException:
            self.segments.drop(partition.partition_id)
            raise
        self.segments.remove(removed)
        partition.size_bytes += sum(ref.byte_length for ref in added) - sum(ref.byte_length for ref in removed)
        self.on_garbage()

    async def _is_there(self, ref: SegmentRef) -> bool:
        rows = await self.database.read(lambda: segment_store.segments_from(ref.partition_id, ref.last_offset, 1))
        return bool(rows) and (rows[0][2], bytes(rows[0][3])) == (ref.last_offset, ref.object_id)

    async def drop_below_start(self, partition: Partition, limit: int) -> int:
        """Remove segments that end below the log start, as many as the limit; how many."""
        await self._settle(partition)
        partition_id, log_start, now_ms = partition.partition_id, partition.log_start, self.clock.now_ms()
        try:
            count, size_bytes = await self.database.transaction(
                lambda: segment_store.drop_below(partition_id, log_start, limit, now_ms), background=True
            )
        except OutcomeUnknown:
            self._doubtful.add(partition)
            self.segments.drop(partition_id)
            self.on_garbage()
            raise
        if count:
            self.segments.drop(partition_id)
            partition.size_bytes -= size_bytes
            self.on_garbage()
        return count

    async def _settle(self, partition: Partition) -> None:
        """Make a doubtful size what the database says."""
        if partition not in self._doubtful:
            return
        stored = await self.database.read(lambda: segment_store.stored_size(partition.partition_id))
        if stored is not None:
            size_bytes, segmented_to = stored
            partition.size_bytes = size_bytes + sum(
                span.byte_length for span in partition.spans if span.base_offset >= segmented_to
            )
        self._doubtful.discard(partition)


class SegmentReader:
    """The whole batches of one segment, in pieces. Used by one thread at a time."""

    def __init__(
        self, objects: ObjectStore, ref: SegmentRef, *, position: int = 0, piece_bytes: int = PIECE_BYTES
    ) -> None:
        self._objects, self._ref, self._position = objects, ref, position
        self._buffer = memoryview(bytearray(min(piece_bytes, max(ref.byte_length - position, HEADER_BYTES))))

    def read(self) -> memoryview | None:
        """The next piece, at least one batch, or None at the end. The memory is used again by the next call."""
        ref = self._ref
        while self._position < ref.byte_length:
            piece = self._buffer[: ref.byte_length - self._position]
            count = self._objects.read_into(ref.object_key, ref.byte_offset + self._position, piece)
            if count < len(piece):
                raise CorruptData(f"{ref.object_key} ends {len(piece) - count} bytes before its segment does")
            end = self._whole_batches(piece)
            if end:
                self._position += end
                return piece[:end]
        return None

    def _whole_batches(self, piece: memoryview) -> int:
        """Where the last whole batch ends; room is made for the first one if that is not whole."""
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
            if self._position + needed > self._ref.byte_length:
                raise CorruptData(f"a batch of {self._ref.object_key} reaches beyond its segment")
            self._buffer = memoryview(bytearray(needed))
        return end


class Rewrite:
    """One segment made of others. Steps run one after the other; `abort` ends it early."""

    def __init__(
        self, changes: SegmentChanges, partition: Partition, refs: Sequence[SegmentRef], transform: Transform | None
    ) -> None:
        self.partition, self.refs = partition, refs
        self.read_bytes = 0
        self.written_bytes = 0
        self.is_done = False
        self.conflicted = False
        """Whether the segments had changed meanwhile, and nothing was replaced."""
        self._changes, self._transform = changes, transform
        self._upload: Upload | None = None
        self._writer: ObjectWriter | None = None
        self._builder: SegmentBuilder | None = None
        self._waiting = list(reversed(refs))
        self._reader: SegmentReader | None = None
        self._changed = len(refs) > 1

    async def step(self) -> None:
        """Read and write a few pieces; with the last one, replace the segments."""
        changes, clock = self._changes, self._changes.clock
        if self._upload is None:
            self._upload = changes.uploads.begin()
        ends_at = clock.monotonic() + STEP_S
        for _ in range(STEP_PIECES):
            if not await changes.in_thread(self._copy_piece):
                await self._finish()
                return
            if clock.monotonic() >= ends_at:
                return

    def abort(self) -> None:
        """Give up. What was written is forgotten."""
        writer, upload = self._writer, self._upload
        self._writer = self._upload = None
        self.is_done = True
        if writer is not None:
            writer.abort()
        if upload is not None:
            self._changes.uploads.end(upload)

    # ---- pieces: on a worker thread --------------------------------------------------------------------------

    def _copy_piece(self) -> bool:
        """Copy one piece; False when there was none left."""
        while True:
            if self._reader is None:
                if not self._waiting:
                    return False
                self._reader = SegmentReader(self._changes.objects, self._waiting.pop())
            piece = self._reader.read()
            if piece is not None:
                break
            self._reader = None
        self.read_bytes += len(piece)
        if self._transform is not None:
            self._write_what_is_left(piece, self._transform)
            return True
        self._write(piece)
        if self._builder is None:
            self._builder = SegmentBuilder(self.refs[0].base_offset)
            self._builder.cover(self.refs[-1].last_offset, sum(ref.record_count for ref in self.refs), NO_TIMESTAMP)
        self._builder.add_batches(piece)
        return True

    def _write_what_is_left(self, piece: memoryview, transform: Transform) -> None:
        """Write the batches that stay, neighbours together."""
        start = 0
        for position, header in iter_batches(piece):
            # What is damaged must not get a new, valid checksum.
            verify_crc(piece, position, header)
            batch = piece[position : position + header.size_bytes]
            left = transform(header, batch)
            if left is batch:
                self._account(header)
                continue
            self._changed = True
            self._write(piece[start:position])
            start = position + header.size_bytes
            if left is not None:
                self._write(left)
                self._account(parse_header(left))
        self._write(piece[start:])

    def _write(self, data: Buffer) -> None:
        if not len(data):
            return
        if self._writer is None:
            assert self._upload is not None
            self._writer = self._changes.objects.open_writer(self._upload.key)
        self._writer.write(data)
        self.written_bytes += len(data)

    def _account(self, header: BatchHeader) -> None:
        if self._builder is None:
            self._builder = SegmentBuilder(header.base_offset)
        self._builder.add(header.base_offset, header.size_bytes, header.max_timestamp)
        self._builder.cover(header.last_offset, header.record_count, NO_TIMESTAMP)

    # ---- the end ---------------------------------------------------------------------------------------------

    async def _finish(self) -> None:
        self.is_done = True
        try:
            if not self._changed:
                return
            if self._writer is None or self._builder is None or self._upload is None:
                await self._changes.replace(self.partition, None, self.refs, ())
            else:
                await self._changes.in_thread(self._writer.commit)
                await self._name(self._upload, self._builder)
        except Conflict as conflict:
            self.conflicted = True
            _log.info("segments changed while they were rewritten: %s", conflict)
        finally:
            self.abort()

    async def _name(self, upload: Upload, builder: SegmentBuilder) -> None:
        changes, refs = self._changes, self.refs
        builder.min_timestamp = min((ref.min_timestamp for ref in refs if ref.min_timestamp >= 0), default=NO_TIMESTAMP)
        ref = builder.finish(
            partition_id=self.partition.partition_id, object_id=upload.object_id, object_key=upload.key,
            byte_offset=0, generation=max(ref.generation for ref in refs) + 1,
        )  # fmt: skip
        new = NewObject(
            object_id=upload.object_id, shard_id=changes.shard_id, key=upload.key, size_bytes=builder.byte_length,
            created_ms=changes.clock.now_ms(),
        )  # fmt: skip
        try:
            await changes.replace(self.partition, new, refs, (ref,))
        except Conflict:
            await self._delete_object(upload)
            raise

    async def _delete_object(self, upload: Upload) -> None:
        """Remove an object that will never be named. What fails here is left to the orphan sweep."""
        try:
            await self._changes.in_thread(lambda: self._changes.objects.delete([upload.key]))
        except PlatformError as problem:
            _log.info("an object that nothing names stays for now: %s", problem)
