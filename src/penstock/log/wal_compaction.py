"""WAL compaction: commits of many partitions become segments of single ones.

A pass takes the oldest commits above the shard's WAL floor and writes one object with the batches of each partition
side by side. Bytes that are still in the tail are taken from there, with their offsets in place; others are read back
from the WAL, many objects at once, and given their offsets on the way. Then one transaction names the segments, moves
partitions and the floor on, and counts what was used. Only after it do partitions in memory let go of the WAL, and is
its space released.

Whatever dies wherever leaves the state before that transaction or the one after it. Before it, the new object is an
orphan, which the orphan sweep removes; after it, rows up to the floor mean nothing, and a start takes their space in
the WAL for free. When the transaction's answer is lost, its outcome is looked up before anything else is done.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from penstock.base.errors import CorruptData, OutcomeUnknown, PlatformError
from penstock.log import wal_store
from penstock.log.gathering import SLICE, Gathering, in_slices
from penstock.log.recovery import commits_after, read_commit
from penstock.log.registry import Registry
from penstock.log.rewriting import SegmentChanges
from penstock.log.segment_store import NewObject
from penstock.log.segments import SegmentRef
from penstock.log.uploads import Upload
from penstock.log.wal_backlog import Backlog
from penstock.log.wal_plan import Plan, Stretch
from penstock.log.wal_store import Advance
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
    read_bytes: int = 0
    """What was not in memory any more."""


@dataclass(slots=True)
class _Pass:
    """A pass whose object is written: what is to be made true in the database, then in memory."""

    plan: Plan
    advance: Advance
    upload: Upload


class WalCompaction:
    """The chore that moves commits from the WAL into segments."""

    name = "wal compaction"

    def __init__(
        self, changes: SegmentChanges, *, wal: WalStore, registry: Registry, backlog: Backlog,
        on_segments: Callable[[Iterable[int]], None] = lambda partition_ids: None,
    ) -> None:  # fmt: skip
        self._changes, self._wal, self._registry, self._queue = changes, wal, registry, backlog
        self._on_segments = on_segments
        """Told after each pass which partitions got segments."""
        self._arena = Arena(backlog.policy.pass_bytes)
        self._unsettled: _Pass | None = None
        """A pass of which is not known whether it happened."""
        self._unreleased: list[WalLocation] = []
        self._forgets = True
        """Whether there may be rows that mean nothing any more."""
        self._untold: set[int] = set()
        """Partitions that got segments of which nobody was told."""
        self.stats = CompactionStats()

    @property
    def backlog(self) -> int:
        """Bytes that are only in the WAL."""
        return self._queue.size_bytes

    async def run(self) -> float | None:
        """One pass, if it is time for one."""
        await self._tidy_up()
        delay_s = self._queue.delay_s()
        if delay_s == 0:
            await self._compact()
            await self._tidy_up()
            delay_s = self._queue.delay_s()
        if delay_s is None:
            self._arena.drop()
        return delay_s

    async def compact_everything(self) -> None:
        """Move every commit there is, whatever the policy says."""
        await self._tidy_up()
        while self._queue.rows:
            await self._compact()
            await self._tidy_up()

    async def _compact(self) -> None:
        plan = await self._plan()
        upload = self._changes.uploads.begin()
        try:
            gathering = Gathering(self._changes, self._wal, self._arena, upload)
            refs = await gathering.write(plan.stretches.values())
            if not gathering.read_bytes:
                self._arena.drop()
            self.stats.read_bytes += gathering.read_bytes
            self.stats.written_bytes += gathering.written_bytes
            await self._commit(_Pass(plan, self._advance(plan, upload, refs), upload))
        finally:
            if self._unsettled is None:
                self._changes.uploads.end(upload)

    # ---- what is to be done ----------------------------------------------------------------------------------

    async def _plan(self) -> Plan:
        changes, queue = self._changes, self._queue
        floor = await changes.database.read(lambda: wal_store.floor_of(changes.shard_id))
        plan, position = Plan(self._registry, queue.policy, floor), floor
        while await self._add_commits(plan, position):
            position = plan.new_floor
        if not plan.rows:
            raise CorruptData(f"there are no commits after {floor}, but {queue.rows} were counted")
        await in_slices(_taking_spans(plan.stretches.values()))
        return plan

    async def _add_commits(self, plan: Plan, position: int) -> bool:
        """Plan the next commits; whether there may be more for this plan."""
        changes, last_seq, handled = self._changes, self._queue.last_seq, 0
        rows = await changes.database.read(partial(commits_after, changes.shard_id, position, ROWS_AT_ONCE))
        for row in rows:
            commit = read_commit(row)
            # What is not in memory yet can wait.
            if commit.seq > last_seq or not plan.has_room_for(commit):
                return False
            plan.add(commit)
            handled += 2 + len(commit.entries)
            if handled >= SLICE:
                handled = 0
                await asyncio.sleep(0)
        return len(rows) == ROWS_AT_ONCE

    def _advance(self, plan: Plan, upload: Upload, refs: Sequence[SegmentRef]) -> Advance:
        changes = self._changes
        new = None
        if refs:
            new = NewObject(
                object_id=upload.object_id, shard_id=changes.shard_id, key=upload.key,
                size_bytes=sum(ref.byte_length for ref in refs), created_ms=changes.clock.now_ms(),
            )  # fmt: skip
        return Advance(
            shard_id=changes.shard_id, floor=plan.floor, new_floor=plan.new_floor, new=new, segments=refs,
            folds=[stretch.fold() for stretch in plan.stretches.values() if not stretch.is_empty],
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
            await self._delete_object(done)
            raise
        else:
            await self._adopt(done, accepted)

    async def _settle(self, done: _Pass) -> None:
        """Find out whether a pass happened. While that fails nothing else can be done."""
        accepted = await self._changes.database.read(lambda: wal_store.outcome(done.advance))
        if accepted is not None:
            await self._adopt(done, accepted)
            return
        self._unsettled = None
        self._changes.uploads.end(done.upload)
        await self._delete_object(done)

    async def _adopt(self, done: _Pass, accepted: frozenset[int]) -> None:
        """Make the pass true in memory, then let go of the WAL."""
        plan, refs = done.plan, [ref for ref in done.advance.segments if ref.partition_id in accepted]
        self._changes.segments.add(refs)
        await in_slices(_letting_go(plan.stretches.values()))
        self._unsettled = None
        self._changes.uploads.end(done.upload)
        self._unreleased += plan.locations
        self._forgets = True
        self._queue.done(
            rows=plan.rows, entries=plan.entries, size_bytes=plan.held_bytes, committed_ms=plan.committed_ms
        )
        stats = self.stats
        stats.passes += 1
        stats.commits += plan.rows
        stats.segments += len(refs)
        if not refs:
            await self._delete_object(done)
        self._untold.update(ref.partition_id for ref in refs)

    async def _delete_object(self, done: _Pass) -> None:
        """Remove an object that nothing will ever name. What fails here is left to the orphan sweep."""
        if done.advance.new is None:
            return
        try:
            await self._changes.in_thread(lambda: self._changes.objects.delete([done.upload.key]))
        except PlatformError as problem:
            _log.info("an object that nothing names stays for now: %s", problem)

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
            told, self._untold = sorted(self._untold), set()
            self._on_segments(told)

    async def _forget_commits(self) -> None:
        changes = self._changes
        floor = await changes.database.read(lambda: wal_store.floor_of(changes.shard_id))
        while await changes.database.transaction(
            lambda: wal_store.forget_commits(changes.shard_id, floor, FORGOTTEN_AT_ONCE), background=True
        ):
            pass
        self._forgets = False


def _taking_spans(stretches: Iterable[Stretch]) -> Iterator[int]:
    for stretch in stretches:
        stretch.take_spans()
        yield len(stretch.spans) // 8 + 4


def _letting_go(stretches: Iterable[Stretch]) -> Iterator[int]:
    """Partitions are in segments up to there, and their spans are worth only what is in memory.

    The database says so already, hence it does not matter who looks in between.
    """
    for stretch in stretches:
        partition = stretch.partition
        partition.segmented_to = max(partition.segmented_to, stretch.end_offset)
        partition.size_bytes -= stretch.skipped_bytes
        for number, span in enumerate(stretch.taken, 1):
            span.location = None
            if number % SPANS_AT_ONCE == 0:
                yield SLICE
        partition.drop_lost_spans()
        yield len(stretch.taken) // 8 + 4
