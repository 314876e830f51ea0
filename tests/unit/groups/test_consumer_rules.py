"""Consumer groups: joining, epochs, fencing, giving back before being given, static members, offsets, timers."""

from __future__ import annotations

from dataclasses import replace

import pytest
from consumer_bench import PEOPLE, PLACES, ConsumerBench, assigned, without_pauses

from penstock.groups.consumer.model import ConsumerGroup
from penstock.groups.model import OffsetsCommitted, TransactionOwner
from penstock.groups.reconcile import MemberState
from penstock.groups.settings import ConsumerSettings, GroupSettings
from penstock.wire.error_codes import ErrorCode

QUICK = without_pauses()


def partitions(answer) -> set[int] | None:
    return None if answer.assigned is None else set(answer.assigned.get(PEOPLE, {}))


def pair() -> ConsumerBench:
    """Two stable members, a and b, with three partitions each, in epoch 2."""
    bench = ConsumerBench(QUICK)
    bench.join("a")
    bench.join("b")
    assert partitions(bench.beat("a", 1)) == {0, 1, 2}
    bench.beat("a", 1, owned={PEOPLE: {0, 1, 2}})
    bench.beat("b", 2, owned={})
    assert [assigned(bench.group.members[m]) for m in "ab"] == [{0, 1, 2}, {3, 4, 5}]
    assert bench.group.shown_state == "Stable"
    bench.check()
    return bench


def test_first_member_gets_everything_at_once() -> None:
    bench = ConsumerBench()
    answer = bench.join("a")
    assert (answer.error, answer.member_id, answer.epoch) == (ErrorCode.NONE, "a", 1)
    assert partitions(answer) == {0, 1, 2, 3, 4, 5}
    assert bench.group.shown_state == "Stable"
    bench.check()


def test_partitions_are_given_back_before_they_are_given() -> None:
    bench = ConsumerBench(QUICK)
    bench.join("a")
    joined = bench.join("b")
    assert (joined.epoch, partitions(joined)) == (2, set())  # Its partitions are still a's.
    assert bench.group.members["b"].state is MemberState.UNRELEASED
    told = bench.beat("a", 1)
    assert (told.epoch, partitions(told)) == (1, {0, 1, 2})
    assert bench.group.members["a"].state is MemberState.UNREVOKED
    assert "rebalance/a" in bench.timers
    assert partitions(bench.beat("a", 1, owned={PEOPLE: {0, 1, 2, 5}})) is None  # Not all of it yet.
    assert partitions(bench.beat("b", 2)) is None
    done = bench.beat("a", 1, owned={PEOPLE: {0, 1, 2}})
    assert (done.epoch, partitions(done)) == (2, None)
    assert "rebalance/a" not in bench.timers
    assert partitions(bench.beat("b", 2)) == {3, 4, 5}
    assert bench.group.shown_state == "Stable"
    bench.check()


def test_a_settled_heartbeat_changes_and_writes_nothing() -> None:
    bench = pair()
    bench.pass_ms(10_000)
    group, records = bench.group, len(bench.records)
    answer = bench.beat("a", 2)
    assert (answer.assigned, answer.interval_ms) == (None, 5_000)
    assert bench.group is group
    assert len(bench.records) == records
    assert bench.timers["session/a"] == bench.now_ms + 45_000


def test_members_are_heard_of_soon_while_something_is_under_way() -> None:
    bench = ConsumerBench()
    assert bench.join("a").interval_ms == 250
    bench.pass_ms(2_000)
    assert bench.beat("a", 1).interval_ms == 5_000
    bench.join("b")
    assert bench.beat("a", 1).interval_ms == 250  # It has to give something back.


def test_assignments_wait_for_the_interval() -> None:
    bench = ConsumerBench()
    bench.join("a")
    late = bench.join("b")
    assert (late.epoch, partitions(late), bench.group.epoch, bench.group.target_epoch) == (1, set(), 2, 1)
    assert bench.group.shown_state == "Assigning"
    bench.pass_ms(999)
    assert bench.beat("a", 1).assigned is None
    bench.pass_ms(1)
    assert partitions(bench.beat("a", 1)) == {0, 1, 2}


@pytest.mark.parametrize(
    ("member_id", "epoch", "owned", "expected"),
    [
        ("a", 2, None, ErrorCode.NONE),
        ("a", 3, None, ErrorCode.FENCED_MEMBER_EPOCH),
        ("a", 1, {PEOPLE: {0, 1}}, ErrorCode.NONE),  # The answer with the new epoch may have been lost.
        ("a", 1, {PEOPLE: {0, 4}}, ErrorCode.FENCED_MEMBER_EPOCH),
        ("a", 1, None, ErrorCode.FENCED_MEMBER_EPOCH),
        ("b", 1, {}, ErrorCode.FENCED_MEMBER_EPOCH),
        ("x", 2, None, ErrorCode.UNKNOWN_MEMBER_ID),
    ],
)
def test_epochs_are_checked(member_id: str, epoch: int, owned, expected: ErrorCode) -> None:
    bench = pair()
    assert bench.error(lambda: bench.beat(member_id, epoch, owned=owned)) is expected


