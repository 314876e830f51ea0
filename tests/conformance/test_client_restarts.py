"""Clients that stay while the broker goes away and comes back: each goes on by itself and loses nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kafka
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from confluent_kafka import Consumer, Producer, TopicPartition
from fixtures import programs
from fixtures.server import Server

pytestmark = pytest.mark.timeout(1200)  # Includes building with cold caches.
WAIT_S = 60
VALUES = [b"value %d" % number for number in range(300)]


@pytest.fixture(params=["stopped", "killed"])
def interrupted(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    """A broker of the test's own, and what restarts it."""
    server = Server(tmp_path)
    server.start()

    def restart() -> None:
        if request.param == "stopped":
            assert server.stop() == 0, server.log_tail()
        else:
            server.kill()
        time.sleep(0.5)  # Long enough for every client to see its connection refused.
        server.start()

    yield server.bootstrap, restart
    assert server.running, server.log_tail()
    server.stop()


@pytest.mark.parametrize("client", ["java", "franz-go", "sarama", "kafka-go", "kafkajs"])
def test_program(interrupted: tuple[str, Callable[[], None]], client: str) -> None:
    bootstrap, restart = interrupted
    directory = None
    if client == "java":
        command = programs.java("Main", bootstrap, "--restart")
    elif client == "kafkajs":
        command, directory = ["node", "checks.mjs", bootstrap, "--restart"], programs.node()
    else:
        command = [programs.go(), client, bootstrap, "--restart"]
    outcome = programs.outcome_across(command, restart, directory=directory)
    assert outcome.error is None, outcome.error


def test_share_consumer(interrupted: tuple[str, Callable[[], None]]) -> None:
    """What it acknowledged does not come again, and everything else does."""
    bootstrap, restart = interrupted
    outcome = programs.outcome_across(programs.java("Main", bootstrap, "--share-restart"), restart)
    assert outcome.error is None, outcome.error


def _read(poll: Callable[[], list[Any]], seen: set[bytes], count: int) -> None:
    deadline = time.monotonic() + WAIT_S
    while len(seen) < count and time.monotonic() < deadline:
        seen.update(poll())
    assert len(seen) == count


def test_librdkafka(interrupted: tuple[str, Callable[[], None]], fresh_name: Callable[..., str]) -> None:
    bootstrap, restart = interrupted
    topic, seen, failures = fresh_name(), set[bytes](), []
    producer = Producer({"bootstrap.servers": bootstrap})
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": topic, "auto.offset.reset": "earliest"})

    def send(values: list[bytes]) -> None:
        for value in values:
            producer.produce(topic, value, on_delivery=lambda error, _: failures.append(error) if error else None)
        assert producer.flush(WAIT_S) == 0
        assert failures == []

    def poll() -> list[bytes]:
        return [message.value() for message in consumer.consume(100, 0.2) if message.error() is None]

    send(VALUES[:100])
    consumer.subscribe([topic])
    _read(poll, seen, 100)
    restart()
    send(VALUES[100:])
    _read(poll, seen, 300)
    consumer.close()
    assert seen == set(VALUES)


def test_transactions_of_librdkafka(
    interrupted: tuple[str, Callable[[], None]], fresh_name: Callable[..., str]
) -> None:
    """A relay with offsets in its transactions. By default, librdkafka 2.16 gives up all the brokers it knows when
    none answers, and then waits for ever for the group's coordinator that it had (its issue 5511)."""
    bootstrap, restart = interrupted
    source, target, common = fresh_name(), fresh_name(), {"bootstrap.servers": bootstrap}
    feeder = Producer(common)
    relay = Producer(common | {"transactional.id": source, "metadata.recovery.strategy": "none", "linger.ms": 0})
    relay.init_transactions(WAIT_S)
    group = {"group.id": source, "auto.offset.reset": "earliest", "enable.auto.commit": False}
    consumer = Consumer(common | group)
    consumer.subscribe([source])

    def move(values: list[bytes]) -> None:
        for value in values:
            feeder.produce(source, value)
        assert feeder.flush(WAIT_S) == 0
        moved: set[bytes] = set()
        deadline = time.monotonic() + WAIT_S
        while len(moved) < len(values) and time.monotonic() < deadline:
            messages = [one for one in consumer.consume(25, 0.2) if one.error() is None]
            if not messages:
                continue
            relay.begin_transaction()
            for message in messages:
                relay.produce(target, message.value())
            offsets = [TopicPartition(source, 0, messages[-1].offset() + 1)]
            relay.send_offsets_to_transaction(offsets, consumer.consumer_group_metadata(), WAIT_S)
            relay.commit_transaction(WAIT_S)
            moved.update(message.value() for message in messages)
        assert moved == set(values)

    move(VALUES[:100])
    restart()
    move(VALUES[100:])
    consumer.close()
    reader = Consumer(common | {"group.id": "unused", "isolation.level": "read_committed"})
    reader.assign([TopicPartition(target, 0, 0)])
    relayed: list[bytes] = []
    deadline = time.monotonic() + WAIT_S
    while len(relayed) < len(VALUES) and time.monotonic() < deadline:
        relayed += [one.value() for one in reader.consume(100, 0.2) if one.error() is None]
    reader.close()
    assert sorted(relayed) == sorted(VALUES)


def test_kafka_python(interrupted: tuple[str, Callable[[], None]], fresh_name: Callable[..., str]) -> None:
    bootstrap, restart = interrupted
    topic, seen = fresh_name(), set[bytes]()
    producer = kafka.KafkaProducer(bootstrap_servers=bootstrap)
    consumer = kafka.KafkaConsumer(topic, bootstrap_servers=bootstrap, group_id=topic, auto_offset_reset="earliest")

    def send(values: list[bytes]) -> None:
        for sent in [producer.send(topic, value) for value in values]:
            sent.get(WAIT_S)

    def poll() -> list[bytes]:
        return [record.value for records in consumer.poll(200).values() for record in records]

    send(VALUES[:100])
    _read(poll, seen, 100)
    restart()
    send(VALUES[100:])
    _read(poll, seen, 300)
    consumer.close()
    producer.close()
    assert seen == set(VALUES)


async def test_aiokafka(interrupted: tuple[str, Callable[[], None]], fresh_name: Callable[..., str]) -> None:
    bootstrap, restart = interrupted
    topic, seen = fresh_name(), set[bytes]()
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, enable_idempotence=True)
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, group_id=topic, auto_offset_reset="earliest")
    await producer.start()
    for value in VALUES[:100]:
        await producer.send_and_wait(topic, value)
    await consumer.start()

    async def read(count: int) -> None:
        async with asyncio.timeout(WAIT_S):
            while len(seen) < count:
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    seen.update(record.value for record in records)

    await read(100)
    await asyncio.to_thread(restart)
    for value in VALUES[100:]:
        await producer.send_and_wait(topic, value)
    await read(300)
    await consumer.stop()
    await producer.stop()
    assert seen == set(VALUES)
