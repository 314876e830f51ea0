"""Offsets that commit records tell of, among everything else that happens to them, against a model.

What is asked of groups and transactions comes one after the other and is answered; the database is behind most of the
time, fails now and then, as does the write-ahead log, and the process is killed. Whoever looks must find what was
answered, no more and no less.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

import pytest
from fixtures.clocks import ManualClock
from fixtures.log_world import topic_of

from penstock.base.errors import OutcomeUnknown, Unavailable
from penstock.base.randomness import SeededRandomness
from penstock.coordination.leases import LeaseHolder
from penstock.coordination.model import CoordinatorLoading
from penstock.coordination.timers import LoopScheduler
from penstock.groups.model import (
    CommitOffsets,
    DeleteOffsets,
    OffsetAndMetadata,
    OffsetsCommitted,
    TopicPartition,
    TransactionOwner,
)
from penstock.groups.service import GroupService
from penstock.groups.settings import GroupSettings
from penstock.groups.store import fold
from penstock.groups.store import write as group_write
from penstock.log.commit_path import EmbeddedCommitPath
from penstock.log.commits import Commit
from penstock.log.producer_ids import ProducerIds
from penstock.log.record_first import RecordFirstCommitPath
from penstock.log.recovery import load_state
from penstock.log.registry import Registry
from penstock.log.roll_forward import roll_forward
from penstock.log.trailing_rows import TrailingRows, UpToDateDatabase
from penstock.log.writer import Writer
from penstock.metadata.inline import InlineDatabase
from penstock.metadata.migrate import migrate
from penstock.storage.arena import Arena
from penstock.storage.slabs import SlabWal
from penstock.storage.wal import WalLocation
from penstock.transactions import store
from penstock.transactions.model import AddToTransaction, EndTransaction, InitProducerId, ProducerIdAndEpoch
from penstock.transactions.service import TransactionService
from penstock.wire.error_codes import ErrorCode

T = TypeVar("T")
STEPS, SEEDS, ENOUGH_SEEDS = 250, 15, 60
NAMES, GROUPS, PARTITIONS = ("first", "second"), ("readers", "others"), (1, 2, 3)
TOPICS = ("in", "more")


@dataclass
class Waiting:
    """An offset that waits for the end of a transaction."""

    value: int
    order: int
    is_overtaken: bool = False


Place = tuple[str, TopicPartition]
"""A group, and a partition."""


class Model:
    """What must be found."""

    def __init__(self) -> None:
        self.committed: dict[Place, tuple[int, int]] = {}
        """Value, and when it was sent."""
        self.pending: dict[str, dict[Place, Waiting]] = {name: {} for name in NAMES}
        self.order = 0

    def waits(self, name: str, group: str, offsets: dict[TopicPartition, int]) -> None:
        self.order += 1
        self.pending[name].update({(group, place): Waiting(value, self.order) for place, value in offsets.items()})

    def commits(self, group: str, offsets: dict[TopicPartition, int]) -> None:
        self.order += 1
        for partition, value in offsets.items():
            self.committed[group, partition] = (value, self.order)
            for pending in self.pending.values():
                if (group, partition) in pending:
                    pending[group, partition].is_overtaken = True

    def ends(self, name: str, *, commit: bool) -> None:
        for place, waiting in self.pending[name].items():
            _, order = self.committed.get(place, (0, -1))
            if commit and not waiting.is_overtaken and order < waiting.order:
                self.committed[place] = (waiting.value, waiting.order)
        self.pending[name] = {}

    def forgets(self, which: Callable[[Place], bool]) -> None:
        self.committed = {place: one for place, one in self.committed.items() if not which(place)}
        for name, waiting in self.pending.items():
            self.pending[name] = {place: one for place, one in waiting.items() if not which(place)}

    def seen(self, group: str) -> tuple[dict[TopicPartition, int], set[TopicPartition]]:
        committed = {partition: value for (one, partition), (value, _) in self.committed.items() if one == group}
        return committed, {place[1] for waiting in self.pending.values() for place in waiting if place[0] == group}


class World:
    """Lives of a coordinator of both, and what is asked of it."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.directory, self.choose = directory, random.Random(f"told offsets {seed}")
        self.planned: list[Literal["before", "after"]] = []
        self.database = InlineDatabase(faults=lambda: self.planned.pop(0) if self.planned else None)
        self.clock, self.randomness = ManualClock(), SeededRandomness(f"told offsets {seed}")
        self.loses_write = False
        self.topics = [topic_of(*PARTITIONS[:2], name="in"), topic_of(PARTITIONS[2], name="more")]
        self.model, self.producers = Model(), dict[str, ProducerIdAndEpoch]()
        self.number = 0
        self.objects_alone = 0
        """How many commits there were without batches."""

    async def start(self) -> None:
        self.wal = SlabWal(self.directory, durability="process", slab_bytes=64 * 1024)
        registry = Registry()
        for topic in self.topics:
            registry.add(topic)
        life = await roll_forward(
            self.database, self.wal, randomness=self.randomness, redo=lambda changes: store.redo(changes)
        )
        seq = await load_state(self.database, registry, self.wal)
        write = self.wal.append

        def appending(body: object) -> WalLocation:
            location = write(body)  # type: ignore[arg-type]
            if self.loses_write:
                self.loses_write = False
                raise OutcomeUnknown("the answer was lost")
            return location

        self.wal.append = appending  # type: ignore[method-assign, assignment]
        rows = TrailingRows(self.database, self.randomness, lambda changes: store.redo(changes))
        through_database = EmbeddedCommitPath(
            database=self.database, wal=self.wal, clock=self.clock, randomness=self.randomness, seq=seq, inline=False,
            rows=rows,
        )  # fmt: skip

        async def at_once(work: Callable[[], WalLocation]) -> WalLocation:
            return work()

        self.path = RecordFirstCommitPath(
            through_database, rows, metadata=self.database, wal=self.wal, clock=self.clock, randomness=self.randomness,
            on_thread=at_once, life=life, inline=self.choose.random() < 0.5,
        )  # fmt: skip
        writer = Writer(
            arena=Arena(1 << 20), commit_path=self.path, clock=self.clock,
            on_commit=self._note, room=self,
        )  # fmt: skip
        self.transactions = TransactionService(
            database=self.database, registry=registry, writer=writer, producer_ids=ProducerIds(self.database),
            clock=self.clock,
        )  # fmt: skip
        await self.transactions.open()
        self.groups = GroupService(
            database=self.path.up_to_date, topics=registry, settings=GroupSettings(), holder=LeaseHolder(name="agent"),
            clock=self.clock, scheduler=LoopScheduler(), randomness=self.randomness,
            pending_offset_writer=self.transactions, catch_up=self.path.store_changes,
        )  # fmt: skip
        await self.groups.open()

    is_short = False
    """Whether the log has no room for now."""

    async def wait(self) -> None:
        """For room. None comes, and the writer goes on all the same."""

    def _note(self, commit: Commit) -> None:
        self.objects_alone += not commit.entries

    async def restart(self) -> None:
        """The process is killed here and started again."""
        self.planned, self.loses_write = [], False
        self.path.close()
        self.database.crash()
        self.database = self.database.reopen()
        self.wal.close()
        await self.start()

    # ---- what is asked -------------------------------------------------------------------------------------------

    async def insist(self, asking: Callable[[], Awaitable[T]]) -> T | None:
        """Ask again while nobody knows; None if nothing happened."""
        while True:
            try:
                return await asking()
            except CoordinatorLoading:
                continue  # Whatever failed did so once.
            except Unavailable:
                return None

    def offsets(self) -> dict[TopicPartition, int]:
        """Some partitions, each with a value that nobody has had."""
        known = [(topic.topic_id, partition.index) for topic in self.topics for partition in topic.partitions]
        wanted = self.choose.sample(known, self.choose.randint(1, len(known)))
        self.number += 1
        return dict.fromkeys(wanted, self.number)

    def request(self, offsets: dict[TopicPartition, int], owner: TransactionOwner | None = None) -> CommitOffsets:
        stamped = {
            place: OffsetAndMetadata(
                committed_offset=value, leader_epoch=-1, metadata="", committed_ms=self.clock.now_ms()
            )
            for place, value in offsets.items()
        }
        return CommitOffsets(offsets=stamped, owner=owner)

    async def init(self, name: str) -> None:
        """A new producer takes an id; what the one before had open is aborted."""
        given = await self.insist(lambda: self.transactions.init((1, name), InitProducerId(timeout_ms=60_000)))
        if given is not None:
            self.model.ends(name, commit=False)
            self.producers[name] = given.producer

    async def send(self, name: str, group: str) -> None:
        """TxnOffsetCommit."""
        producer, offsets = self.producers[name], self.offsets()
        error = await self.insist(lambda: self.transactions.begin_offset_commit((1, name), producer, group))
        assert error is ErrorCode.NONE
        done = await self.insist(
            lambda: self.groups.commit_offsets((1, group), self.request(offsets, self.owner(name, producer)))
        )
        if done is not None:
            assert done is ErrorCode.NONE
            self.model.waits(name, group, offsets)

    @staticmethod
    def owner(name: str, producer: ProducerIdAndEpoch) -> TransactionOwner:
        return TransactionOwner(
            transactional_id=name, producer_id=producer.producer_id, epoch=producer.epoch, begins=True
        )

    async def haunt(self, name: str, group: str) -> None:
        """A producer of before sends offsets, and is past the first look at it."""
        producer = self.producers[name]
        stale = self.owner(name, ProducerIdAndEpoch(producer.producer_id, producer.epoch - 1))
        with pytest.raises(Unavailable):
            await self.groups.commit_offsets((1, group), self.request(self.offsets(), stale))

    async def end(self, name: str) -> None:
        """EndTxn, now and then with markers."""
        if not self.model.pending[name]:
            return  # It may be none: nobody knows of a transaction whose group was deleted.
        key, producer, commit = (1, name), self.producers[name], self.choose.random() < 0.7
        if self.choose.random() < 0.4:
            add = AddToTransaction(producer=producer, partitions=frozenset({self.choose.choice(PARTITIONS)}))
            await self.insist(lambda: self.transactions.add(key, add))
        ended = await self.insist(
            lambda: self.transactions.end(key, EndTransaction(producer=producer, commit=commit, raises_epoch=True))
        )
        if ended is not None:
            assert ended.error is ErrorCode.NONE
            self.model.ends(name, commit=commit)
            self.producers[name] = ended.producer

    async def commit(self, group: str) -> None:
        """OffsetCommit."""
        offsets = self.offsets()
        if await self.insist(lambda: self.groups.commit_offsets((1, group), self.request(offsets))) is not None:
            self.model.commits(group, offsets)

    async def delete(self, group: str) -> None:
        """DeleteGroups."""
        if await self.insist(lambda: self.groups.delete((1, group))) is ErrorCode.NONE:
            self.model.forgets(lambda place: place[0] == group)

    async def delete_offsets(self, group: str) -> None:
        """OffsetDelete."""
        gone = self.offsets()
        done = await self.insist(
            lambda: self.groups.delete_offsets((1, group), DeleteOffsets(topics={"any": tuple(gone)}))
        )
        if done is not None and done.error is ErrorCode.NONE:
            self.model.forgets(lambda place: place[0] == group and place[1] in gone)

    async def forget_topic(self) -> None:
        """A topic goes."""
        topic_id = self.choose.choice(self.topics).topic_id

        async def forget() -> bool:
            await self.groups.forget_topic(1, topic_id)
            return True

        try:
            done = await self.insist(forget)
        except OutcomeUnknown:
            done = True
        if done:
            self.model.forgets(lambda place: place[1][0] == topic_id)

    async def look(self) -> None:
        """OffsetFetch of every group."""
        for group in GROUPS:
            expected = self.model.seen(group)
            found = None
            while found is None:
                found = await self.insist(lambda group=group: self.groups.stable_offsets((1, group)))  # type: ignore[misc]
            offsets, pending = found
            assert ({place: one.committed_offset for place, one in offsets.items()}, set(pending)) == expected, group
            plain = await self.groups.offsets((1, group))
            assert plain == offsets

    async def step(self) -> None:
        choose = self.choose
        if choose.random() < 0.1:
            self.planned = [choose.choice(("before", "after"))]
        self.loses_write = choose.random() < 0.05
        self.is_short = choose.random() < 0.1
        self.clock.time_ms += choose.choice((0, 0, 1, 50, -200))
        name, group = choose.choice(NAMES), choose.choice(GROUPS)
        (action,) = choose.choices(
            (
                lambda: self.send(name, group), lambda: self.end(name), lambda: self.commit(group), self.look,
                lambda: self.init(name), lambda: self.haunt(name, group), lambda: self.delete_offsets(group),
                lambda: self.delete(group), self.forget_topic, self.path.store_rows, self.restart,
            ),
            weights=(40, 25, 12, 12, 3, 5, 3, 3, 2, 2, 5),
        )  # fmt: skip
        await action()
        self.planned, self.loses_write = [], False


