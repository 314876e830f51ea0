"""Limits of virtual clusters over the wire: with which codes, by which waits, and for whom."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from fixtures.raw_client import ConnectionClosed
from fixtures.secured import Secured
from fixtures.streams_members import simple
from fixtures.tenants import Tenant, api_key, log_in
from fixtures.waiting import eventually
from fixtures.wire import Wire, batch

from penstock.wire.api_keys import ApiKey as K
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages import create_topics, join_group, offset_commit
from penstock.wire.messages.alter_virtual_cluster import AlteredLimit, AlterVirtualClusterRequest
from penstock.wire.messages.consumer_group_heartbeat import ConsumerGroupHeartbeatRequest
from penstock.wire.messages.init_producer_id import InitProducerIdRequest
from penstock.wire.messages.metadata import MetadataRequest
from penstock.wire.messages.share_group_heartbeat import ShareGroupHeartbeatRequest
from penstock.wire.messages.streams_group_heartbeat import StreamsGroupHeartbeatRequest

POLICY = ErrorCode.POLICY_VIOLATION


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    secured = Secured(tmp_path_factory.mktemp("limits"), settings={"super.users": "User:alice"})
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
        part = offset_commit.OffsetCommitRequestPartition(partition_index=0, committed_offset=0, committed_metadata="")
        topic = offset_commit.OffsetCommitRequestTopic(name="t", partitions=[part])
        commit = offset_commit.OffsetCommitRequest(
            group_id="two", generation_id_or_member_epoch=-1, member_id="", topics=[topic]
        )  # fmt: skip
        assert wire.call(K.OFFSET_COMMIT, 7, commit).topics[0].partitions[0].error_code == POLICY
    limit(secured, tenant.name, groups=None)
    with tenant.connect() as wire:
        assert join(wire, "two") == 0


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
