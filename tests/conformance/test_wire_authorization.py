"""Every API asked by somebody who may do nothing, and by somebody who may do one thing.

Without credentials everybody is ANONYMOUS, but Kafka's ACLs also know hosts, and all of 127.0.0.0/8 is this machine:
an administrator sits at 127.0.0.1, strangers at addresses of their own. PENSTOCK_TEST_AUTHORIZER names a broker that
runs already, with an authorizer and `allow.everyone.if.no.acl.found`, such as Apache Kafka's.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import pytest
from fixtures.server import Server
from fixtures.streams_members import Member, topology
from fixtures.waiting import eventually
from fixtures.wire import Wire, batch, fetch_topic
from test_wire_share import Consumer, acquired

from penstock.base.acls import Operation, PatternType, Permission, ResourceType
from penstock.wire.api_keys import ApiKey
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages import (
    add_partitions_to_txn,
    alter_client_quotas,
    alter_configs,
    alter_partition_reassignments,
    alter_replica_log_dirs,
    alter_share_group_offsets,
    alter_user_scram_credentials,
    create_acls,
    create_partitions,
    create_topics,
    delete_acls,
    delete_records,
    delete_share_group_offsets,
    delete_topics,
    describe_configs,
    describe_producers,
    describe_share_group_offsets,
    describe_topic_partitions,
    describe_user_scram_credentials,
    elect_leaders,
    fetch,
    incremental_alter_configs,
    list_offsets,
    list_partition_reassignments,
    metadata,
    offset_commit,
    offset_delete,
    offset_fetch,
    offset_for_leader_epoch,
    produce,
    streams_group_heartbeat,
    txn_offset_commit,
    update_features,
    write_txn_markers,
)
from penstock.wire.messages.add_offsets_to_txn import AddOffsetsToTxnRequest
from penstock.wire.messages.alter_user_scram_credentials import AlterUserScramCredentialsRequest
from penstock.wire.messages.api_versions import ApiVersionsRequest
from penstock.wire.messages.consumer_group_describe import ConsumerGroupDescribeRequest
from penstock.wire.messages.consumer_group_heartbeat import ConsumerGroupHeartbeatRequest
from penstock.wire.messages.delete_groups import DeleteGroupsRequest
from penstock.wire.messages.describe_acls import DescribeAclsRequest
from penstock.wire.messages.describe_client_quotas import DescribeClientQuotasRequest
from penstock.wire.messages.describe_cluster import DescribeClusterRequest
from penstock.wire.messages.describe_groups import DescribeGroupsRequest
from penstock.wire.messages.describe_log_dirs import DescribeLogDirsRequest
from penstock.wire.messages.describe_quorum import DescribeQuorumRequest
from penstock.wire.messages.describe_transactions import DescribeTransactionsRequest
from penstock.wire.messages.describe_user_scram_credentials import DescribeUserScramCredentialsRequest
from penstock.wire.messages.end_txn import EndTxnRequest
from penstock.wire.messages.find_coordinator import FindCoordinatorRequest
from penstock.wire.messages.heartbeat import HeartbeatRequest
from penstock.wire.messages.init_producer_id import InitProducerIdRequest
from penstock.wire.messages.join_group import JoinGroupRequest, JoinGroupRequestProtocol
from penstock.wire.messages.leave_group import LeaveGroupRequest, MemberIdentity
from penstock.wire.messages.list_config_resources import ListConfigResourcesRequest
from penstock.wire.messages.list_groups import ListGroupsRequest
from penstock.wire.messages.list_transactions import ListTransactionsRequest
from penstock.wire.messages.share_acknowledge import ShareAcknowledgeRequest
from penstock.wire.messages.share_fetch import ShareFetchRequest
from penstock.wire.messages.share_group_describe import ShareGroupDescribeRequest
from penstock.wire.messages.share_group_heartbeat import ShareGroupHeartbeatRequest
from penstock.wire.messages.streams_group_describe import StreamsGroupDescribeRequest
from penstock.wire.messages.sync_group import SyncGroupRequest
from penstock.wire.primitives import Message

E, K = ErrorCode, ApiKey
TOPIC, GROUP, CLUSTER = ResourceType.TOPIC, ResourceType.GROUP, ResourceType.CLUSTER
TXN_ID = ResourceType.TRANSACTIONAL_ID
NO_TOPIC, NO_GROUP, NO_CLUSTER, NO_TXN_ID = (
    E.TOPIC_AUTHORIZATION_FAILED, E.GROUP_AUTHORIZATION_FAILED, E.CLUSTER_AUTHORIZATION_FAILED,
    E.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
)  # fmt: skip
ADMIN_HOST, STRANGER_HOST = "127.0.0.1", "127.0.0.2"
ANONYMOUS = "User:ANONYMOUS"
MEMBER = "AAAAAAAAAAAAAAAAAAAAAQ"
STANDARD = "org.apache.kafka.metadata.authorizer.StandardAuthorizer"

_hosts = count(1)
_net = f"127.{os.urandom(1)[0]}.{os.urandom(1)[0]}"
"""Not the addresses of another run against the same broker."""


@pytest.fixture(scope="module")
def authorizing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A broker with an authorizer, where only the administrator's address may do anything."""
    running = os.environ.get("PENSTOCK_TEST_AUTHORIZER")
    server = None
    if running is None:
        settings = {"authorizer.class.name": STANDARD, "allow.everyone.if.no.acl.found": "true"}
        server = Server(tmp_path_factory.mktemp("authorizing"), settings=settings)
        server.start()
        running = server.bootstrap
    admin = Wire(running)
    try:
        for kind in (CLUSTER, TOPIC, GROUP, TXN_ID, ResourceType.DELEGATION_TOKEN, ResourceType.USER):
            name = "kafka-cluster" if kind is CLUSTER else "*"
            allow(admin, ADMIN_HOST, Operation.ALL, kind, name)
        yield running
    finally:
        admin.close()
        if server is not None:
            assert server.stop() == 0


@pytest.fixture
def open_at(authorizing: str) -> Iterator[Callable[[str], Wire]]:
    """Opens connections from an address."""
    opened: list[Wire] = []

    def connect(host: str) -> Wire:
        opened.append(Wire(authorizing, source=host))
        return opened[-1]

    yield connect
    for client in opened:
        client.close()


@pytest.fixture
def admin(open_at: Callable[[str], Wire]) -> Wire:
    return open_at(ADMIN_HOST)


@pytest.fixture
def stranger(open_at: Callable[[str], Wire]) -> Wire:
    """Somebody who may do nothing."""
    return open_at(STRANGER_HOST)


@dataclass
class Guest:
    """Somebody at an address of their own, who may do what they were allowed."""

    admin: Wire
    wire: Wire
    host: str

    def may(self, operation: Operation, kind: ResourceType, name: str, **more: Any) -> None:
        allow(self.admin, self.host, operation, kind, name, **more)
        _settled()

    def may_not(self, operation: Operation, kind: ResourceType, name: str, **more: Any) -> None:
        allow(self.admin, self.host, operation, kind, name, permission=Permission.DENY, **more)
        _settled()

    def loses_everything(self) -> None:
        asked = delete_acls.DeleteAclsFilter(
            resource_type_filter=ResourceType.ANY, resource_name_filter=None, pattern_type_filter=PatternType.ANY,
            principal_filter=None, host_filter=self.host, operation=Operation.ANY, permission_type=Permission.ANY,
        )  # fmt: skip
        answer = self.admin.call(K.DELETE_ACLS, 3, delete_acls.DeleteAclsRequest(filters=[asked]))
        assert answer.filter_results[0].error_code == 0
        _settled()


