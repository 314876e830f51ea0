"""The port of the metadata database.

A transaction is a *script*: a generator that yields `(sql, arguments)` and is sent the rows back. The same script
runs synchronously on SQLite's writer thread and asynchronously over a connection to PostgreSQL, so a feature writes
its SQL once:

    def rename(cluster_id: int, old: str, new: str) -> Script[bool]:
        rows = yield "SELECT 1 FROM topic WHERE cluster_id = $1 AND name = $2 FOR UPDATE", (cluster_id, old)
        if not rows:
            return False
        yield "UPDATE topic SET name = $3 WHERE cluster_id = $1 AND name = $2", (cluster_id, old, new)
        return True

    await database.transaction(lambda: rename(1, "a", "b"))

Text is portable between SQLite 3.35 and PostgreSQL 13: placeholders are `$1…$n`, `FOR UPDATE` is understood by both
(SQLite has one writer and needs none). A script must not keep state outside itself: it may be run again. What it
raises undoes everything it did and reaches the caller, who is answered only once what the script saw is durable.

A failed statement ends the script: a uniqueness violation is `Conflict`, anything of the machine is `Unavailable`
(nothing happened) or `OutcomeUnknown` (the commit may have happened), a damaged file is `CorruptData`.

Every implementation passes tests/contract/test_database.py.
"""

from __future__ import annotations

import sqlite3
from asyncio import Future
from collections.abc import Callable, Generator, Sequence
from typing import Any, Protocol, TypeVar

T = TypeVar("T")

Row = Sequence[Any]
Rows = Sequence[Row]
Statement = tuple[str, Sequence[Any]]
"""SQL text and its arguments: int, float, str, None and anything with bytes in it."""

Script = Generator[Statement, Rows, T]
Work = Callable[[sqlite3.Connection], T]


class Database(Protocol):
    """Where metadata lives."""

    dialect: str
    """`sqlite` or `postgres`."""

    async def transaction(self, script: Callable[[], Script[T]]) -> T:
        """Run a script that writes; all or nothing, durable on return."""

    async def read(self, script: Callable[[], Script[T]]) -> T:
        """Run a script that only reads, on one snapshot that includes every finished transaction."""

    async def close(self) -> None:
        """Finish what is queued and let go of everything. Safe to call twice."""


class EmbeddedDatabase(Database, Protocol):
    """A database of this process alone: code may run beside its connection, in the order of transactions."""

    @property
    def idle(self) -> bool:
        """Whether nothing is queued or running, so that `run_inline` would not wait."""

    def submit(self, work: Work[T]) -> Future[T]:
        """Run `work` on the writer's thread, in order with transactions. Without a BEGIN each statement commits."""

    def run_inline(self, work: Work[T]) -> T:
        """Run `work` now, on the caller's thread. Only while `idle`."""
