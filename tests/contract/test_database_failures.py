"""What a database does when what it stands on fails: nobody waits for ever, and nothing half done is kept."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from penstock.base.clock import SystemClock
from penstock.base.errors import Conflict, CorruptData, OutcomeUnknown, Unavailable
from penstock.metadata.database import Script
from penstock.metadata.migrate import migrate
from penstock.metadata.postgres import PostgresDatabase
from penstock.metadata.sqlite import SqliteDatabase

INSERT = "INSERT INTO counter (name, value) VALUES ($1, 0)"


def value_of(name: str) -> Script[int | None]:
    rows = yield "SELECT value FROM counter WHERE name = $1", (name,)
    return rows[0][0] if rows else None


def run(sql: str) -> Script[None]:
    yield sql, ()


async def test_half_of_a_job_is_not_committed_with_others(tmp_path: Path) -> None:
    """Where a job cannot be undone alone, those that would have shared its commit are told that nothing happened."""

    def half(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO counter (name, value) VALUES ('half', 0)")
        connection.execute("RELEASE job")  # So there is nothing to go back to.
        raise Conflict("the other half is missing")

    database = SqliteDatabase(tmp_path / "db")
    await database.open()
    await migrate(database, SystemClock())
    before, failed = await at_once(database, inserting("first"), half)
    assert (type(before), type(failed)) == (Unavailable, Conflict)
    assert await database.read(lambda: value_of("half")) is None
    assert await database.read(lambda: value_of("first")) is None
    await database.submit(inserting("first"))
    await database.close()


async def test_nobody_waits_for_ever_for_a_connection_that_is_gone(tmp_path: Path) -> None:
    database = SqliteDatabase(tmp_path / "db")
    await database.open()
    await migrate(database, SystemClock())
    _, answer = await asyncio.wait_for(at_once(database, sqlite3.Connection.close, inserting("a")), 10)
    assert isinstance(answer, OutcomeUnknown)
    with pytest.raises(sqlite3.ProgrammingError):
        await asyncio.wait_for(database.submit(inserting("b")), 10)


def inserting(name: str) -> Callable[[sqlite3.Connection], int]:
    """Work that inserts a row."""
    return lambda connection: connection.execute("INSERT INTO counter (name, value) VALUES (?, 0)", (name,)).rowcount


async def at_once(database: SqliteDatabase, *works: Callable[[sqlite3.Connection], Any]) -> list[Any]:
    """What became of jobs that share a commit."""
    may_begin = threading.Event()
    jobs = [database.submit(lambda connection: may_begin.wait(10)), *map(database.submit, works)]
    may_begin.set()
    _, *answers = await asyncio.gather(*jobs, return_exceptions=True)
    return answers


@pytest.mark.parametrize(
    ("code", "kind", "alone"),
    [
        ("58030", Unavailable, OutcomeUnknown),  # Its disk returned an error.
        ("XX000", Unavailable, OutcomeUnknown),  # A bug of the server.
        ("25P03", Unavailable, OutcomeUnknown),  # idle_in_transaction_session_timeout
        ("55P03", Unavailable, Unavailable),  # lock_timeout
        ("57014", Unavailable, Unavailable),  # statement_timeout
        ("53300", Unavailable, Unavailable),  # Too many connections.
        ("42501", Unavailable, Unavailable),  # A right was revoked.
        ("XX001", CorruptData, CorruptData),
    ],
)
async def test_what_ails_a_server_is_no_bug_of_ours(
    postgres: PostgresDatabase, code: str, kind: type[Exception], alone: type[Exception]
) -> None:
    """Whatever is taken for a bug ends the process."""
    fails = f"DO $$ BEGIN RAISE EXCEPTION 'so it is' USING ERRCODE = '{code}'; END $$"

    def script() -> Script[None]:
        yield INSERT, ("undone",)
        yield fails, ()

    with pytest.raises(kind):
        await postgres.transaction(script)
    with pytest.raises(kind):
        await postgres.read(lambda: run(fails))
    with pytest.raises(alone):
        await postgres.statement(fails)
    assert await postgres.read(lambda: value_of("undone")) is None
