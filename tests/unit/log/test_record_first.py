"""Commits by their objects alone: their rows follow, a start brings in those that had not, failures leave nothing."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
from fixtures.clocks import ManualClock
from fixtures.log_world import append, batch, batches_in, topic_of
from fixtures.tables import have_tables

from penstock.base.errors import CorruptData, OutcomeUnknown, PlatformError, Unavailable
from penstock.base.randomness import SeededRandomness
from penstock.log import trailing_rows
from penstock.log.commit_path import INLINE_MAX_BYTES, CommitChange, EmbeddedCommitPath
from penstock.log.flush import Flush
from penstock.log.record_first import RecordFirstCommitPath
from penstock.log.recovery import commits_after, load_state
from penstock.log.registry import Registry
from penstock.log.roll_forward import OLDER_PLACES, LostCommits, roll_forward
from penstock.log.trailing_rows import TrailingRows
from penstock.log.wal_record import CHANGE_BYTES_MAX, HEAD_BYTES, read_record, write_record
from penstock.log.writer import Writer
from penstock.metadata.database import Script
from penstock.metadata.inline import InlineDatabase
from penstock.storage.arena import Arena
from penstock.storage.kernel_writes import KernelWrites
from penstock.storage.slabs import SlabWal
from penstock.storage.wal import Buffer, Done, WalLocation
from penstock.wire.error_codes import ErrorCode

Fault = Literal["before", "after"]


def redo(changes: Sequence[bytes]) -> Script[None]:
    """Changes are names of counters; each counts how often it was made true, and they are kept in their order."""
    for change in changes:
        yield (
            "INSERT INTO counter (name, value) VALUES ($1, 1)"
            " ON CONFLICT (name) DO UPDATE SET value = counter.value + 1",
            (change.decode(),),
        )


class Named:
    """A participant that changes something a record can tell."""

    def __init__(self, name: bytes, *, record: bool = True, urgent: bool = False) -> None:
        self.name, self._record, self._urgent = name, record, urgent
        self.landed_at: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def prepare(self, flush: Flush) -> bool:
        flush.join(self)
        flush.gather(Named, lambda: self)
        flush.is_urgent = flush.is_urgent or self._urgent
        return True

    def script(self) -> Script[None]:
        yield from redo([self.name])

    def record(self) -> bytes | None:
        return self.name if self._record else None

    def committed(self) -> None:
        self.landed_at.set_result(None)

    def failed(self, problem: PlatformError) -> None:
        self.landed_at.set_exception(problem)


class World:
    """Lives of one log over slabs and a database, both of which fail as told."""

    def __init__(self, directory: Path, *, inline: bool, by_kernel: bool = False) -> None:
        self.directory, self.inline = directory, inline
        self.kernel_writes = KernelWrites.open() if by_kernel else None
        self.planned: list[Fault | None] = []
        self.database = InlineDatabase(faults=lambda: self.planned.pop(0) if self.planned else None)
        self.clock, self.randomness = ManualClock(), SeededRandomness("record first")
        self.after_write: Callable[[], None] = lambda: None
        """Called after each write, whose answer it may lose."""

    async def start(self) -> None:
        if self.kernel_writes is None:
            self.wal = SlabWal(self.directory, durability="process", slab_bytes=64 * 1024)
        else:
            self.wal = SlabWal(
                self.directory, durability="disk", slab_bytes=64 * 1024, kernel_writes=self.kernel_writes
            )
            asyncio.get_running_loop().add_reader(self.kernel_writes.fileno(), self.kernel_writes.reap)
        self.registry = Registry()
        self.topic = topic_of(1, 2)
        self.registry.add(self.topic)
        self.lost: list[LostCommits] = []
        life = await roll_forward(
            self.database, self.wal, randomness=self.randomness, on_lost=self.lost.append, redo=redo
        )
        seq = await load_state(self.database, self.registry, self.wal)
        write = self.wal.append

        def appending(body: Sequence[Buffer]) -> WalLocation:
            location = write(body)
            self.after_write()
            return location

        self.wal.append = appending  # type: ignore[method-assign]
        begin = self.wal.begin

        def beginning(body: memoryview, done: Done) -> bool:
            def ended(result: WalLocation | PlatformError | None) -> None:
                try:
                    self.after_write()
                except PlatformError as problem:
                    result = problem
                done(result)

            return begin(body, ended)

        self.wal.begin = beginning  # type: ignore[method-assign]
        self.rows = TrailingRows(self.database, self.randomness, redo)
        through_database = EmbeddedCommitPath(
            database=self.database, wal=self.wal, clock=self.clock, randomness=self.randomness, seq=seq,
            inline=self.inline, rows=self.rows,
        )  # fmt: skip

        async def at_once(work: Callable[[], WalLocation]) -> WalLocation:
            return work()

        self.path = RecordFirstCommitPath(
            through_database, self.rows, metadata=self.database, wal=self.wal, clock=self.clock,
            randomness=self.randomness, on_thread=at_once, life=life, inline=self.inline,
        )  # fmt: skip
        if self.kernel_writes is not None:
            self.path.commit_now = lambda *flush: None  # type: ignore[method-assign]
        self.writer = Writer(arena=Arena(1 << 22), commit_path=self.path, clock=self.clock)

    async def restart(self) -> None:
        """The process is killed here and started again."""
        self.database.crash()
        self.database = self.database.reopen()
        self.wal.close()
        await self.start()

    async def append(self, *sequences: int, partition: int = 0) -> list[Any]:
        target = self.topic.partitions[partition]
        batches = [(target, batch(2, producer_id=7, epoch=0, sequence=sequence)) for sequence in sequences]
        return [(answer.error, answer.base_offset) for answer in await append(self.writer, *batches)]

    async def append_with(self, participant: Named, sequence: int) -> list[Any]:
        self.writer.enlist(participant)
        return await self.append(sequence)

    async def counted(self) -> dict[str, int]:
        """The changes that the database has, and how often they were made true."""
        rows = await self.database.statement("SELECT name, value FROM counter WHERE name LIKE 'change%' ORDER BY name")
        return dict(rows)

    async def stored(self) -> int:
        """How many commits have rows."""
        return len(await self.database.read(lambda: commits_after(1, 0, 10**6)))


@pytest.fixture(params=["in line", "awaited", "by the kernel"])
async def world(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    world = World(tmp_path, inline=request.param == "in line", by_kernel=request.param == "by the kernel")
    await have_tables(world.database, world.clock)
    await world.start()
    yield world
    await world.path.store_rows()
    if world.kernel_writes is not None:
        asyncio.get_running_loop().remove_reader(world.kernel_writes.fileno())
        world.kernel_writes.close()
    world.wal.close()


GOOD = ErrorCode.NONE


async def test_rows_follow_by_themselves(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trailing_rows, "APPLY_AFTER_S", 0.01)
    assert await world.append(0) == [(GOOD, 0)]
    assert await world.append(2) == [(GOOD, 2)]
    assert not world.rows.is_full

    async with asyncio.timeout(10):
        while await world.stored() < 2:
            await asyncio.sleep(0.005)


async def test_a_start_brings_in_what_had_no_rows(world: World) -> None:
    for number in range(5):
        await world.append(2 * number)
        await world.append(2 * number, partition=1)
    assert await world.stored() == 0
    await world.restart()
    assert await world.stored() == 10
    assert [partition.next_offset for partition in world.topic.partitions] == [10, 10]
    span = world.topic.partitions[0].spans[-1]
    data = world.wal.read(span.location, span.byte_start, span.byte_start + span.byte_length)
    assert [found[:2] for found in batches_in(data)] == [(8, 2)]
    # Producers are known too: a repeat is answered, not appended.
    assert await world.append(8) == [(GOOD, 8)]
    assert await world.append(10) == [(GOOD, 10)]
    await world.restart()
    assert await world.stored() == 11


async def test_catching_up_writes_every_row(world: World) -> None:
    await world.append(0)
    await world.append(2)
    world.planned = ["before", "after"]
    assert await world.path.store_rows() == 2
    assert await world.stored() == 2
    await world.restart()
    assert await world.append(4) == [(GOOD, 4)]


async def test_a_change_takes_the_rows_along(world: World) -> None:
    def script():
        yield "INSERT INTO counter (name, value) VALUES ('a', 1)", ()

    await world.append(0)
    await world.path.change(CommitChange(script=script))
    assert await world.stored() == 1
    assert await world.append(2) == [(GOOD, 2)]


async def test_a_change_that_a_record_tells_follows_with_its_row(world: World) -> None:
    assert await world.append_with(Named(b"change 1"), 0) == [(GOOD, 0)]
    assert await world.append_with(Named(b"change 2"), 2) == [(GOOD, 2)]
    assert await world.counted() == {}
    assert world.rows.has_changes
    for fault in ("before", "after"):
        world.planned = [fault]
        with pytest.raises(Unavailable):
            await world.path.store_changes()
    await world.path.store_changes()
    assert await world.counted() == {"change 1": 1, "change 2": 1}
    assert await world.stored() == 2
    assert not world.rows.has_changes
    await world.restart()
    assert await world.counted() == {"change 1": 1, "change 2": 1}


async def test_a_start_makes_changes_true_that_had_no_rows(world: World) -> None:
    await world.append_with(Named(b"change 1"), 0)
    await world.path.store_rows()
    await world.append(2)
    await world.append_with(Named(b"change 2"), 4)
    await world.restart()
    assert await world.counted() == {"change 1": 1, "change 2": 1}
    assert world.topic.partitions[0].next_offset == 6


async def test_changes_keep_their_order_with_those_of_the_database(world: World) -> None:
    """One that only its script can tell takes those along that wait, and none of them is made true once more."""
    await world.append_with(Named(b"change 1"), 0)
    stored = asyncio.ensure_future(world.path.store_rows())
    await world.append_with(Named(b"change 2", record=False), 2)
    await stored
    await world.append_with(Named(b"change 3"), 4)
    await world.path.change(CommitChange(script=Named(b"change 4").script))
    assert await world.counted() == {f"change {number}": 1 for number in range(1, 5)}
    await world.restart()
    assert await world.counted() == {f"change {number}": 1 for number in range(1, 5)}


async def test_others_write_on_what_commits_have_changed(world: World) -> None:
    """What they write is there with all that was answered before, or not at all."""

    def looking() -> Script[list[str]]:
        rows = yield "SELECT name FROM counter WHERE name LIKE 'change%' ORDER BY name", ()
        yield from redo([b"change seen"])
        return [name for (name,) in rows]

    database = world.path.up_to_date
    assert await database.transaction(looking) == []
    await world.append_with(Named(b"change 1"), 0)
    for fault, problem in (("before", Unavailable), ("after", OutcomeUnknown)):
        world.planned = [fault]
        with pytest.raises(problem):
            await database.transaction(looking)
    writing = asyncio.ensure_future(database.transaction(looking))
    await asyncio.sleep(0)
    await world.append_with(Named(b"change 2"), 2)
    assert await writing == ["change 1", "change seen"]
    assert await world.stored() == 1
    await world.restart()
    assert await world.counted() == {"change 1": 1, "change 2": 1, "change seen": 3}


async def test_what_others_write_fails_without_a_trace(world: World) -> None:
    await world.append_with(Named(b"change 1"), 0)

    def failing() -> Script[None]:
        yield from redo([b"change 2"])
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await world.path.up_to_date.transaction(failing)
    assert await world.counted() == {}
    assert world.rows.has_changes


async def test_participants_in_a_hurry_have_an_object_of_their_own(world: World) -> None:
    """It holds nothing but its record, and counts as any other."""
    alone = Named(b"change 1", urgent=True)
    world.writer.enlist(alone)
    await alone.landed_at
    assert (await world.counted(), await world.stored()) == ({}, 0)
    assert await world.append(0) == [(GOOD, 0)]
    others = [Named(b"change 2"), Named(b"change 3", record=False, urgent=True)]
    for other in others:
        world.writer.enlist(other)
        await other.landed_at
    assert await world.counted() == {f"change {number}": 1 for number in range(1, 4)}
    assert await world.stored() == 2, "an object was written for what no record tells"
    last = Named(b"change 4", urgent=True)
    world.writer.enlist(last)
    await last.landed_at
    await world.restart()
    assert await world.counted() == {f"change {number}": 1 for number in range(1, 5)}
    assert await world.stored() == 3
    assert await world.append(2) == [(GOOD, 2)]


async def test_participants_in_a_hurry_need_no_room_in_the_log(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What makes room may wait for them: the deletion of a topic in which a transaction is open, for instance."""

    def full(body: Sequence[Buffer]) -> WalLocation:
        raise Unavailable("the write-ahead log is full")

    first = Named(b"change 1", urgent=True)
    world.writer.enlist(first)
    await first.landed_at
    with monkeypatch.context() as patched:
        patched.setattr(world.wal, "append", full)
        patched.setattr(world.wal, "begin", lambda body, done: False)
        for participant in (Named(b"change 2", urgent=True), Named(b"change 3", record=False, urgent=True)):
            world.writer.enlist(participant)
            await participant.landed_at
        other = Named(b"change 4", urgent=True)
        assert (await world.append_with(other, 0))[0][0] == ErrorCode.KAFKA_STORAGE_ERROR
        with pytest.raises(Unavailable):
            await other.landed_at
    assert await world.counted() == {f"change {number}": 1 for number in range(1, 4)}
    assert await world.append(0) == [(GOOD, 0)]
    await world.restart()
    assert await world.counted() == {f"change {number}": 1 for number in range(1, 4)}


