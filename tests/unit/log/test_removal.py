"""Segments below log starts and of deleted topics go; dead objects and orphans follow after their grace period."""

from __future__ import annotations

import asyncio
import random

import pytest
from fixtures.clocks import START_MS
from fixtures.upkeep_world import GRACE_MS, UpkeepWorld, record

from penstock.base.errors import OutcomeUnknown, Unavailable
from penstock.log import topic_store
from penstock.log.model import ProducerState
from penstock.log.upkeep import removal
from penstock.log.upkeep.uploads import object_id_of, object_key
from penstock.metadata.inline import InlineDatabase
from penstock.metadata.sqlite import SqliteDatabase
from penstock.storage.local import LocalObjectStore


async def filled(world: UpkeepWorld, segments: int = 4, **config: object):
    topic = await world.topic(**config)
    (partition,) = topic.partitions
    for number in range(segments):
        await world.segment(partition, [record(number, "x" * 50), record(-number, "y" * 50)])
    return topic, partition


async def test_after_delete_records_segments_below_the_log_start_go() -> None:
    world = await UpkeepWorld().start()
    _, partition = await filled(world)
    await world.run()
    await world.topics.trim(1, {partition: 5})
    assert "trimming" in world.woken
    await world.run()
    assert await world.rows("SELECT base_offset FROM segment") == [(4,), (6,)]
    assert await world.offsets(partition) == [5, 6, 7]
    await world.check()


async def test_much_goes_in_bounded_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(removal, "SEGMENTS_AT_ONCE", 3)
    world = await UpkeepWorld().start()
    _, partition = await filled(world, 10)
    await world.topics.trim(1, {partition: 20})
    counts = []
    while await world.upkeep.trimming.run() == 0.0:
        counts.append(await world.segment_count(partition))
        await world.check()
    assert counts == [7, 4, 1]
    assert world.upkeep.trimming.removed_segments == 10


async def test_a_start_finds_what_was_trimmed_before() -> None:
    world = await UpkeepWorld().start()
    _, partition = await filled(world)
    await world.topics.trim(1, {partition: 4})
    world = await world.restarted()
    assert world.upkeep.trimming.backlog == 1
    await world.run()
    await world.check()
    assert await world.rows("SELECT base_offset FROM segment") == [(4,), (6,)]
    assert await world.upkeep.trimming.run() is None


async def test_a_deleted_topic_leaves_nothing_behind() -> None:
    world = await UpkeepWorld().start()
    topic, partition = await filled(world)
    _, kept = await filled(world, name="kept")
    await world.topics.delete(1, [topic])
    await world.run()
    assert await world.segment_count(partition) == 0
    assert await world.rows("SELECT COUNT(*) FROM topic_deletion") == [(0,)]
    assert await world.rows("SELECT COUNT(*) FROM object WHERE live = 0") == [(4,)]
    world.clock.time_ms += GRACE_MS + 1
    await world.run()
    assert len(world.stored_keys()) == 4
    assert len(await world.records(kept)) == 8


async def test_a_deletion_is_remembered_while_commits_of_before_it_are_in_the_write_ahead_log() -> None:
    world = await UpkeepWorld().start()
    topic, _ = await filled(world)
    await put_commit(world, seq=1, committed_ms=START_MS - 1)
    await world.topics.delete(1, [topic])
    await world.run()
    assert await world.rows("SELECT COUNT(*) FROM segment") == [(0,)]
    assert await world.rows("SELECT COUNT(*) FROM topic_deletion") == [(1,)]
    assert await world.upkeep.topic_removal.run() == 0.0
    await world.run()
    assert await world.upkeep.topic_removal.run() == 0.0, "a wake-up looks again"
    await world.run()
    await execute(world, "DELETE FROM wal_commit")
    world.upkeep.on_segments([])
    assert "topic removal" in world.woken
    await world.run()
    assert await world.rows("SELECT COUNT(*) FROM topic_deletion") == [(0,)]


async def test_a_deletion_is_remembered_even_if_the_clock_has_jumped_back_before_it() -> None:
    world = await UpkeepWorld().start()
    topic, _ = await filled(world)
    await put_commit(world, seq=1, committed_ms=START_MS + 3_600_000)
    await world.topics.delete(1, [topic])
    await world.run()
    assert await world.rows("SELECT COUNT(*) FROM topic_deletion") == [(1,)]
    await put_commit(world, seq=2, committed_ms=START_MS)
    await execute(world, "UPDATE shard SET wal_floor = 1")
    world.upkeep.on_segments([])
    await world.run()
    assert await world.rows("SELECT COUNT(*) FROM topic_deletion") == [(0,)], "what came later is not waited for"


