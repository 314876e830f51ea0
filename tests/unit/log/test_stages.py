"""The stages of a flush: each has its time, a flush that failed has none."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from fixtures.clocks import ManualClock
from fixtures.fake_commits import FakeCommits
from fixtures.log_world import append, batch, topic_of

from penstock.base.errors import Unavailable
from penstock.log.answers import Ticket
from penstock.log.commits import Commit, CommitEntry
from penstock.log.writer import FLUSH_MAX_BYTES, Writer, forget_views
from penstock.storage.arena import Arena

WRITE_MS, ANSWER_MS, LATE_MS = 40, 5, 70


class SlowCommits(FakeCommits):
    """Each takes its time; others come meanwhile."""

    def __init__(self, clock: ManualClock, *, inline: bool) -> None:
        super().__init__(inline=inline)
        self._clock = clock
        self.meanwhile = asyncio.Event()

    def _commit(self, body: memoryview, entries: Sequence[CommitEntry], heads: Sequence[int]) -> Commit:
        self._clock.time_ms += WRITE_MS
        return super()._commit(body, entries, heads)

    async def commit(
        self, body: memoryview, entries: Sequence[CommitEntry], heads: Sequence[int], change: object = None
    ) -> Commit:
        await self.meanwhile.wait()
        return self._commit(body, entries, heads)


def times_of(writer: Writer) -> dict[str, tuple[int, int]]:
    """How many flushes, and how many milliseconds."""
    return {name: (one.count, round(1000 * one.total_s)) for name, one in writer.stages.by_name().items()}


def writer_over(clock: ManualClock, commits: FakeCommits) -> Writer:
    return Writer(arena=Arena(1 << 22, on_recycle=forget_views), commit_path=commits, clock=clock)


async def test_a_flush_in_line() -> None:
    clock = ManualClock()
    writer = writer_over(clock, SlowCommits(clock, inline=True))

    def answered(_: object) -> None:
        clock.time_ms += ANSWER_MS

    writer.submit(topic_of(1).partitions[0], batch(), Ticket([None], answered), 0)
    await writer.drain()
    assert times_of(writer) == {"wait": (1, 0), "prepare": (1, 0), "write": (1, WRITE_MS), "answer": (1, ANSWER_MS)}
    assert writer.stages.summary() == "waited 0 ms, prepared 0 ms, written 40 ms"


async def test_who_comes_while_another_is_written_waits() -> None:
    clock = ManualClock()
    commits = SlowCommits(clock, inline=False)
    writer, (first, second) = writer_over(clock, commits), topic_of(1, 2).partitions
    before = asyncio.create_task(append(writer, (first, batch())))
    await asyncio.sleep(0.01)
    behind = [asyncio.create_task(append(writer, (partition, batch()))) for partition in (first, second)]
    await asyncio.sleep(0)
    clock.time_ms += LATE_MS
    commits.meanwhile.set()
    await asyncio.gather(before, *behind)
    assert times_of(writer)["wait"] == (2, LATE_MS + WRITE_MS)
    assert times_of(writer)["write"] == (2, LATE_MS + 2 * WRITE_MS)


@pytest.mark.parametrize("inline", [True, False])
async def test_one_that_fails_is_not_counted(inline: bool) -> None:
    clock, partition = ManualClock(), topic_of(1).partitions[0]
    commits = SlowCommits(clock, inline=inline)
    commits.meanwhile.set()
    commits.failures = [Unavailable("the disk is away")]
    writer = writer_over(clock, commits)
    await append(writer, (partition, batch()))
    assert {count for count, _ in times_of(writer).values()} == {0}
    clock.time_ms += 1000
    await append(writer, (partition, batch()))
    assert {count for count, _ in times_of(writer).values()} == {1}
    assert times_of(writer)["wait"] == (1, 0)


async def test_what_does_not_fit_into_a_flush_waits_for_the_next_one() -> None:
    clock = ManualClock()
    commits = SlowCommits(clock, inline=False)
    commits.meanwhile.set()
    writer, partition = writer_over(clock, commits), topic_of(1).partitions[0]
    await append(writer, *[(partition, batch(size_bytes=FLUSH_MAX_BYTES * 3 // 4)) for _ in range(2)])
    assert times_of(writer)["wait"] == (2, WRITE_MS)
