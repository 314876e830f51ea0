"""Commits, whoever makes them and wherever they are kept: dense, in order, once, and known for good."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from fixtures.log_world import append, batch, batches_in, registry_of, topic_of, writer_over
from fixtures.tables import have_tables

from penstock.base.clock import SystemClock
from penstock.base.errors import Conflict, Fenced, OutcomeUnknown, Unavailable
from penstock.base.randomness import SeededRandomness
from penstock.coordination.leases import LeaseHolder
from penstock.coordination.timers import LoopScheduler
from penstock.log.batches import ABORTABLE, IMPLICIT, Accepted
from penstock.log.commit_path import CommitPath, EmbeddedCommitPath
from penstock.log.commit_sql import CommitSql, PostgresCommitSql, take_over
from penstock.log.commits import TRANSACTIONAL
from penstock.log.follow import Follower
from penstock.log.model import Partition
from penstock.log.recovery import commits_after, load_state, pack_batches, read_commit
from penstock.log.registry import Registry
from penstock.log.shared_commit_path import SharedCommitPath
from penstock.log.writer import Writer
from penstock.metadata.inline import InlineDatabase
from penstock.metadata.postgres import PostgresDatabase
from penstock.metadata.sqlite import SqliteDatabase
from penstock.share import store as share_store
from penstock.share.model import REJECTED, DeadLetterBatch, Run, SharePartition, StateDeleted, StateStored
from penstock.share.store import PartitionName, ShareJournal
from penstock.storage.memory import MemoryWal
from penstock.transactions import store as transaction_store
from penstock.transactions.model import Transaction
from penstock.wire.error_codes import ErrorCode

KINDS = ("embedded-inline", "embedded-file", "shared-inline", "shared-file", "shared-postgres", "shared-postgres-plain")
PARTITIONS = (1, 2, 3)


class Faulty:
    """A database that can be told to fail before the next commits, or to lose their answers."""

    def __init__(self, database) -> None:
        self.database, self.faults = database, []
        self.dialect = database.dialect

    def __getattr__(self, name: str):
        return getattr(self.database, name)

    async def transaction(self, script, **options):
        return await self._faulty(lambda: self.database.transaction(script, **options))

    async def statement(self, sql, args=()):
        return await self._faulty(lambda: self.database.statement(sql, args))

    def submit(self, work):
        return self._faulty(lambda: self.database.submit(work))

    async def _faulty(self, call):
        fault = self.faults.pop(0) if self.faults else None
        if fault == "before":
            raise Unavailable("the database is away")
        if fault == "never":
            raise OutcomeUnknown("nothing happened, but nobody knows")
        answer = await call()
        if fault == "after":
            raise OutcomeUnknown("the answer was lost")
        return answer


@dataclass
class Agent:
    """One process: its own memory of the log, over a database and a WAL that all share."""

    database: Faulty
    registry: Registry
    path: CommitPath
    writer: Writer
    wal: MemoryWal
    follower: Follower | None = None
    partitions: dict[int, Partition] = field(default_factory=dict)


@dataclass
class World:
    """A database, and agents as they are needed."""

    kind: str
    database: PostgresDatabase | SqliteDatabase | InlineDatabase
    wal: MemoryWal = field(default_factory=lambda: MemoryWal(1 << 30))
    agents: int = 0
    epoch: int = 0

    async def agent(self) -> Agent:
        """A process that starts: it reads what is there."""
        self.agents += 1
        database, registry = Faulty(self.database), registry_of(topic_of(*PARTITIONS))
        randomness = SeededRandomness(f"agent {self.agents}")
        for partition in registry.partitions():
            rows = await self.database.statement(
                "SELECT next_offset FROM partition WHERE partition_id = $1", (partition.partition_id,)
            )
            partition.next_offset = rows[0][0]
        seq = await load_state(self.database, registry, Kept())
        follower = None
        path: CommitPath
        if self.kind.startswith("embedded"):
            path = EmbeddedCommitPath(
                database=database, wal=self.wal, clock=SystemClock(), randomness=randomness, seq=seq, inline=False
            )
        else:
            follower = Follower(database=database, registry=registry, randomness=randomness, seq=seq)

            async def at_once(work):
                return work()

            path = SharedCommitPath(
                database=database, wal=self.wal, registry=registry, follower=follower, clock=SystemClock(),
                randomness=randomness, on_thread=at_once, epoch=self.epoch, agent_id=self.agents,
            )  # fmt: skip
            if self.kind.endswith("plain"):
                path._sql = CommitSql()
        agent = Agent(database, registry, path, writer_over(path), self.wal, follower)
        agent.partitions = {partition.partition_id: partition for partition in registry.partitions()}
        return agent

    async def commits(self) -> list:
        """All of them, as the database has them."""
        return [read_commit(row) for row in await self.database.read(lambda: commits_after(1, 0, 10**6))]

    async def log(self, partition_id: int) -> list[tuple[int, int]]:
        """First offset and mark of every batch of a partition, read from the WAL as the commits say."""
        found, expected = [], 0
        for commit in await self.commits():
            for entry, base in zip(commit.entries, commit.bases, strict=True):
                if entry.partition_id != partition_id:
                    continue
                assert base == expected, f"commit {commit.seq} begins at {base}, not {expected}"
                end = entry.byte_start + entry.byte_length
                batches = batches_in(self.wal.read(commit.location, entry.byte_start, end))
                assert len(batches) == entry.batch_count
                for _, count, mark in batches:
                    found.append((expected, mark))
                    expected += count
                assert expected == base + entry.offset_count
        return found

    async def check(self, *agents: Agent) -> None:
        """What holds at any time: numbers without gaps, heads at the ends, memory and rows in agreement."""
        commits = await self.commits()
        assert [commit.seq for commit in commits] == list(range(1, len(commits) + 1))
        ends = {number: await self.end(number) for number in PARTITIONS}
        if self.kind.startswith("shared"):
            rows = await self.database.statement("SELECT partition_id, next_offset FROM partition")
            assert dict(rows) == ends
            assert await self.database.statement("SELECT commit_seq FROM shard") == [(len(commits),)]
        for agent in agents:
            if agent.follower is not None:
                await agent.follower.poll()
            for number, partition in agent.partitions.items():
                assert partition.next_offset == ends[number]
                position = 0
                for span in partition.spans:
                    assert span.base_offset == position
                    position = span.last_offset + 1
                assert position == ends[number]
        if self.kind.startswith("shared"):
            await self.check_producers(*agents)

    async def check_producers(self, *agents: Agent) -> None:
        rows = await self.database.statement("SELECT partition_id, producer_id, epoch, batches FROM producer_state")
        stored = {(partition_id, producer_id): (epoch, bytes(b)) for partition_id, producer_id, epoch, b in rows}
        for agent in agents:
            known = {
                (number, producer_id): (state.epoch, pack_batches(state.batches))
                for number, partition in agent.partitions.items()
                for producer_id, state in partition.producers.items()
            }
            assert known == stored

    async def end(self, partition_id: int) -> int:
        """The next offset, by the commits."""
        return sum(
            entry.offset_count
            for commit in await self.commits()
            for entry in commit.entries
            if entry.partition_id == partition_id
        )


class Kept:
    """A WAL that another agent uses as well: nothing of it is freed at a start."""

    def recover(self, live) -> None:
        list(live)


@pytest.fixture(params=KINDS)
async def world(request: pytest.FixtureRequest, opened) -> World:
    return World(request.param, opened, epoch=await opened.transaction(lambda: take_over(1)))


@pytest.fixture
def unopened(request: pytest.FixtureRequest, tmp_path: Path):
    kind = request.node.callspec.params["world"]
    if "inline" in kind:
        return InlineDatabase()
    if "file" in kind:
        return SqliteDatabase(tmp_path / "db", durability="process")
    return PostgresDatabase(request.getfixturevalue("migrated_postgres_dsn"), randomness=SeededRandomness("commits"))


@pytest.fixture
async def opened(unopened) -> AsyncIterator:
    await unopened.open()
    await have_tables(unopened, SystemClock())
    for partition_id in PARTITIONS:
        await unopened.statement(
            "INSERT INTO partition (partition_id, cluster_id, shard_id, topic_id, partition_index)"
            " VALUES ($1, 1, 1, $2, $3)",
            (partition_id, b"t" * 16, partition_id - 1),
        )
    yield unopened
    await unopened.close()


shared_only = pytest.mark.parametrize("world", [kind for kind in KINDS if kind.startswith("shared")], indirect=True)


def batches_of(partition: Partition) -> dict[int, tuple[int, bytes]]:
    return {key: (state.epoch, pack_batches(state.batches)) for key, state in partition.producers.items()}


def idempotent(sequence: int, count: int = 1, *, producer: int = 7, epoch: int = 0, mark: int = 0):
    return batch(count, producer_id=producer, epoch=epoch, sequence=sequence, mark=mark)


# ---- one agent -------------------------------------------------------------------------------------------------


async def test_offsets_are_dense_and_numbers_have_no_gaps(world: World) -> None:
    agent = await world.agent()
    choices, expected = random.Random(1), {number: [] for number in PARTITIONS}
    ends = Counter()
    for turn in range(40):
        sent = []
        for _ in range(choices.randrange(1, 6)):
            number, count = choices.choice(PARTITIONS), choices.randrange(1, 9)
            sent.append((number, count, turn * 10 + len(sent)))
        answers = await append(
            agent.writer, *((agent.partitions[number], batch(count, mark=mark)) for number, count, mark in sent)
        )
        for (number, count, mark), answer in zip(sent, answers, strict=True):
            assert answer.error is ErrorCode.NONE
            assert answer.base_offset == ends[number]
            expected[number].append((ends[number], mark))
            ends[number] += count
    for number in PARTITIONS:
        assert await world.log(number) == expected[number]
    await world.check(agent)


async def test_repeated_batches_are_answered_with_the_first(world: World) -> None:
    agent = await world.agent()
    (first,) = (agent.partitions[1],)
    await append(agent.writer, (first, batch(3)))
    for sequence in range(0, 14, 2):
        (answer,) = await append(agent.writer, (first, idempotent(sequence, 2, mark=sequence)))
        assert (answer.error, answer.base_offset) == (ErrorCode.NONE, 3 + sequence)
    for sequence in range(4, 14, 2):
        (answer,) = await append(agent.writer, (first, idempotent(sequence, 2)))
        assert (answer.error, answer.base_offset) == (ErrorCode.NONE, 3 + sequence)
    for sequence in (2, 3, 15, 100):
        (answer,) = await append(agent.writer, (first, idempotent(sequence, 2)))
        assert answer.error is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
    assert len(await world.log(1)) == 8
    await world.check(agent)


async def test_repeats_within_a_flush_are_answered_with_it(world: World) -> None:
    agent = await world.agent()
    first, second = agent.partitions[1], agent.partitions[2]
    answers = await append(
        agent.writer, (first, idempotent(0, 5)), (second, idempotent(0, 1)), (first, idempotent(0, 5)),
        (first, idempotent(5, 2)), (first, idempotent(5, 2)), (first, batch(1)), (first, idempotent(3, 3)),
    )  # fmt: skip
    assert [answer.base_offset for answer in answers[:6]] == [0, 0, 0, 5, 5, 7]
    assert answers[6].error is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
    await world.check(agent)


async def test_epochs_fence_and_begin_at_zero(world: World) -> None:
    agent = await world.agent()
    first = agent.partitions[1]

    async def send(sequence: int, epoch: int) -> ErrorCode:
        (answer,) = await append(agent.writer, (first, idempotent(sequence, epoch=epoch)))
        return answer.error

    assert await send(5, 0) is ErrorCode.NONE
    assert await send(6, 1) is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
    assert await send(0, 1) is ErrorCode.NONE
    assert await send(6, 0) is ErrorCode.INVALID_PRODUCER_EPOCH
    assert await send(1, 1) is ErrorCode.NONE
    assert await send(2**31 - 1, 1) is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
    assert len(await world.log(1)) == 3
    await world.check(agent)


async def test_sequences_wrap(world: World) -> None:
    agent = await world.agent()
    first, last = agent.partitions[1], 2**31 - 1
    answers = [
        (await append(agent.writer, (first, idempotent(sequence, count))))[0]
        for sequence, count in ((last - 1, 1), (last, 3), (2, 1), (last, 3))
    ]
    assert [answer.base_offset for answer in answers] == [0, 1, 4, 1]
    await world.check(agent)


async def test_many_producers_and_batches_in_one_commit(world: World) -> None:
    agent = await world.agent()
    sent = [
        (agent.partitions[number], idempotent(turn * 2, 2, producer=producer, mark=turn))
        for turn in range(9)
        for producer in range(5)
        for number in PARTITIONS
    ]
    answers = await append(agent.writer, *sent)
    assert {answer.error for answer in answers} == {ErrorCode.NONE}
    await world.check(agent)
    again = await append(agent.writer, *sent[-15:])
    assert [answer.base_offset for answer in again] == [answer.base_offset for answer in answers[-15:]]
    await append(agent.writer, *((p, idempotent(18, 1, producer=producer)) for p, producer in ((sent[0][0], 0),)))
    await world.check(agent)


# ---- failures --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["before", "after", "never"])
async def test_a_commit_whose_answer_is_lost_happened_once_or_never(world: World, fault: str) -> None:
    agent = await world.agent()
    first = agent.partitions[1]
    await append(agent.writer, (first, idempotent(0)))
    agent.database.faults = [fault]
    (answer,) = await append(agent.writer, (first, idempotent(1, mark=1)))
    if fault == "after":
        assert (answer.error, answer.base_offset) == (ErrorCode.NONE, 1)
    else:
        assert answer.error is ErrorCode.KAFKA_STORAGE_ERROR
    (again,) = await append(agent.writer, (first, idempotent(1, mark=1)))
    assert (again.error, again.base_offset) == (ErrorCode.NONE, 1)
    assert [mark for _, mark in await world.log(1)] == [0, 1]
    await world.check(agent)


@shared_only
async def test_looking_up_is_repeated_until_there_is_an_answer(world: World) -> None:
    agent = await world.agent()
    first = agent.partitions[1]
    for faults, error in (
        (["after", "before", "never", "after"], ErrorCode.NONE),
        (["never", "after"], ErrorCode.KAFKA_STORAGE_ERROR),
    ):
        agent.database.faults = faults
        (answer,) = await append(agent.writer, (first, batch(mark=1)))
        assert answer.error is error
    assert [mark for _, mark in await world.log(1)] == [1]
    assert agent.path.stats.settled == 2
    await world.check(agent)


async def test_a_full_wal_refuses_and_nothing_is_lost_of_it(world: World) -> None:
    world.wal = MemoryWal(20_000)
    agent = await world.agent()
    answers = [
        (await append(agent.writer, (agent.partitions[1], batch(size_bytes=6_000, mark=mark))))[0] for mark in range(5)
    ]
    errors = [answer.error for answer in answers]
    assert errors == [ErrorCode.NONE] * 2 + [ErrorCode.KAFKA_STORAGE_ERROR] * 3
    assert await world.log(1) == [(0, 0), (1, 1)]
    await world.check(agent)


async def test_failed_commits_give_their_space_back(world: World) -> None:
    agent = await world.agent()
    for turn in range(30):
        agent.database.faults = ["before"]
        await append(agent.writer, (agent.partitions[1], batch(mark=turn)))
    assert world.wal._held_bytes == 0
    assert await world.log(1) == []


async def test_a_restart_finds_everything(world: World) -> None:
    agent = await world.agent()
    for turn in range(12):
        await append(
            agent.writer, (agent.partitions[1], idempotent(turn * 2, 2)), (agent.partitions[2], batch(turn + 1))
        )
    again = await world.agent()
    for number in PARTITIONS:
        assert again.partitions[number].next_offset == agent.partitions[number].next_offset
        assert batches_of(again.partitions[number]) == batches_of(agent.partitions[number])
    (answer,) = await append(again.writer, (again.partitions[1], idempotent(22, 2)))
    assert answer.base_offset == 22
    (answer,) = await append(again.writer, (again.partitions[1], idempotent(24, 2)))
    assert answer.base_offset == 24
    if again.follower is not None:
        assert again.path.stats.slow == 0
    await world.check(again)


@shared_only
async def test_who_was_taken_over_from_writes_no_more(world: World, caplog: pytest.LogCaptureFixture) -> None:
    agent, told = await world.agent(), list[str]()
    agent.writer.on_fenced = lambda: told.append(str(agent.writer.fenced))
    await append(agent.writer, (agent.partitions[1], idempotent(0)))
    await agent.path.check_epoch()
    world.epoch = await world.database.transaction(lambda: take_over(1))
    with pytest.raises(Fenced):
        await agent.path.check_epoch()
    in_flight = asyncio.ensure_future(append(agent.writer, (agent.partitions[1], batch())))
    await asyncio.sleep(0)
    # What waits behind that flush is refused with it, and whatever is sent later at once.
    waiting = asyncio.ensure_future(append(agent.writer, *((agent.partitions[n], batch()) for n in PARTITIONS)))
    sent_later = [await append(agent.writer, (agent.partitions[1], sent)) for sent in (idempotent(1), idempotent(0))]
    for answers in (await in_flight, await waiting, *sent_later):
        assert {answer.error for answer in answers} == {ErrorCode.NOT_LEADER_OR_FOLLOWER}
    await agent.writer.drain()
    assert agent.writer.pending_bytes == 0
    assert len(told) == 1
    assert caplog.text.count(told[0]) == 1
    with pytest.raises(Fenced):
        await agent.path.commit(memoryview(b"x" * 100), (), ())
    assert len(await world.log(1)) == 1
    successor = await world.agent()
    (answer,) = await append(successor.writer, (successor.partitions[1], idempotent(1)))
    assert answer.base_offset == 1
    await world.check(successor)


# ---- several agents --------------------------------------------------------------------------------------------


@shared_only
async def test_others_commits_are_followed_in_order(world: World) -> None:
    one, other = await world.agent(), await world.agent()

    class Waiter:
        heard = 0

        def on_append(self, size_bytes: int) -> None:
            self.heard += size_bytes

    waiter = Waiter()
    other.partitions[1].waiters[waiter] = None
    for turn in range(20):
        await append(one.writer, (one.partitions[1], batch(2, mark=turn)))
    assert waiter.heard == 0
    assert await other.follower.poll() == 20
    assert waiter.heard == 20 * 100
    (answer,) = await append(one.writer, (one.partitions[1], batch(1)))
    (answer,) = await append(other.writer, (other.partitions[1], batch(1)))
    assert answer.base_offset == 41
    assert one.path.stats.slow == other.path.stats.slow == 0
    await world.check(one, other)


@shared_only
async def test_a_producer_may_move_between_agents(world: World) -> None:
    """The agent it comes to knows nothing of it yet."""
    agents = [await world.agent(), await world.agent()]
    for turn in range(12):
        agent = agents[turn % 2]
        (answer,) = await append(agent.writer, (agent.partitions[1], idempotent(turn * 3, 3, mark=turn)))
        assert (answer.error, answer.base_offset) == (ErrorCode.NONE, turn * 3)
    assert agents[1].path.stats.slow > 0
    await world.check(*agents)


@shared_only
async def test_what_another_agent_has_appended_is_not_appended_again(world: World) -> None:
    one, other = await world.agent(), await world.agent()
    for turn in range(3):
        await append(one.writer, (one.partitions[1], idempotent(turn, mark=turn)), (one.partitions[2], batch()))
    answers = await append(
        other.writer, (other.partitions[1], batch(4, mark=10)), (other.partitions[1], idempotent(0, mark=0)),
        (other.partitions[1], idempotent(1, mark=1)), (other.partitions[1], batch(2, mark=11)),
        (other.partitions[2], idempotent(0, producer=8)), (other.partitions[1], idempotent(2, mark=2)),
        (other.partitions[1], idempotent(3, mark=3)), (other.partitions[1], idempotent(0)),
    )  # fmt: skip
    assert [answer.error for answer in answers] == [ErrorCode.NONE] * 8
    assert [answer.base_offset for answer in answers] == [3, 0, 1, 7, 3, 2, 9, 0]
    assert await world.log(1) == [(0, 0), (1, 1), (2, 2), (3, 10), (7, 11), (9, 3)]
    assert [bytes(span.view) != b"" for span in other.partitions[1].spans if span.view is not None]
    in_memory = [found for span in other.partitions[1].spans if span.view for found in batches_in(span.view)]
    assert in_memory == [(3, 4, 10), (7, 2, 11), (9, 1, 3)]
    await world.check(one, other)


@shared_only
async def test_a_flush_of_repeats_only_appends_nothing(world: World) -> None:
    one, other = await world.agent(), await world.agent()
    await append(one.writer, (one.partitions[1], idempotent(0, 2)))
    held = world.wal._held_bytes
    (answer,) = await append(other.writer, (other.partitions[1], idempotent(0, 2)))
    assert (answer.error, answer.base_offset) == (ErrorCode.NONE, 0)
    assert other.partitions[1].next_offset == 2
    assert world.wal._held_bytes == held
    assert len(await world.commits()) == 1
    await world.check(one, other)


@shared_only
async def test_a_newer_epoch_elsewhere_fences(world: World) -> None:
    one, other = await world.agent(), await world.agent()
    await append(one.writer, (one.partitions[1], idempotent(0)))
    await other.follower.poll()
    await append(one.writer, (one.partitions[1], idempotent(0, epoch=1)))
    answers = await append(
        other.writer, (other.partitions[1], idempotent(1)), (other.partitions[1], batch()),
        (other.partitions[1], idempotent(9, producer=9)),
    )  # fmt: skip
    assert [answer.error for answer in answers] == [ErrorCode.INVALID_PRODUCER_EPOCH, ErrorCode.NONE, ErrorCode.NONE]
    await world.check(one, other)


@shared_only
async def test_a_topic_deleted_elsewhere_is_unknown(world: World) -> None:
    agent = await world.agent()
    await append(agent.writer, (agent.partitions[1], batch()), (agent.partitions[3], idempotent(0)))
    await world.database.statement("DELETE FROM partition WHERE partition_id = 3")
    answers = await append(
        agent.writer,
        (agent.partitions[3], idempotent(1)),
        (agent.partitions[1], batch()),
        (agent.partitions[3], batch()),
    )
    assert [answer.error for answer in answers] == [
        ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, ErrorCode.NONE, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
    ]  # fmt: skip
    assert len(await world.log(1)) == 2


@shared_only
@pytest.mark.parametrize("fault", ["after", "never"])
async def test_a_commit_decided_twice_can_lose_its_answer_too(world: World, fault: str) -> None:
    one, other = await world.agent(), await world.agent()
    await append(one.writer, (one.partitions[1], idempotent(0, mark=0)))
    other.database.faults = [None, fault]
    answers = await append(
        other.writer, (other.partitions[1], idempotent(0, mark=0)), (other.partitions[1], idempotent(1, mark=1))
    )
    if fault == "after":
        assert [(answer.error, answer.base_offset) for answer in answers] == [(ErrorCode.NONE, 0), (ErrorCode.NONE, 1)]
    else:
        assert {answer.error for answer in answers} == {ErrorCode.KAFKA_STORAGE_ERROR}
        await append(other.writer, (other.partitions[1], idempotent(1, mark=1)))
    assert await world.log(1) == [(0, 0), (1, 1)]
    await world.check(one, other)


@shared_only
async def test_an_agent_that_was_away_too_long_is_told(world: World) -> None:
    one, other = await world.agent(), await world.agent()
    for _ in range(3):
        await append(one.writer, (one.partitions[1], batch()))
    await world.database.statement("DELETE FROM wal_commit WHERE seq <= 2")
    with pytest.raises(Fenced, match="started again"):
        await other.follower.poll()


@shared_only
async def test_agents_that_write_the_same_lose_nothing_and_repeat_nothing(world: World) -> None:
    """Producers that send each batch to both agents, in any order, beside others of their own; some answers are lost.

    Each batch must be in the log exactly once if anybody said so, and those of a producer in order.
    """
    turns = 150 if world.kind.startswith("shared-postgres") else 350
    agents = [await world.agent(), await world.agent()]
    followers = [asyncio.ensure_future(agent.follower.watch()) for agent in agents]
    acknowledged: dict[tuple[int, int], set[int]] = {}

    async def produce(producer: int, number: int, choices: random.Random) -> None:
        sequence = 0
        for turn in range(turns):
            mark = producer * 1_000_000 + turn
            count = choices.randrange(1, 4)
            sent = idempotent(sequence, count, producer=producer, mark=mark)
            while True:
                asked = choices.sample(agents, choices.choice((1, 2)))
                answers = await asyncio.gather(
                    *(append(agent.writer, (agent.partitions[number], sent)) for agent in asked)
                )
                good = {answer.base_offset for (answer,) in answers if answer.error is ErrorCode.NONE}
                errors = {answer.error for (answer,) in answers} - {ErrorCode.NONE}
                assert errors <= {ErrorCode.KAFKA_STORAGE_ERROR}
                assert len(good) <= 1
                if good:
                    acknowledged.setdefault((number, mark), set()).update(good)
                    break
            sequence += count

    async def produce_plainly(agent: Agent, choices: random.Random) -> None:
        for turn in range(turns):
            number, mark = choices.choice(PARTITIONS), -1 - turn - (10**6 if agent is agents[0] else 0)
            if choices.random() < 0.04:
                agent.database.faults = [choices.choice(("before", "after", "never"))]
            (answer,) = await append(agent.writer, (agent.partitions[number], batch(2, mark=mark)))
            if answer.error is ErrorCode.NONE:
                acknowledged.setdefault((number, mark), set()).add(answer.base_offset)

    work = [produce(producer, number, random.Random(producer * 10 + number))
            for producer in (7, 8, 9) for number in PARTITIONS]  # fmt: skip
    work += [produce_plainly(agent, random.Random(id)) for id, agent in enumerate(agents)]
    await asyncio.wait_for(asyncio.gather(*work), 120)
    for follower in followers:
        follower.cancel()
    ends = await asyncio.gather(*followers, return_exceptions=True)
    assert [type(end) for end in ends] == [asyncio.CancelledError] * 2
    for number in PARTITIONS:
        log = await world.log(number)
        marks = [mark for _, mark in log]
        assert len(marks) == len(set(marks))
        offsets = {mark: offset for offset, mark in log}
        for (where, mark), told in acknowledged.items():
            if where == number:
                assert told == {offsets[mark]}
        for producer in (7, 8, 9):
            own = [mark for mark in marks if mark // 1_000_000 == producer]
            assert own == [producer * 1_000_000 + turn for turn in range(turns)]
    assert sum(agent.path.stats.slow for agent in agents) > 10
    assert sum(agent.path.stats.settled for agent in agents) > 3
    await world.check(*agents)


# ---- transactions ----------------------------------------------------------------------------------------------


class Guard:
    """Lets everything through that the commit path may refuse, and remembers what it was told."""

    def __init__(self) -> None:
        self.outdated: list[Exception] = []

    def refusal(self, partition: Partition, sent: Accepted) -> ErrorCode:
        return ErrorCode.NONE

    def began(self, partition: Partition, producers) -> None:
        assert list(producers)

    def on_outdated(self, problem: Exception) -> None:
        self.outdated.append(problem)


class Note:
    """What participants write in these tests: a producer's next epoch."""

    def __init__(self) -> None:
        self.epochs: dict[int, int] = {}

    def script(self):
        for producer_id, epoch in self.epochs.items():
            yield "UPDATE txn SET epoch = $1, partitions = $2 WHERE producer_id = $3", (epoch, b"", producer_id)

    def record(self) -> None:
        """No commit record tells it."""


class Ender:
    """A participant that ends a producer's transaction where its agent knows it to be open."""

    def __init__(self, agent: Agent, producer: int, epoch: int) -> None:
        self.agent, self.producer, self.epoch = agent, producer, epoch
        self.prepared = 0
        self.answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def prepare(self, flush) -> bool:
        self.prepared += 1
        in_flush = list(flush.partitions_of(self.producer))
        ended = [
            partition
            for partition in self.agent.partitions.values()
            if self.producer in partition.transactions or partition in in_flush
        ]
        flush.end_transaction(ended, producer_id=self.producer, epoch=self.epoch, commit=False, coordinator_epoch=0)
        flush.join(self, producers=(self.producer,))
        flush.gather(Note, Note).epochs[self.producer] = self.epoch
        return True

    def committed(self) -> None:
        self.answer.set_result(True)

    def failed(self, problem: Exception) -> None:
        self.answer.set_exception(problem)


def transactional(sequence: int, *, epoch: int = 0, implicit: bool = True, mark: int = 0) -> Accepted:
    flags = TRANSACTIONAL | ABORTABLE | (IMPLICIT if implicit else 0)
    return batch(1, producer_id=7, epoch=epoch, sequence=sequence, mark=mark)._replace(flags=flags)


async def with_transactions(world: World, agents: int = 2) -> list[Agent]:
    """Agents, and an id that producer 7 has."""
    txn = Transaction(key=(1, "orders"), producer_id=7, epoch=0, timeout_ms=1, updated_ms=0, partitions=frozenset({2}))
    await world.database.transaction(lambda: transaction_store.put(txn))
    started = [await world.agent() for _ in range(agents)]
    for agent in started:
        agent.writer.transactions = Guard()
    return started


