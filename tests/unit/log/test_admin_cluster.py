"""Metadata, DescribeCluster, DescribeTopicPartitions: what Kafka's clients are shown, code by code."""

from __future__ import annotations

import pytest
from admin_world import World, ask

from penstock.log.brokers import Broker, replica_nodes
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages.describe_cluster import DescribeClusterRequest
from penstock.wire.messages.describe_topic_partitions import (
    DescribeTopicPartitionsRequest,
    DescribeTopicPartitionsRequestCursor,
    TopicRequest,
)
from penstock.wire.messages.metadata import MetadataRequest, MetadataRequestTopic

STRANGER = b"\x07" * 16


def named(*names: str | None, **options: bool) -> MetadataRequest:
    return MetadataRequest(topics=[MetadataRequestTopic(name=name) for name in names], **options)


def shown(response) -> list[tuple[str | None, int, int]]:
    return sorted((topic.name, topic.error_code, len(topic.partitions)) for topic in response.topics)


@pytest.mark.parametrize("version", range(14))
async def test_metadata_shows_a_topic_in_every_version(version: int) -> None:
    world = World()
    topic = await world.topic("orders", 3)
    response = await ask(world.cluster_api.metadata, named("orders"), version)
    assert shown(response) == [("orders", 0, 3)]
    partition = response.topics[0].partitions[2]
    assert (partition.partition_index, partition.leader_id) == (2, 1)
    assert partition.replica_nodes == partition.isr_nodes == [1]
    broker = response.brokers[0]
    assert (broker.node_id, broker.host, broker.port) == (1, "localhost", 9092)
    if version >= 2:
        assert (response.controller_id, response.cluster_id) == (1, "4L6g3nShT-eMCtK--X86sw")
    if version >= 7:
        assert partition.leader_epoch == 0
    if version >= 10:
        assert response.topics[0].topic_id == topic.topic_id


async def test_metadata_of_all_topics_is_an_empty_list_in_v0_and_null_from_v1() -> None:
    world = World()
    await world.topic("a")
    await world.topic("b")
    everything = [("a", 0, 1), ("b", 0, 1)]
    assert shown(await ask(world.cluster_api.metadata, MetadataRequest(topics=[]), 0)) == everything
    for version in range(1, 14):
        assert shown(await ask(world.cluster_api.metadata, MetadataRequest(topics=[]), version)) == []
        assert shown(await ask(world.cluster_api.metadata, MetadataRequest(topics=None), version)) == everything


async def test_metadata_of_an_unknown_topic_is_3_without_auto_creation() -> None:
    world = World()
    response = await ask(world.cluster_api.metadata, named("nowhere", allow_auto_topic_creation=False), 12)
    assert shown(response) == [("nowhere", ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, 0)]
    assert response.topics[0].topic_id == bytes(16)
    closed = World(auto_create_topics_enable="false")
    response = await ask(closed.cluster_api.metadata, named("nowhere"), 1)
    assert shown(response) == [("nowhere", ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, 0)]


async def test_metadata_creates_a_topic_with_the_defaults_of_the_cluster() -> None:
    world = World(num_partitions="3")
    assert shown(await ask(world.cluster_api.metadata, named("new", "new"), 12)) == [("new", 0, 3)]
    assert world.heard.created == ["new"]


@pytest.mark.parametrize("name", ["", ".", "a/b", "x" * 250])
async def test_metadata_refuses_a_bad_name_with_17(name: str) -> None:
    world = World()
    response = await ask(world.cluster_api.metadata, named(name), 12)
    assert shown(response) == [(name, ErrorCode.INVALID_TOPIC_EXCEPTION, 0)]


async def test_metadata_does_not_invent_the_topics_of_apache_kafka_itself() -> None:
    world = World()
    response = await ask(world.cluster_api.metadata, named("__consumer_offsets"), 12)
    assert shown(response) == [("__consumer_offsets", ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, 0)]


async def test_metadata_names_a_topic_once_however_often_it_is_asked_for() -> None:
    world = World()
    await world.topic("a")
    assert shown(await ask(world.cluster_api.metadata, named("a", "a", "a"), 9)) == [("a", 0, 1)]


