"""The coordinator as a participant of the writer: what it does where nobody waits for it any more."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace

import pytest
from fixtures.log_world import append, batch, topic_of
from fixtures.tables import have_tables

from penstock.base.clock import SystemClock
from penstock.base.cooperative import gather_in_batches
from penstock.base.errors import PlatformError, Unavailable
from penstock.base.randomness import SeededRandomness
from penstock.coordination.model import CoordinatorLoading, Key
from penstock.groups.model import OffsetAndMetadata, OffsetsPending, TransactionOwner
from penstock.log.batches import IMPLICIT, Accepted
from penstock.log.commit_path import EmbeddedCommitPath
from penstock.log.commits import TRANSACTIONAL
from penstock.log.fair_queue import SHORT_QUOTA
from penstock.log.produce import ProduceValidation
from penstock.log.producer_ids import ProducerIds
from penstock.log.registry import Registry
from penstock.log.writer import Writer
from penstock.metadata.inline import InlineDatabase
from penstock.storage.arena import Arena
from penstock.storage.memory import MemoryWal
from penstock.transactions import store
from penstock.transactions.chores import FIRST_AFTER_S, TransactionalIdExpiry, TransactionTimeouts
from penstock.transactions.model import (
    EPOCH_EXHAUSTED,
    EPOCH_MAX,
    NEVER_MS,
    AddToTransaction,
    EndTransaction,
    InitProducerId,
    ProducerIdAndEpoch,
    Result,
    Transaction,
)
from penstock.transactions.participants import TransactionWrites
from penstock.transactions.service import CONCURRENT_CHANGES, TransactionService
from penstock.transactions.settings import TransactionSettings
from penstock.transactions.slots import AllSlots, Slots
from penstock.transactions.transitions import SAME_CLOCK_MS
from penstock.wire.error_codes import ErrorCode

KEY = (1, "orders")


class World:
    def __init__(self) -> None:
        self.database = InlineDatabase()
        self.wal, randomness = MemoryWal(1 << 20), SeededRandomness("txn")
        path = EmbeddedCommitPath(
            database=self.database, wal=self.wal, clock=SystemClock(), randomness=randomness, seq=0, inline=False
        )
        self.writer = Writer(arena=Arena(1 << 20), commit_path=path, clock=SystemClock())
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
    first = await world.service.init(KEY, InitProducerId(timeout_ms=1_000))
    for doing in (world.service.expire(0), world.service.init((1, "other"), InitProducerId(timeout_ms=1_000))):
        task = asyncio.ensure_future(doing)
        while not world.database._waiting:
            await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await world.writer.drain()
    assert not world.writer.broken
    again = await world.service.init(KEY, InitProducerId(timeout_ms=1_000))
    assert again.producer.producer_id > first.producer.producer_id, "the id was not forgotten"


async def test_nothing_begins_after_the_writer_was_abandoned(world: World) -> None:
    await world.service.open()
    await world.service.init(KEY, InitProducerId(timeout_ms=1_000))
    world.database.delay_s = lambda: 3_600.0
    waiting = [asyncio.ensure_future(world.service.init(KEY, InitProducerId(timeout_ms=1_000))) for _ in range(2)]
    while not world.database._waiting:
        await asyncio.sleep(0)
    world.writer.abandon()
    await asyncio.wait_for(world.writer.drain(), 5)
    for request in waiting:
        request.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def on_its_way(world: World) -> None:
    """A flush is being written, and stays so until the database is told to go on."""
    world.database.delay_s = lambda: 3_600.0
    while not world.database._waiting:
        await asyncio.sleep(0)


async def test_who_sends_offsets_waits_for_changes_of_the_id_on_their_way(world: World) -> None:
    """The end of a transaction that was decided without them would leave them behind."""
    await world.service.open()
    before = (await world.service.init(KEY, InitProducerId(timeout_ms=1_000))).producer
    raising = asyncio.ensure_future(world.service.init(KEY, InitProducerId(timeout_ms=1_000)))
    await on_its_way(world)
    coming = asyncio.ensure_future(world.service.begin_offset_commit(KEY, before, "a"))
    old = asyncio.ensure_future(world.service.check_part(KEY, AddToTransaction(producer=before, groups=frozenset("a"))))
    await asyncio.wait((coming, old), timeout=0.01)
    assert not coming.done()
    assert not old.done()
    world.database.delay_s = None
    world.database._run_next()
    raised = (await raising).producer
    assert await coming is ErrorCode.PRODUCER_FENCED
    assert (await old)[0] is ErrorCode.PRODUCER_FENCED
    assert await world.service.begin_offset_commit(KEY, raised, "a") is ErrorCode.NONE


def waiting_offsets(
    producer: ProducerIdAndEpoch, *, key: Key = KEY, began_ms: int | None = None
) -> tuple[Key, OffsetsPending]:  # fmt: skip
    """What a group's journal has of one producer."""
    owner = TransactionOwner(
        transactional_id=key[1], producer_id=producer.producer_id, epoch=producer.epoch, begins=began_ms is None,
        began_ms=NEVER_MS if began_ms is None else began_ms,
    )  # fmt: skip
    one = OffsetAndMetadata(committed_offset=7, leader_epoch=-1, metadata="", committed_ms=5)
    return (1, "readers"), OffsetsPending(owner, {(b"t" * 16, 0): one})


