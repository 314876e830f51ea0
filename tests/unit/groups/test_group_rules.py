"""Classic group rules, case by case. Codes are Kafka's, as observed on a live broker."""

from __future__ import annotations

import pytest
from group_bench import TOPIC, Bench, subscription

from penstock.groups import transitions
from penstock.groups.model import (
    DeleteOffsets,
    GroupDeleted,
    GroupState,
    GroupStored,
    LeavingMember,
    OffsetsCommitted,
    OffsetsDeleted,
    TransactionOwner,
)
from penstock.groups.settings import GroupSettings
from penstock.wire.error_codes import ErrorCode

# --- Joining -------------------------------------------------------------------------------------------------------


def test_new_member_is_given_its_id_first() -> None:
    bench = Bench()
    answer = bench.joined(bench.join())
    assert (answer.error, answer.member_id) == (ErrorCode.MEMBER_ID_REQUIRED, "m1")
    waiter = bench.join("m1")
    bench.pass_ms(20)
    answer = bench.joined(waiter)
    assert (answer.error, answer.generation, answer.leader) == (ErrorCode.NONE, 1, "m1")
    assert [member.member_id for member in answer.members] == ["m1"]


def test_old_clients_join_at_once() -> None:
    bench = Bench()
    waiter = bench.join(version=3)
    bench.pass_ms(20)
    assert bench.joined(waiter).generation == 1


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        ({"session_timeout_ms": 5_999}, ErrorCode.INVALID_SESSION_TIMEOUT),
        ({"session_timeout_ms": 1_800_001}, ErrorCode.INVALID_SESSION_TIMEOUT),
        ({"member_id": "nobody"}, ErrorCode.UNKNOWN_MEMBER_ID),
        ({"protocols": ()}, ErrorCode.INCONSISTENT_GROUP_PROTOCOL),
        ({"protocol_type": ""}, ErrorCode.INCONSISTENT_GROUP_PROTOCOL),
    ],
)
def test_refused_first_joins_leave_nothing(asked: dict[str, object], error: ErrorCode) -> None:
    bench = Bench()
    assert bench.joined(bench.join(**asked)).error is error
    assert (bench.group, bench.records, bench.timers) == (None, [], {})


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        ({"protocol_type": "connect"}, ErrorCode.INCONSISTENT_GROUP_PROTOCOL),
        ({"protocols": (("roundrobin", b""),)}, ErrorCode.INCONSISTENT_GROUP_PROTOCOL),
        ({"member_id": "nobody"}, ErrorCode.UNKNOWN_MEMBER_ID),
        ({"member_id": "m1", "instance_id": "i"}, ErrorCode.UNKNOWN_MEMBER_ID),
    ],
)
def test_refused_joins_leave_a_group_as_it_is(asked: dict[str, object], error: ErrorCode) -> None:
    bench = Bench()
    bench.stable()
    before = bench.group
    assert bench.joined(bench.join(**asked)).error is error
    assert bench.group == before


def test_members_that_arrive_together_get_one_generation() -> None:
    bench = Bench()
    ids, waiters = [], []
    for _ in range(50):  # Given an id, then back with it, 15 ms between the clients.
        ids.append(bench.joined(bench.join()).member_id)
        bench.pass_ms(5)
        waiters.append(bench.join(ids[-1]))
        bench.pass_ms(10)
    bench.pass_ms(250)
    assert {bench.joined(waiter).generation for waiter in waiters} == {1}
    assert len(bench.joined(waiters[0]).members) == 50
    assert not any(bench.joined(waiter).members for waiter in waiters[1:])


def test_first_rebalance_waits_for_ids_given_out_but_not_for_ever() -> None:
    bench = Bench()
    first = bench.joined(bench.join()).member_id
    bench.join()  # Never comes back.
    waiter = bench.join(first)
    bench.pass_ms(400)
    assert waiter in bench.asked
    bench.pass_ms(200)
    assert bench.joined(waiter).generation == 1


def test_first_rebalance_with_a_delay_is_extended_by_new_members() -> None:
    bench = Bench(GroupSettings(initial_rebalance_delay_ms=3_000))
    first = bench.join(version=3)
    bench.pass_ms(2_000)
    second = bench.join(version=3)
    bench.pass_ms(1_000)
    assert first in bench.asked
    bench.pass_ms(3_000)
    assert bench.joined(first).generation == bench.joined(second).generation == 1


