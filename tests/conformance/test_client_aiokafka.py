"""aiokafka: old protocol versions (ApiVersions v0, InitProducerId v0, Join v5 with Leave v1), no fetch sessions."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiokafka.errors as errors
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor

Name = Callable[..., str]
WAIT_S = 30
START_MS = 1_700_000_000_000
NUMBERED = [b"value %d" % number for number in range(10)]


@pytest.fixture
async def admin(bootstrap: str) -> AsyncIterator[AIOKafkaAdminClient]:
    client = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await client.start()
    yield client
    await client.close()


@pytest.fixture
async def topic(admin: AIOKafkaAdminClient, fresh_name: Name) -> str:
    """A topic of three partitions."""
    name = fresh_name()
    await admin.create_topics([NewTopic(name, 3, 1)])
    return name


@pytest.fixture
async def producer(bootstrap: str) -> AsyncIterator[AIOKafkaProducer]:
    async with AIOKafkaProducer(bootstrap_servers=bootstrap) as client:
        yield client


@pytest.fixture
async def consume(bootstrap: str) -> AsyncIterator[Callable[..., Any]]:
    """Makes started consumers, stopped after the test."""
    opened: list[AIOKafkaConsumer] = []

    async def make(*topics: str, **settings: Any) -> AIOKafkaConsumer:
        consumer = AIOKafkaConsumer(*topics, bootstrap_servers=bootstrap, auto_offset_reset="earliest", **settings)
        await consumer.start()
        opened.append(consumer)
        return consumer

    yield make
    for consumer in opened:
        await consumer.stop()


async def send(producer: AIOKafkaProducer, topic: str, values: list[bytes], **fields: Any) -> list[int]:
    """Produce to partition 0 and wait; the offsets."""
    sent = [await producer.send(topic, value, **{"partition": 0} | fields) for value in values]
    return [(await one).offset for one in sent]


async def take(consumer: AIOKafkaConsumer, count: int) -> list[ConsumerRecord]:
    """The next records, this many of them."""
    found: list[ConsumerRecord] = []
    async with asyncio.timeout(WAIT_S):
        while len(found) < count:
            found.append(await consumer.getone())
    return found


async def read(make: Callable[..., Any], topic: str, count: int, *, offset: int = 0, **settings: Any) -> list[bytes]:
    """Values of partition 0 from an offset on."""
    consumer = await make(**settings)
    consumer.assign([TopicPartition(topic, 0)])
    consumer.seek(TopicPartition(topic, 0), offset)
    return [record.value for record in await take(consumer, count)]


async def reached(condition: Callable[[], bool], what: str) -> None:
    """Wait until the condition holds."""
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come true"
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("compression", [None, "gzip", "snappy", "lz4", "zstd"])
@pytest.mark.parametrize("idempotent", [False, True])
async def test_round_trip(
    bootstrap: str, topic: str, consume: Callable[..., Any], compression: str | None, idempotent: bool
) -> None:
    sent = [b"%d " % number * 30 for number in range(200)]
    settings = {"compression_type": compression, "enable_idempotence": idempotent, "linger_ms": 5}
    headers = [("a", b"1"), ("a", b"2"), ("é", b"")]
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, **settings) as producer:
        offsets = await send(producer, topic, sent, key=b"key", headers=headers, timestamp_ms=START_MS)
    assert offsets == list(range(200))
    consumer = await consume()
    consumer.assign([TopicPartition(topic, 0)])
    found = await take(consumer, 200)
    assert [record.value for record in found] == sent
    assert (found[7].key, found[7].timestamp, list(found[7].headers)) == (b"key", START_MS, headers)


@pytest.mark.parametrize("acks", [0, 1, "all"])
async def test_acknowledgements(
    bootstrap: str, producer: AIOKafkaProducer, topic: str, consume: Callable[..., Any], acks: int | str
) -> None:
    await send(producer, topic, [b"first"])
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, acks=acks) as own:
        for value in NUMBERED:
            await own.send(topic, value, partition=0)
        await own.flush()
    assert await read(consume, topic, 11) == [b"first", *NUMBERED]


async def test_nulls(producer: AIOKafkaProducer, topic: str, consume: Callable[..., Any]) -> None:
    await producer.send_and_wait(topic, None, key=b"k", partition=0)
    await producer.send_and_wait(topic, b"", partition=0)
    assert await read(consume, topic, 2) == [None, b""]


async def test_positions(producer: AIOKafkaProducer, topic: str, consume: Callable[..., Any]) -> None:
    for number, value in enumerate(NUMBERED):
        await send(producer, topic, [value], timestamp_ms=START_MS + number * 1000)
    part, consumer = TopicPartition(topic, 0), await consume()
    consumer.assign([part])
    await consumer.seek_to_beginning(part)
    assert [record.value for record in await take(consumer, 10)] == NUMBERED
    consumer.seek(part, 5)
    assert [record.value for record in await take(consumer, 5)] == NUMBERED[5:]
    assert await consumer.beginning_offsets([part]) == {part: 0}
    assert await consumer.end_offsets([part]) == {part: 10}
    found = (await consumer.offsets_for_times({part: START_MS + 4500}))[part]
    assert (found.offset, found.timestamp) == (5, START_MS + 5000)
    assert (await consumer.offsets_for_times({part: START_MS + 1_000_000}))[part] is None
    await consumer.seek_to_end(part)
    assert await consumer.getmany(timeout_ms=200) == {}
    await send(producer, topic, [b"new"])
    assert [record.value for record in await take(consumer, 1)] == [b"new"]
    consumer.seek(part, 999)  # Out of range: starts over, as the settings say.
    assert [record.value for record in await take(consumer, 11)] == [*NUMBERED, b"new"]


async def test_read_committed(producer: AIOKafkaProducer, topic: str, consume: Callable[..., Any]) -> None:
    await send(producer, topic, NUMBERED)
    assert await read(consume, topic, 10, isolation_level="read_committed") == NUMBERED


async def test_long_poll(producer: AIOKafkaProducer, topic: str, consume: Callable[..., Any]) -> None:
    await send(producer, topic, [b"first"])
    consumer = await consume(fetch_max_wait_ms=20_000)
    consumer.assign([TopicPartition(topic, 0)])
    await take(consumer, 1)
    waiting = asyncio.create_task(take(consumer, 1))
    await asyncio.sleep(0.3)
    began = time.monotonic()
    await send(producer, topic, [b"second"])
    assert [record.value for record in await waiting] == [b"second"]
    assert time.monotonic() - began < 5


async def test_large_records(bootstrap: str, topic: str, consume: Callable[..., Any]) -> None:
    value = os.urandom(1_000_000)
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, max_request_size=5 << 20) as producer:
        await producer.send_and_wait(topic, value, partition=0)
        with pytest.raises(errors.MessageSizeTooLargeError):
            await producer.send_and_wait(topic, os.urandom(1_048_600), partition=0)
        await producer.send_and_wait(topic, value, partition=0)
    assert await read(consume, topic, 2) == [value, value]


async def test_many_partitions(
    admin: AIOKafkaAdminClient, producer: AIOKafkaProducer, consume: Callable[..., Any], fresh_name: Name
) -> None:
    name = fresh_name()
    await admin.create_topics([NewTopic(name, 100, 1)])
    sent = [b"%d" % number for number in range(100)]
    for number, value in enumerate(sent):
        await send(producer, name, [value], partition=number)
    found = await take(await consume(name), 100)
    assert sorted(record.value for record in found) == sorted(sent)


async def test_topics_that_are_not_there(
    producer: AIOKafkaProducer, admin: AIOKafkaAdminClient, consume: Callable[..., Any], fresh_name: Name
) -> None:
    name = fresh_name()
    await producer.send_and_wait(name, b"first")  # Created when first asked for.
    assert [record.value for record in await take(await consume(name), 1)] == [b"first"]
    (described,) = await admin.describe_topics(["a/b"])
    assert described["error_code"] == errors.InvalidTopicError.errno


# ---- groups ------------------------------------------------------------------------------------------------------


def spread(*members: AIOKafkaConsumer) -> bool:
    """Whether three partitions are spread over the members."""
    held = [[part.partition for part in member.assignment()] for member in members]
    return sorted(number for one in held for number in one) == [0, 1, 2] and all(held)


@pytest.mark.parametrize(
    "strategy", [RangePartitionAssignor, RoundRobinPartitionAssignor, StickyPartitionAssignor], ids=lambda one: one.name
)
async def test_members_come_and_go(topic: str, consume: Callable[..., Any], fresh_name: Name, strategy: Any) -> None:
    group = fresh_name("g")
    settings = {"group_id": group, "heartbeat_interval_ms": 200, "partition_assignment_strategy": [strategy]}
    members: list[AIOKafkaConsumer] = []
    for count in range(1, 4):
        members.append(await consume(topic, **settings))
        await reached(lambda: spread(*members), f"{count} members sharing")
    await members.pop(1).stop()
    await reached(lambda: spread(*members), "the rest sharing")


async def test_every_record_reaches_one_member(
    producer: AIOKafkaProducer, topic: str, consume: Callable[..., Any], fresh_name: Name
) -> None:
    group = fresh_name("g")
    members = [await consume(topic, group_id=group, heartbeat_interval_ms=200) for _ in range(2)]
    await reached(lambda: spread(*members), "two members sharing")
    sent = [b"%d" % number for number in range(150)]
    for number, value in enumerate(sent):
        await send(producer, topic, [value], partition=number % 3)
    found: list[bytes] = []
    async with asyncio.timeout(WAIT_S):
        while len(found) < 150:
            for member in members:
                for records in (await member.getmany(timeout_ms=100)).values():
                    found += [record.value for record in records]
    assert sorted(found) == sorted(sent)


async def test_commits(producer: AIOKafkaProducer, topic: str, consume: Callable[..., Any], fresh_name: Name) -> None:
    group, part = fresh_name("g"), TopicPartition(topic, 0)
    await send(producer, topic, NUMBERED)
    first = await consume(topic, group_id=group, enable_auto_commit=False)
    await take(first, 10)
    await first.commit({part: (4, "note")})
    await first.stop()
    second = await consume(topic, group_id=group)
    assert await second.committed(part) == 4
    assert await second.committed(TopicPartition(topic, 1)) is None
    assert [record.value for record in await take(second, 6)] == NUMBERED[4:]
    await second.stop()  # Commits by itself.
    assert await (await consume(topic, group_id=group)).committed(part) == 10


async def test_static_member(topic: str, consume: Callable[..., Any], fresh_name: Name) -> None:
    group = fresh_name("g")

    async def join(instance: str) -> AIOKafkaConsumer:
        return await consume(topic, group_id=group, group_instance_id=instance, heartbeat_interval_ms=200)

    first, second = await join("one"), await join("two")
    await reached(lambda: spread(first, second), "two members sharing")
    held = first.assignment()
    await first.stop()
    again = await join("one")
    await reached(lambda: spread(again, second), "the static member being back")
    assert again.assignment() == held


# ---- administration ----------------------------------------------------------------------------------------------


def codes(response: Any, field: str) -> list[int]:
    """The error codes of an answer's entries, each of which is (name, code, …)."""
    return [entry[1] for entry in getattr(response, field)]


