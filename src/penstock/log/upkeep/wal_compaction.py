"""WAL compaction: commits of many partitions become segments of single ones.

A pass takes the oldest commits above the shard's WAL floor and writes one object, grouped by partition. Bytes that are
still in the tail are taken from there; others are read back from the WAL, many objects at once (see
compaction_output.py). WAL files that consist of long ranges become objects as they are (see adoption.py). Then one
transaction names the segments, advances partitions and the floor, and counts usage. Only after it do partitions in
memory drop their references to the WAL, and only then is its space released.

A crash at any point leaves the state before that transaction or after it. Before it, new objects are orphans, which the
orphan sweep deletes; after it, rows up to the floor are obsolete, and a start treats their space in the WAL as free.
When the transaction's answer is lost, its outcome is looked up before anything else is done.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

from penstock.base.dataclasses import dataclass
from penstock.base.errors import CorruptData, OutcomeUnknown, PlatformError
from penstock.log.aborted import forget_aborted
from penstock.log.recovery import commits_after, read_commit
from penstock.log.registry import Registry
from penstock.log.segment_store import Fold, NewObject
from penstock.log.segments import SegmentRef
from penstock.log.upkeep import wal_store
from penstock.log.upkeep.adoption import Adoption
from penstock.log.upkeep.compaction_output import SLICE, CompactionOutput, in_slices
from penstock.log.upkeep.rewriting import SegmentChanges
from penstock.log.upkeep.uploads import Upload
from penstock.log.upkeep.wal_backlog import Backlog
from penstock.log.upkeep.wal_plan import CompactionPlan, PartitionRange, WalFile
from penstock.log.upkeep.wal_store import FloorAdvance
from penstock.storage.arena import Arena
from penstock.storage.wal import WalLocation, WalStore

ROWS_AT_ONCE = 500
FORGOTTEN_AT_ONCE = 500
RELEASED_AT_ONCE = 256
SPANS_AT_ONCE = 2_000
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class CompactionStats:
    """Counted since the process started."""

    passes: int = 0
    commits: int = 0
    segments: int = 0
    written_bytes: int = 0
    adopted_bytes: int = 0
    """Bytes in WAL files that became objects as they were."""
    read_bytes: int = 0
    """Bytes that were not in memory any more."""
    unreadable_bytes: int = 0
    """Bytes that could not be read, and were left in place."""


@dataclass(slots=True)
class _Pass:
    """A pass whose objects are written: what is to be committed to the database and then applied in memory."""

    plan: CompactionPlan
    advance: FloorAdvance
    uploads: Sequence[Upload]


class WalCompaction:
    """The chore that moves commits from the WAL into segments."""

    name = "wal compaction"

    def __init__(
        self, changes: SegmentChanges, *, wal: WalStore, registry: Registry, backlog: Backlog,
        on_segments: Callable[[Iterable[int]], None] = lambda partition_ids: None, adoption: Adoption | None = None,
    ) -> None:  # fmt: skip
        self._changes, self._wal, self._registry, self._queue = changes, wal, registry, backlog
        self._on_segments = on_segments
        """Called after each pass with the partitions that got segments."""
        self._adoption = adoption or Adoption(changes, wal)
        self._arena = Arena(backlog.policy.pass_bytes, huge=True)
        self._unsettled: _Pass | None = None
        """A pass whose outcome is unknown."""
        self._unreleased: list[WalLocation] = []
        self._forgets = True
        """Whether there may be obsolete rows."""
        self._unnotified: set[int] = set()
        """Partitions that got segments, and for which `on_segments` was not called yet."""
        self.stats = CompactionStats()

    @property
    def backlog(self) -> int:
        """Bytes that are only in the WAL."""
        return self._queue.size_bytes

    async def run(self) -> float | None:
        """One pass, if one is due."""
        await self._tidy_up()
        delay_s = self._queue.delay_s()
        if delay_s == 0:
            await self._compact(waits=True)
            await self._tidy_up()
            delay_s = self._queue.delay_s()
        if delay_s is None:
            self._arena.drop()
        return delay_s

    async def compact_everything(self) -> None:
        """Compact every commit there is, whatever the policy says."""
        await self._tidy_up()
        while self._queue.rows:
            await self._compact(waits=False)
            await self._tidy_up()

    async def _compact(self, *, waits: bool) -> None:
        """One pass, unless (`waits`) it is better postponed."""
        uploads: list[Upload] = []
        try:
            done = await self._prepare(uploads, waits=waits)
            if done is None:
                return
            await self._commit(done)
        except PlatformError:
            if self._unsettled is None:
                await self._delete_objects(uploads)
            raise
        finally:
            if self._unsettled is None:
                self._end(uploads)

    # ---- what is to be done ----------------------------------------------------------------------------------

    async def _prepare(self, uploads: list[Upload], *, waits: bool) -> _Pass | None:
        """Plan a pass and write its objects; None if it is better postponed."""
        queue = self._queue
        stored_seq = await self._changes.store_rows()
        plan = await self._plan(min(queue.last_seq, stored_seq))
        if waits and queue.can_be_postponed and plan.is_sparse:
            queue.postpone()
            return None
        adopted, growing = await self._adopt_files(plan, uploads)
        if growing is not None and waits and not queue.is_urgent:
            # Once the file is full it becomes an object without being copied.
            if growing.first_seq <= plan.floor + 1:
                queue.hold()
                return None
            plan = await self._plan(growing.first_seq - 1)
        uploads.append(upload := self._changes.uploads.begin())
        by_key = {file.key: (found, size_bytes) for file, found, size_bytes in adopted}
        output = CompactionOutput(
            self._changes, self._wal, self._arena, upload, {key: found for key, (found, _) in by_key.items()},
            partial(self._keep, uploads, by_key),
        )  # fmt: skip
        refs = await output.write(plan.ranges.values())
        if not output.read_bytes:
            self._arena.drop()
        stats = self.stats
        stats.read_bytes += output.read_bytes
        stats.unreadable_bytes += output.unreadable_bytes
        stats.written_bytes += output.written_bytes
        stats.adopted_bytes += sum(size_bytes for _, _, size_bytes in adopted)
        sizes = [*by_key.values()]
        if output.written_bytes:
            sizes.append((upload, output.written_bytes))
        else:
            self._end((upload,))
            uploads.remove(upload)
        return _Pass(plan, await self._advance(plan, refs, sizes), uploads)

    async def _adopt_files(
        self, plan: CompactionPlan, uploads: list[Upload]
    ) -> tuple[list[tuple[WalFile, Upload, int]], WalFile | None]:
        """Adopt the files that can be objects, returned with their sizes; and the first one that still grows."""
        adopted: list[tuple[WalFile, Upload, int]] = []
        for file in self._adoption.candidates(plan.files, plan.ranges.values()):
            shared = await self._adoption.share(file.key)
            if shared is None:
                return adopted, file
            uploads.append(upload := self._changes.uploads.begin())
            size_bytes = await self._adoption.adopt(shared, upload)
            if size_bytes is None:
                break
            adopted.append((file, upload, size_bytes))
        return adopted, None

    async def _keep(self, uploads: list[Upload], kept: dict[str, tuple[Upload, int]], key: str) -> Upload | None:
        """Make a WAL file with unreadable data an object as it is; None where that does not work now."""
        shared = await self._adoption.share(key)
        if shared is None:
            return None
        uploads.append(upload := self._changes.uploads.begin())
        size_bytes = await self._adoption.adopt(shared, upload)
        if size_bytes is None:
            return None
        kept[key] = upload, size_bytes
        return upload

    async def _plan(self, last_seq: int) -> CompactionPlan:
        """Plan a pass over the commits up to `last_seq`."""
        changes, queue = self._changes, self._queue
        floor = await changes.database.read(lambda: wal_store.floor_of(changes.shard_id))
        plan, position = CompactionPlan(self._registry, queue.policy, floor), floor
        while await self._add_commits(plan, position, last_seq):
            position = plan.new_floor
        if not plan.rows:
            raise CorruptData(f"there are no commits after {floor}, but {queue.rows} were counted")
        await in_slices(_taking_spans(plan.ranges.values()))
        return plan

    async def _add_commits(self, plan: CompactionPlan, position: int, last_seq: int) -> bool:
        """Plan the next commits; whether there may be more for this plan."""
        changes, handled = self._changes, 0
        rows = await changes.database.read(partial(commits_after, changes.shard_id, position, ROWS_AT_ONCE))
        for row in rows:
            commit = read_commit(row)
            # After it there may be commits that are not applied in memory yet.
            if commit.seq > last_seq or not plan.has_room_for(commit):
                return False
            plan.add(commit)
            handled += 2 + sum(1 + len(entry.producer_batches) // 2 for entry in commit.entries)
            if handled >= SLICE:
                handled = 0
                await asyncio.sleep(0)
        return len(rows) == ROWS_AT_ONCE

    async def _advance(
        self, plan: CompactionPlan, refs: Sequence[SegmentRef], sizes: Iterable[tuple[Upload, int]]
    ) -> FloorAdvance:
        changes, now_ms = self._changes, self._changes.clock.now_ms()
        folds: list[Fold] = []
        await in_slices(_folding(plan.ranges.values(), folds))
        return FloorAdvance(
            shard_id=changes.shard_id, floor=plan.floor, new_floor=plan.new_floor,
            objects=[
                NewObject(
                    object_id=upload.object_id, shard_id=changes.shard_id, key=upload.key, size_bytes=size_bytes,
                    created_ms=now_ms,
                )
                for upload, size_bytes in sizes
            ],
            segments=refs, folds=folds,
            used=plan.used(), used_by_unknown=plan.used_by_unknown(),
        )  # fmt: skip

    # ---- making it true --------------------------------------------------------------------------------------

    async def _commit(self, done: _Pass) -> None:
        self._unsettled = done
        try:
            accepted = await self._changes.database.transaction(
                lambda: wal_store.advance(done.advance), background=True, locking=True
            )
        except OutcomeUnknown:
            await self._settle(done)
        except PlatformError:
            self._unsettled = None
            raise
        else:
            await self._apply(done, accepted)

    async def _settle(self, done: _Pass) -> None:
        """Resolve whether a pass happened, for good: objects of one that still might must not be deleted. Nothing else
        can be done until this succeeds."""
        accepted = await self._changes.database.transaction(
            lambda: wal_store.outcome(done.advance), background=True, locking=True
        )
        if accepted is not None:
            await self._apply(done, accepted)
            return
        self._unsettled = None
        self._end(done.uploads)
        await self._delete_objects(done.uploads)

    async def _apply(self, done: _Pass, accepted: frozenset[int]) -> None:
        """Apply a pass to memory."""
        plan, refs = done.plan, [ref for ref in done.advance.segments if ref.partition_id in accepted]
        self._changes.segments.add(refs)
        await in_slices(_releasing(plan.ranges.values()))
        self._unsettled = None
        self._end(done.uploads)
        self._unreleased += plan.locations
        self._forgets = True
        self._queue.done(
            rows=plan.rows, entries=plan.entries, size_bytes=plan.held_bytes, committed_ms=plan.committed_ms
        )
        stats = self.stats
        stats.passes += 1
        stats.commits += plan.rows
        stats.segments += len(refs)
        self._unnotified.update(ref.partition_id for ref in refs)
        named = {ref.object_id for ref in refs}
        await self._delete_objects([upload for upload in done.uploads if upload.object_id not in named])

    def _end(self, uploads: Iterable[Upload]) -> None:
        for upload in uploads:
            self._changes.uploads.end(upload)

    async def _delete_objects(self, uploads: Sequence[Upload]) -> None:
        """Delete objects that will never be named. If that fails, the orphan sweep does it."""
        keys = [upload.key for upload in uploads]
        try:
            if keys:
                await self._changes.in_thread(lambda: self._changes.objects.delete(keys))
        except PlatformError as problem:
            _log.info("cannot delete unreferenced objects now: %s", problem)

    async def _tidy_up(self) -> None:
        """Finish what the last pass left to do, which may be everything if something failed."""
        if self._unsettled is not None:
            await self._settle(self._unsettled)
        while self._unreleased:
            locations = self._unreleased[:RELEASED_AT_ONCE]
            await self._changes.in_thread(partial(self._wal.release, locations))
            del self._unreleased[:RELEASED_AT_ONCE]
        if self._forgets:
            await self._forget_commits()
            told, self._unnotified = sorted(self._unnotified), set()
            self._on_segments(told)

    async def _forget_commits(self) -> None:
        changes = self._changes
        floor = await changes.database.read(lambda: wal_store.floor_of(changes.shard_id))
        while await changes.database.transaction(
            lambda: wal_store.forget_commits(changes.shard_id, floor, FORGOTTEN_AT_ONCE), background=True
        ):
            pass
        self._forgets = False


def _taking_spans(ranges: Iterable[PartitionRange]) -> Iterator[int]:
    for moved in ranges:
        moved.take_spans()
        yield len(moved.spans) // 8 + 4


def _folding(ranges: Iterable[PartitionRange], folds: list[Fold]) -> Iterator[int]:
    for moved in ranges:
        if not moved.is_empty:
            folds.append(moved.fold())
        yield 4 + 4 * len(moved.producers)


def _releasing(ranges: Iterable[PartitionRange]) -> Iterator[int]:
    """Partitions are in segments up to there, and their spans only matter for what is in memory.

    The database says so already, so any order is correct.
    """
    for moved in ranges:
        partition = moved.partition
        partition.segmented_to = max(partition.segmented_to, moved.end_offset)
        partition.size_bytes -= moved.skipped_bytes
        partition.segmented_transactions = moved.transactions
        forget_aborted(partition)
        for number, span in enumerate(moved.taken, 1):
            span.location = None
            if number % SPANS_AT_ONCE == 0:
                yield SLICE
        partition.drop_lost_spans()
        yield len(moved.taken) // 8 + 4
