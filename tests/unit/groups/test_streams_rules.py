"""Streams groups: rules as tables. Topologies, members, tasks, offsets, and the code for every mistake."""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import replace
from time import process_time
from typing import Any

import pytest
from streams_bench import COPIES, COUNTS, KEY, Member, StreamsBench, ranges_of, tasks

from penstock.groups.consumer.model import ConsumerGroup
from penstock.groups.member_epochs import LEAVE_EPOCH, STATIC_LEAVE_EPOCH
from penstock.groups.model import (
    ClassicGroup,
    DeleteOffsets,
    GroupDeleted,
    GroupStored,
    Join,
    MemberStored,
    OffsetAndMetadata,
    OffsetsDeleted,
    StoredOffsets,
    TransactionOwner,
)
from penstock.groups.reconcile import MemberState
from penstock.groups.streams import topology as topologies
from penstock.groups.streams import transitions
from penstock.groups.streams.model import (
    InternalTopic,
    StatusCode,
    StreamsGroupSettings,
    StreamsHeartbeat,
    Subtopology,
    Topology,
    UserEndpoint,
)
from penstock.groups.streams.tasks import Task, Tasks
from penstock.log.refusals import Refused
from penstock.wire.error_codes import ErrorCode

ALL = tasks(_0=range(4), _1=range(4))
OWNER = TransactionOwner(transactional_id="t", producer_id=1, epoch=0)


def codes(result: Any) -> list[StatusCode]:
    return [status.code for status in result.statuses]


@pytest.fixture
def bench() -> StreamsBench:
    return StreamsBench()


@pytest.fixture
def ready() -> StreamsBench:
    """With the topics that word count needs."""
    bench = StreamsBench()
    bench.topics.put(words=4, counts=4)
    return bench


# --- Topologies ----------------------------------------------------------------------------------------------------


def test_the_first_member_gets_topics_made_and_then_all_tasks(bench: StreamsBench) -> None:
    member = Member("m")
    first = bench.beat(member)
    assert (first.epoch, first.tasks is not None and bool(first.tasks)) == (2, False)
    assert codes(first) == [StatusCode.MISSING_INTERNAL_TOPICS]
    assert first.statuses[0].detail == "Internal topics are missing: counts, words"
    assert [(topic.name, topic.partitions, topic.configs) for topic in first.missing] == [
        ("counts", 4, (("cleanup.policy", "compact"),)), ("words", 4, ()),
    ]  # fmt: skip
    assert bench.group.shown_state == "NotReady"
    assert [type(record) for record in bench.records] == [MemberStored, GroupStored]
    bench.create_missing(first)
    second = bench.beat(member)
    assert (second.epoch, second.statuses, second.missing) == (3, (), ())
    assert member.tasks.active == ALL
    assert bench.group.shown_state == "Stable"
    before = bench.group
    third = bench.beat(member)
    assert (third.tasks, bench.records) == (None, ()), "a heartbeat that changes nothing writes nothing"
    assert bench.group is before


def test_topics_that_come_and_go_are_noticed(ready: StreamsBench) -> None:
    member = Member("m")
    ready.topics.drop("lines")
    answer = ready.beat(member)
    assert codes(answer) == [StatusCode.MISSING_SOURCE_TOPICS]
    assert answer.statuses[0].detail == "Source topics lines are missing."
    ready.topics.put(lines=4)
    assert ready.beat(member).statuses == ()
    assert member.tasks.active == ALL
    epoch = member.epoch
    ready.topics.put(another=1)
    assert ready.beat(member).epoch == epoch, "other topics are of no interest"
    ready.topics.drop("counts")
    answer = ready.beat(member)
    assert codes(answer) == [StatusCode.MISSING_INTERNAL_TOPICS]
    assert ready.group.shown_state == "NotReady"
    assert member.tasks.active == frozenset(), "nobody has tasks of what cannot be computed"


def test_a_source_that_grows_does_not_fit_its_state_any_more(ready: StreamsBench) -> None:
    member = Member("m")
    ready.beat(member)
    ready.topics.put(lines=5)
    answer = ready.beat(member)
    assert codes(answer) == [StatusCode.INCORRECTLY_PARTITIONED_TOPICS]
    assert "Existing topic words has different number of partitions: expected 5, found 4" in answer.statuses[0].detail


def part(number: str, **fields: Any) -> Subtopology:
    for name in ("repartition_sources", "changelogs"):
        fields[name] = tuple(
            InternalTopic(name=topic, partitions=count) for topic, count in dict(fields.get(name, {})).items()
        )
    return Subtopology(subtopology_id=number, **fields)


