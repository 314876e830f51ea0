"""Log directories, elections, reassignments, producers, offsets: code by code."""

from __future__ import annotations

import pytest
from admin_world import World, ask

from penstock.base.errors import CorruptData, Unavailable
from penstock.log.model import SequenceBatch
from penstock.log.producers import remember
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages import describe_producers
from penstock.wire.messages.alter_partition_reassignments import (
    AlterPartitionReassignmentsRequest,
    ReassignablePartition,
    ReassignableTopic,
)
from penstock.wire.messages.alter_replica_log_dirs import (
    AlterReplicaLogDir,
    AlterReplicaLogDirsRequest,
    AlterReplicaLogDirTopic,
)
from penstock.wire.messages.delete_records import DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic
from penstock.wire.messages.describe_log_dirs import DescribableLogDirTopic, DescribeLogDirsRequest
from penstock.wire.messages.describe_quorum import (
    DescribeQuorumRequest,
    DescribeQuorumRequestPartitionData,
    DescribeQuorumRequestTopicData,
)
from penstock.wire.messages.elect_leaders import ElectLeadersRequest, TopicPartitions
from penstock.wire.messages.list_offsets import ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic
from penstock.wire.messages.list_partition_reassignments import (
    ListPartitionReassignmentsRequest,
    ListPartitionReassignmentsTopics,
)
from penstock.wire.messages.offset_for_leader_epoch import (
    OffsetForLeaderEpochRequest,
    OffsetForLeaderPartition,
    OffsetForLeaderTopic,
)

# ---- log directories, elections, reassignments ----------------------------------------------------------------------


@pytest.mark.parametrize("version", range(1, 6))
async def test_one_log_directory_holds_everything(version: int) -> None:
    world = World()
    topic = await world.topic("orders", 2)
    await world.topic("other")
    topic.partitions[1].size_bytes = 77
    response = await ask(world.replica_api.describe_log_dirs, DescribeLogDirsRequest(topics=None), version)
    (result,) = response.results
    assert result.error_code == 0
    assert [(t.name, [(p.partition_index, p.partition_size) for p in t.partitions]) for t in result.topics] == [
        ("orders", [(0, 0), (1, 77)]),
        ("other", [(0, 0)]),
    ]
    if version >= 4:
        assert (result.total_bytes, result.usable_bytes) == (-1, -1)
    asked = DescribeLogDirsRequest(
        topics=[DescribableLogDirTopic(topic="orders", partitions=[1, 9]), DescribableLogDirTopic(topic="nowhere")]
    )
    (result,) = (await ask(world.replica_api.describe_log_dirs, asked, version)).results
    assert [(t.name, [p.partition_index for p in t.partitions]) for t in result.topics] == [("orders", [1])]


@pytest.mark.parametrize("version", [1, 2])
async def test_replicas_can_only_be_moved_to_where_they_are(version: int) -> None:
    world = World()
    await world.topic("orders", 2)
    (directory,) = (await ask(world.replica_api.describe_log_dirs, DescribeLogDirsRequest(topics=None), 1)).results
    request = AlterReplicaLogDirsRequest(
        dirs=[
            AlterReplicaLogDir(
                path=directory.log_dir, topics=[AlterReplicaLogDirTopic(name="orders", partitions=[0, 2])]
            ),
            AlterReplicaLogDir(path="/disk2", topics=[AlterReplicaLogDirTopic(name="orders", partitions=[1])]),
        ]
    )
    (topic,) = (await ask(world.replica_api.alter_replica_log_dirs, request, version)).results
    assert topic.topic_name == "orders"
    assert [(p.partition_index, p.error_code) for p in topic.partitions] == [
        (0, ErrorCode.NONE),
        (2, ErrorCode.REPLICA_NOT_AVAILABLE),
        (1, ErrorCode.LOG_DIR_NOT_FOUND),
    ]


@pytest.mark.parametrize("version", range(3))
async def test_the_quorum_is_the_agent_that_administers(version: int) -> None:
    world = World()
    asked = [
        DescribeQuorumRequestTopicData(
            topic_name=name, partitions=[DescribeQuorumRequestPartitionData(partition_index=index)]
        )
        for name, index in (("__cluster_metadata", 0), ("__cluster_metadata", 1), ("orders", 0))
    ]
    response = await ask(world.replica_api.describe_quorum, DescribeQuorumRequest(topics=asked), version)
    assert response.error_code == 0
    ((metadata,), (second,), (other,)) = [topic.partitions for topic in response.topics]
    assert (metadata.error_code, metadata.leader_id, metadata.leader_epoch) == (0, 1, 0)
    assert [voter.replica_id for voter in metadata.current_voters] == [1]
    assert metadata.observers == []
    assert second.error_code == other.error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    if version >= 2:
        (node,) = response.nodes
        assert (node.node_id, [(one.host, one.port) for one in node.listeners]) == (1, [("localhost", 9092)])


