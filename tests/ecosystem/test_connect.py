"""Kafka Connect with its exactly-once sources: one worker that copies a PostgreSQL table to three places.

Debezium reads the table, first as it is and then its changes; a file, another table and an Iceberg table are written
from the topic. The broker is killed while the table is read for the first time, the worker while changes are copied. In
the end each place must have exactly what the changes say, by counts that are known beforehand.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest
from confluent_kafka import Consumer, TopicPartition
from connect_worker import SOURCES, Worker
from fixtures import programs, toolchains
from fixtures.postgres import PASSWORD, PostgresServer, require_postgres
from fixtures.server import Server
from fixtures.waiting import eventually
from fixtures.wire import Wire

from penstock.wire.api_keys import ApiKey
from penstock.wire.messages.describe_groups import DescribeGroupsRequest
from penstock.wire.messages.leave_group import LeaveGroupRequest, MemberIdentity
from penstock.wire.messages.list_groups import ListGroupsRequest

ROWS, UPDATES, DELETES = 10_000, 500, 100
TOPIC, CONTROL, DEAD_LETTERS = "shop.public.orders", "iceberg-control", "dead-letters"
PARTITIONS = 2
BATCH = 512
ICEBERG_TABLE = "shop.orders"
UNWRAPPED = {
    "transforms": "unwrap",
    "transforms.unwrap.type": "io.debezium.transforms.ExtractNewRecordState",
    "transforms.unwrap.delete.tombstone.handling.mode": "rewrite",
}

pytestmark = pytest.mark.timeout(1200)  # Includes downloading with cold caches.


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server of its own, because it is killed."""
    one = Server(tmp_path / "broker", durability="disk")
    one.start()
    yield one
    one.kill()


@pytest.fixture
def worker(server: Server, postgres: PostgresServer, tmp_path: Path) -> Iterator[Worker]:
    """A worker that is starting. It ends before the database that it is connected to."""
    toolchains.require(programs.JDK, "java", "javac", "mvn")
    one = Worker(tmp_path / "connect", server.bootstrap)
    with one.program:
        yield one


@pytest.fixture
def postgres() -> Iterator[PostgresServer]:
    """A server whose changes can be followed."""
    one = PostgresServer(require_postgres(), wal_level="logical")
    try:
        one.start()
        yield one
    finally:
        one.remove()


@pytest.fixture
async def database(postgres: PostgresServer) -> AsyncIterator[asyncpg.Connection]:
    """The database, with a table of orders."""
    connection = await asyncpg.connect(postgres.dsn(), timeout=60)
    await connection.execute("CREATE TABLE orders (id integer PRIMARY KEY, customer text NOT NULL, amount integer)")
    await connection.execute(
        "INSERT INTO orders SELECT n, 'customer ' || n % 97, n % 1000 FROM generate_series(1, $1::integer) AS n", ROWS
    )
    yield connection
    await connection.close()


