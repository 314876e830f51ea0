"""kafka-python 3 with its defaults: idempotent producers, fetch sessions, the newest versions it knows."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import kafka.errors
import pytest
from fixtures.waiting import eventually
from kafka import KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition
from kafka.admin import (
    ConfigResource,
    ConfigResourceType,
    KafkaAdminClient,
    MemberToRemove,
    NewTopic,
    OffsetSpec,
    OffsetTimestamp,
)
from kafka.consumer.fetcher import ConsumerRecord

Name = Callable[..., str]
WAIT_S = 30
START_MS = 1_700_000_000_000


@pytest.fixture(scope="module")
def admin(broker: Any) -> Iterator[KafkaAdminClient]:
    with closing(KafkaAdminClient(bootstrap_servers=broker.bootstrap)) as client:
        yield client


@pytest.fixture
def topic(admin: KafkaAdminClient, fresh_name: Name) -> str:
    """A topic of three partitions."""
    name = fresh_name()
    admin.create_topics([NewTopic(name, 3, 1)], wait_for_metadata=True)
    return name


@pytest.fixture
def produce(bootstrap: str) -> Iterator[Callable[..., list[int]]]:
    """Sends values to a partition with one producer; their offsets."""
    with closing(KafkaProducer(bootstrap_servers=bootstrap)) as producer:

        def send(topic: str, values: list[bytes | None], *, partition: int = 0, **fields: Any) -> list[int]:
            sent = [producer.send(topic, value, partition=partition, **fields) for value in values]
            return [one.get(WAIT_S).offset for one in sent]

        yield send


@pytest.fixture
def consume(bootstrap: str) -> Iterator[Callable[..., KafkaConsumer]]:
    """Makes consumers, closed after the test."""
    opened: list[KafkaConsumer] = []

    def make(*topics: str, **settings: Any) -> KafkaConsumer:
        opened.append(KafkaConsumer(*topics, bootstrap_servers=bootstrap, auto_offset_reset="earliest", **settings))
        return opened[-1]

    yield make
    for consumer in opened:
        consumer.close(autocommit=False)


def assigned(consumer: KafkaConsumer, topic: str, offset: int | None = 0, *, partition: int = 0) -> KafkaConsumer:
    """The consumer, reading a partition from an offset, or from the start."""
    consumer.assign([TopicPartition(topic, partition)])
    if offset is None:
        consumer.seek_to_beginning()
    else:
        consumer.seek(TopicPartition(topic, partition), offset)
    return consumer


def take(consumer: KafkaConsumer, count: int) -> list[ConsumerRecord]:
    """The next records, this many of them."""
    found: list[ConsumerRecord] = []
    deadline = time.monotonic() + WAIT_S
    while len(found) < count and time.monotonic() < deadline:
        for records in consumer.poll(300).values():
            found += records
    assert len(found) == count, f"{len(found)} of {count} records"
    return found


def values(records: list[ConsumerRecord]) -> list[bytes | None]:
    return [record.value for record in records]


NUMBERED: list[bytes | None] = [b"value %d" % number for number in range(10)]


# ---- producing and consuming -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {}, {"compression_type": "gzip"}, {"enable_idempotence": False}, {"enable_idempotence": False, "acks": 1},
        {"linger_ms": 20, "batch_size": 1000},
    ],
    ids=str,
)  # fmt: skip
def test_round_trip(bootstrap: str, topic: str, consume: Callable[..., KafkaConsumer], settings: dict) -> None:
    sent = [b"%d " % number * 20 for number in range(300)]
    headers = [("a", b"1"), ("a", b"2"), ("é", b"")]
    with closing(KafkaProducer(bootstrap_servers=bootstrap, **settings)) as producer:
        futures = [
            producer.send(topic, value, key=b"key", headers=headers, partition=0, timestamp_ms=START_MS)
            for value in sent
        ]
        assert [future.get(WAIT_S).offset for future in futures] == list(range(300))
    found = take(assigned(consume(), topic), 300)
    assert values(found) == sent
    assert (found[7].key, found[7].timestamp, found[7].timestamp_type) == (b"key", START_MS, 0)
    assert [(name, value) for name, value in found[7].headers] == headers


def test_no_acknowledgements(
    bootstrap: str, topic: str, produce: Callable[..., list[int]], consume: Callable[..., KafkaConsumer]
) -> None:
    produce(topic, [b"first"])
    with closing(KafkaProducer(bootstrap_servers=bootstrap, acks=0, enable_idempotence=False)) as producer:
        for value in NUMBERED:
            producer.send(topic, value, partition=0)
        producer.flush(WAIT_S)
    assert values(take(assigned(consume(), topic), 11)) == [b"first", *NUMBERED]


def test_nulls(topic: str, produce: Callable[..., list[int]], consume: Callable[..., KafkaConsumer]) -> None:
    produce(topic, [None], key=b"k")
    produce(topic, [b""])
    found = take(assigned(consume(), topic), 2)
    assert [(record.key, record.value) for record in found] == [(b"k", None), (None, b"")]


def test_positions(topic: str, produce: Callable[..., list[int]], consume: Callable[..., KafkaConsumer]) -> None:
    for number, value in enumerate(NUMBERED):
        produce(topic, [value], timestamp_ms=START_MS + number * 1000)
    part, consumer = TopicPartition(topic, 0), consume()
    assert values(take(assigned(consumer, topic, None), 10)) == NUMBERED
    consumer.seek(part, 5)
    assert values(take(consumer, 5)) == NUMBERED[5:]
    assert consumer.beginning_offsets([part]) == {part: 0}
    assert consumer.end_offsets([part]) == {part: 10}
    found = consumer.offsets_for_times({part: START_MS + 4500})[part]
    assert (found.offset, found.timestamp) == (5, START_MS + 5000)
    assert consumer.offsets_for_times({part: START_MS + 1_000_000})[part] is None
    consumer.seek_to_end(part)
    assert consumer.poll(200) == {}
    produce(topic, [b"new"])
    assert values(take(consumer, 1)) == [b"new"]
    consumer.seek(part, 999)  # Out of range: starts over, as the settings say.
    assert values(take(consumer, 11)) == [*NUMBERED, b"new"]


def test_read_committed(topic: str, produce: Callable[..., list[int]], consume: Callable[..., KafkaConsumer]) -> None:
    produce(topic, NUMBERED)
    assert values(take(assigned(consume(isolation_level="read_committed"), topic), 10)) == NUMBERED


def test_long_poll(topic: str, produce: Callable[..., list[int]], consume: Callable[..., KafkaConsumer]) -> None:
    produce(topic, [b"first"])
    consumer = assigned(consume(fetch_max_wait_ms=20_000), topic)
    take(consumer, 1)
    later = threading.Timer(0.5, lambda: produce(topic, [b"second"]))
    later.start()
    began = time.monotonic()
    assert values(take(consumer, 1)) == [b"second"]
    assert time.monotonic() - began < 5
    later.join()


def test_large_records(bootstrap: str, topic: str, consume: Callable[..., KafkaConsumer]) -> None:
    value = os.urandom(1_000_000)
    with closing(KafkaProducer(bootstrap_servers=bootstrap, max_request_size=5 << 20)) as producer:
        producer.send(topic, value, partition=0).get(WAIT_S)
        producer.send(topic, value, partition=0).get(WAIT_S)
        with pytest.raises(kafka.errors.MessageSizeTooLargeError):
            producer.send(topic, os.urandom(1_048_600), partition=1).get(WAIT_S)
    assert values(take(assigned(consume(), topic), 2)) == [value, value]


def test_many_partitions_in_one_session(
    admin: KafkaAdminClient, produce: Callable[..., list[int]], consume: Callable[..., KafkaConsumer], fresh_name: Name
) -> None:
    name = fresh_name()
    admin.create_topics([NewTopic(name, 100, 1)], wait_for_metadata=True)
    consumer = consume()
    consumer.assign([TopicPartition(name, number) for number in range(100)])
    consumer.seek_to_beginning()
    for round_number in range(3):
        for number in range(0, 100, 7):
            produce(name, [b"%d-%d" % (round_number, number)], partition=number)
        found = values(take(consumer, 15))
        assert sorted(found) == sorted(b"%d-%d" % (round_number, number) for number in range(0, 100, 7))


def test_topics_that_are_not_there(
    bootstrap: str, admin: KafkaAdminClient, fresh_name: Name, consume: Callable[..., KafkaConsumer]
) -> None:
    name = fresh_name()
    with closing(KafkaProducer(bootstrap_servers=bootstrap)) as producer:  # Created when first asked for.
        assert producer.send(name, b"first").get(WAIT_S).offset == 0
    assert values(take(consume(name), 1)) == [b"first"]
    missing = fresh_name("missing")
    (described,) = admin.describe_topics([missing])
    assert described["error_code"] == kafka.errors.UnknownTopicOrPartitionError.errno
    assert missing not in admin.list_topics()


def test_compacted_topics_refuse_records_without_a_key(
    admin: KafkaAdminClient, produce: Callable[..., list[int]], fresh_name: Name
) -> None:
    name = fresh_name()
    admin.create_topics([NewTopic(name, 1, 1, topic_configs={"cleanup.policy": "compact"})], wait_for_metadata=True)
    assert produce(name, [b"value"], key=b"key") == [0]
    with pytest.raises(kafka.errors.InvalidRecordError):
        produce(name, [b"keyless"])


# ---- groups ------------------------------------------------------------------------------------------------------


class Member:
    """A consumer that is polled by a thread of its own, as an application does."""

    def __init__(self, consumer: KafkaConsumer) -> None:
        self.consumer = consumer
        self.held: list[int] = []
        self.got: list[bytes] = []
        self.problem: BaseException | None = None
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._leaving.is_set():
                for records in self.consumer.poll(100).values():
                    self.got += [record.value for record in records]
                self.held = sorted(part.partition for part in self.consumer.assignment())
        except BaseException as problem:
            self.problem = problem

    def leave(self) -> None:
        """Close the consumer, which leaves the group unless it is a static member."""
        self._leaving.set()
        self._thread.join()
        self.consumer.close()
        assert self.problem is None, self.problem


@pytest.fixture
def join(consume: Callable[..., KafkaConsumer]) -> Iterator[Callable[..., Member]]:
    """Makes members that poll until the test ends."""
    members: list[Member] = []

    def make(topic: str, group: str, **settings: Any) -> Member:
        # A member that leads its group before it has heard of the topic spreads nothing, and looks again only then.
        settings = {"heartbeat_interval_ms": 200, "metadata_max_age_ms": 5_000, **settings}
        members.append(Member(consume(topic, group_id=group, **settings)))
        return members[-1]

    yield make
    for member in members:
        member.leave()


def fair(*members: Member) -> bool:
    """Whether three partitions are spread over the members."""
    spread = sorted(number for member in members for number in member.held) == [0, 1, 2]
    return spread and all(member.held for member in members)


def test_members_come_and_go(topic: str, join: Callable[..., Member], fresh_name: Name) -> None:
    group = fresh_name("g")
    members = [join(topic, group)]
    for _ in range(2):
        eventually(lambda: fair(*members), within_s=WAIT_S, what=f"{len(members)} members sharing")
        members.append(join(topic, group))
    eventually(lambda: fair(*members), within_s=WAIT_S, what="three members sharing")
    members.pop(1).leave()
    eventually(lambda: fair(*members), within_s=WAIT_S, what="the rest sharing")


def test_every_record_reaches_one_member(
    topic: str, produce: Callable[..., list[int]], join: Callable[..., Member], fresh_name: Name
) -> None:
    group = fresh_name("g")
    members = [join(topic, group), join(topic, group)]
    eventually(lambda: fair(*members), within_s=WAIT_S)
    for number in range(150):
        produce(topic, [b"%d" % number], partition=number % 3)
    eventually(lambda: sum(len(member.got) for member in members) >= 150, what="all records")
    assert sorted(members[0].got + members[1].got) == sorted(b"%d" % number for number in range(150))


def test_commits(
    topic: str, produce: Callable[..., list[int]], consume: Callable[..., KafkaConsumer], fresh_name: Name
) -> None:
    group, part = fresh_name("g"), TopicPartition(topic, 0)
    produce(topic, NUMBERED)
    first = consume(topic, group_id=group, enable_auto_commit=False)
    assert values(take(first, 10)) == NUMBERED
    first.commit({part: OffsetAndMetadata(4, "note", -1)})
    first.close(autocommit=False)
    second = consume(topic, group_id=group)
    assert second.committed(part, metadata=True)[:2] == (4, "note")
    assert second.committed(TopicPartition(topic, 1)) is None
    assert values(take(second, 6)) == NUMBERED[4:]
    second.close()  # Commits by itself.
    assert consume(topic, group_id=group).committed(part) == 10


def test_static_member(topic: str, join: Callable[..., Member], admin: KafkaAdminClient, fresh_name: Name) -> None:
    group = fresh_name("g")
    first = join(topic, group, group_instance_id="one")
    second = join(topic, group, group_instance_id="two")
    eventually(lambda: fair(first, second), within_s=WAIT_S)
    held = first.held
    first.leave()
    again = join(topic, group, group_instance_id="one")
    eventually(lambda: fair(again, second), within_s=WAIT_S)
    assert again.held == held
    again.leave()
    admin.remove_group_members(group, [MemberToRemove(group_instance_id="one")])
    eventually(lambda: fair(second), within_s=WAIT_S, what="the other member having everything")


# ---- administration ----------------------------------------------------------------------------------------------


def test_topics(admin: KafkaAdminClient, fresh_name: Name) -> None:
    name = fresh_name()
    made = admin.create_topics([NewTopic(name, 2, 1, topic_configs={"retention.ms": "777"})], wait_for_metadata=True)
    assert made["topics"][0]["configs"]["retention.ms"]["value"] == "777"
    with pytest.raises(kafka.errors.TopicAlreadyExistsError):
        admin.create_topics([NewTopic(name, 2, 1)])
    with pytest.raises(kafka.errors.InvalidTopicError):
        admin.create_topics([NewTopic("a/b", 2, 1)])
    assert name in admin.list_topics()
    admin.create_partitions({name: 5})
    (described,) = admin.describe_topics([name])
    assert [part["error_code"] for part in described["partitions"]] == [0] * 5
    page = admin.describe_topic_partitions([name], response_partition_limit=2)
    assert [part["partition_index"] for part in page["topics"][0]["partitions"]] == [0, 1]
    assert (page["next_cursor"]["topic_name"], page["next_cursor"]["partition_index"]) == (name, 2)
    admin.delete_topics([name])
    assert name not in admin.list_topics()
    with pytest.raises(kafka.errors.UnknownTopicOrPartitionError):
        admin.delete_topics([name])


def test_configs(admin: KafkaAdminClient, topic: str) -> None:
    def read() -> str:
        (found,) = admin.describe_configs(
            [ConfigResource(ConfigResourceType.TOPIC, topic)], config_filter="all"
        ).values()
        return str(found[topic]["retention.ms"]["value"])

    assert read() == "604800000"
    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {"retention.ms": "555"})])
    assert read() == "555"
    admin.reset_configs([ConfigResource(ConfigResourceType.TOPIC, topic, ["retention.ms"])])
    assert read() == "604800000"
    brokers = [str(broker["broker_id"]) for broker in admin.describe_cluster()["brokers"]]
    (found,) = admin.describe_configs(
        [ConfigResource(ConfigResourceType.BROKER, brokers[0])], config_filter="all"
    ).values()
    assert found[brokers[0]]["auto.create.topics.enable"]["value"] == "true"


def test_records_and_offsets(admin: KafkaAdminClient, topic: str, produce: Callable[..., list[int]]) -> None:
    part = TopicPartition(topic, 0)
    for number, value in enumerate(NUMBERED):
        produce(topic, [value], timestamp_ms=START_MS + number * 1000)
    assert admin.delete_records({part: 4})[part]["low_watermark"] == 4

    def offset(spec: Any) -> int:
        return int(admin.list_partition_offsets({part: spec})[part].offset)

    assert offset(OffsetSpec.EARLIEST) == 4
    assert offset(OffsetSpec.LATEST) == 10
    assert offset(OffsetSpec.MAX_TIMESTAMP) == 9
    assert offset(OffsetTimestamp(START_MS + 4500)) == 5
    (state,) = admin.describe_producers([part])[part].active_producers
    assert state.last_sequence == 9
    (directories,) = admin.describe_log_dirs({topic: [0]})
    (directory,) = directories["log_dirs"]
    assert directory["topics"][0]["partitions"][0]["partition_size"] > 0


def test_groups(
    admin: KafkaAdminClient,
    topic: str,
    produce: Callable[..., list[int]],
    join: Callable[..., Member],
    fresh_name: Name,
) -> None:
    group, part = fresh_name("g"), TopicPartition(topic, 0)
    produce(topic, NUMBERED)
    member = join(topic, group, client_id="described")
    eventually(lambda: fair(member) and len(member.got) == 10, within_s=WAIT_S)
    described = admin.describe_groups([group])[group]
    assert (described["group_state"], described["protocol_type"]) == ("Stable", "consumer")
    assert [one["client_id"] for one in described["members"]] == ["described"]
    assert group in [one["group_id"] for one in admin.list_groups(states_filter=["Stable"])]
    assert admin.delete_groups([group]) == {group: "NonEmptyGroupError"}
    member.leave()
    assert admin.list_group_offsets(group)[group][part].offset == 10
    assert admin.reset_group_offsets(group, {part: OffsetSpec.EARLIEST})[part]["offset"] == 0
    assert admin.list_group_offsets(group)[group][part].offset == 0
    admin.delete_group_offsets(group, [part])
    assert part not in admin.list_group_offsets(group)[group]
    assert admin.delete_groups([group]) == {group: "OK"}
    assert admin.delete_groups([group]) == {group: "GroupIdNotFoundError"}


def test_replicas(admin: KafkaAdminClient, topic: str) -> None:
    cluster = admin.describe_cluster()
    assert cluster["controller_id"] in [broker["broker_id"] for broker in cluster["brokers"]]
    elected = admin.elect_leaders(0, {topic: [0]})
    assert (
        elected.replica_election_results[0].partition_result[0].error_code == kafka.errors.ElectionNotNeededError.errno
    )
    assert admin.list_partition_reassignments() == {}


# ---- transactions ------------------------------------------------------------------------------------------------


@pytest.fixture
def transactional(bootstrap: str) -> Iterator[Callable[[str], KafkaProducer]]:
    """Makes producers that have their transactional id, closed after the test."""
    opened: list[KafkaProducer] = []

    def make(name: str) -> KafkaProducer:
        opened.append(KafkaProducer(bootstrap_servers=bootstrap, transactional_id=name))
        opened[-1].init_transactions()
        return opened[-1]

    yield make
    for producer in opened:
        producer.close(timeout=1)


def test_transactions_commit_and_abort(
    transactional: Callable[[str], KafkaProducer], topic: str, consume: Callable[..., KafkaConsumer], fresh_name: Name
) -> None:
    producer = transactional(fresh_name("txn"))
    for turn in range(5):
        producer.begin_transaction()
        producer.send(topic, b"%d" % turn, partition=0).get(WAIT_S)
        if turn % 2 == 0:
            producer.commit_transaction()
        else:
            producer.abort_transaction()
    committed = assigned(consume(isolation_level="read_committed"), topic)
    assert values(take(committed, 3)) == [b"0", b"2", b"4"]
    everything = assigned(consume(isolation_level="read_uncommitted"), topic)
    assert values(take(everything, 5)) == [b"0", b"1", b"2", b"3", b"4"]


def test_offsets_go_with_the_transaction(
    transactional: Callable[[str], KafkaProducer], admin: KafkaAdminClient, topic: str, fresh_name: Name
) -> None:
    group, part, producer = fresh_name("g"), TopicPartition(topic, 0), transactional(fresh_name("txn"))
    for commit in (False, True):
        producer.begin_transaction()
        producer.send(topic, b"x", partition=0).get(WAIT_S)
        producer.send_offsets_to_transaction({part: OffsetAndMetadata(5, "", -1)}, group)
        if commit:
            producer.commit_transaction()
        else:
            producer.abort_transaction()
        assert (part in admin.list_group_offsets(group)[group]) is commit
    assert admin.list_group_offsets(group)[group][part].offset == 5


def test_a_second_producer_fences_the_first(
    transactional: Callable[[str], KafkaProducer], topic: str, consume: Callable[..., KafkaConsumer], fresh_name: Name
) -> None:
    name = fresh_name("txn")
    first = transactional(name)
    first.begin_transaction()
    first.send(topic, b"lost", partition=0).get(WAIT_S)
    second = transactional(name)
    with pytest.raises(kafka.errors.ProducerFencedError):
        first.commit_transaction()
    second.begin_transaction()
    second.send(topic, b"kept", partition=0).get(WAIT_S)
    second.commit_transaction()
    assert values(take(assigned(consume(isolation_level="read_committed"), topic), 1)) == [b"kept"]