async def end(agent: Agent, epoch: int) -> Ender:
    ender = Ender(agent, 7, epoch)
    agent.writer.enlist(ender)
    assert await ender.answer
    return ender


@shared_only
async def test_only_batches_that_fit_their_transaction_are_appended(world: World) -> None:
    (agent,) = await with_transactions(world, 1)
    answers = await append(
        agent.writer, (agent.partitions[1], transactional(0)), (agent.partitions[2], transactional(0, implicit=False)),
        (agent.partitions[3], transactional(0, implicit=False)),
    )  # fmt: skip
    assert [answer.error for answer in answers] == [
        ErrorCode.NONE, ErrorCode.NONE, ErrorCode.TRANSACTION_ABORTABLE,
    ]  # fmt: skip
    answers = await append(
        agent.writer, (agent.partitions[1], transactional(0, epoch=1)), (agent.partitions[3], transactional(4)),
        (agent.partitions[2], batch(1, producer_id=8, sequence=0)._replace(flags=TRANSACTIONAL | IMPLICIT)),
        (agent.partitions[2], batch()),
    )  # fmt: skip
    assert [answer.error for answer in answers] == [
        ErrorCode.INVALID_PRODUCER_EPOCH, ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, ErrorCode.INVALID_PRODUCER_ID_MAPPING,
        ErrorCode.NONE,
    ]  # fmt: skip
    assert agent.path.stats.slow == 2
    await world.check(agent)


