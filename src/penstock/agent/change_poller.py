"""Polls for changes that other agents make to ACLs, quotas, virtual clusters and their keys, and to credentials.

Agents that share a database keep these in memory. One query per second reads their version numbers; only what has
changed is read again, and nothing is written. Users, API keys and tokens are looked up at each authentication; polling
only closes connections that a removed key or token has authenticated. An agent whose database is its own does not poll.

The epoch of the log is polled as well: whose log another process has taken over stops.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack

from penstock.base.errors import Fenced, PlatformError
from penstock.metadata.database import Database, Script
from penstock.metadata.statements import parameters

POLL_INTERVAL_S = 1.0
"""How long a change may stay unnoticed."""
_log = logging.getLogger(__name__)

Refresh = Callable[[], Awaitable[None]]


def versions(names: tuple[str, ...]) -> Script[dict[str, int]]:
    """The counters of these names; one that was never moved may be missing."""
    rows = yield f"SELECT name, value FROM counter WHERE name IN ({parameters(len(names))})", names
    return {str(name): int(value) for name, value in rows}


class ChangePoller:
    """Reads version numbers, and refreshes what has changed."""

    def __init__(self, database: Database, refreshes: Mapping[str, Refresh]) -> None:
        self._database, self._refreshes = database, dict(refreshes)
        self._seen: dict[str, int] = {}
        self._is_failing = False

    async def poll(self) -> None:
        """Poll once. A refresh that fails does not keep others from running; it is repeated at the next poll, and the
        first failure is raised."""
        names = tuple(self._refreshes)
        found = await self._database.read(lambda: versions(names))
        problems = list[PlatformError]()
        for name, refresh in self._refreshes.items():
            version = found.get(name, 0)
            if self._seen.get(name) != version:
                try:
                    await refresh()
                except PlatformError as problem:
                    problems.append(problem)
                else:
                    self._seen[name] = version
        if problems:
            raise problems[0]

    async def watch(self) -> None:
        """Poll until cancelled. While the database does not answer, the last known state stays in force."""
        while True:
            await asyncio.sleep(POLL_INTERVAL_S)
            try:
                await self.poll()
            except PlatformError as problem:
                if not self._is_failing:
                    _log.warning("what other agents have changed cannot be read: %s", problem)
                self._is_failing = True
            else:
                self._is_failing = False


def poll_changes(closing: AsyncExitStack, database: Database, refreshes: Mapping[str, Refresh]) -> None:
    """Apply what other agents change, until the agent stops."""
    _run(closing, ChangePoller(database, refreshes).watch())


def watch_epoch(
    closing: AsyncExitStack, check: Callable[[], Awaitable[None]], on_fenced: Callable[[Fenced], None]
) -> None:  # fmt: skip
    """Notice that another process has taken over the log even while nothing is appended: what this one shows to
    consumers is outdated from then on. While the database does not answer, nothing is known of that."""

    async def watch() -> None:
        while True:
            await asyncio.sleep(POLL_INTERVAL_S)
            try:
                await check()
            except Fenced as problem:
                on_fenced(problem)
                return
            except PlatformError:
                continue  # The poller has said so.

    _run(closing, watch())


def _run(closing: AsyncExitStack, work: Coroutine[None, None, None]) -> None:
    """Run until the agent stops."""
    task = asyncio.get_running_loop().create_task(work)

    async def stop() -> None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    closing.push_async_callback(stop)
