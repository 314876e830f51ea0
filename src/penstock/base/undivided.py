"""Changes that are completed although whoever asked for them has gone.

A connection that closes cancels its request. That must not separate what a change has made durable from what it does to
the state in memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Undivided:
    """The changes of one service that are under way."""

    def __init__(self) -> None:
        self._running: set[asyncio.Future[Any]] = set()

    async def run(self, work: Coroutine[object, object, T]) -> T:
        """Make a change; return its outcome. Cancelling the caller does not stop the change."""
        task = asyncio.ensure_future(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Wait for the changes that are under way; their callers may be gone."""
        await asyncio.gather(*self._running, return_exceptions=True)

    async def abandon(self) -> None:
        """Stop them: the process ends, and the state in memory with it."""
        for task in self._running:
            task.cancel()
        await self.close()
