"""Streams groups: frozen state, the requests rules are asked, and what they answer.

A group has an epoch, which rises with every change that calls for another assignment; its *target* has the epoch it was
computed for; each member has the epoch of the target towards which it works (`groups.streams.reconcile`). The first
member brings the topology. It is *configured* when all its topics are there with the partitions it needs, and only then
there are tasks.

Members, epochs, targets, assignments and the topology are durable. Soft: how the topology is configured, which depends
on the topics there are; who asked for the application to be shut down; endpoints' epoch; how far tasks' state has come.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import ClassVar, NamedTuple

from penstock.base.dataclasses import dataclass, field, replace
from penstock.groups.reconcile import Reconciliation
from penstock.groups.streams.tasks import NO_TASKS, NONE_HELD, HeldTasks, Spans, Task, Tasks
from penstock.log.other_configs import Bounds, assignment_interval_ms, bounds_of, whole_of
from penstock.log.settings import BrokerSettings

KIND = "streams"

JOINS, LEAVES, LEAVES_FOR_A_WHILE = 0, -1, -2
"""What member epochs in requests mean that no member can have, but one who joins and a static one who is away."""

FIRST_EPOCH = 1
"""Of a group and of its target, before anybody is assigned anything."""


class StatusCode(IntEnum):
    """What a member is told beside its tasks."""

    STALE_TOPOLOGY = 0
    MISSING_SOURCE_TOPICS = 1
    INCORRECTLY_PARTITIONED_TOPICS = 2
    MISSING_INTERNAL_TOPICS = 3
    SHUTDOWN_APPLICATION = 4
    ASSIGNMENT_DELAYED = 5
    MISSING_CLIENT_TAGS = 6


class Status(NamedTuple):
    """One such thing, with a sentence."""

    code: StatusCode
    detail: str


# --- Topologies ----------------------------------------------------------------------------------------------------

MAX_SUBTOPOLOGIES, MAX_COPARTITIONS, MAX_TOPICS = 1_000, 1_000, 10_000
"""How large a topology may be, where each time it names a topic counts. It is looked at as a whole on the event loop
whenever topics change, and stored in one row whenever the group does; applications have tens of subtopologies."""
MAX_CONFIGS = 20_000
"""And settings of internal topics, which have a handful each."""
MAX_TAGS = 1_000
"""Client tags of a member; its own client lets it have five."""
MAX_TASKS = 100_000
"""And how many tasks. Many subtopologies may read the same topic, and assigning so many takes most of a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InternalTopic:
    """A topic that the application needs for itself."""

    name: str
    partitions: int = 0
    """0: as many as what it is computed from."""
    replication_factor: int = 0
    """0: the broker's default."""
    configs: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Subtopology:
    """A part of the topology whose partitions can be computed one by one."""

    subtopology_id: str
    sources: tuple[str, ...] = ()
    repartition_sinks: tuple[str, ...] = ()
    repartition_sources: tuple[InternalTopic, ...] = ()
    changelogs: tuple[InternalTopic, ...] = ()
    copartitions: tuple[frozenset[str], ...] = ()
    """Sets of topics that must have equally many partitions."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """The topics that it reads."""
        return (*self.sources, *(topic.name for topic in self.repartition_sources))


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """What an application computes."""

    epoch: int
    subtopologies: tuple[Subtopology, ...] = ()
    _readers: dict[str, str] = field(init=False, repr=False, compare=False)
    """By topic: requests name many topics at once."""

    def __post_init__(self) -> None:
        backwards = reversed(self.subtopologies)  # The first one that reads a topic counts.
        readers = {topic: part.subtopology_id for part in backwards for topic in part.inputs}
        object.__setattr__(self, "_readers", readers)

    @property
    def required(self) -> frozenset[str]:
        """The topics that it reads or keeps its state in."""
        return frozenset(
            name for part in self.subtopologies for name in (*part.inputs, *(topic.name for topic in part.changelogs))
        )

    def reader(self, topic: str) -> str | None:
        """The subtopology that reads a topic."""
        return self._readers.get(topic)


@dataclass(frozen=True, slots=True, kw_only=True)
class Configured:
    """A topology beside the topics there are."""

    task_counts: Mapping[str, int] | None = None
    """By subtopology; None when that cannot be told."""
    partition_counts: Mapping[str, int] = field(default_factory=dict)
    """Of internal topics."""
    missing: tuple[InternalTopic, ...] = ()
    """Internal topics to create."""
    complaint: Status | None = None
    """Why there are no tasks yet."""


# --- State ---------------------------------------------------------------------------------------------------------


class Endpoint(NamedTuple):
    """Where the state of a member can be asked for."""

    host: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOffsets:
    """How far a member says the state of tasks has come on its disk, and how far there is to go."""

    reached: Mapping[Task, int] = field(default_factory=dict)
    ends: Mapping[Task, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamsMember:
    """A member of a streams group."""

    kind: ClassVar[str] = KIND

    member_id: str
    instance_id: str | None = None
    rack_id: str | None = None
    client_id: str = ""
    client_host: str = ""
    rebalance_timeout_ms: int = -1
    topology_epoch: int = -1
    process_id: str = ""
    endpoint: Endpoint | None = None
    client_tags: Mapping[str, str] = field(default_factory=dict)
    epoch: int = 0
    previous_epoch: int = 0
    """The epoch before, which the member may still be in if an answer was lost."""
    state: Reconciliation = Reconciliation.STABLE
    assigned: HeldTasks = NONE_HELD
    revoking: HeldTasks = NONE_HELD
    """What it has been told to give back, and has not confirmed."""
    target: Tasks = NO_TASKS

    def has_reached(self, target_epoch: int) -> bool:
        """Whether it has exactly its target."""
        return self.state is Reconciliation.STABLE and self.epoch == target_epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamsGroup:
    """A streams group. `members` keeps the order of joining while it is in memory."""

    kind: ClassVar[str] = KIND

    epoch: int = FIRST_EPOCH
    target_epoch: int = FIRST_EPOCH
    assigned_ms: int = 0
    """When the target was computed; 0: so that the next one may be computed at once."""
    topology: Topology | None = None
    validated_epoch: int = -1
    """The topology's epoch once there are all its topics; -1 while there are not."""
    topics_hash: int = 0
    """Of the topology's topics with their partitions, as of `epoch`."""
    configs: Mapping[str, str] = field(default_factory=dict)
    """What tasks are assigned by, as of `epoch`."""
    members: Mapping[str, StreamsMember] = field(default_factory=dict)
    empty_since_ms: int | None = None
    # Soft:
    configured: Configured | None = None
    topics_version: int = 0
    """The version of the topics that `configured` is about."""
    changed_ms: int = 0
    """When `epoch` last rose."""
    delayed_until_ms: int | None = None
    """The first assignment waits for more members."""
    shutdown_by: str | None = None
    """The member that asked for the application to be shut down."""
    endpoint_epoch: int = 0
    task_offsets: Mapping[str, TaskOffsets] = field(default_factory=dict)
    """By member id."""

    @property
    def protocol_type(self) -> str:
        """What ListGroups shows."""
        return KIND

    @property
    def shown_state(self) -> str:
        """The state as clients are shown."""
        if not self.members:
            return "Empty"
        if self.topology is None or self.topology.epoch != self.validated_epoch:
            return "NotReady"
        if self.epoch > self.target_epoch:
            return "Assigning"
        if all(member.has_reached(self.target_epoch) for member in self.members.values()):
            return "Stable"
        return "Reconciling"

    def is_subscribed(self, topic: str) -> bool:
        """Whether members read a topic."""
        return bool(self.members) and self.topology is not None and self.topology.reader(topic) is not None

    def static_member(self, instance_id: str | None) -> StreamsMember | None:
        """The member with that instance id."""
        if instance_id is None:
            return None
        return next((member for member in self.members.values() if member.instance_id == instance_id), None)