def test_joining_a_stable_group_waits_for_everybody() -> None:
    bench = Bench()
    leader, follower = bench.stable(2)
    newcomer = bench.join(version=3)
    assert bench.state is GroupState.PREPARING_REBALANCE
    assert bench.heartbeat(follower, 1) is ErrorCode.REBALANCE_IN_PROGRESS
    rejoined = [bench.join(leader), bench.join(follower)]
    assert {bench.joined(waiter).generation for waiter in [newcomer, *rejoined]} == {2}
    assert bench.joined(rejoined[0]).leader == leader
    assert len(bench.joined(rejoined[0]).members) == 3


def test_members_that_do_not_join_again_are_dropped_and_leadership_moves() -> None:
    bench = Bench()
    _leader, follower = bench.stable(2, session_timeout_ms=600_000)
    newcomer = bench.join(version=3)
    bench.join(follower)
    bench.pass_ms(60_000)
    answer = bench.joined(newcomer)
    assert (answer.generation, answer.leader) == (2, follower)
    assert list(bench.group.members) == [follower, answer.member_id]


def test_join_of_a_follower_that_changes_nothing_is_answered_at_once() -> None:
    bench = Bench()
    leader, follower = bench.stable(2)
    answer = bench.joined(bench.join(follower))
    assert (answer.generation, answer.leader, answer.members) == (1, leader, ())
    assert bench.state is GroupState.STABLE
    bench.join(leader)  # A leader that joins wants to assign anew.
    assert bench.state is GroupState.PREPARING_REBALANCE


def test_repeated_join_replaces_the_one_that_is_parked() -> None:
    bench = Bench()
    leader, follower = bench.stable(2)
    first = bench.join(leader)
    second = bench.join(leader)
    assert bench.joined(first).error is ErrorCode.REBALANCE_IN_PROGRESS
    bench.join(follower)
    assert bench.joined(second).generation == 2


def test_group_size_is_limited() -> None:
    bench = Bench(GroupSettings(max_size=2))
    bench.stable(2)
    assert bench.joined(bench.join(version=3)).error is ErrorCode.GROUP_MAX_SIZE_REACHED
    assert bench.state is GroupState.STABLE


def test_lower_limit_turns_away_those_who_join_last_after_a_restart() -> None:
    bench = Bench()
    first, second, third = bench.stable(3)
    bench.settings = GroupSettings(max_size=2)
    bench.restart()
    assert bench.heartbeat(first, 1) is ErrorCode.REBALANCE_IN_PROGRESS
    waiters = [bench.join(first), bench.join(second)]
    assert bench.joined(bench.join(third)).error is ErrorCode.GROUP_MAX_SIZE_REACHED
    assert [bench.joined(waiter).generation for waiter in waiters] == [2, 2]


def test_offsets_of_transactions_do_not_keep_a_member() -> None:
    bench = Bench()
    (member_id,) = bench.stable(1)
    bench.pass_ms(6_000)
    owner = TransactionOwner(transactional_id="t", producer_id=1, epoch=0)
    assert bench.commit(member_id, 1, owner=owner) is ErrorCode.NONE
    bench.pass_ms(3_000)
    assert bench.commit(member_id, 1) is ErrorCode.NONE
    bench.pass_ms(6_000)
    assert bench.commit(member_id, 1, owner=owner) is ErrorCode.NONE
    bench.pass_ms(6_000)
    assert bench.state is GroupState.EMPTY


def test_protocol_that_most_prefer_is_chosen() -> None:
    bench = Bench()
    both, other = (("range", b"r"), ("sticky", b"s")), (("sticky", b"s"), ("range", b"r"))
    waiters = [bench.join(version=3, protocols=protocols) for protocols in (both, other, other)]
    bench.pass_ms(1_000)
    answer = bench.joined(waiters[0])
    assert answer.protocol_name == "sticky"
    assert {member.metadata for member in answer.members} == {b"s"}


# --- Static members ------------------------------------------------------------------------------------------------


def static_group(version: int = 9) -> tuple[Bench, str]:
    bench = Bench()
    waiter = bench.join(instance_id="i", version=version)
    bench.pass_ms(1_000)
    member_id = bench.joined(waiter).member_id
    bench.sync_all({member_id: b"mine"})
    return bench, member_id


