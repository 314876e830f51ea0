"""Who writes dead letters, over a log: whom that keeps waiting, what it costs, and what becomes of letters when their
queue, their group, their keys or the log go."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from fixtures.compaction_world import LogWorld
from fixtures.key_services import FakeKeyService

from penstock.agent.settings import SETTINGS
from penstock.base.errors import CorruptData, Unavailable
from penstock.coordination.leases import LeaseHolder
from penstock.coordination.timers import LoopScheduler
from penstock.groups import store as groups_store
from penstock.groups.model import GroupDeleted
from penstock.log.aborted import StoredAborted
from penstock.log.batches import Accepted, inspect
from penstock.log.model import Partition, Topic
from penstock.log.reader import Reader
from penstock.log.topics import NewTopic
from penstock.metadata.inline import InlineDatabase
from penstock.share import dead_letters
from penstock.share.acknowledging import Acknowledging
from penstock.share.dead_letters import READ_ATTEMPTS, DeadLetters
from penstock.share.model import Acknowledgement, AcknowledgeType, Acquire
from penstock.share.service import SharePartitions
from penstock.share.sessions import SessionKey, TopicIdPartition
from penstock.share.settings import ShareConfigs
from penstock.share.store import PartitionName
from penstock.storage.arena import Arena
from penstock.storage.memory import MemoryObjectStore, MemoryWal
from penstock.wire.compression import Compression
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages.share_acknowledge import AcknowledgementBatch
from penstock.wire.records import Record, build_batch, iter_batches, iter_records

GROUP, MEMBER, QUEUE = "workers", "anna", "dlq.jobs"
ACCEPT, RELEASE, REJECT = AcknowledgeType.ACCEPT, AcknowledgeType.RELEASE, AcknowledgeType.REJECT
SOON_S = 3.0
"""Less than anybody waits for letters."""
SECRET = b"swordfish-of-the-sealed-tenant"


class Room:
    """A log that has none now and then."""

    is_short = False

    def __init__(self) -> None:
        self._freed = asyncio.Event()

    async def wait(self) -> None:
        await self._freed.wait()

    def free(self) -> None:
        self.is_short = False
        self._freed.set()


class GroupConfigs:
    """What was set for the group."""

    def __init__(self, **more: str) -> None:
        self.values = {"errors.deadletterqueue.topic.name": QUEUE, **more}

    def overrides(self, cluster_id: int, kind: object, name: str) -> Mapping[str, str]:
        return self.values


class Office:
    """A log, the share partitions over it, and who writes their letters."""

    def __init__(self, world: LogWorld, configs: GroupConfigs, executor: ThreadPoolExecutor | None = None) -> None:
        self.world, self.executor, self.room = world, executor, Room()
        world.writer._room = self.room
        share_configs = ShareConfigs(configs, SETTINGS.started_with({}))
        self.partitions = SharePartitions(
            database=world.database, reader=world.reader, aborted=StoredAborted(world.database), configs=share_configs,
            offset_for_timestamp=self._nowhere, holder=LeaseHolder(name="office"), clock=world.clock,
            scheduler=LoopScheduler(), writer=world.writer,
        )  # fmt: skip
        self.letters = DeadLetters(
            partitions=self.partitions, topics=world.topics, configs=share_configs, reader=world.reader,
            writer=world.writer, clock=world.clock, scheduler=LoopScheduler(), executor=executor,
        )  # fmt: skip

    async def _nowhere(self, partition: Partition, timestamp: int, *, max_only: bool) -> tuple[int, int] | None:
        raise AssertionError("nobody asks for a time")

    async def close(self) -> None:
        self.room.free()
        await self.letters.close()
        await self.partitions.close()

    # --- What members do ---

    async def begins(self, name: PartitionName, start: int = 0) -> int:
        return start

    async def take(self, count: int, *, index: int = 0, start: int = 0) -> list[tuple[int, int]]:
        begins = partial(self.begins, start=start)
        asked = Acquire(MEMBER, count, count, exact=True)
        taken = await self.partitions.acquire(self.name(index), self.jobs.partitions[index], asked, 1 << 20, begins)
        return [(one.first, one.last) for one in taken.ranges]

    async def say(self, kind: AcknowledgeType, *offsets: int, index: int = 0) -> ErrorCode:
        said = [Acknowledgement(offset, offset, [kind]) for offset in offsets]
        return (await self.partitions.acknowledge(self.name(index), MEMBER, said)).error

    async def waiting(self, *offsets: int, index: int = 0) -> None:
        """Have records rejected while the log has no room, and their letters made."""
        self.room.is_short = True
        assert await self.say(REJECT, *offsets, index=index) is ErrorCode.NONE
        await until(lambda: len(self.world.writer._participants) > 0)

    async def delete_group(self, *, is_there: bool = True) -> None:
        """Have the group deleted, as the coordinator of groups does it, if it may be."""
        changes = groups_store.fold([((1, GROUP), GroupDeleted())])

        async def delete() -> bool:
            if is_there:
                await self.world.database.transaction(lambda: groups_store.write(changes))
            return is_there

        await self.partitions.delete_group((1, GROUP), delete)

    # --- What there is ---

    def topic(self, name: str) -> Topic:
        topic = self.world.registry.by_name(1, name)
        assert topic is not None
        return topic

    @property
    def jobs(self) -> Topic:
        return self.topic("jobs")

    def name(self, index: int = 0) -> PartitionName:
        return PartitionName(1, GROUP, self.jobs.topic_id, index)

    async def fill(
        self, values: Sequence[bytes], *, index: int = 0, keys: Sequence[bytes | None] = (), **how: Any
    ) -> None:
        given = keys or [None] * len(values)
        records = [Record(number, 5, key, value) for number, (key, value) in enumerate(zip(given, values, strict=True))]
        batch = inspect(build_batch(records, **how), self.jobs.config, 10, version=13, transactional=False)
        assert isinstance(batch, Accepted)
        (answer,) = await self.world.append((self.jobs.partitions[index], batch))
        assert answer.error is ErrorCode.NONE

    async def told(self) -> list[tuple[int, bytes | None]]:
        """Offset and value of every letter."""
        views = await self.world.contents(self.topic(QUEUE).partitions[0])
        return [
            (int(dict(record.headers)["__dlq.errors.offset"] or b""), record.value)
            for position, header in iter_batches(views)
            for record in iter_records(views[position : position + header.size_bytes])
        ]

    async def is_done(self, index: int = 0) -> bool:
        return await self.partitions.archiving(self.name(index)) is None

    async def done(self, index: int = 0) -> None:
        async with asyncio.timeout(SOON_S):
            while not await self.is_done(index):
                await asyncio.sleep(0.01)

    async def rows(self) -> int:
        return int((await self.world.database.statement("SELECT COUNT(*) FROM share_partition"))[0][0])


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(SOON_S):
        while not condition():
            await asyncio.sleep(0.005)


Open = Callable[..., Any]


@pytest.fixture
async def opened() -> AsyncIterator[Open]:
    offices: list[Office] = []

    async def opens(
        *, key_service: FakeKeyService | None = None, queue: Mapping[str, str] | None = None,
        executor: ThreadPoolExecutor | None = None, **configs: str,
    ) -> Office:  # fmt: skip
        world = await LogWorld(
            InlineDatabase(), MemoryWal(1 << 28), MemoryObjectStore(), key_service=key_service
        ).open()
        world.clock.time_ms = 10
        if key_service is not None:
            await world.keys.encrypt(1)
        enabled = {"errors.deadletterqueue.group.enable": "true", **(queue or {})}
        await world.topics.create(
            1, [NewTopic(name="jobs", partition_count=2), NewTopic(name=QUEUE, partition_count=1, overrides=enabled)]
        )
        office = Office(
            world, GroupConfigs(**{name.replace("_", "."): value for name, value in configs.items()}), executor
        )
        await office.partitions.open()
        offices.append(office)
        return office

    yield opens
    for office in offices:
        await office.close()
        await office.world.writer.drain()
        if office.world.key_service is not None:
            await office.world.keys.close()
        await office.world.database.close()


COPIES = {"errors_deadletterqueue_copy_record_enable": "true"}


async def test_what_members_say_neither_waits_for_letters_nor_fails_with_them(opened: Open) -> None:
    office = await opened()
    for index in range(2):
        await office.fill([b"x"] * 5, index=index)
        assert await office.take(5, index=index) == [(0, 4)]
    await office.waiting(0)
    async with asyncio.timeout(SOON_S):
        assert await office.say(ACCEPT, 1, index=0) is ErrorCode.NONE, "of the same partition"
        assert await office.say(ACCEPT, 1, index=1) is ErrorCode.NONE, "of another"
        assert await office.say(REJECT, 2, index=1) is ErrorCode.NONE
    commit, office.world.commit_path.commit = office.world.commit_path.commit, fails
    office.room.free()
    await until(lambda: office.world.writer.stats.failures >= 2)
    assert await office.say(ACCEPT, 2, index=0) is ErrorCode.NONE
    office.world.commit_path.commit = commit
    for index in range(2):
        await office.done(index)
    assert sorted(await office.told()) == [(0, None), (2, None)]


async def fails(*args: object) -> None:
    raise Unavailable("the disk is away")


async def test_a_group_that_is_deleted_does_not_come_back_by_its_letters(opened: Open) -> None:
    office = await opened()
    await office.fill([b"x"] * 9)
    assert await office.take(5) == [(0, 4)]
    await office.waiting(0)
    async with asyncio.timeout(SOON_S):
        await office.delete_group()
    office.room.free()
    await until(lambda: not office.letters._tasks)
    assert await office.rows() == 0
    assert await office.take(5, start=6) == [(6, 8)], "another of its name begins anew"
    assert await office.rows() == 1


async def test_what_is_known_of_a_topic_that_went_unheard_of_goes_later(opened: Open) -> None:
    """As where the process dies right after the deletion."""
    office = await opened()
    await office.world.topics.create(1, [NewTopic(name="other", partition_count=1)])
    for topic in (office.jobs, office.topic("other")):
        name, log = PartitionName(1, GROUP, topic.topic_id, 0), topic.partitions[0]
        await office.partitions.acquire(name, log, Acquire(MEMBER, 1, 1, exact=True), 1 << 20, office.begins)
    assert await office.rows() == 2
    await office.world.topics.delete(1, [office.jobs])
    await office.partitions.forget_deleted_topics()
    (kept,) = await office.world.database.statement("SELECT topic_id FROM share_partition")
    assert bytes(kept[0]) == office.topic("other").topic_id


async def test_what_ails_the_platform_is_not_told_to_members(opened: Open) -> None:
    office = await opened()
    await office.fill([b"x"])
    key, log = SessionKey(1, GROUP, MEMBER), office.jobs.partitions[0]
    await office.partitions.acquire(office.name(), log, Acquire(key.holder, 1, 1, exact=True), 1 << 20, office.begins)
    office.world.database.faults = lambda: "before"
    said = {TopicIdPartition(office.jobs.topic_id, 0): [AcknowledgementBatch(acknowledge_types=[ACCEPT])]}
    acknowledging = Acknowledging(office.world.registry, office.partitions)
    (outcome,) = (await acknowledging.acknowledge(key, said, version=2, is_renewal=False)).values()
    assert outcome == (ErrorCode.COORDINATOR_NOT_AVAILABLE, None)
    office.world.database.faults = lambda: None


async def test_nothing_of_a_deleted_group_is_written_though_the_database_is_away_from_then_on(opened: Open) -> None:
    """There is no second step: whatever was in memory of it is gone."""
    office = await opened()
    await office.fill([b"x"] * 9)
    assert await office.take(5) == [(0, 4)]
    transaction = office.world.database.transaction

    async def is_the_last_one(script: Any, **options: Any) -> None:
        office.world.database.transaction = is_away
        await transaction(script, **options)

    office.world.database.transaction = is_the_last_one
    await office.delete_group()
    office.world.database.transaction = transaction
    assert await office.say(ACCEPT, 0) is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    await office.partitions.release(office.name(), MEMBER)
    assert await office.rows() == 0


async def is_away(*args: object, **options: object) -> None:
    raise Unavailable("the database is away")


async def test_what_is_on_its_way_is_written_before_a_group_is_deleted_and_nothing_meanwhile(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    office = await opened()
    await office.fill([b"x"] * 9)
    assert await office.take(5) == [(0, 4)]
    transaction, goes_on, is_there = office.world.database.transaction, asyncio.Event(), asyncio.Event()

    async def stalls(script: Any, **options: Any) -> Any:
        is_there.set()
        await goes_on.wait()
        return await transaction(script, **options)

    monkeypatch.setattr(office.world.database, "transaction", stalls)
    said = asyncio.ensure_future(office.say(ACCEPT, 0))
    await is_there.wait()
    deleted = asyncio.ensure_future(office.delete_group())
    await asyncio.sleep(0)
    monkeypatch.setattr(office.world.database, "transaction", transaction)
    late = asyncio.ensure_future(office.say(ACCEPT, 1))
    await asyncio.sleep(0.01)
    assert not deleted.done(), "what it deletes could be written after it"
    goes_on.set()
    assert await said is ErrorCode.NONE
    with pytest.raises(Unavailable):
        await late
    await deleted
    assert await office.rows() == 0


@pytest.mark.parametrize("how", ["refused", "away"])
async def test_a_group_that_is_not_deleted_after_all_goes_on_with_its_locks(
    opened: Open, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    office = await opened()
    await office.fill([b"x"] * 5)
    assert await office.take(5) == [(0, 4)]
    if how == "refused":
        await office.delete_group(is_there=False)
    else:
        transaction = office.world.database.transaction
        monkeypatch.setattr(office.world.database, "transaction", is_away)
        with pytest.raises(Unavailable):
            await office.delete_group()
        monkeypatch.setattr(office.world.database, "transaction", transaction)
    assert await office.say(ACCEPT, 0) is ErrorCode.NONE
    assert await office.take(5) == []


async def test_another_group_of_the_name_is_not_told_what_became_of_the_first_ones_letters(opened: Open) -> None:
    office = await opened()
    await office.fill([b"x"] * 5)
    await office.take(5)
    await office.waiting(0)
    await office.delete_group()
    assert await office.take(5) == [(0, 4)]
    assert await office.say(REJECT, 0, 1) is ErrorCode.NONE
    office.room.free()
    await office.done()
    assert await office.told() == [(0, None), (0, None), (1, None)], "one of the first group's, two of the second's"
    assert office.letters.stats.written == 3


async def test_a_group_that_is_to_be_deleted_is_waited_for_until_its_letters_are_written(opened: Open) -> None:
    office = await opened()
    await office.fill([b"x"] * 5)
    await office.take(5)
    await office.waiting(0)
    settled = asyncio.ensure_future(office.partitions.settle_group((1, GROUP)))
    await office.partitions.settle_group((1, "others"))
    await office.partitions.settle_group((2, GROUP))
    assert not settled.done()
    office.room.free()
    await settled
    assert await office.told() == [(0, None)]


async def test_a_topic_that_is_deleted_waits_for_no_letters(opened: Open) -> None:
    office = await opened()
    await office.fill([b"x"] * 5)
    await office.take(5)
    await office.waiting(0)
    async with asyncio.timeout(SOON_S):
        await office.partitions.forget_topic(1, office.jobs.topic_id)
    assert await office.rows() == 0


async def test_a_queue_that_was_deleted_has_got_nothing(opened: Open) -> None:
    office = await opened()
    await office.fill([b"x"] * 5)
    await office.take(5)
    await office.waiting(0, 1)
    await office.world.topics.delete(1, [office.topic(QUEUE)])
    office.room.free()
    await office.done()
    assert (office.letters.stats.written, office.letters.stats.lost) == (0, 2)


async def test_a_queue_that_another_agent_has_deleted_gets_nothing_and_is_not_tried_on_and_on(opened: Open) -> None:
    """Which is known of it, and no more: it is among the topics here still."""
    office = await opened()
    await office.fill([b"x"] * 5)
    await office.take(5)
    await office.waiting(0, 1)
    office.topic(QUEUE).deleted = True
    office.room.free()
    await office.done()
    assert (office.letters.stats.written, office.letters.stats.lost) == (0, 2)


async def test_as_many_letters_as_there_may_be_records_hold_up_their_partition_until_they_are_written(
    opened: Open,
) -> None:
    office = await opened(share_partition_max_record_locks="100")
    await office.fill([b"x"] * 100)
    await office.fill([b"x"] * 50)
    assert await office.take(150) == [(0, 99)]
    await office.waiting(*range(100))
    assert office.letters.waiting == 1
    assert await office.take(50) == []
    office.room.free()
    await office.done()
    assert await office.take(50) == [(100, 149)]
    assert office.letters.waiting == 0


class DamagedReader:
    """Reads what a log has, but for some offsets, which fail as often as it says."""

    def __init__(self, office: Office, problem: Exception, *damaged: int, times: int = 10**9) -> None:
        self._reader, self._problem, self._damaged = office.world.reader, problem, damaged
        self.times, self.failed = times, 0
        office.letters._reader = self  # type: ignore[assignment]

    async def read_batches(self, log: Partition, offset: int, max_bytes: int) -> list[memoryview]:
        if offset in self._damaged and self.failed < self.times:
            self.failed += 1
            raise self._problem
        return await self._reader.read_batches(log, offset, 1)  # One batch.


async def test_what_cannot_be_read_costs_only_its_own_letters_their_copies(opened: Open) -> None:
    office = await opened(**COPIES)
    for first in range(0, 100, 5):
        await office.fill([b"%d" % number for number in range(first, first + 5)])
    await office.take(100)
    damaged = [*range(15, 25), *range(60, 95)]
    reader = DamagedReader(office, CorruptData("torn"), *damaged)
    assert await office.say(REJECT, *range(0, 100, 2)) is ErrorCode.NONE
    await office.done()
    assert await office.told() == [
        (number, None if number in damaged else b"%d" % number) for number in range(0, 100, 2)
    ]
    assert reader.failed < 20, "how far it goes is not found out one by one"


async def test_what_was_copied_is_not_waited_for_as_memory_for_what_is_copied_next(opened: Open) -> None:
    office = await opened(**COPIES)
    world, told = office.world, [(number, b"%d" % number * 600_000) for number in range(3)]
    for number, value in told:
        await office.fill([value])
        assert await office.take(1) == [(number, number)]
    world.tail.drop()
    office.letters._reader = Reader(
        segments=world.segments, wal=world.wal, objects=world.objects, executor=None, arena=Arena(64 * 1024),
        pinned_max_bytes=0,
    )  # fmt: skip
    assert await office.say(REJECT, 0, 1, 2) is ErrorCode.NONE
    await office.done()
    assert await office.told() == told


@pytest.mark.parametrize("times", [READ_ATTEMPTS - 1, 10**9])
async def test_a_store_that_does_not_answer_is_waited_for_only_so_long(
    opened: Open, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    monkeypatch.setattr(dead_letters, "_DELAYS_MS", (1,))
    office = await opened(**COPIES)
    for value in (b"a", b"b", b"c"):
        await office.fill([value])
    await office.take(3)
    DamagedReader(office, Unavailable("the store is away"), 1, times=times)
    assert await office.say(REJECT, 0, 1, 2) is ErrorCode.NONE
    await office.done()
    assert await office.told() == [(0, b"a"), (1, b"b" if times < READ_ATTEMPTS else None), (2, b"c")]


async def test_a_letter_that_is_refused_costs_only_itself(opened: Open) -> None:
    office = await opened(queue={"cleanup.policy": "compact"}, **COPIES)
    keys = [None if number == 3 else b"k%d" % number for number in range(10)]
    await office.fill([b"v%d" % number for number in range(10)], keys=keys)
    await office.take(10)
    assert await office.say(REJECT, *range(10)) is ErrorCode.NONE
    await office.done()
    assert await office.told() == [(number, b"v%d" % number) for number in range(10) if number != 3]
    assert (office.letters.stats.written, office.letters.stats.lost) == (9, 1)


async def test_closing_does_not_wait_for_the_log(opened: Open) -> None:
    office = await opened()
    await office.fill([b"x"] * 5)
    await office.take(5)
    await office.waiting(0)
    async with asyncio.timeout(SOON_S):
        await office.letters.close()
        await office.partitions.close()


async def test_what_has_its_letter_gets_no_other_after_a_crash(opened: Open) -> None:
    office = await opened()
    await office.fill([b"x"] * 5)
    await office.take(5)
    await office.waiting(0, 1, 4)
    # The process dies with its letters in the log, before what they are about is archived.
    archived = asyncio.Event()

    async def dies(*args: object) -> None:
        archived.set()
        await asyncio.Event().wait()

    office.partitions.archive = dies
    office.room.free()
    await archived.wait()
    assert await office.told() == [(0, None), (1, None), (4, None)]
    successor = Office(office.world, GroupConfigs())
    await successor.partitions.open()
    await successor.done()
    assert await office.told() == [(0, None), (1, None), (4, None)]
    assert await successor.take(5) == [(2, 3)]
    await successor.close()


async def test_letters_of_a_cluster_that_is_locked_meanwhile_are_not_stored(opened: Open) -> None:
    office = await opened(key_service=FakeKeyService(), **COPIES)
    await office.fill([SECRET] * 3)
    await office.take(3)
    await office.waiting(0)
    assert await office.world.keys.erase(1)
    before = len(office.world.wal._objects)
    office.room.free()
    await until(lambda: not office.world.writer._participants)
    await office.world.writer.drain()
    assert len(office.world.wal._objects) == before
    assert not any(SECRET in body for body in office.world.wal._objects.values())


async def test_records_of_a_large_batch_are_copied_without_stopping_everybody(opened: Open) -> None:
    """Every other record of what was in flight; before these, many that nobody asks for."""
    with ThreadPoolExecutor(1) as executor:
        office = await opened(executor=executor, **COPIES)
        count, taken = 40_000, 600
        await office.fill([b"%d" % number for number in range(count)], compression=Compression.ZSTD)
        assert await office.take(taken, start=count - taken) == [(count - taken, count - 1)]
        wanted = range(count - taken, count, 2)
        longest, at = 0.0, time.monotonic()
        assert await office.say(REJECT, *wanted) is ErrorCode.NONE
        while not await office.is_done():
            now = time.monotonic()
            longest, at = max(longest, now - at), now
            assert longest < 1
            await asyncio.sleep(0.001)
        assert await office.told() == [(number, b"%d" % number) for number in wanted]
