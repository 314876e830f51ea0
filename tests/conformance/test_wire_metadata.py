"""Metadata, topic ids, DescribeTopicPartitions and DescribeCluster on the wire."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pytest
from fixtures.waiting import eventually
from fixtures.wire import ZERO_ID, Wire

from penstock.wire.api_keys import ApiKey
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages import delete_topics, describe_topic_partitions
from penstock.wire.messages.describe_cluster import DescribeClusterRequest
from penstock.wire.messages.metadata import MetadataRequest, MetadataRequestTopic

NOT_ASKED = -(2**31)


def _names(response: Any) -> list[str]:
    return [topic.name for topic in response.topics]


def test_version_zero_takes_an_empty_list_for_all_topics(wire: Wire, topic: str) -> None:
    assert topic in _names(wire.metadata([], version=0))
    assert wire.metadata([], version=1).topics == []
    assert topic in _names(wire.metadata(None, version=1))


@pytest.mark.parametrize("version", range(14))
def test_every_version_describes_the_topic(wire: Wire, topic: str, version: int) -> None:
    response = wire.metadata([topic], version=version)
    (found,) = response.topics
    (partition,) = found.partitions
    brokers = {broker.node_id: broker for broker in response.brokers}
    assert found.error_code == partition.error_code == 0
    assert partition.leader_id in brokers
    assert partition.replica_nodes == partition.isr_nodes == [partition.leader_id]
    assert brokers[partition.leader_id].port
    if version >= 1:
        assert response.controller_id in brokers, "administrators send their writes there"
    if version >= 7:
        assert partition.leader_epoch >= 0
    if version >= 10:
        assert found.topic_id != ZERO_ID


def test_cluster_id_is_a_stable_uuid_in_base64(wire: Wire) -> None:
    first, second = wire.metadata([]).cluster_id, wire.metadata([]).cluster_id
    assert first == second
    assert len(first) == 22
    assert len(base64.urlsafe_b64decode(first + "==")) == 16


def test_unknown_topic_without_auto_creation(wire: Wire, fresh_name: Callable[..., str]) -> None:
    (found,) = wire.metadata([fresh_name()]).topics
    assert found.error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert found.topic_id == ZERO_ID
    assert found.partitions == []


def test_auto_creation_makes_the_topic_by_the_retry(wire: Wire, fresh_name: Callable[..., str]) -> None:
    name = fresh_name()
    (first,) = wire.metadata([name], auto_create=True).topics
    assert first.error_code in (0, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, ErrorCode.LEADER_NOT_AVAILABLE)

    def found() -> bool:
        (topic,) = wire.metadata([name], auto_create=True).topics
        return topic.error_code == 0 and len(topic.partitions) == 1

    eventually(found, what="the automatic topic")


@pytest.mark.parametrize("name", ["", ".", "..", "a b", "x/y", "é", "l" * 250])
def test_bad_name(wire: Wire, topic: str, name: str) -> None:
    results = {found.name: found.error_code for found in wire.metadata([name, topic], auto_create=True).topics}
    assert results == {name: ErrorCode.INVALID_TOPIC_EXCEPTION, topic: 0}


def test_name_asked_twice_is_answered_once(wire: Wire, topic: str) -> None:
    assert _names(wire.metadata([topic, topic])) == [topic]


def test_by_id(wire: Wire, fresh_name: Callable[..., str]) -> None:
    name = fresh_name()
    known = wire.create_topic(name)
    asked = [MetadataRequestTopic(topic_id=known, name=None), MetadataRequestTopic(topic_id=b"\x07" * 16, name=None)]
    response = wire.call(ApiKey.METADATA, 12, MetadataRequest(topics=asked))
    by_id = {bytes(found.topic_id): found for found in response.topics}
    assert (by_id[known].name, by_id[known].error_code) == (name, 0)
    assert by_id[b"\x07" * 16].name is None
    assert by_id[b"\x07" * 16].error_code == ErrorCode.UNKNOWN_TOPIC_ID


@pytest.mark.parametrize("version", [10, 11])
def test_by_id_is_refused_before_version_twelve(wire: Wire, version: int) -> None:
    asked = [MetadataRequestTopic(topic_id=b"\x07" * 16, name=None)]
    response = wire.call(ApiKey.METADATA, version, MetadataRequest(topics=asked, allow_auto_topic_creation=False))
    assert [found.error_code for found in response.topics] == [ErrorCode.INVALID_REQUEST]


def test_authorised_operations_only_when_asked(wire: Wire, topic: str) -> None:
    (found,) = wire.metadata([topic]).topics
    assert found.topic_authorized_operations == NOT_ASKED
    request = MetadataRequest(
        topics=[MetadataRequestTopic(name=topic)],
        include_topic_authorized_operations=True,
        include_cluster_authorized_operations=True,
    )
    response = wire.call(ApiKey.METADATA, 10, request)
    assert response.topics[0].topic_authorized_operations == 3576
    assert response.cluster_authorized_operations == 8096


def test_a_recreated_topic_has_another_id(wire: Wire, fresh_name: Callable[..., str]) -> None:
    name = fresh_name()
    first = wire.create_topic(name)
    gone = delete_topics.DeleteTopicsRequest(topics=[delete_topics.DeleteTopicState(name=name)], timeout_ms=20_000)
    assert wire.call(ApiKey.DELETE_TOPICS, 6, gone).responses[0].error_code == 0
    eventually(lambda: wire.metadata([name]).topics[0].error_code == 3, what="the topic being gone")
    assert wire.create_topic(name) != first
    assert wire.fetch(first).error_code == ErrorCode.UNKNOWN_TOPIC_ID


def _describe(wire: Wire, names: list[str], *, limit: int = 2000, cursor: tuple[str, int] | None = None) -> Any:
    request = describe_topic_partitions.DescribeTopicPartitionsRequest(
        topics=[describe_topic_partitions.TopicRequest(name=name) for name in names],
        response_partition_limit=limit,
        cursor=cursor
        and describe_topic_partitions.DescribeTopicPartitionsRequestCursor(
            topic_name=cursor[0], partition_index=cursor[1]
        ),
    )
    return wire.call(ApiKey.DESCRIBE_TOPIC_PARTITIONS, 0, request)


def test_topic_partitions_come_sorted_and_in_pages(wire: Wire, fresh_name: Callable[..., str]) -> None:
    names = sorted(fresh_name() for _ in range(2))
    for name in names:
        wire.create_topic(name, partitions=3)
    seen: list[tuple[str, int]] = []
    cursor: tuple[str, int] | None = None
    for _ in range(10):
        page = _describe(wire, names[::-1], limit=2, cursor=cursor)
        assert sum(len(topic.partitions) for topic in page.topics) <= 2
        seen += [(topic.name, partition.partition_index) for topic in page.topics for partition in topic.partitions]
        if page.next_cursor is None:
            break
        cursor = (page.next_cursor.topic_name, page.next_cursor.partition_index)
    assert seen == [(name, number) for name in names for number in range(3)]


def test_topic_partitions_of_an_unknown_topic(wire: Wire, fresh_name: Callable[..., str]) -> None:
    (found,) = _describe(wire, [fresh_name()]).topics
    assert found.error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


@pytest.mark.parametrize("version", range(3))
def test_cluster_agrees_with_metadata(wire: Wire, version: int) -> None:
    cluster = wire.call(ApiKey.DESCRIBE_CLUSTER, version, DescribeClusterRequest(endpoint_type=1))
    metadata = wire.metadata([])
    assert cluster.error_code == 0
    assert cluster.cluster_id == metadata.cluster_id
    assert {broker.broker_id for broker in cluster.brokers} == {broker.node_id for broker in metadata.brokers}
    assert cluster.controller_id in {broker.broker_id for broker in cluster.brokers}


def test_a_broker_is_no_controller_endpoint(wire: Wire) -> None:
    response = wire.call(ApiKey.DESCRIBE_CLUSTER, 1, DescribeClusterRequest(endpoint_type=2))
    assert response.error_code == ErrorCode.MISMATCHED_ENDPOINT_TYPE
