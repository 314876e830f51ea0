"""What a share partition is: the records that a share group has taken from one partition and is not done with.

The records *in flight* are those from `start_offset` (Kafka's SPSO) up to, not including, `next_offset`. Everything
before is done with, everything after was never delivered. In between every offset is in exactly one `Run`: consecutive
offsets of which everything known is the same. So a batch of five hundred records costs what one record costs, until
its records meet different fates. Offsets without records (compacted away, or taken by a transaction's marker) are in
runs like others; consumers report them as gaps.

A partition is immutable. What is durable of it is written by `encoding`; locks are not: whoever held one before a
restart finds its records available to everybody.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

from penstock.base.dataclasses import dataclass
from penstock.coordination import model as coordination
from penstock.log.batches import Accepted
from penstock.log.model import Partition
from penstock.wire.error_codes import ErrorCode


class RecordState(IntEnum):
    """Kafka's states of a record in flight, by their numbers in its own log. Its ARCHIVING, 3, is two here, so that
    why a record was given up is still known after a restart."""

    AVAILABLE = 0
    ACQUIRED = 1
    ACKNOWLEDGED = 2
    REJECTED = 3
    """Given up by a member, and not done with before the dead letter queue has it."""
    ARCHIVED = 4
    EXHAUSTED = 5
    """The same, given up because it was delivered as often as is allowed."""


AVAILABLE, ACQUIRED, ACKNOWLEDGED, REJECTED, ARCHIVED, EXHAUSTED = RecordState
NOBODY = ""


class AcknowledgeType(IntEnum):
    """What a consumer says of a record."""

    GAP = 0
    ACCEPT = 1
    RELEASE = 2
    REJECT = 3
    RENEW = 4


class Run(NamedTuple):
    """Consecutive offsets that are all alike."""

    first: int
    last: int
    state: RecordState
    deliveries: int
    """How often these were delivered, the present delivery included."""
    member: str
    """Who has them, while they are acquired."""
    expires_ms: int
    """When their lock ends, while they are acquired."""
    batch: tuple[int, int]
    """First and last offset of what was acquired together the first time: Kafka delivers half of that, then a quarter,
    as its records come near the limit of deliveries, to find the one that kills its consumers."""

    @property
    def terminal(self) -> bool:
        """Whether nothing can happen to these any more."""
        return self.state is ACKNOWLEDGED or self.state is ARCHIVED

    @property
    def archiving(self) -> bool:
        """Whether these are given up, and the dead letter queue is still to have them."""
        return self.state is REJECTED or self.state is EXHAUSTED


@dataclass(frozen=True, slots=True, kw_only=True)
class SharePartition:
    """A partition as a share group sees it."""

    start_offset: int
    next_offset: int
    runs: tuple[Run, ...] = ()
    """Ascending, from `start_offset` to `next_offset` without holes; the first one is not terminal."""
    state_epoch: int = 0
    """Raised when an administrator resets the partition."""
    told: tuple[tuple[int, int], ...] = ()
    """Stretches that are archiving and have their letters already, as a start or another agent left them."""

    @property
    def in_flight(self) -> int:
        """How many offsets are in flight, those included that wait for others before them."""
        return self.next_offset - self.start_offset

    @property
    def delivery_complete(self) -> int:
        """How many offsets in flight are done with."""
        return sum(run.last - run.first + 1 for run in self.runs if run.terminal)

    @property
    def archiving(self) -> int:
        """How many offsets the dead letter queue is still to have."""
        return sum(run.last - run.first + 1 for run in self.runs if run.archiving)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The settings of a share group that its partitions act on."""

    max_deliveries: int = 5
    """`share.delivery.count.limit`"""
    lock_ms: int = 30_000
    """`share.record.lock.duration.ms`"""
    max_locks: int = 2_000
    """`share.partition.max.record.locks`"""
    renewable: bool = True
    """`share.renew.acknowledge.enable`"""
    dead_letters: bool = False
    """Whether `errors.deadletterqueue.topic.name` names a queue for what is given up."""


class Acquire(NamedTuple):
    """How much a member wants."""

    member: str
    max_records: int
    batch_size: int
    exact: bool
    """Kafka's acquire mode `record_limit`: not a record more than asked for. Otherwise batches are kept whole."""


class Batch(NamedTuple):
    """A record batch of the log, as far as it matters here."""

    first: int
    last: int


class Fetched(NamedTuple):
    """What the log has from an offset on."""

    fetch_offset: int
    log_start: int
    batches: Sequence[Batch]
    aborted: Sequence[Batch] = ()
    """Those of them that must not be seen, because their transaction was aborted."""


class AcquiredRange(NamedTuple):
    """Records that a member now has."""

    first: int
    last: int
    deliveries: int


@dataclass(frozen=True, slots=True)
class Acquired:
    """The answer to an attempt to acquire."""

    ranges: tuple[AcquiredRange, ...] = ()

    @property
    def count(self) -> int:
        """How many offsets."""
        return sum(found.last - found.first + 1 for found in self.ranges)


class Acknowledgement(NamedTuple):
    """What a member says of a stretch of offsets."""

    first: int
    last: int
    types: Sequence[int]
    """One for all of them, or one for each."""


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The answer to acknowledgements. With an error none of them counts."""

    error: ErrorCode = ErrorCode.NONE
    message: str | None = None


class Letters(NamedTuple):
    """A batch for a dead letter queue, and of which offsets it tells."""

    queue: Partition
    batch: Accepted
    stretches: Sequence[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Stored:
    """Record: a partition is now like this."""

    partition: SharePartition
    is_settled: bool = False
    """Whether what is known of letters that were written is a thing of the past: the state says so from now on."""


@dataclass(frozen=True, slots=True)
class Deleted:
    """Record: the group knows nothing of the partition any more."""


Record = Stored | Deleted


class Decision(coordination.Decision[SharePartition, Record]):
    """What a rule of share partitions wants to happen."""
