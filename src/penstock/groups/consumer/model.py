"""Consumer groups (KIP-848): frozen state, requests to the rules, and their results.

A group has an epoch, which increases with every change that requires a new assignment; its *target* has the epoch that
it was computed for; each member has the epoch of the target for which it has revoked everything (`groups.reconcile`).
A group is stable when all three are equal.

Members, epochs, targets, assignments and resolved regular expressions are durable. Indexes derived from them are kept
as well, because heartbeats read them: the owner of each partition, and how many members subscribe to each topic. Soft
state: the version of the topics last checked, when the group last changed, which classic members were told to rejoin.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from penstock.base.dataclasses import dataclass, field
from penstock.groups.member_epochs import JOIN_EPOCH
from penstock.groups.model import CONSUMER
from penstock.groups.partitions import PartitionEpochs, PartitionOwners, Partitions
from penstock.groups.reconcile import CurrentAssignment, MemberState
from penstock.wire.error_codes import ErrorCode

KIND = "consumer"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassicMemberMetadata:
    """What a member said when it joined with the classic protocol."""

    session_timeout_ms: int
    protocols: tuple[tuple[str, bytes], ...]
    """(name, metadata), preferred first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerMember:
    """A member of a consumer group."""

    kind: ClassVar[str] = KIND

    member_id: str
    instance_id: str | None = None
    rack_id: str | None = None
    client_id: str = ""
    client_host: str = ""
    rebalance_timeout_ms: int = -1
    assignor: str | None = None
    """The assignor it prefers."""
    topics: frozenset[str] = frozenset()
    regex: str = ""
    """A regular expression to subscribe by; empty: none."""
    classic: ClassicMemberMetadata | None = None
    """None: it uses the consumer protocol."""
    epoch: int = 0
    previous_epoch: int = -1
    """The epoch before, which the member may still be in if a response was lost."""
    state: MemberState = MemberState.STABLE
    assigned: PartitionEpochs = field(default_factory=dict)
    pending_revocation: PartitionEpochs = field(default_factory=dict)
    target: Partitions = field(default_factory=dict)
    # Soft:
    told_to_rejoin: bool = False
    """A classic member that was told to rejoin, and has not yet."""

    @property
    def current_assignment(self) -> CurrentAssignment:
        """What it has and must revoke."""
        return CurrentAssignment(
            epoch=self.epoch, state=self.state, assigned=self.assigned, pending_revocation=self.pending_revocation
        )

    def has_reached(self, target_epoch: int) -> bool:
        """Whether it has exactly its target."""
        return self.state is MemberState.STABLE and self.epoch == target_epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedRegex:
    """The topics that a regular expression matches."""

    topics: frozenset[str]
    resolved_ms: int
    version: int = 0
    """Soft: the version of the topics it was resolved with; 0 for a stored one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionCounts:
    """How many members have each subscription, assignor and protocol. No count is 0."""

    topics: Mapping[str, int] = field(default_factory=dict)
    regexes: Mapping[str, int] = field(default_factory=dict)
    assignors: Mapping[str, int] = field(default_factory=dict)
    classic: int = 0
    protocols: Mapping[str, int] = field(default_factory=dict)
    """Names of classic protocols."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerGroup:
    """A consumer group. `members` is in joining order while it is in memory."""

    kind: ClassVar[str] = KIND

    epoch: int = 0
    target_epoch: int = 0
    assigned_ms: int = 0
    """When the target was computed; 0: the next one may be computed at once."""
    topics_hash: int = 0
    """Hash of the subscribed topics and their partition counts, as of `epoch`."""
    members: Mapping[str, ConsumerMember] = field(default_factory=dict)
    regexes: Mapping[str, ResolvedRegex] = field(default_factory=dict)
    empty_since_ms: int | None = None
    # Derived:
    instances: Mapping[str, str] = field(default_factory=dict)
    """group instance id → member id"""
    owners: PartitionOwners = field(default_factory=dict)
    subscription_counts: SubscriptionCounts = SubscriptionCounts()  # frozen
    # Soft:
    topics_version: int = 0
    """The version of the topics that `topics_hash` was last compared with."""
    changed_ms: int = 0
    """When `epoch` last increased."""
    regexes_requested_ms: int = 0
    """When resolution of regular expressions was last requested."""

    @property
    def protocol_type(self) -> str:
        """The protocol type of its classic members."""
        return CONSUMER

    @property
    def shown_state(self) -> str:
        """The state as clients are shown."""
        if not self.members:
            return "Empty"
        if self.epoch > self.target_epoch:
            return "Assigning"
        if all(member.has_reached(self.target_epoch) for member in self.members.values()):
            return "Stable"
        return "Reconciling"

    def is_subscribed(self, topic: str) -> bool:
        """Whether any member subscribes to a topic."""
        return topic in self.subscription_counts.topics or any(
            topic in resolved.topics for resolved in self.regexes.values()
        )

    def static_member(self, instance_id: str | None) -> ConsumerMember | None:
        """The member with that group instance id."""
        return None if instance_id is None else self.members.get(self.instances.get(instance_id, ""))


# --- Requests and answers ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerHeartbeat:
    """ConsumerGroupHeartbeat. None: unchanged."""

    member_id: str
    epoch: int
    instance_id: str | None = None
    rack_id: str | None = None
    rebalance_timeout_ms: int = -1
    topics: frozenset[str] | None = None
    regex: str | None = None
    assignor: str | None = None
    owned: Partitions | None = None
    client_id: str = ""
    client_host: str = ""

    @property
    def is_full(self) -> bool:
        """Whether the request has all fields, as after any error."""
        subscribes = self.topics is not None or self.regex is not None
        return self.epoch == JOIN_EPOCH or (self.rebalance_timeout_ms != -1 and subscribes and self.owned is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerHeartbeatResult:
    """The response to a heartbeat."""

    error: ErrorCode = ErrorCode.NONE
    message: str | None = None
    member_id: str | None = None
    epoch: int = 0
    interval_ms: int = 0
    assigned: PartitionEpochs | None = None
    """None: unchanged."""
    resolve: frozenset[str] = frozenset()
    """Not part of the response: regular expressions to resolve."""
