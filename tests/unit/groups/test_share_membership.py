"""Members of share groups: rules as tables, and the assignor."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.groups.model import ClassicGroup, GroupStored, MemberRemoved, MemberStored
from penstock.groups.share import assignor, membership
from penstock.groups.share.encoding import decode, encode, encode_member
from penstock.groups.share.model import (
    KnownTopic,
    ShareGroup,
    ShareGroupSettings,
    ShareHeartbeat,
    ShareHeartbeatResult,
)
from penstock.wire.error_codes import ErrorCode

A, B = b"a" * 16, b"b" * 16
TOPICS = {"a": (A, 2), "b": (B, 1)}
SETTINGS = ShareGroupSettings(max_size=3, assignment_interval_ms=1_000)
JOIN, STAY, LEAVE = 0, 1, -1


class Coordinator:
    """A group, its topics and its clock."""

    def __init__(self) -> None:
        self.group: Any = None
        self.topics = dict(TOPICS)
        self.now_ms = 1_000
        self.records: tuple[Any, ...] = ()

    def heartbeat(self, member_id: str, epoch: int, *topics: str, **fields: Any) -> ShareHeartbeatResult:
        request = ShareHeartbeat(
            member_id=member_id, epoch=epoch, topics=frozenset(topics) if topics else None, **fields
        )  # fmt: skip
        decision = membership.heartbeat(self.group, request, self.topics.get, SETTINGS, 1, self.now_ms)
        return self.adopt(decision)

    def adopt(self, decision: Any) -> Any:
        self.group, self.records = decision.state, decision.records
        return decision.replies[0].answer if decision.replies else None


def test_a_member_is_assigned_at_once_and_stays_without_writing() -> None:
    coordinator = Coordinator()
    joined = coordinator.heartbeat("m", JOIN, "a")
    assert (joined.error, joined.epoch, joined.assigned) == (ErrorCode.NONE, 1, {A: frozenset({0, 1})})
    assert [type(record) for record in coordinator.records] == [GroupStored, MemberStored]
    before = coordinator.group
    stayed = coordinator.heartbeat("m", 1)
    assert (stayed.epoch, stayed.assigned, stayed.interval_ms) == (1, None, 5_000)
    assert coordinator.records == ()
    assert coordinator.group is before
    again = coordinator.heartbeat("m", 1, "a")
    assert again.assigned == {A: frozenset({0, 1})}, "a full request gets a full answer"


def test_the_next_assignment_is_computed_a_second_later() -> None:
    coordinator = Coordinator()
    coordinator.heartbeat("m", JOIN, "a")
    early = coordinator.heartbeat("n", JOIN, "a")
    assert (early.assigned, early.interval_ms) == ({}, 1_000), "to come back when there is something to hear"
    coordinator.now_ms += 1_000
    assert coordinator.heartbeat("n", early.epoch).assigned == {A: frozenset({1})}
    assert coordinator.heartbeat("m", 1).assigned == {A: frozenset({0})}
    assert coordinator.group.epoch == coordinator.group.target_epoch == 2


def test_a_clock_that_was_set_back_holds_up_nobody() -> None:
    coordinator = Coordinator()
    coordinator.heartbeat("m", JOIN, "a")
    coordinator.now_ms -= 3_600_000
    assert coordinator.heartbeat("n", JOIN, "a").assigned == {A: frozenset({1})}


def test_new_partitions_and_topics_are_assigned() -> None:
    coordinator = Coordinator()
    del coordinator.topics["b"]
    coordinator.heartbeat("m", JOIN, "a", "b")
    coordinator.now_ms += 1_000
    coordinator.topics |= {"a": (A, 3), "b": (B, 1)}
    assert coordinator.heartbeat("m", 1).assigned == {A: frozenset({0, 1, 2}), B: frozenset({0})}
    assert coordinator.group.topics == {A: KnownTopic(2, 3), B: KnownTopic(1, 1)}


def test_a_topic_that_is_not_subscribed_any_more_goes_at_once() -> None:
    coordinator = Coordinator()
    coordinator.heartbeat("m", JOIN, "a", "b")
    assert coordinator.heartbeat("m", 1, "a").assigned == {A: frozenset({0, 1})}
    assert coordinator.group.topics.keys() == {A, B}, "the group knows what it has read"


def test_a_deleted_topic_is_forgotten() -> None:
    coordinator = Coordinator()
    coordinator.heartbeat("m", JOIN, "a", "b")
    del coordinator.topics["b"]
    coordinator.adopt(membership.forget_topics(coordinator.group, frozenset({B}), 1, must_be_empty=False))
    coordinator.now_ms += 1_000
    assert coordinator.heartbeat("m", 1).assigned == {A: frozenset({0, 1})}


def test_the_last_to_leave_leaves_an_empty_group() -> None:
    coordinator = Coordinator()
    coordinator.heartbeat("m", JOIN, "a")
    assert coordinator.heartbeat("m", LEAVE).epoch == LEAVE
    assert [type(record) for record in coordinator.records] == [MemberRemoved, GroupStored]
    assert (coordinator.group.shown_state, coordinator.group.empty_since_ms) == ("Empty", 1_000)
    assert coordinator.heartbeat("n", JOIN, "a").assigned == {A: frozenset({0, 1})}, "nobody has to wait"


def test_a_silent_member_is_taken_out() -> None:
    coordinator = Coordinator()
    coordinator.heartbeat("m", JOIN, "a")
    coordinator.adopt(membership.expired(coordinator.group, "session/m", 50_000))
    assert not coordinator.group.members
    coordinator.adopt(membership.expired(coordinator.group, "session/m", 50_000))
    assert coordinator.records == ()


@pytest.mark.parametrize(
    ("member_id", "epoch", "expected"),
    [
        ("m", 1, ErrorCode.NONE),
        ("m", 0, ErrorCode.NONE),
        ("m", 2, ErrorCode.FENCED_MEMBER_EPOCH),
        ("x", 1, ErrorCode.UNKNOWN_MEMBER_ID),
        ("x", LEAVE, ErrorCode.UNKNOWN_MEMBER_ID),
        ("x", JOIN, ErrorCode.NONE),
    ],
)
def test_heartbeats_are_answered_by_membership_and_epoch(member_id: str, epoch: int, expected: ErrorCode) -> None:
    coordinator = Coordinator()
    coordinator.heartbeat("m", JOIN, "a")
    assert coordinator.heartbeat(member_id, epoch, "a").error is expected


def test_a_member_may_be_one_epoch_behind() -> None:
    coordinator = Coordinator()
    coordinator.heartbeat("m", JOIN, "a")
    coordinator.now_ms += 1_000
    assert coordinator.heartbeat("m", 1, "b").epoch == 2
    assert coordinator.heartbeat("m", 1, "b").epoch == 2


def test_groups_that_are_full_or_of_another_kind() -> None:
    coordinator = Coordinator()
    for number in range(3):
        coordinator.heartbeat(f"m{number}", JOIN, "a")
    assert coordinator.heartbeat("late", JOIN, "a").error is ErrorCode.GROUP_MAX_SIZE_REACHED
    assert coordinator.heartbeat("m1", JOIN, "a").error is ErrorCode.NONE
    coordinator.group = ClassicGroup()
    assert coordinator.heartbeat("m", JOIN, "a").error is ErrorCode.GROUP_ID_NOT_FOUND


def test_offsets_are_set_in_empty_groups_only() -> None:
    coordinator = Coordinator()
    coordinator.heartbeat("m", JOIN, "a")
    assert coordinator.adopt(membership.require_empty(coordinator.group, {}, 1, 5)).error is ErrorCode.NON_EMPTY_GROUP
    refused = membership.forget_topics(coordinator.group, frozenset({A}), 1)
    assert coordinator.adopt(refused).error is ErrorCode.NON_EMPTY_GROUP
    assert coordinator.adopt(membership.require_empty(ClassicGroup(), {}, 1, 5)).error is ErrorCode.GROUP_ID_NOT_FOUND
    made = membership.require_empty(None, {A: 2}, 1, 5)
    assert made.state == ShareGroup(topics={A: KnownTopic(2, 2)}, empty_since_ms=5)


def test_groups_are_stored_faithfully() -> None:
    coordinator = Coordinator()
    coordinator.heartbeat("m", JOIN, "a", "b", rack_id="r", client_id="c", client_host="/h")
    coordinator.heartbeat("n", JOIN, "a")
    group = coordinator.group
    members = [encode_member(group.members[member_id]) for member_id in sorted(group.members)]
    assert decode(encode(group), members) == group


@given(
    members=st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.sets(st.sampled_from([A, B])), max_size=12),
    counts=st.fixed_dictionaries({A: st.integers(0, 7), B: st.integers(0, 7)}),
    gone=st.integers(0, 3), changed=st.booleans(),
)  # fmt: skip
def test_assignments_are_fair_complete_and_stay(
    members: dict[str, set[bytes]], counts: dict[bytes, int], gone: int, changed: bool
) -> None:
    subscriptions = {member_id: frozenset(topics) for member_id, topics in members.items()}
    first = assignor.assign_partitions(subscriptions, counts, {})
    check(subscriptions, counts, first)
    assert assignor.assign_partitions(subscriptions, counts, first) == first, "nothing moves without a reason"
    left = dict(sorted(subscriptions.items())[gone:])
    if changed:
        counts = {A: counts[A] + 2, B: counts[B]}
    check(left, counts, assignor.assign_partitions(left, counts, first))


def check(subscriptions: dict[str, frozenset[bytes]], counts: dict[bytes, int], result: dict[str, Any]) -> None:
    assert result.keys() == subscriptions.keys()
    for member_id, partitions in result.items():
        assert partitions.keys() <= subscriptions[member_id]
        assert all(0 <= index < counts[topic] for topic, found in partitions.items() for index in found)
    for topic, count in counts.items():
        subscribers = [member_id for member_id, topics in subscriptions.items() if topic in topics]
        for index in range(count if subscribers else 0):
            readers = sum(index in result[member_id].get(topic, ()) for member_id in subscribers)
            assert readers >= 1, "a partition that nobody reads"
    if len(set(subscriptions.values())) == 1:
        sizes = [sum(map(len, partitions.values())) for partitions in result.values()]
        assert max(sizes) - min(sizes) <= 1