@asynccontextmanager
async def opened(directory: Path, seed: int) -> AsyncIterator[World]:
    world = World(directory, seed)
    await migrate(world.database, world.clock)
    await world.start()
    try:
        for name in NAMES:
            await world.init(name)
            await world.init(name)  # So that there is an epoch before.
        yield world
    finally:
        world.path.close()
        world.wal.close()


async def live(directory: Path, seed: int) -> int:
    """One history; how many objects held nothing but offsets."""
    directory.mkdir()
    async with opened(directory, seed) as world:
        for _ in range(STEPS):
            await world.step()
        await world.look()
        await world.restart()
        await world.look()
        for name in NAMES:
            await world.end(name)
        await world.look()
        return world.objects_alone


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_whoever_looks_finds_what_was_answered(tmp_path: Path, seed: int) -> None:
    assert await asyncio.wait_for(live(tmp_path / "wal", seed), 60) > 10


async def tables(database: InlineDatabase) -> list[Sequence[object]]:
    """Offsets that are committed, and those that wait, without their times."""
    committed = await database.statement(
        "SELECT group_id, topic_id, partition_index, committed_offset FROM group_offset ORDER BY 1, 2, 3"
    )
    waiting = await database.statement(
        "SELECT producer_id, group_id, topic_id, partition_index, committed_offset, is_overtaken FROM txn_offset"
        " ORDER BY 1, 2, 3, 4"
    )
    return [*committed, *waiting]


