"""The rules of the transaction coordinator (KIP-98, KIP-360, KIP-890).

Pure: no await, no clock, no I/O. A rule gets the state of a transactional id, or None if there is none, and whether its
producer has open batches in some partition; it returns what to store, which transaction to end, and the response.

Kafka first decides to end a transaction (PrepareCommit), then has markers written, and answers CONCURRENT_TRANSACTIONS
meanwhile; here all of it is one atomic change. So there is no prepared state, and a new producer does not have to retry
until the transaction of the old one is aborted.
"""

from __future__ import annotations

from dataclasses import replace

from penstock.coordination.model import Key
from penstock.transactions.model import (
    EPOCH_EXHAUSTED,
    EPOCH_MAX,
    NEVER_MS,
    NO_EPOCH,
    NO_PRODUCER_ID,
    AddToTransaction,
    Decision,
    EndMarkers,
    EndTransaction,
    InitProducerId,
    ProducerIdAndEpoch,
    Result,
    Transaction,
    TransactionState,
)
from penstock.wire.error_codes import ErrorCode

SAME_CLOCK_MS = 1000
"""How far start times of consecutive transactions within a millisecond may be ahead of the clock."""
_COMPLETE = {True: TransactionState.COMPLETE_COMMIT, False: TransactionState.COMPLETE_ABORT}


def refused(error: ErrorCode) -> Decision:
    """An error; nothing changes."""
    return Decision(result=Result(error=error))


def init(
    txn: Transaction | None, key: Key, request: InitProducerId, now_ms: int, *, has_batches: bool, fresh_id: int | None
) -> Decision:
    """Give the id to a new producer, or a new epoch to the current one. An open transaction of the old one is
    aborted."""
    if txn is None:
        if fresh_id is None:
            return Decision(result=Result(), needs_producer_id=True)
        txn = Transaction(
            key=key, producer_id=fresh_id, epoch=0, timeout_ms=request.timeout_ms, updated_ms=now_ms
        )  # fmt: skip
        return _assigned(txn)
    expected = request.expected
    if expected is not None and not _may_be_owner(txn, expected):
        return refused(ErrorCode.PRODUCER_FENCED)
    ending = None
    if is_ongoing(txn, has_batches=has_batches):
        if expected is not None and expected.epoch != txn.epoch:
            return refused(ErrorCode.PRODUCER_FENCED)
        if _is_worn(txn) and fresh_id is None:
            return Decision(result=Result(), needs_producer_id=True)
        ending, txn = _fence_of(txn), _fenced(txn, now_ms, fresh_id)
    known_epoch = NO_EPOCH if expected is None else expected.epoch
    txn = replace(txn, timeout_ms=request.timeout_ms, updated_ms=now_ms, state=TransactionState.EMPTY)
    if _is_worn(txn) and (expected is None or expected.epoch == EPOCH_EXHAUSTED):
        if fresh_id is None:
            return Decision(result=Result(), needs_producer_id=True)
        txn = replace(
            txn, producer_id=fresh_id, epoch=0, last_producer_id=txn.producer_id, last_epoch=known_epoch
        )  # fmt: skip
    elif expected is None or expected.epoch == txn.epoch:
        txn = replace(txn, epoch=txn.epoch + 1, last_epoch=known_epoch)
    elif expected.epoch != txn.last_epoch:
        return refused(ErrorCode.PRODUCER_FENCED)
    # Else this is a repetition, whose first answer was lost: the same again. Or the transaction was aborted, just now
    # or because it took too long, and that has raised the epoch.
    return replace(_assigned(txn), ending=ending)


def _may_be_owner(txn: Transaction, claimed: ProducerIdAndEpoch) -> bool:
    """Whether a producer may be the owner of the id."""
    if claimed.producer_id == txn.producer_id:
        return True
    return claimed.producer_id == txn.last_producer_id and claimed.epoch >= EPOCH_EXHAUSTED


def _assigned(txn: Transaction) -> Decision:
    return Decision(result=Result(producer=ProducerIdAndEpoch(txn.producer_id, txn.epoch)), state=txn)


def is_ongoing(txn: Transaction, *, has_batches: bool) -> bool:
    """Whether there is a transaction to end."""
    return has_batches or txn.state is TransactionState.ONGOING


def owner_error(txn: Transaction | None, producer: ProducerIdAndEpoch) -> ErrorCode:
    """Why a producer does not own a transactional id, or NONE."""
    if txn is None or txn.producer_id != producer.producer_id:
        return ErrorCode.INVALID_PRODUCER_ID_MAPPING
    # The last epoch belongs to nobody: it can only fence, as there is none to fence it with.
    is_owner = txn.epoch == producer.epoch and producer.epoch != EPOCH_MAX
    return ErrorCode.NONE if is_owner else ErrorCode.PRODUCER_FENCED


