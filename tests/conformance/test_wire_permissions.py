"""Every API, called by a principal with a single permission."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fixtures import sample_requests
from fixtures.guests import CLUSTER, GROUP, NO_CLUSTER, NO_GROUP, NO_TOPIC, NO_TXN_ID, TOPIC, TXN_ID, Guest, codes_in
from fixtures.streams_members import Member, topology
from fixtures.waiting import eventually
from fixtures.wire import Wire, batch, fetch_topic
from test_wire_share import Consumer, acquired

from penstock.base.acls import Operation, PatternType
from penstock.wire.api_keys import ApiKey as K
from penstock.wire.error_codes import ErrorCode as E
from penstock.wire.messages import (
    add_partitions_to_txn,
    delete_topics,
    describe_topic_partitions,
    fetch,
    metadata,
    offset_fetch,
)
from penstock.wire.messages.add_offsets_to_txn import AddOffsetsToTxnRequest
from penstock.wire.messages.describe_cluster import DescribeClusterRequest
from penstock.wire.messages.describe_groups import DescribeGroupsRequest
from penstock.wire.messages.describe_transactions import DescribeTransactionsRequest
from penstock.wire.messages.end_txn import EndTxnRequest
from penstock.wire.messages.init_producer_id import InitProducerIdRequest
from penstock.wire.messages.list_groups import ListGroupsRequest
from penstock.wire.messages.list_transactions import ListTransactionsRequest
from penstock.wire.messages.streams_group_describe import StreamsGroupDescribeRequest

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


def test_pages_go_on_where_a_topic_may_not_be_seen_any_more(admin: Wire, guest: Guest) -> None:
    """A cursor is a promise about order, not about rights; one that is in no list of topics is a mistake."""
    first, second = (f"{guest.host}-{name}" for name in ("first", "second"))
    for name in (first, second):
        admin.create_topic(name, partitions=2)
        guest.may(Operation.DESCRIBE, TOPIC, name)

    def page(names: list[str], cursor: tuple[str, int] | None) -> Any:
        start = None if cursor is None else describe_topic_partitions.DescribeTopicPartitionsRequestCursor(
            topic_name=cursor[0], partition_index=cursor[1]
        )  # fmt: skip
        topics = [describe_topic_partitions.TopicRequest(name=name) for name in names]
        request = describe_topic_partitions.DescribeTopicPartitionsRequest(
            topics=topics, response_partition_limit=3, cursor=start
        )
        answer = guest.wire.call(K.DESCRIBE_TOPIC_PARTITIONS, 0, request)
        return [(topic.name, topic.error_code, len(topic.partitions)) for topic in answer.topics]

    assert page([], None) == page([second, first], None) == [(first, 0, 2), (second, 0, 1)]
    assert page([], (second, 1)) == page([first, second], (second, 1)) == [(second, 0, 1)]
    guest.may_not(Operation.DESCRIBE, TOPIC, first)
    assert page([], (first, 1)) == [(second, 0, 2)]
    assert page([first, second], (first, 1)) == [(second, 0, 2), (first, NO_TOPIC, 0)]
    for cursor in ((second, -1), ("absent", 0)):
        assert page([second], cursor) == [(second, E.INVALID_REQUEST, 0)]
    assert page([], (second, -1)) == []


def test_committed_offsets_of_all_topics_are_those_one_may_describe(guest: Guest, secret: str) -> None:
    request = offset_fetch.OffsetFetchRequest(
        topics=None, groups=[offset_fetch.OffsetFetchRequestGroup(group_id=secret, topics=None)]
    )
    guest.may(Operation.DESCRIBE, GROUP, secret)
    assert guest.wire.call(K.OFFSET_FETCH, 8, request).groups[0].topics == []
    named = guest.wire.call(K.OFFSET_FETCH, 8, sample_requests.fetch_offsets(secret)).groups[0]
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
    by_name = guest.wire.call(K.DELETE_TOPICS, 6, sample_requests.delete_topic(secret)).responses[0]
    assert (by_name.error_code, by_name.name, bytes(by_name.topic_id)) == (NO_TOPIC, secret, bytes(16))
    missing = guest.wire.call(K.DELETE_TOPICS, 6, sample_requests.delete_topic("absent")).responses[0]
    assert missing.error_code == NO_TOPIC


def test_who_is_denied_to_describe_a_topic_cannot_delete_it_by_its_name(admin: Wire, guest: Guest) -> None:
    name = f"{guest.host}-hidden"
    topic_id = admin.create_topic(name)
    guest.may(Operation.ALL, TOPIC, name)
    guest.may_not(Operation.DESCRIBE, TOPIC, name)
    (by_name,) = guest.wire.call(K.DELETE_TOPICS, 6, sample_requests.delete_topic(name)).responses
    assert (by_name.error_code, by_name.name) == (NO_TOPIC, name)
    state = delete_topics.DeleteTopicState(name=None, topic_id=topic_id)
    request = delete_topics.DeleteTopicsRequest(topics=[state], timeout_ms=5000)
    assert guest.wire.call(K.DELETE_TOPICS, 6, request).responses[0].error_code == E.NONE


def test_topics_come_by_a_permission_on_the_cluster_or_on_their_names(guest: Guest) -> None:
    mine, other = f"{guest.host}-mine", f"{guest.host}-other"

    def create(name: str) -> Any:
        (result,) = guest.wire.call(K.CREATE_TOPICS, 7, sample_requests.create_topic(name)).topics
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
        assert (
            guest.wire.call(K.DELETE_TOPICS, 6, sample_requests.delete_topic(name)).responses[0].error_code == code
        ), name


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
    asked = sample_requests.add_partitions(secret)
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

    commit = sample_requests.commit_in_transaction(secret)
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
        asked = sample_requests.add_partitions(about)
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
        (K.PRODUCE, 9, both(sample_requests.produce(mine), "topic_data"), NO_TOPIC),
        (K.LIST_OFFSETS, 7, both(sample_requests.list_offsets(mine), "topics"), NO_TOPIC),
        (K.OFFSET_COMMIT, 8, both(sample_requests.commit_offsets(mine), "topics"), NO_TOPIC),
        (K.OFFSET_DELETE, 0, both(sample_requests.forget_offsets(mine), "topics"), NO_TOPIC),
        (K.OFFSET_FOR_LEADER_EPOCH, 4, both(sample_requests.epoch_offsets(mine), "topics"), NO_TOPIC),
        (K.FETCH, 11, both(sample_requests.fetch(mine), "topics"), NO_TOPIC),
        (K.DELETE_RECORDS, 2, both(sample_requests.delete_records(mine), "topics"), NO_TOPIC),
    ):
        answer = guest.wire.call(key, version, request)
        assert {*codes_in(answer)} == {0, code}, (key, answer)