def _settled() -> None:
    """A broker that hears of ACLs through a log of metadata is given time to."""
    if "PENSTOCK_TEST_AUTHORIZER" in os.environ:
        import time

        time.sleep(0.3)


@pytest.fixture
def guest(admin: Wire, open_at: Callable[[str], Wire]) -> Guest:
    host = f"{_net}.{next(_hosts)}"
    return Guest(admin, open_at(host), host)


def allow(
    wire: Wire, host: str, operation: Operation, kind: ResourceType, name: str, *,
    pattern: PatternType = PatternType.LITERAL, permission: Permission = Permission.ALLOW, principal: str = ANONYMOUS,
) -> None:  # fmt: skip
    creation = create_acls.AclCreation(
        resource_type=kind, resource_name=name, resource_pattern_type=pattern, principal=principal, host=host,
        operation=operation, permission_type=permission,
    )  # fmt: skip
    (result,) = wire.call(K.CREATE_ACLS, 3, create_acls.CreateAclsRequest(creations=[creation])).results
    assert result.error_code == 0, result.error_message


# ---- who may do nothing ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ask:
    """One request about things of some name, in some versions, and the codes a stranger gets."""

    key: ApiKey
    versions: Sequence[int]
    request: Callable[[str], Any]
    codes: frozenset[int]

    def __str__(self) -> str:
        return self.key.name


def _ask(key: ApiKey, versions: Sequence[int], request: Callable[[str], Any], *codes: int) -> Ask:
    return Ask(key, versions, request, frozenset(codes))


def _produce(name: str) -> Any:
    share = produce.PartitionProduceData(index=0, records=batch(b"x"))
    return produce.ProduceRequest(
        acks=-1, timeout_ms=1000, topic_data=[produce.TopicProduceData(name=name, partition_data=[share])]
    )


def _fetch(name: str) -> Any:
    wanted = fetch.FetchPartition(partition=0, fetch_offset=0, partition_max_bytes=1000)
    return fetch.FetchRequest(
        max_wait_ms=0, min_bytes=1, max_bytes=1000, session_id=0, session_epoch=-1, topics=[fetch_topic(name, [wanted])]
    )


def _commit(name: str) -> Any:
    part = offset_commit.OffsetCommitRequestPartition(partition_index=0, committed_offset=0, committed_metadata="")
    topic = offset_commit.OffsetCommitRequestTopic(name=name, partitions=[part])
    return offset_commit.OffsetCommitRequest(group_id=name, topics=[topic])


def _txn_commit(name: str) -> Any:
    part = txn_offset_commit.TxnOffsetCommitRequestPartition(
        partition_index=0, committed_offset=0, committed_metadata=""
    )
    topic = txn_offset_commit.TxnOffsetCommitRequestTopic(name=name, partitions=[part])
    return txn_offset_commit.TxnOffsetCommitRequest(
        transactional_id=name, group_id=name, producer_id=1, producer_epoch=0, topics=[topic]
    )


def _add_partitions(name: str) -> Any:
    topic = add_partitions_to_txn.AddPartitionsToTxnTopic(name=name, partitions=[0])
    return add_partitions_to_txn.AddPartitionsToTxnRequest(
        v3_and_below_transactional_id=name, v3_and_below_producer_id=1, v3_and_below_producer_epoch=0,
        v3_and_below_topics=[topic],
    )  # fmt: skip


def _markers(name: str) -> Any:
    topic = write_txn_markers.WritableTxnMarkerTopic(name=name, partition_indexes=[0])
    marker = write_txn_markers.WritableTxnMarker(
        producer_id=1, producer_epoch=0, transaction_result=False, topics=[topic], coordinator_epoch=0
    )
    return write_txn_markers.WriteTxnMarkersRequest(markers=[marker])


def _create(name: str) -> Any:
    topic = create_topics.CreatableTopic(name=name, num_partitions=1, replication_factor=1)
    return create_topics.CreateTopicsRequest(topics=[topic], timeout_ms=5000)


def _fetch_offsets(name: str) -> Any:
    topic = offset_fetch.OffsetFetchRequestTopic(name=name, partition_indexes=[0])
    topics = offset_fetch.OffsetFetchRequestTopics(name=name, partition_indexes=[0])
    group = offset_fetch.OffsetFetchRequestGroup(group_id=name, topics=[topics])
    return offset_fetch.OffsetFetchRequest(group_id=name, topics=[topic], groups=[group])


def _list_offsets(name: str) -> Any:
    part = list_offsets.ListOffsetsPartition(partition_index=0, timestamp=-1)
    return list_offsets.ListOffsetsRequest(
        replica_id=-1, topics=[list_offsets.ListOffsetsTopic(name=name, partitions=[part])]
    )


def _epochs(name: str) -> Any:
    part = offset_for_leader_epoch.OffsetForLeaderPartition(partition=0, current_leader_epoch=-1, leader_epoch=0)
    topic = offset_for_leader_epoch.OffsetForLeaderTopic(topic=name, partitions=[part])
    return offset_for_leader_epoch.OffsetForLeaderEpochRequest(replica_id=-1, topics=[topic])


def _delete_records(name: str) -> Any:
    part = delete_records.DeleteRecordsPartition(partition_index=0, offset=-1)
    return delete_records.DeleteRecordsRequest(
        topics=[delete_records.DeleteRecordsTopic(name=name, partitions=[part])], timeout_ms=5000
    )


def _delete_topics(name: str) -> Any:
    return delete_topics.DeleteTopicsRequest(
        topics=[delete_topics.DeleteTopicState(name=name)], topic_names=[name], timeout_ms=5000
    )


def _all_configs(kinds: dict[int, str]) -> Any:
    return describe_configs.DescribeConfigsRequest(
        resources=[
            describe_configs.DescribeConfigsResource(resource_type=kind, resource_name=name)
            for kind, name in kinds.items()
        ]
    )


def _alter_configs(name: str) -> Any:
    return alter_configs.AlterConfigsRequest(
        resources=[
            alter_configs.AlterConfigsResource(resource_type=kind, resource_name=about)
            for kind, about in ((2, name), (4, "1"), (16, name), (32, name))
        ]
    )


def _edit_configs(name: str) -> Any:
    return incremental_alter_configs.IncrementalAlterConfigsRequest(
        resources=[
            incremental_alter_configs.AlterConfigsResource(resource_type=kind, resource_name=about)
            for kind, about in ((2, name), (4, "1"), (8, "1"), (16, name), (32, name))
        ]
    )


def _reassign(name: str) -> Any:
    part = alter_partition_reassignments.ReassignablePartition(partition_index=0, replicas=[1])
    topic = alter_partition_reassignments.ReassignableTopic(name=name, partitions=[part])
    return alter_partition_reassignments.AlterPartitionReassignmentsRequest(topics=[topic], timeout_ms=5000)


def _listed_reassignments(name: str) -> Any:
    topic = list_partition_reassignments.ListPartitionReassignmentsTopics(name=name, partition_indexes=[0])
    return list_partition_reassignments.ListPartitionReassignmentsRequest(topics=[topic], timeout_ms=5000)


def _move(name: str) -> Any:
    topic = alter_replica_log_dirs.AlterReplicaLogDirTopic(name=name, partitions=[0])
    directory = alter_replica_log_dirs.AlterReplicaLogDir(path="/penstock", topics=[topic])
    return alter_replica_log_dirs.AlterReplicaLogDirsRequest(dirs=[directory])


def _elect(name: str) -> Any:
    topic = elect_leaders.TopicPartitions(topic=name, partitions=[0])
    return elect_leaders.ElectLeadersRequest(election_type=0, topic_partitions=[topic], timeout_ms=5000)