async def test_topics(admin: AIOKafkaAdminClient, fresh_name: Name) -> None:
    name = fresh_name()
    assert codes(await admin.create_topics([NewTopic(name, 2, 1)]), "topic_errors") == [0]
    again = await admin.create_topics([NewTopic(name, 2, 1)])
    assert codes(again, "topic_errors") == [errors.TopicAlreadyExistsError.errno]
    bad = await admin.create_topics([NewTopic("a/b", 2, 1)])
    assert codes(bad, "topic_errors") == [errors.InvalidTopicError.errno]
    assert name in await admin.list_topics()
    assert codes(await admin.create_partitions({name: NewPartitions(5)}), "topic_errors") == [0]
    (described,) = await admin.describe_topics([name])
    assert len(described["partitions"]) == 5
    assert codes(await admin.delete_topics([name]), "topic_error_codes") == [0]
    gone = await admin.delete_topics([name])
    assert codes(gone, "topic_error_codes") == [errors.UnknownTopicOrPartitionError.errno]


async def test_configs(admin: AIOKafkaAdminClient, topic: str) -> None:
    async def value() -> str:
        asked = ConfigResource(ConfigResourceType.TOPIC, topic, {"retention.ms": None})
        (response,) = await admin.describe_configs([asked])
        (code, _, _, _, entries) = response.resources[0]
        assert code == 0
        (entry,) = [entry for entry in entries if entry[0] == "retention.ms"]
        return str(entry[1])

    assert await value() == "604800000"
    await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {"retention.ms": "555"})])
    assert await value() == "555"