async def test_metadata_by_id() -> None:
    world = World()
    topic = await world.topic("orders")
    request = MetadataRequest(
        topics=[
            MetadataRequestTopic(topic_id=topic.topic_id, name=None),
            MetadataRequestTopic(topic_id=STRANGER, name=None),
        ]
    )
    response = await ask(world.cluster_api.metadata, request, 12)
    assert [(t.name, t.topic_id, t.error_code) for t in response.topics] == [
        ("orders", topic.topic_id, 0),
        (None, STRANGER, ErrorCode.UNKNOWN_TOPIC_ID),
    ]
    for version in (10, 11):
        response = await ask(world.cluster_api.metadata, request, version)
        assert {t.error_code for t in response.topics} == {ErrorCode.INVALID_REQUEST}


async def test_names_beside_ids_are_not_looked_at() -> None:
    world = World()
    topic = await world.topic("orders")
    await world.topic("bills")
    by_id = MetadataRequestTopic(topic_id=topic.topic_id, name=None)
    request = MetadataRequest(topics=[MetadataRequestTopic(name="bills"), by_id, MetadataRequestTopic(name="new")])
    assert shown(await ask(world.cluster_api.metadata, request, 12)) == [("orders", 0, 1)]


async def test_metadata_without_name_and_id_is_42() -> None:
    world = World()
    for version in (10, 11, 12, 13):
        response = await ask(world.cluster_api.metadata, named(None), version)
        assert [t.error_code for t in response.topics] == [ErrorCode.INVALID_REQUEST]


async def test_authorized_operations_are_masks_when_asked_for_and_a_constant_otherwise() -> None:
    world = World()
    await world.topic("a")
    response = await ask(world.cluster_api.metadata, named("a"), 8)
    assert response.cluster_authorized_operations == response.topics[0].topic_authorized_operations == -2147483648
    asked = named("a", include_cluster_authorized_operations=True, include_topic_authorized_operations=True)
    response = await ask(world.cluster_api.metadata, asked, 8)
    assert response.cluster_authorized_operations == 8096
    assert response.topics[0].topic_authorized_operations == 3576


async def test_known_topics_are_shown_while_nothing_can_be_created() -> None:
    world = World()
    await world.topic("a")
    world.database.down = True
    response = await ask(world.cluster_api.metadata, named("a", "b"), 12)
    assert shown(response) == [("a", 0, 1), ("b", ErrorCode.LEADER_NOT_AVAILABLE, 0)]


async def test_another_virtual_cluster_sees_nothing() -> None:
    world = World()
    topic = await world.topic("orders")
    request = MetadataRequest(topics=[MetadataRequestTopic(topic_id=topic.topic_id, name=None)])
    response = await ask(world.cluster_api.metadata, request, 12, cluster_id=2)
    assert [t.error_code for t in response.topics] == [ErrorCode.UNKNOWN_TOPIC_ID]


@pytest.mark.parametrize(
    ("factor", "nodes", "expected"),
    [(1, [1], [1]), (3, [1], [1]), (3, [1, 2], [2, 1]), (2, [1, 2, 3, 4], [2, 1]), (0, [1, 2], [2])],
)
def test_replicas_are_the_leader_and_others_as_far_as_they_live(factor: int, nodes: list[int], expected: list) -> None:
    alive = [Broker(node_id=node, host="h", port=1) for node in nodes]
    assert replica_nodes(2 if 2 in nodes else 1, factor, alive) == expected


@pytest.mark.parametrize("version", range(3))
async def test_describe_cluster(version: int) -> None:
    world = World()
    request = DescribeClusterRequest(include_cluster_authorized_operations=True)
    response = await ask(world.cluster_api.describe_cluster, request, version)
    assert (response.error_code, response.cluster_id, response.controller_id) == (0, "4L6g3nShT-eMCtK--X86sw", 1)
    assert [(b.broker_id, b.host, b.port, b.is_fenced) for b in response.brokers] == [(1, "localhost", 9092, False)]
    assert response.cluster_authorized_operations == 8096
    response = await ask(world.cluster_api.describe_cluster, DescribeClusterRequest(), version)
    assert response.cluster_authorized_operations == -2147483648