async def test_offsets_wait_only_for_transactions_that_go_on(world: World) -> None:
    await world.service.open()
    producer = (await world.service.init(KEY, InitProducerId(timeout_ms=1_000))).producer
    stale, nobodys = ProducerIdAndEpoch(producer.producer_id, producer.epoch - 1), ProducerIdAndEpoch(77, 0)
    asked = [
        waiting_offsets(stale), waiting_offsets(producer), waiting_offsets(nobodys, key=(1, "nobody")),
        waiting_offsets(producer, began_ms=NEVER_MS),
    ]  # fmt: skip
    assert set(await world.service.store_pending(asked)) == {0, 2, 3}
    assert await world.service.store_pending(asked[:1]) == {0}
    assert await world.database.read(store.load_pending) == [(producer.producer_id, "readers", 5)]
    cell = world.service.cell(KEY)
    assert cell is not None
    assert cell.is_ongoing
    await world.service.end(KEY, EndTransaction(producer=producer, commit=True, raises_epoch=False))
    assert await world.database.read(store.load_pending) == []
    add = AddToTransaction(producer=producer, groups=frozenset({"readers"}))
    await world.service.add(KEY, add)
    error, began_ms = await world.service.check_part(KEY, add)
    assert error is ErrorCode.NONE
    assert await world.service.store_pending([waiting_offsets(producer, began_ms=began_ms)]) == set()


async def test_offsets_that_were_stuck_do_not_join_the_next_transaction(world: World) -> None:
    """Producers of before KIP-890 keep their epoch, and transactions may follow each other within a millisecond."""
    await world.service.open()
    producer = (await world.service.init(KEY, InitProducerId(timeout_ms=60_000))).producer
    add, stuck = AddToTransaction(producer=producer, groups=frozenset({"readers"})), list[tuple[Key, OffsetsPending]]()
    for _ in range(5):
        await world.service.add(KEY, add)
        error, began_ms = await world.service.check_part(KEY, add)
        assert error is ErrorCode.NONE
        assert await world.service.store_pending(stuck) == set(range(len(stuck)))
        stuck.append(waiting_offsets(producer, began_ms=began_ms))
        assert await world.service.store_pending(stuck) == set(range(len(stuck) - 1))
        await world.service.end(KEY, EndTransaction(producer=producer, commit=False, raises_epoch=False))
        assert await world.database.read(store.load_pending) == []


async def test_offsets_are_asked_about_when_it_is_known_what_became_of_the_transaction(world: World) -> None:
    """An end that is decided with the same flush is in force before they are."""
    await world.service.open()
    producer = (await world.service.init(KEY, InitProducerId(timeout_ms=1_000))).producer
    assert await world.service.begin_offset_commit(KEY, producer, "readers") is ErrorCode.NONE
    ending = asyncio.ensure_future(
        world.service.end(KEY, EndTransaction(producer=producer, commit=True, raises_epoch=True))
    )
    coming = asyncio.ensure_future(world.service.store_pending([waiting_offsets(producer)]))
    assert (await ending).error is ErrorCode.NONE
    assert await coming == {0}
    assert await world.database.read(store.load_pending) == []


class Full:
    """A log that is short of room, and stays so."""

    is_short, waits = True, 0

    async def wait(self) -> None:
        self.waits += 1


async def test_what_is_large_or_would_have_to_wait_is_left_to_the_database(world: World) -> None:
    def sent(partitions: int, metadata: str = "") -> list[tuple[Key, OffsetsPending]]:
        group, record = waiting_offsets(ProducerIdAndEpoch(1, 0))
        (one,) = record.offsets.values()
        one = replace(one, metadata=metadata)
        return [(group, replace(record, offsets={(b"t" * 16, number): one for number in range(partitions)}))]

    for few, many in ((sent(500), sent(2_000)), (sent(1, "x" * 4_000), sent(5, "é" * 4_000))):
        assert world.service.prefers_commit_record(few)
        assert not world.service.prefers_commit_record(many)
        told = [(group, record.owner.producer_id, record.offsets) for group, record in few]
        assert len(store.pack_changes(store.TransactionChanges(pending=told))) <= store.size_of(few) + 100
    world.writer._room = Full()
    assert not world.service.prefers_commit_record(sent(1))