async def test_deleted_records(
    admin: AIOKafkaAdminClient, producer: AIOKafkaProducer, topic: str, consume: Callable[..., Any]
) -> None:
    part = TopicPartition(topic, 0)
    await send(producer, topic, NUMBERED)
    assert await admin.delete_records({part: RecordsToDelete(4)}) == {part: 4}
    assert await read(consume, topic, 6) == NUMBERED[4:]


async def test_groups(
    admin: AIOKafkaAdminClient, producer: AIOKafkaProducer, topic: str, consume: Callable[..., Any], fresh_name: Name
) -> None:
    group, part = fresh_name("g"), TopicPartition(topic, 0)
    await send(producer, topic, NUMBERED)
    member = await consume(topic, group_id=group)
    await take(member, 10)
    await member.commit()
    (response,) = await admin.describe_consumer_groups([group])
    code, name, state, kind, _, members = response.groups[0][:6]
    assert (code, name, state, kind, len(members)) == (0, group, "Stable", "consumer", 1)
    assert (group, "consumer") in [one[:2] for one in await admin.list_consumer_groups()]
    assert (await admin.list_consumer_group_offsets(group))[part].offset == 10
    assert await admin.find_coordinator(group) >= 0


async def test_cluster(admin: AIOKafkaAdminClient) -> None:
    cluster = await admin.describe_cluster()
    assert cluster["controller_id"] in [broker["node_id"] for broker in cluster["brokers"]]
    assert cluster["cluster_id"]


