"""Streams groups (KIP-1071): frozen state, requests to the rules, and their results.

A group has an epoch, which increases with every change that requires a new assignment; its *target* has the epoch that
it was computed for; each member has the epoch of the target that it reconciles to (`groups.streams.reconcile`). The
first member brings the topology. It is *configured* when all its topics exist with the required partition counts, and
only then are there tasks.

Members, epochs, targets, assignments and the topology are durable. Soft state: how the topology is configured, which
depends on existing topics; who requested the application's shutdown; the endpoints' epoch; tasks' changelog offsets.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import ClassVar, NamedTuple

from penstock.base.dataclasses import dataclass, field, replace
from penstock.base.settings import BrokerSettings
from penstock.groups.configs import Bounds, assignment_interval_ms, bounds_of, int_config
from penstock.groups.reconcile import MemberState
from penstock.groups.streams.tasks import NO_TASKS, NO_TASKS_WITH_EPOCHS, Task, TaskRanges, Tasks, TasksWithEpochs

KIND = "streams"

FIRST_EPOCH = 1
"""The epoch of a group and of its target before the first assignment."""


class StatusCode(IntEnum):
    """Kafka's status codes in heartbeat responses."""

    STALE_TOPOLOGY = 0
    MISSING_SOURCE_TOPICS = 1
    INCORRECTLY_PARTITIONED_TOPICS = 2
    MISSING_INTERNAL_TOPICS = 3
    SHUTDOWN_APPLICATION = 4
    ASSIGNMENT_DELAYED = 5
    MISSING_CLIENT_TAGS = 6


class StreamsStatus(NamedTuple):
    """A status with its message."""

    code: StatusCode
    detail: str


# --- Topologies ----------------------------------------------------------------------------------------------------

