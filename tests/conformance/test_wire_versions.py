"""Every version that is advertised is answered, and each client in use gets through its day with the versions it uses.

The versions of clients are those of the inventory of real ones: what each of them was seen to send.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import pytest
from fixtures.waiting import eventually
from fixtures.wire import Wire, batch, fetch_topic, records_of

from penstock.wire.api_keys import ApiKey
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages import (
    fetch,
    heartbeat,
    join_group,
    leave_group,
    list_offsets,
    metadata,
    offset_commit,
    offset_fetch,
    produce,
    sync_group,
)
from penstock.wire.messages.api_versions import ApiVersionsRequest
from penstock.wire.messages.find_coordinator import FindCoordinatorRequest
from penstock.wire.messages.index import APIS
from penstock.wire.messages.init_producer_id import InitProducerIdRequest

# Requests whose defaults ask for nothing that can be answered, or wait.
MINIMAL: Mapping[ApiKey, Mapping[str, Any]] = {
    ApiKey.API_VERSIONS: {"client_software_name": "raw", "client_software_version": "1"},
    ApiKey.INIT_PRODUCER_ID: {"transactional_id": None, "transaction_timeout_ms": 60_000},
    ApiKey.PRODUCE: {"acks": -1, "timeout_ms": 1000},
    ApiKey.FETCH: {"max_wait_ms": 0, "session_epoch": -1},
    ApiKey.DESCRIBE_ACLS: {"resource_type_filter": 1, "operation": 1, "permission_type": 1},
}


def _minimal(key: ApiKey) -> Any:
    name = APIS[key][0]
    request = "".join(part.capitalize() for part in name.split("_")) + "Request"
    return getattr(import_module(f"penstock.wire.messages.{name}"), request)(**MINIMAL.get(key, {}))


@pytest.mark.differs("Apache Kafka advertises more than is asked for here")
def test_every_advertised_version_is_answered(connect: Callable[..., Wire], wire: Wire) -> None:
    advertised = wire.call(ApiKey.API_VERSIONS, 0, ApiVersionsRequest()).api_keys
    asked = 0
    for entry in advertised:
        key = ApiKey(entry.api_key)
        for version in range(max(entry.min_version, APIS[key][1]), entry.max_version + 1):
            if key == ApiKey.PRODUCE and version < 3:
                continue  # Advertised, never served: KAFKA-18659.
            connect().call(key, version, _minimal(key))
            asked += 1
    assert asked > 150


def _with_cluster(wire: Wire, cluster: str | None, node: int) -> int:
    request = ApiVersionsRequest(
        client_software_name="raw", client_software_version="1", cluster_id=cluster, node_id=node
    )
    return int(wire.call(ApiKey.API_VERSIONS, 5, request).error_code)


def test_api_versions_of_clients_that_name_the_cluster(wire: Wire) -> None:
    known = wire.metadata([])
    assert _with_cluster(wire, None, -1) == 0
    assert _with_cluster(wire, known.cluster_id, known.brokers[0].node_id) == 0
    assert _with_cluster(wire, "wrong-cluster-id-12345", known.brokers[0].node_id) == ErrorCode.REBOOTSTRAP_REQUIRED


@pytest.mark.differs("agents are interchangeable, so that none is the wrong one")
def test_api_versions_of_clients_that_name_another_node(wire: Wire) -> None:
    assert _with_cluster(wire, wire.metadata([]).cluster_id, 4711) == 0


C, P, F, L, M = ApiKey.API_VERSIONS, ApiKey.PRODUCE, ApiKey.FETCH, ApiKey.LIST_OFFSETS, ApiKey.METADATA
FIND, JOIN, SYNC, BEAT, LEAVE = (
    ApiKey.FIND_COORDINATOR, ApiKey.JOIN_GROUP, ApiKey.SYNC_GROUP, ApiKey.HEARTBEAT, ApiKey.LEAVE_GROUP,
)  # fmt: skip
COMMIT, STORED, INIT = ApiKey.OFFSET_COMMIT, ApiKey.OFFSET_FETCH, ApiKey.INIT_PRODUCER_ID

CLIENTS: Mapping[str, Mapping[ApiKey, int]] = {
    "lowest of all": {
        C: 0, M: 0, INIT: 0, P: 3, F: 4, L: 1, FIND: 0, JOIN: 0, SYNC: 0, BEAT: 0, COMMIT: 2, STORED: 1, LEAVE: 0,
    },
    "kafka-python 2.0.2": {
        C: 0, M: 1, P: 7, F: 4, L: 1, FIND: 0, JOIN: 2, SYNC: 1, BEAT: 1, COMMIT: 2, STORED: 1, LEAVE: 1,
    },
    "aiokafka 0.14": {
        C: 0, M: 5, INIT: 0, P: 7, F: 11, L: 1, FIND: 1, JOIN: 5, SYNC: 3, BEAT: 1, COMMIT: 2, STORED: 1, LEAVE: 1,
    },
    "kafka-go 0.4.51": {
        C: 0, M: 6, P: 8, F: 10, L: 1, FIND: 0, JOIN: 2, SYNC: 0, BEAT: 0, COMMIT: 2, STORED: 1, LEAVE: 0,
    },
    "KafkaJS 2.2.4": {
        C: 2, M: 6, INIT: 1, P: 7, F: 11, L: 3, FIND: 1, JOIN: 5, SYNC: 3, BEAT: 3, COMMIT: 5, STORED: 4, LEAVE: 3,
    },
    "Java 2.1.1": {
        C: 2, M: 7, INIT: 1, P: 7, F: 10, L: 4, FIND: 2, JOIN: 3, SYNC: 2, BEAT: 2, COMMIT: 6, STORED: 5, LEAVE: 2,
    },
    "Java 2.8.2": {
        C: 3, M: 11, INIT: 4, P: 9, F: 12, L: 6, FIND: 3, JOIN: 7, SYNC: 5, BEAT: 4, COMMIT: 8, STORED: 7, LEAVE: 4,
    },
    "Java 3.9.1": {
        C: 4, M: 12, INIT: 5, P: 11, F: 17, L: 9, FIND: 6, JOIN: 9, SYNC: 5, BEAT: 4, COMMIT: 9, STORED: 9, LEAVE: 5,
    },
    "librdkafka 2.16": {
        C: 3, M: 13, INIT: 4, P: 10, F: 16, L: 7, FIND: 2, JOIN: 5, SYNC: 3, BEAT: 3, COMMIT: 9, STORED: 9, LEAVE: 1,
    },
    "sarama 1.61": {
        C: 3, M: 11, INIT: 4, P: 9, F: 12, L: 4, FIND: 2, JOIN: 7, SYNC: 4, BEAT: 4, COMMIT: 7, STORED: 7, LEAVE: 4,
    },
    "kafka-python 3.0.12": {
        C: 4, M: 12, INIT: 5, P: 9, F: 12, L: 11, FIND: 6, JOIN: 7, SYNC: 5, BEAT: 4, COMMIT: 9, STORED: 8, LEAVE: 5,
    },
    "franz-go 1.22": {
        C: 5, M: 13, INIT: 5, P: 13, F: 18, L: 11, FIND: 6, JOIN: 9, SYNC: 5, BEAT: 4, COMMIT: 10, STORED: 10, LEAVE: 5,
    },
}  # fmt: skip


class Client:
    """What a client does from its start to its end, in the versions it knows."""

    def __init__(self, wire: Wire, versions: Mapping[ApiKey, int], topic: str, topic_id: bytes) -> None:
        self._wire, self._versions, self.topic, self.topic_id = wire, versions, topic, topic_id

    def ask(self, key: ApiKey, request: Any) -> Any:
        """A request in the client's version of it; an error of the whole answer fails the test."""
        answer = self._wire.call(key, self._versions[key], request)
        assert getattr(answer, "error_code", 0) == 0, (key.name, answer)
        return answer

    def by_id(self, key: ApiKey, since: int) -> dict[str, Any]:
        """How the topic is named in this API."""
        if self._versions[key] >= since:
            return {"topic_id": self.topic_id}
        return {"topic" if key == F else "name": self.topic}

    def start(self) -> None:
        self.ask(C, ApiVersionsRequest(client_software_name="raw", client_software_version="1"))
        everything: list[Any] | None = [] if self._versions[M] == 0 else None
        topics = self.ask(M, metadata.MetadataRequest(topics=everything)).topics
        assert self.topic in [topic.name for topic in topics]

    def produce(self, *values: bytes) -> int:
        identity = {}
        if INIT in self._versions:
            request = InitProducerIdRequest(transactional_id=None, transaction_timeout_ms=60_000)
            given = self.ask(INIT, request)
            identity = {"producer_id": given.producer_id, "producer_epoch": 0, "base_sequence": 0}
        data = produce.PartitionProduceData(index=0, records=batch(*values, **identity))
        topic = produce.TopicProduceData(partition_data=[data], **self.by_id(P, 13))
        request = produce.ProduceRequest(acks=-1, timeout_ms=20_000, topic_data=[topic])
        (answer,) = self.ask(P, request).responses[0].partition_responses
        assert answer.error_code == 0
        return int(answer.base_offset)

    def end(self) -> int:
        asked = list_offsets.ListOffsetsPartition(partition_index=0, timestamp=-1)
        topic = list_offsets.ListOffsetsTopic(name=self.topic, partitions=[asked])
        return int(self.ask(L, list_offsets.ListOffsetsRequest(topics=[topic])).topics[0].partitions[0].offset)

    def fetch(self, offset: int) -> list[bytes | None]:
        wanted = fetch.FetchPartition(partition=0, fetch_offset=offset, partition_max_bytes=1 << 20)
        name = self.topic_id if self._versions[F] >= 13 else self.topic
        request = fetch.FetchRequest(
            max_wait_ms=1000, min_bytes=1, max_bytes=1 << 20, session_epoch=-1, topics=[fetch_topic(name, [wanted])]
        )
        (answer,) = self.ask(F, request).responses[0].partitions
        assert answer.error_code == 0
        return [record.value for record in records_of(answer.records)]

    def coordinator(self, group: str) -> None:
        def found() -> bool:
            request = FindCoordinatorRequest(key=group, key_type=0, coordinator_keys=[group])
            answer = self._wire.call(FIND, self._versions[FIND], request)
            one = answer.coordinators[0] if self._versions[FIND] >= 4 else answer
            return one.error_code == 0 and one.port > 0

        eventually(found, what="a coordinator")

    def join(self, group: str) -> tuple[str, int]:
        """Join and sync as the only member; its id and generation."""
        member_id = ""
        for _ in range(2):  # From version 4 on the first answer only gives the id.
            request = join_group.JoinGroupRequest(
                group_id=group, session_timeout_ms=10_000, rebalance_timeout_ms=15_000, member_id=member_id,
                protocol_type="consumer", protocols=[join_group.JoinGroupRequestProtocol(name="range", metadata=b"m")],
            )  # fmt: skip
            answer = self._wire.call(JOIN, self._versions[JOIN], request)
            member_id = answer.member_id
            if answer.error_code == 0:
                break
        assert (answer.error_code, answer.leader) == (0, member_id)
        assignment = sync_group.SyncGroupRequestAssignment(member_id=member_id, assignment=b"everything")
        request = sync_group.SyncGroupRequest(
            group_id=group, generation_id=answer.generation_id, member_id=member_id, protocol_type="consumer",
            protocol_name="range", assignments=[assignment],
        )  # fmt: skip
        assert bytes(self.ask(SYNC, request).assignment) == b"everything"
        return member_id, answer.generation_id

    def beat(self, group: str, member_id: str, generation: int) -> None:
        request = heartbeat.HeartbeatRequest(group_id=group, member_id=member_id, generation_id=generation)
        self.ask(BEAT, request)

    def commit(self, group: str, member_id: str, generation: int, offset: int) -> None:
        partition = offset_commit.OffsetCommitRequestPartition(
            partition_index=0, committed_offset=offset, committed_metadata="m"
        )
        topic = offset_commit.OffsetCommitRequestTopic(partitions=[partition], **self.by_id(COMMIT, 10))
        request = offset_commit.OffsetCommitRequest(
            group_id=group, member_id=member_id, generation_id_or_member_epoch=generation, topics=[topic]
        )
        assert self.ask(COMMIT, request).topics[0].partitions[0].error_code == 0

    def committed(self, group: str) -> int:
        if self._versions[STORED] >= 8:
            topic = offset_fetch.OffsetFetchRequestTopics(partition_indexes=[0], **self.by_id(STORED, 10))
            asked = offset_fetch.OffsetFetchRequestGroup(group_id=group, topics=[topic])
            answer = self.ask(STORED, offset_fetch.OffsetFetchRequest(groups=[asked])).groups[0]
        else:
            topics = [offset_fetch.OffsetFetchRequestTopic(name=self.topic, partition_indexes=[0])]
            answer = self.ask(STORED, offset_fetch.OffsetFetchRequest(group_id=group, topics=topics))
        return int(answer.topics[0].partitions[0].committed_offset)

    def leave(self, group: str, member_id: str) -> None:
        members = [leave_group.MemberIdentity(member_id=member_id)] if self._versions[LEAVE] >= 3 else []
        named = {} if members else {"member_id": member_id}
        self.ask(LEAVE, leave_group.LeaveGroupRequest(group_id=group, members=members, **named))


@pytest.mark.parametrize("name", CLIENTS)
def test_a_day_of_a_client(wire: Wire, fresh_name: Callable[..., str], name: str) -> None:
    topic, group = fresh_name(), fresh_name("g")
    client = Client(wire, CLIENTS[name], topic, wire.create_topic(topic))
    client.start()
    assert client.produce(b"one", b"two") == 0
    assert client.produce(b"three") == 2
    assert client.end() == 3
    assert client.fetch(0) == [b"one", b"two", b"three"]
    client.coordinator(group)
    member_id, generation = client.join(group)
    client.beat(group, member_id, generation)
    assert client.committed(group) == -1
    client.commit(group, member_id, generation, 3)
    assert client.committed(group) == 3
    client.leave(group, member_id)
    assert client.committed(group) == 3


def test_clients_by_name_and_by_id_share_a_partition(wire: Wire, fresh_name: Callable[..., str]) -> None:
    topic = fresh_name()
    topic_id = wire.create_topic(topic)
    wire.produce(topic, batch(b"by name"))
    wire.produce(topic_id, batch(b"by id"))
    for which in (topic, topic_id):
        assert [record.value for record in wire.fetch_records(which)] == [b"by name", b"by id"]