async def test_a_topic_is_not_removed_before_the_agent_that_appends_to_it_knows_of_the_deletion() -> None:
    """Its answer was lost, and until it has come batches are appended: they have to be metered."""
    world = await UpkeepWorld().start()
    topic, partition = await filled(world)
    await world.database.transaction(lambda: topic_store.delete(1, [(topic.topic_id, topic.name)], START_MS))
    await world.run()
    assert await world.segment_count(partition) == 4
    assert await world.rows("SELECT COUNT(*) FROM topic_deletion") == [(1,)]
    await world.topics.delete(1, [topic])
    assert "topic removal" in world.woken
    await world.run()
    assert await world.segment_count(partition) == 0
    assert await world.rows("SELECT COUNT(*) FROM topic_deletion") == [(0,)]


async def test_topics_deleted_during_a_pass_are_found() -> None:
    world = await UpkeepWorld().start()
    first, _ = await filled(world, name="first")
    second, _ = await filled(world, name="second")
    await world.topics.delete(1, [second])
    assert await world.upkeep.topic_removal.run() == 0.0
    await world.topics.delete(1, [first])  # Its id is lower than that of the one being removed.
    await world.run(world.upkeep.topic_removal)
    assert await world.rows("SELECT COUNT(*) FROM segment") == [(0,)]
    assert await world.rows("SELECT COUNT(*) FROM topic_deletion") == [(0,)]


async def test_dead_objects_live_on_for_the_grace_period() -> None:
    world = await UpkeepWorld().start()
    _, partition = await filled(world, 2)
    (ref, _) = await world.segments.list(partition)
    await world.topics.trim(1, {partition: 4})
    await world.run(world.upkeep.trimming)
    assert "dead objects" in world.woken
    assert await world.upkeep.dead_objects.run() == pytest.approx((GRACE_MS + 1) / 1000)
    world.clock.time_ms += GRACE_MS
    assert await world.upkeep.dead_objects.run() == pytest.approx(0.001)
    buffer = memoryview(bytearray(ref.byte_length))
    assert world.objects.read_into(ref.object_key, 0, buffer) == ref.byte_length, "a reader of before finishes"
    world.clock.time_ms += 1
    assert await world.upkeep.dead_objects.run() == 0.0
    assert await world.upkeep.dead_objects.run() is None, "with nothing to wait for there is no timer"
    assert world.stored_keys() == set()


async def test_orphans_go_when_they_are_old_and_nothing_else_does() -> None:
    world = await UpkeepWorld().start()
    await filled(world, 3)
    named = world.stored_keys()
    orphan, foreign = object_key(b"o" * 16), "notes/readme.txt"
    upload = world.uploads.begin()
    for key in (orphan, foreign, upload.key):
        world.objects.put(key, [b"bytes"])
    world.clock.time_ms += GRACE_MS // 2
    young = object_key(b"y" * 16)
    world.objects.put(young, [b"bytes"])
    await world.run(world.upkeep.orphans)
    assert orphan in world.stored_keys(), "not old enough"
    world.clock.time_ms += GRACE_MS // 2 + 1
    assert await world.upkeep.orphans.run() == pytest.approx(GRACE_MS / 2000, abs=0.01), "a young one waits"
    world.clock.time_ms += GRACE_MS
    await world.run(world.upkeep.orphans)
    assert world.stored_keys() == named | {foreign, upload.key}, "what is on its way is nobody's orphan"
    assert world.upkeep.orphans.deleted_objects == 2
    delay_s = await world.upkeep.orphans.run()
    assert delay_s is not None
    assert delay_s > 3600, "after that the store is listed rarely"
    world.uploads.end(upload)
    world.clock.time_ms += int(delay_s * 1000) + 1
    await world.run(world.upkeep.orphans)
    assert world.stored_keys() == named | {foreign}


def test_keys_and_ids_belong_together() -> None:
    object_id = bytes(range(16))
    assert object_id_of(object_key(object_id)) == object_id
    for key in ("", "00", "00/ff", "01/000102030405060708090a0b0c0d0e0f", object_key(object_id).upper() + "/x"):
        assert object_id_of(key) is None, key


