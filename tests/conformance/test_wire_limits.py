"""Limits of virtual clusters over the wire: with which codes, by which waits, and for whom."""

from __future__ import annotations

import time
from collections.abc import Iterator
from uuid import UUID

import pytest
from fixtures.raw_client import ConnectionClosed
from fixtures.secured import Secured
from fixtures.streams_members import Member, simple, topology
from fixtures.tenants import Tenant, api_key, log_in
from fixtures.waiting import eventually
from fixtures.wire import Wire, batch, fetch_topic

from penstock.wire.api_keys import ApiKey as K
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages import (
    alter_share_group_offsets,
    create_partitions,
    create_topics,
    fetch,
    join_group,
    offset_commit,
    share_fetch,
    txn_offset_commit,
    write_txn_markers,
)
from penstock.wire.messages.add_offsets_to_txn import AddOffsetsToTxnRequest
from penstock.wire.messages.alter_virtual_cluster import AlteredLimit, AlterVirtualClusterRequest
from penstock.wire.messages.consumer_group_heartbeat import ConsumerGroupHeartbeatRequest
from penstock.wire.messages.end_txn import EndTxnRequest
from penstock.wire.messages.init_producer_id import InitProducerIdRequest
from penstock.wire.messages.list_groups import ListGroupsRequest
from penstock.wire.messages.metadata import MetadataRequest
from penstock.wire.messages.share_group_heartbeat import ShareGroupHeartbeatRequest
from penstock.wire.messages.streams_group_heartbeat import StreamsGroupHeartbeatRequest

POLICY = ErrorCode.POLICY_VIOLATION


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    settings = {
        "super.users": "User:alice", "max.incremental.fetch.session.cache.slots": "4", "group.share.max.size": "4",
        "group.share.max.share.sessions": "4",
    }  # fmt: skip
    secured = Secured(tmp_path_factory.mktemp("limits"), settings=settings)
    secured.server.start()
    yield secured
    assert secured.server.stop() == 0


def limit(secured: Secured, cluster: str, **limits: float | None) -> None:
    changes = [AlteredLimit(key=key, value=value or 0.0, remove=value is None) for key, value in limits.items()]
    with log_in(secured) as admin:
        answer = admin.call(K.ALTER_VIRTUAL_CLUSTER, 0, AlterVirtualClusterRequest(name=cluster, limits=changes))
        assert answer.error_code == 0, answer.error_message


def join(wire: Wire, group: str) -> int:
    protocol = join_group.JoinGroupRequestProtocol(name="range", metadata=b"")
    request = join_group.JoinGroupRequest(
        group_id=group, session_timeout_ms=10_000, rebalance_timeout_ms=10_000, member_id="",
        protocol_type="consumer", protocols=[protocol],
    )  # fmt: skip
    return int(wire.call(K.JOIN_GROUP, 3, request).error_code)


def test_partitions(secured: Secured) -> None:
    tenant = Tenant(secured, "few-partitions")
    limit(secured, tenant.name, partitions=2)
    with tenant.connect() as wire:
        topics = [
            create_topics.CreatableTopic(name=name, num_partitions=1, replication_factor=1) for name in ("a", "b", "c")
        ]
        answer = wire.call(K.CREATE_TOPICS, 7, create_topics.CreateTopicsRequest(topics=topics, timeout_ms=5000))
        assert [topic.error_code for topic in answer.topics] == [0, 0, POLICY], "the first of them have room"
        found = wire.metadata(["new"], auto_create=True).topics[0]
        assert found.error_code == POLICY
        more = create_partitions.CreatePartitionsTopic(name="a", count=2)
        (extended,) = wire.call(
            K.CREATE_PARTITIONS, 3, create_partitions.CreatePartitionsRequest(topics=[more], timeout_ms=5000)
        ).results
        assert extended.error_code == POLICY
        member = Member(wire, "g", "m", topology("a", application="words"))
        told = [one.status_detail for one in member.beat().status]
        assert any("words-changelog (This cluster may have 2 partitions" in detail for detail in told), told
        assert {topic.name for topic in wire.metadata(None).topics} == {"a", "b"}


