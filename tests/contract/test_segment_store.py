"""The SQL of segments, objects, the WAL floor and usage on every implementation of the metadata port."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

import asyncpg
import pytest

from penstock.base.errors import Conflict
from penstock.base.randomness import SeededRandomness
from penstock.log import segment_store, topic_store
from penstock.log.commit_sql import CommitSql, NewCommit, lock_shard, take_over
from penstock.log.commits import CommitEntry
from penstock.log.model import SequenceBatch
from penstock.log.recovery import commits_after, pack_batches
from penstock.log.segment_store import Fold, NewObject, ProducerRow
from penstock.log.segments import SegmentRef, ref_of
from penstock.log.topic_store import TopicRow
from penstock.log.upkeep import wal_store
from penstock.log.upkeep.wal_store import FloorAdvance
from penstock.log.usage import Metric, UsageKey
from penstock.metadata.postgres import PostgresDatabase
from penstock.storage.wal import WalLocation

TOPIC = b"t" * 16


@pytest.fixture
async def first(database) -> int:
    """The id of the first of three partitions."""
    row = TopicRow(
        topic_id=TOPIC, name="t", partition_count=3, replication_factor=1, overrides={}, created_ms=1
    )  # fmt: skip
    ((first,)) = await database.transaction(lambda: topic_store.create(1, 1, [row]))
    return first


def new_object(number: int) -> NewObject:
    return NewObject(object_id=bytes([number]) * 16, shard_id=1, key=f"k{number}", size_bytes=1000, created_ms=number)


def segment(partition_id: int, base: int, last: int, obj: int, *, position: int = 0, timestamp: int = 0) -> SegmentRef:
    return SegmentRef(
        partition_id=partition_id, base_offset=base, last_offset=last, object_id=bytes([obj]) * 16,
        object_key=f"k{obj}", byte_offset=position, byte_length=(last - base + 1) * 10, record_count=last - base + 1,
        min_timestamp=timestamp, max_timestamp=timestamp + last, offset_index=b"o", time_index=b"t",
    )  # fmt: skip


def fold(partition_id: int, start: int, end: int, *producers: ProducerRow, dirty_ms: int = 5) -> Fold:
    return Fold(
        partition_id=partition_id, segmented_from=start, segmented_to=end, head_seq=1, size_bytes=(end - start) * 10,
        first_dirty_ms=dirty_ms, producers=producers,
    )  # fmt: skip


def producer(last_offset: int, epoch: int = 0) -> ProducerRow:
    batches = pack_batches([SequenceBatch(0, 0, 0, 0, 1), SequenceBatch(1, 1, last_offset, last_offset, 1)])
    return ProducerRow(producer_id=7, epoch=epoch, last_ms=10 + last_offset, batches=batches)


async def publish(database, objects: Sequence[NewObject], refs: Sequence[SegmentRef], *folds: Fold) -> frozenset[int]:
    return await database.transaction(lambda: segment_store.publish(objects, refs, folds), locking=True)


async def segments(database, partition_id: int, offset: int = 0, limit: int | None = None) -> list[SegmentRef]:
    return [
        ref_of(row)
        for row in await database.read(lambda: segment_store.segments_from(partition_id, offset, limit))
    ]  # fmt: skip


async def partition_row(database, partition_id: int) -> tuple:
    ((*row,)) = (
        await database.statement(
            "SELECT next_offset, log_start, segmented_to, size_bytes, cleaned_to, first_dirty_ms FROM partition"
            " WHERE partition_id = $1",
            (partition_id,),
        )
    )[0]
    return tuple(row)


async def objects(database) -> dict[bytes, tuple[int, int | None]]:
    rows = await database.statement("SELECT object_id, live, dead_ms FROM object")
    return {bytes(object_id): (live, dead_ms) for object_id, live, dead_ms in rows}


async def test_what_is_published_is_found(database, first: int) -> None:
    one, two = segment(first, 0, 9, 1, timestamp=100), segment(first, 10, 19, 1, position=100, timestamp=50)
    other = segment(first + 1, 0, 4, 2)
    answer = await publish(
        database, [new_object(1), new_object(2)], [one, two, other], fold(first, 0, 20, producer(15)),
        fold(first + 1, 0, 5), fold(99, 0, 5),
    )  # fmt: skip
    assert answer == {first, first + 1}
    assert await segments(database, first) == [one, two]
    assert await segments(database, first, 10) == [two]
    assert await segments(database, first, 0, 1) == [one]
    assert await segments(database, first, 20) == []
    assert await partition_row(database, first) == (20, 0, 20, 200, 0, 5)
    assert await objects(database) == {b"\x01" * 16: (2, None), b"\x02" * 16: (1, None)}
    read = database.read
    rows = await read(lambda: segment_store.segment_with_timestamp(first, 0, 105))
    assert ref_of(rows[0]) == one
    assert await read(lambda: segment_store.segment_with_timestamp(first, 0, 110)) == []
    rows = await read(lambda: segment_store.segment_with_max_timestamp(first, 0))
    assert ref_of(rows[0]) == one
    rows = await read(lambda: segment_store.segment_with_max_timestamp(first, 5))
    assert ref_of(rows[0]) == two
    assert [tuple(row) for row in await read(lambda: segment_store.sizes(first, 10, 5))] == [(10, 19, 100, 50, 69, 1)]
    latest = await read(lambda: segment_store.latest_sizes(first, 5))
    assert [row[0] for row in latest] == [0, 10]
    assert await read(lambda: segment_store.bytes_below(first, 10)) == 100
    assert await read(lambda: segment_store.bytes_below(first, 0)) == 0
    assert [tuple(row) for row in await read(lambda: segment_store.small_counts(101, 2))] == [(first, 2)]
    assert await read(lambda: segment_store.dirty_since([first, first + 2, 99])) == {first: 5}
    assert await read(lambda: segment_store.stored_size(first)) == (200, 20)
    assert await read(lambda: segment_store.stored_size(99)) is None
    assert await read(lambda: segment_store.reaching_below([(first, 10), (first + 1, 4)])) == [first]
    assert await read(lambda: segment_store.has_object(b"\x01" * 16))
    assert await read(lambda: segment_store.named_objects([b"\x01" * 16, b"x"])) == {b"\x01" * 16}


async def test_a_fold_from_elsewhere_is_a_conflict_and_takes_no_producer_back(database, first: int) -> None:
    await publish(database, [new_object(1)], [segment(first, 0, 9, 1)], fold(first, 0, 10, producer(9)))
    with pytest.raises(Conflict, match="not 0"):
        await publish(database, [new_object(2)], [segment(first, 0, 9, 2)], fold(first, 0, 10))
    await publish(database, [new_object(2)], [segment(first, 10, 19, 2)], fold(first, 10, 20, producer(300)))
    await publish(database, [new_object(3)], [segment(first, 20, 29, 3)], fold(first, 20, 30, producer(255)))
    assert await database.statement("SELECT epoch, last_ms FROM producer_state") == [(0, 310)]
    await database.transaction(lambda: segment_store.forget_producers([first], 310))
    assert await database.statement("SELECT COUNT(*) FROM producer_state") == [(1,)]
    await database.transaction(lambda: segment_store.forget_producers([first], 311))
    assert await database.statement("SELECT COUNT(*) FROM producer_state") == [(0,)]


async def test_segments_are_replaced_dropped_and_their_objects_die(database, first: int) -> None:
    old = [segment(first, 0, 9, 1), segment(first, 10, 19, 1, position=100), segment(first + 1, 0, 9, 1, position=200)]
    await publish(database, [new_object(1)], old, fold(first, 0, 20), fold(first + 1, 0, 10))
    merged = segment(first, 0, 19, 2)

    async def replace(new, removed, added, now_ms):
        await database.transaction(lambda: segment_store.replace(new, removed, added, now_ms), locking=True)

    await replace(new_object(2), old[:2], [merged], 50)
    assert await segments(database, first) == [merged]
    with pytest.raises(Conflict, match="any more"):
        await replace(new_object(3), old[:2], [segment(first, 0, 19, 3)], 60)
    assert await objects(database) == {b"\x01" * 16: (1, None), b"\x02" * 16: (1, None)}
    await replace(None, [old[2]], [], 70)
    assert (await partition_row(database, first + 1))[3] == 0
    assert await objects(database) == {b"\x01" * 16: (0, 70), b"\x02" * 16: (1, None)}
    assert await database.read(lambda: segment_store.dead_objects(70, 9)) == []
    assert await database.read(lambda: segment_store.dead_objects(71, 9)) == [(b"\x01" * 16, "k1")]
    assert await database.read(lambda: segment_store.next_death(70)) == 70
    assert await database.read(lambda: segment_store.next_death(71)) is None
    await database.transaction(lambda: segment_store.forget_objects([b"\x01" * 16, b"\x02" * 16]))
    assert list(await objects(database)) == [b"\x02" * 16]

    async def drop(log_start: int, limit: int = 10) -> tuple[int, int]:
        return await database.transaction(
            lambda: segment_store.drop_below(first, log_start, limit, 80), locking=True
        )  # fmt: skip

    assert await drop(19) == (0, 0)
    assert await drop(20) == (1, 200)
    assert await partition_row(database, first) == (20, 20, 20, 0, 0, 5)
    assert (await objects(database))[b"\x02" * 16] == (0, 80)
    await database.transaction(lambda: segment_store.cleaned(first, 15, -1), locking=True)
    await database.transaction(lambda: segment_store.cleaned(first, 5, 9), locking=True)
    assert (await partition_row(database, first))[4:] == (15, -1)


async def test_deleted_topics_are_freed_once_their_commits_are_counted(database, first: int) -> None:
    epoch = await database.transaction(lambda: take_over(1))
    refs = [segment(first, 10 * n, 10 * n + 9, 1, position=100 * n) for n in range(5)]
    await publish(database, [new_object(1)], refs, fold(first, 0, 50, producer(3)))
    await commit(database, epoch, first + 1, number=1)
    await database.transaction(lambda: topic_store.delete(1, [(TOPIC, "t")], 9))
    assert await database.read(lambda: segment_store.deleted_partitions(0, 10)) == [first, first + 1, first + 2]
    assert await database.read(lambda: segment_store.deleted_partitions(first, 1)) == [first + 1]

    async def free(partition_id: int) -> int:
        return await database.transaction(lambda: segment_store.free_deleted(partition_id, 1, 3, 99))

    assert [await free(first) for _ in range(3)] == [3, 2, 0]
    assert await objects(database) == {b"\x01" * 16: (0, 99)}
    assert len(await database.read(lambda: segment_store.deleted_partitions(0, 10))) == 3
    answer = await database.transaction(
        lambda: wal_store.advance(advance(0, 1, used_by_unknown={first + 1: {(0, Metric.BYTES_IN): 5}})), locking=True
    )
    assert answer == frozenset()
    assert await database.statement("SELECT cluster_id, metric, value FROM usage") == [(1, 1, 5)]
    for partition_id in (first, first + 1, first + 2):
        await free(partition_id)
    assert await database.read(lambda: segment_store.deleted_partitions(0, 10)) == []


def advance(floor: int, new_floor: int, *, folds: Sequence[Fold] = (), refs=(), objs=(), **options) -> FloorAdvance:
    return FloorAdvance(
        shard_id=1, floor=floor, new_floor=new_floor, objects=objs, segments=refs, folds=folds,
        **{"used": {}, "used_by_unknown": {}, **options},
    )  # fmt: skip


async def commit(database, epoch: int, *partition_ids: int, number: int) -> None:
    new = NewCommit(
        shard_id=1, epoch=epoch, agent_id=1, object_id=number.to_bytes(16, "big"), location=WalLocation("k", 0, 5000),
        now_ms=100 + number, entries=[CommitEntry(partition_id, 0, 5000, 2, 1, 7) for partition_id in partition_ids],
        starts=[0] * len(partition_ids),
    )  # fmt: skip
    await database.transaction(lambda: CommitSql().write(new), locking=True)


async def test_the_floor_moves_with_what_is_counted_and_commits_below_are_forgotten(database, first: int) -> None:
    epoch = await database.transaction(lambda: take_over(1))
    for number in range(1, 8):
        await commit(database, epoch, first, number=number)
    waiting = await database.read(lambda: wal_store.waiting(1, 6))
    assert (waiting.rows, waiting.entries, waiting.size_bytes, waiting.oldest_ms) == (6, 6, 6 * 8192, 101)
    used = {UsageKey(1, 3_600_000, Metric.BYTES_IN): 10, UsageKey(1, 0, Metric.RECORDS_IN): 3}
    refs, objs = [segment(first, 0, 9, 1)], [new_object(1)]
    change = advance(0, 5, folds=[fold(first, 0, 10)], refs=refs, objs=objs, used=used)
    assert await database.transaction(lambda: wal_store.outcome(change), locking=True) is None
    for expected in ({first}, None):
        if expected is None:
            with pytest.raises(Conflict, match="floor"):
                await database.transaction(lambda: wal_store.advance(change), locking=True)
        else:
            assert await database.transaction(lambda: wal_store.advance(change), locking=True) == expected
    assert await database.transaction(lambda: wal_store.outcome(change), locking=True) == {first}
    assert await database.read(lambda: wal_store.floor_of(1)) == 5
    await database.transaction(lambda: wal_store.advance(advance(5, 6, used=used)), locking=True)
    rows = await database.statement("SELECT bucket_ms, metric, value FROM usage ORDER BY bucket_ms")
    assert rows == [(0, 2, 6), (3_600_000, 1, 20)]
    assert (await partition_row(database, first))[:3] == (14, 0, 10)
    waiting = await database.read(lambda: wal_store.waiting(1, 7))
    assert (waiting.rows, waiting.oldest_ms) == (1, 107)
    assert await database.transaction(lambda: wal_store.forget_commits(1, 6, 4))
    assert not await database.transaction(lambda: wal_store.forget_commits(1, 6, 4))
    assert not await database.transaction(lambda: wal_store.forget_commits(1, 6, 4))
    assert [row[0] for row in await database.read(lambda: commits_after(1, 0, 9))] == [7]


async def test_upkeep_gets_its_turn_while_commits_never_pause(database, first: int) -> None:
    """Each of these changes a partition's row that commits change all the time."""
    await database.statement("UPDATE partition SET next_offset = 100 WHERE partition_id = $1", (first,))
    epoch = await database.transaction(lambda: take_over(1))
    done = asyncio.Event()

    async def commit_on(start: int) -> int:
        number = start
        while not done.is_set():
            await commit(database, epoch, first, number=number)
            number += 1
        return number - start

    async def upkeep() -> None:
        for turn in range(10):
            start, now_ms = turn * 10, turn + 1
            ref, other = segment(first, start, start + 9, 2 * now_ms), segment(first, start, start + 9, 2 * now_ms + 1)
            await publish(database, [new_object(2 * now_ms)], [ref], fold(first, start, start + 10))
            await database.transaction(
                lambda a=ref, b=other, n=now_ms: segment_store.replace(new_object(2 * n + 1), [a], [b], n),
                background=True, locking=True,
            )  # fmt: skip
            await database.transaction(
                lambda s=start: segment_store.drop_below(first, s, 9, 1), background=True, locking=True
            )
            await database.transaction(
                lambda s=start: segment_store.cleaned(first, s, 1), background=True, locking=True
            )  # fmt: skip
            await database.transaction(lambda s=start: topic_store.trim(1, [(first, s + 1)]), locking=True)
            await database.transaction(lambda: lock_shard(1, epoch), locking=True)

    writers = [asyncio.ensure_future(commit_on(start)) for start in (1, 10**6)]
    try:
        await asyncio.wait_for(upkeep(), 60)
    finally:
        done.set()
    count = sum(await asyncio.gather(*writers))
    assert (await partition_row(database, first))[0] == 100 + 2 * count
    assert await database.statement("SELECT commit_seq FROM shard") == [(count,)]


