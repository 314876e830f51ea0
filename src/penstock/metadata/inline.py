"""SQLite without threads, for simulations: every job runs on the event loop, at a moment the loop chooses.

Jobs run one at a time in the order they were asked for, each in a callback of its own, so that a simulated loop
decides what happens before and after it. A fault plan is asked about every job and may delay it, fail it before it
does anything, or lose its answer after it has committed.

`crash` is the death of the process: queued jobs never run and nobody is answered. `restarted` is the next process on
the same data.
"""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from penstock.base.errors import OutcomeUnknown, PlatformError, Unavailable
from penstock.metadata.database import Script, Work
from penstock.metadata.sqlite_jobs import Job, Kind, run_step
from penstock.metadata.sqlite_session import MEMORY, connect, rollback

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What goes wrong with one job."""

    delay_ms: float = 0
    before: PlatformError | None = None
    """Raised instead of running the job."""
    after: PlatformError | None = None
    """Raised although the job ran."""


NO_FAULT = Fault()
FAIL_BEFORE = Fault(before=Unavailable("injected: the database is away"))
FAIL_AFTER = Fault(after=OutcomeUnknown("injected: the answer of the commit was lost"))
FaultPlan = Callable[[Kind], Fault]


def _no_faults(_kind: Kind) -> Fault:
    return NO_FAULT


class InlineDatabase:
    """An embedded database that runs on the event loop's thread."""

    dialect = "sqlite"

    def __init__(self, path: str = MEMORY, *, faults: FaultPlan = _no_faults) -> None:
        self.faults = faults
        self._connection = connect(path, "process")
        self._jobs: deque[Job] = deque()
        self._running = False
        self._closed = False

    async def transaction(self, script: Callable[[], Script[T]]) -> T:
        """Run a script that writes; all or nothing."""
        result: T = await self._put(Kind.TRANSACTION, script)
        return result

    async def read(self, script: Callable[[], Script[T]]) -> T:
        """Run a script that only reads."""
        result: T = await self._put(Kind.READ, script)
        return result

    @property
    def idle(self) -> bool:
        """Whether nothing is queued."""
        return not self._running and not self._closed

    def submit(self, work: Work[T]) -> Future[T]:
        """Run `work` in order with transactions."""
        return self._put(Kind.WORK, work)

    def run_inline(self, work: Work[T]) -> T:
        """Run `work` now; a delay in the fault plan is ignored."""
        if not self.idle:
            raise RuntimeError("run_inline needs an idle database")
        future: Future[Any] = asyncio.get_running_loop().create_future()
        job = Job(Kind.WORK, work, future)
        self._execute(job, self.faults(Kind.WORK))
        if job.error is not None:
            raise job.error
        result: T = job.result
        return result

    async def close(self) -> None:
        """Finish what is queued, then close the connection."""
        if self._closed:
            return
        stopped = self._put(Kind.STOP, type(self._connection).close)
        self._closed = True
        await stopped

    def crash(self) -> None:
        """Die here: nothing queued runs any more, nobody is answered."""
        self._closed = True
        self._jobs.clear()
        rollback(self._connection)

    def restarted(self, *, faults: FaultPlan | None = None) -> InlineDatabase:
        """The database as the next process finds it. The old one must have crashed."""
        assert self._closed
        successor = object.__new__(InlineDatabase)
        successor.faults = faults or self.faults
        successor._connection = self._connection
        successor._jobs, successor._running, successor._closed = deque(), False, False
        return successor

    def _put(self, kind: Kind, action: Callable[..., Any]) -> Future[Any]:
        future: Future[Any] = asyncio.get_running_loop().create_future()
        if self._closed:
            future.set_exception(Unavailable("the database is closed"))
            return future
        self._jobs.append(Job(kind, action, future))
        if not self._running:
            self._running = True
            self._schedule()
        return future

    def _schedule(self) -> None:
        """Let the loop run the first job later: soon, or after the delay that the fault plan asks for."""
        job = self._jobs[0]
        fault = NO_FAULT if job.kind is Kind.STOP else self.faults(job.kind)
        loop = asyncio.get_running_loop()
        if fault.delay_ms > 0:
            loop.call_later(fault.delay_ms / 1000, self._run_first, fault)
        else:
            loop.call_soon(self._run_first, fault)

    def _run_first(self, fault: Fault) -> None:
        if not self._jobs:
            return
        job = self._jobs.popleft()
        self._execute(job, fault)
        job.answer()
        if self._jobs:
            self._schedule()
        else:
            self._running = False

    def _execute(self, job: Job, fault: Fault) -> None:
        if fault.before is not None:
            job.error = fault.before
            return
        run_step(self._connection, job.kind, [job])
        if fault.after is not None and job.error is None:
            job.error = fault.after