def test_static_member_that_comes_back_keeps_its_place_without_a_rebalance() -> None:
    bench, old_id = static_group()
    answer = bench.joined(bench.join(instance_id="i"))
    assert answer.member_id != old_id
    assert (answer.generation, answer.skip_assignment, answer.leader) == (1, True, answer.member_id)
    assert bench.state is GroupState.STABLE
    assert bench.synced(bench.sync(answer.member_id, 1)).assignment == b"mine"
    assert isinstance(bench.records[-1], GroupStored)


def test_old_id_of_a_static_member_is_fenced_and_changes_nothing() -> None:
    bench, old_id = static_group()
    bench.join(instance_id="i")
    before, records = bench.group, list(bench.records)
    assert bench.heartbeat(old_id, 1, "i") is ErrorCode.FENCED_INSTANCE_ID
    assert bench.joined(bench.join(old_id, instance_id="i")).error is ErrorCode.FENCED_INSTANCE_ID
    assert bench.synced(bench.sync(old_id, 1, instance_id="i")).error is ErrorCode.FENCED_INSTANCE_ID
    assert bench.commit(old_id, 1, instance_id="i") is ErrorCode.FENCED_INSTANCE_ID
    assert bench.leave(LeavingMember(member_id=old_id, instance_id="i")) == (ErrorCode.FENCED_INSTANCE_ID,)
    assert (bench.group, bench.records) == (before, records)


def test_old_client_that_comes_back_as_static_leader_is_not_made_to_assign() -> None:
    bench, old_id = static_group(version=5)
    answer = bench.joined(bench.join(instance_id="i", version=5))
    assert (answer.leader, answer.skip_assignment, answer.members) == (old_id, False, ())


def test_static_member_with_other_protocols_rebalances() -> None:
    bench, _ = static_group()
    waiter = bench.join(instance_id="i", protocols=(("sticky", b""),))
    assert bench.joined(waiter).error is ErrorCode.INCONSISTENT_GROUP_PROTOCOL
    waiter = bench.join(instance_id="i", protocols=(("sticky", b""), ("range", b"")))
    assert bench.joined(waiter).generation == 2


def test_parked_join_of_a_replaced_static_member_is_fenced() -> None:
    bench = Bench()
    bench.stable(1)
    first = bench.join(instance_id="i")
    second = bench.join(instance_id="i")
    assert bench.joined(first).error is ErrorCode.FENCED_INSTANCE_ID
    bench.join("m1")
    assert bench.joined(second).generation == 2


def test_a_clock_that_is_set_back_holds_up_no_first_generation() -> None:
    bench = Bench()
    waiter = bench.join(version=3)
    bench.apply(transitions.expired(bench.group, "join", bench.now_ms - 3_600_000, bench.settings))
    bench.pass_ms(bench.settings.join_window_max_ms)
    assert bench.joined(waiter).generation == 1


def test_static_member_that_comes_back_while_it_joins_for_the_first_time_is_waited_for() -> None:
    bench = Bench()
    slow, *_ = bench.stable(rebalance_timeout_ms=60_000)
    bench.join(instance_id="i", version=9)
    again = bench.join(instance_id="i", version=9)
    for _ in range(5):
        bench.pass_ms(5_000)
        bench.heartbeat(slow, 1)
    assert again not in bench.answers, "it is parked here, whatever its session is"
    bench.join(slow)
    assert (bench.joined(again).error, bench.joined(again).generation) == (ErrorCode.NONE, 2)


def test_static_members_stay_when_they_do_not_join_again_until_their_session_ends() -> None:
    bench, member_id = static_group()
    newcomer = bench.join(version=3, rebalance_timeout_ms=5_000)
    assert newcomer in bench.asked
    bench.pass_ms(9_900)
    bench.heartbeat(member_id, 1)
    bench.pass_ms(11_000)
    assert bench.joined(newcomer).generation == 2
    assert member_id not in bench.group.members


def test_static_member_leaves_by_its_instance_id() -> None:
    bench, _ = static_group()
    assert bench.leave(LeavingMember(member_id="", instance_id="nobody")) == (ErrorCode.UNKNOWN_MEMBER_ID,)
    assert bench.leave(LeavingMember(member_id="", instance_id="i")) == (ErrorCode.NONE,)
    assert bench.state is GroupState.EMPTY