def test_groups_of_every_kind(secured: Secured) -> None:
    tenant = Tenant(secured, "few-groups")
    limit(secured, tenant.name, groups=1)
    with tenant.connect() as wire:
        wire.create_topic("t")
        assert join(wire, "one") == 0
        assert join(wire, "two") == POLICY
        assert join(wire, "one") != POLICY, "it is there"
        beat = ConsumerGroupHeartbeatRequest(
            group_id="two", member_id="m", member_epoch=0, rebalance_timeout_ms=10_000, subscribed_topic_names=["t"],
            topic_partitions=[],
        )  # fmt: skip
        assert wire.call(K.CONSUMER_GROUP_HEARTBEAT, 1, beat).error_code == POLICY
        share = ShareGroupHeartbeatRequest(
            group_id="two", member_id="m", member_epoch=0, rack_id=None, subscribed_topic_names=["t"]
        )  # fmt: skip
        assert wire.call(K.SHARE_GROUP_HEARTBEAT, 1, share).error_code == POLICY
        streams = StreamsGroupHeartbeatRequest(
            group_id="two", member_id="m", member_epoch=0, rebalance_timeout_ms=10_000, topology=simple("t"),
            process_id="p", active_tasks=[], standby_tasks=[], warmup_tasks=[],
        )  # fmt: skip
        assert wire.call(K.STREAMS_GROUP_HEARTBEAT, 0, streams).error_code == POLICY
        begins = alter_share_group_offsets.AlterShareGroupOffsetsRequestPartition(partition_index=0, start_offset=0)
        topic = alter_share_group_offsets.AlterShareGroupOffsetsRequestTopic(topic_name="t", partitions=[begins])
        altered = alter_share_group_offsets.AlterShareGroupOffsetsRequest(group_id="two", topics=[topic])
        assert wire.call(K.ALTER_SHARE_GROUP_OFFSETS, 0, altered).error_code == POLICY
        part = offset_commit.OffsetCommitRequestPartition(partition_index=0, committed_offset=0, committed_metadata="")
        topic = offset_commit.OffsetCommitRequestTopic(name="t", partitions=[part])
        commit = offset_commit.OffsetCommitRequest(
            group_id="two", generation_id_or_member_epoch=-1, member_id="", topics=[topic]
        )  # fmt: skip
        assert wire.call(K.OFFSET_COMMIT, 7, commit).topics[0].partitions[0].error_code == POLICY
    limit(secured, tenant.name, groups=None)
    with tenant.connect() as wire:
        assert join(wire, "two") == 0


@pytest.mark.parametrize("version", [3, 5])
def test_groups_that_come_into_being_by_a_transaction(secured: Secured, version: int) -> None:
    tenant = Tenant(secured, f"few-relays-{version}")
    with tenant.connect() as wire:
        wire.create_topic("t")
        named = InitProducerIdRequest(transactional_id="relay", transaction_timeout_ms=10_000)
        begun = wire.call(K.INIT_PRODUCER_ID, 4, named)
        producer = {"transactional_id": "relay", "producer_id": begun.producer_id, "producer_epoch": 0}

        def send_offsets(group: str) -> int:
            if version < 5:
                added = wire.call(K.ADD_OFFSETS_TO_TXN, 3, AddOffsetsToTxnRequest(group_id=group, **producer))
                assert added.error_code == 0
            part = txn_offset_commit.TxnOffsetCommitRequestPartition(partition_index=0, committed_offset=1)
            topic = txn_offset_commit.TxnOffsetCommitRequestTopic(name="t", partitions=[part])
            request = txn_offset_commit.TxnOffsetCommitRequest(
                group_id=group, generation_id_or_member_epoch=-1, member_id="", topics=[topic], **producer
            )
            return int(wire.call(K.TXN_OFFSET_COMMIT, version, request).topics[0].partitions[0].error_code)

        limit(secured, tenant.name, groups=2)
        assert send_offsets("one") == 0
        assert join(wire, "two") == 0
        assert join(wire, "three") == POLICY, "the first one is there although nothing is committed yet"
        assert send_offsets("three") == POLICY
        assert send_offsets("one") == 0
        assert send_offsets("two") != POLICY, "it is there"
        ended = wire.call(K.END_TXN, 4, EndTxnRequest(committed=True, **producer))
        assert ended.error_code == 0, "it is not harmed by what was refused"
        assert {group.group_id for group in wire.call(K.LIST_GROUPS, 4, ListGroupsRequest()).groups} == {"one", "two"}


