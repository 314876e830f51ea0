"""Classic groups: frozen state, the requests rules are asked, what they answer, and the records they make durable.

A group id names one group, of one kind: classic, or of a protocol in which the broker assigns (`penstock.groups.kinds`
lists them). What all kinds have in common is `AnyGroup`; what becomes durable of them are the same records.

Durable parts of a group are its members with their protocols and assignments, its generation, leader and protocol.
Soft parts die with the process and are rebuilt by clients' retries: who is parked in a join or a sync (`join_waiter`,
`sync_waiter`), ids given out to members that have not come back (`pending`), and how a rebalance is going. A group that
is preparing a rebalance is therefore stored as the generation it is leaving: after a restart its members go on in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any, ClassVar, Protocol, TypeAlias

from penstock.base.dataclasses import dataclass, field
from penstock.coordination import model as coordination
from penstock.coordination.model import Waiter
from penstock.wire.error_codes import ErrorCode

CONSUMER = "consumer"
"""The protocol type whose subscriptions the coordinator understands."""

TopicPartition = tuple[bytes, int]
"""(topic id, partition index)"""


class AnyGroup(Protocol):
    """A group of some kind."""

    kind: ClassVar[str]
    """What ListGroups calls the kind, in lower case."""

    @property
    def protocol_type(self) -> str | None:
        """What its members speak among each other."""

    @property
    def members(self) -> Mapping[str, Any]:
        """Members by id."""

    @property
    def shown_state(self) -> str:
        """Where it is in its life, as clients are shown."""

    @property
    def empty_since_ms(self) -> int | None:
        """Since when it has no members; None while it has."""


class AnyMember(Protocol):
    """A member of a group whose members are stored one by one."""

    @property
    def kind(self) -> str:
        """The kind of its group."""

    @property
    def member_id(self) -> str:
        """Its id."""


class GroupState(Enum):
    """Where a group is in its life; values are what clients are shown."""

    EMPTY = "Empty"
    PREPARING_REBALANCE = "PreparingRebalance"
    COMPLETING_REBALANCE = "CompletingRebalance"
    STABLE = "Stable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
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
    """Has never been told that it is a member, so nobody can be expected to send its heartbeats."""
    owes_sync: bool = False
    """Has not asked for its assignment in this generation."""

    def metadata(self, protocol_name: str | None) -> bytes:
        """What the member says under a protocol."""
        return next((metadata for name, metadata in self.protocols if name == protocol_name), b"")


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinWindow:
    """How members arrive in a first rebalance that ends when they stop arriving."""

    opened_ms: int
    last_ms: int
    gap_ms: int = 0
    """The longest recent pause between two arrivals."""
    arrived: bool = False
    """A member was added since the timer was set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransactionOwner:
    """A transactional producer as it names itself."""

    transactional_id: str
    producer_id: int
    epoch: int
    begins: bool = False
    """Whether sending offsets makes their group part of the transaction, or begins one (KIP-890)."""
    began_ms: int = -1
    """If not: when the transaction began that the group is part of. The next one has the same epoch, and may have begun
    before what was sent for this one is stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A classic group. `members` keeps the order of joining."""

    kind: ClassVar[str] = "classic"

    state: GroupState = GroupState.EMPTY
    generation: int = 0
    protocol_type: str | None = None
    """None: a simple group, that only stores offsets."""
    protocol_name: str | None = None
    leader: str | None = None
    members: Mapping[str, Member] = field(default_factory=dict)
    instances: Mapping[str, str] = field(default_factory=dict)
    """group instance id → member id"""
    since_ms: int = 0
    """When the group came into its state."""
    subscribed: frozenset[str] | None = None
    """Topics the consumers of this generation subscribe; None if that is not known."""
    # Soft:
    pending: frozenset[str] = frozenset()
    window: JoinWindow | None = None
    """Set while a first rebalance is prepared."""
    stored: bool = False
    """There is a row of this group."""

    @property
    def initial(self) -> bool:
        """The rebalance that is prepared makes the first generation with members."""
        return self.window is not None

    @property
    def shown_state(self) -> str:
        """The state as clients are shown."""
        return self.state.value

    @property
    def empty_since_ms(self) -> int | None:
        """Since when it has no members."""
        return self.since_ms if self.state is GroupState.EMPTY else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Offset:
    """A committed offset."""

    committed_offset: int
    leader_epoch: int
    metadata: str
    committed_ms: int
    expires_ms: int | None = None
    """Only clients older than OffsetCommit v5 may say when; otherwise the retention of the settings applies."""


