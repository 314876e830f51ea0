"""Imports what requests will need, in a thread, soon after the start.

A start imports little, so that it takes half a second. The first request of an API would import the rest of what it
needs on the event loop: up to 100 ms in which no other request is served.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from importlib import import_module

from penstock.base.lazy import pending_imports
from penstock.wire import codec

WAIT_S = 1.0
"""After the start, when the first clients connect."""
PAUSE_S = 0.02
"""Between modules: the interpreter is shared with the event loop."""
IF_CONFIGURED = (
    "asyncpg", "cryptography", "penstock.agent.", "penstock.audit.", "penstock.authorization.guards.",
    "penstock.log.commit_sql", "penstock.log.follow", "penstock.log.shared_commit_path", "penstock.metadata.",
    "penstock.storage.directory", "penstock.storage.kernel_writes", "penstock.storage.local", "penstock.storage.slabs",
    "penstock.telemetry.handlers", "penstock.telemetry.sinks",
)  # fmt: skip
"""What the start has imported where it is used at all."""


async def warm_up(apis: Iterable[int]) -> None:
    """Import all that requests of these APIs need, module by module."""
    await asyncio.sleep(WAIT_S)
    for key in apis:
        await asyncio.to_thread(codec.prepare, key)
        await asyncio.sleep(PAUSE_S)
    while name := next(_wanted(), None):  # Each may name others.
        await asyncio.to_thread(import_module, name)
        await asyncio.sleep(PAUSE_S)


def _wanted() -> Iterator[str]:
    return (name for name in pending_imports() if not name.startswith(IF_CONFIGURED))
