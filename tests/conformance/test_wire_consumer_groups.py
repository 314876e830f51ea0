"""Consumer groups of KIP-848 on the wire: heartbeats, descriptions, offsets, and the code for every mistake."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fixtures.waiting import eventually
from fixtures.wire import Wire

from penstock.wire.api_keys import ApiKey
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages import consumer_group_heartbeat as beats
from penstock.wire.messages import offset_commit, offset_fetch
from penstock.wire.messages.api_versions import ApiVersionsRequest
from penstock.wire.messages.consumer_group_describe import ConsumerGroupDescribeRequest
from penstock.wire.messages.delete_groups import DeleteGroupsRequest
from penstock.wire.messages.describe_groups import DescribeGroupsRequest
from penstock.wire.messages.list_groups import ListGroupsRequest

Owned = dict[bytes, list[int]]


class Member:
    """A member that brings its own id."""

    def __init__(self, wire: Wire, group: str, member_id: str, instance_id: str | None = None) -> None:
        self.wire, self.group, self.member_id, self.instance_id = wire, group, member_id, instance_id
        self.epoch = 0
        self.has: Owned = {}

    def beat(self, *, owned: Owned | None = None, version: int = 1, **fields: Any) -> Any:
        listed = None
        if owned is not None:
            listed = [
                beats.ConsumerGroupHeartbeatRequestTopicPartitions(topic_id=topic_id, partitions=partitions)
                for topic_id, partitions in owned.items()
            ]
        fields.setdefault("member_epoch", self.epoch)
        fields.setdefault("group_id", self.group)
        fields.setdefault("member_id", self.member_id)
        fields.setdefault("instance_id", self.instance_id)
        request = beats.ConsumerGroupHeartbeatRequest(topic_partitions=listed, **fields)
        answer = self.wire.call(ApiKey.CONSUMER_GROUP_HEARTBEAT, version, request)
        if answer.error_code == 0:
            self.member_id, self.epoch = answer.member_id, answer.member_epoch
            if answer.assignment is not None:
                self.has = {
                    bytes(topic.topic_id): list(topic.partitions) for topic in answer.assignment.topic_partitions
                }
        return answer

    def join(self, *topics: str, **fields: Any) -> Any:
        fields.setdefault("rebalance_timeout_ms", 60_000)
        fields.setdefault("subscribed_topic_names", list(topics))
        self.epoch = 0
        return self.beat(owned={}, **fields)

    def settle(self, count: int) -> None:
        """Go on, giving back what has to be given back, until that many partitions are here."""

        def settled() -> bool:
            owned = self.has
            assert self.beat(owned=owned).error_code == 0
            return owned == self.has and sum(map(len, owned.values())) == count

        eventually(settled, what=f"{count} partitions", within_s=20)


@pytest.fixture
def member(connect: Callable[..., Wire], fresh_name: Callable[..., str]) -> Callable[..., Member]:
    """Makes members of a group."""
    group, count = fresh_name("g"), iter(range(100))

    def make(member_id: str | None = None, **options: Any) -> Member:
        return Member(connect(), group, f"member-{next(count)}" if member_id is None else member_id, **options)

    return make


@pytest.fixture
def four(wire: Wire, fresh_name: Callable[..., str]) -> tuple[str, bytes]:
    """A topic of four partitions and its id."""
    name = fresh_name()
    return name, wire.create_topic(name, partitions=4)


def described(member: Member, version: int = 1) -> Any:
    request = ConsumerGroupDescribeRequest(group_ids=[member.group], include_authorized_operations=True)
    return member.wire.call(ApiKey.CONSUMER_GROUP_DESCRIBE, version, request).groups[0]


def test_features_say_that_there_are_consumer_groups(wire: Wire) -> None:
    answer = wire.call(
        ApiKey.API_VERSIONS, 4, ApiVersionsRequest(client_software_name="test", client_software_version="1")
    )
    assert {one.name: one.max_version_level for one in answer.finalized_features}["group.version"] == 1


def test_two_members_share_a_topic(member: Callable[..., Member], four: tuple[str, bytes]) -> None:
    topic, topic_id = four
    first, second = member(), member()
    answer = first.join(topic)
    assert (answer.error_code, answer.member_id, answer.member_epoch) == (0, first.member_id, 1)
    assert first.has == {topic_id: [0, 1, 2, 3]}
    assert second.join(topic).error_code == 0
    assert second.has == {}
    first.settle(2)
    second.settle(2)
    assert sorted(first.has[topic_id] + second.has[topic_id]) == [0, 1, 2, 3]
    assert first.beat().assignment is None
    group = described(first)
    assert (group.error_code, group.group_state, group.assignor_name) == (0, "Stable", "uniform")
    assert group.group_epoch == group.assignment_epoch == first.epoch == second.epoch
    assert group.authorized_operations != -(1 << 31)
    (mine,) = (one for one in group.members if one.member_id == first.member_id)
    assert (mine.member_epoch, list(mine.subscribed_topic_names), mine.member_type) == (first.epoch, [topic], 1)
    for assignment in (mine.assignment, mine.target_assignment):
        (listed,) = assignment.topic_partitions
        assert (bytes(listed.topic_id), listed.topic_name) == (topic_id, topic)
        assert sorted(listed.partitions) == sorted(first.has[topic_id])
    assert second.beat(member_epoch=-1).member_epoch == -1
    first.settle(4)


def test_old_version_gets_an_id_from_the_broker(member: Callable[..., Member], four: tuple[str, bytes]) -> None:
    one = member("")
    assert one.join(four[0], version=0).error_code == 0
    assert len(one.member_id) == 22
    assert member("").join(four[0]).error_code == ErrorCode.INVALID_REQUEST


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"group_id": ""}, ErrorCode.INVALID_REQUEST),
        ({"member_id": " "}, ErrorCode.INVALID_REQUEST),
        ({"instance_id": ""}, ErrorCode.INVALID_REQUEST),
        ({"rack_id": ""}, ErrorCode.INVALID_REQUEST),
        ({"rebalance_timeout_ms": -1}, ErrorCode.INVALID_REQUEST),
        ({"subscribed_topic_names": None}, ErrorCode.INVALID_REQUEST),
        ({"server_assignor": "sticky"}, ErrorCode.UNSUPPORTED_ASSIGNOR),
        ({"subscribed_topic_names": None, "subscribed_topic_regex": "("}, ErrorCode.INVALID_REGULAR_EXPRESSION),
    ],
)
def test_first_requests_that_are_refused(
    member: Callable[..., Member], four: tuple[str, bytes], fields: dict[str, Any], error: ErrorCode
) -> None:
    answer = member().join(four[0], **fields)
    assert answer.error_code == error
    assert answer.error_message


def test_later_requests_that_are_refused(member: Callable[..., Member], four: tuple[str, bytes]) -> None:
    topic, topic_id = four
    one = member()
    assert one.beat(member_epoch=1).error_code == ErrorCode.GROUP_ID_NOT_FOUND
    assert one.beat(member_epoch=-1).error_code == ErrorCode.GROUP_ID_NOT_FOUND
    one.join(topic)
    assert member().beat(member_epoch=1).error_code == ErrorCode.UNKNOWN_MEMBER_ID
    assert member().beat(member_epoch=-1).error_code == ErrorCode.UNKNOWN_MEMBER_ID
    assert one.beat(member_epoch=7).error_code == ErrorCode.FENCED_MEMBER_EPOCH
    assert one.beat(member_epoch=-2).error_code == ErrorCode.INVALID_REQUEST
    assert one.beat(member_epoch=-3).error_code == ErrorCode.INVALID_REQUEST
    assert member().join(topic, rebalance_timeout_ms=-1).error_code == ErrorCode.INVALID_REQUEST
    owner = member()
    assert (
        owner.beat(
            member_epoch=0, rebalance_timeout_ms=1, subscribed_topic_names=[topic], owned={topic_id: [0]}
        ).error_code
        == ErrorCode.INVALID_REQUEST
    )


def test_static_members(member: Callable[..., Member], four: tuple[str, bytes]) -> None:
    topic, topic_id = four
    one = member(instance_id="one")
    one.join(topic)
    taken = member(instance_id="one").join(topic)
    assert (taken.error_code, taken.member_id) == (ErrorCode.UNRELEASED_INSTANCE_ID, None)
    old_epoch = one.epoch
    assert one.beat(member_epoch=-2).member_epoch == -2
    again = member(instance_id="one")
    answer = again.join(topic)
    assert (answer.error_code, answer.member_epoch) == (0, old_epoch)
    assert again.has == {topic_id: [0, 1, 2, 3]}
    assert one.beat(member_epoch=old_epoch).error_code == ErrorCode.FENCED_INSTANCE_ID
    assert described(again).members[0].instance_id == "one"


def test_regular_expression(member: Callable[..., Member], wire: Wire, fresh_name: Callable[..., str]) -> None:
    prefix = fresh_name("re")
    wire.create_topic(f"{prefix}-a", partitions=2)
    one = member()
    assert one.join(subscribed_topic_names=None, subscribed_topic_regex=f"{prefix}-[ab]").error_code == 0
    one.settle(2)
    wire.create_topic(f"{prefix}-ab")
    wire.create_topic(f"{prefix}-b")
    one.settle(3)
    assert described(one).members[0].subscribed_topic_regex == f"{prefix}-[ab]"


def commit(member: Member, topic: str, epoch: int, *, member_id: str | None = None, version: int = 9) -> int:
    wanted = offset_commit.OffsetCommitRequestPartition(partition_index=0, committed_offset=3, committed_metadata="")
    request = offset_commit.OffsetCommitRequest(
        group_id=member.group, generation_id_or_member_epoch=epoch,
        member_id=member.member_id if member_id is None else member_id,
        topics=[offset_commit.OffsetCommitRequestTopic(name=topic, partitions=[wanted])],
    )  # fmt: skip
    return int(member.wire.call(ApiKey.OFFSET_COMMIT, version, request).topics[0].partitions[0].error_code)


def fetch(member: Member, topic: str, member_id: str | None, epoch: int) -> tuple[int, list[int]]:
    wanted = offset_fetch.OffsetFetchRequestTopics(name=topic, partition_indexes=[0])
    group = offset_fetch.OffsetFetchRequestGroup(
        group_id=member.group, member_id=member_id, member_epoch=epoch, topics=[wanted]
    )
    answer = member.wire.call(ApiKey.OFFSET_FETCH, 9, offset_fetch.OffsetFetchRequest(groups=[group])).groups[0]
    return answer.error_code, [
        found.committed_offset for found_topic in answer.topics for found in found_topic.partitions
    ]


def test_offsets_carry_epochs(member: Callable[..., Member], four: tuple[str, bytes]) -> None:
    topic, _ = four
    one = member()
    one.join(topic)
    assert commit(one, topic, one.epoch) == 0
    assert commit(one, topic, one.epoch + 1) == ErrorCode.STALE_MEMBER_EPOCH
    assert commit(one, topic, 0) == ErrorCode.STALE_MEMBER_EPOCH
    assert commit(one, topic, one.epoch, member_id="other") == ErrorCode.UNKNOWN_MEMBER_ID
    assert commit(one, topic, -1, member_id="") == ErrorCode.UNKNOWN_MEMBER_ID
    assert commit(one, topic, one.epoch, version=8) == ErrorCode.UNSUPPORTED_VERSION
    assert fetch(one, topic, None, -1) == (0, [3])
    assert fetch(one, topic, one.member_id, one.epoch) == (0, [3])
    assert fetch(one, topic, one.member_id, one.epoch + 1)[0] == ErrorCode.STALE_MEMBER_EPOCH
    assert fetch(one, topic, "other", 1)[0] == ErrorCode.UNKNOWN_MEMBER_ID


def test_administration_tells_kinds_apart(member: Callable[..., Member], four: tuple[str, bytes]) -> None:
    one = member()
    one.join(four[0])

    def listed(**filters: Any) -> list[tuple[str, str, str]]:
        answer = one.wire.call(ApiKey.LIST_GROUPS, 5, ListGroupsRequest(**filters))
        return [(g.group_type, g.group_state, g.protocol_type) for g in answer.groups if g.group_id == one.group]

    assert listed() == listed(types_filter=["Consumer"]) == [("consumer", "Stable", "consumer")]
    assert listed(types_filter=["classic"]) == listed(states_filter=["Empty"]) == []
    classic = one.wire.call(ApiKey.DESCRIBE_GROUPS, 6, DescribeGroupsRequest(groups=[one.group])).groups[0]
    assert (classic.error_code, classic.group_state) == (ErrorCode.GROUP_ID_NOT_FOUND, "Dead")

    def delete() -> int:
        answer = one.wire.call(ApiKey.DELETE_GROUPS, 2, DeleteGroupsRequest(groups_names=[one.group]))
        return int(answer.results[0].error_code)

    assert delete() == ErrorCode.NON_EMPTY_GROUP
    one.beat(member_epoch=-1)
    assert described(one).group_state == "Empty"
    assert delete() == 0
    gone = described(one)
    assert gone.error_code == ErrorCode.GROUP_ID_NOT_FOUND
    assert gone.error_message
    empty = one.wire.call(ApiKey.CONSUMER_GROUP_DESCRIBE, 1, ConsumerGroupDescribeRequest(group_ids=[""])).groups[0]
    assert empty.error_code == ErrorCode.INVALID_GROUP_ID