def add(txn: Transaction | None, request: AddToTransaction, now_ms: int, *, has_batches: bool) -> Decision:
    """Add partitions and groups to the transaction, which begins if it has not."""
    error = owner_error(txn, request.producer)
    if txn is None or error is not ErrorCode.NONE:
        return refused(error)
    is_known = request.partitions <= txn.partitions and request.groups <= txn.groups
    if is_known and txn.state is TransactionState.ONGOING:
        return refused(ErrorCode.NONE)
    begins = not is_ongoing(txn, has_batches=has_batches)
    began_ms = _next_start_ms(txn, now_ms) if begins or txn.started_ms == NEVER_MS else txn.started_ms
    state = replace(
        txn, state=TransactionState.ONGOING, partitions=txn.partitions | request.partitions,
        groups=txn.groups | request.groups, started_ms=began_ms, updated_ms=max(now_ms, began_ms),
    )  # fmt: skip
    return Decision(result=Result(), state=state)


def _next_start_ms(txn: Transaction, now_ms: int) -> int:
    """The start time of a transaction: later than that of the previous one, which distinguishes them within an epoch.

    But a clock that was set back is believed: otherwise the transaction would not time out for as long.
    """
    following_ms = txn.updated_ms + 1
    return following_ms if now_ms < following_ms <= now_ms + SAME_CLOCK_MS else now_ms


def end(
    txn: Transaction | None, request: EndTransaction, now_ms: int, *, has_batches: bool, fresh_id: int | None
) -> Decision:
    """Commit or abort. Producers of transaction version 2 continue with the next epoch, or the next producer id."""
    if txn is not None and request.raises_epoch and _is_repetition(txn, request.producer):
        same = txn.state is _COMPLETE[request.commit] and not has_batches
        return _repeated_answer(txn) if same else refused(_repetition_error(txn, request, has_batches=has_batches))
    error = owner_error(txn, request.producer)
    if txn is None:
        return refused(error)
    if error is not ErrorCode.NONE:
        return refused(_end_error(txn, request, error, has_batches=has_batches))
    if not is_ongoing(txn, has_batches=has_batches):
        return _end_without_transaction(txn, request, now_ms, fresh_id=fresh_id)
    if not request.raises_epoch:
        ending = EndMarkers(request.producer, request.commit)
        # Once a producer has used its epoch, the one before it does not matter any more.
        state = replace(_ended(txn, commit=request.commit, now_ms=now_ms), last_epoch=NO_EPOCH)
        return Decision(result=Result(producer=request.producer), state=state, ending=ending)
    return _end_with_next_epoch(txn, request, now_ms, fresh_id=fresh_id, ends=True)


def _is_repetition(txn: Transaction, producer: ProducerIdAndEpoch) -> bool:
    """Whether a producer sends the epoch from before the last transaction ended."""
    if producer.epoch != txn.last_epoch:
        return False
    return producer.producer_id in (txn.producer_id, txn.last_producer_id) and producer != ProducerIdAndEpoch(
        txn.producer_id, txn.epoch
    )


def _repetition_error(txn: Transaction, request: EndTransaction, *, has_batches: bool) -> ErrorCode:
    """Either the request is from a zombie, as the producer has continued; or it wants the other outcome: too late."""
    if not is_ongoing(txn, has_batches=has_batches) and txn.state is not TransactionState.EMPTY:
        return ErrorCode.INVALID_TXN_STATE
    return _end_error(txn, request, owner_error(txn, request.producer), has_batches=has_batches)


def _end_error(txn: Transaction, request: EndTransaction, error: ErrorCode, *, has_batches: bool) -> ErrorCode:
    """The error for who may not end a transaction. Kafka knows a replaced producer, in its last epoch, for as long as
    the one that replaced it does nothing; in version 2."""
    is_replaced = (
        request.raises_epoch
        and request.producer == ProducerIdAndEpoch(txn.last_producer_id, EPOCH_EXHAUSTED)
        and txn.epoch == 0
        and txn.state is TransactionState.EMPTY
        and not has_batches
    )
    return ErrorCode.PRODUCER_FENCED if is_replaced else error


def _repeated_answer(txn: Transaction) -> Decision:
    return Decision(result=Result(producer=ProducerIdAndEpoch(txn.producer_id, txn.epoch)))


