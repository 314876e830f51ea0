"""The metadata port.

A transaction is a *script*: a generator function that yields `(sql, args)` and receives the rows. Scripts use neither
threads nor `await`, so the same script runs on SQLite's writer thread and, statement by statement, on asyncpg.

SQL is the common subset of SQLite (3.35 and later) and PostgreSQL (13 and later), with `$1`, `$2`, … as placeholders.
Every implementation passes tests/contract/test_database.py. All implementations raise

    Unavailable     nothing was committed (or too many serialization conflicts); may be retried unchanged
    OutcomeUnknown  the commit may have happened
    Conflict        a unique key or another constraint was violated; nothing was committed
    CorruptData     the database is damaged

and roll back and re-raise what a script itself raises. A script may run several times. Rows are tuples of int, str,
bytes, float and None.
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


class TransactionRunner(Protocol):
    """The part of the port that most stores need: transactions and reads."""

    async def transaction(self, script: Callable[[], Script[T]]) -> T:
        """Run a script atomically."""

    async def read(self, script: Callable[[], Script[T]]) -> T:
        """Run a read-only script."""


class LockingTransactionRunner(Protocol):
    """The same, with transactions that serialize themselves by row locks."""

    async def transaction(self, script: Callable[[], Script[T]], *, locking: bool = False) -> T:
        """Run a script atomically; `locking` as in `Database`."""

    async def read(self, script: Callable[[], Script[T]]) -> T:
        """Run a read-only script."""


class Database(Protocol):
    """The metadata database."""

    dialect: str
    """"sqlite" or "postgres"."""

    async def transaction(
        self, script: Callable[[], Script[T]], *, background: bool = False, locking: bool = False
    ) -> T:
        """Run a script atomically, with serializable isolation. `background`: other calls may be served first.

        `locking`: the script serializes itself. Its first statement updates a row that every transaction on the same
        rows updates first, and its later statements see what the transactions before it committed. For rows so
        contended that a serializable transaction would fail repeatedly.
        """

    async def statement(self, sql: str, args: Sequence[Any] = ()) -> Rows:
        """Run one statement atomically, in one round trip. Isolation is read committed: the statement sees what was
        committed before it began, and of rows whose locks it waited for, the latest version."""

    async def read(self, script: Callable[[], Script[T]]) -> T:
        """Run a read-only script on one snapshot, which contains everything committed before the call."""

    async def close(self) -> None:
        """Finish calls in progress, and release all resources."""


async def read_by_statement(database: Database, script: Script[T]) -> T:
    """Run a read-only script of one statement in one round trip. It sees everything committed before the call."""
    sql, args = next(script)
    try:
        rows = await database.statement(sql, args)
    except OutcomeUnknown as problem:
        raise Unavailable("the result of a query was lost") from problem
    try:
        script.send(rows)
    except StopIteration as end:
        answer: T = end.value
        return answer
    raise RuntimeError("the script has more than one statement")