@shared_only
async def test_the_end_of_a_transaction_has_its_markers_everywhere(world: World) -> None:
    one, other = await with_transactions(world)
    await append(one.writer, (one.partitions[1], transactional(0)))
    await append(other.writer, (other.partitions[2], transactional(0)))  # Which the one does not know.
    ender = await end(one, 1)
    assert ender.prepared == 2
    assert len(one.writer.transactions.outdated) == 1
    await other.follower.poll()
    for agent in (one, other):
        assert [len(agent.partitions[number].transactions) for number in PARTITIONS] == [0, 0, 0]
        assert [len(agent.partitions[number].aborted) for number in PARTITIONS] == [1, 1, 0]
    assert [partition.next_offset for partition in other.partitions.values()] == [2, 2, 0]
    await world.check(one, other)
    # Others' commits that have nothing of the transaction do not matter.
    await append(one.writer, (one.partitions[1], transactional(0, epoch=1)))
    await append(other.writer, (other.partitions[3], batch()))
    assert (await end(one, 2)).prepared == 1
    await world.check(one, other)


@shared_only
async def test_no_batch_follows_the_end_of_its_transaction(world: World) -> None:
    one, other = await with_transactions(world)
    await append(other.writer, (other.partitions[1], transactional(0)))
    await end(one, 1)
    sent = [(other.partitions[1], transactional(1)), (other.partitions[2], transactional(0))]
    answers = await append(other.writer, *sent, (other.partitions[3], batch()))
    assert [answer.error for answer in answers] == [
        ErrorCode.INVALID_PRODUCER_EPOCH, ErrorCode.INVALID_PRODUCER_EPOCH, ErrorCode.NONE,
    ]  # fmt: skip
    (answer,) = await append(other.writer, (other.partitions[1], transactional(0, epoch=1)))
    assert (answer.error, answer.base_offset) == (ErrorCode.NONE, 2)
    await world.check(one, other)