@pytest.mark.parametrize("seed", range(16))
async def test_what_is_left_out_of_records_nobody_would_see(seed: int) -> None:
    """Records made true one by one, and many at once, with commits of the groups themselves in between."""
    choose, one_by_one, at_once = random.Random(f"folded {seed}"), InlineDatabase(), InlineDatabase()
    for database in (one_by_one, at_once):
        await migrate(database, ManualClock())
    is_shared, number, waiting = choose.random() < 0.3, 0, list[bytes]()
    for _ in range(60):
        number += 1
        producer_id, group = choose.randint(1, 3), choose.choice(GROUPS)
        places = [(b"t" * 16, index) for index in range(6) if is_shared or index % 3 == producer_id - 1]
        offsets = {
            place: OffsetAndMetadata(
                committed_offset=number, leader_epoch=-1, metadata="", committed_ms=choose.randint(0, 50)
            )
            for place in choose.sample(places, choose.randint(1, len(places)))
        }
        if choose.random() < 0.1:
            changes = fold([((1, group), OffsetsCommitted(offsets))])
            script = partial(group_write, changes, may_be_pending=[(1, group)])
            await at_once.transaction(partial(store.redo, waiting))
            await at_once.transaction(script)
            await one_by_one.transaction(script)
            assert await tables(at_once) == await tables(one_by_one)
            waiting = []
            continue
        pending = (((1, group), producer_id, offsets),) if choose.random() < 0.6 else ()
        ended = ((1, producer_id % 3 + 1, choose.random() < 0.7),) if not pending or choose.random() < 0.2 else ()
        change = store.pack_changes(store.TransactionChanges((), pending, ended))
        await one_by_one.transaction(partial(store.move_offsets, pending, ended))
        waiting.append(change)
    await at_once.transaction(partial(store.redo, waiting))
    assert await tables(at_once) == await tables(one_by_one)


