"""The backlog of the WAL: when compaction must run, and backpressure on the writer when the WAL fills up.

The backlog is counted in memory, a few additions per commit. Compaction is woken when the backlog passes a mark, and by
the first commit after an idle time, for whose age it then waits: no commit has a timer of its own, and without commits
there is none at all.

When compaction cannot keep up and the WAL approaches its limit, the writer waits before each flush, at most
`MAX_WAIT_S`. Producers are slowed down to the rate of compaction, because their requests wait with the flush; only if
the WAL stays full does a flush fail.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from penstock.base.clock import Clock
from penstock.base.dataclasses import dataclass
from penstock.log.commits import Commit
from penstock.log.upkeep.wal_store import PendingCommits
from penstock.storage.wal import PAGE_BYTES

MIB = 1024 * 1024
MAX_WAIT_S = 10.0
ROOM_SHARE = 0.75
"""The fraction of the WAL that may be in use before the writer waits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompactionPolicy:
    """When the WAL is compacted, and how much at once."""

    start_bytes: int = 32 * MIB
    """Less than the tail holds, so that compaction usually takes the bytes from memory and reads nothing."""
    start_rows: int = 20_000
    start_entries: int = 50_000
    """Rows and entries are what a start replays, and entries take memory."""
    max_age_ms: int = 60_000
    sparse_bytes: int = 16 * 1024
    """If partitions got less than this on average, segments would be many and tiny: then commits may get older."""
    sparse_ages: int = 10
    """By this factor."""
    pass_bytes: int = 64 * MIB
    pass_rows: int = 20_000
    pass_changes: int = 2_000
    """Rows that one transaction deletes or writes: commits of producers wait for it."""


class Backlog:
    """Counts what is in the WAL and not compacted yet. On the loop's thread."""

    def __init__(
        self, waiting: PendingCommits, *, last_seq: int, capacity_bytes: int, clock: Clock,
        policy: CompactionPolicy | None = None,
    ) -> None:  # fmt: skip
        self.policy = policy or CompactionPolicy()
        self._clock = clock
        self.last_seq = last_seq
        """The last commit that is applied in memory. The database may already have a later one."""
        self.rows, self.entries, self.size_bytes = waiting.rows, waiting.entries, waiting.size_bytes
        self.oldest_ms = waiting.oldest_ms
        """When the oldest commit was made, or earlier."""
        self.waits = 0
        """How often the writer had to wait for room."""
        self.wake: Callable[[], None] = lambda: None
        """Called when compaction has something to check."""
        self._start_bytes = self.policy.start_bytes
        self._max_age_ms = self.policy.max_age_ms
        self.limit_bytes = int(capacity_bytes * ROOM_SHARE)
        """Above this the writer waits."""
        self._room: asyncio.Future[None] | None = None

    def on_commit(self, commit: Commit) -> None:
        """A commit was applied."""
        self.last_seq = commit.seq
        self.entries += len(commit.entries)
        self.size_bytes += (commit.location.length + PAGE_BYTES - 1) & -PAGE_BYTES
        self.rows += 1
        if self.rows == 1:
            self.oldest_ms = commit.committed_ms
            self.wake()
        elif self._is_large():
            self.wake()

    def done(self, *, rows: int, entries: int, size_bytes: int, committed_ms: int) -> None:
        """The oldest commits, up to one made at `committed_ms`, are in segments and their space is free."""
        self.rows -= rows
        self.entries -= entries
        self.size_bytes -= size_bytes
        self.oldest_ms = committed_ms
        self._start_bytes = self.policy.start_bytes
        self._max_age_ms = self.policy.max_age_ms
        if self._room is not None and self.size_bytes <= self.limit_bytes:
            self._room.set_result(None)
            self._room = None

    def hold(self) -> None:
        """Compaction leaves the backlog until there is more."""
        self._start_bytes = self.size_bytes + self.policy.start_bytes

    def postpone(self) -> None:
        """Compaction found little for many partitions, and postpones it."""
        self._max_age_ms = self.policy.max_age_ms * self.policy.sparse_ages

    @property
    def can_be_postponed(self) -> bool:
        """Whether only the age of commits requires compaction, and it was not postponed before."""
        return not self._is_large() and self._max_age_ms == self.policy.max_age_ms and self.policy.sparse_ages > 1

    @property
    def is_urgent(self) -> bool:
        """Whether commits are too old, too many, or too large to be postponed for any reason."""
        policy = self.policy
        return (
            self.is_short
            or self.rows >= policy.start_rows
            or self.entries >= policy.start_entries
            or self._clock.now_ms() - self.oldest_ms >= self._max_age_ms
        )

    def delay_s(self) -> float | None:
        """Seconds until compaction is due: 0 when it is, None when there is nothing to compact."""
        if not self.rows:
            return None
        if self._is_large():
            return 0.0
        max_age_ms = self._max_age_ms
        # The wall clock may have jumped back: commits must not wait for longer than a whole age because of that.
        return min(max(0, self.oldest_ms + max_age_ms - self._clock.now_ms()), max_age_ms) / 1000

    @property
    def age_s(self) -> float:
        """About how old the oldest commit is; 0 where there is none."""
        return max(0, self._clock.now_ms() - self.oldest_ms) / 1000 if self.rows else 0.0

    @property
    def is_short(self) -> bool:
        """Whether the WAL is so full that the writer should wait."""
        return self.size_bytes > self.limit_bytes

    async def wait(self) -> None:
        """Wait for room, but not for ever."""
        self.waits += 1
        self.wake()
        if self._room is None:
            self._room = asyncio.get_running_loop().create_future()
        await asyncio.wait((self._room,), timeout=MAX_WAIT_S)

    def _is_large(self) -> bool:
        policy = self.policy
        return (
            self.size_bytes >= self._start_bytes
            or self.rows >= policy.start_rows
            or self.entries >= policy.start_entries
        )
