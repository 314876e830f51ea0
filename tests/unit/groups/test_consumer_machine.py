"""A consumer group under anything that members of both protocols, topics, time and restarts may do to it.

Members are modelled as clients: what each *uses* is what it was told it has, minus what it was told to give back. The
heart of it is `nobody_shares`: no partition is used by two members at a time, whatever epochs they are in.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from consumer_bench import PEOPLE, PLACES, ConsumerBench, without_pauses
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from penstock.groups.assignors import ASSIGNORS
from penstock.groups.consumer.model import ConsumerGroup
from penstock.groups.model import LeavingMember
from penstock.groups.settings import GroupSettings
from penstock.log.refusals import Refused
from penstock.wire.consumer_protocol import read_assignment
from penstock.wire.error_codes import ErrorCode

Used = set[tuple[bytes, int]]
NAMES = {"people": PEOPLE, "places": PLACES}

FENCED = (
    ErrorCode.FENCED_MEMBER_EPOCH, ErrorCode.UNKNOWN_MEMBER_ID, ErrorCode.FENCED_INSTANCE_ID,
    ErrorCode.GROUP_ID_NOT_FOUND,
)  # fmt: skip
"""What tells a member to drop everything and join anew."""


def expect(refused: Refused, *codes: ErrorCode) -> None:
    assert refused.code in codes, refused


@dataclass
class Client:
    """A member as it sees itself."""

    member_id: str
    instance_id: str | None = None
    topics: tuple[str, ...] = ("people",)
    epoch: int = 0
    uses: Used = field(default_factory=set)
    told: Used | None = None
    """What it was told last, and has not acted upon."""
    is_classic: bool = False
    missed: bool = False
    """Whether an answer was lost: then clients say all there is to say, so that they are told all again."""

    def owned(self) -> dict[bytes, set[int]]:
        owned: dict[bytes, set[int]] = {}
        for topic_id, partition in self.uses:
            owned.setdefault(topic_id, set()).add(partition)
        return owned


class ConsumerMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.bench = ConsumerBench(self.group_settings())
        self.bench.topics.change("places", 3)
        self.clients: dict[str, Client] = {}
        self.last_id = 0
        self.epoch = 0

    def group_settings(self) -> GroupSettings:
        return without_pauses()

    # --- Clients of the consumer protocol ---

    @rule(
        topics=st.sampled_from([("people",), ("people", "places"), ("places",)]),
        assignor=st.sampled_from([None, *ASSIGNORS]),
        instance_id=st.sampled_from([None, None, "one", "two"]),
    )
    def join(self, topics: tuple[str, ...], assignor: str | None, instance_id: str | None) -> None:
        if len(self.clients) > 5:
            return
        self.last_id += 1
        client = Client(f"m{self.last_id}", instance_id, topics)
        try:
            answer = self.bench.join(client.member_id, *topics, instance_id=instance_id, assignor=assignor)
        except Refused as refused:
            expect(refused, ErrorCode.UNRELEASED_INSTANCE_ID)
            return
        self.forget_replaced(instance_id)
        self.clients[client.member_id] = client
        self.hear(client, answer)

    def forget_replaced(self, instance_id: str | None) -> None:
        """Whoever had the instance id is gone: it was closed before, or finds out at its next request."""
        for client in [c for c in self.clients.values() if instance_id and c.instance_id == instance_id]:
            del self.clients[client.member_id]

    def hear(self, client: Client, answer) -> None:
        client.epoch = answer.epoch
        if answer.assigned is not None:
            client.told = {(t, p) for t, found in answer.assigned.items() for p in found}
            # What it may use more, it may use now; what it has to give back takes it a while.
            client.uses |= client.told

    def modern(self, data: st.DataObject) -> Client:
        return self.drawn(data, is_classic=False)

    def drawn(self, data: st.DataObject, *, is_classic: bool) -> Client:
        ids = [client.member_id for client in self.clients.values() if client.is_classic is is_classic]
        return self.clients[data.draw(st.sampled_from(ids))]

    def has_modern(self) -> bool:
        return any(not c.is_classic for c in self.clients.values())

    @precondition(lambda self: self.has_modern())
    @rule(data=st.data(), gives_back=st.booleans(), full=st.booleans(), lost=st.booleans())
    def beat(self, data: st.DataObject, gives_back: bool, full: bool, lost: bool) -> None:
        client = self.modern(data)
        full = full or client.missed
        if gives_back and client.told is not None:
            client.uses &= client.told
            client.told = None
        owned = client.owned() if gives_back or full else None
        more = {"topics": set(client.topics), "rebalance_timeout_ms": 60_000} if full else {}
        try:
            answer = self.bench.beat(
                client.member_id, client.epoch, owned=owned, instance_id=client.instance_id, **more
            )
        except Refused as refused:
            expect(refused, *FENCED)
            del self.clients[client.member_id]  # It drops everything.
            return
        client.missed = lost
        if not lost:
            self.hear(client, answer)

    @precondition(lambda self: self.has_modern())
    @rule(data=st.data(), topics=st.sampled_from([("people",), ("people", "places"), ("places",)]))
    def subscribe(self, data: st.DataObject, topics: tuple[str, ...]) -> None:
        client = self.modern(data)
        client.topics = topics
        self.beat_with(client, topics=set(topics))

    def beat_with(self, client: Client, **more) -> None:
        if client.missed:
            more, client.missed = {"topics": set(client.topics), **more}, False
        try:
            answer = self.bench.beat(
                client.member_id, client.epoch, owned=client.owned(), instance_id=client.instance_id,
                rebalance_timeout_ms=60_000, **more,
            )  # fmt: skip
        except Refused:
            del self.clients[client.member_id]
        else:
            self.hear(client, answer)

    @precondition(lambda self: self.has_modern())
    @rule(data=st.data(), for_a_while=st.booleans())
    def leave(self, data: st.DataObject, for_a_while: bool) -> None:
        client = self.modern(data)
        epoch = -2 if for_a_while and client.instance_id else -1
        del self.clients[client.member_id]
        try:
            self.bench.beat(client.member_id, epoch, instance_id=client.instance_id)
        except Refused as refused:
            expect(refused, *FENCED)

    # --- Clients of the classic protocol ---

    @rule(instance_id=st.sampled_from([None, None, "one"]))
    def classic_join(self, instance_id: str | None) -> None:
        if len(self.clients) > 5 or not isinstance(self.bench.group, ConsumerGroup) or not self.bench.group.members:
            return
        answer = self.bench.classic_join(instance_id=instance_id)
        assert answer.error is ErrorCode.NONE
        self.forget_replaced(instance_id)
        client = Client(answer.member_id, instance_id, epoch=answer.generation, is_classic=True)
        self.clients[client.member_id] = client

    def classic(self, data: st.DataObject) -> Client:
        return self.drawn(data, is_classic=True)

    @precondition(lambda self: any(c.is_classic for c in self.clients.values()))
    @rule(data=st.data(), eager=st.booleans())
    def classic_works(self, data: st.DataObject, eager: bool) -> None:
        """A heartbeat, and what it calls for: another join, in which it says what it uses, and a sync."""
        client = self.classic(data)
        error = self.bench.classic_beat(client.member_id, client.epoch)
        if error is ErrorCode.REBALANCE_IN_PROGRESS:
            if eager:
                client.uses.clear()
            elif client.told is not None:
                client.uses &= client.told
            owned = {name: {p for t, p in client.uses if t == topic_id} for name, topic_id in NAMES.items()}
            answer = self.bench.classic_join(client.member_id, owned=owned, instance_id=client.instance_id)
            if answer is None or answer.error is not ErrorCode.NONE:
                del self.clients[client.member_id]
                return
            client.epoch = answer.generation
        elif error is not ErrorCode.NONE:
            del self.clients[client.member_id]
            return
        answer = self.bench.classic_sync(client.member_id, client.epoch)
        if answer is not None and answer.error is ErrorCode.NONE:
            listed = read_assignment(answer.assignment).assigned_partitions
            client.told = {(NAMES[topic.topic], p) for topic in listed for p in topic.partitions}
            client.uses |= client.told

    # --- Everything else ---

    @rule(name=st.sampled_from(["people", "places"]), count=st.integers(4, 9))
    def topic_grows(self, name: str, count: int) -> None:
        self.bench.topics.change(name, max(count, self.bench.topics.counts[name]))

    @rule(delay_ms=st.sampled_from([10, 900, 5_000, 20_000, 46_000]))
    def time_passes(self, delay_ms: int) -> None:
        before = set(self.members())
        self.bench.pass_ms(delay_ms)
        for member_id in before - set(self.members()):
            self.clients.pop(member_id, None)  # Fenced: it stops before its session ends by its own clock.
        self.leave_downgraded()

    @rule()
    def process_dies(self) -> None:
        self.bench.restart()

    def members(self) -> list[str]:
        return [] if self.bench.group is None else list(self.bench.group.members)

    def leave_downgraded(self) -> None:
        """Once the group is a classic one, the other machine takes over; here it is the end of its members."""
        if self.bench.group is not None and not isinstance(self.bench.group, ConsumerGroup):
            self.clients = {}
            self.bench = ConsumerBench(self.group_settings())
            self.bench.topics.change("places", 3)
            self.epoch = 0

    @invariant()
    def nobody_shares(self) -> None:
        self.leave_downgraded()
        users: dict[tuple[bytes, int], str] = {}
        for client in self.clients.values():
            for partition in client.uses:
                assert users.setdefault(partition, client.member_id) == client.member_id, f"{partition} is used twice"

    @invariant()
    def the_group_is_sound(self) -> None:
        self.bench.check()
        if isinstance(self.bench.group, ConsumerGroup):
            assert self.bench.group.epoch >= self.epoch
            self.epoch = self.bench.group.epoch
            if self.bench.group.target_epoch == self.bench.group.epoch:
                self.targets_are_complete(self.bench.group)

    def targets_are_complete(self, group: ConsumerGroup) -> None:
        given_out = [(t, p) for m in group.members.values() for t, found in m.target.items() for p in found]
        assert len(given_out) == len(set(given_out)), "two members are to have a partition"

    def teardown(self) -> None:
        """Left alone, members settle: everybody who subscribes a partition sees it at one of them."""
        for client in [client for client in self.clients.values() if client.is_classic]:
            self.bench.classic_leave(LeavingMember(member_id=client.member_id))
            del self.clients[client.member_id]
        for _ in range(60):  # Longer than the session of a static member that is away.
            self.bench.pass_ms(1_000)
            for client in list(self.clients.values()):
                if client.member_id not in self.clients:
                    continue
                if client.told is not None:
                    client.uses &= client.told
                    client.told = None
                self.beat_with(client)
            self.nobody_shares()
        self.leave_downgraded()
        group = self.bench.group
        if isinstance(group, ConsumerGroup) and group.members and not group.subscription_counts.classic:
            assert group.shown_state == "Stable"
            had = {(t, p) for m in group.members.values() for t, found in m.assigned.items() for p in found}
            topics = {NAMES[name]: self.bench.topics.counts[name] for name in group.subscription_counts.topics}
            assert had == {(t, p) for t, count in topics.items() for p in range(count)}


class PausingMachine(ConsumerMachine):
    """The same with an interval between assignments."""

    def group_settings(self) -> GroupSettings:
        return GroupSettings()


TestConsumerMachine = ConsumerMachine.TestCase
TestConsumerMachine.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
TestPausingMachine = PausingMachine.TestCase
TestPausingMachine.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
