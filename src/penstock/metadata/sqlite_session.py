"""One connection to SQLite: how it is opened, how scripts run on it, and what its failures mean.

Nothing here knows threads or loops: `SqliteDatabase` and `InlineDatabase` decide where this runs.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Literal, TypeVar

from penstock.base.errors import Conflict, CorruptData, OutcomeUnknown, PlatformError, Unavailable
from penstock.metadata.database import Script

T = TypeVar("T")
Durability = Literal["disk", "process"]

MEMORY = ":memory:"
_STATEMENTS = 512
_CACHE_KIB = 4096
_TOKENS = re.compile(r"'(?:[^']|'')*'|\$(\d+)|\s+FOR\s+UPDATE\b", re.IGNORECASE)

_BUSY, _LOCKED, _NOMEM, _READONLY, _INTERRUPT, _IOERR, _CORRUPT, _FULL, _CANTOPEN, _NOTADB = (
    5, 6, 7, 8, 9, 10, 11, 13, 14, 26,
)  # fmt: skip
_BEFORE_ANYTHING = frozenset({_BUSY, _LOCKED, _NOMEM, _READONLY, _INTERRUPT, _FULL, _CANTOPEN})


def connect(path: str, durability: Durability, *, read_only: bool = False) -> sqlite3.Connection:
    """Open the database file. The write-ahead log keeps readers and the writer out of each other's way."""
    try:
        connection = sqlite3.connect(
            path, isolation_level=None, check_same_thread=False, cached_statements=_STATEMENTS, timeout=5.0
        )
        for pragma in _pragmas(durability, read_only):
            connection.execute(f"PRAGMA {pragma}")
    except sqlite3.Error as error:
        raise translate_error(error, f"the database {path} cannot be opened") from error
    return connection


def _pragmas(durability: Durability, read_only: bool) -> Sequence[str]:
    # NORMAL leaves the WAL to the page cache: it survives this process, and a power cut costs the last commits
    # but not the file. FULL waits for the disk at each commit.
    settings = [
        f"cache_size=-{_CACHE_KIB}", "mmap_size=0", "temp_store=MEMORY", "foreign_keys=OFF", "trusted_schema=OFF",
    ]  # fmt: skip
    if read_only:
        return [*settings, "query_only=ON"]
    synchronous = "FULL" if durability == "disk" else "NORMAL"
    return ["journal_mode=WAL", f"synchronous={synchronous}", *settings]


@lru_cache(maxsize=2048)
def to_sqlite(text: str) -> str:
    """Portable text → SQLite's: `$n` becomes `?n`, row locks go. Literals stay as they are."""

    def change(match: re.Match[str]) -> str:
        if match[1] is not None:
            return f"?{match[1]}"
        return match[0] if match[0].startswith("'") else ""

    return _TOKENS.sub(change, text)


def run_script(connection: sqlite3.Connection, script: Script[T]) -> T:
    """Drive a script to its end inside a transaction that the caller began."""
    execute = connection.execute
    try:
        text, arguments = next(script)
        while True:
            rows = execute(to_sqlite(text), arguments).fetchall()
            text, arguments = script.send(rows)
    except StopIteration as finished:
        result: T = finished.value
        return result
    finally:
        script.close()


def read_script(connection: sqlite3.Connection, script: Callable[[], Script[T]]) -> T:
    """Run a script on one snapshot."""
    connection.execute("BEGIN")
    try:
        return run_script(connection, script())
    finally:
        rollback(connection)


def write_script(connection: sqlite3.Connection, script: Callable[[], Script[T]]) -> T:
    """Run a script in a transaction of its own."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        result = run_script(connection, script())
    except BaseException:
        rollback(connection)
        raise
    commit(connection)
    return result


def commit(connection: sqlite3.Connection) -> None:
    """Make the open transaction durable, or raise what its failure means."""
    try:
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        rollback(connection)
        raise translate_error(error, "the database did not confirm a commit", committing=True) from error


def rollback(connection: sqlite3.Connection) -> None:
    """Undo the open transaction, if there is one."""
    if connection.in_transaction:
        # What cannot be rolled back now is rolled back when the file is opened again.
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")


def platform_error(error: BaseException, *, committing: bool) -> BaseException:
    """What the caller of a job is told: failures of SQLite become ours, everything else stays itself."""
    if isinstance(error, sqlite3.Error) and not isinstance(error, sqlite3.ProgrammingError):
        translated = translate_error(error, "the database failed", committing=committing)
        translated.__cause__ = error
        return translated
    return error


def translate_error(error: sqlite3.Error, what: str, *, committing: bool = False) -> PlatformError:
    """What a failure of SQLite means for the caller."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    sentence = f"{what}: {error}"
    if isinstance(error, sqlite3.IntegrityError):
        return Conflict(sentence)
    if code in (_CORRUPT, _NOTADB):
        return CorruptData(sentence)
    if code == _FULL:
        return Unavailable(f"{what}: the disk is full")
    if code in _BEFORE_ANYTHING or not committing:
        return Unavailable(sentence)
    return OutcomeUnknown(sentence)
