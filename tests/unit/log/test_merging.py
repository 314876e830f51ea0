"""Small segments become larger ones: what is merged, what it costs, and that readers see nothing of it."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import pytest
from fixtures.clocks import START_MS
from fixtures.upkeep_world import DAY_MS, GRACE_MS, UpkeepWorld, not_given_out, record

from penstock.base.errors import CorruptData, InvalidRequest, Unavailable
from penstock.log.segments import INDEX_STEP_BYTES, LONG_BYTES, MAX_SEGMENT_BYTES, SegmentBuilder, SegmentFacts
from penstock.log.upkeep import merging
from penstock.log.upkeep.merging import MergeLimits, MergeRange, plan

KIB, MIB = 1024, 1024 * 1024
WIDE = MergeLimits(max_bytes=64 * MIB, max_span_ms=2**62)


def test_an_index_has_points_as_far_as_they_reach() -> None:
    """How many offsets a batch takes is what its producer says."""
    builder, apart = SegmentBuilder(7), 2**31 - 1
    for number in range(5):
        builder.add(7 + number * apart, INDEX_STEP_BYTES, number)
    builder.cover(7 + 5 * apart - 1, 5, 0)
    segment = builder.finish(partition_id=1, object_id=b"", object_key="", byte_offset=0)
    places = [segment.position_for(7 + number * apart) for number in range(5)]
    assert [place // INDEX_STEP_BYTES for place in places] == [0, 1, 2, 2, 2]
    assert len(segment.time_index) == len(segment.offset_index)


def log_of(*sizes: int, step_ms: int = 0, offsets: int = 10) -> list[SegmentFacts]:
    return [
        SegmentFacts.of((n * offsets, (n + 1) * offsets - 1, size, n * step_ms, (n + 1) * step_ms, 0))
        for n, size in enumerate(sizes)
    ]


@pytest.mark.parametrize(
    ("segments", "limits", "expected"),
    [
        ([], WIDE, None),
        (log_of(*[KIB] * 7), WIDE, None),  # More is to come.
        (log_of(*[KIB] * 8), WIDE, MergeRange(0, 8)),
        (log_of(*[KIB] * 100), WIDE, MergeRange(0, 64)),
        (log_of(MIB, *[KIB] * 8), WIDE, MergeRange(1, 9)),  # The large one is left alone.
        (log_of(MIB, *[KIB] * 7), WIDE, None),
        (log_of(*[KIB] * 4, MIB, *[KIB] * 4), WIDE, None),  # It would be rewritten for little.
        (log_of(*[MIB] * 8, KIB, KIB), WIDE, MergeRange(0, 10)),  # Small ones go with the large ones around them.
        (log_of(MIB, *[KIB] * 7, MIB), WIDE, MergeRange(0, 9)),
        (log_of(40 * MIB, 20 * MIB, 5 * MIB), WIDE, MergeRange(0, 2)),  # The third does not fit: these two are final.
        (log_of(60 * MIB, 5 * MIB, 1 * MIB), WIDE, None),
        (log_of(*[60 * MIB] * 30), WIDE, None),
        (log_of(*[KIB] * 20, offsets=2**28), WIDE, MergeRange(0, 8)),  # Offsets are counted in 32 bits.
        (log_of(*[KIB] * 5, step_ms=DAY_MS), replace(WIDE, max_span_ms=3 * DAY_MS), MergeRange(0, 3)),
        (log_of(*[KIB] * 20, step_ms=DAY_MS), replace(WIDE, max_span_ms=DAY_MS), None),
        (log_of(*[KIB] * 10), replace(WIDE, cleaned_to=30), MergeRange(0, 3)),  # Not across what is clean.
        (log_of(*[KIB] * 10), replace(WIDE, cleaned_to=10), MergeRange(1, 10)),
        (log_of(*[MIB] * 100), replace(WIDE, long_bytes=MIB), None),  # Long enough.
        (log_of(KIB, MIB, KIB, KIB, MIB, *[KIB] * 8), replace(WIDE, long_bytes=MIB), MergeRange(2, 4)),
        (log_of(KIB, MIB, KIB, MIB, *[KIB] * 8), replace(WIDE, long_bytes=MIB), MergeRange(4, 12)),
    ],
)
def test_plan(segments, limits, expected) -> None:
    assert plan(segments, limits) == expected


@dataclass
class Cost:
    rewritten: int = 0
    most: int = 0


def drive(sizes: list[int], limits: MergeLimits = WIDE, *, step_ms: int = 0) -> tuple[Cost, list[SegmentFacts]]:
    """Append segments and merge whatever is to be merged after each."""
    log: list[SegmentFacts] = []
    cost = Cost()
    for number, size in enumerate(sizes):
        log.append(SegmentFacts.of((number, number, size, number * step_ms, number * step_ms, 0)))
        while (run := plan(log[-merging.LATEST :], limits)) is not None:
            start = max(0, len(log) - merging.LATEST) + run.start
            end = start + run.end - run.start
            assert end - start > 1
            parts = log[start:end]
            merged = SegmentFacts(
                base_offset=parts[0].base_offset, last_offset=parts[-1].last_offset,
                byte_length=sum(part.byte_length for part in parts),
                min_timestamp=min(part.min_timestamp for part in parts),
                max_timestamp=max(part.max_timestamp for part in parts),
            )  # fmt: skip
            assert merged.byte_length <= limits.max_bytes
            assert merged.max_timestamp - merged.min_timestamp <= limits.max_span_ms
            cost.rewritten += merged.byte_length
            log[start:end] = [merged]
        cost.most = max(cost.most, len(log))
    return cost, log


def test_rows_stay_few_and_bytes_are_rewritten_few_times() -> None:
    cost, _ = drive([KIB] * 20_000)
    assert cost.most <= 25
    assert cost.rewritten / (20_000 * KIB) <= 7


@pytest.mark.parametrize("seed", range(10))
def test_mixed_traffic(seed: int) -> None:
    pick = random.Random(seed)
    sizes = [int(2 ** pick.uniform(7, 24 if pick.random() < 0.1 else 14)) for _ in range(3000)]
    cost, _ = drive(sizes)
    assert cost.most <= 50 + 2 * sum(sizes) / (64 * MIB)
    assert cost.rewritten / sum(sizes) <= 4


def test_sparse_traffic_with_retention() -> None:
    """A record a minute, kept for a week: eight windows' worth of segments, and a segment spans a window at most."""
    limits = MergeLimits(max_bytes=64 * MIB, max_span_ms=7 * DAY_MS // 8)
    cost, log = drive([300] * 10_000, limits, step_ms=60_000)
    assert len(log) <= 40
    assert cost.rewritten / (300 * 10_000) <= 10


async def test_merged_records_are_the_same_and_their_indexes_lead_to_them() -> None:
    world = await UpkeepWorld().start()
    topic = await world.topic()
    (partition,) = topic.partitions
    pick = random.Random(1)
    for number in range(40):
        batches = [
            [record(f"{number}-{n}", pick.randbytes(2000), START_MS + pick.randrange(10_000)) for n in range(5)]
            for _ in range(2 + number % 3)
        ]
        await world.segment(partition, *batches)
    before = await world.records(partition)
    stale = await world.segments.lookup(partition, 0)
    assert stale is not None
    await world.run()
    assert await world.segment_count(partition) < 10
    await world.check()
    assert await world.records(partition) == before
    buffer = memoryview(bytearray(stale.byte_length))
    assert world.objects.read_into(stale.object_key, stale.byte_offset, buffer) == stale.byte_length
    refs = await world.segments.list(partition)
    assert any(len(ref.offset_index) > 8 for ref in refs), f"segments beyond {INDEX_STEP_BYTES} bytes have an index"
    for offset in range(0, partition.next_offset, 7):
        assert (await world.records(partition, offset))[0] == before[offset]
    for ref in refs:
        times = [found.timestamp for found in before[ref.base_offset : ref.last_offset + 1]]
        assert ref.max_timestamp == max(times)
        assert ref.record_count == len(times)
        for timestamp in times[::17]:
            below = before[ref.base_offset : ref.offset_before(timestamp)]
            assert all(found.timestamp < timestamp for found in below)
    world.clock.time_ms += GRACE_MS + 1
    await world.run()
    assert len(world.stored_keys()) == len(refs)
    assert await world.records(partition) == before


async def test_partitions_with_little_to_merge_share_an_object() -> None:
    world = await UpkeepWorld().start()
    topic = await world.topic(partitions=30)
    before = {}
    for number in range(8):
        for partition in topic.partitions:
            await world.segment(partition, [record(number, f"{partition.index}-{number}")])
            before[partition] = await world.records(partition)
    await world.run()
    await world.check()
    assert await world.rows("SELECT COUNT(*) FROM segment") == [(30,)]
    assert await world.rows("SELECT live FROM object WHERE live > 0") == [(30,)]
    assert {partition: await world.records(partition) for partition in topic.partitions} == before
    await world.topics.trim(1, dict.fromkeys(topic.partitions[1:], 8))
    await world.run()
    await world.check()
    world.clock.time_ms += GRACE_MS + 1
    await world.run()
    assert len(world.stored_keys()) == 1
    assert await world.records(topic.partitions[0]) == before[topic.partitions[0]]


async def test_what_merges_of_many_partitions_survives_a_conflict_in_one() -> None:
    world = await UpkeepWorld().start()
    topic = await world.topic(partitions=5)
    for number in range(8):
        for partition in topic.partitions:
            await world.segment(partition, [record(number)])
    await world.upkeep.merging.run()
    await world.upkeep.merging.run()
    await world.topics.trim(1, {topic.partitions[3]: 2})
    await world.run(world.upkeep.trimming)
    await world.run()
    await world.check()
    assert [await world.segment_count(partition) for partition in topic.partitions] == [1, 1, 1, 6, 1]


async def test_a_start_finds_partitions_with_many_small_segments() -> None:
    world = await UpkeepWorld().start()
    topic = await world.topic()
    (partition,) = topic.partitions
    for number in range(20):
        await world.segment(partition, [record(number)])
    world = await world.restarted()
    partition = world.registry.partition(partition.partition_id)
    await world.run()
    assert await world.segment_count(partition) < 8
    assert await world.upkeep.merging.run() is None
    assert await world.offsets(partition) == list(range(20))


async def test_segments_that_go_while_they_are_merged() -> None:
    world = await UpkeepWorld().start()
    topic = await world.topic()
    (partition,) = topic.partitions
    for number in range(8):
        await world.segment(partition, [record(number)])
    chore = world.upkeep.merging
    await chore.run()  # Looks for partitions.
    await chore.run()  # Plans.
    await world.topics.trim(1, {partition: 3})
    await world.upkeep.trimming.run()
    await world.run(chore)
    await world.check()
    assert await world.offsets(partition) == [3, 4, 5, 6, 7]
    assert len(world.stored_keys()) == 8, "what was written for nothing is deleted at once"
    assert len(world.uploads) == 0


async def test_a_deleted_topic_is_not_merged_on() -> None:
    world = await UpkeepWorld().start()
    topic = await world.topic()
    (partition,) = topic.partitions
    for number in range(8):
        await world.segment(partition, [record(number)])
    await world.upkeep.merging.run()
    await world.upkeep.merging.run()
    await world.topics.delete(1, [topic])
    await world.run()
    assert await world.rows("SELECT COUNT(*) FROM segment") == [(0,)]
    assert len(world.uploads) == 0
    assert world.upkeep.changes.rewriting == set()


async def test_damaged_segments_are_left_as_they_are() -> None:
    world = await UpkeepWorld().start()
    topic = await world.topic(partitions=2)
    damaged, fine = topic.partitions
    for number in range(8):
        await world.segment(damaged, [record(number)])
        await world.segment(fine, [record(number)])
    ref = (await world.segments.list(damaged))[3]
    world.objects.put(ref.object_key, [bytes(ref.byte_length)])
    with pytest.raises((CorruptData, InvalidRequest)):
        await world.run(world.upkeep.merging)
    await world.run()
    assert await world.segment_count(damaged) == 8
    assert await world.segment_count(fine) == 1
    assert len(world.uploads) == 0


async def test_a_segment_that_is_not_given_out_keeps_no_other_partition_from_being_merged() -> None:
    world = await UpkeepWorld().start()
    topic = await world.topic(partitions=3)
    for partition in topic.partitions:
        for number in range(8):
            await world.segment(partition, [record(number)])
    unread = topic.partitions[1]
    with not_given_out(world.objects, (await world.segments.list(unread))[3].object_key):
        with pytest.raises(Unavailable):
            await world.run(world.upkeep.merging)
        await world.run(world.upkeep.merging)
    assert [await world.segment_count(partition) for partition in topic.partitions] == [1, 8, 1]
    await world.segment(unread, [record(8)])
    await world.run(world.upkeep.merging)
    assert await world.segment_count(unread) == 1


async def test_a_batch_larger_than_a_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merging, "LONG_BYTES", 2**40)
    world = await UpkeepWorld().start()
    topic = await world.topic()
    (partition,) = topic.partitions
    for number in range(8):
        await world.segment(partition, [record(number, bytes(300_000 if number in (2, 4) else 10))])
    before = await world.records(partition)
    await world.run()
    assert await world.segment_count(partition) == 1
    assert await world.records(partition) == before


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"retention_ms": 8 * DAY_MS, "segment_ms": 3 * DAY_MS}, MergeLimits(max_bytes=64 * MIB, max_span_ms=DAY_MS)),
        ({"retention_ms": -1, "segment_ms": DAY_MS}, MergeLimits(max_bytes=64 * MIB, max_span_ms=DAY_MS)),
        ({"segment_bytes": MIB, "segment_ms": 1000}, MergeLimits(max_bytes=MIB, max_span_ms=1000)),
        ({"cleanup_policy": "compact", "retention_ms": 8}, MergeLimits(max_bytes=64 * MIB, max_span_ms=2**63 - 1)),
        (
            {"cleanup_policy": "compact", "min_compaction_lag_ms": 60_000},
            MergeLimits(max_bytes=64 * MIB, max_span_ms=60_000),
        ),
    ],
)
async def test_bounds_come_from_the_topic(config, expected) -> None:
    world = await UpkeepWorld().start()
    topic = await world.topic(**config)
    assert MergeLimits.of(topic.partitions[0]) == replace(expected, long_bytes=LONG_BYTES)


def test_segments_are_at_most_64_mib() -> None:
    assert MAX_SEGMENT_BYTES == 64 * MIB
