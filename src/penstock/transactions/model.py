"""Transactional ids: frozen state, the requests rules are asked, and what they answer.

Which partitions a transaction has written to is not part of this state: their logs say it. What is stored are the
producer that owns the id now, partitions and groups that were added by request, and how the last transaction ended.
A transaction is ongoing when the state says so, or when a partition has open batches of its producer.
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
"""At this epoch a producer id is used up: one more is left for fencing it."""


class TransactionState(IntEnum):
    """Where an id is. Numbers are stored; the names that clients are shown are in `STATE_NAMES`."""

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
    """A transactional id as it is stored."""

    key: Key
    producer_id: int
    epoch: int
    last_producer_id: int = NO_PRODUCER_ID
    """The producer id before this one, if that was used up by a producer that may ask again."""
    last_epoch: int = NO_EPOCH
    """The epoch that the producer knew before it was given this one; -1 if the epoch was not raised for it."""
    timeout_ms: int
    state: TransactionState = TransactionState.EMPTY
    partitions: frozenset[int] = frozenset()
    """Ids of partitions that were added to the ongoing transaction by request."""
    groups: frozenset[str] = frozenset()
    """Groups whose offsets may be part of the ongoing transaction."""
    started_ms: int = NEVER_MS
    updated_ms: int


@dataclass(frozen=True, slots=True)
class Producer:
    """A producer as it names itself."""

    producer_id: int
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Init:
    """InitProducerId."""

    timeout_ms: int
    expected: Producer | None = None
    """Who the client believes to be (KIP-360)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Add:
    """AddPartitionsToTxn or AddOffsetsToTxn."""

    producer: Producer
    partitions: frozenset[int] = frozenset()
    groups: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """EndTxn."""

    producer: Producer
    commit: bool
    raises_epoch: bool
    """v5: the producer goes on with the next epoch (KIP-890)."""


@dataclass(frozen=True, slots=True)
class Ending:
    """The markers to write: in every partition of the transaction, under this epoch."""

    producer: Producer
    commit: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a request is answered."""

    error: ErrorCode = ErrorCode.NONE
    producer: Producer = field(default=Producer(NO_PRODUCER_ID, NO_EPOCH))


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What a rule wants to happen."""

    result: Result
    state: Transaction | None = None
    """What to store; None to leave everything as it is."""
    ending: Ending | None = None
    needs_producer_id: bool = False
    """Ask again with a new producer id at hand; nothing else counts."""
