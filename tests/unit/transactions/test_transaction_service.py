"""The coordinator as a passenger of the writer: what it does where nobody waits for it any more."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from fixtures.log_world import topic_of
from fixtures.tables import have_tables

from penstock.base.clock import SystemClock
from penstock.base.errors import Unavailable
from penstock.base.randomness import SeededRandomness
from penstock.log.batches import Accepted
from penstock.log.commit_path import EmbeddedCommitPath
from penstock.log.commits import TRANSACTIONAL
from penstock.log.producer_ids import ProducerIds
from penstock.log.registry import Registry
from penstock.log.writer import Writer
from penstock.metadata.inline import InlineDatabase
from penstock.storage.arena import Arena
from penstock.storage.memory import MemoryWal
from penstock.transactions import store
from penstock.transactions.model import EPOCH_EXHAUSTED, EPOCH_MAX, Add, End, Init, Producer, Transaction
from penstock.transactions.passengers import Writes
from penstock.transactions.service import TransactionService
from penstock.transactions.slots import AllSlots
from penstock.wire.error_codes import ErrorCode

KEY = (1, "orders")


class TrailingPath(EmbeddedCommitPath):
    """Says of every change that the database does not have it yet, until it is let."""

    def __init__(self, database: InlineDatabase) -> None:
        super().__init__(
            database=database, wal=MemoryWal(1 << 20), clock=SystemClock(), randomness=SeededRandomness("txn"), seq=0,
            inline=False,
        )  # fmt: skip
        self.asked: list[asyncio.Future[None]] = []

    async def store_changes(self) -> None:
        self.asked.append(asyncio.get_running_loop().create_future())
        await self.asked[-1]


class World:
    def __init__(self) -> None:
        self.database = InlineDatabase()
        self.path = TrailingPath(self.database)
        self.writer = Writer(arena=Arena(1 << 20), commit_path=self.path, clock=SystemClock())
        self.service = TransactionService(
            database=self.database, registry=Registry(), writer=self.writer, producer_ids=ProducerIds(self.database),
            clock=SystemClock(),
        )  # fmt: skip


@pytest.fixture
async def world() -> World:
    world = World()
    await have_tables(world.database, SystemClock())
    return world


async def test_who_waits_may_go(world: World) -> None:
    await world.service.open()
    first = await world.service.init(KEY, Init(timeout_ms=1_000))
    for doing in (world.service.expire(0), world.service.init((1, "other"), Init(timeout_ms=1_000))):
        task = asyncio.ensure_future(doing)
        while not world.database._waiting:
            await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await world.writer.drain()
    assert not world.writer.broken
    again = await world.service.init(KEY, Init(timeout_ms=1_000))
    assert again.producer.producer_id > first.producer.producer_id, "the id was not forgotten"


async def test_nothing_begins_after_the_writer_was_abandoned(world: World) -> None:
    await world.service.open()
    await world.service.init(KEY, Init(timeout_ms=1_000))
    world.database.delay_s = lambda: 3_600.0
    waiting = [asyncio.ensure_future(world.service.init(KEY, Init(timeout_ms=1_000))) for _ in range(2)]
    while not world.database._waiting:
        await asyncio.sleep(0)
    world.writer.abandon()
    await asyncio.wait_for(world.writer.drain(), 5)
    for request in waiting:
        request.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def settle() -> None:
    """Let everything run that does not wait for the database to get what it does not have."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_everybody_with_offsets_waits_until_the_database_knows_the_id(world: World) -> None:
    """Also who comes second, when the first has gone, and when it did not work."""
    await world.service.open()
    producer = (await world.service.init(KEY, Init(timeout_ms=1_000))).producer
    first, second = (asyncio.ensure_future(world.service.offsets_come(KEY, producer, group)) for group in "ab")
    await settle()
    assert not second.done()
    first.cancel()
    world.path.asked[-1].set_exception(Unavailable("the database does not get it"))
    with pytest.raises(Unavailable):
        await second
    old = asyncio.ensure_future(world.service.add_error(KEY, Add(producer=producer, groups=frozenset("a"))))
    third = asyncio.ensure_future(world.service.offsets_come(KEY, producer, "a"))
    await settle()
    assert not old.done()
    assert not third.done()
    for asked in world.path.asked[-2:]:
        asked.set_result(None)
    assert await third is ErrorCode.NONE
    assert await old is None
    known = len(world.path.asked)
    assert await world.service.offsets_come(KEY, producer, "b") is ErrorCode.NONE
    assert len(world.path.asked) == known, "what it is known to have was asked for again"


async def test_what_changes_while_the_database_gets_an_id_is_waited_for_as_well(world: World) -> None:
    await world.service.open()
    before = (await world.service.init(KEY, Init(timeout_ms=1_000))).producer
    coming = asyncio.ensure_future(world.service.offsets_come(KEY, before, "a"))
    await settle()
    raised = (await world.service.init(KEY, Init(timeout_ms=1_000))).producer
    world.path.asked[0].set_result(None)
    await settle()
    assert not coming.done()
    world.path.asked[1].set_result(None)
    assert await coming is ErrorCode.PRODUCER_FENCED
    assert await world.service.offsets_come(KEY, raised, "a") is ErrorCode.NONE


def test_a_record_tells_ids_while_they_fit() -> None:
    def told(groups: int) -> bytes | None:
        writes = Writes(AllSlots())
        named = frozenset(f"group {number}" for number in range(groups))
        txn = Transaction(key=KEY, producer_id=7, epoch=0, timeout_ms=1_000, updated_ms=0, groups=named)
        writes.states[KEY] = txn
        return writes.record()

    assert told(1_000) is not None
    assert told(10_000) is None


async def test_the_producer_ids_of_transactional_ids_are_counted(world: World) -> None:
    exhausted = Transaction(key=KEY, producer_id=7, epoch=EPOCH_EXHAUSTED, timeout_ms=1_000, updated_ms=0)
    await world.database.transaction(lambda: store.put(exhausted))
    await world.service.open()
    registry = world.service._registry

    def counted() -> int:
        walked = {cell.txn.producer_id for cell in world.service.all(1)}
        assert registry.producer_total(1) == len(walked)
        return len(walked)

    assert counted() == 1
    again = await world.service.init(KEY, Init(timeout_ms=1_000))
    assert again.producer.producer_id != 7
    await world.service.init((1, "other"), Init(timeout_ms=1_000))
    assert counted() == 2
    assert registry.producer_total(2) == 0
    while not await world.service.remove(1, 1):
        counted()
    assert counted() == 0


async def test_the_epoch_that_fences_the_last_one_is_nobodys(world: World) -> None:
    fenced = Transaction(key=KEY, producer_id=7, epoch=EPOCH_MAX, timeout_ms=1_000, updated_ms=0)
    await world.database.transaction(lambda: store.put(fenced))
    await world.service.open()
    zombie = Producer(7, EPOCH_MAX)
    partition = topic_of(1).partitions[0]
    batch = Accepted(b"", 1, 7, EPOCH_MAX, 0, 0, -1, TRANSACTIONAL)
    assert world.service.refusal(partition, batch) is ErrorCode.INVALID_PRODUCER_EPOCH
    added = await world.service.add(KEY, Add(producer=zombie, partitions=frozenset({1})))
    ended = await world.service.end(KEY, End(producer=zombie, commit=False, raises_epoch=True))
    assert (added.error, ended.error) == (ErrorCode.PRODUCER_FENCED, ErrorCode.PRODUCER_FENCED)
    assert (await world.service.init(KEY, Init(timeout_ms=1_000))).producer.epoch == 0
