"""A log some of whose clusters are encrypted: written, read, compacted, damaged, rotated, erased."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Collection, Sequence
from pathlib import Path
from struct import pack_into
from typing import Any

import pytest
from fixtures.compaction_world import LogWorld
from fixtures.key_services import FakeKeyService
from fixtures.log_world import batches_in, topic_of

from penstock.agent.settings import SETTINGS
from penstock.base.errors import PlatformError, Unavailable
from penstock.base.randomness import SeededRandomness
from penstock.base.settings import LiveSettings
from penstock.keys.model import DataKey, KeysErased, LockReason
from penstock.log.batches import Accepted
from penstock.log.commits import CommitEntry, ProducerBatch
from penstock.log.flush import Flush
from penstock.log.model import NO_TIMESTAMP, EntrySeal, Partition, ProducerState, SequenceBatch, Topic
from penstock.log.partial_commits import decide
from penstock.log.reader import MAX_COLD_READS
from penstock.log.sealing import Sealing, read_span
from penstock.log.seals import BrokenSeal, RangeCipher, stored_bytes
from penstock.log.topics import NewTopic
from penstock.log.upkeep.cleaner import Cleaner
from penstock.log.upkeep.merging import Merging
from penstock.log.upkeep.spent_keys import SpentKeys
from penstock.log.writer import forget_views
from penstock.metadata.sqlite import SqliteDatabase
from penstock.storage.local import LocalObjectStore
from penstock.storage.slabs import SlabWal
from penstock.wire.error_codes import ErrorCode
from penstock.wire.records import HEADER_BYTES, Record, build_batch, crc_of

SECRET, OPEN = b"swordfish-of-the-sealed-tenant", b"loudhailer-of-the-open-tenant"
SEALED, PLAIN = 1, 2


class House:
    """Where everything is kept, and the lives of a process that keeps it."""

    def __init__(self, path: Path) -> None:
        self.path, self.service, self.worlds = path, FakeKeyService(), []

    def stores(self) -> tuple[Any, Any, Any]:
        return (
            SqliteDatabase(self.path / "metadata.db", durability="process"),
            SlabWal(self.path / "slabs", durability="process", slab_bytes=1024 * 1024),
            LocalObjectStore(self.path / "segments", sync=False),
        )

    async def world(self, **options: Any) -> LogWorld:
        world = await LogWorld(*self.stores(), key_service=self.service, **options).open()
        self.worlds.append(world)
        await world.keys.encrypt(SEALED)
        return world

    async def restarted(self, world: LogWorld, **options: Any) -> LogWorld:
        await self.close(world)
        database, wal, objects = self.stores()
        successor = await world.restarted(database, wal, objects, **options)
        self.worlds[-1] = successor
        return successor

    async def close(self, world: LogWorld) -> None:
        await world.writer.drain()
        await world.keys.close()
        await world.database.close()
        world.wal.close()
        world.objects.close()

    def holds(self, marker: bytes) -> list[str]:
        """The files that have it."""
        files = [file for file in self.path.rglob("*") if file.is_file()]
        assert any(file.suffix == ".slab" for file in files)
        return sorted(str(file.relative_to(self.path)) for file in files if marker in file.read_bytes())


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    house = House(tmp_path)
    yield house
    for world in house.worlds:
        await house.close(world)


async def topic_in(world: LogWorld, cluster_id: int, name: str = "t", partitions: int = 1) -> Topic:
    (topic,) = await world.topics.create(cluster_id, [NewTopic(name=name, partition_count=partitions)])
    assert isinstance(topic, Topic), topic
    return topic


def partition_in(world: LogWorld, cluster_id: int, name: str = "t", index: int = 0) -> Partition:
    topic = world.registry.by_name(cluster_id, name)
    assert topic is not None
    return topic.partitions[index]


def marked(marker: bytes, *, size_bytes: int = 200, mark: int = 0, count: int = 1) -> Accepted:
    """A batch full of a marker."""
    data = bytearray(max(size_bytes, HEADER_BYTES + len(marker) + 8))
    room = len(data) - HEADER_BYTES
    data[HEADER_BYTES:] = (marker * (room // len(marker) + 1))[:room]
    pack_into(">qiibi", data, 0, 0, len(data) - 12, 0, 2, 0)
    pack_into(">iqq", data, 23, count - 1, 5, 5)
    pack_into(">q", data, len(data) - 8, mark)
    pack_into(">I", data, 17, crc_of(data))
    return Accepted(bytes(data), count, -1, 0, -1, 5, NO_TIMESTAMP)


async def marks_of(world: LogWorld, partition: Partition, **options: Any) -> list[tuple[int, int, int]]:
    return batches_in(await world.contents(partition, **options))


async def fill(world: LogWorld, sizes: Sequence[int], *, first: int = 0) -> None:
    """One batch of each size to a sealed and to an open partition, together."""
    sealed, plain = partition_in(world, SEALED), partition_in(world, PLAIN)
    for mark, size in enumerate(sizes, first):
        answers = await world.append(
            (plain, marked(OPEN, size_bytes=size, mark=mark)), (sealed, marked(SECRET, size_bytes=size, mark=mark))
        )
        assert [answer.error for answer in answers] == [ErrorCode.NONE] * 2


def expected(count: int) -> list[tuple[int, int, int]]:
    return [(number, 1, number) for number in range(count)]


SIZES = (100, 5_000, 70_000, 200, 300_000, 100, 65_000, 10, 10, 400_000)


async def begun(house: House, **options: Any) -> LogWorld:
    world = await house.world(**options)
    for cluster_id in (SEALED, PLAIN):
        await topic_in(world, cluster_id)
    await fill(world, SIZES)
    return world


@pytest.mark.parametrize("adopted_min_bytes", [1, 2**30], ids=["adopted", "copied"])
async def test_nothing_of_an_encrypted_cluster_is_readable_in_files_and_everything_by_its_consumers(
    house: House, adopted_min_bytes: int
) -> None:
    world = await begun(house, adopted_min_bytes=adopted_min_bytes)
    sealed, plain = partition_in(world, SEALED), partition_in(world, PLAIN)
    count = len(SIZES)
    assert await marks_of(world, sealed) == expected(count)  # From memory.
    world.forget_tail()
    for partition in (sealed, plain):
        assert await marks_of(world, partition) == expected(count)  # From the log.
    world = await house.restarted(world)
    sealed, plain = partition_in(world, SEALED), partition_in(world, PLAIN)
    for partition in (sealed, plain):
        assert await marks_of(world, partition) == expected(count)
    await fill(world, SIZES, first=count)  # What is still in memory is compacted with what is not.
    assert house.holds(SECRET) == []
    await world.compaction.compact_everything()
    if adopted_min_bytes == 1:
        assert world.compaction.stats.adopted_bytes
    world.forget_tail()
    for start in range(2 * count):
        assert await marks_of(world, sealed, start=start, max_bytes=1) == expected(2 * count)[start:]
    assert await marks_of(world, plain) == expected(2 * count)
    assert house.holds(SECRET) == []
    assert house.holds(OPEN)  # The search finds what is there.
    world = await house.restarted(world)
    assert await marks_of(world, partition_in(world, SEALED)) == expected(2 * count)
    open_segments = "SELECT COUNT(*) FROM segment WHERE key_id IS NULL AND partition_id = $1"
    assert await world.rows(open_segments, sealed.partition_id) == [(0,)]


async def test_memory_that_is_used_again_does_not_reach_the_disk_behind_what_others_write(house: House) -> None:
    """A body is padded to whole pages, with whatever its memory had before."""
    world = await house.world(tail_bytes=64 * 1024)
    for cluster_id in (SEALED, PLAIN):
        await topic_in(world, cluster_id)
    sealed, plain = partition_in(world, SEALED), partition_in(world, PLAIN)
    for mark in range(40):
        await world.append((sealed, marked(SECRET, size_bytes=9_000, mark=mark)))
        await world.append((plain, marked(OPEN, size_bytes=100, mark=mark)))
    assert house.holds(SECRET) == []


async def test_where_nobody_is_encrypted_nothing_is_wiped_or_copied(house: House) -> None:
    world = await LogWorld(*house.stores(), key_service=house.service).open()
    house.worlds.append(world)
    await topic_in(world, PLAIN)
    plain = partition_in(world, PLAIN)
    flushes = []
    commit = world.commit_path.commit
    world.commit_path.commit = lambda *args: flushes.append(args) or commit(*args)  # type: ignore[method-assign,func-returns-value]
    await world.append((plain, marked(OPEN)))
    ((body, entries, _, _),) = flushes
    assert entries[0].seal is None
    view = plain.spans[0].view
    assert view is not None
    assert view.obj is body.obj


async def test_encryption_that_begins_later_seals_what_is_written_from_then_on(house: House) -> None:
    world = await LogWorld(*house.stores(), key_service=house.service).open()
    house.worlds.append(world)
    for cluster_id in (SEALED, PLAIN):
        await topic_in(world, cluster_id)
    sealed = partition_in(world, SEALED)
    await world.append((sealed, marked(b"before-it-began", mark=0)))
    await world.keys.encrypt(SEALED)
    await world.append((sealed, marked(SECRET, mark=1)))
    world.forget_tail()
    assert await marks_of(world, sealed) == expected(2)
    assert house.holds(b"before-it-began")
    assert house.holds(SECRET) == []
    await world.compaction.compact_everything()
    assert await marks_of(world, sealed) == expected(2)
    assert await world.rows("SELECT COUNT(*) FROM segment WHERE key_id IS NULL") == [(0,)]


async def test_a_range_that_was_touched_is_refused_and_its_neighbours_are_not(house: House) -> None:
    world = await begun(house)
    sealed, plain = partition_in(world, SEALED), partition_in(world, PLAIN)
    world.forget_tail()
    span = sealed.spans[2]
    assert span.location is not None
    assert span.seal is not None
    slab = house.path / "slabs" / span.location.key
    with slab.open("r+b") as file:
        file.seek(span.location.offset + span.seal.start + 1_000)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes((byte ^ 4,)))
    with pytest.raises(BrokenSeal):
        await world.contents(sealed, start=2)
    assert batches_in(b"".join(await world.reader.read_batches(sealed, 0, 200_000))) == expected(2)
    assert (await marks_of(world, sealed, start=3)) == expected(len(SIZES))[3:]
    assert await marks_of(world, plain) == expected(len(SIZES))


async def test_damage_in_the_log_keeps_nobody_from_being_compacted(house: House) -> None:
    world = await begun(house, adopted_min_bytes=2**30)
    world.forget_tail()
    sealed, plain = partition_in(world, SEALED), partition_in(world, PLAIN)
    span = sealed.spans[2]
    assert span.location is not None
    assert span.seal is not None
    with (house.path / "slabs" / span.location.key).open("r+b") as file:
        file.seek(span.location.offset + span.seal.start + 66_000)  # In the second chunk of it.
        file.write(b"?!")
    await world.compaction.compact_everything()
    assert await marks_of(world, plain) == expected(len(SIZES))
    assert batches_in(b"".join(await world.reader.read_batches(sealed, 0, 100_000))) == expected(2)
    with pytest.raises(BrokenSeal):
        await world.contents(sealed, start=2)
    assert await marks_of(world, sealed, start=3) == expected(len(SIZES))[3:]
    assert house.holds(SECRET) == []


async def test_a_file_of_the_log_that_was_cut_short_is_refused(house: House) -> None:
    world = await begun(house)
    world.forget_tail()
    sealed = partition_in(world, SEALED)
    span = sealed.spans[2]
    assert span.location is not None
    assert span.seal is not None
    os.truncate(house.path / "slabs" / span.location.key, span.location.offset + span.seal.start + 1_000)
    with pytest.raises(BrokenSeal):
        await world.contents(sealed, start=2)
    assert batches_in(b"".join(await world.reader.read_batches(sealed, 0, 100))) == expected(1)


async def test_a_range_in_another_place_is_refused(house: House) -> None:
    """Two ranges of one partition, of one size, that have changed places."""
    world = await house.world()
    await topic_in(world, SEALED)
    sealed = partition_in(world, SEALED)
    for mark in range(2):
        await world.append((sealed, marked(SECRET, mark=mark)))
    world.forget_tail()
    places = [(span.location, span.seal) for span in sealed.spans]
    pieces = []
    for location, seal in places:
        assert location is not None
        assert seal is not None
        pieces.append((house.path / "slabs" / location.key, location.offset + seal.start, seal.length + 16))
    stored = [file.read_bytes()[start : start + size] for file, start, size in pieces]
    for (path, start, _), data in zip(pieces, reversed(stored), strict=True):
        with path.open("r+b") as file:
            file.seek(start)
            file.write(data)
    for offset in range(2):
        with pytest.raises(BrokenSeal):
            await world.contents(sealed, start=offset)


async def test_segments_that_are_cut_short_or_damaged_are_refused(house: House) -> None:
    world = await begun(house, adopted_min_bytes=2**30)
    await world.compaction.compact_everything()
    world.forget_tail()
    sealed, plain = partition_in(world, SEALED), partition_in(world, PLAIN)
    (ref,) = await world.segments.list(sealed)
    path = house.path / "segments" / ref.object_key
    good = path.read_bytes()
    damaged = bytearray(good)
    damaged[ref.byte_offset + 200_000] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(BrokenSeal):
        await world.contents(sealed)
    path.write_bytes(good)
    assert await marks_of(world, sealed) == expected(len(SIZES))
    path.write_bytes(good[: ref.byte_offset + 1_000])
    with pytest.raises(BrokenSeal):
        await world.contents(sealed)
    assert plain.partition_id != sealed.partition_id


async def test_merging_seals_again_by_the_current_key_and_a_spent_key_is_forgotten(house: House) -> None:
    world = await house.world(adopted_min_bytes=2**30)
    for cluster_id in (SEALED, PLAIN):
        await topic_in(world, cluster_id)
    merging = Merging(world.changes, world.registry)
    spent = SpentKeys(world.changes, world.keys, lambda: world.backlog.last_seq)
    assert await spent.run() is None
    first = world.keys.current[SEALED].key_id
    for number in range(8):
        await fill(world, (3_000,), first=number)
        await world.compaction.compact_everything()
        if number == 3:
            await world.keys.rotate(SEALED)
    assert len(await world.segments.list(partition_in(world, SEALED))) == 8
    assert await spent.run() is not None
    assert first in world.keys.stored  # Segments are sealed by it.
    while await merging.run() is not None:
        pass
    sealed = partition_in(world, SEALED)
    (ref,) = await world.segments.list(sealed)
    assert ref.seal is not None
    assert ref.seal.key_id == world.keys.current[SEALED].key_id
    world.forget_tail()
    for partition in (sealed, partition_in(world, PLAIN)):
        assert await marks_of(world, partition) == expected(8)
    await fill(world, (100,), first=8)  # The commit that could have been under way when the key was replaced.
    await world.compaction.compact_everything()
    upload = world.uploads.begin()
    assert await spent.run() is not None
    assert first in world.keys.stored  # What is being written could be sealed by it.
    world.uploads.end(upload)
    assert await spent.run() is None
    assert list(world.keys.stored) == [world.keys.current[SEALED].key_id]
    world = await house.restarted(world)
    assert await marks_of(world, partition_in(world, SEALED)) == expected(9)
    assert house.holds(SECRET) == []


async def test_without_its_keys_a_cluster_waits_and_nobody_else_does(house: House) -> None:
    world = await begun(house, adopted_min_bytes=2**30)
    house.service.is_down = True
    world = await house.restarted(world)
    sealed, plain = partition_in(world, SEALED), partition_in(world, PLAIN)
    (answer,) = await world.append((sealed, marked(SECRET)))
    assert answer.error is ErrorCode.KAFKA_STORAGE_ERROR
    assert [one.error for one in await world.append((plain, marked(OPEN, mark=len(SIZES))))] == [ErrorCode.NONE]
    with pytest.raises(Unavailable):
        await world.contents(sealed)
    await world.compaction.compact_everything()  # What is sealed is copied as it is.
    assert await marks_of(world, plain) == expected(len(SIZES) + 1)
    assert len(await world.segments.list(sealed)) == len(SIZES)
    house.service.is_down = False
    world.clock.time_ms += 2_000
    world = await house.restarted(world)
    sealed = partition_in(world, SEALED)
    assert await marks_of(world, sealed) == expected(len(SIZES))
    (answer,) = await world.append((sealed, marked(SECRET, mark=len(SIZES))))
    assert answer.error is ErrorCode.NONE
    assert house.holds(SECRET) == []


async def test_an_old_key_that_cannot_be_had_keeps_nobody_else_from_being_merged_or_compacted(house: House) -> None:
    """One that was damaged, say: what is written is sealed by another, so the cluster is not locked. No chore fails: it
    would be tried again later and later, for each partition there is of the cluster."""
    world = await house.world(adopted_min_bytes=2**30)
    names = {"merged": {}, "compacted": {"cleanup.policy": "compact"}}
    for cluster_id in (SEALED, PLAIN):
        made = [NewTopic(name=name, partition_count=1, overrides=overrides) for name, overrides in names.items()]
        await world.topics.create(cluster_id, made)
    old = world.keys.current[SEALED].key_id

    async def one_segment_each(number: int) -> None:
        # More of what is sealed: it is to be the first that is compacted.
        size = 3_000 if number < 7 else 300
        keyed = build_batch([Record(0, 5, b"k", b"v" * size)])
        for cluster_id, repeated in ((SEALED, 2), (PLAIN, 1)):
            told = [(partition_in(world, cluster_id, "merged"), marked(OPEN, size_bytes=size))]
            one = Accepted(keyed, 1, -1, 0, -1, 5, NO_TIMESTAMP)
            told += [(partition_in(world, cluster_id, "compacted"), one)] * repeated
            await world.append(*told)
        await world.compaction.compact_everything()

    for number in range(7):
        await one_segment_each(number)
    await world.keys.rotate(SEALED)
    await one_segment_each(7)
    await world.database.transaction(lambda: _damage(old))
    world = await house.restarted(world)
    merging = Merging(world.changes, world.registry)
    cleaner = Cleaner(world.changes, world.registry, LiveSettings(SETTINGS.started_with({})))
    for chore in (merging, cleaner):
        for _ in range(100):
            world.clock.time_ms += 15_000
            await chore.run()
    assert [len(await world.segments.list(partition_in(world, one, "merged"))) for one in (SEALED, PLAIN)] == [8, 1]
    assert [partition_in(world, one, "compacted").cleaned_to for one in (SEALED, PLAIN)] == [0, 8]
    assert not world.changes.rewriting


@pytest.mark.parametrize("compacted", [True, False])
async def test_records_are_read_up_to_what_cannot_be_opened_and_behind_it(house: House, compacted: bool) -> None:
    world = await house.world(adopted_min_bytes=2**30)
    for cluster_id in (SEALED, PLAIN):
        await topic_in(world, cluster_id)
    keys = []
    for number in range(3):
        keys.append(world.keys.current[SEALED].key_id)
        await fill(world, (3_000, 3_000), first=2 * number)
        if compacted:
            await world.compaction.compact_everything()
        await world.keys.rotate(SEALED)
    await world.database.transaction(lambda: _damage(keys[1]))
    world = await house.restarted(world)
    sealed = partition_in(world, SEALED)
    for start, found in ((0, [0, 1]), (1, [1]), (4, [4, 5])):
        read = b"".join(await world.reader.read_batches(sealed, start, 256 * 1024))
        assert [mark for _, _, mark in batches_in(read)] == found
    for start in (2, 3):
        with pytest.raises(Unavailable):
            await world.reader.read_batches(sealed, start, 256 * 1024)


async def test_no_chore_waits_for_a_key_service_that_does_not_answer(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They share one task. What is sealed stays as it is until the key is there."""
    monkeypatch.setattr("penstock.log.sealing.SOON_S", 0.01)
    world = await begun(house)
    old = world.keys.current[SEALED].key_id
    await world.keys.rotate(SEALED)
    world = await house.restarted(world, adopted_min_bytes=2**30)
    world.keys._timeout_s, house.service.hangs = 3_600.0, True
    world.forget_tail()
    sealed = partition_in(world, SEALED)
    await asyncio.wait_for(world.compaction.compact_everything(), 10)
    refs = await world.segments.list(sealed)
    assert {ref.seal and ref.seal.key_id for ref in refs} == {old}
    assert not await asyncio.wait_for(world.changes.can_open(sealed, refs), 10)
    house.service.hangs = False


