"""A consumer group on a bench: rules applied one after the other, timers kept, time moved by hand. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from penstock.groups.consumer import transitions
from penstock.groups.consumer.encoding import decode, encode, encode_member
from penstock.groups.consumer.model import ConsumerGroup, ConsumerHeartbeat, ConsumerHeartbeatResult, ConsumerMember
from penstock.groups.model import (
    ClassicGroup,
    ClassicHeartbeat,
    CommitOffsets,
    GroupDecision,
    GroupDeleted,
    GroupStored,
    Join,
    LeavingMember,
    MemberRemoved,
    MembersCleared,
    MemberStored,
    OffsetAndMetadata,
    Record,
    Sync,
)
from penstock.groups.rule_context import RuleContext
from penstock.groups.rules import GroupRules
from penstock.groups.settings import GroupSettings
from penstock.log.refusals import Refused
from penstock.wire.consumer_protocol import encode_subscription
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages.consumer_protocol import (
    ConsumerProtocolSubscription,
    ConsumerProtocolSubscriptionTopicPartition,
)

KEY = (1, "group")
PEOPLE, PLACES = b"p" * 16, b"q" * 16


@dataclass
class BenchTopics:
    """Topics that a test makes, grows and deletes."""

    counts: dict[str, int] = field(default_factory=lambda: {"people": 6})
    ids: dict[str, bytes] = field(default_factory=lambda: {"people": PEOPLE, "places": PLACES})
    version: int = 1

    def change(self, name: str, count: int | None) -> None:
        self.version += 1
        if count is None:
            self.counts.pop(name, None)
        else:
            self.counts[name] = count
            self.ids.setdefault(name, name.encode().ljust(16, b"."))

    def topic_id(self, name: str) -> bytes | None:
        return self.ids[name] if name in self.counts else None

    def topic_name(self, topic_id: bytes) -> str | None:
        return next((name for name in self.counts if self.ids[name] == topic_id), None)

    def partition_count(self, topic_id: bytes) -> int | None:
        name = self.topic_name(topic_id)
        return None if name is None else self.counts[name]


class ConsumerBench:
    """One group, asked as members ask."""

    def __init__(self, settings: GroupSettings | None = None) -> None:
        self.settings = settings or GroupSettings()
        self.topics = BenchTopics()
        self.group: Any = None
        self.now_ms = 1_000_000
        self.records: list[Record] = []
        self.timers: dict[str, int] = {}
        self.stored: dict[str, bytes] = {}
        self.head: GroupStored | None = None
        self.answers: dict[int, Any] = {}
        self._waiter = 0
        self._new_ids = 0
        self.rules = GroupRules(lambda key, now_ms: self.context)

    @property
    def context(self) -> RuleContext:
        settings = self.settings
        return RuleContext(
            now_ms=self.now_ms, topics=self.topics, settings=settings, consumer=settings.consumer,
            streams=settings.streams,
        )  # fmt: skip

    # --- The consumer protocol ---

    def beat(
        self, member_id: str, epoch: int, *, topics: set[str] | None = None,
        owned: Mapping[bytes, set[int]] | None = None, **more: Any,
    ) -> ConsumerHeartbeatResult:  # fmt: skip
        request = ConsumerHeartbeat(
            member_id=member_id, epoch=epoch, topics=None if topics is None else frozenset(topics),
            owned=None if owned is None else {t: frozenset(p) for t, p in owned.items() if p}, **more,
        )  # fmt: skip
        rule = transitions.leave if epoch < 0 else transitions.heartbeat
        result: ConsumerHeartbeatResult = self.ask(lambda group, waiter: rule(group, request, waiter, self.context))
        return result

    def join(self, member_id: str, *topics: str, **more: Any) -> ConsumerHeartbeatResult:
        more.setdefault("rebalance_timeout_ms", 60_000)
        return self.beat(member_id, 0, topics=set(topics or ("people",)), owned={}, **more)

    def error(self, call: Callable[[], Any]) -> ErrorCode:
        """The code of a refusal, which must change nothing."""
        group, records = self.group, len(self.records)
        try:
            call()
        except Refused as refused:
            assert (self.group, len(self.records)) == (group, records)
            return refused.code
        return ErrorCode.NONE

    def resolve(self, found: Mapping[str, set[str]]) -> bool:
        topics = {pattern: frozenset(names) for pattern, names in found.items()}
        changed: bool = self.ask(
            lambda group, waiter: transitions.regexes_resolved(group, topics, self.topics.version, waiter, self.context)
        )
        return changed

    # --- The classic protocol ---

    def classic_join(
        self, member_id: str = "", *, topics: tuple[str, ...] = ("people",),
        owned: Mapping[str, set[int]] | None = None, instance_id: str | None = None,
        member_id_required: bool = False, protocol: str = "range", protocol_type: str = "consumer",
        protocols: tuple[tuple[str, bytes], ...] | None = None,
    ) -> Any:  # fmt: skip
        subscription = ConsumerProtocolSubscription(
            topics=list(topics),
            owned_partitions=[
                ConsumerProtocolSubscriptionTopicPartition(topic=topic, partitions=sorted(partitions))
                for topic, partitions in (owned or {}).items()
            ],
        )
        self._new_ids += 1
        request = Join(
            member_id=member_id, new_member_id=f"classic-{self._new_ids}", instance_id=instance_id, client_id="old",
            client_host="/127.0.0.1", session_timeout_ms=10_000, rebalance_timeout_ms=30_000,
            protocol_type=protocol_type,
            protocols=((protocol, encode_subscription(subscription, 1)),) if protocols is None else protocols,
            member_id_required=member_id_required,
        )  # fmt: skip
        return self.ask(lambda group, waiter: self.rules.join(KEY, group, request, waiter, self.now_ms))

    def classic_sync(self, member_id: str, generation: int, **more: Any) -> Any:
        request = Sync(member_id=member_id, generation=generation, **more)
        return self.ask(lambda group, waiter: self.rules.sync(KEY, group, request, waiter, self.now_ms))

    def classic_beat(self, member_id: str, generation: int) -> ErrorCode:
        request = ClassicHeartbeat(member_id=member_id, generation=generation)
        error: ErrorCode = self.ask(
            lambda group, waiter: self.rules.heartbeat(KEY, group, request, waiter, self.now_ms)
        )
        return error

    def classic_leave(self, *leavers: LeavingMember) -> tuple[ErrorCode, ...]:
        answer = self.ask(lambda group, waiter: self.rules.leave(KEY, group, leavers, waiter, self.now_ms))
        errors: tuple[ErrorCode, ...] = answer.errors
        return errors

    # --- Offsets ---

    def commit(self, member_id: str = "", epoch: int = -1, *, partition: int = 0, **more: Any) -> ErrorCode:
        offset = OffsetAndMetadata(committed_offset=1, leader_epoch=0, metadata="", committed_ms=self.now_ms)
        request = CommitOffsets(member_id=member_id, generation=epoch, offsets={(PEOPLE, partition): offset}, **more)
        error: ErrorCode = self.ask(
            lambda group, waiter: self.rules.commit_offsets(KEY, group, request, waiter, self.now_ms)
        )
        return error

    # --- Time ---

    def pass_ms(self, delay_ms: int) -> None:
        end_ms = self.now_ms + delay_ms
        while due := [name for name, at_ms in self.timers.items() if at_ms <= end_ms]:
            name = min(due, key=self.timers.__getitem__)
            self.now_ms = max(self.now_ms, self.timers.pop(name))
            self.apply(self.rules.expired(KEY, self.group, name, self.now_ms))
        self.now_ms = end_ms

    def restart(self) -> None:
        """The process dies: what was stored is read back."""
        self.timers.clear()
        self.group = None
        if self.head is None:
            return
        group = self.head.group
        if isinstance(group, ConsumerGroup):
            self.group = decode(encode(group), [self.stored[member_id] for member_id in sorted(self.stored)])
        else:
            self.group = group
        self.apply(self.rules.restored(KEY, self.group, self.now_ms))

    # --- Rules ---

    def ask(self, rule: Callable[[Any, int], GroupDecision]) -> Any:
        self._waiter += 1
        self.apply(rule(self.group, self._waiter))
        return self.answers.get(self._waiter)

    def apply(self, decision: GroupDecision) -> None:
        self.group = decision.state
        for record in decision.records:
            self.records.append(record)
            match record:
                case MemberStored(member=ConsumerMember() as member):
                    self.stored[member.member_id] = encode_member(member)
                case MemberRemoved(member_id=member_id):
                    self.stored.pop(member_id, None)
                case MembersCleared():
                    self.stored.clear()
                case GroupStored():
                    self.head = record
                case GroupDeleted():
                    self.stored.clear()
                    self.head = None
        for timer in decision.timers:
            if timer.delay_ms is None:
                self.timers.pop(timer.name, None)
            else:
                self.timers[timer.name] = self.now_ms + timer.delay_ms
        for reply in decision.replies:
            self.answers[reply.waiter] = reply.answer

    def check(self) -> None:
        """What holds whatever happens: owners, tallies, and that what is stored is the group."""
        group = self.group
        if not isinstance(group, ConsumerGroup):
            assert not self.stored
            return
        owners: dict[tuple[bytes, int], str] = {}
        for member in group.members.values():
            for topic_id, partitions in (*member.assigned.items(), *member.pending_revocation.items()):
                assert partitions, "a topic without partitions"
                for partition in partitions:
                    owner = owners.setdefault((topic_id, partition), member.member_id)
                    assert owner == member.member_id, f"{partition} is {owner}'s and {member.member_id}'s"
            assert member.epoch <= group.epoch
            assert f"session/{member.member_id}" in self.timers
        assert owners == {(t, p): m for t, owned in group.owners.items() for p, m in owned.items()}
        assert group.target_epoch <= group.epoch
        again = decode(encode(group), [encode_member(member) for member in group.members.values()])
        assert (again.owners, again.subscription_counts, again.instances) == (
            group.owners,
            group.subscription_counts,
            group.instances,
        )
        assert self.stored == {member_id: encode_member(member) for member_id, member in group.members.items()}
        assert self.head is not None
        assert encode(self.head.group) == encode(group)


def assigned(member: ConsumerMember | None) -> set[int]:
    """The partitions of `people` that a member has."""
    return set() if member is None else set(member.assigned.get(PEOPLE, {}))


def is_classic(group: object) -> bool:
    """Whether a group is a classic one."""
    return isinstance(group, ClassicGroup)


def without_pauses(settings: GroupSettings | None = None) -> GroupSettings:
    """Settings under which every change is assigned at once."""
    settings = settings or GroupSettings()
    return replace(settings, consumer=replace(settings.consumer, assignment_interval_ms=0))
