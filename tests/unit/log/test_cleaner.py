"""The log cleaner over real rows and objects: passes, choices, lags, readers in between, faults and crashes."""

from __future__ import annotations

import random
from struct import pack_into

import pytest
from fixtures.clocks import START_MS
from fixtures.upkeep_world import DAY_MS, GRACE_MS, UpkeepWorld, not_given_out, record

from penstock.base.errors import PlatformError, Unavailable
from penstock.log.model import Partition, ProducerState, SequenceBatch
from penstock.log.upkeep import cleaner
from penstock.log.upkeep.evacuation import Evacuation
from penstock.log.upkeep.latest_offsets import LatestOffsets
from penstock.metadata.inline import InlineDatabase
from penstock.metadata.sqlite import SqliteDatabase
from penstock.storage.local import LocalObjectStore
from penstock.wire.records import Record, build_batch, crc_of, iter_batches

SOON = {"log.cleaner.backoff.ms": "100"}


async def compacted(world: UpkeepWorld, **config: object) -> Partition:
    topic = await world.topic(cleanup_policy="compact", **config)
    return topic.partitions[0]


async def clean(world: UpkeepWorld) -> None:
    """Give the cleaner its next look, and all the time it wants."""
    world.clock.time_ms += 15_000
    chore = world.upkeep.cleaner
    for _ in range(10_000):
        if await chore.run() == 15.0 and not chore.backlog:
            return
    raise AssertionError("the cleaner does not end")


def kept(records: list[Record]) -> list[tuple[int, str, str | None]]:
    return [
        (found.offset, (found.key or b"").decode(), None if found.value is None else found.value.decode())
        for found in records
    ]


async def test_a_pass_leaves_the_latest_value_of_every_key() -> None:
    world = await UpkeepWorld().start()
    partition = await compacted(world)
    await world.segment(partition, [record("a", 1), record("b", 1)], [record("a", 2)])
    await world.segment(partition, [record("c", 1), record("b", 2)])
    await world.segment(partition, [record("d", None)])
    await clean(world)
    assert kept(await world.records(partition)) == [(2, "a", "2"), (3, "c", "1"), (4, "b", "2"), (5, "d", None)]
    assert await world.segment_count(partition) == 1
    assert partition.cleaned_to == 6
    assert partition.first_dirty_ms == -1
    assert await world.rows("SELECT cleaned_to, first_dirty_ms FROM partition") == [(6, -1)]
    assert partition.next_offset == 6
    await world.check()


async def test_tombstones_are_readable_for_their_time() -> None:
    world = await UpkeepWorld().start()
    partition = await compacted(world, delete_retention_ms=DAY_MS, min_cleanable_dirty_ratio=0.01)
    await world.segment(partition, [record("a", 1), record("b", 1)])
    await world.segment(partition, [record("a", None)])
    await clean(world)
    first_met_ms = world.clock.time_ms
    assert kept(await world.records(partition)) == [(1, "b", "1"), (2, "a", None)]
    world.clock.time_ms = first_met_ms + DAY_MS - 20_000
    await world.segment(partition, [record("c", 1)])
    await clean(world)
    assert (2, "a", None) in kept(await world.records(partition)), "five seconds too early"
    await world.segment(partition, [record("c", 2)])
    await clean(world)
    assert kept(await world.records(partition)) == [(1, "b", "1"), (4, "c", "2")]
    await world.check()


async def test_what_is_in_the_write_ahead_log_is_not_cleaned() -> None:
    world = await UpkeepWorld().start()
    partition = await compacted(world)
    await world.segment(partition, [record("a", 1)])
    world.span(partition, [record("a", 2)])
    await clean(world)
    assert kept(await world.records(partition)) == [(0, "a", "1"), (1, "a", "2")]
    assert partition.first_dirty_ms == world.clock.time_ms, "the next dirty record is as old as this at most"


async def test_nothing_happens_below_the_ratio_and_nothing_is_read_twice() -> None:
    world = await UpkeepWorld().start()
    partition = await compacted(world)
    await world.segment(partition, [record(n) for n in range(10)])
    await clean(world)
    await world.segment(partition, [record(0)])
    await clean(world)
    assert world.upkeep.cleaner.stats.passes == 1
    before = dict(world.upkeep.cleaner._measurements)
    assert list(before) == [partition.partition_id]
    world.clock.time_ms += 15_000
    assert await world.upkeep.cleaner.run() == 15.0, "a partition that did not change costs no look into the database"
    await world.topics.alter_topic(partition.topic, lambda texts: {**texts, "min.cleanable.dirty.ratio": "0.01"})
    await clean(world)
    assert world.upkeep.cleaner.stats.passes == 2