async def test_who_reads_what_is_open_does_not_wait_behind_who_waits_for_keys(house: House) -> None:
    world = await begun(house)
    await world.keys.rotate(SEALED)
    world = await house.restarted(world)
    world.keys._service._timeout_s, house.service.hangs = 3_600.0, True
    world.forget_tail()
    sealed, plain = partition_in(world, SEALED), partition_in(world, PLAIN)
    waiting = [asyncio.ensure_future(world.reader.read_batches(sealed, 0, 1)) for _ in range(MAX_COLD_READS)]
    await asyncio.wait(waiting, timeout=0.05)
    assert await asyncio.wait_for(world.reader.read_batches(plain, 0, 1), 5)
    assert not any(one.done() for one in waiting)
    for one in waiting:
        one.cancel()


def _damage(key_id: int) -> Any:
    yield "UPDATE data_key SET wrapped = $1 WHERE key_id = $2", (b"", key_id)


class Careless:
    """Brings a batch to a flush without asking whether its cluster may be written to; or the end of a transaction."""

    def __init__(self, partition: Partition, accepted: Accepted | None) -> None:
        self.partition, self.accepted = partition, accepted
        self.problem: PlatformError | None = None

    def prepare(self, flush: Flush) -> bool:
        if self.accepted is None:
            flush.end_transaction((self.partition,), producer_id=7, epoch=0, commit=False, coordinator_epoch=0)
        else:
            flush.append(self.partition, self.accepted)
        flush.join(self)
        return True

    def committed(self) -> None:
        """It is durable."""

    def failed(self, problem: PlatformError) -> None:
        self.problem = problem