def copartitioned(*topics: str) -> tuple[frozenset[str], ...]:
    return (frozenset(topics),)


@pytest.mark.parametrize(
    ("parts", "existing", "expected"),
    [
        pytest.param(
            [
                part("0", sources=("a",), repartition_sinks=("r",)),
                part("1", sources=("b",), repartition_sinks=("s",)),
                part("2", repartition_sources={"r": 0, "s": 0}, copartitions=copartitioned("r", "s")),
            ],
            {"a": 2, "b": 7}, {"r": 7, "s": 7}, id="two repartition topics get the larger number",
        ),
        pytest.param(
            [
                part("0", sources=("a",), repartition_sinks=("r",)),
                part("1", sources=("b",), repartition_sources={"r": 0}, copartitions=copartitioned("b", "r")),
            ],
            {"a": 2, "b": 3}, {"r": 3}, id="a repartition topic fits the topic it is joined with",
        ),
        pytest.param(
            [
                part("0", sources=("a",), repartition_sinks=("r",)),
                part("1", repartition_sources={"r": 0}, repartition_sinks=("s",)),
                part("2", repartition_sources={"s": 0}, changelogs={"c": 0}),
            ],
            {"a": 5}, {"r": 5, "s": 5, "c": 5}, id="one after the other",
        ),
        pytest.param(
            [
                part("0", sources=("a",), repartition_sinks=("r",)),
                part("1", repartition_sources={"r": 8}, changelogs={"c": 0}),
            ],
            {"a": 2}, {"r": 8, "c": 8}, id="a number that was asked for",
        ),
        pytest.param(
            [
                part("0", sources=("a",), repartition_sinks=("r", "s")),
                part("1", repartition_sources={"r": 8, "s": 4}, copartitions=copartitioned()),
            ],
            {"a": 2}, {"r": 8, "s": 4}, id="nothing that must match",
        ),
        pytest.param(
            [part("0", sources=("a", "b"), changelogs={"c": 0})], {"a": 2, "b": 3}, {"c": 3}, id="the largest input"
        ),
        pytest.param([], {}, {}, id="nothing at all"),
    ],
)  # fmt: skip
def test_partitions_of_internal_topics(
    parts: list[Subtopology], existing: dict[str, int], expected: dict[str, int]
) -> None:
    found = topologies.configure(Topology(epoch=0, subtopologies=tuple(parts)), existing.get)
    assert {topic.name: topic.partitions for topic in found.missing} == expected
    assert found.partition_counts == expected


@pytest.mark.parametrize(
    ("parts", "existing", "code", "detail"),
    [
        pytest.param(
            [part("0", sources=("a", "b"), copartitions=copartitioned("a", "b"))], {"a": 2, "b": 3},
            StatusCode.INCORRECTLY_PARTITIONED_TOPICS,
            "Following topics do not have the same number of partitions: [{a=2, b=3}]", id="inputs that do not match",
        ),
        pytest.param(
            [
                part("0", sources=("a",), repartition_sinks=("r",)),
                part("1", sources=("b",), repartition_sources={"r": 2}, copartitions=copartitioned("b", "r")),
            ],
            {"a": 2, "b": 3}, StatusCode.INCORRECTLY_PARTITIONED_TOPICS,
            "Number of partitions [2] of repartition topic [r] doesn't match number of partitions [3] of the source"
            " topic.",
            id="a fixed number that does not match",
        ),
        pytest.param(
            [part("0", sources=tuple("dcab"))], {}, StatusCode.MISSING_SOURCE_TOPICS,
            "Source topics a, b, c and 1 additional topics are missing.", id="many that are missing",
        ),
    ],
)  # fmt: skip
def test_topics_that_do_not_fit(
    parts: list[Subtopology], existing: dict[str, int], code: StatusCode, detail: str
) -> None:
    found = topologies.configure(Topology(epoch=0, subtopologies=tuple(parts)), existing.get)
    assert found.problem == (code, detail)
    assert (found.task_counts, found.missing) == (None, ())


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param([part("0", repartition_sources={"r": 0}, repartition_sinks=("r",))], id="a loop"),
        pytest.param([part("0", sources=("a",), repartition_sources={"r": 0})], id="a topic that nobody writes"),
        pytest.param([part("0", changelogs={"c": 0})], id="no input"),
        pytest.param([part("0", sources=("a",), copartitions=copartitioned("a", "z"))], id="a topic from nowhere"),
    ],
)
def test_topologies_that_no_topics_make_run(parts: list[Subtopology]) -> None:
    with pytest.raises(Refused) as refusal:
        topologies.configure(Topology(epoch=0, subtopologies=tuple(parts)), {"a": 1}.get)
    assert refusal.value.code is ErrorCode.STREAMS_INVALID_TOPOLOGY


