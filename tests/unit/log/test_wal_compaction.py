"""Commits move from the WAL into segments, and nobody who reads, produces, deletes or counts notices."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from dataclasses import replace

import pytest
from fixtures.compaction_world import LogWorld
from fixtures.log_world import batch, batches_in

from penstock.base.errors import CorruptData, Unavailable
from penstock.log.segments import INDEX_STEP_BYTES
from penstock.log.upkeep.compaction_output import SLICE
from penstock.log.upkeep.wal_backlog import CompactionPolicy
from penstock.log.upkeep.wal_plan import CompactionPlan
from penstock.metadata.inline import InlineDatabase
from penstock.metadata.sqlite import SqliteDatabase
from penstock.storage.local import LocalObjectStore
from penstock.storage.memory import MemoryObjectStore, MemoryWal
from penstock.storage.slabs import SlabWal


class Setup:
    """Where a world's data is, and how the next life finds it."""

    def __init__(self, kind, tmp_path):
        self.kind, self.path = kind, tmp_path
        self.worlds = []

    def stores(self):
        if self.kind == "memory":
            return InlineDatabase(), MemoryWal(2**30), MemoryObjectStore()
        return (
            SqliteDatabase(self.path / "metadata.db", durability="process"),
            SlabWal(self.path / "slabs", durability="disk", slab_bytes=1024 * 1024),
            LocalObjectStore(self.path / "segments", sync=True),
        )

    async def world(self, **options):
        world = await LogWorld(*self.stores(), **options).open()
        self.worlds.append(world)
        return world

    async def restarted(self, world, **options):
        await world.writer.drain()
        await world.database.close()
        if self.kind == "memory":
            successor = await world.restarted(world.database.reopen(), **options)
        else:
            world.wal.close()
            database, wal, _ = self.stores()
            successor = await world.restarted(database, wal, **options)
        self.worlds.append(successor)
        return successor


@pytest.fixture(params=["memory", "disk"])
async def setup(request, tmp_path):
    found = Setup(request.param, tmp_path)
    yield found
    for world in found.worlds:
        await world.database.close()
        world.wal.close()
        world.objects.close()


async def contents_of(world, topic):
    return [await world.contents(partition) for partition in topic.partitions]


async def objects_in(world):
    return {info.key: info.size_bytes for info in world.objects.list("")}


@pytest.mark.parametrize("in_memory", [True, False], ids=["from the tail", "from the wal"])
async def test_what_is_read_stays_the_same(setup, in_memory):
    world = await setup.world()
    topic = await world.topic("orders", 5)
    await world.fill(topic.partitions, commits=7, size_bytes=300)
    await world.fill(topic.partitions[1:3], commits=3, size_bytes=200_000, mark=100)
    await world.append(*[(topic.partitions[4], batch(2, size_bytes=30_000, mark=n)) for n in range(20)])
    before = await contents_of(world, topic)
    assert [len(batches_in(body)) for body in before] == [7, 10, 10, 7, 27]
    if not in_memory:
        world.forget_tail()
        assert all(span.view is None for partition in topic.partitions for span in partition.spans)
    sizes = [partition.size_bytes for partition in topic.partitions]
    await world.compaction.compact_everything()
    assert world.compaction.stats.read_bytes == 0 if in_memory else world.compaction.stats.read_bytes > 0
    assert await contents_of(world, topic) == before
    world.forget_tail()
    assert all(not partition.spans for partition in topic.partitions)
    assert await contents_of(world, topic) == before
    assert [partition.size_bytes for partition in topic.partitions] == sizes
    assert await world.rows("SELECT COUNT(*) FROM wal_commit") == [(0,)]
    assert sum((await objects_in(world)).values()) == sum(map(len, before))
    again = await setup.restarted(world)
    assert await contents_of(again, again.registry.by_name(1, "orders")) == before
    assert [partition.size_bytes for partition in again.registry.by_name(1, "orders").partitions] == sizes


async def test_the_log_goes_on_after_a_pass_and_a_restart(setup):
    world = await setup.world()
    topic = await world.topic("orders", 2)
    expected = []
    for life in range(3):
        for part in range(2):
            await world.fill(world.registry.by_name(1, "orders").partitions, commits=3, mark=10 * life + part)
            if part == 0:
                await world.compaction.compact_everything()
        expected.extend(10 * life + part + commit for part in range(2) for commit in range(3))
        world = await setup.restarted(world)
    topic = world.registry.by_name(1, "orders")
    for body in await contents_of(world, topic):
        assert [mark for _, _, mark in batches_in(body)] == expected
        assert [base for base, _, _ in batches_in(body)] == list(range(0, 3 * len(expected), 3))
    assert topic.partitions[0].segmented_to == 3 * 15
    assert topic.partitions[0].next_offset == 3 * 18