async def test_max_lag_cleans_whatever_the_ratio() -> None:
    world = await UpkeepWorld().start()
    partition = await compacted(world, max_compaction_lag_ms=60_000, min_cleanable_dirty_ratio=1)
    await world.segment(partition, [record(n) for n in range(10)])
    await world.segment(partition, [record(0)])
    await clean(world)
    assert world.upkeep.cleaner.stats.passes == 0
    world.clock.time_ms += 60_000
    await clean(world)
    assert await world.offsets(partition) == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]


async def test_min_lag_keeps_young_records_apart() -> None:
    world = await UpkeepWorld().start()
    partition = await compacted(world, min_compaction_lag_ms=60_000)
    await world.segment(partition, [record("a", 1, START_MS), record("a", 2, START_MS)])
    await world.segment(partition, [record("a", 3, START_MS + 30_000)])
    world.clock.time_ms = START_MS + 59_999 - 15_000
    await clean(world)
    assert len(await world.records(partition)) == 3
    world.clock.time_ms += 1
    await clean(world)
    assert kept(await world.records(partition)) == [(1, "a", "2"), (2, "a", "3")]
    world.clock.time_ms += 60_000
    await world.topics.alter_topic(partition.topic, lambda texts: {**texts, "min.cleanable.dirty.ratio": "0.1"})
    await clean(world)
    assert kept(await world.records(partition)) == [(2, "a", "3")]


async def test_the_dirtiest_partition_comes_first() -> None:
    world = await UpkeepWorld().start()
    topic = await world.topic(partitions=3, cleanup_policy="compact", min_cleanable_dirty_ratio=0.1)
    for partition in topic.partitions:
        await world.segment(partition, [record(n, "x" * 100) for n in range(10)])
    await clean(world)
    for index, partition in enumerate(topic.partitions):
        await world.segment(partition, [record(n, "y" * 100) for n in range(5 + (index == 1) * 5 + index)])
    world.clock.time_ms += 15_000
    order = []
    while await world.upkeep.cleaner.run() != 15.0:
        running = world.upkeep.cleaner._pass
        if running is not None and running.partition.index not in order:
            order.append(running.partition.index)
    assert order == [1, 2, 0]


async def test_a_map_that_is_too_small_takes_several_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    world = await UpkeepWorld().start()
    world.upkeep.cleaner._map_capacity = 7
    partition = await compacted(world, min_cleanable_dirty_ratio=0)
    for number in range(6):
        await world.segment(partition, *([record(n, number)] for n in range(10)))
    await clean(world)
    assert world.upkeep.cleaner.stats.passes > 3
    assert partition.cleaned_to == 60
    assert await world.offsets(partition) == list(range(50, 60))
    await world.check()


async def test_the_last_batches_of_producers_keep_their_headers() -> None:
    world = await UpkeepWorld().start()
    partition = await compacted(world)
    batch = build_batch([record("a")._replace(offset=0)], producer_id=7, producer_epoch=0, base_sequence=3)
    await world.segment(partition, batch)
    await world.segment(partition, [record("a")], [record("b")])
    state = partition.producers[7] = ProducerState(7, 0, START_MS)
    state.add(SequenceBatch(3, 3, 0, 0, 0))
    await clean(world)
    view = (await world.reader.read_batches(partition, 0, 1000))[0]
    headers = [header for _, header in iter_batches(view)]
    assert [(header.producer_id, header.record_count) for header in headers] == [(7, 0), (-1, 1), (-1, 1)]
    del partition.producers[7]
    await world.segment(partition, [record(n, "x" * 100) for n in range(9)])
    await clean(world)
    view = (await world.reader.read_batches(partition, 0, 1000))[0]
    assert all(header.producer_id == -1 for _, header in iter_batches(view))


async def test_everything_may_go_from_a_segment() -> None:
    world = await UpkeepWorld().start()
    partition = await compacted(world, segment_bytes=1_048_576)
    await world.segment(partition, [record("a", "x" * 800_000)])
    await world.segment(partition, [record("a", "y" * 800_000)])
    await clean(world)
    assert await world.segment_count(partition) == 1
    assert await world.offsets(partition) == [1]
    assert [found.offset for found in await world.records(partition, 0)] == [1], "reading goes on after the gap"
    await world.check()


