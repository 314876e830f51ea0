"""Metadata in an SQLite file that this process alone writes.

One thread writes, in the order callers asked; it commits for all that wait at once (sqlite_jobs). Reads run on a
connection of their own, on another thread, and see the last commit: SQLite's WAL keeps the two out of each other's
way. A database in memory has one connection only, so its reads queue with the writes.

The log's commit path uses two side doors, `submit` and `run_inline`: its WAL object and its row are then written by
one thread hop, or by none. `run_inline` borrows the writer's connection while the writer sleeps; only the loop's
thread queues jobs, so a writer that is idle stays idle until that thread returns to the loop.
"""

from __future__ import annotations

import asyncio
import sqlite3
from asyncio import Future
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from penstock.base.errors import Unavailable
from penstock.metadata.database import Script, Work
from penstock.metadata.sqlite_jobs import Job, Kind, Worker
from penstock.metadata.sqlite_session import MEMORY, Durability, connect, platform_error, rollback

T = TypeVar("T")
_AUTOCHECKPOINT_PAGES = 4000


class SqliteDatabase:
    """The embedded metadata database: a file, or `:memory:`."""

    dialect = "sqlite"

    def __init__(self, path: Path | str, *, durability: Durability = "disk") -> None:
        self._path = str(path)
        self._durability = durability
        connection = connect(self._path, durability)
        connection.execute(f"PRAGMA wal_autocheckpoint={_AUTOCHECKPOINT_PAGES}")
        self._writer = Worker("penstock-metadata-writer", connection)
        self._reader: Worker | None = self._writer if self._path == MEMORY else None
        self._closed = False

    async def transaction(self, script: Callable[[], Script[T]]) -> T:
        """Run a script that writes; all or nothing, durable on return."""
        result: T = await self._put(self._writer, Kind.TRANSACTION, script)
        return result

    async def read(self, script: Callable[[], Script[T]]) -> T:
        """Run a script that only reads, on one snapshot that includes every finished transaction."""
        if self._reader is None and not self._closed:
            connection = connect(self._path, self._durability, read_only=True)
            self._reader = Worker("penstock-metadata-reader", connection)
        result: T = await self._put(self._reader or self._writer, Kind.READ, script)
        return result

    @property
    def idle(self) -> bool:
        """Whether nothing is queued or running on the writer."""
        return self._writer.idle and not self._closed

    def submit(self, work: Work[T]) -> Future[T]:
        """Run `work` on the writer's thread, in order with transactions. Without a BEGIN each statement commits."""
        return self._put(self._writer, Kind.WORK, work)

    def run_inline(self, work: Work[T]) -> T:
        """Run `work` now, on the loop's thread. Only while `idle`."""
        if not self.idle:
            raise RuntimeError("run_inline needs an idle writer")
        connection = self._writer.connection
        try:
            return work(connection)
        except sqlite3.Error as error:
            failure = platform_error(error, committing=True)
            if failure is error:
                raise
            raise failure from error
        finally:
            rollback(connection)

    async def close(self) -> None:
        """Finish what is queued, move the WAL into the file, let go of it."""
        if self._closed:
            return
        # The last connection to close moves the WAL, so the writer goes last.
        workers = {worker: None for worker in (self._reader, self._writer) if worker is not None}
        stopping = [(worker, self._put(worker, Kind.STOP, sqlite3.Connection.close)) for worker in workers]
        self._closed = True
        for worker, stopped in stopping:
            await stopped
            worker.join()

    def _put(self, worker: Worker, kind: Kind, action: Callable[..., Any]) -> Future[Any]:
        future: Future[Any] = asyncio.get_running_loop().create_future()
        if self._closed:
            future.set_exception(Unavailable("the database is closed"))
        else:
            worker.put(Job(kind, action, future))
        return future