def test_a_topology_of_many_tasks() -> None:
    topology = Topology(epoch=0, subtopologies=tuple(part(str(number), sources=("a",)) for number in range(101)))
    found = topologies.configure(topology, {"a": 990}.get)
    assert found.task_counts == {str(number): 990 for number in range(101)}
    with pytest.raises(Refused, match="101000 tasks") as refusal:
        topologies.configure(topology, {"a": 1000}.get)
    assert refusal.value.code is ErrorCode.STREAMS_INVALID_TOPOLOGY


def test_a_long_topology_takes_little_time() -> None:
    count = 4_000
    chain = [
        part(
            str(number), repartition_sinks=(f"r{number}",), repartition_sources={f"r{number + 1}": 0},
            copartitions=copartitioned(f"r{number + 1}"),
        )
        for number in range(count)
    ]  # fmt: skip
    chain.append(part("first", sources=("a",), repartition_sinks=(f"r{count}",)))
    before_s = process_time()
    found = topologies.configure(Topology(epoch=0, subtopologies=tuple(chain)), {"a": 3}.get)
    assert set(found.partition_counts.values()) == {3}
    assert process_time() - before_s < 3, "a hundredth of it when each is looked at once, many times as much if not"


def test_who_reads_a_topic_is_told_at_once() -> None:
    parts = [part(str(number), sources=[f"t{number}-{index}" for index in range(10)]) for number in range(1_000)]
    topology = Topology(epoch=0, subtopologies=(part("first", sources=("t5-5",)), *parts))
    before_s = process_time()
    assert [topology.reader(name) for name in ("t5-5", "t5-6", "t999-9")] == ["first", "5", "999"]
    assert not any(topology.reader(f"other-{number}") for number in range(20_000))
    assert process_time() - before_s < 1
    assert topology == Topology(epoch=0, subtopologies=topology.subtopologies)


def test_another_topology_is_refused_and_an_older_one_is_stale(ready: StreamsBench) -> None:
    ready.topology = replace(COUNTS, epoch=2)
    ready.beat(Member("m"))
    assert ready.refused(Member("n"), topology=replace(COPIES, epoch=2)) is ErrorCode.INVALID_REQUEST
    assert ready.refused(Member("n"), topology=replace(COUNTS, epoch=3)) is ErrorCode.INVALID_REQUEST
    answer = ready.beat(Member("n"), topology=replace(COPIES, epoch=1))
    assert codes(answer) == [StatusCode.STALE_TOPOLOGY]
    assert answer.statuses[0].detail == "The member's topology epoch 1 is behind the group's topology epoch 2."
    assert ready.group.topology == replace(COUNTS, epoch=2)


# --- Members and tasks ---------------------------------------------------------------------------------------------


def test_a_task_is_given_back_before_it_is_given(ready: StreamsBench) -> None:
    one, other = Member("a"), Member("b")
    ready.beat(one)
    second = ready.beat(other)
    assert (second.epoch, other.tasks.active, ready.group.shown_state) == (3, frozenset(), "Reconciling")
    pending_revocation = ready.beat(one, owned=None)
    assert (pending_revocation.epoch, len(one.tasks.active)) == (2, 4), "told to give four back, in its old epoch"
    assert ready.group.members["a"].state is MemberState.UNREVOKED
    assert ready.beat(other).tasks is None, "not before that is confirmed"
    assert ready.beat(one, owned=None).epoch == 2, "a member that does not say what it has, has everything"
    assert ready.beat(one).epoch == 3
    ready.beat(other)
    assert one.tasks.active | other.tasks.active == ALL
    assert one.tasks.active.isdisjoint(other.tasks.active)
    assert ready.group.shown_state == "Stable"
    assert ready.group.members["b"].assigned.active == dict.fromkeys(other.tasks.active, 3)


