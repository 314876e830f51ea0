"""The rules of the transaction coordinator, as tables (KIP-98, KIP-360, KIP-890)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from penstock.transactions import transitions
from penstock.transactions.model import (
    EPOCH_EXHAUSTED,
    EPOCH_MAX,
    NEVER_MS,
    NO_EPOCH,
    AddToTransaction,
    Decision,
    EndMarkers,
    EndTransaction,
    InitProducerId,
    ProducerIdAndEpoch,
    Transaction,
    TransactionState,
)
from penstock.transactions.transitions import add, end, init, may_expire
from penstock.wire.error_codes import ErrorCode

KEY = (1, "orders")
NOW = 1_000_000
E, S = ErrorCode, TransactionState
ME = ProducerIdAndEpoch(7, 3)
EMPTY = Transaction(key=KEY, producer_id=7, epoch=3, timeout_ms=60_000, updated_ms=0)
ONGOING = replace(EMPTY, state=S.ONGOING, partitions=frozenset({1}), groups=frozenset({"g"}), started_ms=5)
COMMITTED = replace(EMPTY, state=S.COMPLETE_COMMIT)
ABORTED = replace(EMPTY, state=S.COMPLETE_ABORT)
RAISED = replace(COMMITTED, epoch=4, last_epoch=3)
"""Committed by version 2: the producer knows itself as epoch 4, or still as 3."""
WORN = replace(EMPTY, epoch=EPOCH_EXHAUSTED)


def start(
    txn: Transaction | None,
    expected: ProducerIdAndEpoch | None = None,
    *,
    has_batches: bool = False,
    fresh_id: int | None = 99,
) -> Decision:
    """InitProducerId."""
    request = InitProducerId(timeout_ms=1_000, expected=expected)
    return init(txn, KEY, request, NOW, has_batches=has_batches, fresh_id=fresh_id)


def finish(
    txn: Transaction | None, producer: ProducerIdAndEpoch = ME, *, commit: bool = True, raises: bool = True,
    has_batches: bool = False, fresh_id: int | None = 99,
) -> Decision:  # fmt: skip
    """EndTxn."""
    request = EndTransaction(producer=producer, commit=commit, raises_epoch=raises)
    return end(txn, request, NOW, has_batches=has_batches, fresh_id=fresh_id)


def time_out(txn: Transaction | None, now_ms: int, *, has_batches: bool, began_ms: int) -> Decision:
    return transitions.time_out(txn, now_ms, has_batches=has_batches, began_ms=began_ms, fresh_id=99)


def abort(txn: Transaction | None, now_ms: int, *, has_batches: bool, fresh_id: int | None = 99) -> Decision:
    return transitions.abort(txn, now_ms, has_batches=has_batches, fresh_id=fresh_id)


@pytest.mark.parametrize(
    ("txn", "expected", "given"),
    [
        pytest.param(None, None, ProducerIdAndEpoch(99, 0), id="a new id"),
        pytest.param(EMPTY, None, ProducerIdAndEpoch(7, 4), id="a new producer"),
        pytest.param(EMPTY, ME, ProducerIdAndEpoch(7, 4), id="the same producer"),
        pytest.param(RAISED, ME, ProducerIdAndEpoch(7, 4), id="a repetition"),
        pytest.param(WORN, None, ProducerIdAndEpoch(99, 0), id="the epochs are used up"),
        pytest.param(WORN, ProducerIdAndEpoch(7, EPOCH_EXHAUSTED), ProducerIdAndEpoch(99, 0), id="by its owner"),
        pytest.param(
            replace(EMPTY, producer_id=99, epoch=0, last_producer_id=7, last_epoch=EPOCH_EXHAUSTED),
            ProducerIdAndEpoch(7, EPOCH_EXHAUSTED), ProducerIdAndEpoch(99, 0), id="a repetition of that",
        ),
    ],
)  # fmt: skip
def test_who_is_given_an_id(
    txn: Transaction | None, expected: ProducerIdAndEpoch | None, given: ProducerIdAndEpoch
) -> None:
    decision = start(txn, expected)
    assert decision.result.error is E.NONE
    assert decision.result.producer == given
    assert decision.state is not None
    assert (decision.state.producer_id, decision.state.epoch) == (given.producer_id, given.epoch)
    assert decision.state.timeout_ms == 1_000
    assert decision.ending is None


@pytest.mark.parametrize("txn", [EMPTY, ONGOING, RAISED])
@pytest.mark.parametrize(
    "expected", [ProducerIdAndEpoch(7, 1), ProducerIdAndEpoch(8, 3), ProducerIdAndEpoch(8, EPOCH_EXHAUSTED)]
)
def test_who_is_not(txn: Transaction, expected: ProducerIdAndEpoch) -> None:
    decision = start(txn, expected)
    assert decision.result.error is E.PRODUCER_FENCED
    assert decision.state is None


@pytest.mark.parametrize(("txn", "has_batches"), [(ONGOING, False), (EMPTY, True), (RAISED, True)])
def test_a_new_producer_aborts_what_is_open(txn: Transaction, has_batches: bool) -> None:
    decision = start(txn, has_batches=has_batches)
    assert decision.ending == EndMarkers(ProducerIdAndEpoch(7, txn.epoch + 1), commit=False)
    assert decision.result.producer == ProducerIdAndEpoch(7, txn.epoch + 2)
    assert decision.state is not None
    assert (decision.state.partitions, decision.state.groups) == (frozenset(), frozenset())
    assert decision.state.started_ms == NEVER_MS


def test_an_id_that_is_needed_is_asked_for() -> None:
    assert start(None, fresh_id=None).needs_producer_id
    assert start(WORN, fresh_id=None).needs_producer_id
    assert finish(
        replace(ONGOING, epoch=EPOCH_EXHAUSTED), ProducerIdAndEpoch(7, EPOCH_EXHAUSTED), fresh_id=None
    ).needs_producer_id


@pytest.mark.parametrize(
    ("txn", "producer", "error"),
    [
        pytest.param(None, ME, E.INVALID_PRODUCER_ID_MAPPING, id="unknown"),
        pytest.param(EMPTY, ProducerIdAndEpoch(8, 3), E.INVALID_PRODUCER_ID_MAPPING, id="another producer"),
        pytest.param(EMPTY, ProducerIdAndEpoch(7, 2), E.PRODUCER_FENCED, id="an older epoch"),
        pytest.param(EMPTY, ProducerIdAndEpoch(7, 4), E.PRODUCER_FENCED, id="a newer epoch"),
    ],
)
def test_who_may_not_speak_for_an_id(txn: Transaction | None, producer: ProducerIdAndEpoch, error: ErrorCode) -> None:
    assert add(txn, AddToTransaction(producer=producer), NOW, has_batches=False).result.error is error
    for raises in (False, True):
        assert finish(txn, producer, raises=raises).result.error is error


def test_adding_begins_a_transaction_and_adds_to_it() -> None:
    first = add(EMPTY, AddToTransaction(producer=ME, partitions=frozenset({1})), NOW, has_batches=False).state
    assert first is not None
    assert (first.state, first.started_ms, first.partitions) == (S.ONGOING, NOW, frozenset({1}))
    second = add(first, AddToTransaction(producer=ME, groups=frozenset({"g"})), NOW + 9, has_batches=False).state
    assert second is not None
    assert (second.started_ms, second.partitions, second.groups) == (NOW, frozenset({1}), frozenset({"g"}))
    again = add(second, AddToTransaction(producer=ME, groups=frozenset({"g"})), NOW + 10, has_batches=False)
    assert (again.result.error, again.state) == (E.NONE, None)


@pytest.mark.parametrize("passed_ms", [0, 1, -1, -500])
def test_a_transaction_begins_after_the_one_before_it(passed_ms: int) -> None:
    """By that they are told apart, as the epoch stays the same in version 1."""
    txn, begins = EMPTY, list[int]()
    for number in range(10):
        now_ms = NOW + (number * passed_ms if passed_ms >= 0 else passed_ms * (number > 0))
        begun = add(txn, AddToTransaction(producer=ME, groups=frozenset({"g"})), now_ms, has_batches=False).state
        assert begun is not None
        begins.append(begun.started_ms)
        ended = end(
            begun,
            EndTransaction(producer=ME, commit=True, raises_epoch=False),
            now_ms,
            has_batches=False,
            fresh_id=None,
        )
        assert ended.state is not None
        txn = ended.state
    assert begins == sorted(set(begins))


def test_a_clock_that_was_set_back_is_believed() -> None:
    txn = replace(EMPTY, updated_ms=NOW)
    begun = add(txn, AddToTransaction(producer=ME), NOW - 3_600_000, has_batches=False).state
    assert begun is not None
    assert begun.started_ms == NOW - 3_600_000


@pytest.mark.parametrize("commit", [True, False])
@pytest.mark.parametrize(("txn", "has_batches"), [(ONGOING, False), (ONGOING, True), (EMPTY, True)])
def test_both_generations_end_a_transaction(txn: Transaction, has_batches: bool, commit: bool) -> None:
    for raises in (False, True):
        decision = finish(txn, commit=commit, raises=raises, has_batches=has_batches)
        after = ProducerIdAndEpoch(7, 4) if raises else ME
        assert decision.result.producer == after
        assert decision.ending == EndMarkers(after, commit)
        assert decision.state is not None
        assert decision.state.state is (S.COMPLETE_COMMIT if commit else S.COMPLETE_ABORT)
        assert decision.state.last_epoch == (3 if raises else NO_EPOCH)
        assert (decision.state.partitions, decision.state.groups) == (frozenset(), frozenset())


@pytest.mark.parametrize(
    ("txn", "commit", "raises", "error"),
    [
        pytest.param(EMPTY, True, False, E.INVALID_TXN_STATE, id="v1: commit of nothing"),
        pytest.param(EMPTY, False, False, E.INVALID_TXN_STATE, id="v1: abort of nothing"),
        pytest.param(COMMITTED, True, False, E.NONE, id="v1: commit again"),
        pytest.param(COMMITTED, False, False, E.INVALID_TXN_STATE, id="v1: abort after commit"),
        pytest.param(ABORTED, False, False, E.NONE, id="v1: abort again"),
        pytest.param(ABORTED, True, False, E.INVALID_TXN_STATE, id="v1: commit after abort"),
        pytest.param(EMPTY, True, True, E.INVALID_TXN_STATE, id="v2: commit of nothing"),
        pytest.param(COMMITTED, True, True, E.INVALID_TXN_STATE, id="v2: commit of nothing after a commit"),
    ],
)
def test_ends_of_nothing(txn: Transaction, commit: bool, raises: bool, error: ErrorCode) -> None:
    decision = finish(txn, commit=commit, raises=raises)
    assert decision.result.error is error
    assert (decision.state, decision.ending) == (None, None)


@pytest.mark.parametrize("txn", [EMPTY, COMMITTED, ABORTED])
def test_version_2_may_abort_to_be_sure(txn: Transaction) -> None:
    decision = finish(txn, commit=False)
    assert decision.result.producer == ProducerIdAndEpoch(7, 4)
    assert decision.ending is None
    assert decision.state is not None
    assert decision.state.last_epoch == 3


def test_version_2_repeats_an_end() -> None:
    again = finish(RAISED)
    assert (again.result.error, again.result.producer, again.state) == (E.NONE, ProducerIdAndEpoch(7, 4), None)
    assert finish(RAISED, commit=False).result.error is E.INVALID_TXN_STATE
    # The next transaction has begun, or somebody else has the id: whoever asks is a zombie.
    assert finish(RAISED, has_batches=True).result.error is E.PRODUCER_FENCED
    assert finish(replace(RAISED, state=S.EMPTY)).result.error is E.PRODUCER_FENCED


def test_the_last_epoch_leads_to_another_producer_id() -> None:
    last = ProducerIdAndEpoch(7, EPOCH_EXHAUSTED)
    decision = finish(replace(ONGOING, epoch=EPOCH_EXHAUSTED), last)
    assert decision.result.producer == ProducerIdAndEpoch(99, 0)
    assert decision.ending == EndMarkers(ProducerIdAndEpoch(7, EPOCH_EXHAUSTED + 1), commit=True)
    assert decision.state is not None
    again = finish(decision.state, last)
    assert (again.result.error, again.result.producer) == (E.NONE, ProducerIdAndEpoch(99, 0))
    assert finish(decision.state, last, commit=False).result.error is E.INVALID_TXN_STATE
    # The next transaction has begun, by a producer of another id.
    assert finish(decision.state, last, has_batches=True).result.error is E.INVALID_PRODUCER_ID_MAPPING


def test_a_transaction_times_out() -> None:
    early = time_out(ONGOING, 60_004, has_batches=True, began_ms=5)
    assert (early.state, early.ending) == (None, None)
    late = time_out(ONGOING, 60_005, has_batches=True, began_ms=5)
    assert late.ending == EndMarkers(ProducerIdAndEpoch(7, 4), commit=False)
    assert late.state is not None
    assert late.state.epoch == 4
    assert time_out(EMPTY, NOW, has_batches=False, began_ms=0).state is None


def test_a_producer_whose_time_was_up_may_abort_and_go_on() -> None:
    late = time_out(ONGOING, NOW, has_batches=True, began_ms=5).state
    assert late is not None
    aborted = finish(late, commit=False)
    assert (aborted.result.error, aborted.result.producer, aborted.state) == (E.NONE, ProducerIdAndEpoch(7, 4), None)
    assert finish(late, commit=True).result.error is E.INVALID_TXN_STATE
    assert start(late, ME).result.producer == ProducerIdAndEpoch(7, 4)
    assert start(late).result.producer == ProducerIdAndEpoch(7, 5)
    # Version 1 knows no way on but by a new epoch.
    for commit in (True, False):
        assert finish(late, commit=commit, raises=False).result.error is E.PRODUCER_FENCED


def test_a_producer_whose_time_was_up_in_its_last_epoch_gets_another_id() -> None:
    worn, last = replace(ONGOING, epoch=EPOCH_EXHAUSTED), ProducerIdAndEpoch(7, EPOCH_EXHAUSTED)
    assert abort(worn, NOW, has_batches=True, fresh_id=None).needs_producer_id
    late = abort(worn, NOW, has_batches=True)
    assert late.ending == EndMarkers(ProducerIdAndEpoch(7, EPOCH_EXHAUSTED + 1), commit=False)
    state = late.state
    assert state is not None
    assert (state.producer_id, state.epoch, state.state) == (99, 0, S.COMPLETE_ABORT)
    assert finish(state, last, commit=True).result.error is E.INVALID_TXN_STATE
    assert finish(state, last, commit=False, raises=False).result.error is E.INVALID_PRODUCER_ID_MAPPING
    assert start(state, last).result.producer == ProducerIdAndEpoch(99, 0)
    assert start(state).result.producer == ProducerIdAndEpoch(99, 1)
    for _ in range(2):
        aborted = finish(state, last, commit=False, fresh_id=100)
        assert (aborted.result.producer, aborted.ending, aborted.state) == (ProducerIdAndEpoch(99, 0), None, None)


@pytest.mark.parametrize("expected", [None, ProducerIdAndEpoch(7, EPOCH_EXHAUSTED)])
def test_a_producer_that_was_replaced_is_fenced_while_its_successor_does_nothing(
    expected: ProducerIdAndEpoch | None,
) -> None:
    """Kafka still knows it then, but only where transactions of version 2 are ended."""
    last, state = ProducerIdAndEpoch(7, EPOCH_EXHAUSTED), start(WORN, expected).state
    assert state is not None
    for commit in (True, False):
        assert finish(state, last, commit=commit).result.error is E.PRODUCER_FENCED
        assert finish(state, last, commit=commit, raises=False).result.error is E.INVALID_PRODUCER_ID_MAPPING
        for other in (
            ProducerIdAndEpoch(7, EPOCH_EXHAUSTED - 1),
            ProducerIdAndEpoch(7, EPOCH_MAX),
            ProducerIdAndEpoch(6, EPOCH_EXHAUSTED),
        ):
            assert finish(state, other, commit=commit).result.error is E.INVALID_PRODUCER_ID_MAPPING
        for later in (replace(state, state=S.ONGOING), replace(state, epoch=1)):
            assert finish(later, last, commit=commit).result.error is E.INVALID_PRODUCER_ID_MAPPING
        assert finish(state, last, commit=commit, has_batches=True).result.error is E.INVALID_PRODUCER_ID_MAPPING
    assert (
        add(state, AddToTransaction(producer=last), NOW, has_batches=False).result.error
        is E.INVALID_PRODUCER_ID_MAPPING
    )


def test_who_leaves_a_transaction_in_its_last_epoch_to_the_next_is_replaced_before_that_begins() -> None:
    worn = replace(ONGOING, epoch=EPOCH_EXHAUSTED)
    assert start(worn, fresh_id=None).needs_producer_id
    decision = start(worn)
    assert decision.ending == EndMarkers(ProducerIdAndEpoch(7, EPOCH_EXHAUSTED + 1), commit=False)
    assert decision.result.producer == ProducerIdAndEpoch(99, 1)
    assert decision.state is not None
    assert start(decision.state, ProducerIdAndEpoch(7, EPOCH_EXHAUSTED)).result.error is E.PRODUCER_FENCED
    last = finish(decision.state, ProducerIdAndEpoch(7, EPOCH_EXHAUSTED))
    assert last.result.error is E.INVALID_PRODUCER_ID_MAPPING


def test_a_producer_that_asks_for_its_id_again_aborts_what_it_has_open() -> None:
    first = start(ONGOING, ME)
    assert first.ending == EndMarkers(ProducerIdAndEpoch(7, 4), commit=False)
    assert first.result.producer == ProducerIdAndEpoch(7, 4)
    assert first.state is not None
    again = start(first.state, ME)
    assert (again.ending, again.result.producer) == (None, ProducerIdAndEpoch(7, 4))
    # With its last epoch it gets another producer id; the marker has the epoch that is kept for that.
    worn = start(replace(ONGOING, epoch=EPOCH_EXHAUSTED), ProducerIdAndEpoch(7, EPOCH_EXHAUSTED))
    assert worn.ending == EndMarkers(ProducerIdAndEpoch(7, EPOCH_EXHAUSTED + 1), commit=False)
    assert worn.result.producer == ProducerIdAndEpoch(99, 0)
    assert worn.state is not None
    assert start(worn.state, ProducerIdAndEpoch(7, EPOCH_EXHAUSTED)).result.producer == ProducerIdAndEpoch(99, 0)


def test_a_transaction_that_nobody_can_end_is_aborted_at_once() -> None:
    at_once = abort(ONGOING, 5, has_batches=True)
    assert at_once.ending == EndMarkers(ProducerIdAndEpoch(7, 4), commit=False)
    assert at_once == time_out(ONGOING, 5, has_batches=True, began_ms=5 - ONGOING.timeout_ms)
    assert abort(EMPTY, NOW, has_batches=False).state is None
    assert abort(None, NOW, has_batches=False).state is None


def test_ids_expire_unless_they_are_used() -> None:
    assert may_expire(COMMITTED, 1_000, 1_000, has_batches=False)
    assert not may_expire(COMMITTED, 999, 1_000, has_batches=False)
    assert not may_expire(ONGOING, 9_999, 1_000, has_batches=False)
    assert not may_expire(COMMITTED, 9_999, 1_000, has_batches=True)