def _join(name: str) -> Any:
    return JoinGroupRequest(
        group_id=name, session_timeout_ms=10_000, rebalance_timeout_ms=10_000, member_id="",
        protocol_type="consumer", protocols=[JoinGroupRequestProtocol(name="range", metadata=b"")],
    )  # fmt: skip


def _forget(name: str) -> Any:
    part = offset_delete.OffsetDeleteRequestPartition(partition_index=0)
    return offset_delete.OffsetDeleteRequest(
        group_id=name, topics=[offset_delete.OffsetDeleteRequestTopic(name=name, partitions=[part])]
    )


def _acl(name: str) -> Any:
    return create_acls.CreateAclsRequest(
        creations=[
            create_acls.AclCreation(
                resource_type=2, resource_name=name, resource_pattern_type=3, principal="User:x", host="*",
                operation=3, permission_type=3,
            )
        ]
    )  # fmt: skip


def _acl_filter(name: str) -> Any:
    return delete_acls.DeleteAclsRequest(
        filters=[
            delete_acls.DeleteAclsFilter(
                resource_type_filter=2, resource_name_filter=name, pattern_type_filter=3, principal_filter=None,
                host_filter=None, operation=1, permission_type=1,
            )
        ]
    )  # fmt: skip


def _described_acls(name: str) -> Any:
    return DescribeAclsRequest(
        resource_type_filter=2, resource_name_filter=name, pattern_type_filter=3, principal_filter=None,
        host_filter=None, operation=1, permission_type=1,
    )  # fmt: skip


def _grow(name: str) -> Any:
    topic = create_partitions.CreatePartitionsTopic(name=name, count=5, assignments=None)
    return create_partitions.CreatePartitionsRequest(topics=[topic], timeout_ms=5000)


def _described_partitions(name: str) -> Any:
    topics = [describe_topic_partitions.TopicRequest(name=name)]
    return describe_topic_partitions.DescribeTopicPartitionsRequest(topics=topics, cursor=None)


def _quota(name: str) -> Any:
    entity = alter_client_quotas.AlterClientQuotasRequestEntityData(entity_type="user", entity_name=name)
    change = alter_client_quotas.OpData(key="producer_byte_rate", value=1.0)
    entry = alter_client_quotas.AlterClientQuotasRequestEntryData(entity=[entity], ops=[change])
    return alter_client_quotas.AlterClientQuotasRequest(entries=[entry])


def _share_offsets(name: str) -> Any:
    topic = describe_share_group_offsets.DescribeShareGroupOffsetsRequestTopic(topic_name=name, partitions=[0])
    group = describe_share_group_offsets.DescribeShareGroupOffsetsRequestGroup(group_id=name, topics=[topic])
    return describe_share_group_offsets.DescribeShareGroupOffsetsRequest(groups=[group])


def _share_altered(name: str) -> Any:
    part = alter_share_group_offsets.AlterShareGroupOffsetsRequestPartition(partition_index=0, start_offset=0)
    topic = alter_share_group_offsets.AlterShareGroupOffsetsRequestTopic(topic_name=name, partitions=[part])
    return alter_share_group_offsets.AlterShareGroupOffsetsRequest(group_id=name, topics=[topic])


def _share_deleted(name: str) -> Any:
    topic = delete_share_group_offsets.DeleteShareGroupOffsetsRequestTopic(topic_name=name)
    return delete_share_group_offsets.DeleteShareGroupOffsetsRequest(group_id=name, topics=[topic])


def _features(name: str) -> Any:
    key = update_features.FeatureUpdateKey(feature="metadata.version", max_version_level=1, upgrade_type=1)
    return update_features.UpdateFeaturesRequest(feature_updates=[key], timeout_ms=5000)