@pytest.mark.parametrize(
    ("endpoint_type", "code"),
    [(2, ErrorCode.MISMATCHED_ENDPOINT_TYPE), (3, ErrorCode.UNSUPPORTED_ENDPOINT_TYPE), (0, 115)],
)
async def test_describe_cluster_of_other_endpoints_is_refused(endpoint_type: int, code: int) -> None:
    world = World()
    response = await ask(world.cluster_api.describe_cluster, DescribeClusterRequest(endpoint_type=endpoint_type), 2)
    assert (response.error_code, response.brokers) == (code, [])


def pages(response) -> list[tuple[str, int, list[int]]]:
    return [(t.name, t.error_code, [p.partition_index for p in t.partitions]) for t in response.topics]


async def test_describe_topic_partitions_walks_through_everything_in_pages() -> None:
    world = World()
    await world.topic("b", 3)
    await world.topic("a", 2)
    await world.topic("c", 1)
    cursor, seen, count = None, [], 0
    while True:
        request = DescribeTopicPartitionsRequest(topics=[], response_partition_limit=2, cursor=cursor)
        response = await ask(world.cluster_api.describe_topic_partitions, request, 0)
        seen += [(t.name, p.partition_index) for t in response.topics for p in t.partitions]
        count += 1
        if response.next_cursor is None:
            break
        cursor = DescribeTopicPartitionsRequestCursor(
            topic_name=response.next_cursor.topic_name, partition_index=response.next_cursor.partition_index
        )
    assert seen == [("a", 0), ("a", 1), ("b", 0), ("b", 1), ("b", 2), ("c", 0)]
    assert count == 3


async def test_describe_topic_partitions_sorts_and_reports_what_is_not_there() -> None:
    world = World()
    topic = await world.topic("orders", 2)
    request = DescribeTopicPartitionsRequest(topics=[TopicRequest(name=n) for n in ("x", "orders", "a/b", "x")])
    response = await ask(world.cluster_api.describe_topic_partitions, request, 0)
    assert pages(response) == [("a/b", 17, []), ("orders", 0, [0, 1]), ("x", 3, [])]
    shown_topic = response.topics[1]
    assert (shown_topic.topic_id, shown_topic.topic_authorized_operations) == (topic.topic_id, 3576)
    partition = shown_topic.partitions[0]
    assert (partition.eligible_leader_replicas, partition.last_known_elr, partition.leader_epoch) == ([], [], 0)
    assert response.next_cursor is None


async def test_describe_topic_partitions_keeps_to_the_servers_limit_and_refuses_a_bad_cursor() -> None:
    world = World(max_request_partition_size_limit="2")
    await world.topic("a", 3)
    response = await ask(world.cluster_api.describe_topic_partitions, DescribeTopicPartitionsRequest(), 0)
    assert (response.next_cursor.topic_name, response.next_cursor.partition_index) == ("a", 2)
    bad = DescribeTopicPartitionsRequest(
        cursor=DescribeTopicPartitionsRequestCursor(topic_name="a", partition_index=-1)
    )
    assert pages(await ask(world.cluster_api.describe_topic_partitions, bad, 0)) == []
    bad.topics = [TopicRequest(name="b"), TopicRequest(name="a")]
    assert pages(await ask(world.cluster_api.describe_topic_partitions, bad, 0)) == [("a", 42, []), ("b", 42, [])]
    bad.cursor = DescribeTopicPartitionsRequestCursor(topic_name="0", partition_index=0)
    assert pages(await ask(world.cluster_api.describe_topic_partitions, bad, 0)) == [("a", 42, []), ("b", 42, [])]
    gone = DescribeTopicPartitionsRequest(
        cursor=DescribeTopicPartitionsRequestCursor(topic_name="Z", partition_index=5)
    )
    assert pages(await ask(world.cluster_api.describe_topic_partitions, gone, 0)) == [("a", 0, [0, 1])]
