"""Rows of commits that became durable by their commit records: queued until the database has them, written in batches.

The database always has a prefix of the commit log. So every attempt writes all rows that are not known to be there,
oldest first, and skips rows that exist: after a lost answer nothing has to be resolved.

A commit may also have changed something else, which its record contains too (`CommitRow.change`). The change is applied
to the database by the transaction that inserts the row, and by no other: where the row exists already, newer changes
may have followed. Others that write what commits change do so through `UpToDateDatabase`: their transactions begin with
the queued rows, and so come after every commit that was acknowledged before them.

The first queued row starts a timer, nothing else does. Memory is bounded: when `is_full`, commits must go through the
database, and write the queued rows as well.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import cache, partial
from itertools import chain, islice
from typing import NamedTuple, Protocol, TypeVar

from penstock.base.backoff import Backoff
from penstock.base.errors import CorruptData, PlatformError, Unavailable
from penstock.base.randomness import Randomness
from penstock.metadata.database import Database, Script
from penstock.metadata.sqlite_engine import run_script, translate
from penstock.metadata.statements import parameter_rows

T = TypeVar("T")
APPLY_AFTER_S = 0.2
APPLY_FROM_ROWS = 512
AT_ONCE_ROWS = 2_048
MAX_ROWS = 16_384
MAX_BYTES = 32 * 1024 * 1024
"""Bytes of WAL objects: what a start may have to read and verify."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 2.0
_STATEMENT_ROWS = (64, 8, 1)
"""Rows of one statement: for each statement the writer thread releases the interpreter's lock and must get it back."""
_log = logging.getLogger(__name__)


Redo = Callable[[Sequence[bytes]], Script[None]]
"""Applies changes from commit records to the database, oldest first."""


class CommitRow(NamedTuple):
    """A row of `wal_commit`, and the change that is applied with it."""

    shard_id: int
    seq: int
    object_id: bytes
    wal_key: str
    wal_offset: int
    wal_length: int
    committed_ms: int
    agent_id: int
    entries: bytes
    bases: bytes
    change: bytes = b""
    """The argument of `Redo`. Not a column; usually empty."""


_COLUMNS = CommitRow._fields[:-1]


def insert_statement(rows: int = 1) -> str:
    """Inserts that many rows. It fails where one exists, unless `LEAVES_OLD` follows."""
    return f"INSERT INTO wal_commit ({', '.join(_COLUMNS)}) VALUES {parameter_rows(rows, len(_COLUMNS))}"


_LEAVES_OLD = " ON CONFLICT (shard_id, seq) DO NOTHING"
LEAVES_OLD = _LEAVES_OLD + " RETURNING seq"
"""Returns the rows that did not exist."""
_INSERT_ONE = insert_statement() + LEAVES_OLD


@cache
def _inserts(end: str) -> Sequence[tuple[int, str]]:
    """Statements for many rows and for few, the largest first. They are long, so they are not built at start."""
    return [(rows, translate(insert_statement(rows) + end)) for rows in _STATEMENT_ROWS]


def nothing_to_redo(changes: Sequence[bytes]) -> Script[None]:
    """For commits that change nothing else."""
    raise CorruptData(f"{len(changes)} commits have changed what nobody knows")
    yield


def insert_rows(connection: sqlite3.Connection, rows: Sequence[CommitRow], redo: Redo) -> None:
    """Write rows that may exist already, in the open transaction."""
    position, inserted = 0, set[int]()
    # Which rows existed matters only for changes. Each row of a result releases and takes the interpreter's lock
    # again, which delays the event loop.
    asks = any(row.change for row in rows)
    for size, statement in _inserts(LEAVES_OLD if asks else _LEAVES_OLD):
        while len(rows) - position >= size:
            args = chain.from_iterable(row[:-1] for row in rows[position : position + size])
            inserted.update(seq for (seq,) in connection.execute(statement, list(args)).fetchall())
            position += size
    changes = [row.change for row in rows if row.change and row.seq in inserted]
    if changes:
        run_script(connection, lambda: redo(changes))


def insert_script(rows: Sequence[CommitRow], redo: Redo) -> Script[None]:
    """The same as a script."""
    changes = []
    for row in rows:
        inserted = yield _INSERT_ONE, row[:-1]
        if row.change and inserted:
            changes.append(row.change)
    if changes:
        yield from redo(changes)