@pytest.mark.parametrize("version", range(3))
async def test_no_election_is_ever_needed(version: int) -> None:
    world = World()
    await world.topic("orders", 1)
    asked = [TopicPartitions(topic="orders", partitions=[0, 1]), TopicPartitions(topic="nowhere", partitions=[0])]
    response = await ask(world.replica_api.elect_leaders, ElectLeadersRequest(topic_partitions=asked), version)
    assert [
        (r.topic, [(p.partition_id, p.error_code) for p in r.partition_result])
        for r in response.replica_election_results
    ] == [("orders", [(0, 84), (1, 3)]), ("nowhere", [(0, 3)])]
    everything = await ask(world.replica_api.elect_leaders, ElectLeadersRequest(topic_partitions=None), version)
    assert {(one.topic, len(one.partition_result)) for one in everything.replica_election_results} == {
        (topic.name, 0) for topic in world.registry.all(1)
    }
    if version >= 1:
        odd = ElectLeadersRequest(election_type=2, topic_partitions=asked)
        assert (await ask(world.replica_api.elect_leaders, odd, version)).error_code == 42


@pytest.mark.parametrize(
    ("index", "replicas", "may_change", "code"),
    [
        (0, [1], True, 0),
        (0, [9], True, 39),
        (0, [1, 1], True, 39),
        (0, [], True, 39),
        (0, None, True, 85),
        (5, [1], True, 3),
        (0, [1], False, 0),
    ],
)
async def test_reassignments_are_over_at_once(index: int, replicas: list | None, may_change: bool, code: int) -> None:
    world = World()
    await world.topic("orders", 1, replication_factor=3)
    partitions = [ReassignablePartition(partition_index=index, replicas=replicas)]
    request = AlterPartitionReassignmentsRequest(
        topics=[ReassignableTopic(name="orders", partitions=partitions)], allow_replication_factor_change=may_change
    )
    response = await ask(world.replica_api.alter_partition_reassignments, request, 1)
    assert response.error_code == 0
    assert [p.error_code for p in response.responses[0].partitions] == [code]
    listed = ListPartitionReassignmentsTopics(name="orders", partition_indexes=[0])
    for topics in (None, [listed]):
        request = ListPartitionReassignmentsRequest(topics=topics)
        assert (await ask(world.replica_api.list_partition_reassignments, request, 0)).topics == []


# ---- producers ------------------------------------------------------------------------------------------------------


async def test_no_producer_id_is_given_twice() -> None:
    world = World()
    ids = [await world.producer_ids.take() for _ in range(3)]
    ids.append(await (await world.restarted()).producer_ids.take())
    assert len(set(ids)) == 4
    assert min(ids) >= 0


async def test_a_block_of_producer_ids_costs_one_transaction() -> None:
    world = World()
    ids = [await world.producer_ids.take() for _ in range(2500)]
    assert len(set(ids)) == 2500
    assert world.database.rows("SELECT value FROM counter WHERE name = 'producer'") == [(3000,)]


async def test_a_lost_answer_does_not_give_an_id_twice() -> None:
    world = World()
    world.database.lose_answers = 1
    first = await world.producer_ids.take()
    assert first != await (await world.restarted()).producer_ids.take()


async def test_producers_of_a_partition_are_described() -> None:
    world = World()
    topic = await world.topic("orders", 2)
    remember(topic.partitions[0].producers, 7, 2, SequenceBatch(0, 4, 0, 4, 1234), 9999)
    asked = [
        describe_producers.TopicRequest(name="orders", partition_indexes=[0, 1, 2]),
        describe_producers.TopicRequest(name="nowhere", partition_indexes=[0]),
    ]
    request = describe_producers.DescribeProducersRequest(topics=asked)
    response = await ask(world.producer_api.describe_producers, request, 0)
    assert [[p.error_code for p in t.partitions] for t in response.topics] == [[0, 0, 3], [3]]
    (producer,) = response.topics[0].partitions[0].active_producers
    assert (producer.producer_id, producer.producer_epoch, producer.last_sequence) == (7, 2, 4)
    assert (producer.last_timestamp, producer.coordinator_epoch, producer.current_txn_start_offset) == (1234, -1, -1)


