"""Transactions of version 1, as librdkafka makes them: partitions and groups are added before anything is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import Any

import pytest
from confluent_kafka import (
    Consumer,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, NewTopic
from fixtures.waiting import eventually

Name = Callable[..., str]
WAIT_S = 30


@pytest.fixture
def admin(bootstrap: str) -> AdminClient:
    return AdminClient({"bootstrap.servers": bootstrap})


@pytest.fixture
def make_topic(admin: AdminClient, fresh_name: Name) -> Callable[..., str]:
    """Makes topics that are served."""

    def make(partitions: int = 1) -> str:
        name = fresh_name()
        admin.create_topics([NewTopic(name, partitions, 1)])[name].result(WAIT_S)
        eventually(lambda: admin.list_topics(name, timeout=WAIT_S).topics[name].error is None, what=f"topic {name}")
        return name

    return make


@pytest.fixture
def topic(make_topic: Callable[..., str]) -> str:
    return make_topic()


@pytest.fixture
def transactional(bootstrap: str, fresh_name: Name) -> Iterator[Callable[..., Producer]]:
    """Makes producers that have their transactional id, closed after the test."""
    opened: list[Producer] = []

    def make(name: str | None = None, **settings: Any) -> Producer:
        config = {"bootstrap.servers": bootstrap, "transactional.id": name or fresh_name("txn"), "linger.ms": 0}
        producer = Producer(config | {key.replace("_", "."): value for key, value in settings.items()})
        opened.append(producer)
        producer.init_transactions(WAIT_S)
        return producer

    yield make
    for producer in opened:
        producer.purge()
        with suppress(KafkaException):  # One that is fenced cannot even be closed without a complaint.
            producer.close(1)


@pytest.fixture
def read(bootstrap: str) -> Callable[..., list[bytes]]:
    """Reads a partition until its end, as the isolation level sees it."""

    def read_all(topic: str, partition: int = 0, isolation: str = "read_committed") -> list[bytes]:
        config = {
            "bootstrap.servers": bootstrap, "group.id": "unused", "isolation.level": isolation,
            "enable.partition.eof": True, "enable.auto.commit": False,
        }  # fmt: skip
        found: list[bytes] = []
        with closing(Consumer(config)) as consumer:
            consumer.assign([TopicPartition(topic, partition, 0)])
            while True:
                (message,) = consumer.consume(1, WAIT_S)
                if message.error() is not None:
                    assert message.error().code() == KafkaError._PARTITION_EOF, message.error()
                    return found
                found.append(message.value())

    return read_all


def send(producer: Producer, topic: str, *values: bytes, partition: int = 0) -> None:
    """Produce and wait for every acknowledgement."""
    failures: list[KafkaError] = []
    for value in values:
        producer.produce(
            topic, value, partition=partition, on_delivery=lambda error, _: failures.append(error) if error else None
        )
    assert producer.flush(WAIT_S) == 0
    assert failures == []


def committed(admin: AdminClient, group: str, topic: str) -> int | None:
    """The stable offset of a group in partition 0."""
    asked = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, 0)])
    (place,) = admin.list_consumer_group_offsets([asked], require_stable=True)[group].result(WAIT_S).topic_partitions
    return place.offset if place.offset >= 0 else None


def test_commits_and_aborts(
    transactional: Callable[..., Producer], topic: str, read: Callable[..., list[bytes]]
) -> None:
    producer = transactional()
    for turn in range(4):
        producer.begin_transaction()
        send(producer, topic, b"%d/a" % turn, b"%d/b" % turn)
        if turn % 2 == 0:
            producer.commit_transaction(WAIT_S)
        else:
            producer.abort_transaction(WAIT_S)
    everything = [b"%d/%s" % (turn, name) for turn in range(4) for name in (b"a", b"b")]
    assert read(topic) == [value for value in everything if value[:1] in b"02"]
    assert read(topic, isolation="read_uncommitted") == everything


def test_empty_transactions(transactional: Callable[..., Producer], topic: str, read: Callable[..., list[bytes]]):
    producer = transactional()
    producer.begin_transaction()
    producer.commit_transaction(WAIT_S)
    producer.begin_transaction()
    producer.abort_transaction(WAIT_S)
    producer.begin_transaction()
    send(producer, topic, b"x")
    producer.commit_transaction(WAIT_S)
    assert read(topic) == [b"x"]


def test_open_transactions_are_seen_only_uncommitted(
    transactional: Callable[..., Producer], topic: str, read: Callable[..., list[bytes]]
) -> None:
    one, other = transactional(), transactional()
    one.begin_transaction()
    send(one, topic, b"first")
    other.begin_transaction()
    send(other, topic, b"second")
    other.commit_transaction(WAIT_S)
    assert read(topic) == []  # What is committed waits for what was begun before it.
    assert read(topic, isolation="read_uncommitted") == [b"first", b"second"]
    one.abort_transaction(WAIT_S)
    assert read(topic) == [b"second"]


def test_a_transaction_over_several_topics(
    transactional: Callable[..., Producer], make_topic: Callable[..., str], read: Callable[..., list[bytes]]
) -> None:
    places = [(make_topic(3), partition) for _ in range(2) for partition in (0, 2)]
    producer = transactional()
    for commit in (False, True):
        producer.begin_transaction()
        for name, partition in places:
            producer.produce(name, b"%d" % commit, partition=partition)
        if commit:
            producer.commit_transaction(WAIT_S)
        else:
            producer.flush(WAIT_S)
            producer.abort_transaction(WAIT_S)
    assert [read(*place) for place in places] == [[b"1"]] * len(places)


def test_offsets_sent_to_a_transaction(
    bootstrap: str,
    admin: AdminClient,
    transactional: Callable[..., Producer],
    make_topic: Callable[..., str],
    fresh_name: Name,
    read: Callable[..., list[bytes]],
) -> None:
    source, target, group = make_topic(), make_topic(), fresh_name("g")
    producer = transactional()
    producer.begin_transaction()
    send(producer, source, b"1", b"2", b"3")
    producer.commit_transaction(WAIT_S)
    config = {
        "bootstrap.servers": bootstrap, "group.id": group, "auto.offset.reset": "earliest", "enable.auto.commit": False
    }  # fmt: skip
    taken: list[bytes] = []
    with closing(Consumer(config)) as consumer:
        consumer.subscribe([source])

        def all_taken() -> bool:
            taken.extend(message.value() for message in consumer.consume(3, 0.5) if message.error() is None)
            return len(taken) >= 3

        eventually(all_taken, within_s=WAIT_S, what="three records")
        for commit in (False, True):
            producer.begin_transaction()
            send(producer, target, *(value + b"!" for value in taken))
            offsets = consumer.position(consumer.assignment())
            producer.send_offsets_to_transaction(offsets, consumer.consumer_group_metadata(), WAIT_S)
            if commit:
                producer.commit_transaction(WAIT_S)
            else:
                producer.abort_transaction(WAIT_S)
                assert committed(admin, group, source) is None
    assert committed(admin, group, source) == 3
    assert read(target) == [b"1!", b"2!", b"3!"]


def test_a_second_producer_fences_the_first(
    transactional: Callable[..., Producer], topic: str, fresh_name: Name, read: Callable[..., list[bytes]]
) -> None:
    name = fresh_name("txn")
    first = transactional(name)
    first.begin_transaction()
    send(first, topic, b"lost")
    second = transactional(name)
    with pytest.raises(KafkaException) as caught:
        first.commit_transaction(WAIT_S)
    assert caught.value.args[0].fatal()
    assert caught.value.args[0].code() == KafkaError._FENCED
    second.begin_transaction()
    send(second, topic, b"kept")
    second.commit_transaction(WAIT_S)
    assert read(topic) == [b"kept"]


def test_a_transaction_that_takes_too_long(
    transactional: Callable[..., Producer], topic: str, read: Callable[..., list[bytes]]
) -> None:
    slow, quick = transactional(transaction_timeout_ms=1_000), transactional()
    slow.begin_transaction()
    send(slow, topic, b"lost")
    quick.begin_transaction()
    send(quick, topic, b"kept")
    quick.commit_transaction(WAIT_S)
    eventually(lambda: read(topic) == [b"kept"], within_s=WAIT_S, what="the slow transaction being aborted")
    with pytest.raises(KafkaException) as caught:
        slow.commit_transaction(WAIT_S)
    assert not caught.value.args[0].retriable()


def test_many_transactions_in_a_row(
    transactional: Callable[..., Producer], make_topic: Callable[..., str], read: Callable[..., list[bytes]]
) -> None:
    topic, producer = make_topic(2), transactional()
    for turn in range(100):
        producer.begin_transaction()
        producer.produce(topic, b"%d" % turn, partition=turn % 2)
        producer.commit_transaction(WAIT_S)
    for partition in range(2):
        assert read(topic, partition) == [b"%d" % turn for turn in range(partition, 100, 2)]
