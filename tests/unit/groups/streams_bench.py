"""A streams group on a bench: rules applied one after the other, timers kept, time moved by hand. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from penstock.groups.member_epochs import LEAVE_EPOCH, STATIC_LEAVE_EPOCH
from penstock.groups.model import CommitOffsets, GroupDecision, GroupDeleted, GroupStored, MemberRemoved, MemberStored
from penstock.groups.rule_context import RuleContext
from penstock.groups.rules import GroupRules
from penstock.groups.settings import GroupSettings
from penstock.groups.streams import transitions
from penstock.groups.streams.encoding import decode, encode, encode_member
from penstock.groups.streams.model import (
    InternalTopic,
    StreamsGroup,
    StreamsGroupSettings,
    StreamsHeartbeat,
    StreamsHeartbeatResult,
    Subtopology,
    Topology,
)
from penstock.groups.streams.tasks import Task, TaskRanges, Tasks
from penstock.log.refusals import Refused
from penstock.wire.error_codes import ErrorCode

KEY = (1, "application")

COUNTS = Topology(
    epoch=0,
    subtopologies=(
        Subtopology(subtopology_id="0", sources=("lines",), repartition_sinks=("words",)),
        Subtopology(
            subtopology_id="1",
            repartition_sources=(InternalTopic(name="words"),),
            changelogs=(InternalTopic(name="counts", configs=(("cleanup.policy", "compact"),)),),
        ),
    ),
)
"""Word count: lines are split into words, and words are counted."""

COPIES = Topology(epoch=0, subtopologies=(Subtopology(subtopology_id="0", sources=("lines",)),))
"""An application without topics of its own."""


@dataclass
class BenchTopics:
    """Topics by name, with numbers of partitions."""

    counts: dict[str, int] = field(default_factory=dict)
    version: int = 1

    def topic_id(self, name: str) -> bytes | None:
        return name.encode().ljust(16) if name in self.counts else None

    def topic_name(self, topic_id: bytes) -> str | None:
        name = topic_id.decode().strip()
        return name if name in self.counts else None

    def partition_count(self, topic_id: bytes) -> int | None:
        return self.counts.get(topic_id.decode().strip())

    def put(self, **counts: int) -> None:
        self.counts |= counts
        self.version += 1

    def drop(self, name: str) -> None:
        del self.counts[name]
        self.version += 1


class Member:
    """A client: it has what it is given, gives back what it is told to, and says so."""

    def __init__(self, member_id: str, *, process: str | None = None, instance: str | None = None) -> None:
        self.member_id, self.process, self.instance = member_id, process or member_id, instance
        self.epoch = 0
        self.tasks = Tasks()


class StreamsBench:
    """One group."""

    def __init__(self, *, topology: Topology = COUNTS, settings: StreamsGroupSettings | None = None) -> None:
        self.topology = topology
        self.topics = BenchTopics({"lines": 4})
        self.streams = settings or StreamsGroupSettings(initial_rebalance_delay_ms=0, assignment_interval_ms=0)
        self.settings = GroupSettings(streams=self.streams)
        self.now_ms = 1_000
        self.group: Any = None
        self.records: tuple[Any, ...] = ()
        self.timers: dict[str, int] = {}
        self.rows: dict[str, bytes] = {}
        self.row: bytes | None = None
        self.rules = GroupRules(lambda key, now_ms: self.context)

    @property
    def context(self) -> RuleContext:
        return RuleContext(
            now_ms=self.now_ms, topics=self.topics, settings=self.settings, consumer=self.settings.consumer,
            streams=self.streams,
        )  # fmt: skip

    # --- Requests ---

    def beat(self, member: Member, **more: Any) -> StreamsHeartbeatResult:
        """One heartbeat of a client that says everything; it takes over what it is told."""
        if member.epoch == 0:
            more.setdefault("topology", self.topology)
            more.setdefault("rebalance_timeout_ms", 60_000)
            more.setdefault("process_id", member.process)
            member.tasks = Tasks()
        more.setdefault("epoch", member.epoch)
        more.setdefault("owned", member.tasks)
        owned = more["owned"] or Tasks()
        more["owned_ranges"] = ranges_of(owned.active | owned.standby | owned.warmup)
        reported = (more.get(name) or () for name in ("changelog_offsets", "changelog_end_offsets"))
        more["offset_ranges"] = ranges_of([task for offsets in reported for task in offsets])
        request = StreamsHeartbeat(member_id=member.member_id, instance_id=member.instance, **more)
        rule = transitions.leave if request.epoch in (LEAVE_EPOCH, STATIC_LEAVE_EPOCH) else transitions.heartbeat
        result: StreamsHeartbeatResult = self.adopt(rule(self.group, request, 1, self.context))
        member.epoch = max(result.epoch, 0)
        if result.tasks is not None:
            member.tasks = Tasks(frozenset(result.tasks.active), result.tasks.standby, result.tasks.warmup)
        return result

    def refused(self, member: Member, **more: Any) -> ErrorCode:
        """The code of a heartbeat that is turned down, and changes nothing."""
        before = self.group
        try:
            self.beat(member, **more)
        except Refused as refusal:
            assert self.group is before
            return refusal.code
        raise AssertionError("the heartbeat was accepted")

    def commit(self, member_id: str, epoch: int, *topics: tuple[str, int], **more: Any) -> ErrorCode:
        offsets: Any = {(name.encode().ljust(16), partition): object() for name, partition in topics}
        request = CommitOffsets(member_id=member_id, generation=epoch, offsets=offsets, **more)
        return self.adopt(self.rules.commit_offsets(KEY, self.group, request, 1, self.now_ms), keep=False)

    def adopt(self, decision: GroupDecision, *, keep: bool = True) -> Any:
        if keep:
            self.group, self.records = decision.state, decision.records
            for record in decision.records:
                self._store(record)
            self._check_rows()
        for timer in decision.timers:
            self.timers.pop(timer.name, None)
            if timer.delay_ms is not None:
                self.timers[timer.name] = self.now_ms + timer.delay_ms
        return decision.replies[0].answer if decision.replies else None

    def _store(self, record: Any) -> None:
        match record:
            case GroupStored(group=group):
                self.row = encode(group)
            case MemberStored(member=member):
                self.rows[member.member_id] = encode_member(member)
            case MemberRemoved(member_id=member_id):
                del self.rows[member_id]
            case GroupDeleted():
                self.row, self.rows = None, {}

    def _check_rows(self) -> None:
        """What is stored is what is in memory, but for what is soft."""
        if isinstance(self.group, StreamsGroup):
            assert self.row is not None
            assert self.row == encode(self.group)
            assert self.rows == {key: encode_member(member) for key, member in self.group.members.items()}
            again = decode(self.row, [self.rows[key] for key in self.group.members])
            assert again.members == self.group.members
            assert (again.topology, again.configs) == (self.group.topology, self.group.configs)

    # --- Time ---

    def wait(self, ms: int) -> None:
        """Let time pass, with the timers that fire meanwhile."""
        end_ms = self.now_ms + ms
        while due := sorted((at_ms, name) for name, at_ms in self.timers.items() if at_ms <= end_ms):
            self.now_ms, name = due[0]
            del self.timers[name]
            if self.group is not None:
                self.adopt(self.rules.expired(KEY, self.group, name, self.now_ms))
        self.now_ms = end_ms

    def restart(self) -> None:
        """The process dies, and another reads the group back."""
        assert self.row is not None
        self.timers.clear()
        self.group = decode(self.row, [self.rows[key] for key in sorted(self.rows)])
        self.adopt(self.rules.restored(KEY, self.group, self.now_ms))

    def settle(self, members: Iterable[Member], *, rounds: int = 8) -> None:
        """Heartbeats of all until nothing changes."""
        for _ in range(rounds):
            for member in members:
                self.create_missing(self.beat(member))

    def create_missing(self, result: StreamsHeartbeatResult) -> None:
        """Create the topics that a heartbeat says are missing."""
        if result.missing:
            self.topics.put(**{topic.name: topic.partitions for topic in result.missing})


def ranges_of(said: Iterable[Task]) -> TaskRanges:
    """What a request says these are."""
    ranges = TaskRanges()
    for task in said:
        ranges.add(task.subtopology_id, (task.partition,))
    return ranges


def tasks(**by_part: Iterable[int]) -> frozenset[Task]:
    """Tasks, as `tasks(_0=(1, 2))`."""
    return frozenset(Task(part.removeprefix("_"), index) for part, found in by_part.items() for index in found)


def by_member(members: Iterable[Member]) -> Mapping[str, frozenset[Task]]:
    """The active tasks of each."""
    return {member.member_id: member.tasks.active for member in members}