async def test_exactly_once_from_a_database_to_three_places(
    server: Server, worker: Worker, postgres: PostgresServer, database: asyncpg.Connection, tmp_path: Path
) -> None:
    catalog, lines = tmp_path / "catalog.db", tmp_path / "orders.txt"
    with Wire(server.bootstrap) as wire:
        wire.create_topic(TOPIC, partitions=PARTITIONS)
        wire.create_topic(CONTROL)
    worker.await_ready()
    worker.create("jdbc", _jdbc(postgres))
    worker.create("iceberg", _iceberg(catalog, tmp_path / "warehouse"))
    eventually(lambda: worker.tasks() == 2, within_s=120, what="the sinks")

    worker.create("debezium", _debezium(postgres))
    eventually(lambda: _end(server) >= 3 * BATCH, within_s=120, every_s=0.01, what="the first rows")
    server.kill()
    server.start()
    reached = _end(server)
    assert reached < ROWS, "all was read before the broker was killed"
    worker.create("file", _file(lines))  # Not sooner: it writes what it gets again, once more.

    def has_lines(count: int) -> bool:
        worker.check()
        return lines.exists() and lines.read_bytes().count(b"\n") >= count

    eventually(lambda: has_lines(ROWS), within_s=120, what="the table as it was, in the file")
    await database.execute("UPDATE orders SET amount = -1 WHERE id <= $1", UPDATES)
    await database.execute("DELETE FROM orders WHERE id > $1", ROWS - DELETES)
    await database.execute("INSERT INTO orders VALUES ($1, 'last', 1)", ROWS + 1)
    eventually(lambda: has_lines(10_701), within_s=60, what="the changes, in the file")
    assert lines.read_bytes().count(b"\n") == 10_701
    await _eventually_copied(database, worker, 9_901)
    assert await database.fetchval("SELECT count(*) FROM orders_copy WHERE amount = -1") == UPDATES

    end = _end(server)
    await database.execute("ALTER TABLE orders ADD COLUMN note text")
    await database.execute("INSERT INTO orders VALUES ($1, 'later', 1, 'new')", ROWS + 2)
    await database.execute("DELETE FROM orders WHERE id BETWEEN $1 AND $2", 1, DELETES)
    eventually(lambda: _end(server) > end, within_s=60, every_s=0.01, what="the first of the later changes")
    _kill_and_start(worker, server)
    await _eventually_copied(database, worker, 9_802)
    assert await database.fetchval("SELECT id FROM orders_copy WHERE note = 'new'") == ROWS + 2
    differing = "(SELECT id, customer, amount FROM {} EXCEPT SELECT id, customer, amount FROM {})"
    for pair in (("orders", "orders_copy"), ("orders_copy", "orders")):
        assert await database.fetch(differing.format(*pair)) == []
    expected = {number: _changes_of(number) for number in range(1, ROWS + 3)}
    pairs = {(number, change) for number, changes in expected.items() for change in changes if change != "tombstone"}
    assert len(pairs) == 10_702
    # What the worker had not committed the offsets of when it was killed is in the file once more.
    eventually(lambda: _changes_in(lines) >= pairs, within_s=60, what="the later changes, in the file")
    assert _changes_in(lines) == pairs
    eventually(
        lambda: _table_rows(catalog, tmp_path / "warehouse") == "rows 10702 ids 10002 changes 10702",
        within_s=60, every_s=1, what="the Iceberg table",
    )  # fmt: skip
    worker.check()
    assert _changes(server.bootstrap) == expected
    with Wire(server.bootstrap) as wire:
        assert wire.list_offset(DEAD_LETTERS, -1).offset == 0


def _changes_of(number: int) -> list[str]:
    """What happened to a row, and so what is in the topic of it: a tombstone after its deletion."""
    if number > ROWS:
        return ["c"]
    is_updated, is_deleted = number <= UPDATES, number <= DELETES or number > ROWS - DELETES
    return ["r", *(["u"] if is_updated else []), *(["d", "tombstone"] if is_deleted else [])]


def _changes(bootstrap: str) -> dict[int, list[str]]:
    """What the topic has of each row, in order, for who reads what is committed."""
    consumer = Consumer({
        "bootstrap.servers": bootstrap, "group.id": "unused", "enable.auto.commit": False, "log_level": 0,
        "isolation.level": "read_committed", "enable.partition.eof": True,
    })  # fmt: skip
    consumer.assign([TopicPartition(TOPIC, partition, 0) for partition in range(PARTITIONS)])
    found: dict[int, list[str]] = {}
    ends = 0
    while ends < PARTITIONS:
        messages = consumer.consume(1000, 30)
        assert messages, "the topic cannot be read"
        for message in messages:
            if message.error() is not None:
                ends += 1
                continue
            value = message.value()
            change = "tombstone" if value is None else json.loads(value)["payload"]["op"]
            found.setdefault(json.loads(message.key())["payload"]["id"], []).append(change)
    consumer.close()
    return found


async def _eventually_copied(database: asyncpg.Connection, worker: Worker, count: int) -> None:
    for _ in range(600):
        worker.check()
        if await database.fetchval("SELECT to_regclass('orders_copy')") is not None:
            found = await database.fetchval("SELECT count(*) FROM orders_copy")
            if found == count:
                return
        await asyncio.sleep(0.1)
    raise AssertionError(f"{found} of {count} rows")


