"""Writing an object to the WAL without blocking the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from penstock.base.errors import PlatformError
from penstock.storage.wal import WalLocation, WalStore

OnThread = Callable[[Callable[[], WalLocation]], Awaitable[WalLocation]]
"""Runs a write of the WAL on a thread."""


async def append_aside(wal: WalStore, body: memoryview, on_thread: OnThread) -> WalLocation:
    """Write an object: asynchronously by the kernel where it can, else blocking on the WAL's thread."""
    outcome: asyncio.Future[WalLocation | None] = asyncio.get_running_loop().create_future()

    def done(result: WalLocation | PlatformError | None) -> None:
        if outcome.done():
            return  # The caller was cancelled.
        if isinstance(result, PlatformError):
            outcome.set_exception(result)
        else:
            outcome.set_result(result)

    if wal.begin(body, done):
        location = await outcome
        if location is not None:
            return location
    return await on_thread(lambda: wal.append((body,)))