@pytest.mark.parametrize("what", ["expire", "remove", "init", "marker", "offsets"])
async def test_nobody_waits_for_a_flush_that_never_comes(world: World, what: str) -> None:
    """Whoever closes groups, chores and topics waits for them, and they for a writer that has given up."""
    await world.service.open()
    producer = (await world.service.init(KEY, InitProducerId(timeout_ms=1_000))).producer

    def begin() -> asyncio.Future[object]:
        return asyncio.ensure_future(
            {
                "expire": lambda: world.service.expire(-(10**9)), "remove": lambda: world.service.remove(1, 10),
                "init": lambda: world.service.init(KEY, InitProducerId(timeout_ms=1_000)),
                "marker": lambda: world.service.write_marker(producer, [], commit=True, coordinator_epoch=0),
                "offsets": lambda: world.service.store_pending([waiting_offsets(producer)]),
            }[what]()
        )  # fmt: skip

    world.writer.abandon()
    waiting = begin()
    await asyncio.wait((waiting,), timeout=0.01)
    assert not waiting.done()
    world.service.close()
    for request in (waiting, begin()):
        with pytest.raises(Unavailable):
            await asyncio.wait_for(request, 5)


def test_a_record_tells_ids_while_they_fit() -> None:
    def told(groups: int) -> bytes | None:
        writes = TransactionWrites(AllSlots())
        named = frozenset(f"group {number}" for number in range(groups))
        txn = Transaction(key=KEY, producer_id=7, epoch=0, timeout_ms=1_000, updated_ms=0, groups=named)
        writes.states[KEY] = txn
        return writes.record()

    assert told(1_000) is not None
    assert told(10_000) is None


def test_a_record_tells_offsets_while_they_fit() -> None:
    def told(partitions: int, slots: Slots) -> bytes | None:
        writes = TransactionWrites(slots)
        one = OffsetAndMetadata(committed_offset=7, leader_epoch=-1, metadata="m" * 20, committed_ms=5)
        writes.pending.append(((1, "readers"), 7, {(b"t" * 16, number): one for number in range(partitions)}))
        writes.ended.append((1, 8, True))
        return writes.record()

    few = told(900, AllSlots())
    assert few is not None
    assert len(store.unpack_changes(few).pending[0][2]) == 900
    assert told(1_100, AllSlots()) is None
    shared = AllSlots()
    shared.is_shared = True
    assert told(1, shared) is None


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
    again = await world.service.init(KEY, InitProducerId(timeout_ms=1_000))
    assert again.producer.producer_id != 7
    await world.service.init((1, "other"), InitProducerId(timeout_ms=1_000))
    assert counted() == 2
    assert registry.producer_total(2) == 0
    while not await world.service.remove(1, 1):
        counted()
    assert counted() == 0


async def test_the_epoch_that_fences_the_last_one_is_nobodys(world: World) -> None:
    fenced = Transaction(key=KEY, producer_id=7, epoch=EPOCH_MAX, timeout_ms=1_000, updated_ms=0)
    await world.database.transaction(lambda: store.put(fenced))
    await world.service.open()
    zombie = ProducerIdAndEpoch(7, EPOCH_MAX)
    partition = topic_of(1).partitions[0]
    batch = Accepted(b"", 1, 7, EPOCH_MAX, 0, 0, -1, TRANSACTIONAL)
    assert world.service.refusal(partition, batch) is ErrorCode.INVALID_PRODUCER_EPOCH
    added = await world.service.add(KEY, AddToTransaction(producer=zombie, partitions=frozenset({1})))
    ended = await world.service.end(KEY, EndTransaction(producer=zombie, commit=False, raises_epoch=True))
    assert (added.error, ended.error) == (ErrorCode.PRODUCER_FENCED, ErrorCode.PRODUCER_FENCED)
    assert (await world.service.init(KEY, InitProducerId(timeout_ms=1_000))).producer.epoch == 0


# ---- ends ------------------------------------------------------------------------------------------------------------


