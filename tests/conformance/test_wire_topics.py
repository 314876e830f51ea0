"""Topics, partitions, configurations and the answers of a system with one logical replica, on the wire."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fixtures.waiting import eventually
from fixtures.wire import Wire, batch

from penstock.wire.api_keys import ApiKey
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages import (
    alter_configs,
    alter_partition_reassignments,
    create_partitions,
    create_topics,
    delete_topics,
    describe_configs,
    describe_log_dirs,
    describe_producers,
    elect_leaders,
    incremental_alter_configs,
)
from penstock.wire.messages.list_partition_reassignments import ListPartitionReassignmentsRequest

TOPIC, BROKER = 2, 4
SET, DELETE, APPEND, SUBTRACT = range(4)


def _create(wire: Wire, *topics: Any, version: int = 7, validate_only: bool = False) -> list[Any]:
    request = create_topics.CreateTopicsRequest(topics=list(topics), timeout_ms=20_000, validate_only=validate_only)
    return list(wire.call(ApiKey.CREATE_TOPICS, version, request).topics)


def _topic(name: str, partitions: int = 1, replication: int = 1, **configs: str) -> Any:
    entries = [
        create_topics.CreatableTopicConfig(name=key.replace("_", "."), value=value) for key, value in configs.items()
    ]
    return create_topics.CreatableTopic(
        name=name, num_partitions=partitions, replication_factor=replication, configs=entries
    )


def _assigned(name: str, brokers: dict[int, list[int]], *, partitions: int = -1, replication: int = -1) -> Any:
    return create_topics.CreatableTopic(
        name=name, num_partitions=partitions, replication_factor=replication,
        assignments=[
            create_topics.CreatableReplicaAssignment(partition_index=index, broker_ids=ids)
            for index, ids in brokers.items()
        ],
    )  # fmt: skip


def _exists(wire: Wire, name: str) -> bool:
    return wire.metadata([name]).topics[0].error_code == 0


@pytest.mark.parametrize("version", range(2, 8))
def test_create_in_every_version(wire: Wire, fresh_name: Callable[..., str], version: int) -> None:
    name = fresh_name()
    (result,) = _create(wire, _topic(name, 3, retention_ms="1000"), version=version)
    assert (result.name, result.error_code) == (name, 0)
    if version >= 5:
        assert (result.num_partitions, result.replication_factor) == (3, 1)
        configs = {entry.name: entry.value for entry in result.configs}
        assert configs["retention.ms"] == "1000"
        assert configs["cleanup.policy"] == "delete"
        assert len(configs) >= 37
    eventually(lambda: len(wire.metadata([name]).topics[0].partitions) == 3, what="the partitions")


def test_defaults_of_the_broker(wire: Wire, fresh_name: Callable[..., str]) -> None:
    (result,) = _create(wire, _topic(fresh_name(), -1, -1))
    assert (result.error_code, result.num_partitions, result.replication_factor) == (0, 1, 1)


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda name: _topic(name, 0), ErrorCode.INVALID_PARTITIONS),
        (lambda name: _topic(name, -2), ErrorCode.INVALID_PARTITIONS),
        (lambda name: _topic(name, 1, 0), ErrorCode.INVALID_REPLICATION_FACTOR),
        (lambda name: _assigned(name, {0: [9_999]}), ErrorCode.INVALID_REPLICA_ASSIGNMENT),
        (lambda name: _topic(name, retention_ms="soon"), ErrorCode.INVALID_CONFIG),
        (lambda name: _topic(name, no_such_key="1"), ErrorCode.INVALID_CONFIG),
        (lambda name: _topic(name, cleanup_policy="shred"), ErrorCode.INVALID_CONFIG),
    ],
)
def test_create_refused(
    wire: Wire, fresh_name: Callable[..., str], make: Callable[[str], Any], code: ErrorCode
) -> None:
    name = fresh_name()
    (result,) = _create(wire, make(name))
    assert (result.error_code, bool(result.error_message)) == (code, True)
    assert not _exists(wire, name)


@pytest.mark.parametrize("name", ["", ".", "..", "a b", "x/y", "é", "l" * 250])
def test_bad_names(wire: Wire, name: str) -> None:
    assert _create(wire, _topic(name))[0].error_code == ErrorCode.INVALID_TOPIC_EXCEPTION


def test_longest_name(wire: Wire, fresh_name: Callable[..., str]) -> None:
    assert _create(wire, _topic(fresh_name().ljust(249, "x")))[0].error_code == 0


def test_existing_colliding_and_repeated_names(wire: Wire, fresh_name: Callable[..., str]) -> None:
    name = fresh_name("a.b")
    wire.create_topic(name)
    assert _create(wire, _topic(name))[0].error_code == ErrorCode.TOPIC_ALREADY_EXISTS
    collision = _create(wire, _topic(name.replace("a.b", "a_b")))[0]
    assert collision.error_code == ErrorCode.INVALID_TOPIC_EXCEPTION
    twice = fresh_name()
    results = _create(wire, _topic(twice), _topic(twice))
    assert {result.error_code for result in results} == {ErrorCode.INVALID_REQUEST}
    assert not _exists(wire, twice)


def test_only_validating_creates_nothing(wire: Wire, fresh_name: Callable[..., str]) -> None:
    name = fresh_name()
    assert _create(wire, _topic(name), validate_only=True)[0].error_code == 0
    assert not _exists(wire, name)


def test_manual_assignment(wire: Wire, fresh_name: Callable[..., str]) -> None:
    broker = wire.metadata([]).brokers[0].node_id
    name = fresh_name()
    (result,) = _create(wire, _assigned(name, {0: [broker], 1: [broker]}))
    assert (result.error_code, result.num_partitions) == (0, 2)
    both = _assigned(fresh_name(), {0: [broker]}, partitions=1, replication=1)
    assert _create(wire, both)[0].error_code == ErrorCode.INVALID_REQUEST


@pytest.mark.differs("Apache Kafka refuses a replication factor above its number of brokers")
def test_any_replication_factor_is_accepted_and_echoed(wire: Wire, fresh_name: Callable[..., str]) -> None:
    (result,) = _create(wire, _topic(fresh_name(), 1, 3))
    assert (result.error_code, result.replication_factor) == (0, 3)


@pytest.mark.parametrize("version", range(1, 7))
def test_delete_in_every_version(wire: Wire, fresh_name: Callable[..., str], version: int) -> None:
    name = fresh_name()
    wire.create_topic(name)

    def delete() -> Any:
        topics = [delete_topics.DeleteTopicState(name=name)]
        request = delete_topics.DeleteTopicsRequest(topics=topics, topic_names=[name], timeout_ms=20_000)
        return wire.call(ApiKey.DELETE_TOPICS, version, request).responses[0]

    assert (delete().name, delete().error_code) == (name, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
    eventually(lambda: not _exists(wire, name), what="the topic being gone")
    assert wire.produce(name, batch(b"x")).error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


def test_delete_by_id(wire: Wire, fresh_name: Callable[..., str]) -> None:
    name = fresh_name()
    ids = [wire.create_topic(name), b"\x09" * 16]
    topics = [delete_topics.DeleteTopicState(name=None, topic_id=topic_id) for topic_id in ids]
    request = delete_topics.DeleteTopicsRequest(topics=topics, timeout_ms=20_000)
    results = {bytes(one.topic_id): one.error_code for one in wire.call(ApiKey.DELETE_TOPICS, 6, request).responses}
    assert results == {ids[0]: 0, ids[1]: ErrorCode.UNKNOWN_TOPIC_ID}


@pytest.mark.parametrize("version", range(4))
def test_create_partitions(wire: Wire, topic: str, fresh_name: Callable[..., str], version: int) -> None:
    def grow(name: str, count: int, *, validate_only: bool = False) -> int:
        wanted = create_partitions.CreatePartitionsTopic(name=name, count=count, assignments=None)
        request = create_partitions.CreatePartitionsRequest(
            topics=[wanted], timeout_ms=20_000, validate_only=validate_only
        )
        return int(wire.call(ApiKey.CREATE_PARTITIONS, version, request).results[0].error_code)

    assert grow(topic, 1) == ErrorCode.INVALID_PARTITIONS
    assert grow(topic, 0) == ErrorCode.INVALID_PARTITIONS
    assert grow(fresh_name(), 2) == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert grow(topic, 4, validate_only=True) == 0
    assert len(wire.metadata([topic]).topics[0].partitions) == 1
    assert grow(topic, 4) == 0
    assert grow(topic, 3) == ErrorCode.INVALID_PARTITIONS
    eventually(lambda: len(wire.metadata([topic]).topics[0].partitions) == 4, what="the partitions")
    eventually(lambda: wire.produce(topic, batch(b"x"), partition=3).error_code == 0, what="the new partition")


# ---- configurations ------------------------------------------------------------------------------------------


def _describe(wire: Wire, kind: int, name: str, *keys: str, version: int = 4, synonyms: bool = False) -> Any:
    resource = describe_configs.DescribeConfigsResource(
        resource_type=kind, resource_name=name, configuration_keys=list(keys) or None
    )
    request = describe_configs.DescribeConfigsRequest(
        resources=[resource], include_synonyms=synonyms, include_documentation=True
    )
    return wire.call(ApiKey.DESCRIBE_CONFIGS, version, request).results[0]


def _alter(wire: Wire, name: str, *changes: tuple[str, int, str | None], kind: int = TOPIC, check: bool = False) -> int:
    configs = [
        incremental_alter_configs.AlterableConfig(name=key, config_operation=operation, value=value)
        for key, operation, value in changes
    ]
    resource = incremental_alter_configs.AlterConfigsResource(resource_type=kind, resource_name=name, configs=configs)
    request = incremental_alter_configs.IncrementalAlterConfigsRequest(resources=[resource], validate_only=check)
    return int(wire.call(ApiKey.INCREMENTAL_ALTER_CONFIGS, 1, request).responses[0].error_code)


def _value(wire: Wire, name: str, key: str) -> tuple[str, int]:
    (entry,) = _describe(wire, TOPIC, name, key).configs
    return entry.value, entry.config_source


@pytest.mark.parametrize("version", range(1, 5))
def test_topic_configs(wire: Wire, topic: str, version: int) -> None:
    result = _describe(wire, TOPIC, topic, version=version)
    assert result.error_code == 0
    entries = {entry.name: entry for entry in result.configs}
    assert len(entries) >= 37
    assert entries["retention.ms"].value == "604800000"
    assert entries["max.message.bytes"].value == "1048588"
    assert not entries["retention.ms"].read_only
    assert not entries["retention.ms"].is_sensitive
    if version >= 3:
        assert entries["retention.ms"].config_type == 5  # LONG
        assert entries["cleanup.policy"].config_type == 7  # LIST
        assert entries["retention.ms"].documentation


def test_broker_configs(wire: Wire) -> None:
    broker = wire.metadata([]).brokers[0].node_id
    entries = {entry.name: entry.value for entry in _describe(wire, BROKER, str(broker)).configs}
    for key in ("auto.create.topics.enable", "delete.topic.enable", "num.partitions", "log.retention.hours"):
        assert key in entries
    assert _describe(wire, BROKER, "9999").error_code == ErrorCode.INVALID_REQUEST
    assert _describe(wire, BROKER, "one").error_code == ErrorCode.INVALID_REQUEST
    assert _describe(wire, 77, "x").error_code == ErrorCode.INVALID_REQUEST


def test_configs_of_an_unknown_topic(wire: Wire, fresh_name: Callable[..., str]) -> None:
    assert _describe(wire, TOPIC, fresh_name()).error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert _alter(wire, fresh_name(), ("retention.ms", SET, "1")) == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


def test_set_and_delete(wire: Wire, topic: str) -> None:
    assert _value(wire, topic, "retention.ms")[1] == 5
    assert _alter(wire, topic, ("retention.ms", SET, "1234")) == 0
    eventually(lambda: _value(wire, topic, "retention.ms") == ("1234", 1), what="the new value")
    assert _alter(wire, topic, ("retention.ms", SET, "99"), check=True) == 0
    assert _value(wire, topic, "retention.ms") == ("1234", 1)
    assert _alter(wire, topic, ("retention.ms", DELETE, None)) == 0
    eventually(lambda: _value(wire, topic, "retention.ms") == ("604800000", 5), what="the default")


def test_append_and_subtract(wire: Wire, topic: str) -> None:
    assert _alter(wire, topic, ("cleanup.policy", APPEND, "compact")) == 0
    eventually(lambda: set(_value(wire, topic, "cleanup.policy")[0].split(",")) == {"compact", "delete"})
    assert _alter(wire, topic, ("cleanup.policy", SUBTRACT, "delete")) == 0
    eventually(lambda: _value(wire, topic, "cleanup.policy")[0] == "compact")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ([("retention.ms", APPEND, "1")], ErrorCode.INVALID_CONFIG),
        ([("retention.ms", SUBTRACT, "1")], ErrorCode.INVALID_CONFIG),
        ([("no.such.key", SET, "1")], ErrorCode.INVALID_CONFIG),
        ([("retention.ms", SET, "soon")], ErrorCode.INVALID_CONFIG),
        ([("cleanup.policy", SET, "shred")], ErrorCode.INVALID_CONFIG),
        ([("retention.ms", SET, None)], ErrorCode.INVALID_REQUEST),
        ([("retention.ms", SET, "1"), ("retention.ms", SET, "2")], ErrorCode.INVALID_REQUEST),
    ],
)
def test_alterations_refused(wire: Wire, topic: str, changes: list[Any], code: ErrorCode) -> None:
    assert _alter(wire, topic, *changes) == code
    assert _value(wire, topic, "retention.ms") == ("604800000", 5)


def test_a_read_only_broker_key(wire: Wire) -> None:
    broker = str(wire.metadata([]).brokers[0].node_id)
    assert _alter(wire, broker, ("log.dirs", SET, "/tmp"), kind=BROKER) == ErrorCode.INVALID_REQUEST


def test_legacy_alter_replaces_everything(wire: Wire, topic: str) -> None:
    def replace(**configs: str) -> int:
        entries = [alter_configs.AlterableConfig(name=k.replace("_", "."), value=v) for k, v in configs.items()]
        resource = alter_configs.AlterConfigsResource(resource_type=TOPIC, resource_name=topic, configs=entries)
        request = alter_configs.AlterConfigsRequest(resources=[resource])
        return int(wire.call(ApiKey.ALTER_CONFIGS, 2, request).responses[0].error_code)

    assert replace(retention_ms="5", retention_bytes="6") == 0
    eventually(lambda: _value(wire, topic, "retention.ms") == ("5", 1))
    assert replace(retention_bytes="7") == 0
    eventually(lambda: _value(wire, topic, "retention.bytes") == ("7", 1))
    assert _value(wire, topic, "retention.ms") == ("604800000", 5)


# ---- one logical replica -------------------------------------------------------------------------------------


def test_elections_are_not_needed(wire: Wire, topic: str, fresh_name: Callable[..., str]) -> None:
    unknown = fresh_name()

    def elect(kind: int) -> Any:
        wanted = [elect_leaders.TopicPartitions(topic=name, partitions=[0]) for name in (topic, unknown)]
        request = elect_leaders.ElectLeadersRequest(election_type=kind, topic_partitions=wanted, timeout_ms=20_000)
        return wire.call(ApiKey.ELECT_LEADERS, 2, request)

    results = {one.topic: one.partition_result[0].error_code for one in elect(0).replica_election_results}
    assert results == {topic: ErrorCode.ELECTION_NOT_NEEDED, unknown: ErrorCode.UNKNOWN_TOPIC_OR_PARTITION}
    bad = elect(2)
    codes = {bad.error_code} | {
        part.error_code for one in bad.replica_election_results for part in one.partition_result
    }
    assert ErrorCode.INVALID_REQUEST in codes


def test_reassignments(wire: Wire, topic: str) -> None:
    broker = wire.metadata([]).brokers[0].node_id

    def reassign(replicas: list[int] | None) -> int:
        wanted = alter_partition_reassignments.ReassignableTopic(
            name=topic,
            partitions=[alter_partition_reassignments.ReassignablePartition(partition_index=0, replicas=replicas)],
        )
        request = alter_partition_reassignments.AlterPartitionReassignmentsRequest(topics=[wanted])
        answer = wire.call(ApiKey.ALTER_PARTITION_REASSIGNMENTS, 0, request)
        return int(answer.error_code or answer.responses[0].partitions[0].error_code)

    assert reassign([broker]) == 0
    assert reassign([9_999]) == ErrorCode.INVALID_REPLICA_ASSIGNMENT
    assert reassign(None) == ErrorCode.NO_REASSIGNMENT_IN_PROGRESS
    listed = wire.call(ApiKey.LIST_PARTITION_REASSIGNMENTS, 0, ListPartitionReassignmentsRequest(topics=None))
    assert (listed.error_code, listed.topics) == (0, [])


@pytest.mark.parametrize("version", range(1, 5))
def test_log_directories(wire: Wire, topic: str, version: int) -> None:
    wire.produce(topic, batch(b"x" * 10_000))
    wanted = [describe_log_dirs.DescribableLogDirTopic(topic=topic, partitions=[0])]
    answer = wire.call(ApiKey.DESCRIBE_LOG_DIRS, version, describe_log_dirs.DescribeLogDirsRequest(topics=wanted))
    (directory,) = answer.results
    assert directory.error_code == 0
    assert directory.log_dir
    (partition,) = [part for found in directory.topics if found.name == topic for part in found.partitions]
    assert partition.partition_size >= 10_000
    assert (partition.offset_lag, partition.is_future_key) == (0, False)


def test_describe_producers(wire: Wire, topic: str) -> None:
    producer_id = wire.producer_id()
    for sequence in range(2):
        wire.produce(topic, batch(b"x", producer_id=producer_id, producer_epoch=0, base_sequence=sequence))
    wanted = describe_producers.TopicRequest(name=topic, partition_indexes=[0, 9])
    answer = wire.call(ApiKey.DESCRIBE_PRODUCERS, 0, describe_producers.DescribeProducersRequest(topics=[wanted]))
    known, unknown = sorted(answer.topics[0].partitions, key=lambda partition: partition.partition_index)
    (state,) = known.active_producers
    assert (state.producer_id, state.producer_epoch, state.last_sequence) == (producer_id, 0, 1)
    assert state.current_txn_start_offset == -1
    assert unknown.error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
