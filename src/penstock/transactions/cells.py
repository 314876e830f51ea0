"""What a coordinator has in memory of one transactional id."""

from __future__ import annotations

import asyncio

from penstock.base.dataclasses import dataclass, field
from penstock.log.model import Partition
from penstock.transactions import transitions
from penstock.transactions.model import NEVER_MS, Transaction, TransactionState


@dataclass(slots=True)
class Cell:
    """One transactional id: what is stored of it, and what its producer has written."""

    txn: Transaction
    open: dict[Partition, None]
    """Partitions with batches of its transaction, as their logs say."""
    pending: dict[str, int] = field(default_factory=dict)
    """Groups that may have offsets of it, and since when."""
    moving: asyncio.Future[None] | None = None
    """Done when a flush has ended that changes the id; None if there is none."""

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
        """Where the id is, what its producer has written included."""
        return TransactionState.ONGOING if self.has_writes else self.txn.state

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