class WriterQueue(Protocol):
    """What is needed of the embedded database."""

    def submit(self, work: Callable[[sqlite3.Connection], T]) -> Awaitable[T]:
        """Run work on the writer thread in a transaction of its own."""


class TrailingRows:
    """The queued rows. On the event loop's thread."""

    def __init__(self, database: WriterQueue, randomness: Randomness, redo: Redo = nothing_to_redo) -> None:
        self._database, self._randomness, self.redo = database, randomness, redo
        self._rows: deque[CommitRow] = deque()
        self._bytes = 0
        self._changes = 0
        """How many of the rows have a change."""
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def is_full(self) -> bool:
        """Whether no more should be queued."""
        return len(self._rows) >= MAX_ROWS or self._bytes >= MAX_BYTES

    @property
    def has_changes(self) -> bool:
        """Whether changes are queued that the database does not have."""
        return self._changes > 0

    def insert(self, connection: sqlite3.Connection, rows: Sequence[CommitRow]) -> None:
        """Write rows of `waiting` as part of a transaction."""
        insert_rows(connection, rows, self.redo)

    def add(self, row: CommitRow) -> None:
        """Queue the row of the newest commit."""
        self._rows.append(row)
        self._bytes += row.wal_length
        self._changes += bool(row.change)
        if self._task is not None:
            return
        if len(self._rows) >= APPLY_FROM_ROWS:
            self._start()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(APPLY_AFTER_S, self._start)

    def waiting(self) -> Sequence[CommitRow]:
        """All queued rows, for a transaction that writes them first."""
        return tuple(self._rows)

    def stored(self, rows: Sequence[CommitRow]) -> None:
        """The database has these rows, the oldest ones."""
        last_seq, waiting = rows[-1].seq if rows else -1, self._rows
        while waiting and waiting[0].seq <= last_seq:
            row = waiting.popleft()
            self._bytes -= row.wal_length
            self._changes -= bool(row.change)

    async def store_with(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run work after all currently queued rows, in one transaction with them.

        Transactions run in the order in which they are submitted, so no newer row can be there before them.
        """
        rows = self.waiting()

        def all_of_it(connection: sqlite3.Connection) -> T:
            self.insert(connection, rows)
            return work(connection)

        answer = await self._database.submit(all_of_it)
        self.stored(rows)
        return answer

    async def store(self) -> None:
        """Wait until the database has everything that is queued now."""
        last_seq = self._rows[-1].seq if self._rows else -1
        while self._rows and self._rows[0].seq <= last_seq:
            self._start()
            task = self._task
            assert task is not None
            await asyncio.wait((task,))
            if task.cancelled() or task.exception() is not None:
                raise Unavailable("the database does not get what was committed")

    def close(self) -> None:
        """Stop; the next start stores what is queued."""
        self._rows.clear()
        self._bytes = self._changes = 0
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def _start(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._task is None and self._rows:
            self._task = asyncio.get_running_loop().create_task(self._apply())
            self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled() and task.exception() is not None:
            # A bug of ours. The WAL still has the records, and the next start stores the rows.
            _log.critical("commit rows cannot be written to the database", exc_info=task.exception())
        elif self._rows:
            self._timer = asyncio.get_running_loop().call_later(APPLY_AFTER_S, self._start)

    async def _apply(self) -> None:
        """Write queued rows until few are left."""
        backoff, failed = Backoff(self._randomness, _FIRST_PAUSE_S, _LONGEST_PAUSE_S), False
        while self._rows:
            rows = list(islice(self._rows, AT_ONCE_ROWS))
            try:
                await self._database.submit(partial(self.insert, rows=rows))
            except PlatformError as problem:
                if not failed:
                    _log.error("commit rows wait: the database does not accept them: %s", problem)
                failed = True
                await backoff.wait()
                continue
            self.stored(rows)
            if len(self._rows) < APPLY_FROM_ROWS:
                return


class UpToDateDatabase:
    """The metadata port for a coordinator whose rows are also changed by commits."""

    def __init__(self, database: Database, rows: TrailingRows) -> None:
        self._database, self._rows = database, rows

    async def transaction(self, script: Callable[[], Script[T]]) -> T:
        """Run a script, all or nothing, after every change of the commits so far."""
        if not self._rows.has_changes:
            return await self._database.transaction(script)
        return await self._rows.store_with(partial(run_script, script=script))

    async def read(self, script: Callable[[], Script[T]]) -> T:
        """Run a read-only script, on what the database has already."""
        return await self._database.read(script)