def test_whoever_is_named_twice_leaves_once() -> None:
    unknown, fenced = ErrorCode.UNKNOWN_MEMBER_ID, ErrorCode.FENCED_INSTANCE_ID
    bench, member_id = static_group()
    by_id, by_name = LeavingMember(member_id=member_id), LeavingMember(member_id="", instance_id="i")
    by_both, stranger = (
        LeavingMember(member_id=member_id, instance_id="i"),
        LeavingMember(member_id="another", instance_id="i"),
    )
    assert bench.leave(stranger, by_name, by_id, by_name, by_both, stranger) == (
        fenced, ErrorCode.NONE, unknown, unknown, unknown, unknown,
    )  # fmt: skip
    assert bench.state is GroupState.EMPTY


# --- Syncing -------------------------------------------------------------------------------------------------------


def test_assignments_reach_everybody_and_are_durable_before() -> None:
    bench = Bench()
    waiters = [bench.join(version=3) for _ in range(3)]
    bench.pass_ms(1_000)
    leader, follower, forgotten = (bench.joined(waiter).member_id for waiter in waiters)
    parked = [bench.sync(follower, 1), bench.sync(forgotten, 1)]
    assert all(waiter in bench.asked for waiter in parked)
    done = bench.sync(leader, 1, {leader: b"1", follower: b"2"})
    assert [bench.synced(waiter).assignment for waiter in [done, *parked]] == [b"1", b"2", b""]
    stored = bench.records[-1]
    assert isinstance(stored, GroupStored)
    assert stored.group.members[follower].assignment == b"2"
    assert bench.synced(bench.sync(follower, 1)).assignment == b"2"  # Again, as after a lost answer.


@pytest.mark.parametrize(
    ("member_id", "generation", "more", "error"),
    [
        ("nobody", 1, {}, ErrorCode.UNKNOWN_MEMBER_ID),
        ("m1", 2, {}, ErrorCode.ILLEGAL_GENERATION),
        ("m1", 1, {"protocol_type": "connect"}, ErrorCode.INCONSISTENT_GROUP_PROTOCOL),
        ("m1", 1, {"protocol_name": "sticky"}, ErrorCode.INCONSISTENT_GROUP_PROTOCOL),
        ("m1", 1, {"protocol_type": "consumer", "protocol_name": "range"}, ErrorCode.NONE),
    ],
)
def test_sync_is_checked(member_id: str, generation: int, more: dict[str, str], error: ErrorCode) -> None:
    bench = Bench()
    bench.stable()
    assert bench.synced(bench.sync(member_id, generation, **more)).error is error


def test_a_join_turns_waiting_syncs_away() -> None:
    bench = Bench()
    waiters = [bench.join(version=3) for _ in range(2)]
    bench.pass_ms(1_000)
    follower = bench.joined(waiters[1]).member_id
    parked = bench.sync(follower, 1)
    bench.join(version=3)
    assert bench.synced(parked).error is ErrorCode.REBALANCE_IN_PROGRESS
    assert bench.synced(bench.sync(follower, 1)).error is ErrorCode.REBALANCE_IN_PROGRESS


def test_members_that_never_sync_are_dropped() -> None:
    bench = Bench()
    waiters = [bench.join(version=3, session_timeout_ms=600_000) for _ in range(2)]
    bench.pass_ms(1_000)
    leader, late = (bench.joined(waiter).member_id for waiter in waiters)
    bench.sync(leader, 1, {})
    bench.pass_ms(60_000)
    assert not bench.is_member(late)
    assert bench.heartbeat(leader, 1) is ErrorCode.REBALANCE_IN_PROGRESS


# --- Liveness ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("member_id", "generation", "expected"),
    [
        ("m1", 1, ErrorCode.NONE),
        ("m1", 0, ErrorCode.ILLEGAL_GENERATION),  # A zombie from before the rebalance.
        ("nobody", 1, ErrorCode.UNKNOWN_MEMBER_ID),
    ],
)
def test_heartbeat_answers_by_membership_and_generation(member_id: str, generation: int, expected: ErrorCode) -> None:
    bench = Bench()
    bench.stable()
    records = list(bench.records)
    assert bench.heartbeat(member_id, generation) is expected
    assert bench.records == records