async def test_topics_are_trimmed_and_deleted_while_commits_never_pause(database, first: int) -> None:
    epoch = await database.transaction(lambda: take_over(1))
    partitions = (first, first + 1, first + 2)
    refused = 0

    async def commit_on(start: int) -> None:
        nonlocal refused
        for number in range(start, start + 10**6):
            try:
                await commit(database, epoch, *partitions, number=number)
            except Conflict:
                refused += 1
                return

    writers = [asyncio.ensure_future(commit_on(start)) for start in (1, 10**6)]
    for offset in range(1, 6):
        marks = [(partition_id, offset) for partition_id in partitions]
        await asyncio.wait_for(
            database.transaction(lambda m=marks: topic_store.trim(1, m), locking=True), 20
        )  # fmt: skip
    answer = await database.transaction(lambda: topic_store.add_partitions(1, 1, TOPIC, 5))
    assert len(answer) == 5
    await asyncio.wait_for(
        database.transaction(lambda: topic_store.delete(1, [(TOPIC, "t")], 9), locking=True), 20
    )  # fmt: skip
    await asyncio.wait_for(asyncio.gather(*writers), 20)
    assert refused == 2
    assert await database.statement("SELECT COUNT(*) FROM partition") == [(0,)]
    assert await database.statement("SELECT COUNT(*) FROM topic_deletion") == [(5,)]