def test_who_does_not_give_back_in_time_is_taken_out(ready: StreamsBench) -> None:
    one, other = Member("a"), Member("b")
    ready.beat(one, rebalance_timeout_ms=7_000)
    ready.beat(other)
    ready.beat(one, owned=None)
    ready.wait(6_999)
    assert "a" in ready.group.members
    ready.wait(1)
    assert list(ready.group.members) == ["b"]
    ready.beat(other)
    assert other.tasks.active == ALL
    assert ready.refused(one) is ErrorCode.UNKNOWN_MEMBER_ID


def test_who_is_not_heard_of_is_taken_out(ready: StreamsBench) -> None:
    one, other = Member("a"), Member("b")
    ready.settle([one, other])
    ready.wait(40_000)
    ready.beat(other)
    ready.wait(5_000)
    assert list(ready.group.members) == ["b"]
    ready.settle([other])
    assert other.tasks.active == ALL
    ready.wait(45_000)
    assert (ready.group.shown_state, ready.group.empty_since_ms, ready.rows) == ("Empty", ready.now_ms, {})


def test_leaving(ready: StreamsBench) -> None:
    one, other = Member("a"), Member("b")
    ready.settle([one, other])
    gone = ready.beat(one, epoch=LEAVE_EPOCH)
    assert (gone.member_id, gone.epoch, gone.statuses) == ("a", LEAVE_EPOCH, ())
    assert not any(name.endswith("/a") for name in ready.timers)
    ready.settle([other])
    assert other.tasks.active == ALL
    ready.beat(other, epoch=LEAVE_EPOCH)
    epoch = ready.group.epoch
    assert (ready.group.shown_state, ready.group.target_epoch) == ("Empty", epoch)
    again = Member("c")
    assert ready.beat(again).epoch == epoch + 1, "the topology stays, and so do epochs"


def test_a_lost_answer_is_given_again_and_a_stranger_is_fenced(ready: StreamsBench) -> None:
    member = Member("m")
    ready.beat(member)
    ready.topics.put(lines=4)
    ready.streams = replace(ready.streams, num_standby_replicas=1)
    ready.beat(member)
    assert member.epoch == 3
    assert ready.beat(member, epoch=2).epoch == 3, "the epoch before, with nothing it must not have"
    member.epoch = 3
    assert ready.refused(member, epoch=2, owned=None) is ErrorCode.FENCED_MEMBER_EPOCH
    assert ready.refused(member, epoch=2, owned=Tasks(standby=tasks(_0=[0]))) is ErrorCode.FENCED_MEMBER_EPOCH
    assert ready.refused(member, epoch=1) is ErrorCode.FENCED_MEMBER_EPOCH
    assert ready.refused(member, epoch=4) is ErrorCode.FENCED_MEMBER_EPOCH


def test_tasks_whose_answer_was_lost_are_told_again(ready: StreamsBench) -> None:
    one, other = Member("a"), Member("b")
    for member in (one, other, one, one):
        ready.beat(member)
    knew = other.epoch, other.tasks
    ready.beat(other)
    given = other.epoch, other.tasks
    assert given[1].active
    assert ready.beat(other).tasks is None, "it knows"
    other.epoch, other.tasks = knew
    assert ready.beat(other, owned=None).tasks is None, "it says nothing, as who is still at it"
    other.epoch, other.tasks = knew
    ready.beat(other)
    assert (other.epoch, other.tasks) == given
    ready.beat(one, epoch=LEAVE_EPOCH)
    knew = other.epoch, other.tasks
    ready.beat(other)
    other.epoch, other.tasks = knew
    ready.beat(other)
    assert (other.epoch, other.tasks.active) == (knew[0] + 1, ALL), "in the epoch before, too"


def test_tasks_that_there_are_not_are_refused(ready: StreamsBench) -> None:
    member = Member("m")
    ready.beat(member)
    for wrong in (Task("9", 0), Task("0", 4), Task("0", -1)):
        assert ready.refused(member, owned=Tasks(frozenset({wrong}))) is ErrorCode.INVALID_REQUEST


def test_how_many_tasks_a_heartbeat_names_makes_it_no_longer(ready: StreamsBench) -> None:
    """It is decided in one go, so none of them is looked at by itself. What is counted are lines that are run."""
    member, lines = Member("m"), 0
    ready.beat(member)

    def trace(frame: Any, event: str, arg: object) -> Any:
        nonlocal lines
        lines += event == "line"
        return trace

    for index in (3, -1, 4):
        many = frozenset(Task(part, number % 4) for part in "01" for number in range(4)) | {Task("1", index)}
        ranges, tasks_ = ranges_of(many), frozenset(Task("1", number) for number in range(20_000))
        request = StreamsHeartbeat(
            member_id="m", epoch=member.epoch, owned=Tasks(standby=tasks_), owned_ranges=ranges, offset_ranges=ranges,
            changelog_offsets=dict.fromkeys(tasks_, 1), changelog_end_offsets=dict.fromkeys(tasks_, 1),
        )  # fmt: skip
        sys.settrace(trace)
        with suppress(Refused):
            transitions.heartbeat(ready.group, request, 1, ready.context)
        sys.settrace(None)
    assert lines < 2_000


