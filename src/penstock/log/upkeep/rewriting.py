"""Replacing segments by rewritten ones: what merging, key compaction and evacuation have in common.

A `Rewrite` reads consecutive segments of a partition, oldest first, and writes one segment into a new object: the same
batches, or what a `Transform` makes of each. Several partitions may share the object. It works in pieces of
`PIECE_BYTES`, or less where batches are decoded, so memory holds one piece (or one batch, if that is larger), and in
steps of a few pieces, so that others get their turn. The last step names the object and removes the old rows in one
transaction, on condition that those rows still exist. If they do not, the work was in vain and its object is garbage.
Readers that had looked up the old segments finish undisturbed: the objects live on for the grace period of garbage
collection.

`SegmentChanges` is the only way to change existing segments. It keeps memory consistent with the database: the segment
index, and the sizes of partitions.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from typing import TypeVar

from penstock.base.clock import Clock
from penstock.base.dataclasses import dataclass
from penstock.base.errors import Conflict, OutcomeUnknown, PlatformError, Unavailable
from penstock.base.log_throttle import LogThrottle
from penstock.keys.model import KeysErased
from penstock.log import segment_store
from penstock.log.aborted import forget_aborted
from penstock.log.model import NO_TIMESTAMP, Partition, Seal
from penstock.log.sealing import Sealing
from penstock.log.seals import SealedWriting
from penstock.log.segment_store import NewObject
from penstock.log.segments import SegmentBuilder, SegmentIndex, SegmentRef
from penstock.log.upkeep.segment_reader import DECODED_PIECE_BYTES, KeyUnavailable, SegmentReader
from penstock.log.upkeep.uploads import Upload, Uploads
from penstock.metadata.database import Database
from penstock.storage.object_store import ObjectStore, ObjectWriter
from penstock.storage.wal import Buffer
from penstock.wire.records import BatchHeader, iter_batches, parse_header, verify_crc

T = TypeVar("T")
StoreRows = Callable[[], Awaitable[int]]
Transform = Callable[[BatchHeader, Buffer], Buffer | None]
"""From a batch to what remains of it: the same object if nothing changes, other bytes, or None."""

PIECE_BYTES = 256 * 1024
STEP_BYTES = 2 * 1024 * 1024
SMALL_READS = 64
"""How many small segments are read at once at most."""
STEP_S = 0.1
"""A step ends after so many bytes or so much time, whichever comes first."""
COMPLAIN_EVERY_S = 600.0
ATTEMPTS = 3
"""How often a replacement with unknown outcome is retried."""
_ALL = 2**63 - 1
_log = logging.getLogger(__name__)


class SegmentChanges:
    """Changes segments: first durably, then in memory. On the loop's thread."""

    def __init__(
        self, *, database: Database, segments: SegmentIndex, objects: ObjectStore, uploads: Uploads, clock: Clock,
        executor: Executor | None, shard_id: int = 1, on_garbage: Callable[[], None] = lambda: None,
        on_doubt: Callable[[], None] = lambda: None, store_rows: StoreRows | None = None,
        sealing: Sealing | None = None,
    ) -> None:  # fmt: skip
        self.sealing = sealing
        self.database, self.segments, self.objects, self.uploads = database, segments, objects, uploads
        self.clock = clock
        self.shard_id = shard_id
        self.on_garbage = on_garbage
        """Called when objects may have lost their last segment."""
        self.on_doubt = on_doubt
        """Called when `settle` has something to do."""
        self._store_rows = store_rows
        self.rewriting: set[int] = set()
        """Partitions whose segments are being rewritten: by one chore at a time."""
        self._executor = executor
        self._doubtful: set[Partition] = set()
        """Partitions whose size in memory may be wrong, because the answer of a change was lost."""
        self._log_throttle = LogThrottle(clock, COMPLAIN_EVERY_S)
        self._in_doubt: list[Upload] = []
        """Objects of which it is unknown whether they are named."""

    async def store_rows(self) -> int:
        """Wait until the database has a row for every commit so far; the last commit that it is known to have.

        To be called before commits are read or counted in the database.
        """
        return _ALL if self._store_rows is None else await self._store_rows()

    def is_locked(self, partition: Partition) -> bool:
        """Whether nothing of a partition can be rewritten now, because it could not be sealed."""
        return self.sealing is not None and self.sealing.is_locked(partition.topic)

    async def load_keys(self, refs: Iterable[SegmentRef]) -> None:
        """Load the keys of segments into memory. Raises `KeyUnavailable` while they are unavailable, or
        `KeysErased`."""
        if self.sealing is None:
            return
        try:
            await self.sealing.ready_soon(ref.seal for ref in refs)
        except Unavailable as problem:
            raise KeyUnavailable(str(problem)) from problem

    async def can_open(self, partition: Partition, refs: Iterable[SegmentRef]) -> bool:
        """Whether segments can be opened now. If not, their partition is skipped, so that others do not wait for its
        key."""
        try:
            await self.load_keys(refs)
        except (KeyUnavailable, KeysErased) as problem:
            self.complain(partition, problem)
            return False
        return True

    def complain(self, partition: Partition, problem: Exception) -> None:
        """Log that a partition is skipped because it cannot be opened, at a limited rate: there may be thousands."""
        if self._log_throttle.is_due():
            _log.error("%s-%d, for one, is not rewritten now: %s", partition.topic.name, partition.index, problem)

    def pieces(self, done_bytes: Callable[[], int]) -> Iterator[None]:
        """The pieces of a step. `done_bytes` counts what was done of them."""
        enough, ends_at = done_bytes() + STEP_BYTES, self.clock.monotonic() + STEP_S
        yield
        while done_bytes() < enough and self.clock.monotonic() < ends_at:
            yield

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Run blocking work on the executor."""
        if self._executor is None:
            await asyncio.sleep(0)
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    async def replace(
        self, partitions: Sequence[Partition], new: NewObject | None, removed: Sequence[SegmentRef],
        added: Sequence[SegmentRef],
    ) -> None:  # fmt: skip
        """Replace segments by others; raise `Conflict` if one of the old ones does not exist any more.

        Raises `OutcomeUnknown` when the outcome could not be looked up either: the new object may be named.
        """
        await self.settle()
        try:
            await self._replace_durably(new, removed, added)
        except BaseException:
            self._uncertain(partitions)
            raise
        self.segments.remove(removed)
        grown = Counter({ref.partition_id: 0 for ref in removed})
        for refs, sign in ((added, 1), (removed, -1)):
            for ref in refs:
                grown[ref.partition_id] += sign * ref.byte_length
        for partition in partitions:
            partition.size_bytes += grown[partition.partition_id]
        self.on_garbage()

    async def _replace_durably(
        self, new: NewObject | None, removed: Sequence[SegmentRef], added: Sequence[SegmentRef]
    ) -> None:
        """An attempt whose answer was lost is retried. The retry waits for it by the row lock, and once it has happened
        the old rows do not exist any more."""
        now_ms = self.clock.now_ms()
        lost: OutcomeUnknown | None = None
        for _ in range(ATTEMPTS):
            try:
                await self.database.transaction(
                    lambda: segment_store.replace(new, removed, added, now_ms), background=True, locking=True
                )
                return
            except OutcomeUnknown as problem:
                lost = problem
            except Conflict:
                if lost is None or not await self._is_replaced(new, removed[0]):
                    raise
                return
            except Unavailable as problem:
                if lost is None:
                    raise
                raise OutcomeUnknown(f"whether segments were replaced is not known: {problem}") from lost
        raise OutcomeUnknown("whether segments were replaced is not known: the database loses its answers") from lost

    async def _is_replaced(self, new: NewObject | None, removed: SegmentRef) -> bool:
        """Whether an attempt whose answer was lost has happened, now that it cannot be in flight any more."""
        try:
            if new is not None:
                return await self.database.read(lambda: segment_store.has_object(new.object_id))
            return not await self._is_there(removed)
        except Unavailable as problem:
            raise OutcomeUnknown(f"whether segments were replaced is not known: {problem}") from problem

    async def _is_there(self, ref: SegmentRef) -> bool:
        rows = await self.database.read(lambda: segment_store.segments_from(ref.partition_id, ref.last_offset, 1))
        return bool(rows) and (rows[0][2], bytes(rows[0][3])) == (ref.last_offset, ref.object_id)

    def mark_uncertain(self, upload: Upload) -> None:
        """Resolve later whether the object is named. Until then it stays registered, so that nobody deletes it."""
        self._in_doubt.append(upload)
        self.on_doubt()

    async def drop_below_start(self, partition: Partition, limit: int) -> int:
        """Remove segments that end below the log start, at most `limit`; how many."""
        await self.settle()
        partition_id, log_start, now_ms = partition.partition_id, partition.log_start, self.clock.now_ms()
        try:
            count, size_bytes = await self.database.transaction(
                lambda: segment_store.drop_below(partition_id, log_start, limit, now_ms), background=True, locking=True
            )
        except OutcomeUnknown:
            self._uncertain([partition])
            raise
        forget_aborted(partition)
        if count:
            self.segments.drop(partition_id)
            partition.size_bytes -= size_bytes
            self.on_garbage()
        return count

    def _uncertain(self, partitions: Sequence[Partition]) -> None:
        """A change of these partitions failed with an unknown outcome."""
        for partition in partitions:
            self.segments.drop(partition.partition_id)
        self._doubtful.update(partitions)
        self.on_doubt()
        self.on_garbage()

    async def settle(self) -> None:
        """Resolve whether objects are named, and correct sizes in memory from the database, where changes had an
        unknown outcome."""
        while self._in_doubt:
            await self._resolve(self._in_doubt[0])
            del self._in_doubt[0]
        while self._doubtful:
            partition = next(iter(self._doubtful))
            stored = await self.database.transaction(
                lambda: segment_store.size_for_good(self.shard_id, partition.partition_id),  # noqa: B023
                background=True, locking=True,
            )  # fmt: skip
            if stored is not None:
                size_bytes, segmented_to = stored
                partition.size_bytes = size_bytes + sum(
                    span.byte_length for span in partition.spans if span.base_offset >= segmented_to
                )
            self._doubtful.discard(partition)

    async def _resolve(self, upload: Upload) -> None:
        """Resolve whether an object is named; one that is not, and never will be, is deleted."""
        is_named = await self.database.transaction(
            lambda: segment_store.is_named_for_good(self.shard_id, upload.object_id), background=True, locking=True
        )
        if not is_named:
            await self.in_thread(lambda: self.objects.delete([upload.key]))
        self.uploads.end(upload)


@dataclass(slots=True)
class Part:
    """Consecutive segments of one partition that become one."""

    partition: Partition
    refs: Sequence[SegmentRef]
    builder: SegmentBuilder | None = None
    """The new segment; None while nothing of it is written."""
    byte_offset: int = 0
    seal: Seal | None = None
    """The seal of the new segment."""


class Rewrite:
    """Segments rewritten into one new object. Steps run one after the other; `abort` ends it early."""

    def __init__(self, changes: SegmentChanges, parts: Sequence[Part], transform: Transform | None) -> None:
        self.parts = parts
        self.read_bytes = 0
        self.written_bytes = 0
        self.stored_bytes = 0
        """Stored bytes, which differ from plain ones where parts are sealed."""
        self.is_done = False
        self.conflicted = False
        """Whether the segments had changed meanwhile, so that nothing was replaced."""
        self._changes, self._transform = changes, transform
        self._piece_bytes = PIECE_BYTES if transform is None else DECODED_PIECE_BYTES
        self._upload: Upload | None = None
        self._writer: ObjectWriter | None = None
        self._sealed: SealedWriting | None = None
        """Where bytes of the current part are written, if they are sealed."""
        self._waiting = [(part, ref) for part in reversed(parts) for ref in reversed(part.refs)]
        self._part = parts[0]
        self._reader: SegmentReader | None = None
        self._changed = transform is None or any(len(part.refs) > 1 for part in parts)

    @property
    def partitions(self) -> list[Partition]:
        """Each once; several parts may be of one partition, in the order of offsets."""
        return list({part.partition: None for part in self.parts})

    @property
    def removed(self) -> list[SegmentRef]:
        """All segments to be replaced."""
        return [ref for part in self.parts for ref in part.refs]

    @property
    def current(self) -> Partition:
        """The partition that is being read."""
        return self._part.partition

    async def step(self) -> None:
        """Read and write a few pieces; the last step replaces the segments."""
        changes = self._changes
        if self._upload is None:
            for part in self.parts:
                self._part = part  # Whose key is missing, if it is.
                await changes.load_keys(part.refs)
            self._upload = changes.uploads.begin()
        if not await changes.in_thread(self._copy_pieces):
            await self._finish()

    def abort(self) -> None:
        """Stop. What was written is deleted."""
        writer, upload = self._writer, self._upload
        self._writer = self._upload = None
        self.is_done = True
        if writer is not None:
            writer.abort()
        if upload is not None:
            self._changes.uploads.end(upload)

    # ---- pieces: on a worker thread --------------------------------------------------------------------------

    def _copy_pieces(self) -> bool:
        """Copy a few pieces; False when there was nothing left."""
        return all(self._copy_some() for _ in self._changes.pieces(lambda: self.read_bytes))

    def _copy_some(self) -> bool:
        """Copy a piece, or several small segments; False when there was nothing left."""
        enough = self.read_bytes + self._piece_bytes // 2
        for _ in range(SMALL_READS):
            piece = self._next_piece()
            if piece is None:
                return False
            self.read_bytes += len(piece)
            if self._transform is None:
                self._copy(piece)
            else:
                self._write_what_is_left(piece, self._transform)
            if self.read_bytes >= enough:
                break
        return True

    def _next_piece(self) -> memoryview | None:
        while True:
            if self._reader is None:
                if not self._waiting:
                    return None
                self._part, ref = self._waiting.pop()
                changes, partition = self._changes, self._part.partition
                self._reader = SegmentReader(
                    changes.objects, changes.sealing, partition, ref, piece_bytes=self._piece_bytes
                )
            piece = self._reader.read()
            if piece is not None:
                return piece
            self._reader = None

    def _copy(self, piece: memoryview) -> None:
        refs = self._part.refs
        builder = self._builder(refs[0].base_offset)
        if builder.record_count == 0:
            builder.cover(refs[-1].last_offset, sum(ref.record_count for ref in refs), NO_TIMESTAMP)
        builder.add_batches(piece)
        self._write(piece)

    def _builder(self, base_offset: int) -> SegmentBuilder:
        """The builder of the part's new segment, which begins here if it has not: call it before its first bytes."""
        part = self._part
        if part.builder is None:
            self._begin_part(part)
            part.builder, part.byte_offset = SegmentBuilder(base_offset), self.stored_bytes
        return part.builder

    def _write_what_is_left(self, piece: memoryview, transform: Transform) -> None:
        """Write the batches that stay, neighbours at once."""
        start = 0
        for position, header in iter_batches(piece):
            # A damaged batch must not get a new, valid checksum.
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
                self._account(parse_header(left))
                self._write(left)
        self._write(piece[start:])

    def _write(self, data: Buffer) -> None:
        if not len(data):
            return
        self.written_bytes += len(data)
        if self._sealed is not None:
            self._sealed.add(data)
        else:
            self._store(data)

    def _begin_part(self, part: Part) -> None:
        """The following bytes belong to another part, and may be sealed by another key."""
        self._end_part()
        sealing = self._changes.sealing
        made = None if sealing is None else sealing.new_range(part.partition)
        if made is not None:
            cipher, part.seal = made
            self._sealed = SealedWriting(cipher, self._store)

    def _end_part(self) -> None:
        if self._sealed is not None:
            self._sealed.end()
        self._sealed = None

    def _store(self, data: Buffer) -> None:
        if self._writer is None:
            assert self._upload is not None
            self._writer = self._changes.objects.open_writer(self._upload.key)
        self._writer.write(data)
        self.stored_bytes += len(data)

    def _account(self, header: BatchHeader) -> None:
        builder = self._builder(header.base_offset)
        builder.add(header.base_offset, header.size_bytes, header.max_timestamp)
        builder.cover(header.last_offset, header.record_count, NO_TIMESTAMP)

    # ---- the end ---------------------------------------------------------------------------------------------

    async def _finish(self) -> None:
        self.is_done = True
        try:
            if not self._changed:
                return
            await self._changes.in_thread(self._end_part)
            if self._writer is None or self._upload is None:
                await self._changes.replace(self.partitions, None, self.removed, ())
            else:
                await self._changes.in_thread(self._writer.commit)
                await self._name(self._upload)
        except Conflict as conflict:
            self.conflicted = True
            _log.info("segments changed while they were rewritten: %s", conflict)
        finally:
            self.abort()

    async def _name(self, upload: Upload) -> None:
        changes = self._changes
        added = [_row(part, part.builder, upload) for part in self.parts if part.builder is not None]
        new = NewObject(
            object_id=upload.object_id, shard_id=changes.shard_id, key=upload.key, size_bytes=self.stored_bytes,
            created_ms=changes.clock.now_ms(),
        )  # fmt: skip
        try:
            await changes.replace(self.partitions, new, self.removed, added)
        except Conflict:
            await self._delete_object(upload)
            raise
        except OutcomeUnknown:
            self._upload = None
            changes.mark_uncertain(upload)
            raise

    async def _delete_object(self, upload: Upload) -> None:
        """Delete an object that will never be named. If that fails, the orphan sweep does it."""
        try:
            await self._changes.in_thread(lambda: self._changes.objects.delete([upload.key]))
        except PlatformError as problem:
            _log.info("an object that nothing names stays for now: %s", problem)


def _row(part: Part, builder: SegmentBuilder, upload: Upload) -> SegmentRef:
    times = [ref.min_timestamp for ref in part.refs if ref.min_timestamp >= 0]
    builder.min_timestamp = min(times, default=NO_TIMESTAMP)
    return builder.finish(
        partition_id=part.partition.partition_id, object_id=upload.object_id, object_key=upload.key,
        byte_offset=part.byte_offset, seal=part.seal, generation=max(ref.generation for ref in part.refs) + 1,
    )  # fmt: skip
