"""The metadata port.

A transaction is a *script*: a generator function that yields `(sql, args)` and is sent the rows back. Scripts know
nothing of threads and await nothing, so the same one runs on SQLite's writer thread and, step by step, on asyncpg.

SQL is what SQLite (3.35 and later) and PostgreSQL (13 and later) both understand, with `$1`, `$2`, … as placeholders.
Every implementation passes tests/contract/test_database.py. All of them raise

    Unavailable     nothing happened (or others kept winning); retry as is
    OutcomeUnknown  the commit may have happened
    Conflict        a unique key or another constraint refused it; nothing happened
    CorruptData     the database is damaged

and let through what a script raises itself, after undoing everything it did. A script may run several times. Rows are
tuples of int, str, bytes, float and None.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any, Protocol, TypeVar

from penstock.base.errors import OutcomeUnknown, Unavailable

T = TypeVar("T")
Statement = tuple[str, Sequence[Any]]
"""SQL and its arguments: int, str, bytes (any buffer), float or None."""
Rows = Sequence[Sequence[Any]]
Script = Generator[Statement, Rows, T]


class Database(Protocol):
    """Where metadata is kept."""

    dialect: str
    """"sqlite" or "postgres"."""

    async def transaction(
        self, script: Callable[[], Script[T]], *, background: bool = False, locking: bool = False
    ) -> T:
        """Run a script, all or nothing, as if it were alone. `background`: others may overtake it.

        `locking`: the script sees to being alone itself. Its first statement updates the row that everybody updates
        first who touches the same rows; from its second statement on it sees what those before it left. For rows so
        busy that a transaction which merely notices afterwards that it was not alone would never get through.
        """

    async def statement(self, sql: str, args: Sequence[Any] = ()) -> Rows:
        """Run one statement, all or nothing, without asking for more than it takes: where there is a network, one
        round trip. It is not as if alone: rows are seen as they were when it began, except those it waited for."""

    async def read(self, script: Callable[[], Script[T]]) -> T:
        """Run a script that only reads, on one snapshot that holds everything committed before."""

    async def close(self) -> None:
        """Finish what was begun and let go of everything."""


async def read_by_statement(database: Database, script: Script[T]) -> T:
    """Run a script that reads with a single statement, in one round trip. It sees everything committed before."""
    sql, args = next(script)
    try:
        rows = await database.statement(sql, args)
    except OutcomeUnknown as problem:
        raise Unavailable("the answer to a question was lost") from problem
    try:
        script.send(rows)
    except StopIteration as end:
        answer: T = end.value
        return answer
    raise RuntimeError("the script has more than one statement")