@pytest.mark.parametrize("epoch", [1, LEAVE_EPOCH, STATIC_LEAVE_EPOCH])
@pytest.mark.parametrize("group", [None, ConsumerGroup(), ClassicGroup()], ids=["none", "consumer", "classic"])
def test_only_who_joins_makes_a_group(bench: StreamsBench, group: Any, epoch: int) -> None:
    bench.group = group
    assert bench.refused(Member("m"), epoch=epoch, topology=None) is ErrorCode.GROUP_ID_NOT_FOUND


def test_groups_change_their_kind_when_they_are_empty(ready: StreamsBench) -> None:
    ready.group = ConsumerGroup()
    assert ready.refused(Member("m")) is ErrorCode.GROUP_ID_NOT_FOUND
    ready.group = ClassicGroup(stored=True)
    member = Member("m")
    ready.beat(member)
    assert ready.group.kind == "streams"
    join = Join(
        member_id="c", new_member_id="c", session_timeout_ms=10_000, rebalance_timeout_ms=10_000,
        protocol_type="consumer", protocols=(("range", b""),),
    )  # fmt: skip
    refused = ready.rules.join(KEY, ready.group, join, 1, ready.now_ms)
    assert refused.replies[0].answer.error is ErrorCode.INCONSISTENT_GROUP_PROTOCOL
    ready.beat(member, epoch=LEAVE_EPOCH)
    joined = ready.rules.join(KEY, ready.group, replace(join, member_id=""), 1, ready.now_ms)
    assert (joined.replies[0].answer.error, joined.state.kind) == (ErrorCode.MEMBER_ID_REQUIRED, "classic")


def test_a_group_is_full(ready: StreamsBench) -> None:
    ready.streams = replace(ready.streams, max_size=1)
    static = Member("m", instance="i")
    ready.beat(static)
    assert ready.refused(Member("n")) is ErrorCode.GROUP_MAX_SIZE_REACHED
    ready.beat(static, epoch=STATIC_LEAVE_EPOCH)
    assert ready.beat(Member("n", instance="i")).member_id == "n", "it comes in its own place"


def test_static_members(ready: StreamsBench) -> None:
    static, other = Member("a", instance="i", process="p"), Member("b")
    ready.settle([static, other])
    epoch, had = ready.group.epoch, static.tasks.active
    assert ready.refused(Member("z", instance="i")) is ErrorCode.UNRELEASED_INSTANCE_ID
    for epoch_said in (epoch, LEAVE_EPOCH, STATIC_LEAVE_EPOCH):
        assert ready.refused(Member("z", instance="i"), epoch=epoch_said, topology=None) is ErrorCode.FENCED_INSTANCE_ID
        wrong = Member("a", instance="other")
        assert ready.refused(wrong, epoch=epoch_said, topology=None) is ErrorCode.UNKNOWN_MEMBER_ID
    assert ready.beat(static, epoch=STATIC_LEAVE_EPOCH).epoch == STATIC_LEAVE_EPOCH
    assert ready.group.epoch == epoch, "nothing is assigned anew"
    ready.restart()
    again = Member("c", instance="i", process="p")
    joined = ready.beat(again)
    assert (joined.epoch, again.tasks.active, list(ready.group.members)) == (epoch, had, ["b", "c"])
    assert ready.commit("c", epoch - 1, ("lines", min(had).partition)) is ErrorCode.NONE, "had since ever"
    ready.beat(again, epoch=STATIC_LEAVE_EPOCH)
    ready.wait(44_000)
    ready.beat(other)
    ready.wait(1_000)
    assert list(ready.group.members) == ["b"], "away for too long"


def test_a_static_member_that_comes_back_leaves_no_task_offsets_behind(ready: StreamsBench) -> None:
    for number in range(3):
        member = Member(f"m{number}", instance="i", process="p")
        ready.beat(member, changelog_offsets={Task("1", 0): number})
        assert {key: said.changelog_offsets for key, said in ready.group.task_offsets.items()} == {
            member.member_id: {Task("1", 0): number}
        }
        ready.beat(member, epoch=STATIC_LEAVE_EPOCH)
    ready.beat(member)
    assert list(ready.group.task_offsets) == ["m2"], "the same member again"


