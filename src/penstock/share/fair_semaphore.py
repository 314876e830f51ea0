"""Fair turns for writing dead letters: a few batches at a time, fewer for one virtual cluster, round robin among
clusters. So a cluster that gives up many records does not delay the dead letters of others."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class FairSemaphore:
    """Who is running, and who waits."""

    def __init__(self, at_once: int, of_cluster: int) -> None:
        self._available, self._of_cluster = at_once, of_cluster
        self._held = Counter[int]()
        self._waiters: dict[int, deque[asyncio.Future[None]]] = {}
        """Waiters by cluster, the next cluster first."""

    @asynccontextmanager
    async def acquire(self, cluster_id: int) -> AsyncIterator[None]:
        """Wait for a turn, and hold it in the block."""
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(cluster_id, deque()).append(granted)
        self._grant()
        try:
            await granted
        except asyncio.CancelledError:
            if not granted.cancelled():  # The turn came at the same moment.
                self._release(cluster_id)
            raise
        try:
            yield
        finally:
            self._release(cluster_id)

    def _release(self, cluster_id: int) -> None:
        self._available += 1
        self._held[cluster_id] -= 1
        if not self._held[cluster_id]:
            del self._held[cluster_id]
        self._grant()

    def _grant(self) -> None:
        while self._available:
            cluster_id = next((one for one in self._waiters if self._held[one] < self._of_cluster), None)
            if cluster_id is None:
                return
            waiters = self._waiters.pop(cluster_id)
            granted = waiters.popleft()
            if waiters:
                self._waiters[cluster_id] = waiters  # To the end of the round.
            if not granted.done():
                granted.set_result(None)
                self._available -= 1
                self._held[cluster_id] += 1