def fetch_session(wire: Wire, session_id: int = 0, epoch: int = 0) -> tuple[int, int]:
    """A fetch in a session, which begins if it has none; the error code, and the session's id."""
    part = fetch.FetchPartition(partition=0, fetch_offset=0, partition_max_bytes=1000)
    request = fetch.FetchRequest(
        max_wait_ms=0, min_bytes=0, max_bytes=1000, session_id=session_id, session_epoch=epoch,
        topics=[] if session_id else [fetch_topic("t", [part])],
    )  # fmt: skip
    answer = wire.call(K.FETCH, 11, request)
    return int(answer.error_code), int(answer.session_id)


def test_nobody_takes_all_fetch_sessions_not_even_the_default_cluster(secured: Secured) -> None:
    tenant = Tenant(secured, "fetches")
    with log_in(secured) as many, tenant.connect() as few:
        for wire in (many, few):
            wire.create_topic("t")
        taken = [fetch_session(many)[1] for _ in range(4)]
        assert all(taken)
        assert fetch_session(many) == (0, 0), "it goes on without a session, as with Kafka"
        own = [fetch_session(few)[1] for _ in range(2)]
        assert all(own)
        assert fetch_session(few) == (0, 0), "half of them"
        lost = ErrorCode.FETCH_SESSION_ID_NOT_FOUND
        assert [fetch_session(many, session, 1)[0] for session in taken] == [lost, lost, 0, 0]
        assert fetch_session(many) == (0, 0), "what the tenant has it keeps"
        assert [fetch_session(few, session, 1) for session in own] == [(0, session) for session in own]


def test_nobody_takes_all_share_sessions_not_even_the_default_cluster(secured: Secured) -> None:
    tenant = Tenant(secured, "shares")

    def open_session(wire: Wire, topic_id: bytes, number: int, epoch: int = 0) -> int:
        part = share_fetch.FetchTopic(topic_id=topic_id, partitions=[share_fetch.FetchPartition(partition_index=0)])
        request = share_fetch.ShareFetchRequest(
            group_id="g", member_id=str(UUID(int=number + 1)), share_session_epoch=epoch, max_wait_ms=0, min_bytes=1,
            max_bytes=1000, max_records=10, batch_size=10, topics=[] if epoch else [part],
        )  # fmt: skip
        return int(wire.call(K.SHARE_FETCH, 1, request).error_code)

    with log_in(secured) as many, tenant.connect() as few:
        many_id, few_id = many.create_topic("shared"), few.create_topic("shared")
        full, lost = ErrorCode.SHARE_SESSION_LIMIT_REACHED, ErrorCode.SHARE_SESSION_NOT_FOUND
        assert [open_session(many, many_id, number) for number in range(5)] == [0, 0, 0, 0, full]
        assert [open_session(few, few_id, number) for number in range(3)] == [0, 0, full]
        assert [open_session(many, many_id, number, 1) for number in range(4)] == [lost, lost, 0, 0]
        assert open_session(many, many_id, 0) == full, "what the tenant has it keeps"
        assert [open_session(few, few_id, number, 1) for number in range(2)] == [0, 0]


def test_producer_ids(secured: Secured) -> None:
    tenant = Tenant(secured, "few-producers")
    limit(secured, tenant.name, producer_ids=2)
    with tenant.connect() as wire:
        wire.create_topic("t")
        plain = InitProducerIdRequest(transactional_id=None, transaction_timeout_ms=1000)
        made = wire.call(K.INIT_PRODUCER_ID, 4, plain)
        sent = batch(b"x", producer_id=made.producer_id, producer_epoch=0, base_sequence=0)
        assert wire.produce("t", sent).error_code == 0
        named = InitProducerIdRequest(transactional_id="mine", transaction_timeout_ms=1000)
        assert wire.call(K.INIT_PRODUCER_ID, 4, named).error_code == 0
        assert wire.call(K.INIT_PRODUCER_ID, 4, plain).error_code == POLICY
        other = InitProducerIdRequest(transactional_id="other", transaction_timeout_ms=1000)
        assert wire.call(K.INIT_PRODUCER_ID, 4, other).error_code == POLICY
        assert wire.call(K.INIT_PRODUCER_ID, 4, named).error_code == 0, "it has one"
        made_up = batch(b"x", producer_id=2**50, producer_epoch=0, base_sequence=0)
        assert wire.produce("t", made_up).error_code == POLICY, "nobody has given it out"
        assert mark(wire, "t", 2**50) == POLICY
        assert wire.list_offset("t", -1).offset == 1
        following = batch(b"x", producer_id=made.producer_id, producer_epoch=0, base_sequence=1)
        assert wire.produce("t", following).error_code == 0, "it is known"
        assert wire.produce("t", batch(b"x")).error_code == 0, "it has no producer id"
        assert mark(wire, "t", made.producer_id) == 0


