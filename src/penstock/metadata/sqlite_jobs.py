"""Jobs for a connection, the thread that runs them, and the group commit.

A worker drains everything that waits, runs it in order, and wakes the event loop once per durable step instead of
once per job. Transactions that stand next to each other in the queue share one BEGIN…COMMIT with a savepoint each:
while one commit waits for the disk the next group gathers, so no timer is needed.
"""

from __future__ import annotations

import sqlite3
import threading
from asyncio import Future
from collections.abc import Callable, Iterator
from contextlib import suppress
from enum import Enum, auto
from functools import partial
from itertools import groupby
from queue import Empty, SimpleQueue
from typing import Any

from penstock.metadata.database import Script
from penstock.metadata.sqlite_session import commit, platform_error, read_script, rollback, run_script, write_script

MAX_DRAINED = 256


class Kind(Enum):
    """What a job is, which decides what it may share a commit with."""

    TRANSACTION = auto()
    READ = auto()
    WORK = auto()
    STOP = auto()


class Job:
    """One caller's wish, and its outcome once there is one."""

    __slots__ = ("action", "error", "future", "kind", "result")

    def __init__(self, kind: Kind, action: Callable[..., Any], future: Future[Any]) -> None:
        self.kind = kind
        self.action = action
        self.future = future
        self.result: Any = None
        self.error: BaseException | None = None

    def fail(self, error: BaseException, *, committing: bool = False) -> None:
        """Note why the job did not succeed."""
        self.error = platform_error(error, committing=committing)

    def answer(self) -> None:
        """Tell the caller. On the loop's thread."""
        if self.future.done():
            return
        if self.error is None:
            self.future.set_result(self.result)
        else:
            self.future.set_exception(self.error)


def steps(jobs: list[Job]) -> Iterator[tuple[Kind, list[Job]]]:
    """Cut a drained queue into steps: neighbours of one kind together, except work, which commits by itself."""
    for kind, neighbours in groupby(jobs, key=lambda job: job.kind):
        if kind is Kind.WORK:
            yield from ((kind, [job]) for job in neighbours)
        else:
            yield kind, list(neighbours)


def run_step(connection: sqlite3.Connection, kind: Kind, jobs: list[Job]) -> None:
    """Run the jobs of one step; each has its outcome afterwards."""
    match kind:
        case Kind.TRANSACTION if len(jobs) > 1:
            run_group(connection, jobs)
        case Kind.TRANSACTION:
            _run_alone(jobs[0], partial(write_script, connection, jobs[0].action))
        case Kind.READ:
            for job in jobs:
                _run_alone(job, partial(read_script, connection, job.action))
        case Kind.WORK | Kind.STOP:
            job = jobs[0]
            # Work commits for itself, so a failure may have come after a commit.
            _run_alone(job, partial(job.action, connection), committing=True)
            if kind is Kind.WORK:
                rollback(connection)


def _run_alone(job: Job, action: Callable[[], Any], *, committing: bool = False) -> None:
    try:
        job.result = action()
    except Exception as error:  # noqa: BLE001 - the caller gets it
        job.fail(error, committing=committing)


def run_group(connection: sqlite3.Connection, jobs: list[Job]) -> None:
    """Several transactions under one commit. A refused one is undone alone; a failed commit fails them all."""
    try:
        connection.execute("BEGIN IMMEDIATE")
        for job in jobs:
            _run_member(connection, job)
        commit(connection)
    except Exception as error:  # noqa: BLE001 - every caller gets it
        rollback(connection)
        for job in jobs:
            job.fail(error)


def _run_member(connection: sqlite3.Connection, job: Job) -> None:
    connection.execute("SAVEPOINT member")
    try:
        script: Script[Any] = job.action()
        job.result = run_script(connection, script)
    except Exception as error:
        if not connection.in_transaction:
            # SQLite itself gave the whole transaction up: a full disk, an I/O error.
            raise
        job.fail(error)
        connection.execute("ROLLBACK TO member")
    connection.execute("RELEASE member")


class Worker:
    """A thread that owns a connection while it runs jobs."""

    def __init__(self, name: str, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.queue: SimpleQueue[Job] = SimpleQueue()
        self._outstanding = 0
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def idle(self) -> bool:
        """Whether every job put so far has been answered. For the loop's thread, which puts them."""
        return self._outstanding == 0

    def put(self, job: Job) -> None:
        """Queue a job. On the loop's thread."""
        self._outstanding += 1
        self.queue.put(job)

    def join(self) -> None:
        """Wait for the thread, after it was given STOP."""
        self._thread.join()

    def _run(self) -> None:
        while True:
            jobs = self._drain()
            for kind, step in steps(jobs):
                run_step(self.connection, kind, step)
                self._deliver(step)
                if kind is Kind.STOP:
                    return
            # Nothing of a finished job may be kept alive by a thread that waits for the next.
            del jobs, step

    def _drain(self) -> list[Job]:
        jobs = [self.queue.get()]
        with suppress(Empty):
            while len(jobs) < MAX_DRAINED:
                jobs.append(self.queue.get_nowait())
        return jobs

    def _deliver(self, jobs: list[Job]) -> None:
        # A loop that is closed has nobody left who waits.
        with suppress(RuntimeError):
            jobs[0].future.get_loop().call_soon_threadsafe(self._answer, jobs)

    def _answer(self, jobs: list[Job]) -> None:
        self._outstanding -= len(jobs)
        for job in jobs:
            job.answer()