async def test_space_in_the_wal_is_free_again(setup):
    world = await setup.world()
    topic = await world.topic("orders", 3)
    await world.fill(topic.partitions, commits=30, size_bytes=60_000)
    held = world.backlog.size_bytes
    assert held >= 30 * 3 * 60_000
    await world.compaction.compact_everything()
    assert (world.backlog.rows, world.backlog.entries, world.backlog.size_bytes) == (0, 0, 0)
    if setup.kind == "disk":
        assert world.wal.stats().live_bytes == 0
    else:
        assert world.wal._held_bytes == 0


async def test_index_points_are_at_batches_and_times_before_them(setup):
    world = await setup.world()
    topic = await world.topic("orders")
    (partition,) = topic.partitions
    for number in range(30):
        await world.append(*[(partition, batch(4, size_bytes=9_000, timestamp=1000 * number + n)) for n in range(8)])
        if number == 14:
            world.forget_tail()  # Half of them are read back.
    body = await world.contents(partition)
    await world.compaction.compact_everything()
    (ref,) = await world.segments.list(partition)
    assert (ref.base_offset, ref.last_offset, ref.record_count) == (0, 30 * 32 - 1, 30 * 32)
    assert (ref.byte_length, ref.max_timestamp) == (len(body), 29_007)
    starts, position = {}, 0
    for base, count, _ in batches_in(body):
        starts[base] = position
        position += 9_000
        for offset in (base, base + count - 1):
            found = ref.position_for(offset)
            assert found in starts.values()
            assert 0 <= starts[base] - found < 2 * INDEX_STEP_BYTES
    assert len(ref.offset_index) > 0
    assert ref.offset_before(29_000) > 0


async def test_duplicates_are_known_after_compaction_and_restart(setup):
    world = await setup.world()
    topic = await world.topic("orders", 2)
    sent = {}
    for number in range(9):
        for partition in topic.partitions:
            for producer in (7, 8):
                accepted = batch(2, producer_id=producer, sequence=2 * number, mark=number)
                (answer,) = await world.append((partition, accepted))
                sent[partition.index, producer, number] = answer.base_offset
        if number in (2, 6):
            await world.compaction.compact_everything()
    for life in range(2):
        world = await setup.restarted(world)
        for index in range(2):
            partition = world.partition("orders", index)
            for producer in (7, 8):
                assert [b.first_sequence for b in partition.producers[producer].batches] == [8, 10, 12, 14, 16]
                for number in range(4, 9):
                    again = batch(2, producer_id=producer, sequence=2 * number, mark=number)
                    (answer,) = await world.append((partition, again))
                    assert answer.base_offset == sent[index, producer, number]
            assert partition.next_offset == 36
        if life == 0:
            await world.compaction.compact_everything()


async def test_a_new_epoch_forgets_the_old_one_across_passes(setup):
    world = await setup.world()
    (partition,) = (await world.topic("orders")).partitions
    for number in range(3):
        await world.append((partition, batch(1, producer_id=7, epoch=0, sequence=number)))
    await world.compaction.compact_everything()
    await world.append((partition, batch(1, producer_id=7, epoch=0, sequence=3)))
    await world.append((partition, batch(1, producer_id=7, epoch=1, sequence=0)))
    await world.compaction.compact_everything()
    await world.append((partition, batch(1, producer_id=7, epoch=1, sequence=1)))
    world = await setup.restarted(world)
    state = world.partition("orders").producers[7]
    assert (state.epoch, [b.first_sequence for b in state.batches]) == (1, [0, 1])


async def test_usage_is_what_was_appended_even_to_topics_deleted_meanwhile(setup):
    world = await setup.world(policy=CompactionPolicy(pass_bytes=20_000))
    kept, gone = await world.topic("kept", 3), await world.topic("gone", 2)
    total = await world.fill(kept.partitions, commits=5, size_bytes=500)
    total += await world.fill(gone.partitions, commits=5, size_bytes=700)
    world.clock.time_ms += 3_600_000
    total += await world.fill([*kept.partitions, *gone.partitions], commits=5, size_bytes=900)
    await world.topics.delete(1, [gone])
    await world.compaction.compact_everything()
    assert world.compaction.stats.passes > 1
    rows = await world.rows("SELECT metric, SUM(value), COUNT(*) FROM usage GROUP BY metric ORDER BY metric")
    assert rows == [(1, total, 2), (2, 3 * (5 * 3 + 5 * 2 + 5 * 5), 2)]
    # What was deleted has left no trace, not even bytes.
    assert await world.rows(
        "SELECT COUNT(*) FROM segment WHERE partition_id = $1", gone.partitions[0].partition_id
    ) == [(0,)]
    live = sum([partition.size_bytes for partition in kept.partitions])
    assert sum((await objects_in(world)).values()) == live