MAX_SUBTOPOLOGIES, MAX_COPARTITIONS, MAX_TOPICS = 1_000, 1_000, 10_000
"""How large a topology may be, counting each mention of a topic. It is processed as a whole on the event loop whenever
topics change, and stored in one row whenever the group changes; applications have tens of subtopologies."""
MAX_CONFIGS = 20_000
"""The most settings of internal topics, which usually have a handful each."""
MAX_TAGS = 1_000
"""The most client tags of a member; Kafka's client allows five."""
MAX_TASKS = 100_000
"""The most tasks. Many subtopologies may read the same topic, and assigning so many takes most of a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InternalTopic:
    """A repartition or changelog topic."""

    name: str
    partitions: int = 0
    """0: derived from its inputs."""
    replication_factor: int = 0
    """0: the broker's default."""
    configs: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Subtopology:
    """A part of the topology whose partitions can be processed independently."""

    subtopology_id: str
    sources: tuple[str, ...] = ()
    repartition_sinks: tuple[str, ...] = ()
    repartition_sources: tuple[InternalTopic, ...] = ()
    changelogs: tuple[InternalTopic, ...] = ()
    copartitions: tuple[frozenset[str], ...] = ()
    """Copartition groups: sets of topics that must have equal partition counts."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """The topics that it reads."""
        return (*self.sources, *(topic.name for topic in self.repartition_sources))


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """The topology of an application."""

    epoch: int
    subtopologies: tuple[Subtopology, ...] = ()
    _readers: dict[str, str] = field(init=False, repr=False, compare=False)
    """By topic: requests name many topics at once."""

    def __post_init__(self) -> None:
        backwards = reversed(self.subtopologies)  # The first one that reads a topic wins.
        readers = {topic: part.subtopology_id for part in backwards for topic in part.inputs}
        object.__setattr__(self, "_readers", readers)

    @property
    def required(self) -> frozenset[str]:
        """The topics that it reads or stores state in."""
        return frozenset(
            name for part in self.subtopologies for name in (*part.inputs, *(topic.name for topic in part.changelogs))
        )

    def reader(self, topic: str) -> str | None:
        """The subtopology that reads a topic."""
        return self._readers.get(topic)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfiguredTopology:
    """A topology matched with the existing topics."""

    task_counts: Mapping[str, int] | None = None
    """Task counts by subtopology; None while unknown."""
    partition_counts: Mapping[str, int] = field(default_factory=dict)
    """Partition counts of internal topics."""
    missing: tuple[InternalTopic, ...] = ()
    """Internal topics to create."""
    problem: StreamsStatus | None = None
    """Why there are no tasks yet."""


# --- State ---------------------------------------------------------------------------------------------------------


class UserEndpoint(NamedTuple):
    """A member's endpoint for interactive queries."""

    host: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOffsets:
    """A member's changelog offsets and end offsets, by task."""

    changelog_offsets: Mapping[Task, int] = field(default_factory=dict)
    changelog_end_offsets: Mapping[Task, int] = field(default_factory=dict)


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
    endpoint: UserEndpoint | None = None
    client_tags: Mapping[str, str] = field(default_factory=dict)
    epoch: int = 0
    previous_epoch: int = 0
    """The epoch before, which the member may still be in if a response was lost."""
    state: MemberState = MemberState.STABLE
    assigned: TasksWithEpochs = NO_TASKS_WITH_EPOCHS
    pending_revocation: TasksWithEpochs = NO_TASKS_WITH_EPOCHS
    """Tasks that it was told to revoke, and has not confirmed."""
    target: Tasks = NO_TASKS

    def has_reached(self, target_epoch: int) -> bool:
        """Whether it has exactly its target."""
        return self.state is MemberState.STABLE and self.epoch == target_epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamsGroup:
    """A streams group. `members` is in joining order while it is in memory."""

    kind: ClassVar[str] = KIND

    epoch: int = FIRST_EPOCH
    target_epoch: int = FIRST_EPOCH
    assigned_ms: int = 0
    """When the target was computed; 0: the next one may be computed at once."""
    topology: Topology | None = None
    validated_epoch: int = -1
    """The topology's epoch once all its topics exist; -1 before."""
    topics_hash: int = 0
    """Hash of the topology's topics and their partition counts, as of `epoch`."""
    configs: Mapping[str, str] = field(default_factory=dict)
    """The assignment configuration, as of `epoch`."""
    members: Mapping[str, StreamsMember] = field(default_factory=dict)
    empty_since_ms: int | None = None
    # Soft:
    configured: ConfiguredTopology | None = None
    topics_version: int = 0
    """The version of the topics that `configured` is based on."""
    changed_ms: int = 0
    """When `epoch` last increased."""
    delayed_until_ms: int | None = None
    """Whether the first assignment is delayed for more members."""
    shutdown_by: str | None = None
    """The member that requested the application's shutdown."""
    endpoint_epoch: int = 0
    task_offsets: Mapping[str, TaskOffsets] = field(default_factory=dict)
    """By member id."""

    @property
    def protocol_type(self) -> str:
        """The protocol type in ListGroups."""
        return KIND

    @property
    def shown_state(self) -> str:
        """The state as clients see it."""
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
class StreamsHeartbeat:
    """StreamsGroupHeartbeat. None: unchanged."""

    member_id: str
    epoch: int
    endpoint_epoch: int = 0
    instance_id: str | None = None
    rack_id: str | None = None
    rebalance_timeout_ms: int = -1
    topology: Topology | None = None
    owned: Tasks | None = None
    owned_ranges: TaskRanges = field(default_factory=TaskRanges)
    """Of the tasks that it reports as owned."""
    process_id: str | None = None
    endpoint: UserEndpoint | None = None
    client_tags: Mapping[str, str] | None = None
    changelog_offsets: Mapping[Task, int] | None = None
    changelog_end_offsets: Mapping[Task, int] | None = None
    offset_ranges: TaskRanges = field(default_factory=TaskRanges)
    """Of the tasks whose offsets it reports."""
    shutdown_application: bool = False
    client_id: str = ""
    client_host: str = ""
    knows_tags: bool = True
    """v1+: the client knows MISSING_CLIENT_TAGS."""


EndpointPartitions = tuple[UserEndpoint, Mapping[str, tuple[int, ...]], Mapping[str, tuple[int, ...]]]
"""An endpoint with its active and standby partitions, by topic."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamsHeartbeatResult:
    """The response to a heartbeat."""

    member_id: str
    epoch: int
    interval_ms: int = 0
    task_offset_interval_ms: int = 0
    acceptable_recovery_lag: int = -1
    statuses: tuple[StreamsStatus, ...] = ()
    tasks: TasksWithEpochs | None = None
    """None: unchanged."""
    endpoint_epoch: int = 0
    endpoints: tuple[EndpointPartitions, ...] | None = None
    missing: tuple[InternalTopic, ...] = ()
    """Not part of the response: topics to create."""


# --- Settings ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamsGroupSettings:
    """Settings of streams groups."""

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
    """Bounds of values that groups set themselves."""

    @property
    def assignment_configs(self) -> dict[str, str]:
        """The assignment configuration: a change requires a new assignment."""
        configs = {"num.standby.replicas": str(self.num_standby_replicas)}
        if self.rack_aware_assignment_tags:
            configs["rack.aware.assignment.tags"] = ",".join(self.rack_aware_assignment_tags)
        return configs

    def of_group(self, overrides: Mapping[str, str]) -> StreamsGroupSettings:
        """The same for a group with overrides."""
        if not any(key.startswith(f"{KIND}.") for key in overrides):
            return self

        def number(key: str, otherwise: int) -> int:
            return int_config(overrides, f"{KIND}.{key}", otherwise, self.bounds)

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
        """From the settings of a broker."""
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