def test_unknown_and_full_groups() -> None:
    bench = ConsumerBench(GroupSettings(consumer=ConsumerSettings(max_size=1)))
    assert bench.error(lambda: bench.beat("a", 1)) is ErrorCode.GROUP_ID_NOT_FOUND
    assert bench.error(lambda: bench.beat("a", -1)) is ErrorCode.GROUP_ID_NOT_FOUND
    bench.join("a")
    assert bench.error(lambda: bench.join("b")) is ErrorCode.GROUP_MAX_SIZE_REACHED
    assert bench.join("a").epoch == 1  # A member may join again.


def test_member_that_joins_again_is_told_all_it_has() -> None:
    bench = pair()
    answer = bench.join("a")
    assert (answer.epoch, partitions(answer)) == (2, {0, 1, 2})
    bench.check()


def test_member_that_leaves_frees_what_it_has() -> None:
    bench = pair()
    gone = bench.beat("a", -1)
    assert (gone.member_id, gone.epoch) == ("a", -1)
    assert partitions(bench.beat("b", 2)) == {0, 1, 2, 3, 4, 5}
    bench.beat("b", -1)
    assert bench.group.shown_state == "Empty"
    assert bench.group.epoch == bench.group.target_epoch
    bench.check()


def test_silent_member_is_fenced() -> None:
    bench = pair()
    bench.pass_ms(30_000)
    bench.beat("b", 2)
    bench.pass_ms(15_000)
    assert list(bench.group.members) == ["b"]
    assert bench.error(lambda: bench.beat("a", 2)) is ErrorCode.UNKNOWN_MEMBER_ID
    assert partitions(bench.beat("b", 2)) == {0, 1, 2, 3, 4, 5}


def test_member_that_does_not_give_back_is_fenced() -> None:
    bench = ConsumerBench(QUICK)
    bench.join("a", rebalance_timeout_ms=7_000)
    bench.join("b")
    bench.beat("a", 1)
    bench.pass_ms(6_999)
    bench.beat("a", 1, owned={PEOPLE: {0, 1, 2, 3}})
    bench.pass_ms(1)
    assert list(bench.group.members) == ["b"]
    assert partitions(bench.beat("b", 2)) == {0, 1, 2, 3, 4, 5}
    bench.check()


def test_subscriptions_change() -> None:
    bench = ConsumerBench(QUICK)
    bench.topics.change("places", 2)
    bench.join("a")
    answer = bench.beat("a", 1, topics={"places"}, owned={PEOPLE: {0, 1, 2, 3, 4, 5}}, rebalance_timeout_ms=60_000)
    assert answer.assigned == {}  # Given back first.
    assert bench.beat("a", 1, owned={}).assigned == {PLACES: {0: 2, 1: 2}}
    bench.check()


def test_unsubscribed_topics_go_at_once_even_before_the_next_assignment() -> None:
    bench = ConsumerBench()
    bench.topics.change("places", 2)
    bench.join("a", "people", "places")
    answer = bench.beat(
        "a", 1, topics={"people"}, owned={PEOPLE: set(range(6)), PLACES: {0, 1}}, rebalance_timeout_ms=60_000
    )
    assert answer.assigned is not None
    assert set(answer.assigned) == {PEOPLE}
    assert bench.group.target_epoch == 1
    assert bench.group.members["a"].pending_revocation == {PLACES: {0: 1, 1: 1}}
    bench.check()


def test_topics_change() -> None:
    bench = ConsumerBench(QUICK)
    bench.join("a")
    bench.topics.change("elsewhere", 5)
    assert bench.beat("a", 1).epoch == 1  # Nobody subscribes it.
    bench.topics.change("people", 8)
    grown = bench.beat("a", 1)
    assert (grown.epoch, partitions(grown)) == (2, set(range(8)))
    bench.topics.change("people", None)
    bench.beat("a", 2)
    bench.beat("a", 2, owned={})
    assert bench.group.members["a"].assigned == {}
    bench.check()


def test_assignor_that_most_ask_for() -> None:
    bench = ConsumerBench(QUICK)
    bench.topics.change("places", 2)
    bench.join("a", "people", "places", assignor="range")
    bench.join("b", "people", "places")
    assert bench.group.members["b"].target == {PEOPLE: frozenset({3, 4, 5}), PLACES: frozenset({1})}
    epoch = bench.group.epoch
    bench.beat("a", 1, assignor="uniform")
    assert bench.group.epoch == epoch + 1, "another one that most would like calls for another assignment"
    bench.beat("a", 1, assignor="uniform")
    assert bench.group.epoch == epoch + 1
    bench.join("c", "people")
    assert bench.group.epoch == epoch + 2
    assert sorted(map(len, (bench.group.members[name].target[PEOPLE] for name in "abc"))) == [2, 2, 2]


