"""Classic groups: frozen state, requests to the rules, their results, and the records that make decisions durable.

A group id names one group, of one kind: classic, or with server-side assignment. `penstock.groups.storage_formats`
lists the kinds. What all of them have in common is `AnyGroup`; their records are the same.

Durable parts of a group are its members with their protocols and assignments, its generation, leader and protocol. Soft
parts are lost with the process and rebuilt by clients' retries: requests parked in a join or a sync (`join_waiter`,
`sync_waiter`), ids given to members that have not come back (`pending_members`), and the progress of a rebalance. So a
group that is preparing a rebalance is stored as its previous generation, in which its members continue after a restart.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from enum import Enum
from typing import Any, ClassVar, Protocol, TypeAlias

from penstock.base.dataclasses import dataclass, field
from penstock.coordination import model as coordination
from penstock.coordination.model import Waiter
from penstock.wire.error_codes import ErrorCode

CONSUMER = "consumer"
"""The protocol type whose subscriptions the coordinator can parse."""

TopicPartition = tuple[bytes, int]
"""(topic id, partition index)"""


class AnyGroup(Protocol):
    """A group of any kind."""

    kind: ClassVar[str]
    """What ListGroups calls the kind, in lower case."""

    @property
    def protocol_type(self) -> str | None:
        """The protocol type of its members."""

    @property
    def members(self) -> Mapping[str, Any]:
        """Members by id."""

    @property
    def shown_state(self) -> str:
        """The state as clients see it."""

    @property
    def empty_since_ms(self) -> int | None:
        """Since when it has no members; None while it has."""


class AnyMember(Protocol):
    """A member of a group whose members have rows of their own."""

    @property
    def kind(self) -> str:
        """The kind of its group."""

    @property
    def member_id(self) -> str:
        """Its id."""


class GroupState(Enum):
    """The states of a classic group; values are those that clients see."""

    EMPTY = "Empty"
    PREPARING_REBALANCE = "PreparingRebalance"
    COMPLETING_REBALANCE = "CompletingRebalance"
    STABLE = "Stable"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassicMember:
    """A member of a group."""

    member_id: str
    instance_id: str | None = None
    client_id: str
    client_host: str
    rebalance_timeout_ms: int
    session_timeout_ms: int
    protocols: tuple[tuple[str, bytes], ...]
    """(name, metadata), preferred first; metadata is opaque."""
    assignment: bytes = b""
    # Soft:
    join_waiter: Waiter | None = None
    sync_waiter: Waiter | None = None
    is_new: bool = False
    """Its join was never answered, so it cannot be expected to send heartbeats."""
    pending_sync: bool = False
    """Has not synced in this generation."""

    def metadata(self, protocol_name: str | None) -> bytes:
        """The member's metadata for a protocol."""
        return next((metadata for name, metadata in self.protocols if name == protocol_name), b"")


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinWindow:
    """Arrivals of members in an initial rebalance, which ends when no more arrive."""

    opened_ms: int
    last_ms: int
    gap_ms: int = 0
    """The longest recent pause between two arrivals."""
    arrived: bool = False
    """A member was added since the timer was set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransactionOwner:
    """A transactional producer, as named in TxnOffsetCommit."""

    transactional_id: str
    producer_id: int
    epoch: int
    begins: bool = False
    """Whether committing offsets adds the group to the transaction implicitly, or begins one (KIP-890)."""
    began_ms: int = -1
    """Otherwise: when the transaction began that the group was added to. The next one has the same epoch, and may have
    begun before these offsets are stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassicGroup:
    """A classic group. `members` is in joining order."""

    kind: ClassVar[str] = "classic"

    state: GroupState = GroupState.EMPTY
    generation: int = 0
    protocol_type: str | None = None
    """None: a simple group, which only stores offsets."""
    protocol_name: str | None = None
    leader: str | None = None
    members: Mapping[str, ClassicMember] = field(default_factory=dict)
    instances: Mapping[str, str] = field(default_factory=dict)
    """group instance id → member id"""
    since_ms: int = 0
    """When the group entered its state."""
    subscribed: frozenset[str] | None = None
    """Topics that the consumers of this generation subscribe to; None if unknown."""
    # Soft:
    pending_members: frozenset[str] = frozenset()
    join_window: JoinWindow | None = None
    """Set while an initial rebalance is prepared."""
    stored: bool = False
    """Whether the group has a row."""

    @property
    def is_initial_rebalance(self) -> bool:
        """Whether the rebalance being prepared makes the first generation with members."""
        return self.join_window is not None

    @property
    def shown_state(self) -> str:
        """The state as clients are shown."""
        return self.state.value

    @property
    def empty_since_ms(self) -> int | None:
        """Since when it has no members."""
        return self.since_ms if self.state is GroupState.EMPTY else None

    def is_subscribed(self, topic: str) -> bool:
        """Whether members subscribe to a topic; if that is unknown, consumers are assumed to."""
        return self.protocol_type == CONSUMER if self.subscribed is None else topic in self.subscribed


