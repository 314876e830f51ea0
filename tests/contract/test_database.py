"""What every implementation of the metadata port does, and what only some can: lose a server, or a disk."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import pytest
from fixtures.postgres import PASSWORD, QUOTED_PASSWORD

from penstock.base.clock import SystemClock
from penstock.base.errors import Conflict, CorruptData, InvalidRequest, OutcomeUnknown, PlatformError, Unavailable
from penstock.base.randomness import SeededRandomness
from penstock.metadata.database import Database, Script
from penstock.metadata.inline import InlineDatabase
from penstock.metadata.migrate import known_migrations, migrate
from penstock.metadata.postgres import PostgresDatabase, describe
from penstock.metadata.sqlite import SqliteDatabase

INSERT = "INSERT INTO counter (name, value) VALUES ($1, $2)"
READ = "SELECT value FROM counter WHERE name = $1"
ADD = "UPDATE counter SET value = value + $2 WHERE name = $1 RETURNING value"


def insert(name: str, value: int = 0) -> Script[None]:
    yield INSERT, (name, value)


def value_of(name: str) -> Script[int | None]:
    rows = yield READ, (name,)
    return rows[0][0] if rows else None


def add_one(name: str) -> Script[int]:
    """Read, think, write: what breaks when two of these meet."""
    rows = yield READ, (name,)
    yield "UPDATE counter SET value = $2 WHERE name = $1", (name, rows[0][0] + 1)
    return rows[0][0] + 1


# ---- scripts and rows ------------------------------------------------------------------------------------------


async def test_rows_are_tuples_of_plain_values(database: Database) -> None:
    def script() -> Script[list]:
        yield (
            "INSERT INTO wal_commit (shard_id, seq, object_id, wal_key, wal_offset, wal_length, committed_ms, agent_id,"
            " entries, bases) VALUES (9, $1, $2, $3, 0, 0, 0, 1, $4, $5)",
            (2**63 - 1, memoryview(b"\x00\xffid"), "schlüssel \N{GRINNING FACE}", bytearray(b"entries"), b""),
        )
        yield (
            "INSERT INTO object (object_id, shard_id, key, size_bytes, kind, live, created_ms, dead_ms)"
            " VALUES ($1, 1, '', $2, 1, 0, 0, NULL)",
            (b"x", -(2**63)),
        )
        commit = yield "SELECT seq, object_id, wal_key, entries, bases FROM wal_commit WHERE shard_id = 9", ()
        other = yield "SELECT size_bytes, dead_ms, CAST(0.5 AS DOUBLE PRECISION) FROM object", ()
        none = yield "SELECT 1 FROM object WHERE size_bytes = $1", (7,)
        return [*commit, *other, *none]

    first, second = await database.transaction(script)
    assert first == (2**63 - 1, b"\x00\xffid", "schlüssel \N{GRINNING FACE}", b"entries", b"")
    assert [type(value) for value in first] == [int, bytes, str, bytes, bytes]
    assert second == (-(2**63), None, 0.5)
    assert isinstance(first, tuple)


async def test_sums_and_counts_are_integers(database: Database) -> None:
    await database.transaction(lambda: insert("a", 2**40))

    def script() -> Script[tuple]:
        chosen = "FROM counter WHERE name IN ('a', 'partition', 'producer')"
        rows = yield f"SELECT SUM(value), COUNT(*), MAX(value), COALESCE(SUM(value), 0) {chosen}", ()
        nothing = yield "SELECT SUM(value) FROM counter WHERE value < 0", ()
        return (*rows[0], nothing[0][0])

    answer = await database.read(script)
    assert answer == (2**40 + 1, 3, 2**40, 2**40 + 1, None)
    assert [type(value) for value in answer[:4]] == [int] * 4


async def test_placeholders_may_repeat_and_change_their_order(database: Database) -> None:
    await database.transaction(lambda: insert("a", 5))
    sql = "SELECT name FROM counter WHERE (value = $2 OR value = $2 + 1) AND name = $1"
    assert await database.statement(sql, ("a", 4)) == [("a",)]
    many = [f"n{number}" for number in range(11)]
    marks = ", ".join(f"${number}" for number in range(11, 0, -1))
    assert await database.statement(f"SELECT COUNT(*) FROM counter WHERE name IN ({marks})", many) == [(0,)]


async def test_texts_have_any_characters(database: Database) -> None:
    texts = ["\0", "a\0b", "\x10", "\x100", "\x101", "\x10\0" * 3, "\x10100", "\ufeff\N{GRINNING FACE}\uffff"]
    for number, text in enumerate(texts):
        await database.transaction(lambda: insert(text, number))  # noqa: B023
    for number, text in enumerate(texts):
        assert await database.statement(READ, (text,)) == [(number,)]
        assert await database.statement("SELECT name FROM counter WHERE name = $1", (text,)) == [(text,)]
    with pytest.raises(Conflict):
        await database.transaction(lambda: insert("a\0b"))


async def test_an_answer_is_what_the_script_returns(database: Database) -> None:
    def nothing() -> Script[str]:
        return "nothing to do"
        yield

    assert await database.transaction(nothing) == "nothing to do"
    assert await database.read(nothing) == "nothing to do"


# ---- all or nothing --------------------------------------------------------------------------------------------


async def test_what_a_script_raises_undoes_it_and_comes_out(database: Database) -> None:
    class Mine(Exception):
        pass

    def script() -> Script[None]:
        yield INSERT, ("a", 1)
        raise Mine("why not")

    with pytest.raises(Mine, match="why not"):
        await database.transaction(script)
    assert await database.read(lambda: value_of("a")) is None
    with pytest.raises(Conflict):
        await database.transaction(lambda: insert("producer"))
    await database.transaction(lambda: insert("a", 2))
    assert await database.read(lambda: value_of("a")) == 2


@pytest.mark.parametrize("locking", [False, True])
async def test_a_refused_statement_undoes_the_whole_script(database: Database, locking: bool) -> None:
    def script() -> Script[None]:
        yield INSERT, ("a", 1)
        yield INSERT, ("b", None)

    with pytest.raises(Conflict):
        await database.transaction(script, locking=locking)
    assert await database.read(lambda: value_of("a")) is None


async def test_a_mistake_in_sql_is_not_mistaken_for_bad_weather(database: Database) -> None:
    def script() -> Script[None]:
        yield INSERT, ("a", 1)
        yield "SELECT missing FROM nowhere", ()

    with pytest.raises(Exception, match="nowhere") as raised:
        await database.transaction(script)
    assert not isinstance(raised.value, PlatformError)
    with pytest.raises(Exception, match="nowhere") as raised:
        await database.statement("SELECT missing FROM nowhere")
    assert not isinstance(raised.value, PlatformError)
    assert await database.read(lambda: value_of("a")) is None


async def test_others_are_not_undone_with_one(database: Database) -> None:
    jobs = [database.transaction(lambda n=number: insert(f"n{n // 2}", n)) for number in range(20)]
    answers = await asyncio.gather(*jobs, return_exceptions=True)
    assert sum(isinstance(answer, Conflict) for answer in answers) == 10
    assert sum(answer is None for answer in answers) == 10
    assert await database.statement("SELECT COUNT(*) FROM counter WHERE name LIKE 'n%'") == [(10,)]


async def test_reading_changes_nothing(database: Database) -> None:
    with suppress(Exception):  # Some refuse, others undo.
        await database.read(lambda: insert("a", 1))
    assert await database.read(lambda: value_of("a")) is None


# ---- as if alone -----------------------------------------------------------------------------------------------


async def test_no_update_is_lost(database: Database) -> None:
    await database.transaction(lambda: insert("a"))
    answers = await asyncio.gather(*(database.transaction(lambda: add_one("a")) for _ in range(24)))
    assert sorted(answers) == list(range(1, 25))


async def test_what_is_decided_on_a_reading_still_holds_at_the_commit(database: Database) -> None:
    """Write skew: each takes the last place unless somebody has, and nobody writes what another has read."""

    def take(name: str) -> Script[bool]:
        rows = yield "SELECT COUNT(*) FROM counter WHERE name LIKE 'place%'", ()
        if rows[0][0] > 0:
            return False
        yield INSERT, (f"place {name}", 1)
        return True

    answers = await asyncio.gather(*(database.transaction(lambda n=number: take(str(n))) for number in range(8)))
    assert sum(answers) == 1


async def test_locking_scripts_see_what_those_before_them_left(database: Database) -> None:
    await database.transaction(lambda: insert("a"))

    def script() -> Script[int]:
        yield "UPDATE shard SET epoch = epoch WHERE shard_id = 1", ()
        return (yield from add_one("a"))

    async def repeat() -> list[int]:
        return [await database.transaction(script, locking=True, background=True) for _ in range(10)]

    answers = await asyncio.gather(*(repeat() for _ in range(4)))
    assert sorted(answer for some in answers for answer in some) == list(range(1, 41))


async def test_a_reading_is_of_one_moment_and_not_of_an_old_one(database: Database) -> None:
    await database.transaction(lambda: insert("a"))
    await database.transaction(lambda: insert("b"))

    def move() -> Script[None]:
        yield ADD, ("a", 1)
        yield ADD, ("b", -1)

    def both() -> Script[tuple[int, int]]:
        one = yield READ, ("a",)
        other = yield READ, ("b",)
        return one[0][0], other[0][0]

    async def write() -> None:
        for _ in range(30):
            await database.transaction(move)
            a, _ = await database.read(both)
            seen.append(a)

    async def read() -> None:
        while len(seen) < 60:
            a, b = await database.read(both)
            assert a + b == 0
            await asyncio.sleep(0)

    seen: list[int] = []
    await asyncio.gather(write(), write(), read(), read())
    assert await database.read(both) == (60, -60)
    assert all(a > position // 2 for position, a in enumerate(seen))


async def test_a_statement_is_a_transaction_of_its_own(database: Database) -> None:
    await database.statement(INSERT, ("a", 1))
    answers = await asyncio.gather(*(database.statement(ADD, ("a", 1)) for _ in range(20)))
    assert sorted(rows[0][0] for rows in answers) == list(range(2, 22))
    with pytest.raises(Conflict):
        await database.statement("INSERT INTO counter (name, value) VALUES ('b', 1), ('a', 1)")
    assert await database.read(lambda: value_of("b")) is None


async def test_a_caller_who_goes_away_leaves_no_trace_of_a_half(database: Database) -> None:
    def script(number: int) -> Script[None]:
        yield INSERT, (f"1-{number}", 1)
        yield INSERT, (f"2-{number}", 1)

    for number in range(10):
        task = asyncio.ensure_future(database.transaction(lambda n=number: script(n)))
        for _ in range(number):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await database.transaction(lambda: insert("last"))
    rows = await database.statement("SELECT substr(name, 2), COUNT(*) FROM counter WHERE name < '3' GROUP BY 1")
    assert {row[1] for row in rows} <= {2}


async def test_a_closed_database_refuses(database: Database) -> None:
    begun = [asyncio.ensure_future(database.transaction(lambda n=n: insert(f"n{n}"))) for n in range(3)]
    await asyncio.gather(*begun)
    await database.close()
    for call in (database.transaction(lambda: insert("a")), database.read(lambda: value_of("a"))):
        with pytest.raises(Unavailable):
            await call
    with pytest.raises(Unavailable):
        await database.statement("SELECT 1")
    await database.close()


# ---- migrations ------------------------------------------------------------------------------------------------


async def test_migrations_run_once_and_newer_data_is_refused(database: Database) -> None:
    newest = known_migrations()[-1].version
    assert await migrate(database, SystemClock()) == newest
    assert await database.statement("SELECT MAX(version), COUNT(*) FROM migration") == [(newest, newest + 1)]
    await database.statement("INSERT INTO migration (version, name, applied_ms) VALUES ($1, 'next', 0)", (newest + 1,))
    with pytest.raises(InvalidRequest, match="newer Penstock"):
        await migrate(database, SystemClock())


async def test_processes_that_migrate_at_once_do_it_once(unopened_database) -> None:
    await unopened_database.open()
    answers = await asyncio.gather(*(migrate(unopened_database, SystemClock()) for _ in range(4)))
    assert set(answers) == {known_migrations()[-1].version}
    await unopened_database.close()


# ---- SQLite ----------------------------------------------------------------------------------------------------


async def test_file_keeps_what_was_committed(tmp_path: Path) -> None:
    for expected in (None, 1, 2):
        database = SqliteDatabase(tmp_path / "db")
        await database.open()
        await migrate(database, SystemClock())
        assert await database.read(lambda: value_of("a")) == expected
        if expected is None:
            await database.transaction(lambda: insert("a"))
        await database.transaction(lambda: add_one("a"))
        await database.close()


async def test_full_disk_refuses_and_serves_again_when_there_is_room(tmp_path: Path) -> None:
    database = SqliteDatabase(tmp_path / "db")
    await database.open()
    await migrate(database, SystemClock())
    (pages,) = (await database.statement("PRAGMA page_count"))[0]
    await database.submit(lambda connection: connection.execute(f"PRAGMA max_page_count = {pages + 2}").fetchall())
    big = "INSERT INTO config (cluster_id, kind, name, key, value) VALUES (1, 1, $1, 'k', $2)"
    with pytest.raises(Unavailable, match="full"):
        await database.statement(big, ("a", "x" * 100_000))
    assert await database.statement("SELECT COUNT(*) FROM config") == [(0,)]
    await database.submit(lambda connection: connection.execute("PRAGMA max_page_count = 1000000").fetchall())
    await database.statement(big, ("a", "x" * 100_000))
    assert await database.statement("SELECT COUNT(*) FROM config") == [(1,)]
    await database.close()


async def test_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "db").write_bytes(b"this is not a database, whatever its name says" * 100)
    with pytest.raises(CorruptData, match="backup"):
        await SqliteDatabase(tmp_path / "db").open()
    with pytest.raises(Unavailable, match="directory"):
        await SqliteDatabase(tmp_path / "nowhere" / "db").open()
    with pytest.raises(ValueError, match="durability"):
        SqliteDatabase(None, durability="perhaps")


async def test_work_beside_the_connection_keeps_the_order_of_calls(tmp_path: Path) -> None:
    for database in (SqliteDatabase(tmp_path / "db"), InlineDatabase()):
        await database.open()
        await migrate(database, SystemClock())

        def append(connection: sqlite3.Connection) -> int:
            (last,) = connection.execute("SELECT COALESCE(MAX(value), 0) FROM counter").fetchone()
            connection.execute("INSERT INTO counter VALUES (?, ?)", (str(last + 1), last + 1))
            return last + 1

        assert database.idle
        first = [database.submit(append) for _ in range(5)]
        assert not database.idle
        with pytest.raises(RuntimeError):
            database.run_inline(append)
        answers = [await answer for answer in first]
        assert answers == list(range(answers[0], answers[0] + 5))
        assert database.idle
        assert database.run_inline(append) == answers[-1] + 1
        await database.close()


# ---- simulations -----------------------------------------------------------------------------------------------


async def test_faults_come_before_or_after() -> None:
    fault = None
    database = InlineDatabase(faults=lambda: fault)
    await migrate(database, SystemClock())
    fault = "before"
    with pytest.raises(Unavailable):
        await database.transaction(lambda: insert("before"))
    fault = "after"
    with pytest.raises(OutcomeUnknown):
        await database.transaction(lambda: insert("after"))
    fault = None
    assert await database.read(lambda: value_of("before")) is None
    assert await database.read(lambda: value_of("after")) == 0
    waits = asyncio.ensure_future(database.transaction(lambda: insert("waits")))
    await asyncio.sleep(0)
    database.crash()
    with pytest.raises(Unavailable):
        await database.read(lambda: value_of("after"))
    successor = database.reopen()
    assert await successor.read(lambda: value_of("after")) == 0
    assert await successor.read(lambda: value_of("waits")) in (None, 0)
    waits.cancel()


# ---- PostgreSQL ------------------------------------------------------------------------------------------------


async def test_server_that_hangs_up_is_found_again(postgres: PostgresDatabase, running_postgres) -> None:
    server = running_postgres()
    await postgres.transaction(lambda: insert("a"))

    async def work(number: int) -> None:
        for _ in range(20):
            try:
                await postgres.transaction(lambda: add_one("a"))
                done.append(number)
            except OutcomeUnknown:
                perhaps.append(number)
            except Unavailable:
                pass

    done: list[int] = []
    perhaps: list[int] = []
    workers = [asyncio.ensure_future(work(number)) for number in range(3)]
    for _ in range(5):
        await asyncio.sleep(0.01)
        await server.disconnect_everyone()
    await asyncio.gather(*workers)
    value = await postgres.read(lambda: value_of("a"))
    assert len(done) <= value <= len(done) + len(perhaps)
    assert done


async def test_deadlock_is_begun_again(postgres: PostgresDatabase) -> None:
    await postgres.transaction(lambda: insert("a"))
    await postgres.transaction(lambda: insert("b"))

    def script(first: str, second: str) -> Script[None]:
        yield ADD, (first, 1)
        yield "SELECT pg_sleep(0.1)", ()
        yield ADD, (second, 1)

    await asyncio.gather(
        postgres.transaction(lambda: script("a", "b"), locking=True),
        postgres.transaction(lambda: script("b", "a"), locking=True),
    )
    assert await postgres.read(lambda: value_of("a")) == await postgres.read(lambda: value_of("b")) == 2


async def test_no_error_repeats_the_password(postgres_dsn: str, running_postgres) -> None:
    port = running_postgres().port
    secrets = (PASSWORD, QUOTED_PASSWORD, "hunter2", "not/a", "secret")
    addresses = [
        postgres_dsn.replace(QUOTED_PASSWORD, "hunter2"),
        postgres_dsn.replace(f":{port}/", ":1/"),
        postgres_dsn.replace("127.0.0.1", "nowhere.invalid"),
        postgres_dsn.replace(QUOTED_PASSWORD, PASSWORD),
        f"postgresql://penstock:{quote('secret/', safe='')}@127.0.0.1:{port}x/db",
        postgres_dsn + "?target_session_attrs=hunter2",
    ]
    for address in addresses:
        database = PostgresDatabase(address, randomness=SeededRandomness("x"))
        with pytest.raises((Unavailable, InvalidRequest)) as refusal:
            await database.open()
        told = str(refusal.value) + describe(address)
        assert not [secret for secret in secrets if secret in told], f"{address}: {told}"


@pytest.mark.parametrize("database_to_open", ["memory", "file", "postgres"], indirect=True)
async def test_how_long_answers_take_is_known(database: SqliteDatabase | PostgresDatabase) -> None:
    before = {kind: one.count for kind, one in database.durations.items()}

    def reading() -> Script[int]:
        rows = yield "SELECT 1", ()
        return len(rows)

    assert await database.read(reading) == 1
    assert await database.transaction(reading) == 1
    assert len(await database.statement("SELECT 1")) == 1
    grown = {kind: one.count - before[kind] for kind, one in database.durations.items()}
    assert (grown["read"], grown["write"]) == (1, 2)
    assert database.durations["write"].total_s > 0
