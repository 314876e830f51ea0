"""Details of answers that no other test on the wire looks at, one API after the other."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from fixtures.waiting import eventually
from fixtures.wire import Wire, batch, fetch_topic, patched

from penstock.wire.api_keys import ApiKey
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages import (
    delete_records,
    delete_topics,
    describe_cluster,
    describe_configs,
    describe_log_dirs,
    describe_topic_partitions,
    fetch,
    init_producer_id,
    metadata,
    offset_commit,
    offset_fetch,
    produce,
)
from penstock.wire.messages.find_coordinator import FindCoordinatorRequest

Name = Callable[..., str]
COUNT, LAST_DELTA, MAGIC = 57, 23, 16
GROUP_CONFIG = 32


# ---- Produce -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("magic", [0, 1])
def test_old_formats_are_invalid_and_not_corrupt(wire: Wire, topic: str, magic: int) -> None:
    """A corrupt message is sent again by clients; this one would never be taken."""
    answer = wire.produce(topic, patched(batch(b"x"), MAGIC, ">b", magic))
    assert answer.error_code == ErrorCode.INVALID_RECORD


def test_a_batch_without_records(wire: Wire, topic: str) -> None:
    empty = patched(patched(batch(b"x"), COUNT, ">i", 0), LAST_DELTA, ">i", -1)
    assert wire.produce(topic, empty).error_code == ErrorCode.INVALID_RECORD
    assert wire.list_offset(topic, -1).offset == 0


def test_a_partition_named_twice_is_answered_once(wire: Wire, topic: str) -> None:
    data = [produce.PartitionProduceData(index=0, records=batch(value)) for value in (b"first", b"second")]
    request = produce.ProduceRequest(
        acks=-1, timeout_ms=20_000, topic_data=[produce.TopicProduceData(name=topic, partition_data=data)]
    )
    (found,) = wire.call(ApiKey.PRODUCE, 9, request).responses
    (answer,) = found.partition_responses
    assert (answer.error_code, answer.base_offset) == (0, 0)
    assert [record.value for record in wire.fetch_records(topic)] == [b"second"]


def test_what_an_acknowledgement_says(wire: Wire, topic: str) -> None:
    now = int(time.time() * 1000)
    data = batch(b"x", timestamps=[now], producer_id=wire.producer_id(), producer_epoch=0, base_sequence=0)
    first = wire.produce(topic, data)
    assert (first.base_offset, first.log_append_time_ms, first.log_start_offset) == (0, -1, 0)
    assert (first.error_message, first.record_errors) == (None, [])
    again = wire.produce(topic, data)
    assert (again.error_code, again.base_offset, again.log_append_time_ms) == (0, 0, now)


def test_a_recreated_topic_is_not_written_by_its_old_id(wire: Wire, fresh_name: Name) -> None:
    name = fresh_name()
    old = wire.create_topic(name)
    gone = delete_topics.DeleteTopicsRequest(topics=[delete_topics.DeleteTopicState(name=name)], timeout_ms=20_000)
    wire.call(ApiKey.DELETE_TOPICS, 6, gone)
    new = wire.create_topic(name)
    assert wire.produce(old, batch(b"x")).error_code == ErrorCode.UNKNOWN_TOPIC_ID
    assert wire.produce(new, batch(b"x")).base_offset == 0


def test_a_deleted_topics_offsets_are_gone_for_its_successor(wire: Wire, fresh_name: Name, ready_group: Name) -> None:
    name, group = fresh_name(), ready_group()
    wire.create_topic(name)
    assert _commit(wire, group, name, 7) == 0
    gone = delete_topics.DeleteTopicsRequest(topics=[delete_topics.DeleteTopicState(name=name)], timeout_ms=20_000)
    wire.call(ApiKey.DELETE_TOPICS, 6, gone)
    wire.create_topic(name)
    assert _committed(wire, group, name)[0] == -1


# ---- InitProducerId ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", range(6))
def test_producer_ids_are_fresh_whatever_the_client_had(wire: Wire, version: int) -> None:
    request = init_producer_id.InitProducerIdRequest(
        transactional_id=None, transaction_timeout_ms=60_000, producer_id=4711, producer_epoch=3
    )
    answers = [wire.call(ApiKey.INIT_PRODUCER_ID, version, request) for _ in range(2)]
    assert [(answer.error_code, answer.producer_epoch) for answer in answers] == [(0, 0), (0, 0)]
    assert len({4711, *(answer.producer_id for answer in answers)}) == 3


def test_an_empty_transactional_id(wire: Wire) -> None:
    request = init_producer_id.InitProducerIdRequest(transactional_id="", transaction_timeout_ms=60_000)
    assert wire.call(ApiKey.INIT_PRODUCER_ID, 4, request).error_code == ErrorCode.INVALID_REQUEST


# ---- Fetch -------------------------------------------------------------------------------------------------------


def test_a_session_is_by_name_or_by_id(wire: Wire, fresh_name: Name) -> None:
    name = fresh_name()
    topic_id = wire.create_topic(name)

    def ask(version: int, session: int, epoch: int, topic: str | bytes) -> Any:
        wanted = fetch.FetchPartition(partition=0, fetch_offset=0, partition_max_bytes=1 << 20)
        request = fetch.FetchRequest(
            max_wait_ms=0, session_id=session, session_epoch=epoch, topics=[fetch_topic(topic, [wanted])]
        )
        return wire.call(ApiKey.FETCH, version, request)

    by_name = ask(12, 0, 0, name)
    assert ask(13, by_name.session_id, 1, topic_id).error_code == ErrorCode.FETCH_SESSION_TOPIC_ID_ERROR
    by_id = ask(13, 0, 0, topic_id)
    assert ask(12, by_id.session_id, 1, name).error_code == ErrorCode.FETCH_SESSION_TOPIC_ID_ERROR


def test_without_a_session_none_is_made(wire: Wire, topic: str) -> None:
    wanted = fetch.FetchPartition(partition=0, fetch_offset=0, partition_max_bytes=1 << 20)
    request = fetch.FetchRequest(max_wait_ms=0, session_epoch=-1, topics=[fetch_topic(topic, [wanted])])
    assert wire.call(ApiKey.FETCH, 12, request).session_id == 0


# ---- Metadata, DescribeCluster, DescribeTopicPartitions ----------------------------------------------------------


def test_all_topics_or_none(wire: Wire, topic: str) -> None:
    assert wire.metadata([]).topics == []
    assert topic in [found.name for found in wire.metadata(None).topics]
    nothing = wire.call(ApiKey.METADATA, 1, metadata.MetadataRequest(topics=[]))
    assert nothing.topics == []


def test_the_controller_is_one_of_the_brokers(wire: Wire) -> None:
    answer = wire.metadata([])
    assert answer.controller_id in [broker.node_id for broker in answer.brokers]
    cluster = wire.call(ApiKey.DESCRIBE_CLUSTER, 2, describe_cluster.DescribeClusterRequest(endpoint_type=1))
    assert [broker.is_fenced for broker in cluster.brokers] == [False]
    assert cluster.cluster_authorized_operations == -(2**31)


def test_replicas_are_in_sync(wire: Wire, topic: str) -> None:
    (partition,) = wire.metadata([topic]).topics[0].partitions
    assert partition.leader_id == partition.replica_nodes[0]
    assert partition.isr_nodes == partition.replica_nodes
    assert partition.offline_replicas == []
    asked = describe_topic_partitions.TopicRequest(name=topic)
    request = describe_topic_partitions.DescribeTopicPartitionsRequest(topics=[asked], response_partition_limit=10)
    ((described,),) = [found.partitions for found in wire.call(ApiKey.DESCRIBE_TOPIC_PARTITIONS, 0, request).topics]
    assert (described.eligible_leader_replicas, described.last_known_elr) == ([], [])


# ---- groups ------------------------------------------------------------------------------------------------------


@pytest.fixture
def ready_group(wire: Wire, fresh_name: Name) -> Name:
    """Makes names of groups whose coordinator is ready to serve."""

    def make() -> str:
        name = fresh_name("g")
        asked = offset_fetch.OffsetFetchRequestGroup(group_id=name, topics=[])

        def ready() -> bool:
            wire.call(ApiKey.FIND_COORDINATOR, 4, FindCoordinatorRequest(key_type=0, coordinator_keys=[name]))
            answer = wire.call(ApiKey.OFFSET_FETCH, 8, offset_fetch.OffsetFetchRequest(groups=[asked]))
            return answer.groups[0].error_code == 0

        eventually(ready, what="a coordinator", within_s=30)
        return name

    return make


def _commit(wire: Wire, group: str, topic: str, offset: int) -> int:
    partition = offset_commit.OffsetCommitRequestPartition(
        partition_index=0, committed_offset=offset, committed_metadata=""
    )
    request = offset_commit.OffsetCommitRequest(
        group_id=group, topics=[offset_commit.OffsetCommitRequestTopic(name=topic, partitions=[partition])]
    )
    return int(wire.call(ApiKey.OFFSET_COMMIT, 8, request).topics[0].partitions[0].error_code)


def _committed(wire: Wire, group: str, topic: str, *, version: int = 7) -> tuple[int, int, str | None, int]:
    """Offset, epoch, metadata and error code."""
    asked = offset_fetch.OffsetFetchRequestTopic(name=topic, partition_indexes=[0])
    answer = wire.call(ApiKey.OFFSET_FETCH, version, offset_fetch.OffsetFetchRequest(group_id=group, topics=[asked]))
    found = answer.topics[0].partitions[0]
    return found.committed_offset, found.committed_leader_epoch, found.metadata, found.error_code or answer.error_code


@pytest.mark.parametrize("version", range(1, 8))
def test_nothing_committed_is_no_error_even_in_an_unknown_group(
    wire: Wire, topic: str, ready_group: Name, version: int
) -> None:
    assert _committed(wire, ready_group(), topic, version=version) == (-1, -1, "", 0)


def test_offsets_of_several_groups_at_once(wire: Wire, topic: str, ready_group: Name) -> None:
    groups = [ready_group() for _ in range(3)]
    for number, group in enumerate(groups[:2]):
        assert _commit(wire, group, topic, number + 1) == 0
    asked = [
        offset_fetch.OffsetFetchRequestGroup(
            group_id=group,
            topics=[offset_fetch.OffsetFetchRequestTopics(name=topic, partition_indexes=[0])],
        )
        for group in groups
    ]
    answer = wire.call(ApiKey.OFFSET_FETCH, 8, offset_fetch.OffsetFetchRequest(groups=asked))
    found = {group.group_id: group.topics[0].partitions[0].committed_offset for group in answer.groups}
    assert found == dict(zip(groups, (1, 2, -1), strict=True))


@pytest.mark.parametrize("kind", [2, 7])
def test_coordinators_of_what_is_not_served_are_refused_for_good(wire: Wire, kind: int) -> None:
    """A retriable code would make a client ask until its time-out."""
    retriable = {ErrorCode.COORDINATOR_NOT_AVAILABLE, ErrorCode.NOT_COORDINATOR, ErrorCode.COORDINATOR_LOAD_IN_PROGRESS}
    request = FindCoordinatorRequest(key="key", key_type=kind, coordinator_keys=["key"])
    (found,) = wire.call(ApiKey.FIND_COORDINATOR, 6, request).coordinators
    assert found.error_code not in {0, *retriable}


# ---- configurations, records, directories ------------------------------------------------------------------------


def test_a_group_that_is_not_there_has_default_settings(wire: Wire, fresh_name: Name) -> None:
    resource = describe_configs.DescribeConfigsResource(
        resource_type=GROUP_CONFIG, resource_name=fresh_name("g"), configuration_keys=None
    )
    request = describe_configs.DescribeConfigsRequest(resources=[resource])
    (result,) = wire.call(ApiKey.DESCRIBE_CONFIGS, 4, request).results
    entries = {entry.name: entry.value for entry in result.configs}
    assert result.error_code == 0
    assert entries["consumer.session.timeout.ms"] == "45000"


@pytest.mark.parametrize(
    ("policy", "code"),
    [("compact", ErrorCode.POLICY_VIOLATION), ("compact,delete", 0), ("delete", 0), ("", 0)],
)
def test_records_of_topics_that_are_only_compacted_cannot_be_deleted(
    wire: Wire, fresh_name: Name, policy: str, code: int
) -> None:
    name = fresh_name()
    wire.create_topic(name, configs={"cleanup.policy": policy})
    wire.produce(name, batch(b"a", b"b", key=b"k"))
    wanted = delete_records.DeleteRecordsPartition(partition_index=0, offset=1)
    request = delete_records.DeleteRecordsRequest(
        topics=[delete_records.DeleteRecordsTopic(name=name, partitions=[wanted])], timeout_ms=20_000
    )
    answer = wire.call(ApiKey.DELETE_RECORDS, 2, request).topics[0].partitions[0]
    assert (answer.error_code, answer.low_watermark) == (code, -1 if code else 1)


@pytest.mark.differs("there is no volume whose size could be told")
def test_the_directory_of_everything(wire: Wire, topic: str) -> None:
    answer = wire.call(ApiKey.DESCRIBE_LOG_DIRS, 5, describe_log_dirs.DescribeLogDirsRequest(topics=None))
    (directory,) = answer.results
    assert topic in [found.name for found in directory.topics]
    assert (directory.total_bytes, directory.usable_bytes, answer.error_code) == (-1, -1, 0)
