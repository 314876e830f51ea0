"""Fair turns for writing letters: a few batches at a time, fewer for one virtual cluster, round robin among clusters.
So a cluster that gives up many records does not delay the letters of others."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Turns:
    """Who is running, and who waits."""

    def __init__(self, at_once: int, of_cluster: int) -> None:
        self._left, self._of_cluster = at_once, of_cluster
        self._held = Counter[int]()
        self._lines: dict[int, deque[asyncio.Future[None]]] = {}
        """Waiters by cluster, the next cluster first."""

    @asynccontextmanager
    async def turn(self, cluster_id: int) -> AsyncIterator[None]:
        """Wait for a turn, and hold it in the block."""
        come: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lines.setdefault(cluster_id, deque()).append(come)
        self._serve()
        try:
            await come
        except asyncio.CancelledError:
            if not come.cancelled():  # The turn came at the same moment.
                self._give_back(cluster_id)
            raise
        try:
            yield
        finally:
            self._give_back(cluster_id)

    def _give_back(self, cluster_id: int) -> None:
        self._left += 1
        self._held[cluster_id] -= 1
        if not self._held[cluster_id]:
            del self._held[cluster_id]
        self._serve()

    def _serve(self) -> None:
        while self._left:
            cluster_id = next((one for one in self._lines if self._held[one] < self._of_cluster), None)
            if cluster_id is None:
                return
            line = self._lines.pop(cluster_id)
            come = line.popleft()
            if line:
                self._lines[cluster_id] = line  # To the end of the round.
            if not come.done():
                come.set_result(None)
                self._left -= 1
                self._held[cluster_id] += 1
