"""librdkafka through confluent-kafka, with its defaults: read_committed consumers, acks=all producers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import (
    Consumer,
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
    ResourceType,
)
from fixtures.waiting import eventually

Name = Callable[..., str]
WAIT_S = 30


@pytest.fixture
def admin(bootstrap: str) -> AdminClient:
    return AdminClient({"bootstrap.servers": bootstrap})


@pytest.fixture
def topic(admin: AdminClient, fresh_name: Name) -> str:
    """A topic of three partitions."""
    name = fresh_name()
    create(admin, name, 3)
    return name


@pytest.fixture
def producer(bootstrap: str) -> Producer:
    return Producer({"bootstrap.servers": bootstrap})


@pytest.fixture
def consume(bootstrap: str) -> Iterator[Callable[..., Consumer]]:
    """Makes consumers, closed after the test."""
    opened: list[Consumer] = []

    def make(group: str, **settings: Any) -> Consumer:
        config = {"bootstrap.servers": bootstrap, "group.id": group, "auto.offset.reset": "earliest"}
        opened.append(Consumer(config | {key.replace("_", "."): value for key, value in settings.items()}))
        return opened[-1]

    yield make
    for consumer in opened:
        consumer.close()


def create(admin: AdminClient, name: str, partitions: int = 1, **configs: str) -> None:
    """Create a topic and wait until metadata shows it."""
    topic = NewTopic(name, partitions, 1, config={key.replace("_", "."): value for key, value in configs.items()})
    admin.create_topics([topic])[name].result(WAIT_S)

    def served() -> bool:
        found = admin.list_topics(name, timeout=WAIT_S).topics[name]
        return found.error is None and all(part.leader >= 0 for part in found.partitions.values())

    eventually(served, what=f"topic {name}")


def send(producer: Producer, topic: str, values: list[bytes], *, partition: int = 0, **fields: Any) -> list[int]:
    """Produce and wait for every acknowledgement; the offsets, in the order sent."""
    offsets: list[int] = []
    failures: list[KafkaError] = []

    def acknowledged(error: KafkaError | None, message: Message) -> None:
        if error is not None:
            failures.append(error)
        else:
            offsets.append(message.offset())

    for value in values:
        producer.produce(topic, value, partition=partition, on_delivery=acknowledged, **fields)
        producer.poll(0)
    assert producer.flush(WAIT_S) == 0
    assert failures == []
    return offsets


def take(consumer: Consumer, count: int, *, within_s: float = WAIT_S) -> list[Message]:
    """The next `count` messages."""
    found: list[Message] = []
    deadline = time.monotonic() + within_s
    while len(found) < count and time.monotonic() < deadline:
        for message in consumer.consume(count - len(found), timeout=0.5):
            assert message.error() is None, message.error()
            found.append(message)
    assert len(found) == count, f"{len(found)} of {count} messages"
    return found


def values(messages: list[Message]) -> list[bytes]:
    return [message.value() for message in messages]


@pytest.mark.parametrize("compression", ["none", "gzip", "snappy", "lz4", "zstd"])
@pytest.mark.parametrize("idempotent", [False, True])
def test_round_trip(
    bootstrap: str, topic: str, consume: Callable[..., Consumer], fresh_name: Name, compression: str, idempotent: bool
) -> None:
    config = {"bootstrap.servers": bootstrap, "compression.type": compression, "enable.idempotence": idempotent}
    sent = [b"%d " % number * 50 for number in range(200)]
    headers = [("h", b"1"), ("h", b"2"), ("empty", b""), ("null", None)]
    assert send(Producer(config), topic, sent, key=b"key", headers=headers, timestamp=1_700_000_000_123) == list(
        range(200)
    )
    consumer = consume(fresh_name("g"))
    consumer.assign([TopicPartition(topic, 0, 0)])
    found = take(consumer, 200)
    assert values(found) == sent
    assert {message.key() for message in found} == {b"key"}
    assert found[7].headers() == headers
    assert found[7].timestamp() == (1, 1_700_000_000_123)
    assert [message.offset() for message in found] == list(range(200))


@pytest.mark.parametrize("acks", [0, 1, "all"])
def test_acknowledgements(
    bootstrap: str, producer: Producer, topic: str, consume: Callable[..., Consumer], fresh_name: Name, acks: int | str
) -> None:
    send(producer, topic, [b"first"])  # Without acknowledgements, a topic that is not quite there loses records.
    send(Producer({"bootstrap.servers": bootstrap, "acks": acks}), topic, [b"a", b"b", b"c"])
    consumer = consume(fresh_name("g"))
    consumer.assign([TopicPartition(topic, 0, 0)])
    assert values(take(consumer, 4)) == [b"first", b"a", b"b", b"c"]


def test_null_keys_and_tombstones(producer: Producer, topic: str, consume: Callable[..., Consumer], fresh_name: Name):
    send(producer, topic, [None], key=b"k")
    send(producer, topic, [b""], key=None)
    consumer = consume(fresh_name("g"))
    consumer.assign([TopicPartition(topic, 0, 0)])
    found = take(consumer, 2)
    assert [(message.key(), message.value()) for message in found] == [(b"k", None), (None, b"")]


def test_five_megabytes(producer: Producer, topic: str, consume: Callable[..., Consumer], fresh_name: Name) -> None:
    sent = [bytes([number]) * 500_000 for number in range(10)]
    send(producer, topic, sent)
    consumer = consume(fresh_name("g"))
    consumer.assign([TopicPartition(topic, 0, 0)])
    assert values(take(consumer, 10)) == sent


def test_start_offset_end_and_timestamp(
    producer: Producer, topic: str, consume: Callable[..., Consumer], fresh_name: Name
) -> None:
    for number in range(10):
        send(producer, topic, [b"%d" % number], timestamp=1_700_000_000_000 + number * 1000)
    consumer = consume(fresh_name("g"))
    assert consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=WAIT_S) == (0, 10)
    (at_time,) = consumer.offsets_for_times([TopicPartition(topic, 0, 1_700_000_004_500)], timeout=WAIT_S)
    assert at_time.offset == 5
    (after,) = consumer.offsets_for_times([TopicPartition(topic, 0, 1_900_000_000_000)], timeout=WAIT_S)
    assert after.offset == -1
    consumer.assign([TopicPartition(topic, 0, 5)])
    assert values(take(consumer, 5)) == [b"%d" % number for number in range(5, 10)]
    consumer.seek(TopicPartition(topic, 0, 2))
    assert values(take(consumer, 1)) == [b"2"]
    end = consume(fresh_name("g"), auto_offset_reset="latest", enable_partition_eof=True)
    end.assign([TopicPartition(topic, 0, -1)])
    at_end = end.poll(WAIT_S)  # Before it has been there, what is sent now may come before where it begins.
    assert at_end is not None
    assert at_end.error().code() == KafkaError._PARTITION_EOF
    send(producer, topic, [b"new"])
    assert values(take(end, 1)) == [b"new"]


def test_offset_out_of_range_resets(
    producer: Producer, topic: str, consume: Callable[..., Consumer], fresh_name: Name
) -> None:
    send(producer, topic, [b"a", b"b"])
    consumer = consume(fresh_name("g"))
    consumer.assign([TopicPartition(topic, 0, 999)])
    assert values(take(consumer, 2)) == [b"a", b"b"]


def test_empty_poll_and_end_of_partition(topic: str, consume: Callable[..., Consumer], fresh_name: Name) -> None:
    consumer = consume(fresh_name("g"), enable_partition_eof=True)
    consumer.assign([TopicPartition(topic, 0, 0)])
    message = eventually(lambda: consumer.poll(1.0), what="the end of the partition")
    assert message.error().code() == KafkaError._PARTITION_EOF
    assert consumer.poll(0.2) is None


def test_producing_creates_the_topic(producer: Producer, consume: Callable[..., Consumer], fresh_name: Name) -> None:
    name = fresh_name()
    assert send(producer, name, [b"first"], partition=0) == [0]
    consumer = consume(fresh_name("g"))
    consumer.subscribe([name])
    assert values(take(consumer, 1)) == [b"first"]


def test_unknown_topic_is_an_error_for_a_consumer(consume: Callable[..., Consumer], fresh_name: Name) -> None:
    consumer = consume(fresh_name("g"), allow_auto_create_topics=False)
    consumer.subscribe([fresh_name()])
    message = eventually(lambda: consumer.poll(1.0), what="an error")
    assert message.error().code() == KafkaError.UNKNOWN_TOPIC_OR_PART


# ---- groups --------------------------------------------------------------------------------------------------


def _assigned(*consumers: Consumer) -> list[int]:
    for consumer in consumers:
        consumer.poll(0.05)
    return sorted(part.partition for consumer in consumers for part in consumer.assignment())


@pytest.mark.parametrize("strategy", ["range", "roundrobin", "cooperative-sticky"])
def test_members_share_partitions(
    topic: str, consume: Callable[..., Consumer], fresh_name: Name, strategy: str
) -> None:
    group = fresh_name("g")

    def member() -> Consumer:
        consumer = consume(group, partition_assignment_strategy=strategy, heartbeat_interval_ms=200)
        consumer.subscribe([topic])
        return consumer

    def fair(*members: Consumer) -> bool:
        held = _assigned(*members) == [0, 1, 2]
        return held and all(one.assignment() for one in members)

    first = member()
    eventually(lambda: fair(first), within_s=WAIT_S, what="one member having everything")
    second = member()
    eventually(lambda: fair(first, second), within_s=WAIT_S, what="two members sharing")
    third = member()
    eventually(lambda: fair(first, second, third), within_s=WAIT_S, what="three members sharing")
    second.close()
    eventually(lambda: fair(first, third), within_s=WAIT_S, what="the rest sharing")


def test_every_record_reaches_one_member(
    producer: Producer, topic: str, consume: Callable[..., Consumer], fresh_name: Name
) -> None:
    group = fresh_name("g")
    members = [consume(group, heartbeat_interval_ms=200) for _ in range(2)]
    for one in members:
        one.subscribe([topic])
    eventually(lambda: _assigned(*members) == [0, 1, 2] and all(m.assignment() for m in members), within_s=WAIT_S)
    sent = {b"%d" % number for number in range(300)}
    for value in sent:
        producer.produce(topic, value, key=value)
    producer.flush(WAIT_S)
    found: list[bytes] = []

    def all_found() -> bool:
        for one in members:
            found.extend(message.value() for message in one.consume(100, timeout=0.1))
        return len(found) >= 300

    eventually(all_found, within_s=WAIT_S, what="all records")
    assert sorted(found) == sorted(sent)


def test_commits_survive_a_restart_of_the_consumer(
    producer: Producer, topic: str, consume: Callable[..., Consumer], fresh_name: Name
) -> None:
    group = fresh_name("g")
    send(producer, topic, [b"%d" % number for number in range(20)])
    first = consume(group, enable_auto_commit=False)
    first.subscribe([topic])
    assert values(take(first, 8))[-1] == b"7"
    first.commit(offsets=[TopicPartition(topic, 0, 8, metadata="note")], asynchronous=False)
    first.close()
    second = consume(group, enable_auto_commit=False)
    (committed,) = second.committed([TopicPartition(topic, 0)], timeout=WAIT_S)
    assert (committed.offset, committed.metadata) == (8, "note")
    second.subscribe([topic])
    assert values(take(second, 12)) == [b"%d" % number for number in range(8, 20)]


def test_automatic_commits(producer: Producer, topic: str, consume: Callable[..., Consumer], fresh_name: Name) -> None:
    group = fresh_name("g")
    send(producer, topic, [b"a", b"b", b"c"])
    first = consume(group)
    first.subscribe([topic])
    take(first, 3)
    first.close()
    (committed,) = consume(group).committed([TopicPartition(topic, 0)], timeout=WAIT_S)
    assert committed.offset == 3


def test_static_member_keeps_its_partitions_over_a_restart(
    topic: str, consume: Callable[..., Consumer], fresh_name: Name
) -> None:
    group = fresh_name("g")
    revoked: list[Any] = []
    other = consume(group, group_instance_id="other", heartbeat_interval_ms=200)
    other.subscribe([topic], on_revoke=lambda _, parts: revoked.append(parts))
    eventually(lambda: _assigned(other) == [0, 1, 2], within_s=WAIT_S)
    first = consume(group, group_instance_id="one", heartbeat_interval_ms=200)
    first.subscribe([topic])
    eventually(lambda: _assigned(first, other) == [0, 1, 2] and first.assignment() and other.assignment())
    held, before = first.assignment(), len(revoked)
    first.close()  # A static member does not leave.
    again = consume(group, group_instance_id="one", heartbeat_interval_ms=200)
    again.subscribe([topic])
    eventually(lambda: _assigned(again, other) == [0, 1, 2], within_s=WAIT_S)
    assert again.assignment() == held
    assert len(revoked) == before


def test_two_members_with_one_instance_id(topic: str, consume: Callable[..., Consumer], fresh_name: Name) -> None:
    group = fresh_name("g")
    first = consume(group, group_instance_id="one", heartbeat_interval_ms=200)
    first.subscribe([topic])
    eventually(lambda: _assigned(first) == [0, 1, 2], within_s=WAIT_S)
    second = consume(group, group_instance_id="one", heartbeat_interval_ms=200)
    second.subscribe([topic])
    eventually(lambda: _assigned(second) == [0, 1, 2], within_s=WAIT_S)

    def fenced() -> bool:
        try:
            message = first.poll(0.2)
        except KafkaException as problem:
            return bool(problem.args[0].code() in (KafkaError._FATAL, KafkaError.FENCED_INSTANCE_ID))
        error = message.error() if message else None
        return error is not None and error.code() in (KafkaError._FATAL, KafkaError.FENCED_INSTANCE_ID)

    eventually(fenced, within_s=WAIT_S, what="the first member being fenced")


def test_regular_expression_subscription(
    admin: AdminClient, producer: Producer, consume: Callable[..., Consumer], fresh_name: Name
) -> None:
    prefix = fresh_name("re")
    for number in range(2):
        create(admin, f"{prefix}-{number}")
        send(producer, f"{prefix}-{number}", [b"%d" % number])
    consumer = consume(fresh_name("g"))
    consumer.subscribe([f"^{prefix}-.*"])
    assert sorted(values(take(consumer, 2))) == [b"0", b"1"]


# ---- administration ------------------------------------------------------------------------------------------


def test_topics(admin: AdminClient, fresh_name: Name) -> None:
    name = fresh_name()
    create(admin, name, 2)
    with pytest.raises(KafkaException) as caught:
        admin.create_topics([NewTopic(name, 2, 1)])[name].result(WAIT_S)
    assert caught.value.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS
    admin.create_partitions([NewPartitions(name, 5)])[name].result(WAIT_S)
    eventually(lambda: len(admin.list_topics(name, timeout=WAIT_S).topics[name].partitions) == 5)
    assert name in admin.list_topics(timeout=WAIT_S).topics
    admin.delete_topics([name])[name].result(WAIT_S)
    eventually(lambda: name not in admin.list_topics(timeout=WAIT_S).topics, what="the topic being gone")
    with pytest.raises(KafkaException) as caught:
        admin.delete_topics([name])[name].result(WAIT_S)
    assert caught.value.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART


def test_cluster(admin: AdminClient) -> None:
    cluster = admin.describe_cluster().result(WAIT_S)
    assert cluster.cluster_id
    assert cluster.controller.id in {node.id for node in cluster.nodes}
    assert admin.list_topics(timeout=WAIT_S).cluster_id == cluster.cluster_id


def test_configs(admin: AdminClient, topic: str) -> None:
    def read(key: str) -> str | None:
        (future,) = admin.describe_configs([ConfigResource(ResourceType.TOPIC, topic)]).values()
        return future.result(WAIT_S)[key].value

    assert read("retention.ms") == "604800000"
    change = ConfigEntry("retention.ms", "777", incremental_operation=AlterConfigOpType.SET)
    changed = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[change])
    admin.incremental_alter_configs([changed])[changed].result(WAIT_S)
    eventually(lambda: read("retention.ms") == "777")
    back = ConfigEntry("retention.ms", None, incremental_operation=AlterConfigOpType.DELETE)
    changed = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[back])
    admin.incremental_alter_configs([changed])[changed].result(WAIT_S)
    eventually(lambda: read("retention.ms") == "604800000")


def test_delete_records_and_offsets(admin: AdminClient, producer: Producer, topic: str) -> None:
    send(producer, topic, [b"%d" % number for number in range(10)])
    where = TopicPartition(topic, 0, 4)
    assert admin.delete_records([where])[where].result(WAIT_S).low_watermark == 4

    def offset(spec: OffsetSpec) -> int:
        part = TopicPartition(topic, 0)
        asked = admin.list_offsets({part: spec}, isolation_level=IsolationLevel.READ_UNCOMMITTED)
        return int(asked[part].result(WAIT_S).offset)

    assert offset(OffsetSpec.earliest()) == 4
    assert offset(OffsetSpec.latest()) == 10
    assert offset(OffsetSpec.max_timestamp()) <= 9


def test_groups(
    admin: AdminClient, producer: Producer, topic: str, consume: Callable[..., Consumer], fresh_name: Name
) -> None:
    group = fresh_name("g")
    send(producer, topic, [b"a", b"b", b"c"])
    consumer = consume(group)
    consumer.subscribe([topic])
    take(consumer, 3)
    consumer.commit(asynchronous=False)
    described = admin.describe_consumer_groups([group])[group].result(WAIT_S)
    assert described.state.name == "STABLE"
    assert len(described.members) == 1
    assert len(described.members[0].assignment.topic_partitions) == 3
    listed = admin.list_consumer_groups().result(WAIT_S)
    assert group in {one.group_id for one in listed.valid}
    with pytest.raises(KafkaException) as caught:
        admin.delete_consumer_groups([group])[group].result(WAIT_S)
    assert caught.value.args[0].code() == KafkaError.NON_EMPTY_GROUP
    consumer.close()
    _offsets_of_an_empty_group(admin, group, topic)
    admin.delete_consumer_groups([group])[group].result(WAIT_S)
    listed = admin.list_consumer_groups().result(WAIT_S)
    assert group not in {one.group_id for one in listed.valid}


def _offsets_of_an_empty_group(admin: AdminClient, group: str, topic: str) -> None:
    def stored() -> dict[int, int]:
        wanted = ConsumerGroupTopicPartitions(group)
        (future,) = admin.list_consumer_group_offsets([wanted]).values()
        return {part.partition: part.offset for part in future.result(WAIT_S).topic_partitions}

    assert stored()[0] == 3
    change = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, 0, 1)])
    (future,) = admin.alter_consumer_group_offsets([change]).values()
    future.result(WAIT_S)
    assert stored()[0] == 1


def test_many_producers_at_once(bootstrap: str, topic: str, consume: Callable[..., Consumer], fresh_name: Name) -> None:
    problems: list[BaseException] = []

    def run(number: int) -> None:
        try:
            own = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, "linger.ms": 1})
            send(own, topic, [b"%d:%d" % (number, index) for index in range(200)], partition=number % 3)
        except BaseException as problem:
            problems.append(problem)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    consumer = consume(fresh_name("g"))
    consumer.assign([TopicPartition(topic, number, 0) for number in range(3)])
    found = values(take(consumer, 1200))
    for number in range(6):
        own = [value for value in found if value.startswith(b"%d:" % number)]
        assert own == [b"%d:%d" % (number, index) for index in range(200)], "each producer's records in its order"


def test_consumer_protocol(
    admin: AdminClient, producer: Producer, topic: str, consume: Callable[..., Consumer], fresh_name: Name
) -> None:
    """KIP-848: shares move without anybody stopping, commits carry epochs, and the group is shown as what it is."""
    group = fresh_name("g")
    first = consume(group, group_protocol="consumer", enable_auto_commit=False)
    first.subscribe([topic])
    eventually(lambda: _assigned(first) == [0, 1, 2], what="everything at the first", within_s=WAIT_S)
    second = consume(group, group_protocol="consumer", enable_auto_commit=False)
    second.subscribe([topic])

    def shared() -> bool:
        one, other = _assigned(first), _assigned(second)
        return bool(one and other) and sorted(one + other) == [0, 1, 2]

    eventually(shared, what="a share for each", within_s=WAIT_S)
    described = admin.describe_consumer_groups([group])[group].result(WAIT_S)
    assert len(described.members) == 2
    second.close()
    send(producer, topic, [b"a", b"b"], partition=1)
    assert values(take(first, 2)) == [b"a", b"b"]
    first.commit(asynchronous=False)
    (committed,) = first.committed([TopicPartition(topic, 1)], WAIT_S)
    assert committed.offset == 2


def test_consumer_protocol_with_regular_expression(
    admin: AdminClient, consume: Callable[..., Consumer], fresh_name: Name
) -> None:
    prefix = fresh_name("re")
    create(admin, f"{prefix}-a", 2)
    consumer = consume(fresh_name("g"), group_protocol="consumer")
    consumer.subscribe([f"^{prefix}-.*"])
    eventually(lambda: _assigned(consumer) == [0, 1], what="the topic that is there", within_s=WAIT_S)
    create(admin, f"{prefix}-b", 1)
    eventually(lambda: _assigned(consumer) == [0, 0, 1], what="the topic that came", within_s=WAIT_S)