def test_a_relay_moves_each_offset_once() -> None:
    def told(value: int, *, commit: bool = True) -> list[store.TransactionChanges]:
        offset = OffsetAndMetadata(committed_offset=value, leader_epoch=-1, metadata="", committed_ms=value)
        pending = ((1, "readers"), 7, {(b"t" * 16, 0): offset, (b"t" * 16, value % 2): offset})
        return [store.TransactionChanges(pending=[pending]), store.TransactionChanges(ended=[(1, 7, commit)])]

    ((pending, ended),) = store.merged_offsets([*told(1), *told(2), *told(3), *told(4, commit=False)])
    ((group, producer_id, offsets),) = pending
    assert (group, producer_id, list(ended)) == ((1, "readers"), 7, [(1, 7, True)])
    assert {index: offset.committed_offset for (_, index), offset in offsets.items()} == {0: 3, 1: 3}
    first, second = store.merged_offsets([*told(1, commit=False), *told(2)])
    assert first == ((), ((1, 7, False),))
    assert second[1] == ((1, 7, True),)


def others_write_on_what_the_database_has(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(UpToDateDatabase, "transaction", lambda self, script: self._database.transaction(script))


def readers_do_not_wait(patch: pytest.MonkeyPatch) -> None:
    async def nothing(self: RecordFirstCommitPath) -> None:
        return None

    patch.setattr(RecordFirstCommitPath, "store_changes", nothing)


def transactions_always_go_on(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(TransactionService, "may_add_offsets", lambda *args: True)


def rows_follow_without_offsets(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(store, "redo", lambda changes: iter(()))


def offsets_may_overtake_what_ends(patch: pytest.MonkeyPatch) -> None:
    """Ends are made true before the offsets that were sent before them."""

    def hasty(changes):
        told = [store.unpack_changes(change) for change in changes]
        yield from store.put(*{txn.key: txn for one in told for txn in one.states}.values())
        yield from store.move_offsets((), [ended for one in told for ended in one.ended])
        yield from store.move_offsets([pending for one in told for pending in one.pending], ())

    patch.setattr(store, "redo", hasty)


@pytest.mark.parametrize(
    "ablation",
    [
        others_write_on_what_the_database_has, readers_do_not_wait, transactions_always_go_on,
        rows_follow_without_offsets, offsets_may_overtake_what_ends,
    ],
)  # fmt: skip
async def test_each_safeguard_is_missed(
    ablation: Callable[[pytest.MonkeyPatch], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ablation(monkeypatch)
    for seed in range(ENOUGH_SEEDS):
        try:
            await asyncio.wait_for(live(tmp_path / str(seed), seed), 60)
        except (AssertionError, pytest.fail.Exception):
            return
    raise AssertionError(f"{ENOUGH_SEEDS} seeds did not show it")
