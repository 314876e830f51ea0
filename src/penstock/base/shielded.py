"""Changes that are completed even if their caller is cancelled.

A connection that closes cancels its request. A change must not stop between making something durable and applying it to
the state in memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class ShieldedTasks:
    """The changes of one service that are in flight."""

    def __init__(self) -> None:
        self._running: set[asyncio.Future[Any]] = set()

    async def run(self, work: Coroutine[object, object, T]) -> T:
        """Run a change; returns its result. Cancelling the caller does not stop it."""
        task = asyncio.ensure_future(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Wait for changes in flight, whose callers may be gone."""
        await asyncio.gather(*self._running, return_exceptions=True)

    async def abandon(self) -> None:
        """Cancel changes in flight: the process ends, and the state in memory with it."""
        for task in self._running:
            task.cancel()
        await self.close()
