"""The in-memory state of a transactional id."""

from __future__ import annotations

import asyncio

from penstock.base.dataclasses import dataclass, field
from penstock.log.model import Partition
from penstock.log.registry import Registry
from penstock.transactions import transitions
from penstock.transactions.model import NEVER_MS, Transaction, TransactionState


@dataclass(slots=True)
class Cell:
    """One transactional id: its stored state, and what its producer has written in the current transaction."""

    txn: Transaction
    open: dict[Partition, None]
    """Partitions with open batches of its producer, by their logs."""
    pending: dict[str, int] = field(default_factory=dict)
    """Groups that may have pending offsets of it, and since when."""
    moving: list[asyncio.Future[None]] | None = None
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