# --- Static members ------------------------------------------------------------------------------------------------


def static() -> ConsumerBench:
    bench = ConsumerBench(QUICK)
    bench.join("a", instance_id="one")
    bench.join("b")
    bench.beat("a", 1, instance_id="one")
    bench.beat("a", 1, instance_id="one", owned={PEOPLE: {0, 1, 2}})
    bench.beat("b", 2)
    return bench


def test_static_member_that_is_away_keeps_its_partitions() -> None:
    bench = static()
    assert bench.beat("a", -2, instance_id="one").epoch == -2
    bench.check()
    assert assigned(bench.group.members["a"]) == {0, 1, 2}
    epoch = bench.group.epoch
    answer = bench.join("again", instance_id="one")
    assert (bench.group.epoch, answer.epoch, partitions(answer)) == (epoch, epoch, {0, 1, 2})
    assert set(bench.group.members) == {"b", "again"}
    assert bench.error(lambda: bench.beat("a", 2, instance_id="one")) is ErrorCode.FENCED_INSTANCE_ID
    bench.check()


def test_static_member_that_stays_away_loses_them() -> None:
    bench = static()
    bench.beat("a", -2, instance_id="one")
    bench.pass_ms(44_000)
    bench.beat("b", 2)
    bench.pass_ms(1_000)
    assert set(bench.group.members) == {"b"}
    assert bench.group.instances == {}


def test_instance_id_is_not_taken_from_a_member_that_is_there() -> None:
    bench = static()
    assert bench.error(lambda: bench.join("other", instance_id="one")) is ErrorCode.UNRELEASED_INSTANCE_ID
    assert bench.error(lambda: bench.beat("x", 2, instance_id="one")) is ErrorCode.FENCED_INSTANCE_ID
    assert bench.error(lambda: bench.beat("x", 2, instance_id="two")) is ErrorCode.UNKNOWN_MEMBER_ID
    assert bench.error(lambda: bench.beat("x", -1, instance_id="one")) is ErrorCode.FENCED_INSTANCE_ID
    assert bench.error(lambda: bench.beat("x", -2, instance_id="two")) is ErrorCode.UNKNOWN_MEMBER_ID
    bench.beat("a", -1, instance_id="one")
    assert set(bench.group.members) == {"b"}


# --- Regular expressions -------------------------------------------------------------------------------------------


def test_regular_expressions_are_looked_up_and_assigned() -> None:
    bench = ConsumerBench(QUICK)
    joined = bench.beat("a", 0, topics=set(), regex="p.*", owned={}, rebalance_timeout_ms=60_000)
    assert (joined.epoch, joined.assigned, joined.resolve) == (1, {}, frozenset({"p.*"}))
    assert bench.beat("a", 1).resolve == frozenset()  # They are being looked up.
    assert bench.resolve({"p.*": {"people"}, "gone": {"people"}})
    assert partitions(bench.beat("a", 1)) == set(range(6))
    assert bench.group.is_subscribed("people")
    bench.check()
    bench.pass_ms(1_000)
    assert bench.beat("a", 2).resolve == frozenset()
    bench.topics.change("places", 2)
    assert bench.beat("a", 2).resolve == frozenset({"p.*"})
    assert bench.resolve({"p.*": {"people", "places"}})
    assert set(bench.beat("a", 2).assigned or ()) == {PEOPLE, PLACES}
    bench.restart()
    assert bench.group.regexes["p.*"].topics == {"people", "places"}
    bench.pass_ms(1_000)
    assert bench.beat("a", 3).resolve == frozenset({"p.*"})
    assert not bench.resolve({"p.*": {"people", "places"}})
    assert bench.group.epoch == 3


def test_regular_expressions_are_refreshed_now_and_then() -> None:
    bench = ConsumerBench(QUICK)
    bench.beat("a", 0, topics=set(), regex="p.*", owned={}, rebalance_timeout_ms=60_000)
    bench.resolve({"p.*": {"people"}})
    for _ in range(20):
        bench.pass_ms(30_000)
        assert bench.beat("a", bench.group.members["a"].epoch).resolve == frozenset()
    bench.pass_ms(30_000)
    assert bench.beat("a", bench.group.members["a"].epoch).resolve == frozenset({"p.*"})