async def test_a_pass_over_nothing_but_deleted_topics_leaves_no_object(setup):
    world = await setup.world()
    gone = await world.topic("gone", 2)
    await world.fill(gone.partitions, commits=5)
    await world.topics.delete(1, [gone])
    await world.compaction.compact_everything()
    assert await objects_in(world) == {}
    assert await world.rows("SELECT COUNT(*) FROM object") == [(0,)]
    assert world.backlog.rows == 0


async def test_what_is_below_the_log_start_is_not_written(setup):
    world = await setup.world()
    topic = await world.topic("orders", 2)
    await world.fill(topic.partitions, commits=10)
    trimmed, emptied = topic.partitions
    await world.topics.trim(1, {trimmed: 13, emptied: 30})
    before = await contents_of(world, topic)
    await world.compaction.compact_everything()
    world.forget_tail()
    assert await contents_of(world, topic) == before
    (ref,) = await world.segments.list(trimmed)
    assert ref.base_offset == 12
    assert await world.segments.list(emptied) == []
    assert (trimmed.size_bytes, emptied.size_bytes) == (ref.byte_length, 0)
    assert await world.rows("SELECT size_bytes, segmented_to FROM partition ORDER BY partition_id") == [
        (ref.byte_length, 30),
        (0, 30),
    ]
    await world.fill(topic.partitions, commits=1)
    world = await setup.restarted(world)
    assert world.partition("orders", 1).next_offset == 33


async def test_others_have_their_turn_however_many_batches_a_commit_has(setup, monkeypatch):
    world = await setup.world()
    (partition,) = (await world.topic("orders", 1)).partitions
    for number in range(6):
        await world.append(*[(partition, batch(producer_id=one, sequence=number)) for one in range(SLICE * 2)])
    turn, planned = 0, []

    async def others():
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    def add(plan, commit, original=CompactionPlan.add):
        planned.append(turn)
        original(plan, commit)

    monkeypatch.setattr(CompactionPlan, "add", add)
    running = asyncio.ensure_future(others())
    await world.compaction.compact_everything()
    running.cancel()
    assert len(planned) == len(set(planned)) == 6


async def test_passes_are_bounded_and_segments_are_cut(setup, monkeypatch):
    monkeypatch.setattr("penstock.log.upkeep.compaction_output.MAX_SEGMENT_BYTES", 500_000)
    world = await setup.world(policy=CompactionPolicy(pass_bytes=2_000_000))
    (partition,) = (await world.topic("orders")).partitions
    await world.fill([partition], commits=30, size_bytes=150_000)
    before = await world.contents(partition)
    await world.compaction.compact_everything()
    assert world.compaction.stats.passes == 3
    refs = await world.segments.list(partition)
    assert all(ref.byte_length <= 500_000 for ref in refs)
    assert [ref.base_offset for ref in refs[1:]] == [ref.last_offset + 1 for ref in refs[:-1]]
    world.forget_tail()
    assert await world.contents(partition) == before


async def test_a_batch_larger_than_anything_else(setup):
    world = await setup.world(policy=CompactionPolicy(pass_bytes=200_000))
    topic = await world.topic("orders", 2)
    await world.append((topic.partitions[0], batch(2, size_bytes=9_000_000, mark=1)))
    await world.fill(topic.partitions, commits=2)
    before = await contents_of(world, topic)
    world.forget_tail()
    await world.compaction.compact_everything()
    assert await contents_of(world, topic) == before


