"""Groups that change their protocol while they run, and members of both protocols in one group."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from consumer_bench import PEOPLE, ConsumerBench, assigned, without_pauses

from penstock.groups.consumer.model import ConsumerGroup
from penstock.groups.model import ClassicGroup, GroupState, LeavingMember
from penstock.groups.settings import ConsumerSettings, GroupSettings
from penstock.wire.consumer_protocol import encode_assignment, encode_subscription, read_assignment
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages.consumer_protocol import (
    ConsumerProtocolAssignment,
    ConsumerProtocolAssignmentTopicPartition,
    ConsumerProtocolSubscription,
)

QUICK = without_pauses()


def everything(user_data: bytes | None = None) -> bytes:
    topic = ConsumerProtocolAssignmentTopicPartition(topic="people", partitions=list(range(6)))
    return encode_assignment(ConsumerProtocolAssignment(assigned_partitions=[topic], user_data=user_data), 1)


def subscribes(*topics: str) -> bytes:
    return encode_subscription(ConsumerProtocolSubscription(topics=list(topics)), 1)


def classic(settings: GroupSettings = QUICK, assignment: bytes | None = None, **more: Any) -> ConsumerBench:
    """A classic group of one member, which has everything, in generation 1."""
    bench = ConsumerBench(settings)
    bench.classic_join(**more)
    bench.pass_ms(5_000)
    (member_id,) = bench.group.members
    assert member_id == "classic-1"
    bench.classic_sync(member_id, 1, assignments={member_id: everything() if assignment is None else assignment})
    assert bench.group.state is GroupState.STABLE
    return bench


def sync(bench: ConsumerBench, member_id: str, generation: int) -> set[int]:
    answer = bench.classic_sync(member_id, generation)
    assert answer.error is ErrorCode.NONE
    return {p for topic in read_assignment(answer.assignment).assigned_partitions for p in topic.partitions}


def mixed() -> ConsumerBench:
    """A group with a classic member, which has three partitions, and one of the consumer protocol, which has others."""
    bench = classic()
    joined = bench.join("new")
    assert (joined.epoch, joined.assigned) == (2, {})
    assert bench.classic_beat("classic-1", 1) is ErrorCode.REBALANCE_IN_PROGRESS
    told = bench.classic_join("classic-1", owned={"people": set(range(6))})
    assert (told.error, told.generation, told.leader) == (ErrorCode.NONE, 1, "")
    assert sync(bench, "classic-1", 1) == {0, 1, 2}
    assert bench.classic_beat("classic-1", 1) is ErrorCode.REBALANCE_IN_PROGRESS  # It says nothing of giving back.
    again = bench.classic_join("classic-1", owned={"people": {0, 1, 2}})
    assert again.generation == 2
    assert sync(bench, "classic-1", 2) == {0, 1, 2}
    assert bench.classic_beat("classic-1", 2) is ErrorCode.NONE
    bench.beat("new", 2)
    assert assigned(bench.group.members["new"]) == {3, 4, 5}
    assert bench.group.shown_state == "Stable"
    bench.check()
    return bench


def test_members_of_both_protocols_share_a_group() -> None:
    mixed()


def test_upgrade_keeps_what_classic_members_have() -> None:
    bench = classic()
    bench.join("new")
    assert isinstance(bench.group, ConsumerGroup)
    member = bench.group.members["classic-1"]
    assert (member.epoch, assigned(member), member.topics) == (1, set(range(6)), {"people"})
    assert bench.timers["session/classic-1"] == bench.now_ms + 10_000
    bench.check()


def test_parked_members_are_sent_to_join_again() -> None:
    bench = ConsumerBench(QUICK)
    assert bench.classic_join() is None
    bench.join("new")
    (parked,) = (answer for answer in bench.answers.values() if getattr(answer, "generation", None) == -1)
    assert parked.error is ErrorCode.REBALANCE_IN_PROGRESS
    assert bench.classic_join("classic-1").error is ErrorCode.NONE
    bench.check()


@pytest.mark.parametrize(
    ("policy", "assignment", "more"),
    [
        ("disabled", None, {}),
        ("downgrade", None, {}),
        ("bidirectional", everything(b"custom"), {}),
        ("bidirectional", b"\x00", {}),
        ("bidirectional", None, {"protocol_type": "connect"}),
    ],
)
def test_upgrade_is_refused(policy: str, assignment: bytes | None, more: dict[str, str]) -> None:
    settings = GroupSettings(consumer=ConsumerSettings(migration_policy=policy))
    bench = classic(settings, assignment, **more)
    assert bench.error(lambda: bench.join("new")) is ErrorCode.GROUP_ID_NOT_FOUND
    assert isinstance(bench.group, ClassicGroup)


def test_empty_groups_become_what_the_next_member_speaks() -> None:
    bench = ConsumerBench(without_pauses(GroupSettings(consumer=ConsumerSettings(migration_policy="disabled"))))
    bench.join("new")
    bench.beat("new", -1)
    bench.classic_join()
    bench.pass_ms(5_000)
    assert isinstance(bench.group, ClassicGroup)
    assert bench.group.generation == 1
    bench.check()
    bench.classic_leave(LeavingMember(member_id="classic-1"))
    assert bench.join("new").epoch == 1
    assert isinstance(bench.group, ConsumerGroup)
    bench.check()


def test_last_member_of_the_consumer_protocol_takes_the_protocol_along() -> None:
    bench = mixed()
    bench.beat("new", -1)
    assert isinstance(bench.group, ClassicGroup)
    assert (bench.group.state, bench.group.generation) == (GroupState.PREPARING_REBALANCE, 2)
    assert set(bench.timers) == {"join", "session/classic-1"}
    bench.check()
    assert bench.classic_beat("classic-1", 2) is ErrorCode.REBALANCE_IN_PROGRESS
    bench.classic_join("classic-1")
    assert bench.group.generation == 3


@pytest.mark.parametrize("how", ["session", "restart"])
def test_downgrade_by_a_lost_member(how: str) -> None:
    bench = mixed()
    if how == "restart":
        bench.restart()
    for _ in range(9):
        bench.pass_ms(5_000)
        bench.classic_beat("classic-1", 2)
    assert isinstance(bench.group, ClassicGroup)


def test_downgrade_can_be_forbidden() -> None:
    settings = GroupSettings(consumer=ConsumerSettings(migration_policy="upgrade"))
    bench = classic(without_pauses(settings))
    bench.join("new")
    bench.beat("new", -1)
    assert isinstance(bench.group, ConsumerGroup)
    assert list(bench.group.members) == ["classic-1"]
    bench.check()


def test_downgrade_that_was_forbidden_comes_with_the_next_member_that_goes() -> None:
    bench = ConsumerBench(without_pauses(GroupSettings(consumer=ConsumerSettings(migration_policy="upgrade"))))
    bench.join("new")
    for number in (2, 3):
        bench.classic_join(f"classic-{number}")
    bench.beat("new", -1)
    assert isinstance(bench.group, ConsumerGroup)
    bench.settings = QUICK
    bench.restart()
    assert isinstance(bench.group, ConsumerGroup)
    bench.classic_leave(LeavingMember(member_id="classic-2"))
    assert isinstance(bench.group, ClassicGroup)
    assert list(bench.group.members) == ["classic-3"]
    bench.check()


def test_members_with_protocols_that_nobody_can_read_go_down_with_their_group() -> None:
    """Only what the group agreed on was looked at when it went up."""
    bench = classic(protocols=(("of its own", b""), ("range", subscribes("people"))))
    other = bench.classic_join(protocols=(("range", subscribes("people")),))
    assert other is None
    assert bench.classic_beat("classic-1", 1) is ErrorCode.REBALANCE_IN_PROGRESS
    bench.classic_join("classic-1", protocols=(("of its own", b""), ("range", subscribes("people"))))
    bench.classic_sync("classic-1", 2, assignments={"classic-1": everything()})
    bench.join("new")
    assert isinstance(bench.group, ConsumerGroup)
    bench.beat("new", -1)
    assert isinstance(bench.group, ClassicGroup)
    assert read_assignment(bench.group.members["classic-1"].assignment).assigned_partitions
    bench.check()


def test_classic_leave_does_not_downgrade_but_frees() -> None:
    bench = mixed()
    assert bench.classic_leave(LeavingMember(member_id="x")) == (ErrorCode.UNKNOWN_MEMBER_ID,)
    assert bench.classic_leave(LeavingMember(member_id="classic-1")) == (ErrorCode.NONE,)
    bench.beat("new", 2)
    assert assigned(bench.group.members["new"]) == set(range(6))
    bench.check()


def test_an_administrator_removes_members_of_either_protocol() -> None:
    bench = mixed()
    modern = LeavingMember(member_id="new")
    assert bench.classic_leave(modern, modern) == (ErrorCode.NONE,) * 2
    assert isinstance(bench.group, ClassicGroup)
    assert list(bench.group.members) == ["classic-1"]
    bench.check()


def test_classic_static_member_takes_the_place_of_a_modern_one() -> None:
    bench = ConsumerBench(QUICK)
    bench.join("new", instance_id="one")
    bench.beat("new", -2, instance_id="one")
    answer = bench.classic_join(instance_id="one")
    assert isinstance(bench.group, ClassicGroup)
    assert (answer.error, bench.group.state) == (ErrorCode.NONE, GroupState.STABLE)
    assert sync(bench, answer.member_id, answer.generation) == set(range(6))
    bench.check()


def test_taking_a_place_while_others_wait_begins_a_rebalance() -> None:
    """Nobody would tell the member that waits for a partition that it has become free."""
    bench = classic()
    bench.join("static", instance_id="one")
    assert assigned(bench.group.members["static"]) == set()  # It waits for what the other one has to give back.
    bench.beat("static", -2, instance_id="one")
    answer = bench.classic_join(instance_id="one")
    assert (answer.error, bench.group.state) == (ErrorCode.NONE, GroupState.PREPARING_REBALANCE)
    assert bench.classic_sync(answer.member_id, bench.group.generation).error is ErrorCode.REBALANCE_IN_PROGRESS
    bench.check()


def test_classic_members_are_left_alone_until_there_is_a_target() -> None:
    bench = ConsumerBench()
    bench.join("new")
    told = bench.classic_join()
    assert (told.error, told.generation, bench.group.epoch) == (ErrorCode.NONE, 1, 2)  # Too soon for a second target.
    assert sync(bench, told.member_id, 1) == set()
    assert bench.classic_beat(told.member_id, 1) is ErrorCode.NONE
    bench.pass_ms(1_000)
    # Nobody has had it computed, and whoever joins now does.
    assert bench.classic_beat(told.member_id, 1) is ErrorCode.REBALANCE_IN_PROGRESS
    assert bench.classic_join(told.member_id).generation == 2


def test_modern_static_member_takes_the_place_of_a_classic_one() -> None:
    bench = classic(instance_id="one")
    answer = bench.join("new", instance_id="one")
    assert set(bench.group.members) == {"new"}
    assert answer.assigned is not None
    assert set(answer.assigned[PEOPLE]) == set(range(6))
    bench.check()


def test_classic_members_must_join_again_and_sync_in_time() -> None:
    bench = mixed()
    bench.join("third")
    assert bench.classic_beat("classic-1", 2) is ErrorCode.REBALANCE_IN_PROGRESS
    at_ms = bench.timers["rejoin/classic-1"]
    bench.pass_ms(1_000)
    bench.classic_beat("classic-1", 2)
    assert bench.timers["rejoin/classic-1"] == at_ms  # Being told twice gives no more time.
    bench.classic_join("classic-1", owned={"people": set()})
    assert "rejoin/classic-1" not in bench.timers
    assert bench.timers["fetch/classic-1"] == bench.now_ms + 30_000
    for _ in range(4):
        bench.pass_ms(7_500)
        for member_id in list(bench.group.members):
            member = bench.group.members[member_id]
            if member.classic is None:
                bench.beat(member_id, member.epoch)
            else:
                bench.classic_beat(member_id, member.epoch)
    assert "classic-1" not in bench.group.members
    bench.check()


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ({"protocol_type": "connect"}, ErrorCode.INCONSISTENT_GROUP_PROTOCOL),
        ({"protocol_type": "connect", "member_id": "x"}, ErrorCode.INCONSISTENT_GROUP_PROTOCOL),
        ({"protocol": "sticky"}, ErrorCode.INCONSISTENT_GROUP_PROTOCOL),
        ({"member_id": "new"}, ErrorCode.NONE),
        ({"member_id": "x", "instance_id": "i"}, ErrorCode.UNKNOWN_MEMBER_ID),
        ({"member_id_required": True}, ErrorCode.MEMBER_ID_REQUIRED),
    ],
)
def test_classic_joins_are_checked(more, error: ErrorCode) -> None:
    bench = mixed()
    answer = bench.classic_join(**more)
    assert answer.error is error
    if error is not ErrorCode.NONE and error is not ErrorCode.MEMBER_ID_REQUIRED:
        assert not answer.member_id


def test_classic_requests_of_others_are_refused() -> None:
    bench = mixed()
    assert bench.classic_beat("new", 2) is ErrorCode.UNKNOWN_MEMBER_ID
    assert bench.classic_beat("classic-1", 1) is ErrorCode.ILLEGAL_GENERATION
    assert bench.classic_sync("classic-1", 2, protocol_name="sticky").error is ErrorCode.INCONSISTENT_GROUP_PROTOCOL
    assert bench.classic_sync("x", 2).error is ErrorCode.UNKNOWN_MEMBER_ID
    assert bench.commit("classic-1", 2, version=2) is ErrorCode.NONE
    assert bench.commit("classic-1", 3) is ErrorCode.ILLEGAL_GENERATION


def test_migration_policy_disabled_keeps_classic_members_out() -> None:
    bench = ConsumerBench(replace(QUICK, consumer=replace(QUICK.consumer, migration_policy="disabled")))
    bench.join("new")
    assert bench.classic_join().error is ErrorCode.INCONSISTENT_GROUP_PROTOCOL