def test_bad_regular_expressions_are_refused() -> None:
    bench = ConsumerBench(QUICK)
    bench.join("a")
    for regex in ("(", "(?=lookahead)", "x" * 5_000):
        error = bench.error(lambda regex=regex: bench.beat("a", 1, regex=regex))
        assert error is ErrorCode.INVALID_REGULAR_EXPRESSION


def test_a_regex_that_nobody_has_any_more_is_forgotten() -> None:
    bench = ConsumerBench(QUICK)
    bench.beat("a", 0, topics=set(), regex="p.*", owned={}, rebalance_timeout_ms=60_000)
    bench.resolve({"p.*": {"people"}})
    bench.beat("a", bench.group.members["a"].epoch, regex="")
    assert bench.group.regexes == {}
    bench.check()


# --- Offsets -------------------------------------------------------------------------------------------------------

OWNER = TransactionOwner(transactional_id="t", producer_id=1, epoch=0)


@pytest.mark.parametrize(
    ("member_id", "epoch", "more", "expected"),
    [
        ("a", 2, {}, ErrorCode.NONE),
        ("a", 1, {}, ErrorCode.NONE),  # It has had the partition since then (KIP-1251).
        ("a", 1, {"partition": 4}, ErrorCode.STALE_MEMBER_EPOCH),
        ("b", 1, {"partition": 4}, ErrorCode.STALE_MEMBER_EPOCH),  # It got it in epoch 2.
        ("a", 3, {}, ErrorCode.STALE_MEMBER_EPOCH),
        ("x", 2, {}, ErrorCode.UNKNOWN_MEMBER_ID),
        ("", -1, {}, ErrorCode.UNKNOWN_MEMBER_ID),
        ("a", 2, {"version": 8}, ErrorCode.UNSUPPORTED_VERSION),
        ("", -1, {"owner": OWNER}, ErrorCode.NONE),
        ("a", 2, {"owner": OWNER, "version": 3}, ErrorCode.NONE),
        ("a", 3, {"owner": OWNER, "version": 5}, ErrorCode.ILLEGAL_GENERATION),
        ("a", 3, {"owner": OWNER, "version": 6}, ErrorCode.STALE_MEMBER_EPOCH),
    ],
)
def test_commits_are_checked(member_id: str, epoch: int, more, expected: ErrorCode) -> None:
    bench = pair()
    records = len(bench.records)
    assert bench.commit(member_id, epoch, **more) is expected
    assert (len(bench.records) > records) == (expected is ErrorCode.NONE)


def test_anybody_commits_while_the_group_is_empty() -> None:
    bench = pair()
    bench.beat("a", -1)
    bench.beat("b", -1)
    assert bench.commit() is ErrorCode.NONE
    assert isinstance(bench.records[-1], OffsetsCommitted)


@pytest.mark.parametrize(
    ("member_id", "epoch", "expected"),
    [
        (None, -1, ErrorCode.NONE),
        ("a", 2, ErrorCode.NONE),
        ("a", 1, ErrorCode.STALE_MEMBER_EPOCH),
        ("x", 2, ErrorCode.UNKNOWN_MEMBER_ID),
    ],
)
def test_fetches_are_checked(member_id: str | None, epoch: int, expected: ErrorCode) -> None:
    bench = pair()
    assert bench.ask(lambda group, waiter: bench.rules.fetch_error(group, member_id, epoch, waiter)) is expected


# --- Restarts and other kinds --------------------------------------------------------------------------------------


def test_members_keep_their_epochs_over_a_restart() -> None:
    bench = pair()
    before = bench.group
    bench.restart()
    assert isinstance(bench.group, ConsumerGroup)
    assert bench.group.members == before.members
    assert (bench.group.epoch, bench.group.owners, bench.group.topics_hash) == (2, before.owners, before.topics_hash)
    answer = bench.beat("a", 2)
    assert (answer.epoch, answer.assigned) == (2, None)
    assert bench.group.epoch == 2


def test_a_restart_goes_on_with_giving_back() -> None:
    bench = ConsumerBench(QUICK)
    bench.join("a", rebalance_timeout_ms=7_000)
    bench.join("b")
    bench.beat("a", 1)
    bench.restart()
    assert bench.timers["rebalance/a"] == bench.now_ms + 7_000
    bench.beat("a", 1, owned={PEOPLE: {0, 1, 2}})
    assert partitions(bench.beat("b", 2)) == {3, 4, 5}


def test_group_configuration_wins() -> None:
    settings = ConsumerSettings().of_group({"consumer.session.timeout.ms": "50000", "share.session.timeout.ms": "1"})
    assert (settings.session_timeout_ms, settings.heartbeat_interval_ms) == (50_000, 5_000)
    bench = ConsumerBench(replace(GroupSettings(), consumer=settings))
    bench.join("a")
    assert bench.timers["session/a"] == bench.now_ms + 50_000