@dataclass(frozen=True, slots=True, kw_only=True)
class OffsetAndMetadata:
    """A committed offset."""

    committed_offset: int
    leader_epoch: int
    metadata: str
    committed_ms: int
    expires_ms: int | None = None
    """Only clients older than OffsetCommit v5 set it; otherwise the retention of the settings applies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredOffsets:
    """All offsets that the database has of a group."""

    offsets: Mapping[TopicPartition, OffsetAndMetadata]
    """Committed ones."""
    pending: Collection[TopicPartition] = ()
    """The partitions with an offset pending in an open transaction."""
    topic_names: Mapping[bytes, str]
    """By topic id; without those of deleted topics."""


# --- Records -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class GroupStored:
    """The new state of the group. Where members have rows of their own: all but the members."""

    group: AnyGroup


@dataclass(frozen=True, slots=True)
class MemberStored:
    """A member, new or changed."""

    member: AnyMember


@dataclass(frozen=True, slots=True)
class MemberRemoved:
    """A member was removed."""

    member_id: str


@dataclass(frozen=True, slots=True)
class MembersCleared:
    """All members with rows of their own were removed."""


@dataclass(frozen=True, slots=True)
class GroupDeleted:
    """The group and all its offsets are deleted."""


@dataclass(frozen=True, slots=True)
class OffsetsCommitted:
    """Committed offsets, which replace earlier ones."""

    offsets: Mapping[TopicPartition, OffsetAndMetadata]


@dataclass(frozen=True, slots=True)
class OffsetsPending:
    """Offsets to be committed if a transaction is. Refused if the producer is no longer in that transaction."""

    owner: TransactionOwner
    offsets: Mapping[TopicPartition, OffsetAndMetadata]


@dataclass(frozen=True, slots=True)
class OffsetsDeleted:
    """Offsets were deleted."""

    partitions: tuple[TopicPartition, ...]


Record: TypeAlias = (
    GroupStored
    | MemberStored
    | MemberRemoved
    | MembersCleared
    | GroupDeleted
    | OffsetsCommitted
    | OffsetsPending
    | OffsetsDeleted
)


class GroupDecision(coordination.Decision[AnyGroup, Record]):
    """A decision about a group. A rule of one kind may return a group of another."""

    __slots__ = ()


# --- Requests and answers ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Join:
    """JoinGroup."""

    member_id: str
    new_member_id: str
    """The id to use if this is a new member."""
    instance_id: str | None = None
    client_id: str = ""
    client_host: str = ""
    session_timeout_ms: int
    rebalance_timeout_ms: int
    protocol_type: str
    protocols: tuple[tuple[str, bytes], ...]
    member_id_required: bool = True
    """v4+: a new dynamic member only gets its id, and must come back with it."""
    may_skip_assignment: bool = True
    """v9+: the leader can be told not to assign."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinedMember:
    """A member as shown to the leader."""

    member_id: str
    instance_id: str | None
    metadata: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinResult:
    """The response to a join."""

    error: ErrorCode = ErrorCode.NONE
    member_id: str
    generation: int = -1
    protocol_type: str | None = None
    protocol_name: str | None = None
    leader: str = ""
    skip_assignment: bool = False
    members: tuple[JoinedMember, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sync:
    """SyncGroup."""

    member_id: str
    instance_id: str | None = None
    generation: int
    protocol_type: str | None = None
    protocol_name: str | None = None
    assignments: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncResult:
    """The response to a sync."""

    error: ErrorCode = ErrorCode.NONE
    protocol_type: str | None = None
    protocol_name: str | None = None
    assignment: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassicHeartbeat:
    """Heartbeat."""

    member_id: str
    instance_id: str | None = None
    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LeavingMember:
    """One member that LeaveGroup names: by its id, or by its instance id alone."""

    member_id: str
    instance_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaveResult:
    """One error per leaver."""

    errors: tuple[ErrorCode, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitOffsets:
    """OffsetCommit, of partitions that exist."""

    member_id: str = ""
    instance_id: str | None = None
    generation: int = -1
    offsets: Mapping[TopicPartition, OffsetAndMetadata]
    knows_unknown_groups: bool = True
    """v9+: the client knows GROUP_ID_NOT_FOUND."""
    version: int = 9
    """Version of OffsetCommit, or of TxnOffsetCommit if there is an owner."""
    owner: TransactionOwner | None = None
    """TxnOffsetCommit: the producer whose transaction the offsets belong to."""

    @property
    def records(self) -> tuple[Record, ...]:
        """The records if it is accepted, whatever the kind of the group."""
        if not self.offsets:
            return ()
        return (OffsetsCommitted(self.offsets) if self.owner is None else OffsetsPending(self.owner, self.offsets),)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteOffsets:
    """OffsetDelete: topic names with the partitions of each."""

    topics: Mapping[str, tuple[TopicPartition, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteOffsetsResult:
    """The topics that were refused because members subscribe to them, or an error for the whole request."""

    error: ErrorCode = ErrorCode.NONE
    subscribed: frozenset[str] = frozenset()


def with_members(members: Iterable[ClassicMember]) -> tuple[Mapping[str, ClassicMember], Mapping[str, str]]:
    """The two indexes of a group's members."""
    by_id = {member.member_id: member for member in members}
    instances = {m.instance_id: m.member_id for m in by_id.values() if m.instance_id is not None}
    return by_id, instances
