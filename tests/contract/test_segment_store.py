"""The SQL of segments and objects on every implementation of the metadata port, driven by the chores that use it."""

from __future__ import annotations

import pytest
from fixtures.upkeep_world import DAY_MS, GRACE_MS, START_MS, UpkeepWorld, record

from penstock.base.errors import Conflict
from penstock.log import segment_store
from penstock.log.model import ProducerState
from penstock.log.uploads import object_key


@pytest.fixture
async def world(database) -> UpkeepWorld:
    return await UpkeepWorld(database=database).start()


async def test_the_whole_life_of_segments(world: UpkeepWorld) -> None:
    """Retention, trimming, merging, cleaning, topic deletion, garbage and expiry, one after the other."""
    plain = await world.topic("plain", partitions=2, retention_ms=DAY_MS)
    table = await world.topic("table", cleanup_policy="compact")
    first, second = plain.partitions
    (keyed,) = table.partitions
    for number in range(20):
        await world.segment(first, [record(number, "x" * 100, START_MS + number * DAY_MS // 10)])
        await world.segment(second, [record(number, "y" * 100, START_MS + DAY_MS)])
        await world.segment(keyed, [record(number % 4, f"{number}")])
    first.producers[5] = ProducerState(5, 0, START_MS - 90_000_000)
    world.objects.put(object_key(b"o" * 16), [b"nobody's"])
    world.clock.time_ms = START_MS + int(1.55 * DAY_MS)
    await world.topics.trim(1, {second: 7})
    await world.run()
    await world.check()
    assert await world.offsets(first) == list(range(6, 20))
    assert await world.offsets(second) == list(range(7, 20))
    assert await world.offsets(keyed) == [16, 17, 18, 19]
    assert first.producers == {}
    await world.topics.delete(1, [table])
    for _ in range(3):
        await world.run()
        world.clock.time_ms += GRACE_MS + 1
    await world.check()
    assert await world.segment_count(keyed) == 0
    assert await world.rows("SELECT COUNT(*) FROM topic_deletion") == [(0,)]
    keys = {key for (key,) in await world.rows("SELECT key FROM object WHERE live > 0")}
    world.clock.time_ms += 7 * 3_600_000
    await world.run(world.upkeep.orphans)
    assert world.stored_keys() == keys


async def test_what_is_replaced_must_be_there(world: UpkeepWorld) -> None:
    topic = await world.topic()
    (partition,) = topic.partitions
    await world.segment(partition, [record("a")])
    await world.segment(partition, [record("b")])
    first, second = await world.segments.list(partition)
    now_ms = world.clock.now_ms()
    await world.database.transaction(lambda: segment_store.replace(None, [first], [], now_ms))
    for removed in ([first], [second, first]):
        with pytest.raises(Conflict):
            await world.database.transaction(lambda removed=removed: segment_store.replace(None, removed, [], now_ms))
    assert await world.rows("SELECT last_offset FROM segment") == [(1,)]
    assert await world.rows("SELECT COUNT(*) FROM object WHERE dead_ms IS NOT NULL") == [(1,)]


async def test_answers_of_an_empty_database(world: UpkeepWorld) -> None:
    """Statements that find nothing say so, and change nothing."""
    read = world.database.read
    assert await read(lambda: segment_store.sizes(1, 0, 10)) == []
    assert await read(lambda: segment_store.latest_sizes(1, 10)) == []
    assert await read(lambda: segment_store.bytes_below(1, 10)) == 0
    assert await read(lambda: segment_store.small_counts(100, 2)) == []
    assert await read(lambda: segment_store.stored_size(1)) is None
    assert await read(lambda: segment_store.reaching_below([(1, 10), (2, 20)])) == []
    assert await read(lambda: segment_store.dirty_since([1, 2])) == {}
    assert not await read(lambda: segment_store.has_object(bytes(16)))
    assert await read(lambda: segment_store.deleted_partitions(0, 10)) == []
    assert await read(lambda: segment_store.dead_objects(START_MS, 10)) == []
    assert await read(lambda: segment_store.next_death(0)) is None
    assert await read(lambda: segment_store.named_objects([bytes(16)])) == frozenset()
    transaction = world.database.transaction
    assert await transaction(lambda: segment_store.drop_below(1, 10, 5, START_MS)) == (0, 0)
    assert await transaction(lambda: segment_store.free_deleted(1, 1, 5, START_MS)) == 0
    await transaction(lambda: segment_store.forget_objects([bytes(16)]))
    await transaction(lambda: segment_store.forget_producers([1], START_MS))
    await transaction(lambda: segment_store.cleaned(1, 5, -1))