async def test_compact_and_delete_do_both() -> None:
    world = await UpkeepWorld().start()
    topic = await world.topic(cleanup_policy="compact,delete", retention_ms=DAY_MS)
    (partition,) = topic.partitions
    await world.segment(partition, [record("a", 1, START_MS - 2 * DAY_MS), record("b", 1, START_MS - 2 * DAY_MS)])
    await world.segment(partition, [record("c", 1, START_MS), record("c", 2, START_MS)])
    await world.run()
    await clean(world)
    assert partition.log_start == 2
    assert kept(await world.records(partition)) == [(3, "c", "2")]
    assert partition.log_start == 2, "compaction does not move it"
    await world.check()


async def test_compaction_does_not_keep_old_records_from_retention() -> None:
    """With a record now and then and a pass after each, everything would end in one segment that is never old."""
    world = await UpkeepWorld().start()
    topic = await world.topic(cleanup_policy="compact,delete", retention_ms=8 * DAY_MS, min_cleanable_dirty_ratio=0)
    (partition,) = topic.partitions
    for day in range(40):
        world.clock.time_ms = START_MS + day * DAY_MS // 2
        await world.segment(partition, [record(f"window-{day}", "x", world.clock.time_ms)])
        await clean(world)
        await world.run()
    assert 40 - 2 * 9 - 1 <= partition.log_start <= 40 - 2 * 8
    assert await world.segment_count(partition) <= 20
    await world.check()


async def test_readers_in_the_middle_of_a_pass_see_a_whole_log() -> None:
    """After every single step, from every position, a consumer sees the latest value of each key, in order."""
    world = await UpkeepWorld().start()
    partition = await compacted(world, segment_bytes=1_048_576)
    pick = random.Random(5)
    latest: dict[str, int] = {}
    for _ in range(6):
        batches = []
        for _ in range(4):
            keys = [f"k{pick.randrange(30)}" for _ in range(6)]
            batches.append([record(key, "v" * 20_000) for key in keys])
        base = partition.next_offset
        await world.segment(partition, *batches)
        latest.update((found.key.decode(), base + n) for n, found in enumerate(r for b in batches for r in b))
    stale = await world.segments.list(partition)
    world.clock.time_ms += 15_000
    while await world.upkeep.cleaner.run() != 15.0:
        await world.upkeep.dead_objects.run()
        await world.check()
        for start in (0, 50, 100):
            offsets = [found.offset for found in await world.records(partition, start)]
            assert offsets == sorted(set(offsets))
            assert {offset for offset in latest.values() if offset >= start} <= set(offsets)
    for ref in stale:
        buffer = memoryview(bytearray(ref.byte_length))
        assert world.objects.read_into(ref.object_key, ref.byte_offset, buffer) == ref.byte_length
    assert await world.offsets(partition) == sorted(latest.values())
    world.clock.time_ms += GRACE_MS + 1
    await world.run()
    assert await world.offsets(partition) == sorted(latest.values())
    assert len(world.stored_keys()) == await world.segment_count(partition)


async def test_a_damaged_partition_is_given_up_and_the_others_go_on() -> None:
    world = await UpkeepWorld().start()
    topic = await world.topic(partitions=2, cleanup_policy="compact")
    damaged, fine = topic.partitions
    for partition in (damaged, fine):
        await world.segment(partition, [record("a", 1)], [record("b", 1)])
        await world.segment(partition, [record("a", 2)])
    ref = (await world.segments.list(damaged))[0]
    body = bytearray(ref.byte_length)
    world.objects.read_into(ref.object_key, 0, memoryview(body))
    body[-1] ^= 1
    world.objects.put(ref.object_key, [body])
    await clean(world)
    assert await world.offsets(fine) == [1, 2]
    assert await world.segment_count(damaged) == 2
    assert world.upkeep.uncleanable_partitions == 1
    await clean(world)
    assert len(world.uploads) == 0
    assert world.upkeep.changes.rewriting == set()
    await world.check()


async def test_a_partition_that_cannot_be_read_now_is_left_alone_for_a_while() -> None:
    world = await UpkeepWorld().start()
    topic = await world.topic(partitions=2, cleanup_policy="compact")
    unread, fine = topic.partitions
    for partition in (unread, fine):
        await world.segment(partition, [record("a", 1)], [record("b", 1)])
        await world.segment(partition, [record("a", 2)])
    await world.segment(unread, [record("a", 3)])  # It is the dirtiest.
    with not_given_out(world.objects, (await world.segments.list(unread))[1].object_key):
        with pytest.raises(Unavailable):
            await clean(world)
        await clean(world)
        assert await world.offsets(fine) == [1, 2]
        assert await world.segment_count(unread) == 3
    world.clock.time_ms += cleaner.UNREADABLE_RETRY_MS
    await clean(world)
    assert await world.offsets(unread) == [1, 3]
    assert world.upkeep.changes.rewriting == set()


