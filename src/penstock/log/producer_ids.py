"""Producer ids: unique for ever, and reserved durably in blocks, so that most of them need no transaction.

The rest of a block is lost when the process ends; there are 2^63 ids.
"""

from __future__ import annotations

import asyncio

from penstock.base.errors import OutcomeUnknown
from penstock.log import topic_store
from penstock.metadata.database import LockingTransactionRunner

BLOCK = 1_000


class ProducerIds:
    """Hands out producer ids from this agent's block, and reserves another block when it is used up."""

    def __init__(self, database: LockingTransactionRunner, block: int = BLOCK) -> None:
        self._database = database
        self._block = block
        self._next = 0
        self._end = 0
        self._lock = asyncio.Lock()

    async def take(self) -> int:
        """A producer id that was never used before."""
        async with self._lock:
            if self._next == self._end:
                self._next = await self._reserve()
                self._end = self._next + self._block
            self._next += 1
            return self._next - 1

    async def _reserve(self) -> int:
        try:
            return await self._database.transaction(lambda: topic_store.take_producer_ids(self._block))
        except OutcomeUnknown:
            # After a lost answer the block may be reserved; it is skipped then, and another one is as good.
            return await self._database.transaction(lambda: topic_store.take_producer_ids(self._block))
