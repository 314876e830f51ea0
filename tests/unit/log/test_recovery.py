"""A start: the state that comes back is the one before the end, however much of it is in rows of which kind."""

from __future__ import annotations

import random
from functools import partial

import pytest
from fixtures.clocks import ManualClock
from fixtures.log_world import append, batch
from fixtures.tables import have_tables

from penstock.agent.settings import SETTINGS
from penstock.base.errors import CorruptData
from penstock.base.randomness import SeededRandomness
from penstock.base.settings import LiveSettings
from penstock.log import recovery
from penstock.log.commit_path import EmbeddedCommitPath
from penstock.log.model import Partition, ProducerState, SequenceBatch, Topic
from penstock.log.recovery import commits_after, load_state, pack_batches, read_commit, unpack_batches
from penstock.log.registry import Registry
from penstock.log.topics import NewTopic, Topics
from penstock.log.writer import Writer
from penstock.metadata.database import Script
from penstock.metadata.inline import InlineDatabase
from penstock.storage.arena import Arena
from penstock.storage.memory import MemoryWal


class Life:
    """One process over stores that outlive it."""

    def __init__(self, database: InlineDatabase, wal: MemoryWal) -> None:
        self.database, self.wal, self.clock = database, wal, ManualClock()
        self.registry = Registry()
        self.topics = Topics(
            database=database, registry=self.registry, settings=LiveSettings(SETTINGS.started_with({})),
            clock=self.clock, randomness=SeededRandomness("topics"),
        )  # fmt: skip
        self.seq = -1

    async def start(self) -> Life:
        await self.topics.load()
        self.seq = await load_state(self.database, self.registry, self.wal)
        path = EmbeddedCommitPath(
            database=self.database, wal=self.wal, clock=self.clock, randomness=SeededRandomness(f"life {self.seq}"),
            seq=self.seq, inline=True,
        )  # fmt: skip
        self.writer = Writer(arena=Arena(1 << 24), commit_path=path, clock=self.clock)
        return self

    async def die(self) -> Life:
        """The next process."""
        self.database.crash()
        return await Life(self.database.reopen(), self.wal).start()

    async def execute(self, sql: str, *args: object) -> None:
        def script() -> Script[None]:
            yield sql, args

        await self.database.transaction(script)

    def topic(self, name: str = "orders") -> Topic:
        topic = self.registry.by_name(1, name)
        assert topic is not None
        return topic


async def begin() -> Life:
    database = InlineDatabase()
    life = Life(database, MemoryWal(1 << 30))
    await have_tables(database, life.clock)
    return await life.start()