async def test_it_starts_by_size_rows_entries_or_age_and_then_is_silent(setup):
    policy = CompactionPolicy(start_bytes=100_000, start_rows=20, start_entries=60, max_age_ms=60_000, sparse_bytes=0)
    world = await setup.world(policy=policy)
    woken = []
    world.backlog.wake = lambda: woken.append(world.backlog.rows)
    topic = await world.topic("orders", 10)
    one = topic.partitions[:1]
    assert await world.compaction.run() is None
    await world.fill(one, commits=1)
    assert woken == [1]
    world.clock.time_ms += 10_000
    assert await world.compaction.run() == 50
    world.clock.time_ms += 50_000
    assert await world.compaction.run() is None
    assert world.compaction.stats.passes == 1
    for count, commits, size_bytes, partitions in ((2, 20, 100, 1), (3, 2, 60_000, 1), (4, 6, 100, 10)):
        woken.clear()
        await world.fill(topic.partitions[:partitions], commits=commits, size_bytes=size_bytes)
        assert woken[-1] == commits
        assert await world.compaction.run() is None
        assert world.compaction.stats.passes == count
    woken.clear()
    assert await world.compaction.run() is None
    assert woken == []


async def test_who_follows_is_told(setup):
    world = await setup.world()
    topic = await world.topic("orders", 3)
    await world.fill(topic.partitions[1:], commits=2)
    await world.compaction.compact_everything()
    assert world.told == [partition.partition_id for partition in topic.partitions[1:]]
    assert len(world.uploads) == 0


async def adopting_world(tmp_path, monkeypatch, **options):
    monkeypatch.setattr("penstock.log.upkeep.wal_plan.LONG_BYTES", 100_000)
    monkeypatch.setattr("penstock.log.writer.LONG_BYTES", 100_000)
    setup = Setup("disk", tmp_path)
    return setup, await setup.world(adopted_min_bytes=500_000, **options)


async def close(world):
    await world.database.close()
    world.wal.close()
    world.objects.close()


async def test_files_of_long_stretches_become_objects_as_they_are(tmp_path, monkeypatch):
    setup, world = await adopting_world(tmp_path, monkeypatch)
    orders, small = await world.topic("orders", 2), await world.topic("small")
    for number in range(12):
        batches = [(partition, batch(2, size_bytes=30_000, mark=number)) for partition in orders.partitions * 5]
        await world.append(*batches, (small.partitions[0], batch(1, size_bytes=500, mark=number)))
    before = [*await contents_of(world, orders), *await contents_of(world, small)]
    slabs = {path.name for path in (tmp_path / "slabs").iterdir()}
    await world.compaction.compact_everything()
    stats = world.compaction.stats
    assert stats.adopted_bytes >= 2_700_000
    assert stats.written_bytes <= 12 * 500 + 3 * 300_000  # What the file has that was not full.
    assert stats.read_bytes == 0
    world.forget_tail()
    assert [*await contents_of(world, orders), *await contents_of(world, small)] == before
    refs = await world.segments.list(orders.partitions[0])
    assert [ref.base_offset for ref in refs] == [0, *(ref.last_offset + 1 for ref in refs[:-1])]
    for ref in refs[:5]:
        assert len(ref.offset_index) > 0
        assert ref.position_for(ref.base_offset + 7) == 90_000
    # They are not part of the log any more, so nothing is ever written to them.
    left = {path.name for path in (tmp_path / "slabs").iterdir()}
    assert len(slabs - left) >= 3
    assert all((tmp_path / "segments" / ref.object_key).stat().st_nlink == 1 for ref in refs)
    await world.fill(small.partitions, commits=100, size_bytes=60_000, mark=50)
    await world.compaction.compact_everything()
    world = await setup.restarted(world)
    assert await contents_of(world, world.registry.by_name(1, "orders")) == before[:2]
    await close(world)


async def test_a_growing_file_waits_until_it_is_full_or_too_old(tmp_path, monkeypatch):
    policy = CompactionPolicy(start_bytes=600_000, pass_bytes=1_000_000, max_age_ms=60_000)
    _, world = await adopting_world(tmp_path, monkeypatch, policy=policy)
    (partition,) = (await world.topic("orders")).partitions
    await world.fill([partition], commits=3, size_bytes=230_000)
    assert await world.compaction.run() == 60
    assert (world.compaction.stats.passes, world.backlog.rows) == (0, 3)
    assert await world.compaction.run() == 60
    await world.fill([partition], commits=3, size_bytes=230_000)
    assert await world.compaction.run() == 60
    assert (world.compaction.stats.passes, world.backlog.rows) == (1, 2)  # Four were in the file that is full.
    assert world.compaction.stats.written_bytes == 0
    world.clock.time_ms += 60_000
    assert await world.compaction.run() is None
    assert (world.compaction.stats.passes, world.backlog.rows) == (2, 0)
    assert world.compaction.stats.written_bytes == 460_000
    world.forget_tail()
    assert [mark for _, _, mark in batches_in(await world.contents(partition))] == [0, 1, 2, 0, 1, 2]
    await close(world)