STRANGERS = (
    _ask(K.PRODUCE, (3, 8, 12), _produce, NO_TOPIC),
    _ask(K.FETCH, (4, 11, 12), _fetch, NO_TOPIC),
    _ask(K.LIST_OFFSETS, (1, 6, 11), _list_offsets, NO_TOPIC),
    _ask(
        K.METADATA, (0, 4, 9, 13),
        lambda name: metadata.MetadataRequest(
            topics=[metadata.MetadataRequestTopic(name=name)], allow_auto_topic_creation=True
        ),
        NO_TOPIC,
    ),
    _ask(K.OFFSET_COMMIT, (2, 8, 9), _commit, NO_GROUP),
    _ask(K.OFFSET_FETCH, (2, 5, 7, 8, 9), _fetch_offsets, NO_GROUP),
    _ask(
        K.FIND_COORDINATOR, (0, 2, 3, 4, 6), lambda name: FindCoordinatorRequest(key=name, coordinator_keys=[name]),
        NO_GROUP,
    ),
    _ask(
        K.FIND_COORDINATOR, (1, 3, 4, 6),
        lambda name: FindCoordinatorRequest(key=name, key_type=1, coordinator_keys=[name]), NO_TXN_ID,
    ),
    _ask(K.JOIN_GROUP, (0, 5, 7, 9), _join, NO_GROUP),
    _ask(K.HEARTBEAT, (0, 4), lambda name: HeartbeatRequest(group_id=name, generation_id=1, member_id="m"), NO_GROUP),
    _ask(
        K.LEAVE_GROUP, (0, 2, 3, 5),
        lambda name: LeaveGroupRequest(group_id=name, member_id="m", members=[MemberIdentity(member_id="m")]),
        NO_GROUP,
    ),
    _ask(
        K.SYNC_GROUP, (0, 5),
        lambda name: SyncGroupRequest(
            group_id=name, generation_id=1, member_id="m", protocol_type="consumer", protocol_name="range"
        ),
        NO_GROUP,
    ),
    _ask(K.DESCRIBE_GROUPS, (0, 3, 6), lambda name: DescribeGroupsRequest(groups=[name]), NO_GROUP),
    _ask(K.DELETE_GROUPS, (0, 2), lambda name: DeleteGroupsRequest(groups_names=[name]), NO_GROUP),
    _ask(K.CREATE_TOPICS, (2, 5, 7), _create, NO_TOPIC),
    _ask(K.DELETE_TOPICS, (1, 5, 6), _delete_topics, NO_TOPIC),
    _ask(K.DELETE_RECORDS, (0, 2), _delete_records, NO_TOPIC),
    _ask(K.INIT_PRODUCER_ID, (0, 5), lambda name: InitProducerIdRequest(transactional_id=None), NO_CLUSTER),
    _ask(
        K.INIT_PRODUCER_ID, (0, 5),
        lambda name: InitProducerIdRequest(transactional_id=name, transaction_timeout_ms=1000), NO_TXN_ID,
    ),
    _ask(K.OFFSET_FOR_LEADER_EPOCH, (2, 4), _epochs, NO_TOPIC),
    _ask(K.ADD_PARTITIONS_TO_TXN, (0, 3), _add_partitions, NO_TXN_ID),
    _ask(
        K.ADD_PARTITIONS_TO_TXN, (4, 5),
        lambda name: add_partitions_to_txn.AddPartitionsToTxnRequest(
            transactions=[
                add_partitions_to_txn.AddPartitionsToTxnTransaction(
                    transactional_id=name, producer_id=1, producer_epoch=0, topics=[]
                )
            ]
        ),
        NO_CLUSTER,
    ),
    _ask(
        K.ADD_OFFSETS_TO_TXN, (0, 3),
        lambda name: AddOffsetsToTxnRequest(transactional_id=name, producer_id=1, producer_epoch=0, group_id=name),
        NO_TXN_ID,
    ),
    _ask(
        K.END_TXN, (0, 5),
        lambda name: EndTxnRequest(transactional_id=name, producer_id=1, producer_epoch=0, committed=True), NO_TXN_ID,
    ),
    _ask(K.WRITE_TXN_MARKERS, (1,), _markers, NO_CLUSTER),
    _ask(K.TXN_OFFSET_COMMIT, (0, 5), _txn_commit, NO_TXN_ID),
    _ask(K.DESCRIBE_ACLS, (1, 3), _described_acls, NO_CLUSTER),
    _ask(K.CREATE_ACLS, (1, 3), _acl, NO_CLUSTER),
    _ask(K.DELETE_ACLS, (1, 3), _acl_filter, NO_CLUSTER),
    _ask(
        K.DESCRIBE_CONFIGS, (1, 4), lambda name: _all_configs({2: name, 4: "1", 8: "1", 16: name, 32: name}),
        NO_TOPIC, NO_GROUP, NO_CLUSTER,
    ),
    _ask(K.ALTER_CONFIGS, (0, 2), _alter_configs, NO_TOPIC, NO_GROUP, NO_CLUSTER),
    _ask(K.INCREMENTAL_ALTER_CONFIGS, (0, 1), _edit_configs, NO_TOPIC, NO_GROUP, NO_CLUSTER),
    _ask(K.ALTER_REPLICA_LOG_DIRS, (1, 2), _move, NO_CLUSTER),
    _ask(K.DESCRIBE_LOG_DIRS, (3, 5), lambda name: DescribeLogDirsRequest(topics=None), NO_CLUSTER),
    _ask(K.CREATE_PARTITIONS, (0, 3), _grow, NO_TOPIC),
    _ask(K.ELECT_LEADERS, (1, 2), _elect, NO_CLUSTER),
    _ask(K.ALTER_PARTITION_REASSIGNMENTS, (0,), _reassign, NO_CLUSTER),
    _ask(K.LIST_PARTITION_REASSIGNMENTS, (0,), _listed_reassignments, NO_CLUSTER),
    _ask(K.OFFSET_DELETE, (0,), _forget, NO_GROUP),
    _ask(K.DESCRIBE_QUORUM, (0, 2), lambda name: DescribeQuorumRequest(topics=[]), NO_CLUSTER),
    _ask(K.UPDATE_FEATURES, (0, 2), _features, NO_CLUSTER),
    _ask(
        K.DESCRIBE_PRODUCERS, (0,),
        lambda name: describe_producers.DescribeProducersRequest(
            topics=[describe_producers.TopicRequest(name=name, partition_indexes=[0])]
        ),
        NO_TOPIC,
    ),
    _ask(
        K.DESCRIBE_TRANSACTIONS, (0,), lambda name: DescribeTransactionsRequest(transactional_ids=[name]), NO_TXN_ID
    ),
    _ask(
        K.DESCRIBE_CLIENT_QUOTAS, (0, 1),
        lambda name: DescribeClientQuotasRequest(components=[], strict=False), NO_CLUSTER,
    ),
    _ask(K.ALTER_CLIENT_QUOTAS, (0, 1), _quota, NO_CLUSTER),
    _ask(
        K.DESCRIBE_USER_SCRAM_CREDENTIALS, (0,),
        lambda name: DescribeUserScramCredentialsRequest(
            users=[describe_user_scram_credentials.UserName(name=name)]
        ),
        NO_CLUSTER,
    ),
    _ask(
        K.ALTER_USER_SCRAM_CREDENTIALS, (0,),
        lambda name: AlterUserScramCredentialsRequest(
            deletions=[alter_user_scram_credentials.ScramCredentialDeletion(name=name, mechanism=1)]
        ),
        NO_CLUSTER,
    ),
    _ask(K.LIST_CONFIG_RESOURCES, (0, 1), lambda name: ListConfigResourcesRequest(), NO_CLUSTER),
    _ask(K.DESCRIBE_TOPIC_PARTITIONS, (0,), _described_partitions, NO_TOPIC),
    _ask(
        K.CONSUMER_GROUP_HEARTBEAT, (0, 1),
        lambda name: ConsumerGroupHeartbeatRequest(
            group_id=name, member_id=MEMBER, member_epoch=0, rebalance_timeout_ms=10_000,
            subscribed_topic_names=[name], topic_partitions=[],
        ),
        NO_GROUP,
    ),
    _ask(
        K.CONSUMER_GROUP_DESCRIBE, (0, 1), lambda name: ConsumerGroupDescribeRequest(group_ids=[name]), NO_GROUP
    ),
    _ask(
        K.SHARE_GROUP_HEARTBEAT, (1,),
        lambda name: ShareGroupHeartbeatRequest(
            group_id=name, member_id="m", member_epoch=0, rack_id=None, subscribed_topic_names=[name]
        ),
        NO_GROUP,
    ),
    _ask(K.SHARE_GROUP_DESCRIBE, (1,), lambda name: ShareGroupDescribeRequest(group_ids=[name]), NO_GROUP),
    _ask(
        K.STREAMS_GROUP_HEARTBEAT, (0, 1),
        lambda name: streams_group_heartbeat.StreamsGroupHeartbeatRequest(group_id=name, member_id="m", member_epoch=1),
        NO_GROUP,
    ),
    _ask(K.STREAMS_GROUP_DESCRIBE, (0, 1), lambda name: StreamsGroupDescribeRequest(group_ids=[name]), NO_GROUP),
    _ask(
        K.SHARE_FETCH, (1, 2),
        lambda name: ShareFetchRequest(group_id=name, member_id=MEMBER, share_session_epoch=0, max_wait_ms=0),
        NO_GROUP,
    ),
    _ask(
        K.SHARE_ACKNOWLEDGE, (1, 2),
        lambda name: ShareAcknowledgeRequest(group_id=name, member_id=MEMBER, share_session_epoch=1), NO_GROUP,
    ),
    _ask(K.DESCRIBE_SHARE_GROUP_OFFSETS, (0, 1), _share_offsets, NO_GROUP),
    _ask(K.ALTER_SHARE_GROUP_OFFSETS, (0,), _share_altered, NO_GROUP),
    _ask(K.DELETE_SHARE_GROUP_OFFSETS, (0,), _share_deleted, NO_GROUP),
    # Everybody may ask; who may see nothing is shown nothing.
    _ask(K.LIST_GROUPS, (0, 5), lambda name: ListGroupsRequest()),
    _ask(K.LIST_TRANSACTIONS, (0, 2), lambda name: ListTransactionsRequest()),
    _ask(K.DESCRIBE_CLUSTER, (0, 2), lambda name: DescribeClusterRequest(include_cluster_authorized_operations=True)),
    _ask(K.API_VERSIONS, (0,), lambda name: ApiVersionsRequest()),
)  # fmt: skip


def codes_in(message: Any) -> Iterator[int]:
    """Every error code in a response."""
    if isinstance(message, list):
        for one in message:
            yield from codes_in(one)
    elif isinstance(message, Message):
        for field in type(message).__slots__:
            value = getattr(message, field)
            if field.endswith("error_code"):
                yield value
            elif isinstance(value, list | Message):
                yield from codes_in(value)


