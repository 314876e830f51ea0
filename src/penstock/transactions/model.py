"""Transactional ids: frozen state, requests to the rules, and their results.

The partitions that a transaction has written to are not part of this state: their logs have that. Stored are the
producer that owns the id, partitions and groups that were added by requests, and how the last transaction ended. A
transaction is ongoing if the state says so, or if a partition has open batches of its producer.
"""

from __future__ import annotations

from enum import IntEnum

from penstock.base.dataclasses import dataclass, field
from penstock.coordination.model import Key
from penstock.wire.error_codes import ErrorCode

NO_PRODUCER_ID = NO_EPOCH = -1
NEVER_MS = -1
EPOCH_MAX = 32_767
EPOCH_EXHAUSTED = EPOCH_MAX - 1
"""At this epoch a producer id is exhausted: one more epoch is reserved for fencing it."""


class TransactionState(IntEnum):
    """The states of an id. The numbers are stored; clients see the names in `STATE_NAMES`."""

    EMPTY = 0
    ONGOING = 1
    COMPLETE_COMMIT = 4
    COMPLETE_ABORT = 5


STATE_NAMES = {
    TransactionState.EMPTY: "Empty",
    TransactionState.ONGOING: "Ongoing",
    TransactionState.COMPLETE_COMMIT: "CompleteCommit",
    TransactionState.COMPLETE_ABORT: "CompleteAbort",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    """A transactional id as stored."""

    key: Key
    producer_id: int
    epoch: int
    last_producer_id: int = NO_PRODUCER_ID
    """The previous producer id, if it was exhausted by a producer that may retry."""
    last_epoch: int = NO_EPOCH
    """The epoch that the producer had before this one; -1 if it was not raised by the producer's own request."""
    timeout_ms: int
    state: TransactionState = TransactionState.EMPTY
    partitions: frozenset[int] = frozenset()
    """Ids of partitions that requests added to the ongoing transaction."""
    groups: frozenset[str] = frozenset()
    """Groups that may have pending offsets in the ongoing transaction."""
    started_ms: int = NEVER_MS
    updated_ms: int


@dataclass(frozen=True, slots=True)
class ProducerIdAndEpoch:
    """A producer id and epoch, as sent by a producer."""

    producer_id: int
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class InitProducerId:
    """InitProducerId."""

    timeout_ms: int
    expected: ProducerIdAndEpoch | None = None
    """The client's current producer id and epoch (KIP-360)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AddToTransaction:
    """AddPartitionsToTxn or AddOffsetsToTxn."""

    producer: ProducerIdAndEpoch
    partitions: frozenset[int] = frozenset()
    groups: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class EndTransaction:
    """EndTxn."""

    producer: ProducerIdAndEpoch
    commit: bool
    raises_epoch: bool
    """v5: the producer continues with the next epoch (KIP-890)."""


@dataclass(frozen=True, slots=True)
class EndMarkers:
    """The markers to write: in every partition of the transaction, with this epoch."""

    producer: ProducerIdAndEpoch
    commit: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The response to a request."""

    error: ErrorCode = ErrorCode.NONE
    producer: ProducerIdAndEpoch = field(default=ProducerIdAndEpoch(NO_PRODUCER_ID, NO_EPOCH))


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The decision of a rule."""

    result: Result
    state: Transaction | None = None
    """The state to store; None: unchanged."""
    ending: EndMarkers | None = None
    needs_producer_id: bool = False
    """Decide again with a new producer id; the rest is void."""