def state_of(partition: Partition) -> object:
    """Everything about a partition that must come back."""
    return (
        partition.next_offset, partition.log_start, partition.size_bytes, partition.first_dirty_ms,
        [(span.base_offset, span.last_offset, span.seq, span.location, span.byte_start, span.byte_length,
          span.max_timestamp, span.batch_count) for span in partition.spans],
        {key: (state.epoch, state.last_ms, list(state.batches)) for key, state in partition.producers.items()},
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("rows_at_once", [1, 3, 2_000])
async def test_everything_comes_back(seed: int, rows_at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "ROWS_AT_ONCE", rows_at_once)
    draw = random.Random(seed)
    life = await begin()
    await life.topics.create(1, [NewTopic(name="orders", partition_count=3)])
    sequences = {1: [0, 0, 0], 2: [0, 0, 0]}
    for _ in range(draw.randint(0, 8)):
        batches = []
        for _ in range(draw.randint(1, 6)):
            index, count = draw.randrange(3), draw.randint(1, 3)
            producer_id = draw.choice((-1, 1, 2))
            sequence = -1
            if producer_id > 0:
                sequence = sequences[producer_id][index]
                sequences[producer_id][index] += count
            data = batch(count, producer_id=producer_id, sequence=sequence, size_bytes=draw.choice((70, 500)))
            batches.append((life.topic().partitions[index], data))
        await append(life.writer, *batches)
        life.clock.time_ms += 10
    await life.topics.trim(1, {life.topic().partitions[0]: life.topic().partitions[0].next_offset})
    before = [state_of(partition) for partition in life.topic().partitions]
    seq = life.writer.stats.commits
    for _ in range(2):
        life = await life.die()
        assert [state_of(partition) for partition in life.topic().partitions] == before
        assert life.seq == seq


async def test_the_next_life_goes_on() -> None:
    life = await begin()
    await life.topics.create(1, [NewTopic(name="orders", partition_count=1)])
    first = batch(2, producer_id=9, sequence=0)
    for turn in range(3):
        partition = life.topic().partitions[0]
        (answer, repeat) = await append(
            life.writer, (partition, batch(2, producer_id=9, sequence=2 * turn)), (partition, first)
        )
        assert (answer.base_offset, repeat.base_offset) == (2 * turn, 0), "known from before"
        life = await life.die()
    rows = await life.database.read(partial(commits_after, 1, 0, 10))
    assert [read_commit(row).seq for row in rows] == [1, 2, 3]


async def test_what_is_appended_after_a_loss_is_not_removed_with_what_was_lost() -> None:
    life = await begin()
    await life.topics.create(1, [NewTopic(name="orders", partition_count=1)])
    await append(life.writer, (life.topic().partitions[0], batch(5)))
    await life.topics.trim(1, {life.topic().partitions[0]: 5})
    await life.execute("DELETE FROM wal_commit")
    life = await life.die()
    (answer,) = await append(life.writer, (life.topic().partitions[0], batch(2)))
    assert answer.base_offset == 5
    life = await life.die()
    partition = life.topic().partitions[0]
    assert (partition.log_start, partition.next_offset) == (5, 7)


@pytest.mark.parametrize("missing", [1, 3, 4])
async def test_a_row_that_is_missing_is_not_passed_over(missing: int) -> None:
    """Its object would be free space. Nothing is freed."""
    life = await begin()
    await life.topics.create(1, [NewTopic(name="orders", partition_count=1)])
    for _ in range(4):
        await append(life.writer, (life.topic().partitions[0], batch()))
    await life.execute("UPDATE shard SET commit_seq = 4")  # As where several agents commit: then it tells of the last.
    await life.execute("DELETE FROM wal_commit WHERE seq = $1", missing)
    with pytest.raises(CorruptData, match=f"lost the row of commit {missing}, but"):
        await life.die()
    assert len(life.wal._objects) == 4


async def test_what_no_commit_names_is_free_space() -> None:
    life = await begin()
    await life.topics.create(1, [NewTopic(name="orders", partition_count=1)])
    await append(life.writer, (life.topic().partitions[0], batch()))
    life.wal.append((b"orphan",))
    life = await life.die()
    assert len(life.wal._objects) == 1


async def test_a_commit_without_its_object_is_damage() -> None:
    life = await begin()
    await life.topics.create(1, [NewTopic(name="orders", partition_count=1)])
    await append(life.writer, (life.topic().partitions[0], batch()))
    life.wal.release([span.location for span in life.topic().partitions[0].spans if span.location])
    with pytest.raises(CorruptData):
        await life.die()


async def test_commits_of_deleted_topics_are_passed_over() -> None:
    life = await begin()
    await life.topics.create(1, [NewTopic(name=name, partition_count=1) for name in ("gone", "orders")])
    await append(
        life.writer, (life.topic("gone").partitions[0], batch()), (life.topic().partitions[0], batch(3))
    )  # fmt: skip
    await life.topics.delete(1, [life.topic("gone")])
    life = await life.die()
    assert life.registry.by_name(1, "gone") is None
    assert life.topic().partitions[0].next_offset == 3


async def test_rows_below_the_floor_mean_nothing() -> None:
    """Compaction has moved the floor and died before it deleted the rows."""
    life = await begin()
    await life.topics.create(1, [NewTopic(name="orders", partition_count=1)])
    partition = life.topic().partitions[0]
    for sequence in range(4):
        await append(life.writer, (partition, batch(1, producer_id=9, sequence=sequence)))
    state = ProducerState(9, 0, life.clock.time_ms, partition.producers[9].batches)
    await life.execute("UPDATE shard SET wal_floor = 3")
    await life.execute("UPDATE partition SET segmented_to = 3, next_offset = 3, size_bytes = 777")
    await life.execute(
        "INSERT INTO producer_state VALUES ($1, 9, 0, $2, $3, -1, -1)", partition.partition_id, life.clock.time_ms,
        pack_batches(list(state.batches)[:3]),
    )  # fmt: skip
    life = await life.die()
    partition = life.topic().partitions[0]
    assert [span.base_offset for span in partition.spans] == [3]
    assert (partition.next_offset, partition.segmented_to, partition.size_bytes) == (4, 3, 877)
    assert [found.first_sequence for found in partition.producers[9].batches] == [0, 1, 2, 3]
    assert life.seq == 4
    assert len(life.wal._objects) == 1


async def test_states_ahead_of_the_commits_that_are_left_are_not_taken_back() -> None:
    life = await begin()
    await life.topics.create(1, [NewTopic(name="orders", partition_count=1)])
    partition = life.topic().partitions[0]
    for sequence in range(3):
        await append(life.writer, (partition, batch(1, producer_id=9, sequence=sequence)))
    await life.execute(
        "INSERT INTO producer_state VALUES ($1, 9, 0, $2, $3, -1, -1)", partition.partition_id, life.clock.time_ms,
        pack_batches(partition.producers[9].batches),
    )  # fmt: skip
    life = await life.die()
    assert [found.first_sequence for found in life.topic().partitions[0].producers[9].batches] == [0, 1, 2]


# ---- stored batches --------------------------------------------------------------------------------------------


def test_batches_come_back() -> None:
    batches = [SequenceBatch(number, number + 1, 10 * number, 10 * number + 1, -1) for number in range(5)]
    assert list(unpack_batches(pack_batches(batches))) == batches
    assert list(unpack_batches(b"")) == []


@pytest.mark.parametrize("cut", [1, 31, 33])
def test_cut_batches_are_damage(cut: int) -> None:
    with pytest.raises(CorruptData):
        unpack_batches(bytes(cut))
