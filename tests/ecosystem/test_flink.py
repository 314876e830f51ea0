"""Flink SQL, exactly once, through its SQL Gateway: windows counted while the worker and the broker are killed."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from fixtures import programs, toolchains
from fixtures.server import Server
from fixtures.waiting import eventually
from fixtures.wire import Wire
from flink_cluster import Cluster

CLICKS, WINDOWS, WINDOW_MS = 20_000, 10, 2_000
PAGES = ("home", "cart", "about")

pytestmark = pytest.mark.timeout(1200)  # Includes downloading with cold caches.

CLICKS_TABLE = """
    CREATE TABLE clicks (
        page STRING, at_ms BIGINT, clicked_at AS TO_TIMESTAMP_LTZ(at_ms, 3),
        WATERMARK FOR clicked_at AS clicked_at - INTERVAL '1' SECOND
    ) WITH (
        'connector' = 'kafka', 'topic' = 'clicks', 'format' = 'json', 'scan.startup.mode' = 'earliest-offset',
        'properties.bootstrap.servers' = '{bootstrap}', 'properties.group.id' = 'flink'
    )"""
COUNTS_TABLE = """
    CREATE TABLE counts (start_at STRING, page STRING, clicks BIGINT) WITH (
        'connector' = 'kafka', 'topic' = 'counts', 'format' = 'json', 'properties.bootstrap.servers' = '{bootstrap}',
        'properties.transaction.timeout.ms' = '60000',
        'sink.delivery-guarantee' = 'exactly-once', 'sink.transactional-id-prefix' = 'flink'
    )"""
JOB = """
    INSERT INTO counts
    SELECT CAST(UNIX_TIMESTAMP(CAST(window_start AS STRING)) AS STRING), page, COUNT(*)
    FROM TABLE(TUMBLE(TABLE clicks, DESCRIPTOR(clicked_at), INTERVAL '2' SECOND))
    GROUP BY window_start, window_end, page"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server of its own, because it is killed."""
    one = Server(tmp_path / "broker", durability="disk")
    one.start()
    yield one
    one.kill()


@pytest.fixture
def flink(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster that is starting."""
    toolchains.require(programs.JDK, "java", "mvn")
    with Cluster(tmp_path / "flink").running() as cluster:
        yield cluster


def test_windows_exactly_once_through_crashes(server: Server, flink: Cluster) -> None:
    with Wire(server.bootstrap) as wire:
        wire.create_topic("clicks")
        wire.create_topic("counts")
    producer = Producer({"bootstrap.servers": server.bootstrap, "enable.idempotence": True, "log_level": 0})
    start_ms = int(time.time() * 1000) // WINDOW_MS * WINDOW_MS - WINDOWS * WINDOW_MS
    expected: Counter[tuple[int, str]] = Counter()

    def click(number: int) -> None:
        window, page = start_ms + number * WINDOWS // CLICKS * WINDOW_MS, PAGES[number * 7 % 3]
        expected[window, page] += 1
        at_ms = window + number % WINDOW_MS
        producer.produce("clicks", value=json.dumps({"page": page, "at_ms": at_ms}))

    flink.await_ready()
    for statement in ("SET 'table.local-time-zone' = 'UTC'", CLICKS_TABLE, COUNTS_TABLE, JOB):
        flink.execute(statement.format(bootstrap=server.bootstrap))
    for number in range(CLICKS // 2):
        click(number)
    producer.flush(30)
    eventually(flink.job_is_running, within_s=60, what="the job")
    done = flink.checkpoints()
    eventually(lambda: flink.checkpoints() >= done + 2, within_s=60, what="checkpoints")
    flink.task_manager.kill()
    for number in range(CLICKS // 2, CLICKS):
        click(number)
    producer.flush(30)
    flink.task_manager.start()
    eventually(lambda: not flink.job_is_running(), within_s=60, what="the loss being noticed")
    eventually(flink.job_is_running, within_s=60, what="the job going on")
    server.kill()
    server.start()
    done = flink.checkpoints()
    eventually(lambda: flink.checkpoints() >= done + 2, within_s=90, what="checkpoints after the broker's restart")
    far = {"page": "end", "at_ms": start_ms + 60_000}  # Its watermark closes every window.
    producer.produce("clicks", value=json.dumps(far))
    assert producer.flush(30) == 0
    found = Counts(server.bootstrap)
    eventually(lambda: found.total() >= CLICKS, within_s=60, what="every window")
    with Wire(server.bootstrap) as wire:
        eventually(lambda: wire.committed("flink", [("clicks", 0)]) == {("clicks", 0): CLICKS + 1}, what="its offset")
    found.total()
    assert found.of == {key: [count] for key, count in expected.items()}


class Counts:
    """What is committed of the counts, in order."""

    def __init__(self, bootstrap: str) -> None:
        self._consumer = Consumer({
            "bootstrap.servers": bootstrap, "group.id": "unused", "enable.auto.commit": False,
            "isolation.level": "read_committed", "log_level": 0,
        })  # fmt: skip
        self._consumer.assign([TopicPartition("counts", 0, 0)])
        self.of: dict[tuple[int, str], list[int]] = {}

    def total(self) -> int:
        """How many clicks have been counted by now."""
        for message in self._consumer.consume(1000, 0.2):
            if message.error() is None:
                row = json.loads(message.value())
                self.of.setdefault((int(row["start_at"]) * 1000, row["page"]), []).append(row["clicks"])
        return sum(map(sum, self.of.values()))