async def test_silent_producers_are_forgotten_in_memory_and_in_the_table() -> None:
    world = await UpkeepWorld().start()
    _, partition = await filled(world)
    now_ms = world.clock.time_ms
    for producer_id, last_ms in ((1, now_ms - 86_400_001), (2, now_ms - 86_400_000)):
        partition.know({producer_id: ProducerState(producer_id, 0, last_ms)})
        await execute(
            world, "INSERT INTO producer_state VALUES ($1, $2, 0, $3, $4, -1, -1)", partition.partition_id, producer_id,
            last_ms, b"",
        )  # fmt: skip
    await world.run()
    assert list(partition.producers) == [2]
    assert await world.rows("SELECT producer_id FROM producer_state") == [(2,)]
    world.clock.time_ms += 600_000
    await world.run()
    assert partition.producers == {}
    assert world.upkeep.producer_expiry.expired_producers == 2


@pytest.mark.parametrize("seed", range(20))
async def test_faults_and_crashes_lose_nothing_and_leave_nothing(seed: int) -> None:
    """The database fails before and after it worked, the process dies between steps: orphans at most, for a while."""
    pick = random.Random(seed)
    world = await UpkeepWorld(database=InlineDatabase(), seed=str(seed)).start()
    _, partition = await filled(world, 30)
    doomed, _ = await filled(world, 5, name="doomed")
    await world.topics.trim(1, {partition: 20})
    await world.topics.delete(1, [doomed])
    for _ in range(12):
        world.database.faults = lambda: pick.choice(["before", "after", None, None])
        for _ in range(pick.randrange(40)):
            try:
                await pick.choice(world.upkeep.chores).run()
            except (Unavailable, OutcomeUnknown):
                continue
        world.database.faults = lambda: None
        if pick.random() < 0.5:
            world = await world.restarted()
            partition = world.registry.partition(partition.partition_id)
    await world.run()
    await world.check()
    assert await world.offsets(partition) == list(range(20, 60))
    world = await world.restarted()
    for _ in range(3):  # The first may still merge, and with that make garbage.
        await world.run()
        world.clock.time_ms += GRACE_MS + 1
    keys = {key for (key,) in await world.rows("SELECT key FROM object WHERE live > 0")}
    assert world.stored_keys() == keys
    assert await world.rows("SELECT COUNT(*) FROM topic_deletion") == [(0,)]


async def test_on_files(tmp_path) -> None:
    database = SqliteDatabase(tmp_path / "metadata.db", durability="process")
    objects = LocalObjectStore(tmp_path / "segments", sync=False)
    world = await UpkeepWorld(database=database, objects=objects).start()
    try:
        world.clock.time_ms = 4_000_000_000_000  # Later than what files say of themselves.
        _, partition = await filled(world, 20)
        objects.put(object_key(b"o" * 16), [b"bytes"])
        await world.topics.trim(1, {partition: 20})
        await world.run()
        world.clock.time_ms += GRACE_MS + 1
        await world.run()
        await world.check()
        assert await world.offsets(partition) == list(range(20, 40))
        keys = {key for (key,) in await world.rows("SELECT key FROM object WHERE live > 0")}
        assert world.stored_keys() == keys
    finally:
        await database.close()
        objects.close()


async def execute(world: UpkeepWorld, sql: str, *args: object) -> None:
    def script():
        yield sql, args

    await world.database.transaction(script)


async def put_commit(world: UpkeepWorld, *, seq: int, committed_ms: int) -> None:
    await execute(
        world, "INSERT INTO wal_commit VALUES (1, $1, $2, 'memory', 0, 1, $3, 1, $4, $5)", seq, seq.to_bytes(16),
        committed_ms, b"\1", b"",
    )  # fmt: skip


async def test_a_deletion_is_not_forgotten_while_a_flush_may_have_bytes_of_it() -> None:
    world = await UpkeepWorld().start()
    topic, _ = await filled(world)
    written = asyncio.get_running_loop().create_future()
    world.upkeep.topic_removal._pass_flush = lambda: asyncio.shield(written)
    await world.topics.delete(1, [topic])
    step = asyncio.ensure_future(world.upkeep.topic_removal.run())
    await asyncio.sleep(0.01)
    assert not step.done()
    assert await world.rows("SELECT COUNT(*) FROM topic_deletion") == [(1,)]
    written.set_result(None)
    await step
    await world.run()
    assert await world.rows("SELECT COUNT(*) FROM topic_deletion") == [(0,)]