@shared_only
async def test_a_partition_that_was_written_to_belongs_to_the_transaction_until_its_end(world: World) -> None:
    """Batches that do not add their partition: as this agent knows, as others' commits say, as their own flush does."""
    one, other = await with_transactions(world)

    async def send(agent: Agent, number: int, *sent: Accepted) -> list[ErrorCode]:
        return [answer.error for answer in await append(agent.writer, *((agent.partitions[number], b) for b in sent))]

    assert await send(one, 1, transactional(0)) == [ErrorCode.NONE]
    assert await send(one, 1, transactional(1, implicit=False)) == [ErrorCode.NONE]
    assert await send(other, 1, transactional(2, implicit=False)) == [ErrorCode.NONE]
    assert await send(one, 3, transactional(0), transactional(1, implicit=False)) == [ErrorCode.NONE] * 2
    await other.follower.poll()
    await end(one, 0)  # As clients of before KIP-890 end one: the epoch stays.
    assert [len(partition.transactions) for partition in other.partitions.values()] == [1, 0, 1]
    for number, sequence in ((1, 3), (3, 2)):
        late = transactional(sequence, implicit=False)
        assert await send(other, number, late) == [ErrorCode.TRANSACTION_ABORTABLE]
        assert await send(one, number, late) == [ErrorCode.TRANSACTION_ABORTABLE]
    assert [await world.end(number) for number in PARTITIONS] == [4, 0, 3]
    await world.check(one, other)