async def test_where_files_cannot_have_two_names_they_are_copied(tmp_path, monkeypatch):
    _, world = await adopting_world(tmp_path, monkeypatch)
    monkeypatch.setattr("penstock.storage.local.os.link", refusing_link)
    (partition,) = (await world.topic("orders")).partitions
    await world.fill([partition], commits=12, size_bytes=230_000)
    before = await world.contents(partition)
    await world.compaction.compact_everything()
    assert (world.compaction.stats.adopted_bytes, world.compaction.stats.written_bytes) == (0, len(before))
    world.forget_tail()
    assert await world.contents(partition) == before
    assert len(world.uploads) == 0
    await close(world)


def refusing_link(source, target):
    raise OSError(errno.EPERM, "this file system has no hard links")


async def test_stretches_of_before_a_restart_are_copied(tmp_path, monkeypatch):
    setup, world = await adopting_world(tmp_path, monkeypatch)
    await world.topic("orders")
    await world.fill([world.partition("orders")], commits=12, size_bytes=230_000)
    before = await world.contents(world.partition("orders"))
    world = await setup.restarted(world)
    await world.compaction.compact_everything()
    assert world.compaction.stats.adopted_bytes == 0
    world.forget_tail()
    assert await world.contents(world.partition("orders")) == before
    await close(world)


async def test_short_segments_are_read_several_at_once(tmp_path, monkeypatch):
    _, world = await adopting_world(tmp_path, monkeypatch)
    (partition,) = (await world.topic("orders")).partitions
    await world.fill([partition], commits=24, size_bytes=110_000)
    before = await world.contents(partition)
    await world.compaction.compact_everything()
    world.forget_tail()
    refs = await world.segments.list(partition)
    assert len(refs) > 15
    world.segments.add(refs)
    reads = world.reader.cold_reads
    assert await world.contents(partition, max_bytes=1_000_000) == before
    assert world.reader.cold_reads - reads <= 4
    assert await world.contents(partition, start=4, max_bytes=1_000_000) == before[110_000:]
    # What is damaged or gone further on does not keep from what is asked for.
    damaged = next(ref for ref in refs if ref.base_offset == 12)
    path = tmp_path / "segments" / damaged.object_key
    good = path.read_bytes()
    path.write_bytes(good[: damaged.byte_offset] + bytes(61) + good[damaged.byte_offset + 61 :])
    (found,) = await world.reader.read_batches(partition, 9, 1_000_000)
    assert bytes(found) == before[330_000:440_000]
    with pytest.raises(CorruptData):
        await world.reader.read_batches(partition, 12, 1_000_000)
    await close(world)


@pytest.mark.parametrize(
    ("place", "data", "readable"),
    [
        (8, b"\0\0\0\0", 3),  # The length of the second batch.
        (8, b"\xff\xff\xff\xf3", 3),
        (8, b"\x7f\xff\xff\xff", 3),
        (23, b"\xff\xff\xff\xff", 3),  # How many offsets it takes.
        (23, b"\0\0\0\x05", 0),
    ],
)
async def test_damage_in_the_log_keeps_nobody_from_being_compacted(tmp_path, place, data, readable):
    world = await Setup("memory", tmp_path).world()
    damaged, fine = (await world.topic("orders", 2)).partitions
    await world.fill([damaged, fine], commits=1)
    await world.append(*[(damaged, batch(3, mark=mark)) for mark in (10, 11, 12)], (fine, batch(3, mark=10)))
    await world.fill([damaged, fine], commits=1, mark=20)
    before, of_others = await world.contents(damaged), await world.contents(fine)
    world.forget_tail()
    span = damaged.spans[1]
    body = bytearray(world.wal._objects[span.location.key])
    at = span.byte_start + span.byte_length // 3 + place
    body[at : at + 4] = data
    world.wal._objects[span.location.key] = bytes(body)
    await world.compaction.compact_everything()
    assert damaged.segmented_to == damaged.next_offset == 15
    assert await world.contents(fine) == of_others
    assert batches_in(await world.contents(damaged, start=12)) == [(12, 3, 20)]
    found = batches_in(b"".join(await world.reader.read_batches(damaged, 0, 1)))
    assert found == [(0, 3, 0)]
    if readable:
        (good,) = await world.reader.read_batches(damaged, 3, 1_000_000)
        assert before.startswith(bytes(good), 300 // 3)
        assert batches_in(good) == [(3, 3, 10)]
    for offset in range(3 + readable, 12):
        with pytest.raises(CorruptData):
            await world.reader.read_batches(damaged, offset, 1_000_000)


@contextlib.contextmanager
def not_given_out(tmp_path, location):
    """The disk does not give out a WAL object, whatever names its file has."""
    number = (tmp_path / "slabs" / location.key).stat().st_ino
    read, first, last = os.preadv, location.offset, location.offset + location.length

    def preadv(descriptor, buffers, offset, *flags):
        size = sum(memoryview(buffer).nbytes for buffer in buffers)
        if os.fstat(descriptor).st_ino == number and offset < last and first < offset + size:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read(descriptor, buffers, offset, *flags)

    def pread(descriptor, size, offset):
        buffer = bytearray(size)
        return bytes(buffer[: preadv(descriptor, [buffer], offset)])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "preadv", preadv)
        patch.setattr(os, "pread", pread)
        yield


