"""How a flush becomes durable and ordered: the port the writer commits through, and the way through the database.

Embedded, one process owns the data, so offsets are known before anything is written: log end offsets are in memory,
and only this path advances them. A commit is then the WAL object followed by one row. Both are written on the
database's writer thread, in the order flushes are submitted, with one hop for the two of them; small flushes that need
no fsync are committed inline, without the hop. Most flushes take the shorter way of record_first.py instead: this one
is for those that also change something that a commit record cannot express, and for recovery after a failure.

If the row may or may not have been written, it is looked up by its object id before any request is answered. That
applies after every failure except those that guarantee that nothing happened: only after these is the object's space
free at once. A row that is found missing is final only when another row has taken its place.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from typing import Protocol, TypeVar

from penstock.base.backoff import Backoff, retry_until_answered
from penstock.base.clock import Clock
from penstock.base.dataclasses import dataclass
from penstock.base.errors import Conflict, PlatformError, Unavailable
from penstock.base.randomness import Randomness
from penstock.log.commits import Commit, CommitEntry, pack_bases, pack_entries
from penstock.log.trailing_rows import CommitRow, TrailingRows, insert_statement
from penstock.metadata.database import Script
from penstock.metadata.sqlite_engine import run_script, translate
from penstock.storage.wal import WalLocation, WalStore

T = TypeVar("T")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitChange:
    """What becomes durable with a flush in addition to its batches."""

    script: Callable[[], Script[None]]
    """Writes the change; idempotent when it is run again at once. Raises `Outdated` if its preconditions do not
    hold."""
    producers: Collection[int] = ()
    """The change was decided on all batches of these producers' transactions..."""
    seen: int = 0
    """...up to this commit. Where other agents commit as well, these producers must have no batch after it."""
    record: bytes | None = None
    """What the script writes, as a commit record encodes it (see `trailing_rows.Redo`); None if it cannot."""


class Outdated(Conflict):
    """Nothing was written, because the decision was based on outdated state. Decide again."""


NOTHING_HAPPENED = (Unavailable, Conflict)
INLINE_MAX_BYTES = 128 * 1024
_INSERT = translate(insert_statement())