@shared_only
@pytest.mark.parametrize("fault", ["before", "after", "never"])
@pytest.mark.parametrize("has_batches", [True, False])
async def test_an_end_whose_answer_is_lost_happened_once_or_never(world: World, fault: str, has_batches: bool) -> None:
    (agent,) = await with_transactions(world, 1)
    if has_batches:
        await append(agent.writer, (agent.partitions[1], transactional(0)))
    agent.database.faults = [fault]
    if fault == "before" or (fault == "never" and has_batches):
        with pytest.raises(Unavailable):
            await end(agent, 1)
    await end(agent, 1)
    assert await world.database.statement("SELECT epoch FROM txn") == [(1,)]
    assert await world.end(1) == 2 * has_batches
    await world.check(agent)


@shared_only
async def test_a_restart_finds_open_transactions(world: World) -> None:
    (agent,) = await with_transactions(world, 1)
    await append(agent.writer, (agent.partitions[1], transactional(0)), (agent.partitions[2], transactional(0)))
    await end(agent, 1)
    await append(agent.writer, (agent.partitions[1], transactional(0, epoch=1)))
    again = await world.agent()
    assert [list(again.partitions[number].transactions) for number in PARTITIONS] == [[7], [], []]
    await world.check(agent, again)


# ---- letters of share groups -----------------------------------------------------------------------------------

