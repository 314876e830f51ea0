"""`penstock up --metadata postgresql://…`: one agent, its metadata on a server that other things happen to as well."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from fixtures.postgres import PASSWORD, QUOTED_PASSWORD, PostgresServer
from fixtures.server import Server
from fixtures.waiting import eventually, free_ports
from fixtures.wire import Wire

from penstock.base.clock import SystemClock
from penstock.base.randomness import SeededRandomness
from penstock.metadata.postgres import PostgresDatabase
from penstock.quotas.service import Quotas
from penstock.quotas.settings import QuotaSettings
from penstock.quotas.throttles import Throttles
from penstock.quotas.transitions import QuotaAlteration
from penstock.wire.api_keys import ApiKey
from penstock.wire.messages.describe_client_quotas import DescribeClientQuotasRequest


@pytest.fixture
def server(tmp_path: Path, postgres_dsn: str, request: pytest.FixtureRequest) -> Iterator[Server]:
    """A broker whose metadata is in PostgreSQL."""
    server = Server(
        tmp_path, durability="disk", environment={"PENSTOCK_METADATA": postgres_dsn},
        arguments=getattr(request, "param", ()),
    )  # fmt: skip
    server.start()
    yield server
    if server.running:
        server.kill()
    for secret in (PASSWORD, QUOTED_PASSWORD):
        assert secret not in server.log_tail(limit=10**7)


def producer(server: Server) -> Producer:
    return Producer(
        {
            "bootstrap.servers": server.bootstrap,
            "enable.idempotence": True,
            "linger.ms": 1,
            "message.timeout.ms": 120_000,
            "retry.backoff.ms": 20,
            "retry.backoff.max.ms": 200,
            "reconnect.backoff.ms": 20,
            "reconnect.backoff.max.ms": 200,
        }
    )


def consumed(server: Server, topic: str, group: str, count: int, *, within_s: float = 60) -> list[tuple[int, int, str]]:
    """Partition, offset and value of so many records from the beginning, or from where the group is."""
    consumer = Consumer(
        {"bootstrap.servers": server.bootstrap, "group.id": group, "auto.offset.reset": "earliest",
         "enable.auto.commit": False}
    )  # fmt: skip
    consumer.subscribe([topic])
    found: list[tuple[int, int, str]] = []
    deadline = time.monotonic() + within_s
    try:
        while len(found) < count and time.monotonic() < deadline:
            for message in consumer.consume(500, timeout=0.5):
                assert message.error() is None, message.error()
                found.append((message.partition(), message.offset(), message.value().decode()))
        if found:
            consumer.commit(asynchronous=False)
    finally:
        consumer.close()
    return found


class Load:
    """Producers at work until told to stop; what was acknowledged, and where."""

    def __init__(self, server: Server, topic: str, *, threads: int = 2) -> None:
        self.acknowledged: dict[str, tuple[int, int]] = {}
        self.failed: list[str] = []
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(server, topic, n)) for n in range(threads)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def await_more(self, count: int) -> None:
        """Wait until so many more records are acknowledged."""
        goal = len(self.acknowledged) + count
        eventually(lambda: len(self.acknowledged) >= goal, within_s=90, what=f"{count} more acknowledged records")

    def _run(self, server: Server, topic: str, number: int) -> None:
        sender, sent = producer(server), 0

        def told(error, message) -> None:
            if error is not None:
                self.failed.append(str(error))
            else:
                self.acknowledged[message.value().decode()] = (message.partition(), message.offset())

        while not self._stopping.is_set():
            for _ in range(20):
                sender.produce(topic, f"{number}-{sent}".encode(), key=str(sent % 50).encode(), on_delivery=told)
                sent += 1
            sender.poll(0.01)
        assert sender.flush(120) == 0


def check_everything_is_there(server: Server, topic: str, load: Load) -> None:
    end = sum(end_offsets(server, topic))
    found = consumed(server, topic, f"check-{uuid.uuid4()}", end)
    assert len(found) == end
    assert load.failed == []
    values = Counter(value for _, _, value in found)
    assert [value for value, times in values.items() if times > 1] == []
    places = {value: (partition, offset) for partition, offset, value in found}
    assert load.acknowledged.items() <= places.items()
    for number in (0, 1):
        for partition in {partition for partition, _, _ in found}:
            own = [
                int(value.split("-")[1]) for p, _, value in sorted(found) if p == partition and value[0] == str(number)
            ]
            assert own == sorted(own)


def end_offsets(server: Server, topic: str) -> list[int]:
    consumer = Consumer({"bootstrap.servers": server.bootstrap, "group.id": "none"})
    try:
        partitions = consumer.list_topics(topic, timeout=20).topics[topic].partitions
        return [consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=20)[1] for number in partitions]
    finally:
        consumer.close()


def create(server: Server, topic: str, partitions: int) -> None:
    command = ["topic", "create", topic, "--partitions", str(partitions), "-b", server.bootstrap]
    subprocess.run([sys.executable, "-m", "penstock", *command], check=True, capture_output=True, timeout=60)


def test_everything_survives_a_kill(server: Server) -> None:
    create(server, "t", 4)
    with Load(server, "t") as load:
        load.await_more(2_000)
        before = consumed(server, "t", "g", 500)
        for _ in range(3):
            server.kill()
            server.start()
            load.await_more(1_000)
    check_everything_is_there(server, "t", load)
    after = consumed(server, "t", "g", sum(end_offsets(server, "t")) - len(before))
    assert not set(before) & set(after)
    assert server.stop() == 0
    server.start()
    check_everything_is_there(server, "t", load)
    assert server.stop() == 0


def test_nothing_is_lost_when_postgres_restarts(server: Server, running_postgres: Callable[[], PostgresServer]) -> None:
    postgres = running_postgres()
    create(server, "t", 4)
    with Load(server, "t") as load:
        load.await_more(1_000)
        for immediately in (True, False, True):
            postgres.stop(immediately=immediately)
            time.sleep(0.3)  # Not waiting for anything: the broker is to notice.
            postgres.start()
            load.await_more(1_000)
    check_everything_is_there(server, "t", load)
    assert server.stop() == 0


def test_a_stop_does_not_wait_for_a_database_that_is_away(
    server: Server, running_postgres: Callable[[], PostgresServer]
) -> None:
    postgres = running_postgres()
    create(server, "t", 4)
    with Load(server, "t") as load:
        load.await_more(1_000)
        postgres.stop(immediately=True)
        assert server.stop() == 0
        postgres.start()
        server.start()
        load.await_more(1_000)
    check_everything_is_there(server, "t", load)


@pytest.mark.parametrize("server", [("--encrypt",)], ids=["encrypted"], indirect=True)
def test_the_wal_moves_into_segments(server: Server, running_postgres: Callable[[], PostgresServer]) -> None:
    postgres = running_postgres()

    def ask(sql: str) -> int:
        return int(asyncio.run(postgres.run(sql))[0][0])

    create(server, "t", 4)
    sender, count = producer(server), 9_000  # A file of the WAL holds less.
    failed: list[str] = []

    def told(error, _message) -> None:
        if error is not None:
            failed.append(str(error))

    for turn in range(2):
        for number in range(count):
            value = f"{turn}-{number}-".encode().ljust(10_000, b"x")
            sender.produce("t", value, key=str(number).encode(), on_delivery=told)
            sender.poll(0)
        assert sender.flush(60) == 0
        eventually(lambda: ask("SELECT COUNT(*) FROM segment") > 0, within_s=30, what="segments")
        if turn == 0:
            server.kill()
            server.start()
    assert failed == []
    assert ask("SELECT wal_floor FROM shard") > 0
    found = consumed(server, "t", "g", 2 * count)
    assert {value.rstrip("x") for _, _, value in found} == {f"{t}-{n}-" for t in range(2) for n in range(count)}
    assert len(found) == 2 * count
    assert server.stop() == 0
    assert "ERROR" not in server.log_tail(limit=10**7)


def test_a_database_has_one_directory_and_a_directory_one_place(
    server: Server, postgres_dsn: str, tmp_path: Path
) -> None:
    create(server, "t", 1)
    other = refused(tmp_path / "other", postgres_dsn)
    assert "belongs to another data directory" in other
    create(server, "u", 1)  # The one it belongs to goes on undisturbed.
    assert server.stop() == 0
    assert "has its metadata in PostgreSQL" in refused(server.data_dir, None)
    plain = Server(tmp_path / "plain")
    plain.start()
    assert plain.stop() == 0
    assert "has its metadata in the directory itself" in refused(plain.data_dir, postgres_dsn)
    server.start()
    assert end_offsets(server, "t") == [0]


def test_a_database_that_is_older_than_the_data_is_noticed(
    server: Server, postgres_dsn: str, running_postgres: Callable[[], PostgresServer]
) -> None:
    postgres = running_postgres()
    create(server, "t", 1)
    with Load(server, "t", threads=1) as load:
        load.await_more(100)
    assert server.stop() == 0
    ((epoch,),) = asyncio.run(postgres.run("UPDATE shard SET epoch = epoch - 1 RETURNING epoch"))
    for _ in range(2):
        assert f"it ends with start {epoch}, the data with start {epoch + 1}" in refused(server.data_dir, postgres_dsn)
    asyncio.run(postgres.run("UPDATE shard SET epoch = epoch + 1"))
    server.start()
    check_everything_is_there(server, "t", load)
    assert server.stop() == 0
    asyncio.run(postgres.empty_database())
    assert "the metadata is empty, but the data directory has data" in refused(server.data_dir, postgres_dsn)


@pytest.mark.parametrize("is_idle", [True, False], ids=["idle", "busy"])
def test_who_is_taken_over_from_ends_and_says_why(
    server: Server, tmp_path: Path, postgres_dsn: str, is_idle: bool
) -> None:
    """Somebody starts a copy of the data directory on the same database. Idle, it would go on to show outdated data."""
    create(server, "t", 1)
    with Load(server, "t", threads=1) as load:
        load.await_more(100)
    successor = Server(tmp_path / "copy", durability="disk", environment={"PENSTOCK_METADATA": postgres_dsn})
    shutil.copytree(server.data_dir, successor.data_dir)
    size = server.log_size()
    sender = producer(server)
    successor.start()
    try:
        if not is_idle:
            sender.produce("t", b"refused")
        eventually(lambda: not server.running, within_s=20, what="the end of the process")
        assert server.exit_code() == 1
        said = server.log_tail(since=size, limit=10**6)
        assert said.count("another process has started on the same database") == 1
        assert "Traceback" not in said
        sender.purge()
        check_everything_is_there(successor, "t", load)
        assert successor.stop() == 0
    finally:
        successor.kill()


def test_who_was_taken_over_from_may_start_again(
    server: Server, running_postgres: Callable[[], PostgresServer]
) -> None:
    """Then it is the newest. Its producers have tried again meanwhile."""
    postgres = running_postgres()
    create(server, "t", 4)
    with Load(server, "t") as load:
        load.await_more(500)
        asyncio.run(postgres.run("UPDATE shard SET epoch = epoch + 1"))
        eventually(lambda: not server.running, within_s=20, what="the end of the process")
        assert server.exit_code() == 1
        server.start()
        load.await_more(500)
    check_everything_is_there(server, "t", load)
    assert server.stop() == 0


def test_a_database_that_has_lost_a_commit_is_noticed(
    server: Server, postgres_dsn: str, running_postgres: Callable[[], PostgresServer]
) -> None:
    create(server, "t", 1)
    with Load(server, "t", threads=1) as load:
        load.await_more(100)
    assert server.stop() == 0
    postgres = running_postgres()
    ((newest,),) = asyncio.run(postgres.run("SELECT MAX(seq) FROM wal_commit"))
    for lost in (newest, newest - 1):
        kept = asyncio.run(postgres.run("DELETE FROM wal_commit WHERE seq = $1 RETURNING *", lost))
        assert f"lost the row of commit {lost}, but" in refused(server.data_dir, postgres_dsn)
        values = ", ".join(f"${number}" for number in range(1, len(kept[0]) + 1))
        asyncio.run(postgres.run(f"INSERT INTO wal_commit ({', '.join(kept[0].keys())}) VALUES ({values})", *kept[0]))
    server.start()
    check_everything_is_there(server, "t", load)
    assert server.stop() == 0


def refused(data_dir: Path, dsn: str | None) -> str:
    """What a start is refused with."""
    kafka, http = free_ports(2)
    command = [sys.executable, "-m", "penstock", "up", "--data-dir", str(data_dir), "--kafka", f"127.0.0.1:{kafka}"]
    command += ["--http", f"127.0.0.1:{http}", *([] if dsn is None else ["--metadata", dsn])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert PASSWORD not in done.stderr
    assert QUOTED_PASSWORD not in done.stderr
    return done.stderr


async def test_what_another_agent_changes_of_quotas_is_in_force_soon(server: Server, postgres_dsn: str) -> None:
    """The other agent is the services over a connection of their own."""
    database = PostgresDatabase(postgres_dsn, randomness=SeededRandomness("other"))
    await database.open()
    try:
        throttles = Throttles(clock=SystemClock(), settings=QuotaSettings())
        quotas = Quotas(database=database, throttles=throttles)
        await quotas.load()
        await quotas.alter(1, [QuotaAlteration(entity=[("user", "bob")], limits=[("producer_byte_rate", 5.0)])])
    finally:
        await database.close()

    def limited() -> bool:
        with Wire(server.bootstrap) as wire:
            answer = wire.call(ApiKey.DESCRIBE_CLIENT_QUOTAS, 1, DescribeClientQuotasRequest(components=[]))
        return [entry.values[0].value for entry in answer.entries] == [5.0]

    await asyncio.to_thread(lambda: eventually(limited, what="the quota of another agent"))