def mark(wire: Wire, topic: str, producer_id: int) -> int:
    """Write a marker as an administrator may; the error code."""
    marked = write_txn_markers.WritableTxnMarkerTopic(name=topic, partition_indexes=[0])
    marker = write_txn_markers.WritableTxnMarker(producer_id=producer_id, producer_epoch=0, topics=[marked])
    answer = wire.call(K.WRITE_TXN_MARKERS, 1, write_txn_markers.WriteTxnMarkersRequest(markers=[marker]))
    return int(answer.markers[0].topics[0].partitions[0].error_code)


def test_requests_and_bytes_make_a_tenant_wait_and_nobody_else(secured: Secured) -> None:
    noisy, quiet = Tenant(secured, "noisy"), Tenant(secured, "quiet")
    with noisy.connect() as wire, noisy.connect() as second, quiet.connect() as other:
        for each in (wire, other):
            each.create_topic("t")
        limit(secured, "noisy", request_rate=50, bytes_in_rate=1_000_000)
        before = time.monotonic()
        said = [wire.call(K.METADATA, 12, MetadataRequest(topics=[])).throttle_time_ms for _ in range(80)]
        took_s = time.monotonic() - before
        assert said[0] == 0
        assert max(said) > 0
        assert 0.3 < took_s < 20, "thirty more than a second allows, at fifty a second"
        before = time.monotonic()
        assert all(other.call(K.METADATA, 12, MetadataRequest(topics=[])).throttle_time_ms == 0 for _ in range(80))
        limit(secured, "noisy", request_rate=None)
        answers = [wire.produce("t", batch(b"x" * 700_000)) for _ in range(4)]
        assert all(answer.error_code == 0 for answer in answers), "late, but taken"
        version, number = second.send_produce("t", batch(b"x"))
        assert second.receive(K.PRODUCE, version, number).throttle_time_ms > 0, "its other connections wait as well"
        before = time.monotonic()
        assert other.produce("t", batch(b"x")).error_code == 0


def test_what_is_fetched(secured: Secured) -> None:
    tenant = Tenant(secured, "reads-much")
    with tenant.connect() as wire:
        wire.create_topic("t")
        for _ in range(4):
            wire.produce("t", batch(b"x" * 200_000))
        limit(secured, tenant.name, bytes_out_rate=100_000)
        version, number = wire.send_fetch("t", 0, max_bytes=1 << 20)
        first = wire.receive(K.FETCH, version, number)
        assert first.throttle_time_ms > 500
        assert len(first.responses[0].partitions[0].records) > 0
        limit(secured, tenant.name, bytes_out_rate=None)


def test_connections_at_a_time(secured: Secured) -> None:
    tenant = Tenant(secured, "few-connections")
    limit(secured, tenant.name, connections=2)
    one, two = tenant.connect(), tenant.connect()
    with pytest.raises(ConnectionClosed):
        tenant.connect()
    with log_in(secured) as admin:
        assert admin.metadata([]).cluster_id, "others come in"
    one.close()

    def again() -> bool:
        try:
            tenant.connect().close()
        except ConnectionClosed:
            return False
        return True

    eventually(again, what="room for a connection")
    two.close()
    page = secured.server.http_text("/metrics")
    assert 'penstock_cluster_connections_refused_total{cluster="few-connections",limit="connections"}' in page


def test_connections_a_second(secured: Secured) -> None:
    tenant = Tenant(secured, "eager")
    limit(secured, tenant.name, connection_rate=3)
    refused = 0
    for _ in range(6):
        try:
            tenant.connect().close()
        except ConnectionClosed:
            refused += 1
    assert refused > 0
    with log_in(secured) as admin:
        assert api_key(admin, "somebody"), "others come in"