@pytest.mark.parametrize("lock", list(LockReason))
async def test_nothing_of_a_locked_cluster_is_stored_in_the_clear_whoever_brings_it(
    house: House, lock: LockReason
) -> None:
    world = await begun(house)
    sealed, plain = partition_in(world, SEALED), partition_in(world, PLAIN)
    world.keys.locked[SEALED] = lock
    del world.keys.current[SEALED]
    careless, marker = Careless(sealed, marked(SECRET)), Careless(sealed, None)
    world.writer.enlist(careless)
    (answer,) = await world.append((plain, marked(OPEN)))
    assert answer.error is ErrorCode.KAFKA_STORAGE_ERROR
    assert isinstance(careless.problem, Unavailable)
    assert world.writer.pending_bytes == 0
    world.writer.enlist(marker)
    assert [one.error for one in await world.append((plain, marked(OPEN, mark=len(SIZES))))] == [ErrorCode.NONE]
    assert marker.problem is None
    assert sealed.next_offset == len(SIZES) + 1
    assert await marks_of(world, plain) == expected(len(SIZES) + 1)
    assert house.holds(SECRET) == []


@pytest.mark.parametrize("compacted", [False, True], ids=["in the log", "in segments"])
async def test_what_was_erased_is_gone_for_everybody_at_once(house: House, compacted: bool) -> None:
    world = await begun(house, adopted_min_bytes=2**30)
    sealed, plain = partition_in(world, SEALED), partition_in(world, PLAIN)
    if compacted:
        await world.compaction.compact_everything()
    world.keys.on_erased = lambda cluster_id: forget_views([(sealed, span) for span in list(sealed.spans)])
    assert await world.keys.erase(SEALED)
    with pytest.raises(KeysErased):
        await world.contents(sealed)
    (answer,) = await world.append((sealed, marked(SECRET)))
    assert answer.error is ErrorCode.TOPIC_AUTHORIZATION_FAILED
    assert answer.message is not None
    await world.compaction.compact_everything()
    world.forget_tail()
    assert await marks_of(world, plain) == expected(len(SIZES))
    world = await house.restarted(world)
    assert world.keys.locked == {SEALED: LockReason.ERASED}
    with pytest.raises(KeysErased):
        await world.contents(partition_in(world, SEALED))
    assert await marks_of(world, partition_in(world, PLAIN)) == expected(len(SIZES))
    assert house.holds(SECRET) == []


