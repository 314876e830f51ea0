"""Following other agents' commits: in order, without one's own, and never past what is gone."""

from __future__ import annotations

import asyncio

import pytest
from log_parts import NOW_MS, new_topic

from penstock.base.errors import Fenced, Unavailable
from penstock.base.randomness import SeededRandomness
from penstock.log.commits import Commit, CommitEntry, pack_bases, pack_entries
from penstock.log.follow import Follower
from penstock.log.registry import Registry


class Rows:
    """The table of commits; a read takes its snapshot at once and may be answered later."""

    def __init__(self) -> None:
        self.rows: list[tuple] = []
        self.failures = 0
        self.answer = asyncio.Event()
        self.answer.set()

    def add(self, seq: int, *, partition_id: int = 1, base: int | None = None, count: int = 1) -> None:
        entry = CommitEntry(partition_id, 0, 100 * count, count, 1, NOW_MS)
        start = len(self.rows) if base is None else base
        object_id = seq.to_bytes(16)
        self.rows.append(
            (seq, object_id, f"wal/{seq}", 0, 4096, NOW_MS, 1, pack_entries([entry]), pack_bases([start]))
        )  # fmt: skip

    async def read(self, script):
        steps = script()
        _, (_, after, limit) = next(steps)
        if self.failures:
            self.failures -= 1
            raise Unavailable("away")
        found = [row for row in self.rows if row[0] > after][:limit]
        await self.answer.wait()
        try:
            steps.send(found)
        except StopIteration as end:
            return end.value


class World:
    def __init__(self) -> None:
        self.topic, self.rows, self.heard = new_topic(partitions=2), Rows(), list[int]()
        self.registry = Registry()
        self.registry.add(self.topic)
        self.follower = Follower(
            database=self.rows, registry=self.registry, randomness=SeededRandomness("follow"), seq=0,
            on_commit=self._hear,
        )  # fmt: skip

    def _hear(self, commit: Commit) -> None:
        self.heard.append(commit.seq)


async def test_commits_are_applied_in_order() -> None:
    world = World()
    for seq in (1, 2, 3):
        world.rows.add(seq)
    assert await world.follower.poll() == 3
    partition = world.topic.partitions[0]
    assert [(span.base_offset, span.seq, span.view) for span in partition.spans] == [
        (0, 1, None),
        (1, 2, None),
        (2, 3, None),
    ]
    assert (partition.next_offset, world.follower.seq, world.heard) == (3, 3, [1, 2, 3])
    assert await world.follower.poll() == 0


async def test_ones_own_commit_is_left_to_the_writer() -> None:
    world = World()
    for seq in (1, 2, 3):
        world.rows.add(seq)
    world.follower.own = (2).to_bytes(16)
    assert await world.follower.poll() == 1
    await world.follower.reach(1)
    world.follower.own, world.follower.seq = None, 2
    assert await world.follower.poll() == 1
    assert world.heard == [1, 3]


async def test_ones_own_commit_may_end_while_rows_are_read() -> None:
    """The rows that come back then begin with a commit that is applied already."""
    world = World()
    world.rows.add(1)
    world.rows.add(2)
    world.rows.answer.clear()
    reading = asyncio.ensure_future(world.follower.poll())
    await asyncio.sleep(0)
    world.follower.seq = 1
    world.rows.answer.set()
    assert await reading == 1
    assert (world.follower.seq, world.heard) == (2, [2])


async def test_reaching_goes_on_until_the_database_answers() -> None:
    world = World()
    for seq in (1, 2, 3):
        world.rows.add(seq)
    world.rows.failures = 1
    await world.follower.reach(2)
    assert world.heard == [1, 2]
    await world.follower.reach(1)
    assert world.heard == [1, 2]


@pytest.mark.parametrize("through", [None, 5])
async def test_who_was_away_for_too_long_stops(through: int | None) -> None:
    """Compaction has removed commits that this agent has not seen."""
    world = World()
    world.rows.add(4)
    world.rows.add(5)
    with pytest.raises(Fenced, match="started again"):
        await (world.follower.poll() if through is None else world.follower.reach(through))
    assert world.heard == []
    world.rows.rows.clear()
    with pytest.raises(Fenced):
        await world.follower.reach(3)


async def test_waiters_hear_and_unknown_partitions_are_passed_over() -> None:
    world = World()
    world.rows.add(1, partition_id=99)
    world.rows.add(2, base=0, count=3)
    heard: list[int] = []

    class Waiter:
        def on_append(self, size_bytes: int) -> None:
            heard.append(size_bytes)

        def on_change(self) -> None:
            raise AssertionError

    world.topic.partitions[0].waiters[Waiter()] = None
    assert await world.follower.poll() == 2
    assert heard == [300]


async def test_watching_polls_until_it_is_cancelled() -> None:
    world = World()
    watching = asyncio.ensure_future(world.follower.watch())
    for seq in (1, 2):
        world.rows.add(seq)
        while world.follower.seq < seq:
            await asyncio.sleep(0.001)
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching
