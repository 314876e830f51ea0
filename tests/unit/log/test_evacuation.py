"""Evacuation: live segments of mostly dead objects are copied, and the objects deleted."""

from __future__ import annotations

import random

import pytest
from fixtures.upkeep_world import GRACE_MS, UpkeepWorld, not_given_out, record

from penstock.base.errors import CorruptData, InvalidRequest, PlatformError, Unavailable
from penstock.log.upkeep.evacuation import INTERVAL_MS, SEGMENTS_AT_ONCE
from penstock.metadata.inline import InlineDatabase

BIG = bytes(3_000_000)


async def mixed(world: UpkeepWorld, small: int = 1, name: str = "t"):
    """An object with a large segment of one partition and small ones of others; the large one is trimmed away."""
    topic = await world.topic(name, partitions=small + 1)
    large, *others = topic.partitions
    parts = [(large, [[record("a", BIG)]]), *((partition, [[record("b", "stays")]]) for partition in others)]
    await world.shared_object(*parts)
    await world.topics.trim(1, {large: 1})
    await world.run(world.upkeep.trimming)
    return large, others


async def scan(world: UpkeepWorld) -> None:
    """The next scan, to its end."""
    world.clock.time_ms += INTERVAL_MS
    await world.run(world.upkeep.evacuation)


async def test_what_stays_moves_and_the_rest_is_freed() -> None:
    world = await UpkeepWorld().start()
    _, (kept,) = await mixed(world)
    (before,) = world.stored_keys()
    await scan(world)
    assert world.upkeep.evacuation.moves == 0, "once is not enough: the rest may be about to go as well"
    await scan(world)
    assert world.upkeep.evacuation.moves == 1
    assert await world.rows("SELECT live, size_bytes < 100 FROM object WHERE live > 0") == [(1, 1)]
    await world.check()
    assert before in world.stored_keys(), "readers may still be at it"
    world.clock.time_ms += GRACE_MS + 1
    await world.run()
    assert before not in world.stored_keys()
    assert [found.value for found in await world.records(kept)] == [b"stays"]


@pytest.mark.parametrize(("live", "moved"), [(700_000, 1), (1_200_000, 0)])
async def test_only_mostly_dead_objects_are_emptied(live: int, moved: int) -> None:
    world = await UpkeepWorld().start()
    topic = await world.topic(partitions=2)
    gone, kept = topic.partitions
    await world.shared_object((gone, [[record("a", BIG)]]), (kept, [[record("b", bytes(live))]]))
    await world.topics.trim(1, {gone: 1})
    await world.run()
    for _ in range(3):
        await scan(world)
    assert world.upkeep.evacuation.moves == moved


async def test_without_removals_nothing_is_looked_at() -> None:
    world = await UpkeepWorld().start()
    await mixed(world)
    chore = world.upkeep.evacuation
    for _ in range(4):
        await scan(world)
    assert await chore.run() is None
    world.clock.time_ms += 10 * INTERVAL_MS
    assert await chore.run() is None
    assert chore.removed(), "the first removal wakes it"
    assert not chore.removed()


async def test_an_object_with_many_segments_is_emptied_in_turns() -> None:
    world = await UpkeepWorld().start()
    _, others = await mixed(world, SEGMENTS_AT_ONCE + 50)
    await scan(world)
    await scan(world)
    await world.check()
    assert world.upkeep.evacuation.moves == 2
    assert await world.rows("SELECT COUNT(*) FROM object WHERE live = 0") == [(1,)]
    for partition in others[::40]:
        assert await world.offsets(partition) == [0]


async def test_several_segments_of_one_partition() -> None:
    world = await UpkeepWorld().start()
    topic = await world.topic(partitions=2)
    gone, kept = topic.partitions
    first, second = ([record("a", "1")],), ([record("a", "2")],)
    await world.shared_object((gone, [[record("a", BIG)]]), (kept, first))
    await world.segment(kept, [record("between")])
    await world.topics.trim(1, {gone: 1})
    await world.run()
    await world.segment(kept, *second)
    for _ in range(3):
        await scan(world)
    await world.check()
    assert [found.value for found in await world.records(kept)] == [b"1", b"v", b"2"]


async def test_what_cannot_be_read_stays_where_it_is() -> None:
    world = await UpkeepWorld().start()
    _, (kept,) = await mixed(world)
    (key,) = world.stored_keys()
    world.objects.put(key, [bytes(100)])
    await scan(world)
    with pytest.raises((CorruptData, InvalidRequest)):
        await scan(world)
    await scan(world)
    assert await world.segment_count(kept) == 1
    assert world.upkeep.changes.rewriting == set()
    assert len(world.uploads) == 0


async def test_what_is_not_given_out_now_keeps_no_other_object_from_being_emptied() -> None:
    world = await UpkeepWorld().start()
    for number in range(3):
        await mixed(world, name=f"t{number}")
    keys = sorted(world.stored_keys())
    await scan(world)
    with not_given_out(world.objects, keys[0]):
        with pytest.raises(Unavailable):
            await scan(world)
        await world.run(world.upkeep.evacuation)
        assert world.upkeep.evacuation.moves == 2
    await scan(world)
    assert world.upkeep.evacuation.moves == 3


@pytest.mark.parametrize("seed", range(10))
async def test_faults_and_crashes(seed: int) -> None:
    pick = random.Random(seed)
    world = await UpkeepWorld(database=InlineDatabase(), seed=f"evacuation {seed}").start()
    _, others = await mixed(world, 20)
    ids = [partition.partition_id for partition in others]
    for _ in range(10):
        world.database.faults = lambda: pick.choice(["before", "after", None, None])
        for _ in range(20):
            world.clock.time_ms += pick.choice([0, 0, INTERVAL_MS])
            try:
                await pick.choice([world.upkeep.evacuation, world.upkeep.dead_objects, world.upkeep.orphans]).run()
            except PlatformError:
                continue
        world.database.faults = lambda: None
        if pick.random() < 0.3:
            world = await world.restarted()
    for _ in range(4):
        await scan(world)
        await world.run()
    world.clock.time_ms += 7 * 3_600_000
    await world.run()
    await world.check()
    for partition_id in ids:
        (found,) = await world.records(world.registry.partition(partition_id))
        assert found.value == b"stays"
    sizes = sum(info.size_bytes for info in world.objects.list(""))
    assert sizes < 10_000