class WriterThread(Protocol):
    """What is needed of the embedded database: work on its connection, in transaction order."""

    @property
    def idle(self) -> bool:
        """Whether nothing is queued or running."""

    def submit(self, work: Callable[[sqlite3.Connection], T]) -> Awaitable[T]:
        """Run work on the writer thread in a transaction of its own."""

    def run_inline(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run work now, on the caller's thread, in a transaction of its own. Only while `idle`."""

    async def read(self, script: Callable[[], Script[T]]) -> T:
        """Run a read-only script."""


class CommitPath(Protocol):
    """Makes flushes durable, one after the other."""

    def record_bytes(self, entries: int, batches: int) -> int:
        """How many bytes at the front of a body are reserved for the path."""

    async def store_rows(self) -> int:
        """Wait until the database has a row for every commit so far; the last commit that it is known to have."""

    async def store_changes(self) -> None:
        """Wait until the database has every change of the commits so far. Raises `Unavailable` if it cannot be
        written."""

    def close(self) -> None:
        """Stop."""

    is_alone: bool
    """Whether nobody else appends: then a batch that is out of order by local state really is out of order."""

    @property
    def has_other_writers(self) -> bool:
        """Whether other agents have committed while this process was running."""

    @property
    def seen(self) -> int:
        """The last commit that is applied here; not used where one process commits alone."""

    async def catch_up(self) -> None:
        """Apply every commit that had happened when this was called."""

    async def commit(
        self, body: memoryview, entries: Sequence[CommitEntry], heads: Sequence[int],
        change: CommitChange | None = None, plain: memoryview | None = None,
    ) -> Commit:  # fmt: skip
        """Store the body and give its entries their offsets; `heads` is where the caller expects them to start.

        `plain` is the body before entries of it were sealed, if any were; batches can be read there. `change` becomes
        durable with it. Raises `Unavailable` when nothing happened, `OutcomeUnknown` when even the look-up failed.
        """

    def commit_now(
        self, body: memoryview, entries: Sequence[CommitEntry], heads: Sequence[int], change: CommitChange | None = None
    ) -> Commit | None:
        """The same without waiting, or None where it would block the caller for long."""

    async def change(self, change: CommitChange) -> None:
        """Make a change durable without a commit, in order with commits. Raises `Unavailable` when it did not
        happen."""

    def change_now(self, change: CommitChange) -> bool:
        """The same without waiting; False, with nothing done, where it would block the caller for long."""


@dataclass(slots=True)
class _Attempt:
    """A commit in flight: its object id, and where the object is once it is written."""

    object_id: bytes
    now_ms: int
    seq: int
    rows: Sequence[CommitRow] = ()
    """Rows of earlier commits that it stores as well."""
    location: WalLocation | None = None


class EmbeddedCommitPath:
    """Commits of the only process that owns a data directory."""

    is_alone = True
    has_other_writers = False
    seen = 0

    def __init__(
        self,
        *,
        database: WriterThread,
        wal: WalStore,
        clock: Clock,
        randomness: Randomness,
        seq: int,
        inline: bool,
        shard_id: int = 1,
        agent_id: int = 1,
        rows: TrailingRows | None = None,
    ) -> None:
        self._database, self._wal, self._clock, self._randomness = database, wal, clock, randomness
        self._rows = rows or TrailingRows(database, randomness)
        self.seq = seq
        """The sequence number of the last commit."""
        self._inline = inline
        self._shard_id, self._agent_id = shard_id, agent_id
        self._unsure: _Attempt | None = None
        """An inline commit whose outcome is unknown."""
        self._unsure_change = False
        """A change whose outcome is unknown; it is retried before anything else."""
        self._may_come_back = False
        """Whether a crash could bring back a row that is not visible: a transaction that failed to become durable stays
        in the database's own WAL until something else is written there, and recovery would find it."""
        self._needed: list[WalLocation] = []
        """The objects that such rows name, which recovery would look for."""

    async def catch_up(self) -> None:
        """Nothing to do: nobody else commits."""

    def record_bytes(self, entries: int, batches: int) -> int:
        """0: the database says what was committed."""
        return 0

    async def store_rows(self) -> int:
        """Wait until the database has a row for every commit so far; the last commit that it is known to have."""
        await self._rows.store()
        return self.seq - len(self._rows.waiting())

    async def store_changes(self) -> None:
        """Nothing to wait for: changes are written to the database directly."""

    def close(self) -> None:
        """Nothing to stop."""

    async def commit(
        self, body: memoryview, entries: Sequence[CommitEntry], heads: Sequence[int],
        change: CommitChange | None = None, plain: memoryview | None = None,
    ) -> Commit:  # fmt: skip
        """Write the WAL object and its row on the writer thread."""
        if self._unsure is not None:
            attempt, self._unsure = self._unsure, None
            known = await self._look_up(attempt, entries, heads)
            if known is not None:
                return known
        attempt = self._attempt()
        try:
            location = await self._database.submit(
                lambda connection: self._write(connection, attempt, body, entries, heads, change)
            )
        except NOTHING_HAPPENED:
            self._give_up(attempt)
            raise
        except Exception as problem:
            note(problem)
            known = await self._look_up(attempt, entries, heads)
            if known is None:
                raise Unavailable(f"the commit did not happen: {problem}") from problem
            return known
        return self._done(attempt, location, entries, heads)

    def commit_now(
        self, body: memoryview, entries: Sequence[CommitEntry], heads: Sequence[int], change: CommitChange | None = None
    ) -> Commit | None:
        """Commit on the caller's thread when no fsync is needed and the flush is small.

        Returns None when the outcome is unknown, too: then `commit` with the same arguments finds it out.
        """
        if not self._inline or len(body) > INLINE_MAX_BYTES or not self._database.idle or self._unsure is not None:
            return None
        attempt = self._attempt()
        try:
            location = self._database.run_inline(
                lambda connection: self._write(connection, attempt, body, entries, heads, change)
            )
        except NOTHING_HAPPENED:
            self._give_up(attempt)
            raise
        except Exception as problem:  # noqa: BLE001  # logged, and looked up
            note(problem)
            self._unsure = attempt
            return None
        return self._done(attempt, location, entries, heads)

    async def change(self, change: CommitChange) -> None:
        """Run the script on the writer thread. It is idempotent, so an unknown outcome is resolved by running it
        again."""
        unsure, backoff = self._unsure_change, Backoff(self._randomness)
        self._unsure_change = False
        while True:
            try:
                rows = self._rows.waiting()
                await self._database.submit(partial(self._write_change, rows=rows, script=change.script))
                self._rows.stored(rows)
                return
            except NOTHING_HAPPENED:
                if not unsure:
                    raise
            except Exception as problem:  # noqa: BLE001  # logged, and retried
                note(problem)
                unsure = True
            await backoff.wait()

    def change_now(self, change: CommitChange) -> bool:
        """Run the script on the caller's thread when no fsync is needed."""
        if not self._inline or not self._database.idle or self._unsure is not None:
            return False
        try:
            rows = self._rows.waiting()
            self._database.run_inline(partial(self._write_change, rows=rows, script=change.script))
            self._rows.stored(rows)
        except NOTHING_HAPPENED:
            raise
        except Exception as problem:  # noqa: BLE001  # logged, and retried
            note(problem)
            self._unsure_change = True
            return False
        return True

    @property
    def is_uncertain(self) -> bool:
        """Whether the next commit must come this way: to look up the outcome of the last inline commit, or to replace a
        row that a crash could bring back."""
        return self._unsure is not None or self._may_come_back

    def _attempt(self) -> _Attempt:
        return _Attempt(self._randomness.token(16), self._clock.now_ms(), self.seq + 1, self._rows.waiting())

    def _done(
        self, attempt: _Attempt, location: WalLocation, entries: Sequence[CommitEntry], heads: Sequence[int]
    ) -> Commit:
        self.seq = attempt.seq
        self._may_come_back = False
        if self._needed:
            self._wal.release(self._needed)
            self._needed = []
        self._rows.stored(attempt.rows)
        return Commit(attempt.seq, attempt.object_id, location, attempt.now_ms, self._agent_id, entries, heads)

    def _give_up(self, attempt: _Attempt) -> None:
        """The object, if it was written, has no row and never will: free its space."""
        if attempt.location is not None:
            self._wal.release((attempt.location,))

    async def _look_up(self, attempt: _Attempt, entries: Sequence[CommitEntry], heads: Sequence[int]) -> Commit | None:
        location = await self._find(attempt.object_id)
        if location is None:
            self._may_come_back = True
            if attempt.location is not None:
                # Each attempt replaces the row of the one before: a crash can bring back the last ones only.
                self._wal.release(self._needed[:-1])
                self._needed = [*self._needed[-1:], attempt.location]
            return None
        return self._done(attempt, location, entries, heads)

    def _write(
        self, connection: sqlite3.Connection, attempt: _Attempt, body: memoryview, entries: Sequence[CommitEntry],
        heads: Sequence[int], change: CommitChange | None,
    ) -> WalLocation:  # fmt: skip
        location = attempt.location = self._wal.append((body,))
        self._rows.insert(connection, attempt.rows)
        connection.execute(
            _INSERT,
            (
                self._shard_id, attempt.seq, attempt.object_id, location.key, location.offset, location.length,
                attempt.now_ms, self._agent_id, pack_entries(entries), pack_bases(heads),
            ),
        )  # fmt: skip
        if change is not None:
            run_script(connection, change.script)
        return location

    def _write_change(
        self, connection: sqlite3.Connection, rows: Sequence[CommitRow], script: Callable[[], Script[None]]
    ) -> None:
        self._rows.insert(connection, rows)
        run_script(connection, script)

    async def _find(self, object_id: bytes) -> WalLocation | None:
        """Where the object of a commit with unknown outcome is; None if the commit did not happen.

        Nothing else can be committed before this is known, so it retries until the database answers.
        """

        def script() -> Script[WalLocation | None]:
            rows = yield "SELECT wal_key, wal_offset, wal_length FROM wal_commit WHERE object_id = $1", (object_id,)
            return WalLocation(*rows[0]) if rows else None

        return await retry_until_answered(lambda: self._database.read(script), Backoff(self._randomness))


def note(problem: Exception) -> None:
    """Log a commit that failed in an unforeseen way."""
    if not isinstance(problem, PlatformError):
        _log.error("a commit failed; its outcome will be looked up", exc_info=problem)
