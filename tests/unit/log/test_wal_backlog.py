"""The WAL is almost full: producers wait for compaction, but not for ever. Passes stay within their bounds."""

from __future__ import annotations

import asyncio

from fixtures.compaction_world import LogWorld
from fixtures.log_world import batch
from fixtures.sim_loop import SimLoop

from penstock.log.upkeep.background import Background
from penstock.log.upkeep.wal_backlog import MAX_WAIT_S, CompactionPolicy
from penstock.metadata.inline import InlineDatabase
from penstock.storage.memory import MemoryObjectStore, MemoryWal
from penstock.wire.error_codes import ErrorCode


async def world_with(wal_bytes: int, **policy: int) -> LogWorld:
    return await LogWorld(
        InlineDatabase(), MemoryWal(wal_bytes), MemoryObjectStore(), policy=CompactionPolicy(**policy)
    ).open()


def test_producers_go_at_the_speed_of_compaction() -> None:
    async def scenario(loop: SimLoop) -> None:
        world = await world_with(1_000_000, start_bytes=100_000_000)
        runner = Background([world.compaction], clock=world.clock)
        world.backlog.wake = runner.waker(world.compaction.name)
        (partition,) = (await world.topic("orders")).partitions
        await world.fill([partition], commits=16, size_bytes=45_000)
        assert not world.backlog.is_short
        before = loop.time()
        produced = asyncio.ensure_future(world.fill([partition], commits=100, size_bytes=45_000))
        await asyncio.sleep(MAX_WAIT_S / 2)
        assert not produced.done()
        assert world.backlog.waits == 1
        runner.start()
        world.clock.time_ms += 60_000  # Now its commits are old enough.
        while not produced.done():
            runner.wake(world.compaction.name)
            await asyncio.sleep(0.01)
            world.clock.time_ms += 60_000
        assert loop.time() - before < MAX_WAIT_S
        assert partition.next_offset == 116 * 3
        await runner.stop()

    _run(scenario)


def test_a_full_wal_says_so_in_the_end_and_takes_up_again() -> None:
    async def scenario(loop: SimLoop) -> None:
        world = await world_with(200_000, start_bytes=100_000_000)
        (partition,) = (await world.topic("orders")).partitions
        answers = []
        for _ in range(6):
            began = loop.time()
            (answer,) = await world.append((partition, batch(1, size_bytes=45_000)))
            answers.append((answer.error, loop.time() - began))
        assert [error for error, _ in answers] == [ErrorCode.NONE] * 4 + [ErrorCode.KAFKA_STORAGE_ERROR] * 2
        # The last that fitted, and those that did not, had waited as long as one may.
        assert [int(waited // MAX_WAIT_S) for _, waited in answers] == [0, 0, 0, 0, 1, 1]
        assert answer.message is not None
        assert "do not fit" in answer.message
        await world.compaction.compact_everything()
        began = loop.time()
        (answer,) = await world.append((partition, batch(1, size_bytes=45_000)))
        assert (answer.error, answer.base_offset, loop.time()) == (ErrorCode.NONE, 4, began)

    _run(scenario)


def test_a_full_pass_still_takes_commits_to_the_partitions_it_has() -> None:
    async def scenario(loop: SimLoop) -> None:
        world = await world_with(10_000_000, pass_changes=10)
        topic = await world.topic("wide", 20)
        await world.fill(topic.partitions, commits=10)
        await world.compaction.compact_everything()
        assert world.compaction.stats.passes == 1
        await world.fill(topic.partitions[:4], commits=5)
        await world.fill(topic.partitions[4:8], commits=5)
        await world.fill(topic.partitions[8:], commits=5)
        await world.compaction.compact_everything()
        assert world.compaction.stats.passes == 1 + 2

    _run(scenario)


def _run(scenario) -> None:
    for seed in range(3):
        loop = SimLoop(seed)
        loop.run(scenario(loop))