def test_the_first_assignment_waits_for_more_members(ready: StreamsBench) -> None:
    ready.streams = replace(ready.streams, initial_rebalance_delay_ms=3_000)
    one, other = Member("a"), Member("b")
    first = ready.beat(one)
    assert (first.epoch, codes(first)) == (1, [StatusCode.ASSIGNMENT_DELAYED])
    assert first.statuses[0].detail == "Assignment delayed due to the configured initial rebalance delay."
    assert first.interval_ms == 3_050, "to come back when it is over"
    ready.wait(2_000)
    assert codes(ready.beat(other)) == [StatusCode.ASSIGNMENT_DELAYED]
    assert ready.group.shown_state == "Assigning"
    ready.wait(1_000)
    ready.beat(one)
    ready.beat(other)
    assert (len(one.tasks.active), len(other.tasks.active)) == (4, 4), "in one step"
    assert one.epoch == other.epoch == ready.group.epoch


def test_assignments_keep_their_distance(ready: StreamsBench) -> None:
    ready.streams = replace(ready.streams, assignment_interval_ms=1_000)
    one, other = Member("a"), Member("b")
    ready.beat(one)
    early = ready.beat(other)
    assert (early.epoch, codes(early)) == (2, [StatusCode.ASSIGNMENT_DELAYED])
    assert early.statuses[0].detail == "Assignment delayed due to the configured assignment interval."
    assert early.interval_ms == 1_050, "to come back when there is something to hear"
    ready.wait(1_000)
    ready.settle([one, other])
    assert ready.group.shown_state == "Stable"
    ready.wait(3_000)
    assert ready.beat(one).interval_ms == ready.streams.heartbeat_interval_ms


def test_standbys_are_in_other_processes_and_take_over(ready: StreamsBench) -> None:
    ready.streams = replace(ready.streams, num_standby_replicas=1)
    members = [Member("a1", process="a"), Member("a2", process="a"), Member("b1", process="b")]
    ready.settle(members)
    state = tasks(_1=range(4))
    held = {process: frozenset[Task]() for process in "ab"}
    for member in members:
        held[member.process] |= member.tasks.active | member.tasks.standby
    assert sum(len(member.tasks.standby) for member in members) == 4
    assert all(state <= found for found in held.values()), "every process has the state of every task once"
    had = members[2].tasks.standby
    for member in members[:2]:
        ready.beat(member, epoch=LEAVE_EPOCH)
    ready.settle(members[2:])
    assert members[2].tasks.active == ALL > had
    assert members[2].tasks.standby == frozenset(), "there is nobody to keep a copy"
    ready.streams = replace(ready.streams, num_standby_replicas=0)
    assert ready.beat(members[2]).epoch == members[2].epoch == ready.group.epoch, "another configuration counts"


def test_shutting_down_the_application(ready: StreamsBench) -> None:
    one, other = Member("a"), Member("b")
    ready.settle([one, other])
    assert codes(ready.beat(one, shutdown_application=True)) == [StatusCode.SHUTDOWN_APPLICATION]
    answer = ready.beat(other)
    assert answer.statuses[0].detail == (
        "Streams group member a encountered a fatal error and requested a shutdown for the entire application."
    )
    ready.beat(one, epoch=LEAVE_EPOCH)
    assert codes(ready.beat(other)) == [StatusCode.SHUTDOWN_APPLICATION]
    ready.beat(other, epoch=LEAVE_EPOCH, shutdown_application=True)
    assert ready.beat(Member("c")).statuses == (), "forgotten with the last member"
    assert ready.refused(one, epoch=LEAVE_EPOCH) is ErrorCode.UNKNOWN_MEMBER_ID
    asked = StreamsHeartbeat(member_id="a", epoch=LEAVE_EPOCH, shutdown_application=True)
    answer = ready.adopt(transitions.leave(ready.group, asked, 1, ready.context))
    assert (answer.code, ready.group.shutdown_by) == (ErrorCode.UNKNOWN_MEMBER_ID, "a"), "given up before it could ask"