async def test_an_end_comes_after_all_that_its_producer_has_sent_before_it(world: World) -> None:
    """Flushes are short for its sake, so they do not take everything that waits."""
    await world.service.open()
    producer = (await world.service.init(KEY, InitProducerId(timeout_ms=60_000))).producer
    topic = topic_of(1)
    world.service._registry.add(topic)
    (partition,), total = topic.partitions, 3 * SHORT_QUOTA.batches
    made = [batch(producer_id=producer.producer_id, epoch=producer.epoch, sequence=number) for number in range(total)]
    sent = [(partition, one._replace(flags=TRANSACTIONAL | IMPLICIT)) for one in made]
    answers = asyncio.ensure_future(append(world.writer, *sent))
    await asyncio.sleep(0)
    ended = await world.service.end(KEY, EndTransaction(producer=producer, commit=True, raises_epoch=True))
    assert ended.error is ErrorCode.NONE
    assert {answer.error for answer in await answers} == {ErrorCode.NONE}
    assert partition.next_offset == total + 1
    assert not partition.transactions
    assert not world.writer._waiting_count


async def test_an_end_without_anything_in_it_writes_no_object(world: World) -> None:
    await world.service.open()
    producer = (await world.service.init(KEY, InitProducerId(timeout_ms=60_000))).producer
    ended = await world.service.end(KEY, EndTransaction(producer=producer, commit=False, raises_epoch=True))
    assert (ended.error, world.wal.places()) == (ErrorCode.NONE, [])


async def test_an_end_is_heard_of_in_the_moment_it_is_durable(world: World) -> None:
    heard: list[Result | PlatformError | None] = []
    end = EndTransaction(producer=ProducerIdAndEpoch(0, 0), commit=False, raises_epoch=True)
    world.service.end_soon(KEY, end, heard.append)
    assert isinstance(heard.pop(), CoordinatorLoading)
    exhausted = Transaction(key=(1, "old"), producer_id=70, epoch=EPOCH_EXHAUSTED, timeout_ms=1_000, updated_ms=0)
    await world.database.transaction(lambda: store.put(exhausted))
    await world.service.open()
    producer = (await world.service.init(KEY, InitProducerId(timeout_ms=60_000))).producer
    world.service.end_soon(KEY, replace(end, producer=producer), heard.append)
    await world.writer.drain()
    assert heard.pop() == Result(producer=replace(producer, epoch=producer.epoch + 1))
    world.service.end_soon(KEY, replace(end, producer=replace(producer, epoch=7)), heard.append)
    await world.writer.drain()
    assert heard.pop() == Result(error=ErrorCode.PRODUCER_FENCED)
    # It takes a new producer id, which has to be waited for.
    world.service.end_soon(exhausted.key, replace(end, producer=ProducerIdAndEpoch(70, EPOCH_EXHAUSTED)), heard.append)
    await world.writer.drain()
    assert heard == [None]


async def test_what_nobody_asked_for_takes_few_flushes_and_no_chore_waits_for_room(world: World) -> None:
    """The chores share one task: what makes room in the log would wait for those that wait for room."""
    full, keys = Full(), [(1, f"orders {number}") for number in range(2 * CONCURRENT_CHANGES)]
    flushes, late_ms = list[int](), -2 * SAME_CLOCK_MS

    def note_flush() -> float:
        flushes.append(1)
        return 0.0

    async def begun(key: Key) -> None:
        # It is late when it begins.
        producer = (await world.service.init(key, InitProducerId(timeout_ms=late_ms))).producer
        added = await world.service.add(key, AddToTransaction(producer=producer, groups=frozenset(("readers",))))
        assert added.error is ErrorCode.NONE

    def ongoing() -> list[bool]:
        return [cell.is_ongoing for key in keys if (cell := world.service.cell(key)) is not None]

    await world.service.open()
    await gather_in_batches(keys, begun)
    world.database.delay_s = note_flush
    world.writer._room = full
    for _ in range(2):
        assert world.service.abort_timed_out()
        assert await world.service.expire(late_ms) == 0
    assert full.waits == 0
    await world.writer.drain()
    assert full.waits > 0, "flushes wait, and end all the same"
    assert ongoing() == [False] * len(keys)
    assert not world.service.abort_timed_out()
    assert len(flushes) <= 4
    world.writer._room = None
    assert await world.service.expire(late_ms) == len(keys)
    assert ongoing() == []
    assert len(flushes) <= 8
    await gather_in_batches(keys, begun)
    flushes.clear()
    while not await world.service.remove(1, 50):
        pass
    assert ongoing() == []
    assert len(flushes) <= 12


async def test_unused_ids_are_looked_for_soon_after_they_were_read(world: World) -> None:
    """What restarts once an hour forgets them as well."""
    chore = TransactionalIdExpiry(
        world.service, TransactionSettings(id_check_interval_ms=3_600_000, id_expiration_ms=0)
    )
    assert await chore.run() == FIRST_AFTER_S
    await world.service.open()
    await world.service.init(KEY, InitProducerId(timeout_ms=1_000))
    assert await chore.run() == 3_600
    assert world.service.cell(KEY) is None