def test_heartbeat_while_assigning_is_fine() -> None:
    bench = Bench()
    waiter = bench.join(version=3)
    bench.pass_ms(1_000)
    assert bench.state is GroupState.COMPLETING_REBALANCE
    assert bench.heartbeat(bench.joined(waiter).member_id, 1) is ErrorCode.NONE


def test_silent_member_is_dropped_after_its_session() -> None:
    bench = Bench()
    leader, silent = bench.stable(2)
    bench.pass_ms(9_000)
    bench.heartbeat(leader, 1)
    bench.pass_ms(2_000)
    assert not bench.is_member(silent)
    assert bench.heartbeat(leader, 1) is ErrorCode.REBALANCE_IN_PROGRESS
    assert bench.joined(bench.join(leader)).generation == 2


def test_last_member_that_falls_silent_leaves_an_empty_group() -> None:
    bench = Bench()
    bench.stable()
    bench.pass_ms(11_000)
    assert (bench.state, bench.group.generation, bench.timers) == (GroupState.EMPTY, 2, {})


def test_id_that_was_given_out_expires() -> None:
    bench = Bench()
    member_id = bench.joined(bench.join()).member_id
    bench.pass_ms(10_000)
    assert bench.group is None
    assert bench.joined(bench.join(member_id)).error is ErrorCode.UNKNOWN_MEMBER_ID


def test_leaving_is_answered_per_member() -> None:
    bench = Bench()
    leader, follower = bench.stable(2)
    assert bench.leave("nobody", follower) == (ErrorCode.UNKNOWN_MEMBER_ID, ErrorCode.NONE)
    assert bench.state is GroupState.PREPARING_REBALANCE
    assert bench.leave(leader) == (ErrorCode.NONE,)
    assert bench.state is GroupState.EMPTY
    assert bench.leave(leader) == (ErrorCode.UNKNOWN_MEMBER_ID,)


def test_leaving_answers_what_the_member_has_parked() -> None:
    bench = Bench()
    leader, follower = bench.stable(2)
    parked = bench.join(leader)
    bench.leave(leader)
    assert bench.joined(parked).error is ErrorCode.UNKNOWN_MEMBER_ID
    assert bench.group.leader == follower


# --- Restart -------------------------------------------------------------------------------------------------------


def test_members_keep_their_generation_and_assignment_over_a_restart() -> None:
    bench = Bench()
    leader, follower = bench.stable(2)
    bench.restart()
    assert bench.heartbeat(leader, 1) is ErrorCode.NONE
    assert bench.synced(bench.sync(follower, 1)).assignment == follower.encode()
    assert bench.commit(follower, 1) is ErrorCode.NONE
    bench.pass_ms(9_000)
    bench.heartbeat(leader, 1)
    bench.pass_ms(2_000)
    assert not bench.is_member(follower)  # Its session ran from the restart.


def test_restart_while_assigning_goes_on_in_that_generation() -> None:
    bench = Bench()
    waiters = [bench.join(version=3) for _ in range(2)]
    bench.pass_ms(1_000)
    leader, follower = (bench.joined(waiter).member_id for waiter in waiters)
    bench.restart()
    parked = bench.sync(follower, 1)
    bench.sync(leader, 1, {follower: b"f"})
    assert bench.synced(parked).assignment == b"f"


def test_restart_while_preparing_goes_back_to_the_generation_before() -> None:
    bench = Bench()
    leader, follower = bench.stable(2)
    bench.join(leader)
    bench.restart()
    assert bench.state is GroupState.STABLE
    assert bench.heartbeat(follower, 1) is ErrorCode.NONE


# --- Offsets -------------------------------------------------------------------------------------------------------


def test_commit_without_members_creates_a_simple_group() -> None:
    bench = Bench()
    assert bench.commit() is ErrorCode.NONE
    assert [type(record) for record in bench.records] == [GroupStored, OffsetsCommitted]
    assert bench.group.protocol_type is None
    bench.commit()
    assert [type(record) for record in bench.records[2:]] == [OffsetsCommitted]


