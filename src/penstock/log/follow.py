"""How agents follow each other's commits: by reading the rows of `wal_commit` after the last one applied.

Commits are applied in the order of their sequence numbers, which have no gaps, whichever agent made them. An agent's
own commit is applied by its writer, with the bytes that are in memory, after everything before it: `reach` waits for
that. Others' commits are applied here without bytes, which readers fetch from where the commit says.

`watch` polls with an adaptive interval: short after it found something, long while nothing happens. An agent that is
alone need not watch: nobody else commits.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from functools import partial

from penstock.base.backoff import Backoff, retry_until_answered
from penstock.base.errors import Fenced, PlatformError
from penstock.base.randomness import Randomness
from penstock.log.commits import Commit, apply_entry, wake
from penstock.log.model import Partition
from penstock.log.recovery import SnapshotReader, commits_after, read_commit
from penstock.log.registry import Registry

ROWS_AT_ONCE = 500
POLL_S, SLOW_POLL_S = 0.005, 0.025
FAILED_POLL_S = 0.5
_log = logging.getLogger(__name__)


class Follower:
    """Applies commits of other agents to the registry. On the event loop's thread."""

    def __init__(
        self, *, database: SnapshotReader, registry: Registry, randomness: Randomness, seq: int, shard_id: int = 1,
        on_commit: Callable[[Commit], None] = lambda commit: None,
    ) -> None:  # fmt: skip
        self._database, self._registry, self._randomness = database, registry, randomness
        self._shard_id, self._on_commit = shard_id, on_commit
        self._reading = asyncio.Lock()
        self.seq = seq
        """The last commit that is applied. The commit path advances it past its own commits in their turn."""
        self.on_transactions: Callable[[Partition, Iterable[int]], None] = lambda partition, producers: None
        """Called when transactional batches or markers were applied to a partition."""
        self.has_other_writers = False
        """Whether a commit of another agent was ever applied."""
        self.own: bytes | None = None
        """The object of this agent's commit in flight, which is not applied here."""

    async def reach(self, seq: int) -> None:
        """Apply every commit up to this one, which has happened.

        Callers need these commits to continue; so it retries until the database answers.
        """
        backoff = Backoff(self._randomness)
        while self.seq < seq:
            await retry_until_answered(partial(self._read, seq), backoff, _cannot_be_read)

    async def catch_up(self, seq: int) -> None:
        """The same where this agent's own commit may be in flight: its writer applies that one in its turn."""
        while self.seq < seq:
            if not await self.poll() and self.seq < seq:
                await asyncio.sleep(POLL_S)

    async def poll(self) -> int:
        """Apply what there is; the number of commits."""
        return await self._read(None)

    async def watch(self) -> None:
        """Poll until cancelled."""
        delay_s = POLL_S
        while True:
            try:
                found = await self.poll()
            except Fenced:
                raise
            except PlatformError as problem:
                _cannot_be_read(problem)
                found, delay_s = 0, FAILED_POLL_S
            delay_s = POLL_S if found else min(2 * delay_s, max(SLOW_POLL_S, delay_s))
            await asyncio.sleep(delay_s * self._randomness.uniform(0.8, 1.2))

    async def _read(self, through: int | None) -> int:
        async with self._reading:
            rows = await self._database.read(partial(commits_after, self._shard_id, self.seq, ROWS_AT_ONCE))
            count = 0
            for row in rows:
                commit = read_commit(row)
                if commit.seq <= self.seq:
                    continue  # This agent's own commit, which completed while the rows were read.
                if commit.object_id == self.own or (through is not None and commit.seq > through):
                    break
                self._apply(commit)
                count += 1
            if through is not None and self.seq < through and not count:
                raise self._left_behind()
            return count

    def _apply(self, commit: Commit) -> None:
        if commit.seq != self.seq + 1:
            raise self._left_behind()
        for position, entry in enumerate(commit.entries):
            partition = self._registry.partition(entry.partition_id)
            if partition is None:
                continue  # Its topic was deleted, or is not loaded yet, and will be loaded with these commits applied.
            apply_entry(partition, commit, position)
            wake(partition, entry)
            if producers := [batch.producer_id for batch in entry.producer_batches if batch.flags]:
                self.on_transactions(partition, producers)
        self.seq, self.has_other_writers = commit.seq, True
        self._on_commit(commit)

    def _left_behind(self) -> Fenced:
        return Fenced(
            f"the commits after {self.seq} are gone before this agent has seen them: it was away for too long and must"
            " be started again"
        )


def _cannot_be_read(problem: PlatformError) -> None:
    _log.warning("other agents' commits cannot be read, trying again: %s", problem)