def test_endpoints_and_what_can_be_asked_there(ready: StreamsBench) -> None:
    one, other = Member("a"), Member("b")
    ready.beat(one, endpoint=UserEndpoint("here", 1))
    first = ready.beat(other, endpoint=UserEndpoint("there", 2))
    assert first.endpoints is not None
    ready.settle([one, other])
    epoch = ready.group.endpoint_epoch
    assert ready.beat(one, endpoint_epoch=epoch).endpoints is None
    told = ready.beat(one, endpoint_epoch=epoch - 1)
    assert told.endpoint_epoch == epoch
    assert told.endpoints is not None
    for (_, active, standby), member in zip(told.endpoints, (one, other), strict=True):
        assert standby == {}
        assert {(topic, index) for topic, found in active.items() for index in found} == {
            ("lines" if task.subtopology_id == "0" else "words", task.partition) for task in member.tasks.active
        }
    ready.beat(other, endpoint=UserEndpoint("elsewhere", 3))
    assert ready.group.endpoint_epoch == epoch + 1


def test_client_tags_are_asked_for(ready: StreamsBench) -> None:
    ready.streams = replace(ready.streams, rack_aware_assignment_tags=("zone", "rack"))
    answer = ready.beat(Member("m"), client_tags={"zone": "z"})
    assert codes(answer) == [StatusCode.MISSING_CLIENT_TAGS]
    assert "assignment: [rack]" in answer.statuses[0].detail
    assert ready.beat(Member("n"), knows_tags=False).statuses == ()
    assert ready.group.configs == {"num.standby.replicas": "0", "rack.aware.assignment.tags": "zone,rack"}


def test_state_that_is_on_a_disk_already_is_remembered_and_used(ready: StreamsBench) -> None:
    ready.streams = replace(ready.streams, initial_rebalance_delay_ms=1_000)
    members = [Member("a"), Member("b")]
    for member in members:
        ready.beat(member)
    far = {Task("1", 0): 10, Task("1", 1): 10, Task("9", 0): 5, Task("1", 99): 5}
    ready.beat(members[1], changelog_offsets=far, changelog_end_offsets={Task("1", 0): 20})
    assert ready.group.task_offsets["b"].changelog_offsets == {Task("1", 0): 10, Task("1", 1): 10}, (
        "of tasks that there are"
    )
    many = {Task("1", 99 + number): 1 for number in range(transitions.MAX_FILTERED_OFFSETS)}
    ready.beat(members[0], changelog_offsets={Task("1", 0): 20, **many})
    assert ready.group.task_offsets["a"].changelog_offsets == {}, (
        "nobody believes who says much of tasks that there are not"
    )
    ready.wait(1_000)
    ready.settle(members)
    assert tasks(_1=[0, 1]) <= members[1].tasks.active
    ready.beat(members[1], epoch=LEAVE_EPOCH)
    assert list(ready.group.task_offsets) == ["a"]


def test_a_group_goes_on_after_a_restart(ready: StreamsBench) -> None:
    one, other = Member("a"), Member("b")
    ready.beat(one)
    ready.beat(other)
    ready.beat(one, owned=None)
    ready.restart()
    assert ready.timers == {
        "session/a": ready.now_ms + 45_000, "session/b": ready.now_ms + 45_000, "rebalance/a": ready.now_ms + 60_000,
    }  # fmt: skip
    epoch = ready.group.epoch
    ready.settle([one, other])
    assert (one.tasks.active | other.tasks.active, ready.group.epoch) == (ALL, epoch), "nothing is assigned anew"


# --- Offsets -------------------------------------------------------------------------------------------------------


def test_who_may_commit(ready: StreamsBench) -> None:
    assert ready.commit("", -1, ("lines", 0)) is ErrorCode.NONE, "nobody is in the group"
    one, other = Member("a"), Member("b")
    ready.settle([one, other])
    epoch, mine = ready.group.epoch, min(one.tasks.active)
    topic = ("lines", mine.partition)
    assert mine.subtopology_id == "0"
    assert ready.commit("a", epoch, topic) is ErrorCode.NONE
    assert ready.commit("a", epoch, topic, version=8) is ErrorCode.UNSUPPORTED_VERSION
    assert ready.commit("a", epoch - 1, topic) is ErrorCode.NONE, "a task it has had since then"
    assert ready.commit("a", epoch - 1, topic, ("elsewhere", 0)) is ErrorCode.STALE_MEMBER_EPOCH
    assert ready.commit("a", epoch + 1, topic) is ErrorCode.STALE_MEMBER_EPOCH
    theirs = min(other.tasks.active)
    assert ready.commit("b", epoch - 1, ("lines", theirs.partition)) is ErrorCode.STALE_MEMBER_EPOCH
    assert ready.commit("z", epoch, topic) is ErrorCode.UNKNOWN_MEMBER_ID
    assert ready.commit("", -1, topic) is ErrorCode.UNKNOWN_MEMBER_ID