# --- Records -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class GroupStored:
    """The group is this from now on. Of kinds whose members are stored one by one: all of it but the members."""

    group: AnyGroup


@dataclass(frozen=True, slots=True)
class MemberStored:
    """A member, new or changed."""

    member: AnyMember


@dataclass(frozen=True, slots=True)
class MemberRemoved:
    """A member that is gone."""

    member_id: str


@dataclass(frozen=True, slots=True)
class MembersCleared:
    """All members that were stored one by one are gone."""


@dataclass(frozen=True, slots=True)
class GroupDeleted:
    """The group and all its offsets are gone."""


@dataclass(frozen=True, slots=True)
class OffsetsCommitted:
    """Offsets that replace what was committed."""

    offsets: Mapping[TopicPartition, Offset]


@dataclass(frozen=True, slots=True)
class OffsetsPending:
    """Offsets that are committed when and if a transaction is. Refused, if the producer does not have it any more."""

    owner: TransactionOwner
    offsets: Mapping[TopicPartition, Offset]


@dataclass(frozen=True, slots=True)
class OffsetsDeleted:
    """Offsets that are gone."""

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


class Decision(coordination.Decision[AnyGroup, Record]):
    """What a rule wants to happen to a group. A rule of one kind may leave behind a group of another."""

    __slots__ = ()


# --- Requests and answers ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Join:
    """JoinGroup."""

    member_id: str
    new_member_id: str
    """The id to use if this turns out to be a new member."""
    instance_id: str | None = None
    client_id: str = ""
    client_host: str = ""
    session_timeout_ms: int
    rebalance_timeout_ms: int
    protocol_type: str
    protocols: tuple[tuple[str, bytes], ...]
    member_id_required: bool = True
    """v4+: a new dynamic member is only given its id, and must come back with it."""
    may_skip_assignment: bool = True
    """v9+: a leader can be told not to assign."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinedMember:
    """What the leader is told of a member."""

    member_id: str
    instance_id: str | None
    metadata: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinResult:
    """What a join is answered."""

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
    """What a sync is answered."""

    error: ErrorCode = ErrorCode.NONE
    protocol_type: str | None = None
    protocol_name: str | None = None
    assignment: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """Heartbeat."""

    member_id: str
    instance_id: str | None = None
    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaver:
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
    offsets: Mapping[TopicPartition, Offset]
    knows_unknown_groups: bool = True
    """v9+: the client understands GROUP_ID_NOT_FOUND."""
    version: int = 9
    """Of OffsetCommit, or of TxnOffsetCommit if there is an owner."""
    owner: TransactionOwner | None = None
    """TxnOffsetCommit: whose transaction the offsets belong to."""

    @property
    def records(self) -> tuple[Record, ...]:
        """What is stored if it is accepted, whatever the kind of the group."""
        if not self.offsets:
            return ()
        return (OffsetsCommitted(self.offsets) if self.owner is None else OffsetsPending(self.owner, self.offsets),)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteOffsets:
    """OffsetDelete: topic names with the partitions of each."""

    topics: Mapping[str, tuple[TopicPartition, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteOffsetsResult:
    """The topics that were refused because members subscribe them, or an error for the whole request."""

    error: ErrorCode = ErrorCode.NONE
    subscribed: frozenset[str] = frozenset()


def with_members(members: Iterable[Member]) -> tuple[Mapping[str, Member], Mapping[str, str]]:
    """The two indexes of a group's members."""
    by_id = {member.member_id: member for member in members}
    instances = {m.instance_id: m.member_id for m in by_id.values() if m.instance_id is not None}
    return by_id, instances