@pytest.fixture(scope="module")
def secret(authorizing: str) -> str:
    """The name of a topic, a group and a transactional id that exist."""
    name = f"secret-{os.urandom(4).hex()}"
    wire = Wire(authorizing)
    wire.create_topic(name)
    assert wire.produce(name, batch(b"x")).error_code == 0

    for key_type in (0, 1):
        request = FindCoordinatorRequest(key_type=key_type, coordinator_keys=[name])
        eventually(
            lambda asked=request: set(codes_in(wire.call(K.FIND_COORDINATOR, 4, asked))) == {0}, what="a coordinator"
        )

    def began() -> bool:
        request = InitProducerIdRequest(transactional_id=name, transaction_timeout_ms=60_000)
        return wire.call(K.INIT_PRODUCER_ID, 4, request).error_code == 0

    eventually(began, what="a transactional id")
    eventually(lambda: set(codes_in(wire.call(K.OFFSET_COMMIT, 8, _commit(name)))) == {0}, what="a committed offset")
    wire.close()
    return name


@pytest.mark.parametrize("ask", STRANGERS, ids=str)
def test_a_stranger_is_refused_and_learns_nothing(ask: Ask, stranger: Wire, secret: str) -> None:
    """The codes are Kafka's, and the same whether the thing exists or not."""
    absent = "absent" + secret.removeprefix("secret")
    for version in ask.versions:
        answers = []
        for name in (secret, absent):
            answer = stranger.call(ask.key, version, ask.request(name))
            assert {code for code in codes_in(answer) if code} == set(ask.codes), (version, name, answer)
            # Some of Kafka's messages show the request object with its address in memory.
            answers.append(re.sub(r"Request Request\(.*?needs", "", repr(answer).replace(name, "NAME")))
        assert answers[0] == answers[1], version


def test_every_served_api_is_in_the_list(admin: Wire) -> None:
    served = {entry.api_key for entry in admin.call(K.API_VERSIONS, 0, ApiVersionsRequest()).api_keys}
    if "PENSTOCK_TEST_AUTHORIZER" in os.environ:
        pytest.skip("another broker serves other APIs")
    elsewhere = {
        K.SASL_HANDSHAKE, K.SASL_AUTHENTICATE, K.GET_TELEMETRY_SUBSCRIPTIONS, K.PUSH_TELEMETRY,
        K.CREATE_DELEGATION_TOKEN, K.RENEW_DELEGATION_TOKEN, K.EXPIRE_DELEGATION_TOKEN, K.DESCRIBE_DELEGATION_TOKEN,
    }  # fmt: skip
    assert served - elsewhere == {ask.key for ask in STRANGERS}


# ---- what may be seen of all -----------------------------------------------------------------------------------------


def _shown(wire: Wire) -> tuple[set[str], set[str], set[str], set[str]]:
    topics = {topic.name for topic in wire.metadata(None).topics}
    request = describe_topic_partitions.DescribeTopicPartitionsRequest(topics=[], cursor=None)
    pages = {topic.name for topic in wire.call(K.DESCRIBE_TOPIC_PARTITIONS, 0, request).topics}
    groups = {group.group_id for group in wire.call(K.LIST_GROUPS, 5, ListGroupsRequest()).groups}
    listed = wire.call(K.LIST_TRANSACTIONS, 0, ListTransactionsRequest()).transaction_states
    return topics, pages, groups, {state.transactional_id for state in listed}


def test_lists_show_what_may_be_described(stranger: Wire, guest: Guest, secret: str) -> None:
    assert _shown(stranger) == (set(), set(), set(), set())
    for kind in (TOPIC, GROUP, TXN_ID):
        guest.may(Operation.DESCRIBE, kind, secret[:10], pattern=PatternType.PREFIXED)
    assert _shown(guest.wire) == ({secret}, {secret}, {secret}, {secret})
    guest.may_not(Operation.DESCRIBE, TOPIC, secret)
    assert _shown(guest.wire) == (set(), set(), {secret}, {secret})
    guest.may(Operation.DESCRIBE, CLUSTER, "kafka-cluster")
    guest.may_not(Operation.DESCRIBE, GROUP, secret)
    assert secret in _shown(guest.wire)[2], "who may describe the cluster sees all groups"


def test_committed_offsets_of_all_topics_are_those_one_may_describe(guest: Guest, secret: str) -> None:
    request = offset_fetch.OffsetFetchRequest(
        topics=None, groups=[offset_fetch.OffsetFetchRequestGroup(group_id=secret, topics=None)]
    )
    guest.may(Operation.DESCRIBE, GROUP, secret)
    assert guest.wire.call(K.OFFSET_FETCH, 8, request).groups[0].topics == []
    named = guest.wire.call(K.OFFSET_FETCH, 8, _fetch_offsets(secret)).groups[0]
    assert named.error_code == 0
    assert [part.error_code for topic in named.topics for part in topic.partitions] == [NO_TOPIC]
    guest.may(Operation.DESCRIBE, TOPIC, secret)
    assert [topic.name for topic in guest.wire.call(K.OFFSET_FETCH, 8, request).groups[0].topics] == [secret]


# ---- what is asked of each operation ---------------------------------------------------------------------------------


def _topic_operations(wire: Wire, name: str) -> int:
    request = metadata.MetadataRequest(
        topics=[metadata.MetadataRequestTopic(name=name)], include_topic_authorized_operations=True
    )
    return int(wire.call(K.METADATA, 9, request).topics[0].topic_authorized_operations)


def test_operations_imply_others(guest: Guest, secret: str) -> None:
    assert _topic_operations(guest.wire, secret) == -(2**31), "a refusal names none"
    guest.may(Operation.READ, TOPIC, secret)
    assert _topic_operations(guest.wire, secret) == 1 << 3 | 1 << 8
    guest.may(Operation.ALTER_CONFIGS, TOPIC, secret)
    assert _topic_operations(guest.wire, secret) == 1 << 3 | 1 << 8 | 1 << 10 | 1 << 11
    guest.may_not(Operation.READ, TOPIC, "*")
    assert _topic_operations(guest.wire, secret) == 1 << 8 | 1 << 10 | 1 << 11, "READ is denied, what it implies is not"
    guest.may(Operation.ALL, TOPIC, secret)
    assert _topic_operations(guest.wire, secret) == 3576 - (1 << 3)


def test_operations_on_cluster_and_groups(admin: Wire, guest: Guest, secret: str) -> None:
    def of_cluster(wire: Wire) -> tuple[int, int]:
        by_metadata = metadata.MetadataRequest(topics=[], include_cluster_authorized_operations=True)
        described = DescribeClusterRequest(include_cluster_authorized_operations=True)
        return (
            wire.call(K.METADATA, 9, by_metadata).cluster_authorized_operations,
            wire.call(K.DESCRIBE_CLUSTER, 1, described).cluster_authorized_operations,
        )

    def of_group(wire: Wire) -> int:
        request = DescribeGroupsRequest(groups=[secret], include_authorized_operations=True)
        return int(wire.call(K.DESCRIBE_GROUPS, 5, request).groups[0].authorized_operations)

    assert of_cluster(admin) == (8096, 8096)
    assert of_group(admin) == 1 << 3 | 1 << 6 | 1 << 8 | 1 << 10 | 1 << 11
    assert of_cluster(guest.wire) == (0, 0)
    guest.may(Operation.CREATE, CLUSTER, "kafka-cluster")
    assert of_cluster(guest.wire) == (0, 0), "who may not describe the cluster is told of nothing"
    guest.may(Operation.DESCRIBE, CLUSTER, "kafka-cluster")
    assert of_cluster(guest.wire) == (1 << 5 | 1 << 8, 1 << 5 | 1 << 8)
    guest.may(Operation.DELETE, GROUP, secret)
    assert of_group(guest.wire) == 1 << 6 | 1 << 8