def test_who_may_commit_in_a_transaction(ready: StreamsBench) -> None:
    one, other = Member("a"), Member("b")
    ready.settle([one, other])
    epoch, theirs = ready.group.epoch, ("lines", min(other.tasks.active).partition)
    assert ready.commit("", -1, theirs, owner=OWNER, version=2) is ErrorCode.NONE, "from before KIP-447"
    assert ready.commit("a", epoch, theirs, owner=OWNER, version=3) is ErrorCode.NONE
    assert ready.commit("b", epoch - 1, theirs, owner=OWNER, version=5) is ErrorCode.ILLEGAL_GENERATION
    assert ready.commit("b", epoch - 1, theirs, owner=OWNER, version=6) is ErrorCode.STALE_MEMBER_EPOCH
    assert ready.commit("z", epoch, theirs, owner=OWNER) is ErrorCode.UNKNOWN_MEMBER_ID


def test_who_may_be_told_offsets(ready: StreamsBench) -> None:
    member = Member("a")
    ready.beat(member)

    def error(member_id: str | None, epoch: int) -> Any:
        return ready.rules.fetch_error(ready.group, member_id, epoch, 1).replies[0].answer

    assert error(None, -1) is ErrorCode.NONE
    assert error("a", member.epoch) is ErrorCode.NONE
    assert error("a", member.epoch - 1) is ErrorCode.STALE_MEMBER_EPOCH
    assert error("z", member.epoch) is ErrorCode.UNKNOWN_MEMBER_ID


def test_offsets_go_with_whoever_needs_them(ready: StreamsBench) -> None:
    member = Member("a")
    ready.beat(member)
    lines, other = (b"lines".ljust(16), 0), (b"other".ljust(16), 0)
    request = DeleteOffsets(topics={"lines": (lines,), "other": (other,)})
    decision = ready.rules.delete_offsets(ready.group, request, 1)
    assert decision.replies[0].answer.subscribed == {"lines"}
    assert decision.records == (OffsetsDeleted((other,)),)
    offsets = {
        at: OffsetAndMetadata(committed_offset=1, leader_epoch=0, metadata="", committed_ms=0) for at in (lines, other)
    }
    names = {lines[0]: "lines", other[0]: "other"}

    def expire(*pending: tuple[bytes, int]) -> Any:
        stored = StoredOffsets(offsets=offsets, pending=pending, topic_names=names)
        return ready.rules.expire_offsets(KEY, ready.group, stored, 1, ready.now_ms)

    ready.now_ms += ready.settings.offsets_retention_ms
    assert expire().records == (OffsetsDeleted((other,)),)
    assert expire(other).records == (), "one that an open transaction has an offset for stays"
    assert ready.rules.delete(ready.group, 1).replies[0].answer is ErrorCode.NON_EMPTY_GROUP
    ready.beat(member, epoch=LEAVE_EPOCH)
    assert expire().records == (GroupDeleted(),)
    assert expire(other).records == (OffsetsDeleted((lines,)),)
    offsets.clear()
    assert expire().records == (GroupDeleted(),), "a group without any goes as well"
    assert ready.rules.delete(ready.group, 1).replies[0].answer is ErrorCode.NONE


def test_settings_of_a_group() -> None:
    settings = StreamsGroupSettings().of_group(
        {
            "streams.session.timeout.ms": "50000", "streams.heartbeat.interval.ms": "6000",
            "streams.num.standby.replicas": "2", "streams.initial.rebalance.delay.ms": "0",
            "streams.assignment.interval.ms": "7", "streams.rack.aware.assignment.tags": "a, b",
            "streams.task.offset.interval.ms": "20000", "streams.acceptable.recovery.lag": "5",
            "consumer.session.timeout.ms": "1",
        }
    )  # fmt: skip
    assert settings == StreamsGroupSettings(
        session_timeout_ms=50_000, heartbeat_interval_ms=6_000, num_standby_replicas=2, initial_rebalance_delay_ms=0,
        assignment_interval_ms=7, rack_aware_assignment_tags=("a", "b"), task_offset_interval_ms=20_000,
        acceptable_recovery_lag=5,
    )  # fmt: skip
