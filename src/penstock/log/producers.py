"""Idempotent producers: the rule by which a retried batch is appended once and in order (KIP-98).

Pure. A batch is judged against what its partition remembers of its producer; only batches of durable commits are
remembered, by `remember`.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from enum import Enum

from penstock.log.model import NO_PRODUCER_ID, NO_TIMESTAMP, ProducerState, SequenceBatch

NO_SEQUENCE = -1
SEQUENCES = 2**31
"""Sequence numbers have 31 bits and wrap from 2,147,483,647 to 0."""


class ProducerRefusal(Enum):
    """Why a producer's batch is not appended."""

    OUT_OF_ORDER = "out of order"
    FENCED = "fenced"
    OUTSIDE = "outside of its transaction"
    TOO_EARLY = "too early"
    """An earlier batch failed and has to be retried first, unless another agent has it: a retriable error."""


def last_sequence(first_sequence: int, record_count: int) -> int:
    """The sequence number of a batch's last record."""
    return (first_sequence + record_count - 1) % SEQUENCES


def is_next(state: ProducerState, epoch: int, first_sequence: int) -> bool:
    """Whether a batch is the next one of a known producer, or the first of a newer epoch."""
    if epoch < state.epoch:
        return False
    # The epoch may be known from a marker only, before any batch of it.
    batches = state.batches if epoch == state.epoch else ()
    return first_sequence == ((batches[-1].last_sequence + 1) % SEQUENCES if batches else 0)


def is_fenced(state: ProducerState | None, epoch: int) -> bool:
    """Whether a partition knows a newer epoch of a producer. That is looked at before anything else."""
    return state is not None and epoch < state.epoch


def check_sequence(
    state: ProducerState | None, epoch: int, first_sequence: int, record_count: int
) -> ProducerRefusal | SequenceBatch | None:
    """Judge one batch: None to append it, the remembered batch that it repeats, or why it is refused.

    An unknown producer may start with any sequence: its state may have expired. A new epoch starts at 0.
    """
    if state is None:
        return None
    if epoch < state.epoch:
        return ProducerRefusal.FENCED
    if is_next(state, epoch, first_sequence):
        return None
    last = last_sequence(first_sequence, record_count)
    for batch in state.batches if epoch == state.epoch else ():
        if batch.first_sequence == first_sequence and batch.last_sequence == last:
            return batch
    return ProducerRefusal.OUT_OF_ORDER


def awaited(epoch: int, first_sequence: int, now_ms: int) -> ProducerState:
    """The state of an unknown producer whose first batch failed: that batch must be retried first.

    Without it, batches sent after that one would be those of an unknown producer, and would be accepted before it.
    """
    before = SequenceBatch(NO_SEQUENCE, (first_sequence - 1) % SEQUENCES, -1, -1, NO_TIMESTAMP)
    return ProducerState(NO_PRODUCER_ID, epoch, now_ms, (before,))


def remember(
    producers: dict[int, ProducerState], producer_id: int, epoch: int, batch: SequenceBatch, now_ms: int
) -> None:
    """Remember an appended batch. A newer epoch discards the batches of the older one."""
    state = producers.get(producer_id)
    if state is None or epoch > state.epoch:
        state = producers[producer_id] = ProducerState(producer_id, epoch, now_ms)
    state.last_ms = now_ms
    state.add(batch)


def note_marker(producers: dict[int, ProducerState], producer_id: int, epoch: int, now_ms: int) -> None:
    """Remember a marker. If it brings a newer epoch, sequences start again."""
    state = producers.get(producer_id)
    if state is None or epoch > state.epoch:
        state = producers[producer_id] = ProducerState(producer_id, epoch, now_ms)
    state.last_ms = now_ms


def idle_producers(producers: Mapping[int, ProducerState], before_ms: int, *, kept: Container[int] = ()) -> list[int]:
    """Producers that have written nothing since `before_ms`, except those in `kept`."""
    return [
        producer_id for producer_id, state in producers.items() if state.last_ms < before_ms and producer_id not in kept
    ]