def test_a_streams_application_needs_its_topics(guest: Guest, admin: Wire, fresh_name: Callable[..., str]) -> None:
    """READ on the group, DESCRIBE on every topic of the topology, CREATE on those that are missing."""
    lines, group = fresh_name("lines"), fresh_name("app")
    admin.create_topic(lines)
    words, counts = f"{group}-repartition", f"{group}-changelog"
    member = Member(guest.wire, group, "m", topology(lines, application=group))

    def statuses() -> list[tuple[int, str]]:
        answer = member.beat()
        assert answer.error_code == 0
        return [(status.status_code, status.status_detail) for status in answer.status if status.status_code == 3]

    assert member.beat().error_code == NO_GROUP
    guest.may(Operation.READ, GROUP, group)
    assert member.beat().error_code == NO_TOPIC
    guest.may(Operation.DESCRIBE, TOPIC, lines)
    assert member.beat().error_code == NO_TOPIC, "topics that do not exist count as well"
    guest.may(Operation.DESCRIBE, TOPIC, group, pattern=PatternType.PREFIXED)
    missing = f"Internal topics are missing: {counts}, {words}"
    assert statuses() == [(3, f"{missing}; Unauthorized to CREATE on topics {counts}, {words}.")]
    guest.may(Operation.CREATE, TOPIC, words)
    assert statuses() == [(3, f"{missing}; Unauthorized to CREATE on topics {counts}.")]
    assert {topic.error_code for topic in admin.metadata([words, counts]).topics} == {E.UNKNOWN_TOPIC_OR_PARTITION}
    guest.may(Operation.CREATE, TOPIC, counts)
    assert statuses() == [(3, missing)]
    assert {topic.error_code for topic in admin.metadata([words, counts]).topics} == {E.NONE}
    assert statuses() == []
    request = StreamsGroupDescribeRequest(group_ids=[group], include_authorized_operations=True)
    described = guest.wire.call(K.STREAMS_GROUP_DESCRIBE, 1, request).groups[0]
    assert (described.error_code, described.authorized_operations) == (0, 1 << 3 | 1 << 8)
    guest.may_not(Operation.DESCRIBE, TOPIC, counts)
    hidden = guest.wire.call(K.STREAMS_GROUP_DESCRIBE, 1, request).groups[0]
    assert (hidden.error_code, hidden.members, hidden.topology) == (NO_TOPIC, [], None)


def test_writing_again_and_again_stops_when_the_permission_does(guest: Guest, secret: str) -> None:
    guest.may(Operation.WRITE, TOPIC, secret)
    for _ in range(3):
        assert guest.wire.produce(secret, batch(b"y")).error_code == 0
    guest.loses_everything()
    for version in (8, 9, 9, 9, 12):
        answer = guest.wire.produce(secret, batch(b"y"), version=version)
        assert answer.error_code == NO_TOPIC
        assert answer.error_message is None or version < 8
    guest.may(Operation.WRITE, TOPIC, secret)
    assert guest.wire.produce(secret, batch(b"y")).error_code == 0
    guest.may_not(Operation.WRITE, TOPIC, secret[:8], pattern=PatternType.PREFIXED)
    assert guest.wire.produce(secret, batch(b"y")).error_code == NO_TOPIC


def test_reading_by_session_stops_when_the_permission_does(admin: Wire, guest: Guest, secret: str) -> None:
    guest.may(Operation.READ, TOPIC, secret)
    assert guest.wire.fetch(secret).error_code == 0
    wanted = fetch.FetchPartition(partition=0, fetch_offset=0, partition_max_bytes=1000)
    opening = fetch.FetchRequest(
        max_wait_ms=0, min_bytes=0, max_bytes=1000, session_id=0, session_epoch=0,
        topics=[fetch_topic(secret, [wanted])],
    )  # fmt: skip
    opened = guest.wire.call(K.FETCH, 12, opening)
    assert opened.session_id != 0
    assert [part.error_code for topic in opened.responses for part in topic.partitions] == [0]
    guest.loses_everything()
    following = fetch.FetchRequest(
        max_wait_ms=0, min_bytes=0, max_bytes=1000, session_id=opened.session_id, session_epoch=1, topics=[]
    )
    answer = guest.wire.call(K.FETCH, 12, following)
    parts = [part for topic in answer.responses for part in topic.partitions]
    assert [part.error_code for part in parts] == [NO_TOPIC]
    assert not any(part.records for part in parts)


def test_taking_by_share_session_stops_when_the_permission_does(
    admin: Wire, guest: Guest, fresh_name: Callable[..., str]
) -> None:  # fmt: skip
    """And what was not told is not locked: whoever may read takes it."""
    topic, group = fresh_name(), fresh_name()
    topic_id = admin.create_topic(topic)
    guest.may(Operation.READ, GROUP, group)
    guest.may(Operation.READ, TOPIC, topic)
    members = [Consumer(wire, group) for wire in (guest.wire, admin)]
    for member in members:
        member.join(topic)
    taker, other = members
    eventually(lambda: taker.fetch((topic_id, 0)).responses == [], what="a session that has begun to read")
    guest.loses_everything()
    guest.may(Operation.READ, GROUP, group)
    assert admin.produce(topic, batch(b"x")).error_code == 0
    for _ in range(2):
        answer = taker.fetch(max_wait_ms=100)
        assert [part.error_code for told in answer.responses for part in told.partitions] == [NO_TOPIC]
        assert acquired(answer) == []
    eventually(lambda: other.take((topic_id, 0)) == [(0, 0, 1)], what="somebody else taking the record")


def test_by_topic_id(admin: Wire, guest: Guest, secret: str) -> None:
    """An id is no secret in Kafka: unknown is 100, forbidden is 29."""
    (topic,) = admin.metadata([secret]).topics
    assert guest.wire.produce(bytes(topic.topic_id), batch(b"y")).error_code == NO_TOPIC
    assert guest.wire.fetch(bytes(topic.topic_id)).error_code == NO_TOPIC
    assert guest.wire.fetch(b"\1" * 16).error_code == E.UNKNOWN_TOPIC_ID
    for topic_id, code in ((bytes(topic.topic_id), NO_TOPIC), (b"\1" * 16, E.UNKNOWN_TOPIC_ID)):
        request = metadata.MetadataRequest(topics=[metadata.MetadataRequestTopic(name=None, topic_id=topic_id)])
        (answer,) = guest.wire.call(K.METADATA, 12, request).topics
        assert (answer.error_code, answer.name, bytes(answer.topic_id)) == (code, None, topic_id)
        state = delete_topics.DeleteTopicState(name=None, topic_id=topic_id)
        request = delete_topics.DeleteTopicsRequest(topics=[state], timeout_ms=5000)
        (deleted,) = guest.wire.call(K.DELETE_TOPICS, 6, request).responses
        assert (deleted.error_code, deleted.name, bytes(deleted.topic_id)) == (code, None, topic_id)
    guest.may(Operation.DESCRIBE, TOPIC, secret)
    state = delete_topics.DeleteTopicState(name=None, topic_id=bytes(topic.topic_id))
    request = delete_topics.DeleteTopicsRequest(topics=[state], timeout_ms=5000)
    (deleted,) = guest.wire.call(K.DELETE_TOPICS, 6, request).responses
    assert (deleted.error_code, deleted.name) == (NO_TOPIC, secret)
    by_name = guest.wire.call(K.DELETE_TOPICS, 6, _delete_topics(secret)).responses[0]
    assert (by_name.error_code, by_name.name, bytes(by_name.topic_id)) == (NO_TOPIC, secret, bytes(16))
    missing = guest.wire.call(K.DELETE_TOPICS, 6, _delete_topics("absent")).responses[0]
    assert missing.error_code == NO_TOPIC


