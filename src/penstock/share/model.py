"""The state of a share partition: the records of one partition that a share group has not finished with.

The records *in flight* are those from `start_offset` (Kafka's SPSO) up to, not including, `next_offset`. Everything
before is finished, everything after was never delivered. In between, every offset is in exactly one `Run`: consecutive
offsets with identical state. So a batch of five hundred records costs as much as one record, until its records are
treated differently. Offsets without records (compacted away, or control records) are in runs like others; consumers
report them as gaps.

A partition is immutable. Its durable part is written by `encoding`; locks are not: after a restart all records that
were locked are available again.
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
    """Kafka's states of a record in flight, by their numbers in its own log. Its ARCHIVING, 3, is split in two here, so
    that the reason for giving up a record survives a restart."""

    AVAILABLE = 0
    ACQUIRED = 1
    ACKNOWLEDGED = 2
    REJECTED = 3
    """Rejected by a member, and not archived before its dead letter is in the dead letter queue."""
    ARCHIVED = 4
    EXHAUSTED = 5
    """The same, because the delivery count limit was reached."""


AVAILABLE, ACQUIRED, ACKNOWLEDGED, REJECTED, ARCHIVED, EXHAUSTED = RecordState
NOBODY = ""


class AcknowledgeType(IntEnum):
    """How a consumer acknowledges a record, by Kafka's numbers."""

    GAP = 0
    ACCEPT = 1
    RELEASE = 2
    REJECT = 3
    RENEW = 4


class Run(NamedTuple):
    """Consecutive offsets with identical state."""

    first: int
    last: int
    state: RecordState
    deliveries: int
    """How often these were delivered, the current delivery included."""
    member: str
    """The member that has acquired them."""
    expires_ms: int
    """When the acquisition lock expires."""
    batch: tuple[int, int]
    """First and last offset of what was acquired together the first time: close to the delivery count limit Kafka
    delivers half of that, then a quarter, to isolate the record that crashes its consumers."""

    @property
    def terminal(self) -> bool:
        """Whether the state is final."""
        return self.state is ACKNOWLEDGED or self.state is ARCHIVED

    @property
    def archiving(self) -> bool:
        """Whether a dead letter for these is still to be written."""
        return self.state is REJECTED or self.state is EXHAUSTED


@dataclass(frozen=True, slots=True, kw_only=True)
class SharePartition:
    """A partition as a share group sees it."""

    start_offset: int
    next_offset: int
    runs: tuple[Run, ...] = ()
    """Ascending and contiguous from `start_offset` to `next_offset`; the first one is not terminal."""
    state_epoch: int = 0
    """Incremented when an administrator resets the partition."""
    dead_lettered: tuple[tuple[int, int], ...] = ()
    """Archiving ranges whose dead letters are already written, as noted by an earlier process or another agent."""

    @property
    def in_flight(self) -> int:
        """How many offsets are in flight, including finished ones that wait for others before them."""
        return self.next_offset - self.start_offset

    @property
    def delivery_complete(self) -> int:
        """How many offsets in flight are finished."""
        return sum(run.last - run.first + 1 for run in self.runs if run.terminal)

    @property
    def archiving(self) -> int:
        """How many offsets still need a dead letter."""
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
    """How much a member requests."""

    member: str
    max_records: int
    batch_size: int
    exact: bool
    """Kafka's acquire mode `record_limit`: never more records than requested. Otherwise batches are kept whole."""


class Batch(NamedTuple):
    """The offsets of a record batch of the log."""

    first: int
    last: int


class Fetched(NamedTuple):
    """What the log has from an offset on."""

    fetch_offset: int
    log_start: int
    batches: Sequence[Batch]
    aborted: Sequence[Batch] = ()
    """Batches of aborted transactions, which must not be delivered."""


class AcquiredRange(NamedTuple):
    """Records that a member has acquired."""

    first: int
    last: int
    deliveries: int


@dataclass(frozen=True, slots=True)
class Acquired:
    """The result of an acquisition."""

    ranges: tuple[AcquiredRange, ...] = ()

    @property
    def count(self) -> int:
        """How many offsets."""
        return sum(found.last - found.first + 1 for found in self.ranges)


class Acknowledgement(NamedTuple):
    """A member's acknowledgement of a range of offsets."""

    first: int
    last: int
    types: Sequence[int]
    """One type for all of them, or one for each."""


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The result of acknowledgements. With an error none of them has an effect."""

    error: ErrorCode = ErrorCode.NONE
    message: str | None = None


class DeadLetterBatch(NamedTuple):
    """A batch for a dead letter queue, and the offsets that it is about."""

    queue: Partition
    batch: Accepted
    ranges: Sequence[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class StateStored:
    """Record: the new state of a partition."""

    partition: SharePartition
    is_settled: bool = False
    """Whether the separate note about written dead letters is obsolete, because the state includes it."""


@dataclass(frozen=True, slots=True)
class StateDeleted:
    """Record: the group's state for the partition is deleted."""


Record = StateStored | StateDeleted


class Decision(coordination.Decision[SharePartition, Record]):
    """A decision about a share partition."""
