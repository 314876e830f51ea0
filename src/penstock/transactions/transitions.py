"""The rules of the transaction coordinator (KIP-98, KIP-360, KIP-890).

Pure: no await, no clock, no I/O. A rule gets the state of a transactional id, or None if there is none, and whether
its producer has open batches in some partition; it says what to store, which transaction to end, and the answer.

Where Kafka first decides to end a transaction, then has markers written, and tells others to wait meanwhile, here all
of it is one change. So there is no state of preparing, and a new producer does not have to ask twice to abort what
the old one left.
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
    Add,
    Decision,
    End,
    Ending,
    Init,
    Producer,
    Result,
    Transaction,
    TransactionState,
)
from penstock.wire.error_codes import ErrorCode

SAME_CLOCK_MS = 1000
"""How far transactions that follow each other within a millisecond may be ahead of the clock."""
_COMPLETE = {True: TransactionState.COMPLETE_COMMIT, False: TransactionState.COMPLETE_ABORT}


def refused(error: ErrorCode) -> Decision:
    """Change nothing."""
    return Decision(result=Result(error=error))


def init(
    txn: Transaction | None, key: Key, request: Init, now_ms: int, *, has_batches: bool, fresh_id: int | None
) -> Decision:
    """Give the id to a new producer, or a new epoch to the one that has it. What the old one left open is aborted."""
    if txn is None:
        if fresh_id is None:
            return Decision(result=Result(), needs_producer_id=True)
        txn = Transaction(
            key=key, producer_id=fresh_id, epoch=0, timeout_ms=request.timeout_ms, updated_ms=now_ms
        )  # fmt: skip
        return _given(txn)
    expected = request.expected
    if expected is not None and not _may_be(txn, expected):
        return refused(ErrorCode.PRODUCER_FENCED)
    ending = None
    if is_ongoing(txn, has_batches=has_batches):
        if expected is not None and expected.epoch != txn.epoch:
            return refused(ErrorCode.PRODUCER_FENCED)
        fence = Producer(txn.producer_id, txn.epoch + 1)
        ending = Ending(fence, commit=False)
        txn = _fenced(txn, now_ms)
    known_epoch = NO_EPOCH if expected is None else expected.epoch
    txn = replace(txn, timeout_ms=request.timeout_ms, updated_ms=now_ms, state=TransactionState.EMPTY)
    if txn.epoch >= EPOCH_EXHAUSTED and (expected is None or expected.epoch == EPOCH_EXHAUSTED):
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
    return replace(_given(txn), ending=ending)


def _may_be(txn: Transaction, claimed: Producer) -> bool:
    """Whether whoever claims to be this producer may own the id."""
    if claimed.producer_id == txn.producer_id:
        return True
    return claimed.producer_id == txn.last_producer_id and claimed.epoch >= EPOCH_EXHAUSTED


def _given(txn: Transaction) -> Decision:
    return Decision(result=Result(producer=Producer(txn.producer_id, txn.epoch)), state=txn)


def is_ongoing(txn: Transaction, *, has_batches: bool) -> bool:
    """Whether there is a transaction to end."""
    return has_batches or txn.state is TransactionState.ONGOING


def owner_error(txn: Transaction | None, producer: Producer) -> ErrorCode:
    """Why a producer may not speak for a transactional id, or NONE."""
    if txn is None or txn.producer_id != producer.producer_id:
        return ErrorCode.INVALID_PRODUCER_ID_MAPPING
    # The last epoch is nobody's: it can only fence, since there is none to fence it with.
    is_owner = txn.epoch == producer.epoch and producer.epoch != EPOCH_MAX
    return ErrorCode.NONE if is_owner else ErrorCode.PRODUCER_FENCED


def add(txn: Transaction | None, request: Add, now_ms: int, *, has_batches: bool) -> Decision:
    """Make partitions and groups part of the transaction, which begins if it has not."""
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
    """When a transaction begins: later than the one before it, for by that they are told apart while the epoch stays.

    A clock that was set back is believed, though, as the transaction would not time out for as long.
    """
    following_ms = txn.updated_ms + 1
    return following_ms if now_ms < following_ms <= now_ms + SAME_CLOCK_MS else now_ms


def end(txn: Transaction | None, request: End, now_ms: int, *, has_batches: bool, fresh_id: int | None) -> Decision:
    """Commit or abort. Producers of transaction version 2 go on with the next epoch, or the next producer id."""
    if txn is not None and request.raises_epoch and _is_repetition(txn, request.producer):
        same = txn.state is _COMPLETE[request.commit] and not has_batches
        if same and txn.epoch > EPOCH_EXHAUSTED:
            return _replaced(txn, fresh_id)
        return _told(txn) if same else refused(_of_repetition(txn, request.producer, has_batches=has_batches))
    error = owner_error(txn, request.producer)
    if txn is None or error is not ErrorCode.NONE:
        return refused(error)
    if not is_ongoing(txn, has_batches=has_batches):
        return _end_nothing(txn, request, now_ms, fresh_id=fresh_id)
    if not request.raises_epoch:
        ending = Ending(request.producer, request.commit)
        # What a producer knew before it has its epoch does not matter any more once it has used that.
        state = replace(_ended(txn, commit=request.commit, now_ms=now_ms), last_epoch=NO_EPOCH)
        return Decision(result=Result(producer=request.producer), state=state, ending=ending)
    return _end_and_raise(txn, request, now_ms, fresh_id=fresh_id, ends=True)


def _is_repetition(txn: Transaction, producer: Producer) -> bool:
    """Whether a producer names itself as it was before the last transaction ended."""
    if producer.epoch != txn.last_epoch:
        return False
    return producer.producer_id in (txn.producer_id, txn.last_producer_id) and producer != Producer(
        txn.producer_id, txn.epoch
    )


def _of_repetition(txn: Transaction, producer: Producer, *, has_batches: bool) -> ErrorCode:
    """The producer went on without this request's sender, a zombie. Else that wants the other result: too late."""
    if not is_ongoing(txn, has_batches=has_batches) and txn.state is not TransactionState.EMPTY:
        return ErrorCode.INVALID_TXN_STATE
    return owner_error(txn, producer)


