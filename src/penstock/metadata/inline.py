"""SQLite without threads, for simulations: every operation runs on the event loop.

Operations run in the order of the calls, each in a callback of its own, so a simulated loop controls the interleaving.
A hook can make an operation fail before it has any effect, or lose its result after the commit.

`crash` simulates the end of the process: queued operations never run, and their callers get no result. `reopen` is the
next process on the same data.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Literal, TypeVar

from penstock.base.errors import OutcomeUnknown, Unavailable
from penstock.metadata import sqlite_engine as engine
from penstock.metadata.database import Rows, Script
from penstock.metadata.jobs import Job
from penstock.metadata.sqlite_engine import Work

T = TypeVar("T")
FaultHook = Callable[[], Literal["before", "after"] | None]
"""Called once per operation. "before": raise `Unavailable` without any effect. "after": raise `OutcomeUnknown` after
the commit."""


def no_fault() -> None:
    """No fault."""


class InlineDatabase:
    """A database in memory that runs on the event loop's thread.

    `delay_s` returns the delay of each operation, in seconds; None: no delay.
    """

    dialect = "sqlite"

    def __init__(self, *, faults: FaultHook = no_fault, delay_s: Callable[[], float] | None = None) -> None:
        self.faults, self.delay_s = faults, delay_s
        self._connection = engine.connect(None, durability="process")
        self._waiting: deque[Job] = deque()
        self._closed = False

    async def open(self) -> None:
        """No effect: the connection is open from the beginning."""

    async def close(self) -> None:
        """Run all queued operations, then refuse new ones."""
        while self._waiting:
            await asyncio.wait([self._waiting[-1].future])
        self._closed = True

    def crash(self) -> None:
        """Simulate the end of the process."""
        self._closed = True
        self._waiting.clear()

    def reopen(self) -> InlineDatabase:
        """The database of the next process, with the same hooks. This one must be crashed or closed."""
        if not self._closed:
            raise RuntimeError("the database is still open")
        successor = InlineDatabase(faults=self.faults, delay_s=self.delay_s)
        successor._connection.close()
        successor._connection = self._connection
        return successor

    @property
    def idle(self) -> bool:
        """Whether no operation is queued."""
        return not self._waiting

    async def transaction(
        self, script: Callable[[], Script[T]], *, background: bool = False, locking: bool = False
    ) -> T:
        """Run a script atomically."""
        return await self.submit(partial(engine.run_script, script=script))

    async def statement(self, sql: str, args: Sequence[Any] = ()) -> Rows:
        """Run one statement, in the order of calls."""
        return await self.submit(partial(engine.run_statement, sql=sql, args=args))

    async def read(self, script: Callable[[], Script[T]]) -> T:
        """Run a read-only script."""
        return await self._later(partial(engine.run_script, script=script), is_read=True)

    def submit(self, work: Work[T]) -> Awaitable[T]:
        """Run work in a transaction, in the order of calls."""
        return self._later(work, is_read=False)

    def run_inline(self, work: Work[T]) -> T:
        """Run work in a transaction now; only while idle."""
        self._check_open()
        if self._waiting:
            raise RuntimeError("run_inline while operations are queued: they would be reordered")
        return self._write(work)

    def _later(self, work: Work[T], *, is_read: bool) -> asyncio.Future[T]:
        self._check_open()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._waiting.append(Job(work, future, is_read=is_read))
        # One callback per queued operation. Their order does not matter: they take operations from the queue in order.
        if self.delay_s is None:
            loop.call_soon(self._run_next)
        else:
            loop.call_later(self.delay_s(), self._run_next)
        return future

    def _run_next(self) -> None:
        if not self._waiting:
            return  # The process has crashed meanwhile.
        job = self._waiting.popleft()
        with job:
            job.answer = self._read(job.work) if job.is_read else self._write(job.work)
        job.settle()

    def _write(self, work: Work[T]) -> T:
        fault = self.faults()
        if fault == "before":
            raise Unavailable("the database does not answer")
        answer = engine.run_transaction(self._connection, work)
        if fault == "after":
            raise OutcomeUnknown("the result of the commit was lost")
        return answer

    def _read(self, work: Work[T]) -> T:
        if self.faults() is not None:
            raise Unavailable("the database does not answer")
        return engine.run_read(self._connection, work)

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable("the database is closed")
