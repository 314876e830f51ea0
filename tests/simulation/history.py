"""What clients did and saw: the only thing checkers look at, beside what they read at the end.

An operation is invoked, and then it is acknowledged, refused, or nobody knows. What nobody knows stays open until
the end: it may have happened at any time after it was invoked, or never.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from penstock.wire.error_codes import ErrorCode


class Outcome(Enum):
    """What became of an operation."""

    UNKNOWN = "unknown"
    ACKNOWLEDGED = "acknowledged"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, order=True)
class PartitionKey:
    """A partition of one topic; a topic that is created again under the same name is another one."""

    topic_id: bytes
    index: int


@dataclass(slots=True, kw_only=True, eq=False)
class Append:
    """One batch that a producer wants in the log."""

    partition: PartitionKey
    data: bytes
    """The batch as sent."""
    values: tuple[bytes | None, ...]
    """Its records' values, which no other batch has; None for tombstones."""
    keys: tuple[bytes | None, ...]
    timestamp: int
    """Of all its records."""
    invoked_at: float
    answered_at: float = float("inf")
    outcome: Outcome = Outcome.UNKNOWN
    base_offset: int = -1
    producer_id: int = -1
    sequence: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """One partition's answer to a fetch."""

    partition: PartitionKey
    fetch_offset: int
    invoked_at: float
    answered_at: float
    error: ErrorCode
    high_watermark: int
    log_start: int
    records: bytes
    place: int = 0
    """Whose agent answered, where that matters."""
    read_committed: bool = False
    last_stable_offset: int = -1
    aborted: tuple[tuple[int, int], ...] = ()
    """Producer id and first offset of the transactions that a reader of committed data leaves out."""


@dataclass(slots=True, kw_only=True, eq=False)
class OffsetCommit:
    """A group's offset for one partition."""

    group_id: str
    partition: PartitionKey
    offset: int
    invoked_at: float
    answered_at: float = float("inf")
    outcome: Outcome = Outcome.UNKNOWN


@dataclass(slots=True, kw_only=True, eq=False)
class Transaction:
    """What a producer wants to become visible at once, or never."""

    transactional_id: str
    number: int
    """Counted by its producer. It is the offset that goes with it, too."""
    appends: list[Append] = field(default_factory=list)
    sends_offsets: bool = False
    wants_commit: bool = False
    """Whether its end was asked for, and is to be a commit."""
    outcome: Outcome = Outcome.UNKNOWN
    """Of the request to end it."""
    answered_at: float = float("inf")


@dataclass(slots=True, kw_only=True, eq=False)
class OffsetSeen:
    """What was found in one look at the offsets of a producer's group."""

    transactional_id: str
    offsets: tuple[int, ...]
    """By partition; -1 where there is none."""
    invoked_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ownership:
    """What a member of a group was told to own in a generation."""

    group_id: str
    generation: int
    member_id: str
    partitions: tuple[int, ...]


@dataclass(slots=True, kw_only=True, eq=False)
class GroupCommit:
    """A member's offset, the same for all partitions that it owns. Each partition's rise, unless somebody seeks."""

    group_id: str
    generation: int = -1
    partitions: tuple[int, ...]
    offset: int
    invoked_at: float
    answered_at: float = float("inf")
    outcome: Outcome = Outcome.UNKNOWN


@dataclass(frozen=True, slots=True, kw_only=True)
class OffsetLook:
    """What was found in one look at a group's offset."""

    group_id: str
    partition: int
    offset: int
    invoked_at: float
    answered_at: float


@dataclass(slots=True, kw_only=True, eq=False)
class Trim:
    """A request to remove the records below an offset."""

    partition: PartitionKey
    offset: int
    invoked_at: float
    answered_at: float = float("inf")
    outcome: Outcome = Outcome.UNKNOWN
    low_watermark: int = -1


@dataclass(slots=True, kw_only=True, eq=False)
class Deletion:
    """The end of a topic."""

    topic_id: bytes
    invoked_at: float
    answered_at: float = float("inf")
    outcome: Outcome = Outcome.UNKNOWN


@dataclass(slots=True, kw_only=True, eq=False)
class Delivery:
    """A record that a member of a share group was given."""

    offset: int
    member_id: str
    count: int
    invoked_at: float
    answered_at: float
    life: int
    """Of the agent."""
    ended_at: float = float("inf")
    """When the member began to say something of it, or lost its connection."""


@dataclass(slots=True, kw_only=True, eq=False)
class Said:
    """What a member of a share group said of a record."""

    offset: int
    accepts: bool
    rejects: bool = False
    invoked_at: float
    answered_at: float = float("inf")
    outcome: Outcome = Outcome.UNKNOWN


@dataclass(slots=True)
class History:
    """Everything, in the order of invocation."""

    appends: list[Append] = field(default_factory=list)
    fetches: list[Fetched] = field(default_factory=list)
    commits: list[OffsetCommit] = field(default_factory=list)
    trims: list[Trim] = field(default_factory=list)
    deletions: list[Deletion] = field(default_factory=list)
    transactions: list[Transaction] = field(default_factory=list)
    offsets_seen: list[OffsetSeen] = field(default_factory=list)
    ownerships: list[Ownership] = field(default_factory=list)
    group_commits: list[GroupCommit] = field(default_factory=list)
    looks: list[OffsetLook] = field(default_factory=list)
    deliveries: list[Delivery] = field(default_factory=list)
    said: list[Said] = field(default_factory=list)

    def transactions_of(self, transactional_id: str) -> list[Transaction]:
        """Those of one producer."""
        return [one for one in self.transactions if one.transactional_id == transactional_id]

    @property
    def acknowledged(self) -> list[Append]:
        """The appends that were promised to be durable."""
        return [append for append in self.appends if append.outcome is Outcome.ACKNOWLEDGED]
