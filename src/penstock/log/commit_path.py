"""How a flush becomes durable and ordered: the port the writer commits through, and its embedded implementation.

Embedded, one process owns the data, so offsets are known before anything is written: the heads are in memory and
only this path moves them. A commit is then the WAL object followed by one row; both happen on the database's writer
thread, in the order flushes are submitted, one hop for the two of them. Small flushes that need no disk flush are
committed in line, without the hop.

If the row may or may not have been written, it is looked up by its object id before anyone is answered.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

from penstock.base.clock import Clock
from penstock.base.errors import OutcomeUnknown, Unavailable
from penstock.base.randomness import Randomness
from penstock.log.commits import Commit, CommitEntry, pack_bases, pack_entries
from penstock.metadata.database import Script
from penstock.storage.wal import WalLocation, WalStore

T = TypeVar("T")

INLINE_MAX_BYTES = 128 * 1024
_INSERT = (
    "INSERT INTO wal_commit (shard_id, seq, object_id, wal_key, wal_offset, wal_length, committed_ms, agent_id, "
    "entries, bases) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


class WriterThread(Protocol):
    """What is needed of the embedded database: running work beside its connection, in the order of transactions."""

    @property
    def idle(self) -> bool:
        """Whether nothing is queued or running."""

    def submit(self, work: Callable[[sqlite3.Connection], T]) -> Awaitable[T]:
        """Run work on the writer's thread as a transaction of its own."""

    def run_inline(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run work now, on the caller's thread, as a transaction of its own. Only while `idle`."""

    async def read(self, script: Callable[[], Script[T]]) -> T:
        """Run a script that only reads."""


class CommitPath(Protocol):
    """Makes flushes durable, one after the other."""

    async def commit(self, body: memoryview, entries: Sequence[CommitEntry], heads: Sequence[int]) -> Commit:
        """Store the body and give its entries their offsets; `heads` is where the caller believes they start.

        Raises `Unavailable` when nothing happened, `OutcomeUnknown` when even looking it up failed.
        """

    def commit_now(self, body: memoryview, entries: Sequence[CommitEntry], heads: Sequence[int]) -> Commit | None:
        """The same without waiting, or None where that would block the caller for long."""


class EmbeddedCommitPath:
    """Commits of the one process that owns a data directory."""

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
    ) -> None:
        self._database, self._wal, self._clock, self._randomness = database, wal, clock, randomness
        self._seq = seq
        self._inline = inline
        self._shard_id, self._agent_id = shard_id, agent_id

    async def commit(self, body: memoryview, entries: Sequence[CommitEntry], heads: Sequence[int]) -> Commit:
        """Write the WAL object and its row on the writer thread."""
        object_id, now_ms, seq = self._randomness.token(16), self._clock.now_ms(), self._seq + 1

        def work(connection: sqlite3.Connection) -> WalLocation:
            return self._write(connection, body, entries, heads, object_id, now_ms, seq)

        try:
            location = await self._database.submit(work)
        except OutcomeUnknown as problem:
            found = await self._find(object_id)
            if found is None:
                raise Unavailable("the commit did not happen") from problem
            location = found
        self._seq = seq
        return Commit(seq, object_id, location, now_ms, self._agent_id, entries, heads)

    def commit_now(self, body: memoryview, entries: Sequence[CommitEntry], heads: Sequence[int]) -> Commit | None:
        """Commit on the caller's thread when nothing has to reach a disk and the flush is small."""
        if not self._inline or len(body) > INLINE_MAX_BYTES or not self._database.idle:
            return None
        object_id, now_ms, seq = self._randomness.token(16), self._clock.now_ms(), self._seq + 1
        location = self._database.run_inline(
            lambda connection: self._write(connection, body, entries, heads, object_id, now_ms, seq)
        )
        self._seq = seq
        return Commit(seq, object_id, location, now_ms, self._agent_id, entries, heads)

    def _write(
        self, connection: sqlite3.Connection, body: memoryview, entries: Sequence[CommitEntry],
        heads: Sequence[int], object_id: bytes, now_ms: int, seq: int,
    ) -> WalLocation:  # fmt: skip
        location = self._wal.append((body,))
        connection.execute(
            _INSERT,
            (
                self._shard_id, seq, object_id, location.key, location.offset, location.length, now_ms,
                self._agent_id, pack_entries(entries), pack_bases(heads),
            ),
        )  # fmt: skip
        return location

    async def _find(self, object_id: bytes) -> WalLocation | None:
        """Where an object lies whose commit may have happened, or None if it did not.

        Nothing else can be committed until this is known, so it asks until the database answers.
        """

        def script() -> Script[WalLocation | None]:
            rows = yield "SELECT wal_key, wal_offset, wal_length FROM wal_commit WHERE object_id = $1", (object_id,)
            return WalLocation(*rows[0]) if rows else None

        delay_s = 0.02
        while True:
            try:
                return await self._database.read(script)
            except (OutcomeUnknown, Unavailable):
                await asyncio.sleep(delay_s * self._randomness.uniform(0.5, 1.5))
                delay_s = min(2 * delay_s, 1.0)