def test_topics_come_by_a_permission_on_the_cluster_or_on_their_names(guest: Guest) -> None:
    mine, other = f"{guest.host}-mine", f"{guest.host}-other"

    def create(name: str) -> Any:
        (result,) = guest.wire.call(K.CREATE_TOPICS, 7, _create(name)).topics
        return result

    guest.may(Operation.CREATE, TOPIC, mine, pattern=PatternType.PREFIXED)
    assert create(other).error_code == NO_TOPIC
    assert create(other).error_message == "Authorization failed."
    made = create(mine)
    assert (made.error_code, made.topic_config_error_code) == (0, NO_TOPIC)
    assert (made.num_partitions, made.replication_factor, made.configs) == (-1, -1, [])
    assert bytes(made.topic_id) != bytes(16)
    guest.may(Operation.DESCRIBE_CONFIGS, TOPIC, "*")
    made = create(f"{mine}2")
    assert (made.error_code, made.topic_config_error_code, made.num_partitions) == (0, 0, 1)
    assert made.configs
    guest.may(Operation.CREATE, CLUSTER, "kafka-cluster")
    assert create(other).error_code == 0
    guest.may(Operation.DELETE, TOPIC, mine, pattern=PatternType.PREFIXED)
    for name, code in ((mine, 0), (f"{mine}2", 0), (f"{mine}3", E.UNKNOWN_TOPIC_OR_PARTITION), (other, NO_TOPIC)):
        assert guest.wire.call(K.DELETE_TOPICS, 6, _delete_topics(name)).responses[0].error_code == code, name


def test_asking_for_a_topic_creates_it_only_with_create(guest: Guest) -> None:
    name = f"{guest.host}-auto"
    guest.may(Operation.DESCRIBE, TOPIC, name)
    assert guest.wire.metadata([name], auto_create=False).topics[0].error_code == E.UNKNOWN_TOPIC_OR_PARTITION
    assert guest.wire.metadata([name], auto_create=True).topics[0].error_code == NO_TOPIC
    guest.may(Operation.CREATE, TOPIC, name)
    eventually(
        lambda: guest.wire.metadata([name], auto_create=True).topics[0].error_code == 0, what="the topic being made"
    )


def test_idempotence_needs_the_cluster_or_any_topic_to_write_to(admin: Wire, guest: Guest) -> None:
    def code() -> int:
        return int(guest.wire.call(K.INIT_PRODUCER_ID, 4, InitProducerIdRequest(transactional_id=None)).error_code)

    assert code() == NO_CLUSTER
    guest.may(Operation.WRITE, TOPIC, f"{guest.host}-not-there-yet")
    assert code() == 0, "KIP-679"
    guest.may_not(Operation.WRITE, TOPIC, guest.host, pattern=PatternType.PREFIXED)
    assert code() == NO_CLUSTER, "what may be written to is denied as a whole"
    guest.may(Operation.IDEMPOTENT_WRITE, CLUSTER, "kafka-cluster")
    assert code() == 0


def test_transactions_need_their_id_their_topics_and_their_group(guest: Guest, secret: str) -> None:
    name = f"{guest.host}-txn"
    guest.may(Operation.WRITE, TXN_ID, name)
    request = InitProducerIdRequest(transactional_id=name, transaction_timeout_ms=60_000)
    eventually(lambda: guest.wire.call(K.INIT_PRODUCER_ID, 4, request).error_code == 0, what="a transactional id")
    made = guest.wire.call(K.INIT_PRODUCER_ID, 4, request)
    asked = _add_partitions(secret)
    asked.v3_and_below_transactional_id = name
    asked.v3_and_below_producer_id, asked.v3_and_below_producer_epoch = made.producer_id, made.producer_epoch
    absent = add_partitions_to_txn.AddPartitionsToTxnTopic(name=f"{guest.host}-absent", partitions=[0])
    guest.may(Operation.WRITE, TOPIC, absent.name)
    asked.v3_and_below_topics.append(absent)
    results = guest.wire.call(K.ADD_PARTITIONS_TO_TXN, 3, asked).results_by_topic_v3_and_below
    assert {topic.name: topic.results_by_partition[0].partition_error_code for topic in results} == {
        secret: NO_TOPIC, absent.name: E.UNKNOWN_TOPIC_OR_PARTITION
    }  # fmt: skip
    asked.v3_and_below_topics.pop()
    guest.may(Operation.WRITE, TOPIC, secret)
    results = guest.wire.call(K.ADD_PARTITIONS_TO_TXN, 3, asked).results_by_topic_v3_and_below
    assert results[0].results_by_partition[0].partition_error_code in (0, E.CONCURRENT_TRANSACTIONS)

    commit = _txn_commit(secret)
    commit.transactional_id = name
    commit.producer_id, commit.producer_epoch = made.producer_id, made.producer_epoch
    assert {*codes_in(guest.wire.call(K.TXN_OFFSET_COMMIT, 5, commit))} == {NO_GROUP}
    guest.may(Operation.READ, GROUP, secret)
    assert {*codes_in(guest.wire.call(K.TXN_OFFSET_COMMIT, 5, commit))} == {NO_TOPIC}
    offsets = AddOffsetsToTxnRequest(
        transactional_id=name, producer_id=made.producer_id, producer_epoch=made.producer_epoch, group_id="x"
    )
    assert guest.wire.call(K.ADD_OFFSETS_TO_TXN, 3, offsets).error_code == NO_GROUP


def test_transactional_records_need_the_id(guest: Guest, secret: str) -> None:
    guest.may(Operation.WRITE, TOPIC, secret)
    data = batch(b"x", producer_id=1, producer_epoch=0, base_sequence=0, is_transactional=True)
    answer = guest.wire.produce(secret, data, transactional_id=f"{guest.host}-id")
    assert answer.error_code == NO_TXN_ID


def test_a_described_transaction_hides_topics(admin: Wire, guest: Guest, secret: str) -> None:
    name, topic = f"{guest.host}-shown", f"{guest.host}-topic"
    admin.create_topic(topic)
    request = InitProducerIdRequest(transactional_id=name, transaction_timeout_ms=60_000)
    eventually(lambda: admin.call(K.INIT_PRODUCER_ID, 4, request).error_code == 0, what="a transactional id")
    made = admin.call(K.INIT_PRODUCER_ID, 4, request)
    for about in (topic, secret):
        asked = _add_partitions(about)
        asked.v3_and_below_transactional_id = name
        asked.v3_and_below_producer_id, asked.v3_and_below_producer_epoch = made.producer_id, made.producer_epoch

        def added(asked: Any = asked) -> bool:
            answer = admin.call(K.ADD_PARTITIONS_TO_TXN, 3, asked)
            return answer.results_by_topic_v3_and_below[0].results_by_partition[0].partition_error_code == 0

        eventually(added, what="the partition being added")
    guest.may(Operation.DESCRIBE, TXN_ID, name)
    guest.may(Operation.DESCRIBE, TOPIC, topic)
    asked = DescribeTransactionsRequest(transactional_ids=[name])
    (state,) = guest.wire.call(K.DESCRIBE_TRANSACTIONS, 0, asked).transaction_states
    assert state.error_code == 0
    assert [topic.topic for topic in state.topics] == [topic]
    end = EndTxnRequest(
        transactional_id=name, producer_id=made.producer_id, producer_epoch=made.producer_epoch, committed=False
    )
    eventually(lambda: admin.call(K.END_TXN, 3, end).error_code == 0, what="the end of the transaction")