def _changes_in(lines: Path) -> set[tuple[int, str]]:
    """Rows and what happened to them. Before a line that is whole there may be what was written of one when the worker
    was killed; a tombstone's line says nothing."""
    found = re.findall(rb"^.*(?:before|after)=Struct\{id=(\d+).*,op=(\w),", lines.read_bytes(), re.MULTILINE)
    return {(int(number), change.decode()) for number, change in found}


def _kill_and_start(worker: Worker, server: Server) -> None:
    worker.program.kill()
    _remove_members(server)
    worker.program.start()
    worker.await_rest()


def _remove_members(server: Server) -> None:
    """Take the members that were killed out of their groups, as an administrator can. Else others wait for them until
    their sessions are over."""
    with Wire(server.bootstrap) as wire:
        names = [group.group_id for group in wire.call(ApiKey.LIST_GROUPS, 5, ListGroupsRequest()).groups]
        for group in wire.call(ApiKey.DESCRIBE_GROUPS, 5, DescribeGroupsRequest(groups=names)).groups:
            members = [MemberIdentity(member_id=member.member_id) for member in group.members]
            left = wire.call(ApiKey.LEAVE_GROUP, 5, LeaveGroupRequest(group_id=group.group_id, members=members))
            assert left.error_code == 0


def _end(server: Server) -> int:
    """How many records and markers the topic has."""
    with Wire(server.bootstrap) as wire:
        return sum(wire.list_offset(TOPIC, -1, partition=number).offset for number in range(PARTITIONS))


def _table_rows(catalog: Path, warehouse: Path) -> str:
    jars = programs.maven_jars(SOURCES / "iceberg.xml")
    classes = programs.java_classes(SOURCES, jars)
    command = programs.jvm(f"{classes}:{jars}/*", "TableRows", str(catalog), str(warehouse), ICEBERG_TABLE)
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout.strip() or done.stderr[-3000:]


def _debezium(postgres: PostgresServer) -> dict[str, str]:
    return {
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
        "exactly.once.support": "required",
        "database.hostname": "127.0.0.1",
        "database.port": str(postgres.port),
        "database.user": "penstock",
        "database.password": PASSWORD,
        "database.dbname": "postgres",
        "topic.prefix": "shop",
        "table.include.list": "public.orders",
        "plugin.name": "pgoutput",
        "max.batch.size": str(BATCH),
        "poll.interval.ms": "50",
    }


def _file(path: Path) -> dict[str, str]:
    return {
        "connector.class": "org.apache.kafka.connect.file.FileStreamSinkConnector",
        "topics": TOPIC,
        "file": str(path),
        "tasks.max": "2",
        "errors.tolerance": "all",
        "errors.deadletterqueue.topic.name": DEAD_LETTERS,
        "errors.deadletterqueue.topic.replication.factor": "1",
    }


def _jdbc(postgres: PostgresServer) -> dict[str, str]:
    return {
        "connector.class": "io.debezium.connector.jdbc.JdbcSinkConnector",
        "topics": TOPIC,
        "connection.url": f"jdbc:postgresql://127.0.0.1:{postgres.port}/postgres",
        "connection.username": "penstock",
        "connection.password": PASSWORD,
        "insert.mode": "upsert",
        "delete.enabled": "true",
        "primary.key.mode": "record_key",
        "schema.evolution": "basic",
        "collection.name.format": "orders_copy",
    }


def _iceberg(catalog: Path, warehouse: Path) -> dict[str, str]:
    return {
        "connector.class": "org.apache.iceberg.connect.IcebergSinkConnector",
        "topics": TOPIC,
        "iceberg.tables": ICEBERG_TABLE,
        "iceberg.tables.auto-create-enabled": "true",
        "iceberg.tables.evolve-schema-enabled": "true",
        "iceberg.catalog.catalog-impl": "org.apache.iceberg.jdbc.JdbcCatalog",
        "iceberg.catalog.uri": f"jdbc:sqlite:{catalog}",
        "iceberg.catalog.warehouse": str(warehouse),
        "iceberg.control.topic": CONTROL,
        "iceberg.control.commit.interval-ms": "2000",
    } | UNWRAPPED
