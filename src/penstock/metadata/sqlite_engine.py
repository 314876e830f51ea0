"""SQLite without threads: connections, running scripts, and what its errors mean. Shared by the implementations.

A commit that fails because the disk is full did not happen: the frame that would make it valid is the last thing
written to the write-ahead log. Any other failure of a commit (a flush that failed, say) leaves open whether a restart
would find it.
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from penstock.base.errors import Conflict, CorruptData, OutcomeUnknown, Unavailable
from penstock.metadata.database import Rows, Script

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]
"""Code that runs beside the connection, inside a transaction that somebody else begins and commits."""

DURABILITIES = {"disk": "FULL", "process": "OFF"}
"""What must not lose an acknowledged commit: a power cut, or the end of this process only."""

_CACHE_KIB = 3 * 1024
_BUSY_TIMEOUT_S = 5
_OLDEST_VERSION = (3, 35, 0)
_PLACEHOLDER = re.compile(r"\$(\d+)")


def connect(path: Path | None, *, durability: str, reads_only: bool = False) -> sqlite3.Connection:
    """Open a database file, or one in memory; may be used from any one thread at a time."""
    if sqlite3.sqlite_version_info < _OLDEST_VERSION:
        raise Unavailable(f"SQLite {sqlite3.sqlite_version} is too old: 3.35 or later is needed")
    if path is not None and not reads_only:
        with contextlib.suppress(OSError):  # It is there already, or SQLite says better why it cannot be.
            # What is in it proves who users are. SQLite gives the files beside it the same permissions.
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        connection = sqlite3.connect(
            ":memory:" if path is None else path,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=512,
            timeout=_BUSY_TIMEOUT_S,
        )
        _prepare(connection, durability, reads_only=reads_only)
    except sqlite3.Error as error:
        raise failure(error, f"cannot open the database {path}") from error
    return connection


def read_file(path: Path) -> sqlite3.Connection:
    """Open a database file that nobody writes to, to read it and what is still in its log. Raises `sqlite3.Error` when
    that cannot be. Without such a log SQLite would make one."""
    log = path.with_name(f"{path.name}-wal")
    alone = "" if log.exists() and log.stat().st_size else "&immutable=1"
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro{alone}", uri=True, timeout=_BUSY_TIMEOUT_S)


def _prepare(connection: sqlite3.Connection, durability: str, *, reads_only: bool) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute(f"PRAGMA synchronous={DURABILITIES[durability]}")
    connection.execute("PRAGMA wal_autocheckpoint=4000")
    connection.execute("PRAGMA temp_store=memory")
    connection.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
    if reads_only:
        connection.execute("PRAGMA query_only=1")


@lru_cache(maxsize=4096)
def translate(sql: str) -> str:
    """The same statement with SQLite's placeholders."""
    return _PLACEHOLDER.sub(r"?\1", sql)


def run_script(connection: sqlite3.Connection, script: Callable[[], Script[T]]) -> T:
    """Run a script inside whatever transaction is open."""
    steps = script()
    execute = connection.execute
    try:
        sql, args = next(steps)
        while True:
            sql, args = steps.send(execute(translate(sql), args).fetchall())
    except StopIteration as end:
        answer: T = end.value
        return answer
    finally:
        steps.close()


def run_statement(connection: sqlite3.Connection, sql: str, args: Sequence[Any]) -> Rows:
    """Run one statement inside whatever transaction is open."""
    return connection.execute(translate(sql), args).fetchall()


def run_transaction(connection: sqlite3.Connection, work: Work[T]) -> T:
    """Run work in a transaction of its own."""
    try:
        connection.execute("BEGIN IMMEDIATE")
        answer = work(connection)
    except (sqlite3.Error, MemoryError) as error:
        roll_back(connection)
        raise failure(error) from error
    except BaseException:
        roll_back(connection)
        raise
    commit(connection)
    return answer


def run_read(connection: sqlite3.Connection, work: Work[T]) -> T:
    """Run work on one snapshot; what it writes is undone."""
    try:
        connection.execute("BEGIN")
        return work(connection)
    except sqlite3.Error as error:
        raise failure(error) from error
    finally:
        roll_back(connection)


def commit(connection: sqlite3.Connection) -> None:
    """Commit, or raise what is known about a commit that failed."""
    try:
        connection.execute("COMMIT")
    except (sqlite3.Error, MemoryError) as error:
        still_open = connection.in_transaction
        roll_back(connection)
        known = failure(error)
        if still_open or not isinstance(known, Unavailable) or _code(error) == sqlite3.SQLITE_FULL:
            raise known from error
        raise OutcomeUnknown(f"the commit failed ({error}) and may or may not survive a restart") from error


def roll_back(connection: sqlite3.Connection) -> None:
    """Undo what is open; SQLite may have done so itself when it failed."""
    if connection.in_transaction:
        connection.execute("ROLLBACK")


def failure(error: BaseException, what: str = "the database refused") -> BaseException:
    """What an error asks of the caller: SQLite's become ours, others (and those that are bugs of ours) stay."""
    if isinstance(error, MemoryError):
        return Unavailable(f"{what}: there is not enough memory; nothing was stored")
    match _code(error):
        case sqlite3.SQLITE_FULL:
            return Unavailable(f"{what}: the disk is full; nothing was stored. Free some space and try again")
        case sqlite3.SQLITE_IOERR:
            return Unavailable(f"{what}: the disk failed ({error}); nothing was stored")
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED | sqlite3.SQLITE_PROTOCOL:
            return Unavailable(f"{what}: another process has it locked")
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
            return Unavailable(f"{what}: {error}. Check that the directory exists and may be written to")
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return CorruptData(f"{what}: {error}. Restore it from a backup")
        case sqlite3.SQLITE_CONSTRAINT:
            return Conflict(str(error))
    return error


def _code(error: BaseException) -> int:
    """The primary result code; 0 for what does not come from SQLite itself."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