@pytest.mark.parametrize(
    ("member_id", "generation", "expected"),
    [
        ("m1", 1, ErrorCode.NONE),
        ("m1", 0, ErrorCode.ILLEGAL_GENERATION),
        ("nobody", 1, ErrorCode.UNKNOWN_MEMBER_ID),
        ("", -1, ErrorCode.UNKNOWN_MEMBER_ID),  # From outside, while there are members.
        ("m1", -1, ErrorCode.ILLEGAL_GENERATION),
    ],
)
def test_commit_of_a_member_is_checked(member_id: str, generation: int, expected: ErrorCode) -> None:
    bench = Bench()
    bench.stable()
    assert bench.commit(member_id, generation) is expected


@pytest.mark.parametrize(("version", "error"), [(8, ErrorCode.ILLEGAL_GENERATION), (9, ErrorCode.GROUP_ID_NOT_FOUND)])
def test_commit_of_a_member_of_an_unknown_group(version: int, error: ErrorCode) -> None:
    assert Bench().commit("m", 1, version=version) is error


def test_commit_is_taken_while_members_join_again_but_not_while_they_wait_for_assignments() -> None:
    bench = Bench()
    leader, follower = bench.stable(2)
    bench.join(leader)
    assert bench.commit(follower, 1) is ErrorCode.NONE
    bench.join(follower)
    assert bench.state is GroupState.COMPLETING_REBALANCE
    assert bench.commit(follower, 2) is ErrorCode.REBALANCE_IN_PROGRESS


def test_group_with_members_is_not_deleted() -> None:
    bench = Bench()
    assert bench.delete() is ErrorCode.GROUP_ID_NOT_FOUND
    bench.stable()
    assert bench.delete() is ErrorCode.NON_EMPTY_GROUP
    bench.leave("m1")
    assert bench.delete() is ErrorCode.NONE
    assert isinstance(bench.records[-1], GroupDeleted)
    assert bench.group is None


def test_a_group_that_goes_with_its_cluster_owes_nobody_an_answer() -> None:
    bench = Bench()
    assert bench.remove() is ErrorCode.GROUP_ID_NOT_FOUND
    leader, _ = bench.stable(2)
    joining = bench.join(leader)  # It waits for the other one.
    assert bench.remove() is ErrorCode.NONE
    assert (bench.group, bench.asked) == (None, {})
    assert bench.joined(joining).error is ErrorCode.COORDINATOR_NOT_AVAILABLE
    waiters = [bench.join(version=3) for _ in range(2)]
    bench.pass_ms(1_000)
    leader, follower = (bench.joined(waiter).member_id for waiter in waiters)
    syncing = bench.sync(follower, 1)  # It waits for the leader.
    assert bench.remove() is ErrorCode.NONE
    assert (bench.group, bench.asked) == (None, {})
    assert bench.synced(syncing).error is ErrorCode.COORDINATOR_NOT_AVAILABLE
    assert isinstance(bench.records[-1], GroupDeleted)


def test_giving_back_an_id_that_nobody_has_joined_with_begins_a_rebalance() -> None:
    """As in Kafka. An id that was never given out does not."""
    bench = Bench()
    bench.stable(2)
    given = bench.joined(bench.join()).member_id
    assert bench.leave("nobody") == (ErrorCode.UNKNOWN_MEMBER_ID,)
    assert bench.group.state is GroupState.STABLE
    assert bench.leave(given) == (ErrorCode.NONE,)
    assert (bench.group.state, len(bench.group.members)) == (GroupState.PREPARING_REBALANCE, 2)


def test_offsets_of_subscribed_topics_are_not_deleted() -> None:
    bench = Bench()
    bench.stable(protocols=(("range", subscription("orders")),))
    request = DeleteOffsets(topics={"orders": ((TOPIC, 0),), "old": ((TOPIC, 1),)})
    decision = transitions.delete_offsets(bench.group, request, 99)
    assert decision.replies[0].answer.subscribed == {"orders"}
    assert decision.records == (OffsetsDeleted(((TOPIC, 1),)),)


def test_offsets_of_a_group_that_is_no_consumer_are_not_deleted_while_it_has_members() -> None:
    bench = Bench()
    bench.stable(protocol_type="connect")
    decision = transitions.delete_offsets(bench.group, DeleteOffsets(topics={}), 99)
    assert decision.replies[0].answer.error is ErrorCode.NON_EMPTY_GROUP