def test_some_topics_of_a_request_may_be_forbidden(admin: Wire, guest: Guest, secret: str) -> None:
    """The rest of the request is answered."""
    mine = f"{guest.host}-mine"
    admin.create_topic(mine)
    guest.may(Operation.ALL, TOPIC, mine)
    guest.may(Operation.ALL, GROUP, mine)

    def both(message: Any, *places: str) -> Any:
        for place in places:
            items = getattr(message, place)
            items.append(type(items[0])(**{field: getattr(items[0], field) for field in type(items[0]).__slots__}))
            for field in ("name", "topic"):
                if field in type(items[0]).__slots__:
                    setattr(items[1], field, secret)
        return message

    for key, version, request, code in (
        (K.PRODUCE, 9, both(_produce(mine), "topic_data"), NO_TOPIC),
        (K.LIST_OFFSETS, 7, both(_list_offsets(mine), "topics"), NO_TOPIC),
        (K.OFFSET_COMMIT, 8, both(_commit(mine), "topics"), NO_TOPIC),
        (K.OFFSET_DELETE, 0, both(_forget(mine), "topics"), NO_TOPIC),
        (K.OFFSET_FOR_LEADER_EPOCH, 4, both(_epochs(mine), "topics"), NO_TOPIC),
        (K.FETCH, 11, both(_fetch(mine), "topics"), NO_TOPIC),
        (K.DELETE_RECORDS, 2, both(_delete_records(mine), "topics"), NO_TOPIC),
    ):
        answer = guest.wire.call(key, version, request)
        assert {*codes_in(answer)} == {0, code}, (key, answer)


# ---- the ACL APIs ----------------------------------------------------------------------------------------------------


def _creation(**fields: Any) -> create_acls.AclCreation:
    defaults = {
        "resource_type": TOPIC, "resource_name": "t", "resource_pattern_type": PatternType.LITERAL,
        "principal": "User:alice", "host": "*", "operation": Operation.READ, "permission_type": Permission.ALLOW,
    }  # fmt: skip
    return create_acls.AclCreation(**(defaults | fields))


def test_what_cannot_be_an_acl(admin: Wire) -> None:
    bad = [
        _creation(resource_type=CLUSTER, resource_name="my-cluster"),
        _creation(resource_name=""),
        _creation(principal="alice"),
        _creation(host=""),
        _creation(resource_type=77),
        _creation(operation=99),
    ]
    answer = admin.call(K.CREATE_ACLS, 3, create_acls.CreateAclsRequest(creations=[*bad, _creation()]))
    assert [result.error_code for result in answer.results] == [E.INVALID_REQUEST] * len(bad) + [0]
    assert all(result.error_message for result in answer.results[:-1])


@pytest.mark.parametrize(
    "wrong",
    [
        {"resource_type": ResourceType.ANY},
        {"resource_pattern_type": PatternType.ANY},
        {"resource_pattern_type": PatternType.MATCH},
        {"operation": Operation.ANY},
        {"permission_type": Permission.ANY},
    ],
)
def test_what_is_for_filters_fails_a_whole_creation(admin: Wire, wrong: dict[str, int]) -> None:
    answer = admin.call(K.CREATE_ACLS, 3, create_acls.CreateAclsRequest(creations=[_creation(), _creation(**wrong)]))
    assert [result.error_code for result in answer.results] == [E.UNKNOWN_SERVER_ERROR] * 2


def test_filters_that_nobody_knows(admin: Wire) -> None:
    strange = _acl_filter("t").filters[0]
    strange.operation = 99
    (result,) = admin.call(K.DELETE_ACLS, 3, delete_acls.DeleteAclsRequest(filters=[strange])).filter_results
    assert (result.error_code, result.matching_acls) == (E.INVALID_REQUEST, [])
    described = _described_acls("t")
    described.resource_type_filter = 77
    answer = admin.call(K.DESCRIBE_ACLS, 3, described)
    assert (answer.error_code, answer.resources) == (0, [])


@pytest.mark.parametrize(
    "field", ["resource_type", "resource_pattern_type", "operation", "permission_type"]
)  # fmt: skip
def test_an_acl_of_unknown_meaning_ends_the_connection(open_at: Callable[[str], Wire], field: str) -> None:
    wire = open_at(ADMIN_HOST)
    wire.send(K.CREATE_ACLS, 3, create_acls.CreateAclsRequest(creations=[_creation(**{field: 0})]))
    assert wire.is_closed_by_broker()


def test_acls_are_described_by_filters_and_deleted_by_filters(admin: Wire, fresh_name: Callable[..., str]) -> None:
    name = fresh_name()
    wanted = [
        _creation(resource_name=name),
        _creation(resource_name=name, operation=Operation.WRITE, permission_type=Permission.DENY),
        _creation(resource_name=name[:6], resource_pattern_type=PatternType.PREFIXED, principal="User:bob"),
        _creation(resource_name=name, resource_type=GROUP, host="10.0.0.1"),
    ]
    for _ in range(2):  # Again is no error.
        answer = admin.call(K.CREATE_ACLS, 2, create_acls.CreateAclsRequest(creations=wanted))
        assert [(result.error_code, result.error_message) for result in answer.results] == [(0, "")] * 4

    def described(**fields: Any) -> set[tuple[Any, ...]]:
        defaults = {
            "resource_type_filter": ResourceType.ANY, "resource_name_filter": None,
            "pattern_type_filter": PatternType.ANY, "principal_filter": None, "host_filter": None,
            "operation": Operation.ANY, "permission_type": Permission.ANY,
        }  # fmt: skip
        answer = admin.call(K.DESCRIBE_ACLS, 3, DescribeAclsRequest(**(defaults | fields)))
        assert answer.error_code == 0
        return {
            (
                about.resource_type,
                about.resource_name,
                acl.principal,
                acl.host,
                acl.operation,
                acl.permission_type,
            )
            for about in answer.resources
            for acl in about.acls
            if acl.host != ADMIN_HOST
        }

    eventually(lambda: len(described(resource_name_filter=name)) == 3, what="the ACLs")
    matching = described(resource_name_filter=name, pattern_type_filter=PatternType.MATCH, resource_type_filter=TOPIC)
    assert {acl[1:3] for acl in matching if acl[2] in ("User:alice", "User:bob")} >= {
        (name, "User:alice"), (name[:6], "User:bob"),
    }  # fmt: skip
    assert described(resource_name_filter=name, operation=Operation.WRITE) == {
        (TOPIC, name, "User:alice", "*", Operation.WRITE, Permission.DENY)
    }
    assert described(resource_name_filter=name, host_filter="10.0.0.1") == {
        (GROUP, name, "User:alice", "10.0.0.1", Operation.READ, Permission.ALLOW)
    }

    def asked(**fields: Any) -> delete_acls.DeleteAclsFilter:
        defaults = {
            "resource_type_filter": ResourceType.ANY, "resource_name_filter": name,
            "pattern_type_filter": PatternType.ANY, "principal_filter": None, "host_filter": None,
            "operation": Operation.ANY, "permission_type": Permission.ANY,
        }  # fmt: skip
        return delete_acls.DeleteAclsFilter(**(defaults | fields))

    request = delete_acls.DeleteAclsRequest(filters=[asked(operation=Operation.READ), asked(), asked(host_filter="?")])
    first, second, none = admin.call(K.DELETE_ACLS, 3, request).filter_results
    assert {acl.resource_type for acl in first.matching_acls} == {TOPIC, GROUP}
    assert {len(first.matching_acls), len(second.matching_acls), len(none.matching_acls)} == {2, 3, 0}
    assert [result.error_code for result in (first, second, none)] == [0, 0, 0]
    eventually(lambda: described(resource_name_filter=name) == set(), what="the ACLs being gone")