NAME = PartitionName(1, "workers", b"t" * 16, 0)
WAITING = SharePartition(start_offset=0, next_offset=3, runs=(Run(0, 2, REJECTED, 1, "", 0, (0, 2)),))
DEAD_LETTERED = replace(WAITING, dead_lettered=((0, 2),))
DONE = SharePartition(start_offset=3, next_offset=3)


async def with_letters_to_write(world: World, agent: Agent) -> ShareJournal:
    """A journal of share groups, one of which has given up three records."""
    journal = ShareJournal(
        world.database,
        holder=LeaseHolder(name="agent"),
        clock=SystemClock(),
        scheduler=LoopScheduler(),
        writer=agent.writer,
    )
    await journal.open()
    await journal.write([(NAME.key, StateStored(WAITING))])
    return journal


async def append_dead_letters(journal: ShareJournal, agent: Agent, mark: int = 9) -> bool:
    return await journal.append_dead_letters(
        NAME.key, 0, DeadLetterBatch(agent.partitions[2], batch(3, mark=mark), [(0, 2)])
    )


async def stored(world: World) -> SharePartition | None:
    return await world.database.read(lambda: share_store.load(NAME))


@pytest.mark.parametrize("fault", ["before", "after", "never"])
async def test_letters_and_the_note_of_them_happen_together(world: World, fault: str) -> None:
    agent = await world.agent()
    journal = await with_letters_to_write(world, agent)
    agent.database.faults = [fault]
    if fault != "after":
        with pytest.raises(Unavailable):
            await append_dead_letters(journal, agent)
        assert await stored(world) == WAITING
        assert await world.log(2) == []
    assert await append_dead_letters(journal, agent)
    assert await stored(world) == DEAD_LETTERED
    assert await world.log(2) == [(0, 9)]
    await journal.write([(NAME.key, StateStored(replace(WAITING, next_offset=3)))])
    assert await stored(world) == DEAD_LETTERED, "what members say meanwhile changes nothing of it"
    await journal.write([(NAME.key, StateStored(DONE, is_settled=True)), (NAME.key, StateStored(DONE))])
    assert await stored(world) == DONE
    await world.check(agent)