async def test_an_answer_has_room_for_so_many_producers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request may name the same partition a hundred thousand times. Clients ask again for what is missing."""
    monkeypatch.setattr("penstock.base.cooperative.MAX_RESPONSE_PARTS", 8)
    world = World()
    topic = await world.topic("orders")
    for producer_id in range(3):
        remember(topic.partitions[0].producers, producer_id, 2, SequenceBatch(0, 4, 0, 4, 1234), 9999)
    asked = [describe_producers.TopicRequest(name="orders", partition_indexes=[0, 0, 0, 0])]
    request = describe_producers.DescribeProducersRequest(topics=asked)
    (answered,) = (await ask(world.producer_api.describe_producers, request, 0)).topics
    assert [partition.error_code for partition in answered.partitions] == [0, 0, 6, 6]
    assert [len(partition.active_producers) for partition in answered.partitions] == [3, 3, 0, 0]


# ---- offsets --------------------------------------------------------------------------------------------------------


async def with_records(world: World):
    """Ten records, trimmed to start at 2, with times that go up, but for one."""
    topic = await world.topic("orders", 2)
    partition = topic.partitions[0]
    partition.next_offset, partition.log_start = 10, 2
    times = [100, 110, 120, 130, 190, 150, 160, 170, 180, 190]
    world.times.records[partition] = list(enumerate(times))[2:]
    return topic


async def offsets(world: World, version: int, *timestamps: int, epoch: int = -1, isolation: int = 0, index: int = 0):
    answers = []
    for timestamp in timestamps:
        wanted = ListOffsetsPartition(partition_index=index, current_leader_epoch=epoch, timestamp=timestamp)
        request = ListOffsetsRequest(
            replica_id=-1, isolation_level=isolation, topics=[ListOffsetsTopic(name="orders", partitions=[wanted])]
        )
        (partition,) = (await ask(world.offset_api.list_offsets, request, version)).topics[0].partitions
        answers.append((partition.error_code, partition.offset, partition.timestamp, partition.leader_epoch))
    return answers


@pytest.mark.parametrize("version", range(1, 12))
async def test_list_offsets_in_every_version(version: int) -> None:
    world = World()
    await with_records(world)
    epoch = 0 if version >= 4 else -1
    assert await offsets(world, version, -1, -2, 130, 131, 0, 191) == [
        (0, 10, -1, epoch),
        (0, 2, -1, epoch),
        (0, 3, 130, epoch),
        (0, 4, 190, epoch),  # The lowest offset that is not older, although later records are.
        (0, 2, 120, epoch),
        (0, -1, -1, -1),
    ]
    since = {-3: 7, -4: 8, -5: 9, -6: 11}
    expected = {-3: (0, 4, 190, epoch), -4: (0, 2, -1, epoch), -5: (0, -1, -1, -1), -6: (0, -1, -1, -1)}
    for timestamp, answer in expected.items():
        refused = (ErrorCode.UNSUPPORTED_VERSION, -1, -1, -1)
        assert await offsets(world, version, timestamp) == [answer if version >= since[timestamp] else refused]
    assert await offsets(world, version, -7, -(2**63)) == [(35, -1, -1, -1)] * 2


async def test_list_offsets_of_an_empty_partition() -> None:
    world = World()
    await world.topic("orders")
    assert await offsets(world, 11, -1, -2, -3, 0) == [(0, 0, -1, 0), (0, 0, -1, 0), (0, -1, -1, -1), (0, -1, -1, -1)]


async def test_list_offsets_checks_the_leader_epoch_and_the_partition() -> None:
    world = World()
    await with_records(world)
    assert (await offsets(world, 5, -1, epoch=0))[0][0] == 0
    assert (await offsets(world, 5, -1, epoch=1))[0][0] == ErrorCode.UNKNOWN_LEADER_EPOCH
    assert (await offsets(world, 5, -1, epoch=-2))[0][0] == ErrorCode.FENCED_LEADER_EPOCH
    for index in (2, -1):
        assert (await offsets(world, 5, -1, index=index))[0][0] == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


async def test_list_offsets_refuses_a_partition_named_twice() -> None:
    world = World()
    await with_records(world)
    wanted = [ListOffsetsPartition(partition_index=index, timestamp=-1) for index in (0, 0, 1)]
    request = ListOffsetsRequest(replica_id=-1, topics=[ListOffsetsTopic(name="orders", partitions=wanted)])
    response = await ask(world.offset_api.list_offsets, request, 7)
    assert [(p.partition_index, p.error_code) for p in response.topics[0].partitions] == [(0, 42), (1, 0)]


@pytest.mark.parametrize(("failure", "code"), [(Unavailable("away"), 56), (CorruptData("bad"), -1)])
async def test_list_offsets_tells_that_a_look_up_failed(failure: Exception, code: int) -> None:
    world = World()
    await with_records(world)
    world.times.failure = failure
    assert await offsets(world, 7, 130) == [(code, -1, -1, -1)]
    assert await offsets(world, 7, -1) == [(0, 10, -1, 0)]


async def test_list_offsets_shows_no_record_beyond_the_committed_end() -> None:
    world = World()
    topic = await with_records(world)
    topic.partitions[0].next_offset = 3
    for isolation in (0, 1):
        assert await offsets(world, 7, -1, 131, isolation=isolation) == [(0, 3, -1, 0), (0, -1, -1, -1)]


@pytest.mark.parametrize("version", range(2, 5))
@pytest.mark.parametrize(
    ("epoch", "current", "index", "expected"),
    [
        (0, -1, 0, (0, 0, 10)),
        (0, 0, 0, (0, 0, 10)),
        (1, 0, 0, (0, -1, -1)),
        (-1, 0, 0, (0, -1, -1)),
        (0, 1, 0, (75, -1, -1)),
        (0, -1, 7, (3, -1, -1)),
    ],
)
async def test_offset_for_leader_epoch(version: int, epoch: int, current: int, index: int, expected: tuple) -> None:
    world = World()
    await with_records(world)
    wanted = OffsetForLeaderPartition(partition=index, current_leader_epoch=current, leader_epoch=epoch)
    request = OffsetForLeaderEpochRequest(topics=[OffsetForLeaderTopic(topic="orders", partitions=[wanted])])
    (partition,) = (await ask(world.offset_api.offset_for_leader_epoch, request, version)).topics[0].partitions
    assert (partition.error_code, partition.leader_epoch, partition.end_offset) == expected


async def cut(world: World, *marks: tuple[int, int], name: str = "orders", version: int = 2):
    partitions = [DeleteRecordsPartition(partition_index=index, offset=offset) for index, offset in marks]
    request = DeleteRecordsRequest(topics=[DeleteRecordsTopic(name=name, partitions=partitions)])
    response = await ask(world.offset_api.delete_records, request, version)
    return [(p.partition_index, p.error_code, p.low_watermark) for p in response.topics[0].partitions]


@pytest.mark.parametrize("version", range(3))
async def test_delete_records(version: int) -> None:
    world = World()
    topic = await with_records(world)
    assert await cut(world, (0, 5), (1, 0), version=version) == [(0, 0, 5), (1, 0, 0)]
    assert await cut(world, (0, 3)) == [(0, 0, 5)]  # Below the start nothing happens.
    assert await cut(world, (0, 11), (1, -2), (9, 1)) == [(0, 1, -1), (1, 1, -1), (9, 3, -1)]
    assert await cut(world, (0, 11), (0, 2)) == [(0, 0, 5)]  # Named twice: the last counts.
    assert await cut(world, (0, 1), name="nowhere") == [(0, 3, -1)]
    assert await cut(world, (0, -1)) == [(0, 0, 10)]  # The high watermark.
    assert topic.partitions[0].log_start == 10
    assert world.heard.trimmed == [("orders", 0, 5), ("orders", 0, 10)]
    assert (await world.restarted()).registry.by_name(1, "orders").partitions[0].log_start == 10


@pytest.mark.parametrize(
    ("policy", "expected"), [("compact", (0, ErrorCode.POLICY_VIOLATION, -1)), ("compact,delete", (0, 0, 2))]
)
async def test_delete_records_where_compaction_alone_removes(policy: str, expected: tuple[int, int, int]) -> None:
    world = World()
    topic = await world.topic("state", overrides={"cleanup.policy": policy})
    topic.partitions[0].next_offset = 5
    assert await cut(world, (0, 2), name="state") == [expected]


async def test_delete_records_tells_clients_to_try_again_while_the_database_is_away() -> None:
    world = World()
    await with_records(world)
    world.database.down = True
    assert await cut(world, (0, 5), (1, 99)) == [(0, 6, -1), (1, 1, -1)]