async def test_markers_of_others_are_nobodys_batches(world: World) -> None:
    """Producer ids can be guessed, and an administrator may end what one has in partitions of that virtual cluster."""
    await world.service.open()
    foreign = topic_of(2)
    foreign.cluster_id = 2
    world.service._registry.add(foreign)
    producer = (await world.service.init(KEY, InitProducerId(timeout_ms=60_000))).producer
    (partition,) = foreign.partitions
    marking = asyncio.ensure_future(
        world.service.write_marker(producer, [partition], commit=False, coordinator_epoch=0)
    )
    await asyncio.sleep(0)
    ended = await world.service.end(KEY, EndTransaction(producer=producer, commit=True, raises_epoch=True))
    assert await marking == {}
    assert ended.error is ErrorCode.INVALID_TXN_STATE
    assert partition.next_offset == 1


async def test_a_time_out_that_fails_is_tried_at_the_next_look(world: World) -> None:
    await world.service.open()
    producer = (await world.service.init(KEY, InitProducerId(timeout_ms=-2 * SAME_CLOCK_MS))).producer
    await world.service.add(KEY, AddToTransaction(producer=producer, groups=frozenset(("readers",))))
    world.database.faults = lambda: "before"
    assert world.service.abort_timed_out()
    await world.writer.drain()
    world.database.faults = lambda: None
    assert world.service.abort_timed_out()
    await world.writer.drain()
    assert not world.service.abort_timed_out()


async def test_a_time_out_in_the_last_epoch_takes_another_producer_id(world: World) -> None:
    worn = Transaction(
        key=KEY, producer_id=7, epoch=EPOCH_EXHAUSTED, timeout_ms=-2 * SAME_CLOCK_MS, updated_ms=0
    )  # fmt: skip
    await world.database.transaction(lambda: store.put(worn))
    await world.service.open()
    last, topic = ProducerIdAndEpoch(7, EPOCH_EXHAUSTED), topic_of(1, 2)
    world.service._registry.add(topic)
    known, unknown = topic.partitions
    made = batch(producer_id=7, epoch=last.epoch, sequence=0)._replace(flags=TRANSACTIONAL | IMPLICIT)
    assert [one.error for one in await append(world.writer, (known, made))] == [ErrorCode.NONE]
    assert world.service.abort_timed_out()
    while not (cell := world.service.cell(KEY)) or cell.is_ongoing:
        await asyncio.sleep(0)
        await world.writer.drain()
    assert (cell.txn.epoch, cell.txn.last_producer_id, known.producers[7].epoch) == (0, 7, EPOCH_MAX)
    assert not known.transactions
    assert not world.service.abort_timed_out()
    # Where its fence is known it is fenced, as in Kafka; elsewhere nobody knows it any more.
    again = made._replace(base_sequence=1)
    errors = [one.error for one in await append(world.writer, (known, again), (unknown, made))]
    assert errors == [ErrorCode.INVALID_PRODUCER_EPOCH, ErrorCode.INVALID_PRODUCER_ID_MAPPING]
    validation = ProduceValidation(lambda batch: world.service.ownership(KEY, batch.producer_id))
    for partition in (known, unknown):
        validation.add(partition, again)
    told: list[list[ErrorCode]] = []
    validation.submit(world.writer, lambda results: told.append([one.error for one in results]), None)
    assert told == [errors]
    ended = await world.service.end(KEY, EndTransaction(producer=last, commit=False, raises_epoch=True))
    assert ended == Result(producer=ProducerIdAndEpoch(cell.txn.producer_id, 0))


async def test_who_looks_for_time_outs_is_woken_by_the_first_transaction_after_a_rest() -> None:
    class Watched:
        any_left = False
        meanwhile = staticmethod(lambda: None)

        def abort_timed_out(self) -> bool:
            self.meanwhile()
            return self.any_left

    watched, woken = Watched(), list[int]()
    chore = TransactionTimeouts(watched, TransactionSettings(timeout_check_interval_ms=10_000))
    chore.wake = lambda: woken.append(1)
    for _ in range(3):
        chore.began()
    assert len(woken) == 1
    watched.any_left = True
    assert await chore.run() == 10
    chore.began()
    assert len(woken) == 1
    watched.any_left, watched.meanwhile = False, chore.began
    assert await chore.run() is None
    assert len(woken) == 2, "what began while it looked may not have been seen"