def _replaced(txn: Transaction, fresh_id: int | None) -> Decision:
    """The producer of a transaction that was aborted without its request, after its last epoch: it gets another id."""
    if fresh_id is None:
        return Decision(result=Result(), needs_producer_id=True)
    state = replace(txn, producer_id=fresh_id, epoch=0, last_producer_id=txn.producer_id)
    return replace(_told(state), state=state)


def _told(txn: Transaction) -> Decision:
    return Decision(result=Result(producer=Producer(txn.producer_id, txn.epoch)))


def _end_nothing(txn: Transaction, request: End, now_ms: int, *, fresh_id: int | None) -> Decision:
    """There is no transaction. Version 1 may repeat how the last one ended; version 2 may abort, to be sure."""
    if not request.raises_epoch:
        same = txn.state is _COMPLETE[request.commit]
        return _told(txn) if same else refused(ErrorCode.INVALID_TXN_STATE)
    if request.commit:
        return refused(ErrorCode.INVALID_TXN_STATE)
    return _end_and_raise(txn, request, now_ms, fresh_id=fresh_id, ends=False)


def _end_and_raise(txn: Transaction, request: End, now_ms: int, *, fresh_id: int | None, ends: bool) -> Decision:
    raised = following = Producer(txn.producer_id, txn.epoch + 1)
    before = NO_PRODUCER_ID
    if raised.epoch > EPOCH_EXHAUSTED:
        if fresh_id is None:
            return Decision(result=Result(), needs_producer_id=True)
        following, before = Producer(fresh_id, 0), txn.producer_id
    # Not by `replace`: every transaction of version 2 comes along here.
    state = Transaction(
        key=txn.key, producer_id=following.producer_id, epoch=following.epoch, last_producer_id=before,
        last_epoch=txn.epoch, timeout_ms=txn.timeout_ms, state=_COMPLETE[request.commit], updated_ms=now_ms,
    )  # fmt: skip
    result = Result(producer=following)
    return Decision(result=result, state=state, ending=Ending(raised, request.commit) if ends else None)


def _ended(txn: Transaction, *, commit: bool, now_ms: int) -> Transaction:
    return replace(
        txn, state=_COMPLETE[commit], partitions=frozenset(), groups=frozenset(), started_ms=NEVER_MS,
        updated_ms=max(now_ms, txn.started_ms),
    )  # fmt: skip


def time_out(txn: Transaction | None, now_ms: int, *, has_batches: bool, began_ms: int) -> Decision:
    """Abort a transaction that takes too long, and fence its producer."""
    if txn is not None and now_ms - began_ms < txn.timeout_ms:
        return refused(ErrorCode.NONE)
    return abort(txn, now_ms, has_batches=has_batches)


def abort(txn: Transaction | None, now_ms: int, *, has_batches: bool) -> Decision:
    """Abort a transaction however long it has run, and fence its producer."""
    if txn is None or not is_ongoing(txn, has_batches=has_batches):
        return refused(ErrorCode.NONE)
    fence = Producer(txn.producer_id, txn.epoch + 1)
    return Decision(result=Result(), state=_fenced(txn, now_ms), ending=Ending(fence, commit=False))


def _fenced(txn: Transaction, now_ms: int) -> Transaction:
    """The id after an abort that its producer has not asked for.

    It may go on with the next epoch, as after an abort of version 2, and is told that one when it aborts or asks for
    its id; or with another producer id, if the next epoch is the last one, which is nobody's.
    """
    return replace(_ended(txn, commit=False, now_ms=now_ms), epoch=txn.epoch + 1, last_epoch=txn.epoch)


def keep_open(txn: Transaction, now_ms: int, *, began_ms: int) -> Decision:
    """Remember that there is a transaction, which until now only its partitions' logs said."""
    if txn.state is TransactionState.ONGOING:
        return refused(ErrorCode.NONE)
    state = replace(txn, state=TransactionState.ONGOING, started_ms=began_ms, updated_ms=now_ms)
    return Decision(result=Result(), state=state)


def may_expire(txn: Transaction, now_ms: int, retention_ms: int, *, has_batches: bool) -> bool:
    """Whether an id has not been used for so long that it is forgotten."""
    return not is_ongoing(txn, has_batches=has_batches) and now_ms - txn.updated_ms >= retention_ms
