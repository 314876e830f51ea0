"""SQLite behind the metadata port: one thread writes, one reads, the event loop waits for neither.

The writer takes everything that waits in its queue and runs it as one transaction with a savepoint for each job, so
however many callers there are, the disk is flushed once per batch; they are answered after that commit, in the order
they asked. A job that fails undoes itself alone.

The queue and all answers belong to the event loop's thread: a job counts as open from `submit` until the loop hands
out its answer. When none is open the writer thread is asleep, so the loop may use its connection itself
(`run_inline`): cheaper than two thread switches where a commit does not wait for a disk.

Readers see the last commit on a connection of their own. A database in memory has one connection, and reads take
their turn in the writer's queue. Threads sleep in a queue's `get`: idle costs nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from penstock.base.clock import SystemClock
from penstock.base.durations import Durations
from penstock.base.errors import OutcomeUnknown, PlatformError, Unavailable
from penstock.metadata import sqlite_engine as engine
from penstock.metadata.database import Rows, Script
from penstock.metadata.jobs import Job
from penstock.metadata.sqlite_engine import Work

T = TypeVar("T")


def _run_batch(connection: sqlite3.Connection, jobs: Sequence[Job]) -> None:
    """Run jobs in order: neighbouring writes share a commit, reads see only what is committed."""
    writes: list[Job] = []
    for job in jobs:
        if not job.is_read:
            writes.append(job)
            continue
        _run_writes(connection, writes)
        writes = []
        with job:
            job.answer = engine.run_read(connection, job.work)
    _run_writes(connection, writes)


def _run_writes(connection: sqlite3.Connection, jobs: Sequence[Job]) -> None:
    if len(jobs) == 1:
        with jobs[0]:
            jobs[0].answer = engine.run_transaction(connection, jobs[0].work)
        return
    done: list[Job] = []
    for job in jobs:
        with job:
            if not connection.in_transaction:
                connection.execute("BEGIN IMMEDIATE")
            _run_within(connection, job)
        if not connection.in_transaction:  # SQLite undid everything, not just this job.
            _fail(done, Unavailable(f"undone together with another change: {job.error}"))
            done = []
        elif job.error is None:
            done.append(job)
    if connection.in_transaction:
        _commit(connection, done)


def _run_within(connection: sqlite3.Connection, job: Job) -> None:
    connection.execute("SAVEPOINT job")
    try:
        job.answer = job.work(connection)
        connection.execute("RELEASE job")
    except BaseException:
        if connection.in_transaction:
            _undo(connection)
        raise


def _undo(connection: sqlite3.Connection) -> None:
    """Undo one job. Where that fails nothing is kept of those before it either: half of it must not be committed."""
    try:
        connection.execute("ROLLBACK TO job")
        connection.execute("RELEASE job")
    except (sqlite3.Error, MemoryError):
        try:
            engine.roll_back(connection)
        except (sqlite3.Error, MemoryError):
            connection.close()  # Nothing works from now on. The next flush ends the process.


def _commit(connection: sqlite3.Connection, jobs: Sequence[Job]) -> None:
    try:
        engine.commit(connection)
    except (PlatformError, sqlite3.Error, MemoryError) as error:
        _fail(jobs, error)


def _fail(jobs: Sequence[Job], error: Exception) -> None:
    for job in jobs:
        job.fail(type(error)(*error.args))  # One each: every caller adds its own traceback.


class _Worker:
    """A thread with a connection and a queue."""

    def __init__(self, name: str, connection: sqlite3.Connection, deliver: Callable[[Sequence[Job]], None]) -> None:
        self.connection = connection
        self._deliver = deliver
        self._queue: SimpleQueue[Job | None] = SimpleQueue()
        self.put = self._queue.put
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        jobs: list[Job] = []
        while (job := self._queue.get()) is not None:
            jobs = [job]
            is_last = self._take_waiting(jobs)
            try:
                _run_batch(self.connection, jobs)
            except Exception as bug:  # noqa: BLE001  # the thread must go on: nobody would ever be answered again
                _fail([job for job in jobs if job.error is None], OutcomeUnknown(f"the database failed: {bug!r}"))
            self._deliver(jobs)
            if is_last:
                return

    def _take_waiting(self, jobs: list[Job]) -> bool:
        """Add everything that waits; True when the end of the queue was reached for good."""
        try:
            while (job := self._queue.get_nowait()) is not None:
                jobs.append(job)
        except Empty:
            return False
        return True

    async def stop(self) -> None:
        """Finish the queue and end."""
        self.put(None)
        await asyncio.to_thread(self.thread.join)


class SqliteDatabase:
    """A database file of this process, or one in memory.

    `durability`: "disk" keeps acknowledged commits through a power cut, "process" through the death of the process.
    """

    dialect = "sqlite"

    def __init__(
        self, path: Path | None, *, durability: str = "disk", now: Callable[[], float] = SystemClock.monotonic
    ) -> None:
        if durability not in engine.DURABILITIES:
            raise ValueError(f"durability is one of {', '.join(engine.DURABILITIES)}, not {durability!r}")
        self._path, self._durability = path, durability
        self._loop: asyncio.AbstractEventLoop | None = None
        self._writer: _Worker | None = None
        self._reader: _Worker | None = None
        self._open_jobs = 0
        self._now = now
        self.durations: Mapping[str, Durations] = {"write": Durations(), "read": Durations()}
        """From asking until there is an answer."""

    async def open(self) -> None:
        """Create or open the file and start the threads. Answers go to the running event loop."""
        if self._writer is not None:
            return
        self._loop = asyncio.get_running_loop()
        connection = engine.connect(self._path, durability=self._durability)
        self._writer = self._reader = _Worker("metadata-writer", connection, self._deliver)
        if self._path is not None:
            connection = engine.connect(self._path, durability=self._durability, reads_only=True)
            self._reader = _Worker("metadata-reader", connection, self._deliver)

    async def close(self) -> None:
        """Finish everything queued, fold the write-ahead log into the file, end the threads."""
        writer, reader = self._writer, self._reader
        self._writer = self._reader = None
        if reader is not None and reader is not writer:
            await reader.stop()
            reader.connection.close()
        if writer is not None:
            await writer.stop()
            await asyncio.to_thread(_check_point, writer.connection)
            writer.connection.close()

    @property
    def idle(self) -> bool:
        """Whether nothing is queued or running, and every answer has been handed out."""
        return self._open_jobs == 0

    async def transaction(
        self, script: Callable[[], Script[T]], *, background: bool = False, locking: bool = False
    ) -> T:
        """Run a script, all or nothing, in the order of calls."""
        return await self.submit(partial(engine.run_script, script=script))

    async def statement(self, sql: str, args: Sequence[Any] = ()) -> Rows:
        """Run one statement, in its turn."""
        return await self.submit(partial(engine.run_statement, sql=sql, args=args))

    async def read(self, script: Callable[[], Script[T]]) -> T:
        """Run a script on a snapshot of everything committed."""
        return await self._enqueue(self._reader, partial(engine.run_script, script=script), is_read=True)

    def submit(self, work: Work[T]) -> Awaitable[T]:
        """Run work on the writer thread in a transaction, in the order of calls; queued when this returns."""
        return self._enqueue(self._writer, work, is_read=False)

    def run_inline(self, work: Work[T]) -> T:
        """Run work on the caller's thread in a transaction of its own; only while idle."""
        if self._writer is None:
            raise Unavailable("the database is closed")
        if self._open_jobs:
            raise RuntimeError("run_inline while jobs are open: their order would be lost")
        began_s = self._now()
        answer = engine.run_transaction(self._writer.connection, work)
        self.durations["write"].add(self._now() - began_s)
        return answer

    def _enqueue(self, worker: _Worker | None, work: Work[T], *, is_read: bool) -> asyncio.Future[T]:
        if worker is None or self._loop is None:
            raise Unavailable("the database is closed")
        future: asyncio.Future[T] = self._loop.create_future()
        self._open_jobs += 1
        worker.put(Job(work, future, is_read=is_read, since_s=self._now()))
        return future

    def _deliver(self, jobs: Sequence[Job]) -> None:
        """Hand a batch of answers to the loop: one wake-up, on the worker's thread."""
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(self._answer, jobs)
        except RuntimeError:
            assert self._loop.is_closed()  # Nobody is left to be answered.

    def _answer(self, jobs: Sequence[Job]) -> None:
        self._open_jobs -= len(jobs)
        now_s = self._now()
        for job in jobs:
            self.durations["read" if job.is_read else "write"].add(now_s - job.since_s)
            job.settle()


def _check_point(connection: sqlite3.Connection) -> None:
    # Another process may be reading, or the disk may be full: the log keeps what could not be moved.
    with contextlib.suppress(sqlite3.Error):
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