async def test_a_commit_that_goes_on_without_its_client_is_waited_for(migrated_postgres_dsn: str) -> None:
    """Whoever has lost its answer would else delete the objects that it names."""
    database = PostgresDatabase(migrated_postgres_dsn, randomness=SeededRandomness("late"))
    await database.open()
    connection = await asyncpg.connect(migrated_postgres_dsn)
    try:
        row = TopicRow(topic_id=TOPIC, name="t", partition_count=1, replication_factor=1, overrides={}, created_ms=1)
        ((first,)) = await database.transaction(lambda: topic_store.create(1, 1, [row]))
        change = advance(0, 5, folds=[fold(first, 0, 10)], refs=[segment(first, 0, 9, 1)], objs=[new_object(1)])
        await connection.execute("BEGIN")
        steps = wal_store.advance(change)
        with contextlib.suppress(StopIteration):
            sql, args = next(steps)
            while True:
                sql, args = steps.send([tuple(found) for found in await connection.fetch(sql, *args)])
        questions = (
            lambda: wal_store.outcome(change),
            lambda: segment_store.is_named_for_good(1, new_object(1).object_id),
            lambda: segment_store.size_for_good(1, first),
        )
        asked = [asyncio.ensure_future(database.transaction(question, locking=True)) for question in questions]
        done, _ = await asyncio.wait(asked, timeout=0.2)
        assert not done
        await connection.execute("COMMIT")
        assert await asyncio.gather(*asked) == [{first}, True, (100, 10)]
    finally:
        await connection.close()
        await database.close()
