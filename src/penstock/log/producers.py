"""Idempotent producers: the rule that makes a retried batch appear once and in order (KIP-98).

Pure. A batch is decided against what its partition remembers of its producer; only the batches that a durable
commit wrote are remembered, by `remember`.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from enum import Enum

from penstock.log.model import NO_PRODUCER_ID, NO_TIMESTAMP, ProducerState, SequenceBatch

NO_SEQUENCE = -1
SEQUENCES = 2**31
"""Sequence numbers are 31 bits and wrap from 2,147,483,647 to 0."""


class Refusal(Enum):
    """Why a batch of a producer is not appended."""

    OUT_OF_ORDER = "out of order"
    FENCED = "fenced"
    OUTSIDE = "outside of its transaction"
    TOO_EARLY = "too early"
    """One sent before it failed and has to come again first, unless another agent has it: to be tried again."""


def last_sequence(first_sequence: int, record_count: int) -> int:
    """The sequence of a batch's last record."""
    return (first_sequence + record_count - 1) % SEQUENCES


def goes_on(state: ProducerState, epoch: int, first_sequence: int) -> bool:
    """Whether a batch is the next one of a producer that is known, or the first of its newer epoch."""
    if epoch < state.epoch:
        return False
    # Of this epoch it may have only been seen that it began, by the end of a transaction.
    batches = state.batches if epoch == state.epoch else ()
    return first_sequence == ((batches[-1].last_sequence + 1) % SEQUENCES if batches else 0)


def judge(
    state: ProducerState | None, epoch: int, first_sequence: int, record_count: int
) -> Refusal | SequenceBatch | None:
    """Decide one batch: None to append it, the remembered batch it repeats, or why it is refused.

    An unknown producer may start with any sequence: its earlier batches may have expired. A new epoch starts at 0.
    """
    if state is None:
        return None
    if epoch < state.epoch:
        return Refusal.FENCED
    if goes_on(state, epoch, first_sequence):
        return None
    last = last_sequence(first_sequence, record_count)
    for batch in state.batches if epoch == state.epoch else ():
        if batch.first_sequence == first_sequence and batch.last_sequence == last:
            return batch
    return Refusal.OUT_OF_ORDER


def awaited(epoch: int, first_sequence: int, now_ms: int) -> ProducerState:
    """What is known of a producer whose very first batch was lost on its way into the log: where it must go on.

    Without it, the batches sent behind that one would be those of an unknown producer, and be accepted before it.
    """
    before = SequenceBatch(NO_SEQUENCE, (first_sequence - 1) % SEQUENCES, -1, -1, NO_TIMESTAMP)
    return ProducerState(NO_PRODUCER_ID, epoch, now_ms, (before,))


def remember(
    producers: dict[int, ProducerState], producer_id: int, epoch: int, batch: SequenceBatch, now_ms: int
) -> None:
    """Note an appended batch. A newer epoch forgets what the older one sent."""
    state = producers.get(producer_id)
    if state is None or epoch > state.epoch:
        state = producers[producer_id] = ProducerState(producer_id, epoch, now_ms)
    state.last_ms = now_ms
    state.add(batch)


def note_marker(producers: dict[int, ProducerState], producer_id: int, epoch: int, now_ms: int) -> None:
    """Note the end of a transaction. If it brings a newer epoch, sequences begin again."""
    state = producers.get(producer_id)
    if state is None or epoch > state.epoch:
        state = producers[producer_id] = ProducerState(producer_id, epoch, now_ms)
    state.last_ms = now_ms


def silent(producers: Mapping[int, ProducerState], before_ms: int, *, kept: Container[int] = ()) -> list[int]:
    """Producers that wrote nothing since `before_ms`, but not those in `kept`."""
    return [
        producer_id for producer_id, state in producers.items() if state.last_ms < before_ms and producer_id not in kept
    ]