async def test_a_change_that_failed_is_never_made_true(world: World) -> None:
    await world.append_with(Named(b"change 1"), 0)

    def fail() -> None:
        raise OutcomeUnknown("the answer was lost")

    world.after_write = fail
    lost = Named(b"change 2")
    ((error, _),) = await world.append_with(lost, 2)
    assert error is ErrorCode.KAFKA_STORAGE_ERROR
    assert isinstance(lost.landed_at.exception(), Unavailable)
    world.after_write = lambda: None
    assert await world.append_with(Named(b"change 3"), 2) == [(GOOD, 2)]
    await world.restart()
    assert await world.counted() == {"change 1": 1, "change 3": 1}
    assert world.topic.partitions[0].next_offset == 4


async def test_a_change_too_large_for_a_record_goes_through_the_database(world: World) -> None:
    name = b"change " + b"x" * CHANGE_BYTES_MAX
    assert await world.append_with(Named(name), 0) == [(GOOD, 0)]
    assert await world.counted() == {name.decode(): 1}
    assert await world.stored() == 1
    assert not world.rows.has_changes


async def test_what_failed_does_not_come_back(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """The record is on the disk, the answer is not; nobody may find it in the log after it was refused."""
    await world.append(0)

    def fail() -> None:
        raise OutcomeUnknown("the answer was lost")

    world.after_write = fail
    world.planned = ["before", "before"]  # Until the database can note it, nobody is answered, and the log says why.
    ((error, _),) = await world.append(2)
    assert error is ErrorCode.KAFKA_STORAGE_ERROR
    assert world.planned == []
    assert caplog.text.count("flushes wait until the database can note that") == 1
    await world.restart()
    assert world.topic.partitions[0].next_offset == 2
    world.after_write = lambda: None
    assert await world.append(2) == [(GOOD, 2)]
    await world.restart()
    assert world.topic.partitions[0].next_offset == 4


async def test_a_bug_in_a_write_is_a_refusal(world: World) -> None:
    def fail() -> None:
        raise MemoryError

    world.after_write = fail
    ((error, _),) = await world.append(0)
    assert error is ErrorCode.KAFKA_STORAGE_ERROR
    world.after_write = lambda: None
    assert await world.append(0) == [(GOOD, 0)]
    assert await world.path.store_rows() == 1


async def test_an_object_that_is_cut_short_ends_the_log(world: World) -> None:
    await world.append(0)
    await world.append(2)
    span = world.topic.partitions[0].spans[-1]
    with (world.directory / span.location.key).open("r+b") as file:
        file.seek(span.location.offset + span.byte_start + span.byte_length - 20)
        file.write(b"what was here before")
    await world.restart()
    assert world.topic.partitions[0].next_offset == 2
    assert await world.append(2) == [(GOOD, 2)]


@pytest.mark.parametrize("at", [0, HEAD_BYTES], ids=["head", "entries"])
async def test_a_record_that_the_disk_has_lost_is_no_silent_end(world: World, at: int) -> None:
    """What follows it was acknowledged: it is not brought in without its number, and somebody has to know."""
    await world.append(0)
    await world.path.store_rows()
    for number in range(1, 5):
        await world.append(2 * number)
    span = world.topic.partitions[0].spans[1]
    with (world.directory / span.location.key).open("r+b") as file:
        file.seek(span.location.offset + at)
        file.write(b"\xff")
    with pytest.raises(CorruptData, match="commit 2 cannot be read"):  # Without somebody who gives them up.
        await roll_forward(world.database, world.wal, randomness=world.randomness)
    await world.restart()
    assert world.topic.partitions[0].next_offset == 2
    (lost,) = world.lost
    assert (lost.first, lost.last, lost.count) == (2, 5, 4)
    assert str(lost).startswith("the record of commit 2 cannot be read, although there are commits up to 5 (it is ")
    await world.restart()
    assert world.lost == []


async def test_the_end_of_a_log_is_no_loss(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Neither after slabs that were used again, nor after an object that was cut short."""
    for number in range(40):
        data = batch(2, producer_id=7, epoch=0, sequence=2 * number, size_bytes=9_000)
        await append(world.writer, (world.topic.partitions[0], data))
        if number % 9 == 0:
            await world.path.store_rows()
    span = world.topic.partitions[0].spans[-1]
    with (world.directory / span.location.key).open("r+b") as file:
        file.seek(span.location.offset)
        file.write(b"\xff")
    await world.restart()
    assert world.topic.partitions[0].next_offset == 78
    assert world.lost == []
    assert not caplog.records


async def test_rows_are_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the database takes nothing, commits wait for it in the end."""
    monkeypatch.setattr(trailing_rows, "MAX_ROWS", 3)
    for number in range(3):
        await world.append(2 * number)
    assert world.rows.is_full
    world.planned = ["before"]
    ((error, _),) = await world.append(6)
    assert error is ErrorCode.KAFKA_STORAGE_ERROR
    assert await world.append(6) == [(GOOD, 6)]
    assert await world.stored() == 4
    assert not world.rows.is_full


async def test_slabs_are_followed_in_the_order_of_their_use(world: World) -> None:
    """Several slabs, some used again, and lives that began in the middle of one."""
    sequence = 0
    for life in range(4):
        for _ in range(12):
            data = batch(2, producer_id=7, epoch=0, sequence=sequence, size_bytes=9_000)
            (answer,) = await append(world.writer, (world.topic.partitions[0], data))
            assert (answer.error, answer.base_offset) == (GOOD, sequence)
            sequence += 2
            if sequence % 14 == 0:
                await world.path.store_rows()
        await world.restart()
        assert world.topic.partitions[0].next_offset == sequence, life


async def test_a_slow_disk_is_not_waited_for_in_line(tmp_path: Path) -> None:
    world = World(tmp_path, inline=False)
    await have_tables(world.database, world.clock)
    await world.start()
    on_thread: list[int] = []
    through_thread = world.path._on_thread

    async def counting(work: Callable[[], WalLocation]) -> WalLocation:
        on_thread.append(1)
        return await through_thread(work)

    def slow() -> None:
        world.clock.time_ms += 20

    world.path._on_thread = counting
    for sequence in range(0, 20, 2):
        await world.append(sequence)
    assert not on_thread
    world.after_write = slow
    await world.append(20)
    world.after_write = lambda: None
    await world.append(22)
    assert not on_thread, "one slow write says nothing"
    world.after_write = slow
    for sequence in range(24, 44, 2):
        await world.append(sequence)
    waited = len(on_thread)
    assert 0 < waited < 10
    world.clock.time_ms += 1_000
    await world.append(44)
    assert len(on_thread) == waited, "it is tried now and then, or it would never be found to be quick again"
    await world.append(46)
    assert len(on_thread) == waited + 1, "it is as slow as before"
    world.clock.time_ms += 1_000
    world.after_write = lambda: None
    for sequence in range(48, 58, 2):
        await world.append(sequence)
    assert len(on_thread) == waited + 1

    def stuck() -> None:
        world.clock.time_ms += 200

    world.after_write = stuck
    await world.append(58)
    world.after_write = lambda: None
    await world.append(60)
    assert len(on_thread) == waited + 2, "one such write is enough"
    world.clock.time_ms += 1_000
    await world.append(62)
    assert len(on_thread) == waited + 3, "a disk that takes long is tried seldom"
    world.clock.time_ms += 4_000
    await world.append(64)
    assert len(on_thread) == waited + 3
    await world.path.store_rows()
    world.wal.close()


async def test_what_a_thread_waits_for_the_interpreter_makes_no_disk_slow(tmp_path: Path) -> None:
    world = World(tmp_path, inline=False)
    await have_tables(world.database, world.clock)
    await world.start()
    before = world.path._write_s

    async def held_up(work: Callable[[], WalLocation]) -> WalLocation:
        location = work()
        world.clock.time_ms += 100
        return location

    world.path._on_thread = held_up
    data = batch(2, producer_id=7, epoch=0, sequence=0, size_bytes=INLINE_MAX_BYTES)
    (answer,) = await append(world.writer, (world.topic.partitions[0], data))
    assert answer.error is GOOD
    assert world.path._write_s == before
    await world.path.store_rows()
    world.wal.close()


async def test_flushes_come_back_in_line_though_always_something_waits(tmp_path: Path) -> None:
    world = World(tmp_path, inline=False)
    await have_tables(world.database, world.clock)
    await world.start()
    on_thread: list[int] = []
    arrived: list[asyncio.Future[object]] = []

    async def meanwhile(work: Callable[[], WalLocation]) -> WalLocation:
        on_thread.append(1)
        for _ in range(2):
            arrived.append(asyncio.ensure_future(world.append(2 * len(arrived), partition=1)))
        await asyncio.sleep(0)
        return work()

    world.path._on_thread = meanwhile
    data = batch(2, producer_id=7, epoch=0, sequence=0, size_bytes=INLINE_MAX_BYTES)
    (answer,) = await append(world.writer, (world.topic.partitions[0], data))
    assert answer.error is GOOD
    await asyncio.gather(*arrived)
    await world.writer.drain()
    assert len(arrived) == 2
    assert len(on_thread) == 1, "what came meanwhile is small"
    await world.path.store_rows()
    world.wal.close()


async def test_room_in_an_old_slab_hides_nothing(world: World) -> None:
    """An object did not fit there. All slabs since are full to the end, and so is the one that was the last."""
    pages, sequence = [1] * 15 + [3] + [1] * (13 + 16 * OLDER_PLACES), 0
    for number in pages:
        data = batch(2, producer_id=7, epoch=0, sequence=sequence, size_bytes=number * 3_000)
        (answer,) = await append(world.writer, (world.topic.partitions[0], data))
        assert answer.error is GOOD
        sequence += 2
    await world.path.store_rows()
    await world.restart()
    for _ in range(2):
        assert await world.append(sequence) == [(GOOD, sequence)]
        sequence += 2
    await world.restart()
    assert (world.topic.partitions[0].next_offset, world.lost) == (sequence, [])


async def test_objects_larger_than_slabs_hide_nothing(world: World) -> None:
    """They have places of their own, begun after the slab that later objects are in."""
    await world.append(0)
    for number in range(1, OLDER_PLACES + 2):
        data = batch(2, producer_id=7, epoch=0, sequence=2 * number, size_bytes=70_000)
        (answer,) = await append(world.writer, (world.topic.partitions[0], data))
        assert answer.error is GOOD
    await world.path.store_rows()
    sequence = 2 * OLDER_PLACES + 4
    assert await world.append(sequence) == [(GOOD, sequence)]
    await world.restart()
    assert world.topic.partitions[0].next_offset == sequence + 2


async def test_the_row_of_a_commit_that_failed_is_replaced_first(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash could bring it back, and then it would have the number of a commit that was acknowledged."""

    def fail() -> None:
        raise OutcomeUnknown("the database could not make its log durable")

    monkeypatch.setattr(trailing_rows, "MAX_ROWS", 0)
    world.after_write = fail
    ((error, _),) = await world.append(0)
    assert error is ErrorCode.KAFKA_STORAGE_ERROR
    monkeypatch.setattr(trailing_rows, "MAX_ROWS", 100)
    world.after_write = lambda: None
    assert await world.append(0) == [(GOOD, 0)]
    assert await world.stored() == 1
    assert await world.append(2) == [(GOOD, 2)]
    assert await world.stored() == 1


async def test_nothing_is_committed_beside_what_was_abandoned(world: World) -> None:
    """A write that a stop has given up may still end, and has the number that the next one would get."""
    works: list[Callable[[], WalLocation]] = []

    async def stuck(work: Callable[[], WalLocation]) -> WalLocation:
        works.append(work)
        return await asyncio.get_running_loop().create_future()

    world.path._write_s = 1.0
    world.path._on_thread = stuck
    first = asyncio.ensure_future(world.append(0))
    while not works:
        await asyncio.sleep(0)
    world.writer.abandon()
    second = asyncio.ensure_future(world.append(0, partition=1))
    await world.writer.drain()
    await asyncio.wait((first, second), timeout=0.05)
    assert not first.done()
    assert not second.done()
    assert len(works) == 1
    works[0]()
    await world.restart()
    assert [partition.next_offset for partition in world.topic.partitions] == [2, 0]
    for request in (first, second):
        request.cancel()
    await asyncio.gather(first, second, return_exceptions=True)


async def test_an_object_counts_though_nothing_can_be_prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is on the disk before the thread that prepares space for the next one is wanted."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    wal = SlabWal(tmp_path, durability="disk", slab_bytes=64 * 1024)
    first, second = wal.append((b"a" * 4096,)), wal.append((b"b" * 4096,))
    assert bytes(wal.read(first, 0, 1)) == b"a"
    assert bytes(wal.read(second, 0, 1)) == b"b"
    wal.close()


async def test_what_producers_have_sent_is_never_a_record(world: World) -> None:
    """They can make everything of one but its life, and it may lie behind the last object of a slab used again."""
    for sequence in range(0, 6, 2):
        await world.append(sequence)
    await world.path.store_rows()
    last = world.topic.partitions[0].spans[-1]
    assert last.location is not None
    forged = bytearray(world.wal.read(last.location, 0, last.location.length))
    record = read_record(memoryview(forged))
    assert record is not None
    assert record.head.seq == 3
    for number in range(10):
        head = record.head._replace(life=number, seq=4, object_id=number.to_bytes(16))
        write_record(memoryview(forged), head, record.entries, record.bases, record.change)
        with (world.directory / last.location.key).open("r+b") as file:
            file.seek(last.location.offset + 4096 * (1 + number))
            file.write(forged)
    await world.restart()
    assert await world.stored() == 3
    assert record.head.life not in range(1 << 32)
