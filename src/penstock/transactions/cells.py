"""The in-memory state of a transactional id, and the rules as applied to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from penstock.base.dataclasses import dataclass, field
from penstock.log.model import Partition
from penstock.log.registry import Registry
from penstock.transactions import transitions
from penstock.transactions.model import NEVER_MS, Decision, EndTransaction, Transaction, TransactionState
from penstock.wire.error_codes import ErrorCode

Decide = Callable[["Cell | None", int, "int | None"], Decision]
"""A rule: what it decides on a cell at a time, with a new producer id if one was needed."""


@dataclass(slots=True)
class Cell:
    """One transactional id: its stored state, and what its producer has written in the current transaction."""

    txn: Transaction
    open: dict[Partition, None]
    """Partitions with open batches of its producer, by their logs."""
    pending: dict[str, int] = field(default_factory=dict)
    """Groups that may have pending offsets of it, and since when."""
    changing: list[asyncio.Future[None]] | None = None
    """Callbacks for the end of the flush in flight that changes the id; None if there is none."""

    @property
    def has_writes(self) -> bool:
        """Whether its producer has written anything since the last transaction ended."""
        return bool(self.open or self.pending)

    @property
    def is_ongoing(self) -> bool:
        """Whether there is a transaction to end."""
        return transitions.is_ongoing(self.txn, has_batches=self.has_writes)

    @property
    def state(self) -> TransactionState:
        """The state of the id, including what its producer has written."""
        return TransactionState.ONGOING if self.has_writes else self.txn.state

    def partitions(self, registry: Registry) -> list[Partition]:
        """The partitions that were added to the ongoing transaction or that it has written to."""
        if not self.txn.partitions:
            return list(self.open)
        added = (registry.partition(partition_id) for partition_id in sorted(self.txn.partitions))
        return list(dict.fromkeys((*self.open, *(partition for partition in added if partition is not None))))

    @property
    def began_ms(self) -> int:
        """When the ongoing transaction began; -1 if there is none."""
        producer_id = self.txn.producer_id
        found = (partition.transactions.get(producer_id) for partition in self.open)
        times = [one.started_ms for one in found if one is not None]
        times += self.pending.values()
        if self.txn.started_ms != NEVER_MS:
            times.append(self.txn.started_ms)
        return min(times, default=NEVER_MS)


# ---- rules, applied to a cell ------------------------------------------------------------------------------------


def ending(request: EndTransaction) -> Decide:
    """The rule of an EndTxn."""

    def decide(cell: Cell | None, now_ms: int, fresh_id: int | None) -> Decision:
        txn, has_batches = (None, False) if cell is None else (cell.txn, cell.has_writes)
        return transitions.end(txn, request, now_ms, has_batches=has_batches, fresh_id=fresh_id)

    return decide


def time_out(cell: Cell | None, now_ms: int, fresh_id: int | None) -> Decision:
    """Abort a transaction if its time is up."""
    began_ms = NEVER_MS if cell is None else cell.began_ms
    if cell is None or began_ms == NEVER_MS:
        return transitions.refused(ErrorCode.NONE)
    return transitions.time_out(
        cell.txn, now_ms, has_batches=cell.has_writes, began_ms=began_ms, fresh_id=fresh_id
    )  # fmt: skip


def abort(cell: Cell | None, now_ms: int, fresh_id: int | None) -> Decision:
    """Abort a transaction, if there is one."""
    if cell is None:
        return transitions.refused(ErrorCode.NONE)
    return transitions.abort(cell.txn, now_ms, has_batches=cell.has_writes, fresh_id=fresh_id)


def keep_open(cell: Cell | None, now_ms: int, _: int | None) -> Decision:
    """Store a transaction that only its partitions' logs show."""
    if cell is None or not cell.open:
        return transitions.refused(ErrorCode.NONE)
    return transitions.keep_open(cell.txn, now_ms, began_ms=cell.began_ms)