async def test_what_the_disk_does_not_give_out_keeps_nobody_from_being_compacted(tmp_path):
    world = await Setup("disk", tmp_path).world()
    topic = await world.topic("orders", 2)
    await world.fill(topic.partitions, commits=25, size_bytes=50_000)
    before = await contents_of(world, topic)
    world.forget_tail()
    spans = topic.partitions[0].spans
    location = spans[2].location
    assert location.key != spans[-1].location.key  # So nothing is added to its file any more.
    with not_given_out(tmp_path, location):
        for compacted in (False, True):
            if compacted:
                await world.compaction.compact_everything()
            for partition, body in zip(topic.partitions, before, strict=True):
                # What is before it is read, and what is behind it; it alone is not.
                assert batches_in(b"".join(await world.reader.read_batches(partition, 0, 1_000_000)))[:1] == [(0, 3, 0)]
                assert await world.contents(partition, start=9) == body[150_000:]
                for offset in (6, 8):
                    with pytest.raises(Unavailable):
                        await world.reader.read_batches(partition, offset, 1_000_000)
        assert (world.backlog.rows, world.compaction.stats.unreadable_bytes) == (0, location.length)
        assert not (tmp_path / "slabs" / location.key).exists()
    assert await contents_of(world, topic) == before  # Somebody has the disk read it after all.
    await close(world)


async def test_what_is_not_given_out_of_a_file_that_still_grows_waits(tmp_path):
    world = await Setup("disk", tmp_path).world()
    topic = await world.topic("orders", 2)
    await world.fill(topic.partitions, commits=4, size_bytes=50_000)
    world.forget_tail()
    with not_given_out(tmp_path, topic.partitions[0].spans[2].location):
        with pytest.raises(Unavailable):
            await world.compaction.compact_everything()
        await world.fill(topic.partitions, commits=20, size_bytes=50_000, mark=4)
        await world.compaction.compact_everything()
    assert world.backlog.rows == 0
    for partition in topic.partitions:
        assert batches_in(await world.contents(partition)) == [(3 * mark, 3, mark) for mark in range(24)]
    await close(world)


async def test_little_for_many_partitions_waits_longer(tmp_path):
    world = await Setup("memory", tmp_path).world()
    sparse = await world.topic("sparse", 20)
    await world.fill(sparse.partitions, commits=3)
    assert await world.compaction.run() == 60
    world.clock.time_ms += 60_000
    assert await world.compaction.run() == 540
    assert world.compaction.stats.passes == 0
    world.clock.time_ms += 500_000
    assert await world.compaction.run() == 40
    world.clock.time_ms += 40_000
    assert await world.compaction.run() is None
    assert world.compaction.stats.passes == 1
    # It is not little any more, so it does not wait; and the next little waits again.
    await world.fill(sparse.partitions, commits=1)
    await world.fill(sparse.partitions[:5], commits=5, size_bytes=100_000)
    world.clock.time_ms += 60_000
    assert await world.compaction.run() is None
    await world.fill(sparse.partitions, commits=1)
    world.clock.time_ms += 60_000
    assert await world.compaction.run() == 540
    await close(world)


async def test_compacted_topics_do_not_wait_longer(tmp_path):
    world = await Setup("memory", tmp_path).world()
    topic = await world.topic("keys", 20)
    topic.config = replace(topic.config, compact=True)
    await world.fill(topic.partitions, commits=3)
    world.clock.time_ms += 60_000
    assert await world.compaction.run() is None
    assert world.compaction.stats.passes == 1
    await close(world)
