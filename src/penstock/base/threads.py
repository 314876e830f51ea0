"""Work that would hold up the event loop, done beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Protocol, TypeVar

T = TypeVar("T")


class OnThread(Protocol):
    """Runs what computes or waits for a while beside the loop."""

    async def __call__(self, work: Callable[[], T], /) -> T:
        """What the work returns."""


def on_thread_of(executor: Executor) -> OnThread:
    """Has it done by an executor, for a coroutine that waits."""

    async def on_thread(work: Callable[[], T], /) -> T:
        return await asyncio.get_running_loop().run_in_executor(executor, work)

    return on_thread
