"""Idempotent producers: every rule as a case, then random retries against a naive model."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.log.model import KEPT_BATCHES, ProducerState, SequenceBatch
from penstock.log.producers import (
    SEQUENCES,
    ProducerRefusal,
    awaited,
    check_sequence,
    idle_producers,
    last_sequence,
    remember,
)

TOP = SEQUENCES - 1
APPEND = None


def sent(*batches: tuple[int, int], epoch: int = 5) -> ProducerState:
    """A producer that appended batches, given by first sequence and record count, at offset 100 and on."""
    producers: dict[int, ProducerState] = {}
    offset = 100
    for first, count in batches:
        end = offset + count - 1
        remember(producers, 1, epoch, SequenceBatch(first, last_sequence(first, count), offset, end, 7), 0)
        offset += count
    return producers[1]


SIX = sent((0, 1), (1, 2), (3, 1), (4, 3), (7, 1), (8, 2))
"""Six batches; the first is forgotten."""
WRAPPED = sent((TOP - 2, 2), (TOP, 3), (2, 1))
"""The second batch has the sequences 2147483647, 0 and 1."""


@pytest.mark.parametrize(
    ("state", "epoch", "first", "count", "expected"),
    [
        pytest.param(None, 0, 0, 1, APPEND, id="unknown from the beginning"),
        pytest.param(None, 9, 4711, 3, APPEND, id="unknown from anywhere"),
        pytest.param(SIX, 5, 10, 4, APPEND, id="next"),
        pytest.param(SIX, 5, 11, 1, ProducerRefusal.OUT_OF_ORDER, id="gap"),
        pytest.param(SIX, 5, 9, 2, ProducerRefusal.OUT_OF_ORDER, id="overlaps the end"),
        pytest.param(SIX, 5, 8, 2, 108, id="repeats the last"),
        pytest.param(SIX, 5, 4, 3, 104, id="repeats one before"),
        pytest.param(SIX, 5, 1, 2, 101, id="repeats the oldest kept"),
        pytest.param(SIX, 5, 0, 1, ProducerRefusal.OUT_OF_ORDER, id="repeats one that is forgotten"),
        pytest.param(SIX, 5, 8, 1, ProducerRefusal.OUT_OF_ORDER, id="the beginning of the last"),
        pytest.param(SIX, 5, 9, 1, ProducerRefusal.OUT_OF_ORDER, id="the end of the last"),
        pytest.param(SIX, 5, 4, 4, ProducerRefusal.OUT_OF_ORDER, id="two of them in one"),
        pytest.param(SIX, 4, 10, 1, ProducerRefusal.FENCED, id="older epoch"),
        pytest.param(SIX, 4, 8, 2, ProducerRefusal.FENCED, id="repeat of an older epoch"),
        pytest.param(SIX, 6, 0, 1, APPEND, id="newer epoch from 0"),
        pytest.param(SIX, 6, 10, 1, ProducerRefusal.OUT_OF_ORDER, id="newer epoch goes on"),
        pytest.param(SIX, 6, 8, 2, ProducerRefusal.OUT_OF_ORDER, id="newer epoch repeats an older one"),
        pytest.param(WRAPPED, 5, 3, 1, APPEND, id="next after the wrap"),
        pytest.param(WRAPPED, 5, TOP, 3, 102, id="repeats the one that wraps"),
        pytest.param(WRAPPED, 5, TOP - 2, 2, 100, id="repeats the one before the wrap"),
        pytest.param(sent((TOP - 1, 2)), 5, 0, 1, APPEND, id="0 follows 2147483647"),
        pytest.param(sent((TOP - 1, 2)), 5, 1, 1, ProducerRefusal.OUT_OF_ORDER, id="1 does not"),
        pytest.param(sent((TOP - 1, 1)), 5, TOP, 1, APPEND, id="2147483647 is a sequence"),
        pytest.param(ProducerState(1, 5, 0), 5, 0, 1, APPEND, id="the first of an epoch that a marker began"),
        pytest.param(ProducerState(1, 5, 0), 5, 77, 1, ProducerRefusal.OUT_OF_ORDER, id="not the first of that epoch"),
        pytest.param(ProducerState(1, 5, 0), 4, 0, 1, ProducerRefusal.FENCED, id="known without batches, older epoch"),
        pytest.param(awaited(5, 3, 0), 5, 3, 2, APPEND, id="the awaited batch"),
        pytest.param(awaited(5, 3, 0), 5, 3, 9, APPEND, id="the awaited batch, cut otherwise"),
        pytest.param(awaited(5, 3, 0), 5, 5, 1, ProducerRefusal.OUT_OF_ORDER, id="one from behind it"),
        pytest.param(awaited(5, 0, 0), 5, 0, 1, APPEND, id="awaited at 0"),
        pytest.param(awaited(5, 0, 0), 5, TOP, 1, ProducerRefusal.OUT_OF_ORDER, id="what would precede 0"),
        pytest.param(awaited(5, 3, 0), 6, 0, 1, APPEND, id="awaited, newer epoch"),
        pytest.param(awaited(5, 3, 0), 6, 3, 1, ProducerRefusal.OUT_OF_ORDER, id="awaited, newer epoch not from 0"),
        pytest.param(awaited(5, 3, 0), 4, 3, 1, ProducerRefusal.FENCED, id="awaited, older epoch"),
    ],
)
def test_judgement(
    state: ProducerState | None, epoch: int, first: int, count: int, expected: ProducerRefusal | int | None
) -> None:
    verdict = check_sequence(state, epoch, first, count)
    if isinstance(expected, int):
        assert isinstance(verdict, SequenceBatch)
        assert verdict.base_offset == expected
    else:
        assert verdict is expected


def test_a_new_epoch_forgets_the_old_one() -> None:
    producers = {1: sent((0, 1), (1, 1))}
    remember(producers, 1, 6, SequenceBatch(0, 0, 300, 300, 7), 1)
    assert (producers[1].epoch, [batch.base_offset for batch in producers[1].batches]) == (6, [300])


def test_five_batches_are_kept() -> None:
    assert len(SIX.batches) == KEPT_BATCHES == 5
    assert [batch.first_sequence for batch in SIX.batches] == [1, 3, 4, 7, 8]


def test_a_producer_that_wrote_once_takes_little_memory() -> None:
    producers: dict[int, ProducerState] = {}
    tracemalloc.start()
    try:
        for number in range(10_000, 12_000):
            remember(producers, number, 0, SequenceBatch(0, 0, 10 * number, 10 * number, 10**12 + number), 10**12)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken / len(producers) < 500  # With the numbers themselves, and its place among all others.


def test_who_writes_nothing_expires() -> None:
    producers = {number: ProducerState(number, 0, last_ms) for number, last_ms in enumerate((10, 20, 30))}
    assert idle_producers(producers, 20) == [0]
    assert idle_producers(producers, 40, kept={1: None}) == [0, 2]
    assert idle_producers(producers, 10) == []


@pytest.mark.parametrize(
    ("first", "count", "last"), [(0, 1, 0), (0, 5, 4), (TOP, 1, TOP), (TOP, 2, 0), (TOP - 1, 5, 2)]
)
def test_last_sequence(first: int, count: int, last: int) -> None:
    assert last_sequence(first, count) == last


class NaiveLog:
    """Remembers everything, and takes a batch if it continues the records it has."""

    def __init__(self, first: int) -> None:
        self.first = first
        self.records = 0
        self.batches: list[tuple[int, int, int]] = []
        """Position of the first record, counted without wrapping; count; offset."""

    def append(self, position: int, count: int) -> int | None:
        """The offset of a batch that is new or among the last five, None if it is refused."""
        for known, size, offset in self.batches[-KEPT_BATCHES:]:
            if (known, size) == (position, count):
                return offset
        if position != self.records:
            return None
        offset = self.records
        self.batches.append((position, count, offset))
        self.records += count
        return offset


@given(
    st.integers(0, TOP) | st.integers(TOP - 8, TOP),
    st.lists(st.tuples(st.integers(-6, 2), st.integers(1, 4)), max_size=40),
)
def test_against_a_naive_model(first: int, steps: list[tuple[int, int]]) -> None:
    """Batches that are new, repeated, cut otherwise or out of order: both logs say the same."""
    model, producers = NaiveLog(first), dict[int, ProducerState]()
    for back, count in steps:
        known = model.batches[back:][0] if back < 0 and len(model.batches) >= -back else None
        position, size = (known[0], known[1]) if known is not None else (max(0, model.records + back), count)
        if not model.batches:
            position = 0  # An unknown producer may begin anywhere: that is its beginning.
        expected = model.append(position, size)
        sequence = (first + position) % SEQUENCES
        verdict = check_sequence(producers.get(1), 0, sequence, size)
        if verdict is None:
            offset = model.records - size
            assert expected == offset
            batch = SequenceBatch(sequence, last_sequence(sequence, size), offset, offset + size - 1, 0)
            remember(producers, 1, 0, batch, 0)
        elif isinstance(verdict, SequenceBatch):
            assert verdict.base_offset == expected
        else:
            assert verdict is ProducerRefusal.OUT_OF_ORDER
            assert expected is None