async def test_letters_follow_what_their_queue_gets_by_the_same_flush(world: World) -> None:
    agent = await world.agent()
    journal = await with_letters_to_write(world, agent)
    (answer,), _ = await asyncio.gather(
        append(agent.writer, (agent.partitions[2], batch(2, mark=1))), append_dead_letters(journal, agent)
    )
    assert (answer.error, answer.base_offset) == (ErrorCode.NONE, 0)
    assert await world.log(2) == [(0, 1), (2, 9)]
    assert len(await world.commits()) == 1
    await world.check(agent)


async def test_a_coordinator_that_was_replaced_writes_no_letters_and_keeps_nobody_from_writing(world: World) -> None:
    agent = await world.agent()
    old = await with_letters_to_write(world, agent)
    new = ShareJournal(
        world.database,
        holder=LeaseHolder(name="new"),
        clock=SystemClock(),
        scheduler=LoopScheduler(),
        writer=agent.writer,
    )
    assert list(await new.open()) == [(NAME.key, WAITING)]
    (answer,), fenced = await asyncio.gather(
        append(agent.writer, (agent.partitions[1], batch(1, mark=1))),
        append_dead_letters(old, agent),
        return_exceptions=True,
    )
    assert isinstance(fenced, Fenced)
    assert answer.error is ErrorCode.NONE
    assert (await world.log(1), await world.log(2)) == ([(0, 1)], [])
    assert await append_dead_letters(new, agent, mark=5)
    assert await world.log(2) == [(0, 5)]
    last = ShareJournal(
        world.database,
        holder=LeaseHolder(name="last"),
        clock=SystemClock(),
        scheduler=LoopScheduler(),
        writer=agent.writer,
    )
    assert list(await last.open()) == [(NAME.key, DEAD_LETTERED)]
    await world.check(agent)


async def test_letters_do_not_hide_what_became_of_another_write(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = await world.agent()
    journal = await with_letters_to_write(world, agent)
    transaction = world.database.transaction

    async def loses_the_answer(script, **options):
        monkeypatch.setattr(world.database, "transaction", transaction)
        await transaction(script, **options)
        await append_dead_letters(journal, agent)
        raise OutcomeUnknown("the connection ended")

    monkeypatch.setattr(world.database, "transaction", loses_the_answer)
    await journal.write([(NAME.key, StateStored(replace(WAITING, next_offset=3)))])
    assert await stored(world) == DEAD_LETTERED


async def test_letters_do_not_bring_a_group_back(world: World) -> None:
    agent = await world.agent()
    journal = await with_letters_to_write(world, agent)
    await journal.write([(NAME.key, StateDeleted())])
    assert await append_dead_letters(journal, agent)
    assert await stored(world) is None
    await journal.write([(NAME.key, StateStored(replace(WAITING, state_epoch=1)))])
    assert await append_dead_letters(journal, agent)
    assert await stored(world) == replace(WAITING, state_epoch=1), "it was set elsewhere meanwhile"


async def test_a_queue_that_is_gone_gets_nothing(world: World) -> None:
    agent = await world.agent()
    journal = await with_letters_to_write(world, agent)
    agent.partitions[2].topic.deleted = True
    with pytest.raises(Conflict):
        await append_dead_letters(journal, agent)
    assert await stored(world) == WAITING
    assert await world.commits() == []


@shared_only
@pytest.mark.parametrize("is_alone", [True, False])
async def test_a_queue_that_another_agent_deleted_is_not_said_to_have_letters(world: World, is_alone: bool) -> None:
    agent = await world.agent()
    journal = await with_letters_to_write(world, agent)
    await world.database.statement("DELETE FROM partition WHERE partition_id = 2")
    if is_alone:
        with pytest.raises(Conflict):
            await append_dead_letters(journal, agent)
    else:
        _, is_there = await asyncio.gather(
            append(agent.writer, (agent.partitions[1], batch(1, mark=1))), append_dead_letters(journal, agent)
        )
        assert not is_there
    assert await world.log(2) == []


async def test_letters_do_not_wait_for_a_log_that_has_stopped(world: World) -> None:
    agent = await world.agent()
    journal = await with_letters_to_write(world, agent)
    agent.writer.abandon()
    with pytest.raises(Unavailable):
        await append_dead_letters(journal, agent)


def test_both_dialects_have_the_same_scripts() -> None:
    assert set(vars(PostgresCommitSql)) & set(vars(CommitSql)) >= {"write", "heads", "states"}