def _end_without_transaction(
    txn: Transaction, request: EndTransaction, now_ms: int, *, fresh_id: int | None
) -> Decision:
    """There is no transaction. Version 1 may repeat the last outcome; version 2 may abort, to be sure."""
    if not request.raises_epoch:
        same = txn.state is _COMPLETE[request.commit]
        return _repeated_answer(txn) if same else refused(ErrorCode.INVALID_TXN_STATE)
    if request.commit:
        return refused(ErrorCode.INVALID_TXN_STATE)
    return _end_with_next_epoch(txn, request, now_ms, fresh_id=fresh_id, ends=False)


def _end_with_next_epoch(
    txn: Transaction, request: EndTransaction, now_ms: int, *, fresh_id: int | None, ends: bool
) -> Decision:
    raised = following = ProducerIdAndEpoch(txn.producer_id, txn.epoch + 1)
    before = NO_PRODUCER_ID
    if raised.epoch > EPOCH_EXHAUSTED:
        if fresh_id is None:
            return Decision(result=Result(), needs_producer_id=True)
        following, before = ProducerIdAndEpoch(fresh_id, 0), txn.producer_id
    # Without `replace`, which is slow: every transaction of version 2 comes through here.
    state = Transaction(
        key=txn.key, producer_id=following.producer_id, epoch=following.epoch, last_producer_id=before,
        last_epoch=txn.epoch, timeout_ms=txn.timeout_ms, state=_COMPLETE[request.commit], updated_ms=now_ms,
    )  # fmt: skip
    result = Result(producer=following)
    return Decision(result=result, state=state, ending=EndMarkers(raised, request.commit) if ends else None)


def _ended(txn: Transaction, *, commit: bool, now_ms: int) -> Transaction:
    return replace(
        txn, state=_COMPLETE[commit], partitions=frozenset(), groups=frozenset(), started_ms=NEVER_MS,
        updated_ms=max(now_ms, txn.started_ms),
    )  # fmt: skip


def time_out(
    txn: Transaction | None, now_ms: int, *, has_batches: bool, began_ms: int, fresh_id: int | None
) -> Decision:
    """Abort a timed-out transaction, and fence its producer."""
    if txn is not None and now_ms - began_ms < txn.timeout_ms:
        return refused(ErrorCode.NONE)
    return abort(txn, now_ms, has_batches=has_batches, fresh_id=fresh_id)


def abort(txn: Transaction | None, now_ms: int, *, has_batches: bool, fresh_id: int | None) -> Decision:
    """Abort a transaction however long it has run, and fence its producer."""
    if txn is None or not is_ongoing(txn, has_batches=has_batches):
        return refused(ErrorCode.NONE)
    if _is_worn(txn) and fresh_id is None:
        return Decision(result=Result(), needs_producer_id=True)
    return Decision(result=Result(), state=_fenced(txn, now_ms, fresh_id), ending=_fence_of(txn))


def _is_worn(txn: Transaction) -> bool:
    """Whether the producer id has no more epochs to give to a producer."""
    return txn.epoch >= EPOCH_EXHAUSTED


def _fence_of(txn: Transaction) -> EndMarkers:
    """The markers of an abort that its producer did not request: they fence it."""
    return EndMarkers(ProducerIdAndEpoch(txn.producer_id, txn.epoch + 1), commit=False)


def _fenced(txn: Transaction, now_ms: int, fresh_id: int | None) -> Transaction:
    """The id after an abort that its producer did not request.

    The producer may continue with the next epoch, as after an abort in version 2, and gets that epoch when it aborts or
    initializes again; or with another producer id, after its last epoch.
    """
    ended = _ended(txn, commit=False, now_ms=now_ms)
    if not _is_worn(txn):
        return replace(ended, epoch=txn.epoch + 1, last_epoch=txn.epoch)
    assert fresh_id is not None
    return replace(
        ended, producer_id=fresh_id, epoch=0, last_producer_id=txn.producer_id, last_epoch=txn.epoch
    )  # fmt: skip


def keep_open(txn: Transaction, now_ms: int, *, began_ms: int) -> Decision:
    """Store that there is a transaction, which so far only its partitions' logs show."""
    if txn.state is TransactionState.ONGOING:
        return refused(ErrorCode.NONE)
    state = replace(txn, state=TransactionState.ONGOING, started_ms=began_ms, updated_ms=now_ms)
    return Decision(result=Result(), state=state)


def may_expire(txn: Transaction, now_ms: int, retention_ms: int, *, has_batches: bool) -> bool:
    """Whether an id was unused for so long that it expires."""
    return not is_ongoing(txn, has_batches=has_batches) and now_ms - txn.updated_ms >= retention_ms
