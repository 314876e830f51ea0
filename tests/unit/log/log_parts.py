"""Partitions and batches for tests of the log's core, without database, agent or network."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.base.errors import PlatformError
from penstock.log.batches import Accepted, inspect
from penstock.log.commits import Commit, CommitEntry
from penstock.log.model import Partition, Topic, TopicConfig
from penstock.storage.memory import MemoryWal
from penstock.wire.records import Record, build_batch

NOW_MS = 1_700_000_000_000


class StillClock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.time_ms = NOW_MS

    def now_ms(self) -> int:
        return self.time_ms

    def monotonic(self) -> float:
        return self.time_ms / 1000


def new_topic(name: str = "orders", *, partitions: int = 1, first_id: int = 1, **config: object) -> Topic:
    """A topic and its empty partitions."""
    topic = Topic(
        cluster_id=1, topic_id=name.encode().ljust(16, b"\0")[:16], name=name, replication_factor=1, created_ms=NOW_MS,
        overrides={}, config=TopicConfig(**config),
    )  # fmt: skip
    topic.partitions.extend(
        Partition(partition_id=first_id + index, topic=topic, index=index) for index in range(partitions)
    )
    return topic


def batch(*values: bytes, at: Sequence[int] | None = None, key: bytes | None = None, **options) -> bytes:
    """A record batch."""
    times = [NOW_MS] * len(values) if at is None else at
    return build_batch(
        [Record(number, times[number], key, value) for number, value in enumerate(values)], **options
    )  # fmt: skip


def accepted(data: bytes) -> Accepted:
    """A batch as the writer gets it."""
    verdict = inspect(memoryview(data), TopicConfig(), NOW_MS, version=9, transactional=False)
    assert isinstance(verdict, Accepted), verdict
    return verdict


class FakeCommits:
    """A commit path that keeps what it is given, fails when told to, and can be held up."""

    is_alone = True

    def __init__(self, wal: MemoryWal | None = None, *, inline: bool = True) -> None:
        self.wal = wal or MemoryWal(1 << 30)
        self.commits: list[Commit] = []
        self.failures: list[PlatformError | None] = []
        """What happens to the next commits."""
        self.inline = inline
        self.moved = 0
        """By how much other agents have moved heads meanwhile."""

    def commit_now(self, body: memoryview, entries: Sequence[CommitEntry], heads: Sequence[int]) -> Commit | None:
        return self._commit(body, entries, heads) if self.inline else None

    async def commit(self, body: memoryview, entries: Sequence[CommitEntry], heads: Sequence[int]) -> Commit:
        return self._commit(body, entries, heads)

    def _commit(self, body: memoryview, entries: Sequence[CommitEntry], heads: Sequence[int]) -> Commit:
        failure = self.failures.pop(0) if self.failures else None
        if failure is not None:
            raise failure
        seq = len(self.commits) + 1
        bases = tuple(head + self.moved for head in heads)
        commit = Commit(seq, seq.to_bytes(16), self.wal.append((body,)), NOW_MS, 1, tuple(entries), bases)
        self.commits.append(commit)
        return commit