async def test_a_bug_that_one_partition_brings_out_stops_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    world = await UpkeepWorld().start()
    topic = await world.topic(partitions=2, cleanup_policy="compact")
    odd, fine = topic.partitions
    for partition in (odd, fine):
        await world.segment(partition, [record("a", 1)], [record("a", 2)])
    clean_batch = cleaner.clean_batch

    def buggy(cleaning, header, batch):  # type: ignore[no-untyped-def]
        if odd.partition_id in world.upkeep.changes.rewriting:
            raise OverflowError
        return clean_batch(cleaning, header, batch)

    monkeypatch.setattr(cleaner, "clean_batch", buggy)
    await clean(world)
    assert await world.offsets(fine) == [1]
    assert world.upkeep.uncleanable_partitions == 1
    assert world.upkeep.changes.rewriting == set()
    await world.check()


async def test_tombstones_may_be_kept_for_ever() -> None:
    world = await UpkeepWorld().start()
    partition = await compacted(world, delete_retention_ms=2**63 - 1, min_cleanable_dirty_ratio=0.01)
    await world.segment(partition, [record("a", 1), record("b", 1), record("a", None, START_MS)])
    await clean(world)
    await world.segment(partition, [record("c", 1)])
    world.clock.time_ms += 1000 * 365 * DAY_MS
    await clean(world)
    assert kept(await world.records(partition)) == [(1, "b", "1"), (2, "a", None), (3, "c", "1")]
    assert [found.timestamp for found in await world.records(partition)][1] == START_MS
    assert world.upkeep.uncleanable_partitions == 0


@pytest.mark.parametrize("time", [2**63 - 1, -(2**63)])
async def test_a_batch_whose_records_claim_impossible_times_is_kept(time: int) -> None:
    """Nobody looks at records before their topic is compacted."""
    world = await UpkeepWorld().start()
    partition = await compacted(world)
    lying = bytearray(build_batch([Record(0, START_MS, b"a", None), Record(1, START_MS + 5, b"b", b"1")]))
    pack_into(">q", lying, 27, time)
    pack_into(">I", lying, 17, crc_of(lying))
    await world.segment(partition, bytes(lying))
    await world.segment(partition, [record("b", 2), record("c", 1)], [record("c", 2)])
    await clean(world)
    assert await world.offsets(partition) == [0, 1, 2, 4]
    assert world.upkeep.uncleanable_partitions == 0
    await world.check()


async def test_a_topic_that_is_not_compacted_any_more_is_left_alone() -> None:
    world = await UpkeepWorld().start()
    partition = await compacted(world)
    await world.segment(partition, [record("a", 1)], [record("a", 2)])
    chore = world.upkeep.cleaner
    world.clock.time_ms += 15_000
    while not world.upkeep.changes.rewriting:
        await chore.run()
    await world.topics.alter_topic(partition.topic, lambda overrides: {})
    await clean(world)
    assert await world.offsets(partition) == [0, 1]
    assert world.upkeep.changes.rewriting == set()


async def test_cleaning_can_be_switched_off() -> None:
    world = await UpkeepWorld(settings={"log.cleaner.enable": "false"}).start()
    partition = await compacted(world)
    await world.segment(partition, [record("a", 1)], [record("a", 2)])
    assert await world.upkeep.cleaner.run() is None


async def test_the_map_is_as_large_as_the_setting_allows() -> None:
    world = await UpkeepWorld(settings={"log.cleaner.dedupe.buffer.size": "2000000"}).start()
    partition = await compacted(world)
    await world.segment(partition, [record("a", 1)], [record("a", 2)])
    world.clock.time_ms += 15_000
    while not (chore := world.upkeep.cleaner)._pass:
        await chore.run()
    assert chore._pass._keys.capacity == 2_000_000 // LatestOffsets.key_bytes


class Model:
    """What a compacted log has to be: every write, and which of them must, may and must not be read."""

    def __init__(self) -> None:
        self.writes: list[Record] = []

    def check(self, found: list[Record], log_start: int) -> None:
        offsets = [read.offset for read in found]
        assert offsets == sorted(set(offsets)), "not in order, or twice"
        assert all(read == self.writes[read.offset] for read in found), "a record changed"
        latest = {written.key: written.offset for written in self.writes}
        must = {offset for offset in latest.values() if offset >= log_start and self.writes[offset].value is not None}
        assert must <= set(offsets), "a latest value is gone"
        # Whoever reads it all ends with the latest values: no deleted value comes back.
        table = {read.key: read.value for read in found}
        for key, offset in latest.items():
            if offset >= log_start:
                assert table.get(key) == self.writes[offset].value, f"{key!r} ends with an old value"


