"""Streams groups under any sequence of events: members come, go, are killed and restarted; topics grow; requests are
lost; and a task is active at one member at a time, whoever believes what."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from streams_bench import Member, StreamsBench

from penstock.groups.member_epochs import LEAVE_EPOCH, STATIC_LEAVE_EPOCH
from penstock.groups.streams.model import StreamsGroupSettings
from penstock.log.refusals import Refused
from penstock.wire.error_codes import ErrorCode

NUMBERS = st.integers(0, 4)


class StreamsMachine(RuleBasedStateMachine):
    """Five members of three processes, one of them static."""

    def __init__(self) -> None:
        super().__init__()
        self.bench = StreamsBench(settings=self.group_settings())
        self.members: dict[str, Member] = {}
        self.generation = 0
        self.refusals: set[ErrorCode] = set()

    def group_settings(self) -> StreamsGroupSettings:
        return StreamsGroupSettings(initial_rebalance_delay_ms=0, assignment_interval_ms=0, num_standby_replicas=1)

    def _member(self, number: int) -> Member:
        name = f"m{number}"
        if name not in self.members:
            self.generation += 1
            instance = "static" if number == 4 else None
            member_id = f"{name}-{self.generation}" if instance else name
            self.members[name] = Member(member_id, process=f"p{number % 3}", instance=instance)
        return self.members[name]

    @rule(number=NUMBERS, hears=st.booleans(), says=st.booleans())
    def beats(self, number: int, hears: bool, says: bool) -> None:
        member = self._member(number)
        before = (member.epoch, member.tasks)
        try:
            result = self.bench.beat(member) if says or not member.epoch else self.bench.beat(member, owned=None)
        except Refused as refusal:
            self.refusals.add(refusal.code)
            del self.members[f"m{number}"]  # It gives up everything, and comes back as somebody new.
            return
        if hears:
            self.bench.create_missing(result)
            assert not says or member.tasks.is_all_of(self.bench.group.members[member.member_id].assigned), "it knows"
        else:
            member.epoch, member.tasks = before

    @rule(number=NUMBERS, for_a_while=st.booleans())
    def leaves(self, number: int, for_a_while: bool) -> None:
        member = self._member(number)
        epoch = STATIC_LEAVE_EPOCH if for_a_while and member.instance else LEAVE_EPOCH
        if self.bench.group is not None and member.member_id in self.bench.group.members:
            self.bench.beat(member, epoch=epoch, owned=None)
        del self.members[f"m{number}"]

    @rule(number=NUMBERS)
    def is_killed(self, number: int) -> None:
        self.members.pop(f"m{number}", None)

    @rule(ms=st.sampled_from([10, 1_000, 46_000]))
    def waits(self, ms: int) -> None:
        self.bench.wait(ms)

    @precondition(lambda self: self.bench.row is not None)
    @rule()
    def restarts(self) -> None:
        self.bench.restart()

    @rule(copies=st.integers(0, 2))
    def is_configured(self, copies: int) -> None:
        self.bench.streams = StreamsGroupSettings(
            initial_rebalance_delay_ms=self.bench.streams.initial_rebalance_delay_ms,
            assignment_interval_ms=self.bench.streams.assignment_interval_ms, num_standby_replicas=copies,
        )  # fmt: skip

    @rule()
    def loses_a_topic(self) -> None:
        if "counts" in self.bench.topics.counts:
            self.bench.topics.drop("counts")

    @invariant()
    def one_member_has_a_task(self) -> None:
        group = self.bench.group
        if group is None:
            return
        active: dict[object, str] = {}
        states: dict[object, str] = {}
        for member in group.members.values():
            for task in (*member.assigned.active, *member.pending_revocation.active):
                assert active.setdefault(task, member.member_id) == member.member_id
            held = {*member.assigned.active, *member.assigned.standby, *member.assigned.warmup}
            for task in held:
                assert states.setdefault((member.process_id, task), member.member_id) == member.member_id
            assert member.epoch <= group.target_epoch <= group.epoch

    @invariant()
    def nobody_is_refused_for_nothing(self) -> None:
        assert self.refusals <= {
            ErrorCode.UNKNOWN_MEMBER_ID, ErrorCode.FENCED_MEMBER_EPOCH, ErrorCode.UNRELEASED_INSTANCE_ID,
            ErrorCode.FENCED_INSTANCE_ID,
        }  # fmt: skip

    @invariant()
    def what_members_believe_is_theirs(self) -> None:
        """Of what living members were told, no task is active at two of them."""
        group = self.bench.group
        believed = [
            task
            for member in self.members.values()
            if group is not None and member.member_id in group.members
            for task in member.tasks.active
        ]
        assert len(believed) == len(set(believed))

    def teardown(self) -> None:
        """When nothing happens any more, everything is assigned."""
        self.bench.wait(46_000)
        members = [Member(f"last-{number}", process=f"p{number}") for number in range(2)]
        self.members.clear()
        for _ in range(8):
            for member in members:
                self.bench.create_missing(self.bench.beat(member))
            self.bench.wait(1_000)
        assert self.bench.group.shown_state == "Stable"
        assert sum(len(member.tasks.active) for member in members) == 8


class PausingMachine(StreamsMachine):
    """The same with an interval between assignments, and a delay before the first."""

    def group_settings(self) -> StreamsGroupSettings:
        return StreamsGroupSettings(num_standby_replicas=1)


TestStreamsMachine = StreamsMachine.TestCase
TestStreamsMachine.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)
TestPausingMachine = PausingMachine.TestCase
TestPausingMachine.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
