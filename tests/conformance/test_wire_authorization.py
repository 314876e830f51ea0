"""Every API, called by a principal without any permission."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from fixtures import sample_requests
from fixtures.guests import MEMBER, NO_CLUSTER, NO_GROUP, NO_TOPIC, NO_TXN_ID, codes_in
from fixtures.wire import Wire

from penstock.wire.api_keys import ApiKey as K
from penstock.wire.messages import (
    add_partitions_to_txn,
    alter_user_scram_credentials,
    describe_producers,
    describe_user_scram_credentials,
    metadata,
    streams_group_heartbeat,
)
from penstock.wire.messages.add_offsets_to_txn import AddOffsetsToTxnRequest
from penstock.wire.messages.alter_user_scram_credentials import AlterUserScramCredentialsRequest
from penstock.wire.messages.api_versions import ApiVersionsRequest
from penstock.wire.messages.consumer_group_describe import ConsumerGroupDescribeRequest
from penstock.wire.messages.consumer_group_heartbeat import ConsumerGroupHeartbeatRequest
from penstock.wire.messages.delete_groups import DeleteGroupsRequest
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


@dataclass(frozen=True)
class Ask:
    """One request about things of some name, in some versions, and the codes a stranger gets."""

    key: K
    versions: Sequence[int]
    request: Callable[[str], Any]
    codes: frozenset[int]

    def __str__(self) -> str:
        return self.key.name


def _ask(key: K, versions: Sequence[int], request: Callable[[str], Any], *codes: int) -> Ask:
    return Ask(key, versions, request, frozenset(codes))


STRANGERS = (
    _ask(K.PRODUCE, (3, 8, 12), sample_requests.produce, NO_TOPIC),
    _ask(K.FETCH, (4, 11, 12), sample_requests.fetch, NO_TOPIC),
    _ask(K.LIST_OFFSETS, (1, 6, 11), sample_requests.list_offsets, NO_TOPIC),
    _ask(
        K.METADATA, (0, 4, 9, 13),
        lambda name: metadata.MetadataRequest(
            topics=[metadata.MetadataRequestTopic(name=name)], allow_auto_topic_creation=True
        ),
        NO_TOPIC,
    ),
    _ask(K.OFFSET_COMMIT, (2, 8, 9), sample_requests.commit_offsets, NO_GROUP),
    _ask(K.OFFSET_FETCH, (2, 5, 7, 8, 9), sample_requests.fetch_offsets, NO_GROUP),
    _ask(
        K.FIND_COORDINATOR, (0, 2, 3, 4, 6), lambda name: FindCoordinatorRequest(key=name, coordinator_keys=[name]),
        NO_GROUP,
    ),
    _ask(
        K.FIND_COORDINATOR, (1, 3, 4, 6),
        lambda name: FindCoordinatorRequest(key=name, key_type=1, coordinator_keys=[name]), NO_TXN_ID,
    ),
    _ask(K.JOIN_GROUP, (0, 5, 7, 9), sample_requests.join_group, NO_GROUP),
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
    _ask(K.CREATE_TOPICS, (2, 5, 7), sample_requests.create_topic, NO_TOPIC),
    _ask(K.DELETE_TOPICS, (1, 5, 6), sample_requests.delete_topic, NO_TOPIC),
    _ask(K.DELETE_RECORDS, (0, 2), sample_requests.delete_records, NO_TOPIC),
    _ask(K.INIT_PRODUCER_ID, (0, 5), lambda name: InitProducerIdRequest(transactional_id=None), NO_CLUSTER),
    _ask(
        K.INIT_PRODUCER_ID, (0, 5),
        lambda name: InitProducerIdRequest(transactional_id=name, transaction_timeout_ms=1000), NO_TXN_ID,
    ),
    _ask(K.OFFSET_FOR_LEADER_EPOCH, (2, 4), sample_requests.epoch_offsets, NO_TOPIC),
    _ask(K.ADD_PARTITIONS_TO_TXN, (0, 3), sample_requests.add_partitions, NO_TXN_ID),
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
    _ask(K.WRITE_TXN_MARKERS, (1,), sample_requests.write_markers, NO_CLUSTER),
    _ask(K.TXN_OFFSET_COMMIT, (0, 5), sample_requests.commit_in_transaction, NO_TXN_ID),
    _ask(K.DESCRIBE_ACLS, (1, 3), sample_requests.describe_acls, NO_CLUSTER),
    _ask(K.CREATE_ACLS, (1, 3), sample_requests.create_acl, NO_CLUSTER),
    _ask(K.DELETE_ACLS, (1, 3), sample_requests.delete_acls, NO_CLUSTER),
    _ask(
        K.DESCRIBE_CONFIGS, (1, 4),
        lambda name: sample_requests.describe_configs({2: name, 4: "1", 8: "1", 16: name, 32: name}),
        NO_TOPIC, NO_GROUP, NO_CLUSTER,
    ),
    _ask(K.ALTER_CONFIGS, (0, 2), sample_requests.alter_configs, NO_TOPIC, NO_GROUP, NO_CLUSTER),
    _ask(K.INCREMENTAL_ALTER_CONFIGS, (0, 1), sample_requests.edit_configs, NO_TOPIC, NO_GROUP, NO_CLUSTER),
    _ask(K.ALTER_REPLICA_LOG_DIRS, (1, 2), sample_requests.move, NO_CLUSTER),
    _ask(K.DESCRIBE_LOG_DIRS, (3, 5), lambda name: DescribeLogDirsRequest(topics=None), NO_CLUSTER),
    _ask(K.CREATE_PARTITIONS, (0, 3), sample_requests.grow, NO_TOPIC),
    _ask(K.ELECT_LEADERS, (1, 2), sample_requests.elect, NO_CLUSTER),
    _ask(K.ALTER_PARTITION_REASSIGNMENTS, (0,), sample_requests.reassign, NO_CLUSTER),
    _ask(K.LIST_PARTITION_REASSIGNMENTS, (0,), sample_requests.list_reassignments, NO_CLUSTER),
    _ask(K.OFFSET_DELETE, (0,), sample_requests.forget_offsets, NO_GROUP),
    _ask(K.DESCRIBE_QUORUM, (0, 2), lambda name: DescribeQuorumRequest(topics=[]), NO_CLUSTER),
    _ask(K.UPDATE_FEATURES, (0, 2), sample_requests.update_features, NO_CLUSTER),
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
    _ask(K.ALTER_CLIENT_QUOTAS, (0, 1), sample_requests.alter_quota, NO_CLUSTER),
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
    _ask(K.DESCRIBE_TOPIC_PARTITIONS, (0,), sample_requests.describe_partitions, NO_TOPIC),
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
    _ask(K.DESCRIBE_SHARE_GROUP_OFFSETS, (0, 1), sample_requests.describe_share_offsets, NO_GROUP),
    _ask(K.ALTER_SHARE_GROUP_OFFSETS, (0,), sample_requests.alter_share_offsets, NO_GROUP),
    _ask(K.DELETE_SHARE_GROUP_OFFSETS, (0,), sample_requests.delete_share_offsets, NO_GROUP),
    # Everybody may ask; who may see nothing is shown nothing.
    _ask(K.LIST_GROUPS, (0, 5), lambda name: ListGroupsRequest()),
    _ask(K.LIST_TRANSACTIONS, (0, 2), lambda name: ListTransactionsRequest()),
    _ask(K.DESCRIBE_CLUSTER, (0, 2), lambda name: DescribeClusterRequest(include_cluster_authorized_operations=True)),
    _ask(K.API_VERSIONS, (0,), lambda name: ApiVersionsRequest()),
)  # fmt: skip


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