# ---- transactions ------------------------------------------------------------------------------------------------


async def test_transactions_commit_and_abort(
    bootstrap: str, topic: str, consume: Callable[..., Any], fresh_name: Name
) -> None:
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, transactional_id=fresh_name("txn")) as producer:
        for turn in range(5):
            await producer.begin_transaction()
            await producer.send_and_wait(topic, b"%d" % turn, partition=0)
            await (producer.commit_transaction() if turn % 2 == 0 else producer.abort_transaction())
    assert await read(consume, topic, 3, isolation_level="read_committed") == [b"0", b"2", b"4"]
    assert await read(consume, topic, 5) == [b"0", b"1", b"2", b"3", b"4"]


async def test_offsets_go_with_the_transaction(
    bootstrap: str, admin: AIOKafkaAdminClient, topic: str, fresh_name: Name
) -> None:
    group, part = fresh_name("g"), TopicPartition(topic, 0)
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, transactional_id=fresh_name("txn")) as producer:
        for commit in (False, True):
            await producer.begin_transaction()
            await producer.send_and_wait(topic, b"x", partition=0)
            await producer.send_offsets_to_transaction({part: 5}, group)
            await (producer.commit_transaction() if commit else producer.abort_transaction())
            found = (await admin.list_consumer_group_offsets(group)).get(part)
            assert (found.offset if found else -1) == (5 if commit else -1)


async def test_a_second_producer_fences_the_first(
    bootstrap: str, topic: str, consume: Callable[..., Any], fresh_name: Name
) -> None:
    name = fresh_name("txn")
    first = AIOKafkaProducer(bootstrap_servers=bootstrap, transactional_id=name)
    await first.start()
    await first.begin_transaction()
    await first.send_and_wait(topic, b"lost", partition=0)
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, transactional_id=name) as second:
        with pytest.raises(errors.ProducerFenced):
            await first.commit_transaction()
        async with second.transaction():
            await second.send_and_wait(topic, b"kept", partition=0)
    await first.stop()
    assert await read(consume, topic, 1, isolation_level="read_committed") == [b"kept"]
