"""Classic group rules under random clients: whatever they do and whenever the process dies, the invariants hold."""

from __future__ import annotations

from group_bench import Bench
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from penstock.groups.encoding import decode, encode
from penstock.groups.model import GroupState, GroupStored, LeavingMember
from penstock.groups.settings import GroupSettings
from penstock.wire.error_codes import ErrorCode

PARTITIONS = frozenset(range(6))
INSTANCES = ("i1", "i2")
METADATA = st.sampled_from([(("range", b"a"),), (("range", b"b"),), (("range", b"a"), ("sticky", b"a"))])


class GroupMachine(RuleBasedStateMachine):
    """Clients that join, sync, beat, commit, leave and lie, and a process that dies."""

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench(GroupSettings(max_size=5))
        self.joins: dict[int, str | None] = {}
        """Joins that are parked or answered: waiter → instance id."""
        self.ids: list[str] = []
        self.fenced: dict[str, str] = {}
        """Ids that a newer member of the same instance replaced."""
        self.generation = 0
        self.owners: dict[tuple[int, int], str] = {}
        """(generation, partition) → who was given it."""
        self.replaced: dict[str, str] = {}

    @initialize(dynamic=st.integers(0, 3), instances=st.integers(0, 2), settle=st.booleans())
    def a_group_that_exists(self, dynamic: int, instances: int, settle: bool) -> None:
        for instance_id in [None] * dynamic + list(INSTANCES[:instances]):
            self.joins[self.bench.join(instance_id=instance_id, version=2)] = instance_id
        self.bench.pass_ms(300)
        self.learn()
        if settle and self.bench.group is not None:
            self.everybody_syncs()

    def everybody_syncs(self) -> None:
        members = sorted(self.bench.group.members)
        shares = {m: bytes(p for p in PARTITIONS if p % len(members) == n) for n, m in enumerate(members)}
        self.bench.sync_all(shares)
        self.check_owners()

    def member(self, data: st.DataObject) -> str:
        members = [] if self.bench.group is None else list(self.bench.group.members)
        return data.draw(st.sampled_from([*members, *members, *self.ids[-3:], "nobody"]))

    def instance_of(self, member_id: str) -> str | None:
        group = self.bench.group
        held = {} if group is None else {member: instance for instance, member in group.instances.items()}
        return held.get(member_id) or self.fenced.get(member_id)

    @rule(instance_id=st.sampled_from([None, None, *INSTANCES]), version=st.sampled_from([2, 5, 9]), protocols=METADATA)
    def join_new(self, instance_id: str | None, version: int, protocols: tuple[tuple[str, bytes], ...]) -> None:
        before = None if self.bench.group is None else self.bench.group.instances.get(instance_id or "")
        waiter = self.bench.join(instance_id=instance_id, version=version, protocols=protocols)
        self.joins[waiter] = instance_id
        after = None if self.bench.group is None else self.bench.group.instances.get(instance_id or "")
        if before is not None and after != before:
            self.fenced[before] = instance_id or ""
            self.replaced[before] = after or ""
        self.learn()

    @precondition(lambda self: self.ids)
    @rule(data=st.data(), protocols=METADATA)
    def join_again(self, data: st.DataObject, protocols: tuple[tuple[str, bytes], ...]) -> None:
        member_id = self.member(data)
        instance_id = self.instance_of(member_id)
        fenced, before = member_id in self.fenced, self.bench.group
        waiter = self.bench.join(member_id, instance_id=instance_id, protocols=protocols)
        self.joins[waiter] = instance_id
        if fenced and member_id not in (() if before is None else before.members):
            assert self.bench.joined(waiter).error is not ErrorCode.NONE
        self.learn()

    @precondition(lambda self: self.ids)
    @rule(data=st.data())
    def sync(self, data: st.DataObject) -> None:
        member_id, group = self.member(data), self.bench.group
        generation = 0 if group is None else group.generation
        assignments = {}
        if group is not None and group.leader == member_id:
            members = sorted(group.members)
            assignments = {m: bytes(p for p in PARTITIONS if p % len(members) == n) for n, m in enumerate(members)}
        self.bench.sync(member_id, generation, assignments)
        self.check_owners()

    @precondition(lambda self: self.ids)
    @rule(data=st.data(), behind=st.integers(0, 2))
    def beat(self, data: st.DataObject, behind: int) -> None:
        group, records = self.bench.group, len(self.bench.records)
        generation = (0 if group is None else group.generation) - behind
        member_id = self.member(data)
        error = self.bench.heartbeat(member_id, generation, self.instance_of(member_id))
        assert len(self.bench.records) == records, "liveness must not be written"
        assert error is not ErrorCode.NONE or (behind == 0 and self.bench.is_member(member_id))

    @precondition(lambda self: self.fenced)
    @rule(data=st.data())
    def fenced_member_acts(self, data: st.DataObject) -> None:
        """A static member whose instance id is held by another changes nothing."""
        member_id = data.draw(st.sampled_from(sorted(self.fenced)))
        group = self.bench.group
        if group is None or group.instances.get(self.fenced[member_id], member_id) == member_id:
            return
        instance_id, records = self.fenced[member_id], len(self.bench.records)
        assert self.bench.heartbeat(member_id, group.generation, instance_id) is ErrorCode.FENCED_INSTANCE_ID
        assert self.bench.commit(member_id, group.generation, instance_id=instance_id) is ErrorCode.FENCED_INSTANCE_ID
        leaver = LeavingMember(member_id=member_id, instance_id=instance_id)
        assert self.bench.leave(leaver) == (ErrorCode.FENCED_INSTANCE_ID,)
        self.bench.sync(member_id, group.generation, dict.fromkeys(group.members, b"stolen"), instance_id=instance_id)
        assert self.bench.group == group
        assert len(self.bench.records) == records

    @precondition(lambda self: self.ids)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        self.bench.leave(self.member(data))

    @precondition(lambda self: self.followers_that_owe_a_sync())
    @rule(data=st.data())
    def follower_syncs_early(self, data: st.DataObject) -> None:
        member_id = data.draw(st.sampled_from(self.followers_that_owe_a_sync()))
        self.bench.sync(member_id, self.bench.group.generation)

    @precondition(lambda self: self.bench.asked)
    @rule(data=st.data())
    def parked_member_leaves(self, data: st.DataObject) -> None:
        members = self.bench.group.members.values()
        parked = [m.member_id for m in members if m.join_waiter is not None or m.sync_waiter is not None]
        assert self.bench.leave(data.draw(st.sampled_from(parked))) == (ErrorCode.NONE,)

    def followers_that_owe_a_sync(self) -> list[str]:
        group = self.bench.group
        if group is None or group.state is not GroupState.COMPLETING_REBALANCE:
            return []
        return [m.member_id for m in group.members.values() if m.pending_sync and m.member_id != group.leader]

    @rule(delay_ms=st.sampled_from([1, 30, 30, 30, 600, 600, 9_000, 11_000, 61_000]), alive=st.booleans())
    def time_passes(self, delay_ms: int, alive: bool) -> None:
        while alive and delay_ms > 9_000 and self.bench.group is not None:
            for member_id, member in list(self.bench.group.members.items()):
                self.bench.heartbeat(member_id, self.bench.group.generation, member.instance_id)
            self.bench.pass_ms(9_000)
            delay_ms -= 9_000
        self.bench.pass_ms(delay_ms)
        self.learn()

    @precondition(lambda self: self.bench.group is not None and self.bench.group.members)
    @rule(keep=st.integers(0, 6))
    def everybody_cooperates(self, keep: int) -> None:
        """The first members join again, the others are late; then whoever is left goes all the way to stable."""
        for member_id in list(self.bench.group.members)[:keep]:
            member = self.bench.group.members.get(member_id)
            if member is not None and member.join_waiter is None:
                waiter = self.bench.join(member_id, instance_id=member.instance_id, protocols=member.protocols)
                self.joins[waiter] = member.instance_id
        self.bench.pass_ms(5_000)
        group = self.bench.group
        if group is not None and group.state is GroupState.COMPLETING_REBALANCE:
            self.everybody_syncs()
        self.learn()

    @rule()
    def process_dies(self) -> None:
        self.bench.restart()
        group = self.bench.group
        # What was answered but never became a generation may be counted again.
        self.generation = 0 if group is None else group.generation

    @rule()
    def commit_from_outside(self) -> None:
        self.bench.commit()

    @rule()
    def delete(self) -> None:
        if self.bench.delete() is ErrorCode.NONE:
            self.generation = 0
            self.owners.clear()

    def learn(self) -> None:
        for waiter in self.joins:
            answer = self.bench.answers.get(waiter)
            if answer is not None and answer.member_id and answer.member_id not in self.ids:
                self.ids.append(answer.member_id)

    def check_owners(self) -> None:
        """At most one member is given a partition in a generation."""
        group = self.bench.group
        if group is None or group.state is not GroupState.STABLE:
            return
        for member in group.members.values():
            for partition in member.assignment:
                owner = self.owners.setdefault((group.generation, partition), member.member_id)
                while owner != member.member_id and owner in self.replaced:
                    owner = self.replaced[owner]  # A static member in the place of its former self.
                assert owner == member.member_id

    @invariant()
    def generation_never_goes_back(self) -> None:
        if self.bench.group is not None:
            assert self.bench.group.generation >= self.generation
            self.generation = self.bench.group.generation

    @invariant()
    def nobody_waits_in_vain(self) -> None:
        """Every request that has no answer is parked exactly once, and something will end its wait."""
        group = self.bench.group
        members = [] if group is None else list(group.members.values())
        parked = [w for m in members for w in (m.join_waiter, m.sync_waiter) if w is not None]
        if group is not None and group.state is not GroupState.COMPLETING_REBALANCE:
            assert not any(m.sync_waiter for m in members), "waits for an assignment nobody is asked for"
        assert sorted(parked) == sorted(self.bench.asked)
        if parked:
            assert self.bench.timers, "nothing would ever end the wait"

    @invariant()
    def the_group_is_sound(self) -> None:
        group = self.bench.group
        if group is None:
            return
        assert (group.leader in group.members) or (group.leader is None and not group.members)
        assert {m.instance_id: m.member_id for m in group.members.values() if m.instance_id} == group.instances
        assert not group.pending_members & set(group.members)
        if group.state is GroupState.EMPTY:
            assert not group.members
        for member_id in group.members:
            parked = group.members[member_id].join_waiter or group.members[member_id].sync_waiter
            assert parked or f"session/{member_id}" in self.bench.timers
        for record in self.bench.records[-2:]:
            if isinstance(record, GroupStored):
                stored = decode(encode(record.group))
                assert encode(stored) == encode(record.group)
                assert stored.subscribed == record.group.subscribed

    def teardown(self) -> None:
        """Left alone, everybody gets an answer and the group comes to rest."""
        for _ in range(20):
            self.bench.pass_ms(2_000_000)
        assert not self.bench.asked
        assert not self.bench.timers
        assert self.bench.group is None or self.bench.state is GroupState.EMPTY


TestGroupMachine = GroupMachine.TestCase
TestGroupMachine.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)
