"""How an object gets into the write-ahead log while the event loop goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from penstock.base.errors import PlatformError
from penstock.storage.wal import WalLocation, WalStore

OnThread = Callable[[Callable[[], WalLocation]], Awaitable[WalLocation]]
"""Runs a write of the WAL where it stops nobody."""


async def append_aside(wal: WalStore, body: memoryview, on_thread: OnThread) -> WalLocation:
    """Write an object: by the kernel where that is possible, on the WAL's thread where somebody has to wait for it."""
    outcome: asyncio.Future[WalLocation | None] = asyncio.get_running_loop().create_future()

    def done(result: WalLocation | PlatformError | None) -> None:
        if outcome.done():
            return  # Whoever waited was sent away.
        if isinstance(result, PlatformError):
            outcome.set_exception(result)
        else:
            outcome.set_result(result)

    if wal.begin(body, done):
        location = await outcome
        if location is not None:
            return location
    return await on_thread(lambda: wal.append((body,)))
