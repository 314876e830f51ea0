"""Work that would hold up the event loop, done on a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Protocol, TypeVar

T = TypeVar("T")


class OnThread(Protocol):
    """Runs work on a thread while the event loop goes on."""

    async def __call__(self, work: Callable[[], T], /) -> T:
        """Return what the work returns."""


def on_thread_of(executor: Executor) -> OnThread:
    """An `OnThread` that uses an executor."""

    async def on_thread(work: Callable[[], T], /) -> T:
        return await asyncio.get_running_loop().run_in_executor(executor, work)

    return on_thread