def make_eager(world: UpkeepWorld, pick: random.Random) -> None:
    """Let rare things happen often."""
    upkeep = world.upkeep
    upkeep.cleaner._map_capacity = pick.choice([5, 20, 1000])
    upkeep.evacuation = Evacuation(upkeep.changes, world.registry, interval_ms=20_000, min_freed_bytes=1)


@pytest.mark.parametrize("seed", range(25))
async def test_random_histories_with_faults_and_crashes(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything at once: writes, trims, merging, cleaning, evacuation, garbage, a failing database, crashes."""
    pick = random.Random(seed)
    monkeypatch.setattr(cleaner, "GROUP_MAX_SEGMENTS", pick.choice([1, 1000]))
    answers = ["before", "after", *[None] * pick.choice([6, 60])]
    world = await UpkeepWorld(database=InlineDatabase(), seed=f"cleaner {seed}").start()
    topic = await world.topic(
        partitions=2, cleanup_policy="compact", min_cleanable_dirty_ratio=0.1,
        delete_retention_ms=pick.choice([0, 30_000]), segment_bytes=1_048_576,
    )  # fmt: skip
    ids = [partition.partition_id for partition in topic.partitions]
    models = [Model(), Model()]
    make_eager(world, pick)
    for _ in range(60):
        partitions = [world.registry.partition(partition_id) for partition_id in ids]
        await write_some(world, partitions, models, pick)
        if pick.random() < 0.1:
            trimmed = pick.choice(partitions)
            await world.topics.trim(1, {trimmed: pick.randrange(trimmed.next_offset + 1)})
        world.database.faults = lambda: pick.choice(answers)
        for _ in range(pick.randrange(80)):
            world.clock.time_ms += pick.choice([0, 0, 100, 15_000])
            try:
                await pick.choice(world.upkeep.chores).run()
            except PlatformError:
                continue
        world.database.faults = lambda: None
        if pick.random() < 0.15:
            world = await world.restarted()
            make_eager(world, pick)
        await check_models(world, ids, models)
    for _ in range(6):
        world.clock.time_ms += GRACE_MS + 1
        await world.run()
    await check_models(world, ids, models)
    await world.check()
    for _ in range(2):
        world.clock.time_ms += 6 * 3_600_000
        await world.run()
    keys = {key for (key,) in await world.rows("SELECT key FROM object WHERE live > 0")}
    assert world.stored_keys() == keys
    assert len(world.uploads) == 0
    assert world.upkeep.changes.rewriting == set()


async def check_models(world: UpkeepWorld, ids: list[int], models: list[Model]) -> None:
    for partition_id, model in zip(ids, models, strict=True):
        partition = world.registry.partition(partition_id)
        model.check(await world.records(partition), partition.log_start)


async def write_some(world: UpkeepWorld, partitions: list[Partition], models: list[Model], pick: random.Random) -> None:
    """A segment for one partition, or for each of them in one object."""
    parts = []
    for number in pick.choice([(0,), (1,), (0, 1)]):
        batches, model = [], models[number]
        for _ in range(pick.randrange(1, 4)):
            batch = []
            for _ in range(pick.randrange(1, 6)):
                value = None if pick.random() < 0.2 else pick.randbytes(pick.randrange(40))
                batch.append(record(f"k{pick.randrange(25)}", value, world.clock.time_ms))
            model.writes += [found._replace(offset=len(model.writes) + n) for n, found in enumerate(batch)]
            batches.append(batch)
        parts.append((partitions[number], batches))
    await world.shared_object(*parts)


async def test_on_files(tmp_path) -> None:
    database = SqliteDatabase(tmp_path / "metadata.db", durability="process")
    objects = LocalObjectStore(tmp_path / "segments", sync=False)
    world = await UpkeepWorld(database=database, objects=objects).start()
    try:
        partition = await compacted(world, min_cleanable_dirty_ratio=0.1)
        for number in range(20):
            await world.segment(partition, [record(n % 7, f"{number}-{n}") for n in range(20)])
            await clean(world)
        assert len(await world.records(partition)) == 7
        await world.check()
    finally:
        await database.close()
        objects.close()