# --- Requests and answers ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """StreamsGroupHeartbeat. None is what did not change."""

    member_id: str
    epoch: int
    endpoint_epoch: int = 0
    instance_id: str | None = None
    rack_id: str | None = None
    rebalance_timeout_ms: int = -1
    topology: Topology | None = None
    owned: Tasks | None = None
    owned_spans: Spans = field(default_factory=Spans)
    """Of the tasks that it says it has."""
    process_id: str | None = None
    endpoint: Endpoint | None = None
    client_tags: Mapping[str, str] | None = None
    reached: Mapping[Task, int] | None = None
    ends: Mapping[Task, int] | None = None
    offset_spans: Spans = field(default_factory=Spans)
    """Of the tasks whose offsets it says."""
    shuts_down: bool = False
    client_id: str = ""
    client_host: str = ""
    knows_tags: bool = True
    """v1+: the client knows what missing client tags are."""


EndpointPartitions = tuple[Endpoint, Mapping[str, tuple[int, ...]], Mapping[str, tuple[int, ...]]]
"""An endpoint with the partitions it has active and as a copy, by topic."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeartbeatResult:
    """What a heartbeat is answered."""

    member_id: str
    epoch: int
    interval_ms: int = 0
    task_offset_interval_ms: int = 0
    acceptable_recovery_lag: int = -1
    statuses: tuple[Status, ...] = ()
    tasks: HeldTasks | None = None
    """None: as they were."""
    endpoint_epoch: int = 0
    endpoints: tuple[EndpointPartitions, ...] | None = None
    missing: tuple[InternalTopic, ...] = ()
    """Not for the member: topics to create."""


# --- Settings ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamsGroupSettings:
    """What a streams group's members go by."""

    session_timeout_ms: int = 45_000
    """`streams.session.timeout.ms`"""
    heartbeat_interval_ms: int = 5_000
    """`streams.heartbeat.interval.ms`"""
    assignment_interval_ms: int = 1_000
    """`streams.assignment.interval.ms`"""
    initial_rebalance_delay_ms: int = 3_000
    """`streams.initial.rebalance.delay.ms`"""
    num_standby_replicas: int = 0
    """`streams.num.standby.replicas`"""
    rack_aware_assignment_tags: tuple[str, ...] = ()
    """`streams.rack.aware.assignment.tags`"""
    task_offset_interval_ms: int = 60_000
    """`streams.task.offset.interval.ms`"""
    acceptable_recovery_lag: int = 10_000
    """`streams.acceptable.recovery.lag`. As in Kafka 4.4, members are told, but there are no warm-up tasks."""
    max_size: int = 2_147_483_647
    """`group.streams.max.size`"""
    bounds: Bounds = field(default_factory=dict, compare=False)
    """Of what groups have of their own."""

    @property
    def assignment_configs(self) -> dict[str, str]:
        """What tasks are assigned by: another calls for another assignment."""
        configs = {"num.standby.replicas": str(self.num_standby_replicas)}
        if self.rack_aware_assignment_tags:
            configs["rack.aware.assignment.tags"] = ",".join(self.rack_aware_assignment_tags)
        return configs

    def of_group(self, overrides: Mapping[str, str]) -> StreamsGroupSettings:
        """The same for a group with configuration of its own."""
        if not any(key.startswith(f"{KIND}.") for key in overrides):
            return self

        def number(key: str, otherwise: int) -> int:
            return whole_of(overrides, f"{KIND}.{key}", otherwise, self.bounds)

        tags = overrides.get(f"{KIND}.rack.aware.assignment.tags")
        return replace(
            self,
            session_timeout_ms=number("session.timeout.ms", self.session_timeout_ms),
            heartbeat_interval_ms=number("heartbeat.interval.ms", self.heartbeat_interval_ms),
            assignment_interval_ms=number("assignment.interval.ms", self.assignment_interval_ms),
            initial_rebalance_delay_ms=number("initial.rebalance.delay.ms", self.initial_rebalance_delay_ms),
            num_standby_replicas=number("num.standby.replicas", self.num_standby_replicas),
            rack_aware_assignment_tags=self.rack_aware_assignment_tags if tags is None else _words(tags),
            task_offset_interval_ms=number("task.offset.interval.ms", self.task_offset_interval_ms),
            acceptable_recovery_lag=number("acceptable.recovery.lag", self.acceptable_recovery_lag),
        )

    @classmethod
    def of(cls, broker: BrokerSettings) -> StreamsGroupSettings:
        """What the settings of a broker say."""
        return cls(
            session_timeout_ms=broker.whole("group.streams.session.timeout.ms"),
            heartbeat_interval_ms=broker.whole("group.streams.heartbeat.interval.ms"),
            assignment_interval_ms=assignment_interval_ms(KIND, broker),
            initial_rebalance_delay_ms=broker.whole("group.streams.initial.rebalance.delay.ms"),
            num_standby_replicas=broker.whole("group.streams.num.standby.replicas"),
            rack_aware_assignment_tags=broker.words("group.streams.rack.aware.assignment.tags"),
            max_size=broker.whole("group.streams.max.size"),
            bounds=bounds_of(KIND, broker),
        )


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())
