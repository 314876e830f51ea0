"""A flush that is full: what does not fit waits for the next one, in order and with offsets of its own."""

from __future__ import annotations

from fixtures.log_world import append, batch, batches_in, topic_of, writer_over

from penstock.log.commits import Commit
from penstock.log.writer import FLUSH_MAX_BYTES
from penstock.storage.wal import WalLocation
from penstock.wire.error_codes import ErrorCode


class Path:
    """Commits everything at once and keeps it."""

    is_alone = True
    has_company = False
    seen = 0

    def __init__(self) -> None:
        self.commits: list[Commit] = []

    def record_bytes(self, entries: int, batches: int) -> int:
        return 0

    def commit_now(self, body, entries, heads, change=None) -> Commit:
        location = WalLocation(str(len(self.commits)), 0, len(body))
        self.commits.append(Commit(len(self.commits) + 1, b"", location, 0, 1, entries, tuple(heads)))
        return self.commits[-1]

    async def commit(self, body, entries, heads, change=None) -> Commit:
        raise AssertionError("everything is committed at once")


async def test_partition_that_overfills_a_flush_goes_on_in_the_next() -> None:
    path, (first, second) = Path(), topic_of(1, 2).partitions
    writer = writer_over(path)
    size_bytes = FLUSH_MAX_BYTES // 4 - 100
    waiting = [(first, batch(2, size_bytes=size_bytes, mark=mark)) for mark in range(9)]
    answers = await append(writer, *waiting, (second, batch(mark=9)))
    assert [answer.error for answer in answers] == [ErrorCode.NONE] * 10
    assert [answer.base_offset for answer in answers] == [*range(0, 18, 2), 0]
    for commit in path.commits:
        assert len({entry.partition_id for entry in commit.entries}) == len(commit.entries)
    stored = [found for span in first.spans for found in batches_in(span.view)]
    assert stored == [(2 * mark, 2, mark) for mark in range(9)]
    assert first.next_offset == 18
    assert second.next_offset == 1
    assert writer.pending_bytes == 0