async def test_what_has_other_offsets_inside_is_not_copied_as_it_is(house: House) -> None:
    """Where several agents commit, it may have; then it is opened, or waited for as long as there is something to."""
    world = await begun(house, adopted_min_bytes=2**30)
    sealed, plain = partition_in(world, SEALED), partition_in(world, PLAIN)
    span = sealed.spans[1]
    assert span.seal is not None
    span.seal = span.seal._replace(base_offset=77)
    world.forget_tail()
    world.keys.locked[SEALED] = LockReason.WAITING
    with pytest.raises(Unavailable):
        await world.compaction.compact_everything()
    assert await world.keys.erase(SEALED)
    await world.compaction.compact_everything()
    assert await marks_of(world, plain) == expected(len(SIZES))
    with pytest.raises(KeysErased):
        await world.contents(sealed, start=1)
    seals = [ref.seal for ref in await world.segments.list(sealed)]
    assert [seal is not None and any(seal.salt) for seal in seals] == [True, False] + [True] * (len(SIZES) - 2)


def test_what_is_left_of_an_entry_of_which_batches_were_refused_is_opened() -> None:
    """Several agents commit, and the database leaves some batches of a range out: the rest lies within it."""
    partition = topic_of(1).partitions[0]
    batches = [bytes(marked(SECRET, mark=mark, size_bytes=40_000).data) for mark in range(4)]
    body = memoryview(b"".join(batches))
    key = DataKey(5, 1, bytes(32))
    cipher = RangeCipher(key, bytes(16), partition)
    sealed = memoryview(bytearray(100 + stored_bytes(len(body))))
    cipher.seal_into(body, sealed[100:])
    entry = CommitEntry(
        1, 0, len(body), 4, 4, 5,
        tuple(ProducerBatch(9, 0, number, 0, number, 5) for number in range(4)),
        EntrySeal(5, bytes(16), 100, len(body), 0, 0, 0),
    )  # fmt: skip
    known = {(1, 9): ProducerState(9, 0, 0, (SequenceBatch(0, 0, 7, 7, 5),))}
    left = decide(body, [entry], {1: 8}, known, 0)  # The first one is a repeat.
    (rest,) = left.entries
    assert rest.seal is not None
    assert rest.seal.skipped == len(batches[0])
    target = memoryview(bytearray(rest.byte_length))
    keys = SimpleKeys({5: key})
    read_span(lambda start, end: sealed[start:end], Sealing(keys, SeededRandomness("s")), rest.seal, partition, target)
    assert bytes(target) == bytes(body[len(batches[0]) :])


def test_nothing_is_left_open_while_the_keys_of_a_cluster_come_or_go() -> None:
    """On another thread they may be found at any moment in between."""
    sealed, plain = (topic_of(1).partitions[0] for _ in range(2))
    plain.topic.cluster_id = 2
    keys = SimpleKeys({5: DataKey(5, sealed.topic.cluster_id, bytes(32))})
    sealing = Sealing(keys, SeededRandomness("s"))
    assert sealing.new_range(plain) is None
    with pytest.raises(Unavailable):
        sealing.new_range(sealed)


class SimpleKeys:
    """Keys that are there."""

    is_on = True

    def __init__(self, keys: dict[int, DataKey]) -> None:
        self._keys, self.clusters = keys, {key.cluster_id: key for key in keys.values()}
        self.current, self.locked = dict[int, DataKey](), dict[int, LockReason]()

    def peek(self, key_id: int) -> DataKey | None:
        return self._keys.get(key_id)

    async def ready(self, key_ids: Collection[int]) -> None:
        """They are."""
