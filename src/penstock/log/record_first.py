"""The fast path of a commit: the WAL object contains its own commit record, and the row follows later.

One write makes a flush durable and ordered, where the way through the database takes two and a transaction: half the
latency, and a tenth of the CPU time for a flush of one record (docs/decisions/0012-commit-records-in-wal-objects.md).
On a fast disk, small flushes are written on the event loop's own thread: blocking for 0.2 ms is cheaper than a hop to
another thread and back. The speed of the disk is measured with every write.

A flush may also change something else that must become durable with it. Where a commit record can express the change,
it does (docs/decisions/0020-changes-in-commit-records.md). Other flushes go through the database and store all rows
that are still waiting; so do all flushes while too many rows wait. Their objects have a record as well, one that does
not count by itself.

A write whose outcome is unknown may have left a valid record on the disk. Before anybody is told that it failed, it is
invalidated: the database gets all rows, and a new *life* begins (see wal_record.py), in which that record is ignored.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial

from penstock.base.backoff import Backoff, retry_until_answered
from penstock.base.clock import Clock
from penstock.base.errors import OutcomeUnknown, PlatformError, Unavailable
from penstock.base.log_throttle import LogThrottle
from penstock.base.randomness import Randomness
from penstock.log.appending import OnThread, append_aside
from penstock.log.commit_path import INLINE_MAX_BYTES, CommitChange, EmbeddedCommitPath, note
from penstock.log.commits import Commit, CommitEntry, pack_bases, pack_entries
from penstock.log.roll_forward import begin_life, secret_of
from penstock.log.trailing_rows import CommitRow, TrailingRows, UpToDateDatabase
from penstock.log.wal_record import CHANGE_BYTES_MAX, COMMITS, REFERRED, RecordHead, record_bytes_max, write_record
from penstock.metadata.database import Database
from penstock.storage.wal import WalLocation, WalStore

QUICK_S = 0.0015
"""How long a write may block the event loop, on average."""
PROBE_EVERY_S = 0.5
"""How often a slow disk is tried on the event loop again, if that is a small part of the time."""
PROBE_SHARE = 20
"""After a write, at least this many times its duration passes before a slow disk is tried again."""
_SMOOTHING = 0.05
_COUNTED_MAX_S = 2 * QUICK_S
"""The most that one write counts in the average. On any disk a few in a hundred take ten times as long as others, and
predict nothing."""
STUCK_S = 0.05
"""A single write that takes longer is enough: until the next probe, nothing is written on the event loop."""
_NO_ID = bytes(16)
COMPLAIN_EVERY_S = 10.0
_log = logging.getLogger(__name__)


class RecordFirstCommitPath:
    """Commits of the only process that owns a data directory, made durable by their WAL objects alone."""

    is_alone = True
    has_other_writers = False
    seen = 0

    def __init__(
        self, through_database: EmbeddedCommitPath, rows: TrailingRows, *, metadata: Database, wal: WalStore,
        clock: Clock, randomness: Randomness, on_thread: OnThread, life: int, inline: bool, shard_id: int = 1,
        agent_id: int = 1,
    ) -> None:  # fmt: skip
        self._database, self._rows, self._metadata = through_database, rows, metadata
        self._wal, self._clock, self._randomness, self._on_thread = wal, clock, randomness, on_thread
        self._id_prefix = randomness.token(8)
        """Makes object ids unique; they need not be unpredictable."""
        self._life, self._shard_id, self._agent_id = life, shard_id, agent_id
        self._waits_for_disk = not inline
        self._write_s = 0.0 if inline else QUICK_S
        """Moving average of small writes on the event loop. Writes on the thread are not counted: their durations
        include waiting for the interpreter's lock, which takes longer than the disk when the loop is busy."""
        self._probe_at = clock.monotonic() + PROBE_EVERY_S
        """When a slow disk may be tried again."""
        self._failed = False
        """Whether a record that must be invalidated may be on the disk."""

    def record_bytes(self, entries: int, batches: int) -> int:
        """Room for the commit record."""
        return record_bytes_max(entries, batches)

    async def catch_up(self) -> None:
        """Nothing to do: nobody else commits."""

    async def store_rows(self) -> int:
        """Wait until the database has a row for every commit so far; the last commit that it is known to have."""
        return await self._database.store_rows()

    async def store_changes(self) -> None:
        """Wait until the database has every change of the commits so far. Raises `Unavailable` if it cannot be
        written."""
        if not self._rows.has_changes:
            return
        try:
            await self._rows.store_with(lambda connection: None)
        except OutcomeUnknown as problem:
            raise Unavailable("it is not known whether the database has what was committed") from problem

    @property
    def up_to_date(self) -> UpToDateDatabase:
        """The database for coordinators whose rows are also changed by commits."""
        return UpToDateDatabase(self._metadata, self._rows)

    def close(self) -> None:
        """Stop; the next start stores the rows that are still waiting."""
        self._rows.close()

    async def commit(
        self, body: memoryview, entries: Sequence[CommitEntry], heads: Sequence[int],
        change: CommitChange | None = None, plain: memoryview | None = None,
    ) -> Commit:  # fmt: skip
        """Write the object without blocking the event loop."""
        if self._failed:
            await self._void()
        if not self._is_enough(change):
            self._refer(body)
            return await self._database.commit(body, entries, heads, change)
        row = self._record(body, entries, heads, change)
        try:
            location = await append_aside(self._wal, body, self._on_thread)
        except Unavailable:
            raise
        except Exception as problem:
            note(problem)
            self._failed = True
            await self._void()
            raise Unavailable(f"the commit did not happen: {problem}") from problem
        return self._done(row, location, entries, heads)

    def commit_now(
        self, body: memoryview, entries: Sequence[CommitEntry], heads: Sequence[int], change: CommitChange | None = None
    ) -> Commit | None:
        """Write the object on the caller's thread, if it is small and the disk is fast, or no fsync is needed."""
        if self._failed:
            return None
        if not self._is_enough(change):
            self._refer(body)
            return self._database.commit_now(body, entries, heads, change)
        if len(body) > INLINE_MAX_BYTES or not (self._write_s <= QUICK_S or self._begin_probe()):
            return None
        row = self._record(body, entries, heads, change)
        try:
            location = self._append(body)
        except Unavailable:
            raise
        except Exception as problem:  # noqa: BLE001  # logged, and retried once the record is invalid
            note(problem)
            self._failed = True
            return None
        return self._done(row, location, entries, heads)

    async def change(self, change: CommitChange) -> None:
        """Make a change durable without a commit."""
        await self._database.change(change)

    def change_now(self, change: CommitChange) -> bool:
        """The same without waiting; False, with nothing done, where it would block."""
        return self._database.change_now(change)

    def _is_enough(self, change: CommitChange | None) -> bool:
        """Whether a commit record is enough, without a database transaction."""
        if self._rows.is_full or self._database.is_uncertain:
            return False
        return change is None or (change.record is not None and len(change.record) <= CHANGE_BYTES_MAX)

    def _begin_probe(self) -> bool:
        """Whether it is time to try a slow disk again. One more slow write ends the attempt."""
        if self._clock.monotonic() < self._probe_at:
            return False
        self._write_s = QUICK_S
        return True

    def _append(self, body: memoryview) -> WalLocation:
        """Write a small object on the event loop, and update the average."""
        if not self._waits_for_disk:
            return self._wal.append((body,))
        began = self._clock.monotonic()
        try:
            return self._wal.append((body,))
        finally:
            ended = self._clock.monotonic()
            took_s = ended - began
            self._probe_at = ended + max(PROBE_EVERY_S, PROBE_SHARE * took_s)
            if took_s > STUCK_S:
                self._write_s = _COUNTED_MAX_S
            else:
                self._write_s += _SMOOTHING * (min(took_s, _COUNTED_MAX_S) - self._write_s)

    def _refer(self, body: memoryview) -> None:
        head = RecordHead(
            REFERRED, len(body), 0, 0, self._life, self._database.seq + 1, 0, _NO_ID, self._agent_id, self._shard_id
        )
        write_record(body, head, b"", b"")

    def _record(
        self, body: memoryview, entries: Sequence[CommitEntry], heads: Sequence[int], change: CommitChange | None = None
    ) -> CommitRow:
        """Write the record to the front of the body; the row as it will be, except for the object's location."""
        seq = self._database.seq + 1
        row = CommitRow(
            self._shard_id, seq, self._id_prefix + seq.to_bytes(8), "", 0, len(body),
            self._clock.now_ms(), self._agent_id, pack_entries(entries), pack_bases(heads),
            b"" if change is None or change.record is None else change.record,
        )  # fmt: skip
        head = RecordHead(
            COMMITS, len(body), len(row.entries), len(row.bases), self._life, row.seq, row.committed_ms,
            row.object_id, row.agent_id, row.shard_id,
        )  # fmt: skip
        write_record(body, head, row.entries, row.bases, row.change)
        return row

    async def _void(self) -> None:
        """Invalidate whatever a failed write has left. Nothing can be committed until the database has answered."""
        complaints = LogThrottle(self._clock, COMPLAIN_EVERY_S)

        def complain(problem: PlatformError) -> None:
            if complaints.is_due():
                _log.warning("a write has failed, and flushes wait until the database can note that: %s", problem)

        await retry_until_answered(self._begin_life, Backoff(self._randomness), complain)
        self._failed = False

    async def _begin_life(self) -> None:
        rows = self._rows.waiting()
        self._life = await self._metadata.transaction(partial(begin_life, rows, secret_of(self._life), self._rows.redo))
        self._rows.stored(rows)

    def _done(
        self, row: CommitRow, location: WalLocation, entries: Sequence[CommitEntry], heads: Sequence[int]
    ) -> Commit:
        self._database.seq = row.seq
        self._rows.add(
            CommitRow(
                row.shard_id, row.seq, row.object_id, location.key, location.offset, location.length,
                row.committed_ms, row.agent_id, row.entries, row.bases, row.change,
            )
        )  # fmt: skip
        return Commit(row.seq, row.object_id, location, row.committed_ms, self._agent_id, entries, heads)
