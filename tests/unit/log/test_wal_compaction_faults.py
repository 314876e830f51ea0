"""Compaction dies, fails and is not answered, at every step: the log is what it was, and is counted once."""

from __future__ import annotations

import contextlib
import itertools

import pytest
from fixtures.compaction_world import LogWorld
from fixtures.log_world import batch, batches_in

from penstock.base.errors import OutcomeUnknown, Unavailable
from penstock.log.upkeep.wal_backlog import CompactionPolicy
from penstock.metadata.inline import InlineDatabase
from penstock.storage.local import LocalObjectStore
from penstock.storage.memory import MemoryObjectStore, MemoryWal
from penstock.storage.slabs import SlabWal


class Crash(BaseException):
    """The process dies here. Nothing catches it."""


class Steps:
    """Counts operations of the database, the WAL and the object store, and lets one of them go wrong."""

    def __init__(self):
        self.arm(-1)

    def arm(self, at, *hows):
        """So many steps from now things begin to go wrong, one after the other."""
        self.taken, self.at, self.hows = 0, at, list(hows)

    def next(self):
        self.taken += 1
        return self.hows.pop(0) if self.taken > self.at >= 0 and self.hows else None


class SteppedStore:
    """A WAL or an object store whose calls are steps."""

    def __init__(self, inner, steps, names):
        self._inner, self._steps, self._names = inner, steps, names

    def __getattr__(self, name):
        found = getattr(self._inner, name)
        if name not in self._names:
            return found

        def call(*args):
            how = self._steps.next()
            if how == "before":
                raise Unavailable("the store is away")
            if how == "crash before":
                raise Crash
            answer = found(*args)
            if how == "after":
                raise OutcomeUnknown("the answer of the store was lost")
            if how == "crash after":
                raise Crash
            if name == "open_writer":
                return SteppedStore(answer, self._steps, ("write", "commit"))
            return answer

        return call


class SteppedDatabase(InlineDatabase):
    """A database whose operations are steps."""

    steps: Steps

    def _write(self, work):
        how = self.steps.next()
        if how == "before":
            raise Unavailable("the database is away")
        if how == "crash before":
            raise Crash
        answer = super()._write(work)
        if how == "after":
            raise OutcomeUnknown("the answer of the commit was lost")
        if how == "crash after":
            raise Crash
        return answer

    def _read(self, work):
        how = self.steps.next()
        if how in ("before", "after"):
            raise Unavailable("the database is away")
        if how is not None:
            raise Crash
        return super()._read(work)

    def reopen(self):
        successor = SteppedDatabase()
        successor._connection.close()
        successor._connection, successor.steps = self._connection, self.steps
        return successor


class Story:
    """A log with something of everything, and what must be true of it whatever happens."""

    def __init__(self, path=None):
        self.path = path
        """Where files are that compaction adopts; None: everything is in memory and is copied."""

    def stores(self):
        if self.path is None:
            return MemoryWal(2**30), MemoryObjectStore()
        wal = SlabWal(self.path / "slabs", durability="process", slab_bytes=24 * 1024)
        return wal, LocalObjectStore(self.path / "segments", sync=False)

    def stepped(self, wal, objects):
        return (
            SteppedStore(wal, self.steps, ("read_many", "release", "share")),
            SteppedStore(objects, self.steps, ("open_writer", "delete", "adopt")),
        )

    async def prepare(self):
        self.steps = Steps()
        self.database = SteppedDatabase()
        self.database.steps = self.steps
        self.world = await LogWorld(
            self.database, *self.stepped(*self.stores()), policy=CompactionPolicy(pass_bytes=40_000),
            adopted_min_bytes=2**62 if self.path is None else 1,
        ).open()  # fmt: skip
        world = self.world
        orders, gone = await world.topic("orders", 3), await world.topic("gone")
        self.used = await world.fill([*orders.partitions, *gone.partitions], commits=3, size_bytes=2_000)
        for number in range(7):
            accepted = batch(2, producer_id=7, sequence=2 * number, mark=50 + number)
            await world.append((orders.partitions[0], accepted))
            self.used += len(accepted.data)
        await world.topics.trim(1, {orders.partitions[2]: 5})
        await world.topics.delete(1, [gone])
        world.forget_tail()
        self.used += await world.fill(orders.partitions, commits=6, size_bytes=3_900, mark=10)
        self.before = await self.contents()
        return self

    async def contents(self):
        return [
            await self.world.contents(partition) for partition in self.world.registry.by_name(1, "orders").partitions
        ]

    async def crash(self):
        """The next process begins."""
        self.steps.arm(-1)
        self.database.crash()
        self.database = self.database.reopen()
        wal, objects = self.world.wal, self.world.objects
        if self.path is not None:
            wal._inner.close()
            wal, objects = self.stepped(*self.stores())
        self.world = await self.world.restarted(self.database, wal, objects)

    async def check(self):
        world = self.world
        assert await self.contents() == self.before
        orders = world.registry.by_name(1, "orders")
        assert [partition.next_offset for partition in orders.partitions] == [41, 27, 27]
        for partition in orders.partitions:
            if world.compaction._unsettled is not None:
                break  # The database may be ahead.
            rows = await world.rows(
                "SELECT size_bytes, segmented_to FROM partition WHERE partition_id = $1", partition.partition_id
            )
            live = sum(span.byte_length for span in partition.spans if span.base_offset >= partition.segmented_to)
            assert rows == [(partition.size_bytes - live, partition.segmented_to)]
        state = orders.partitions[0].producers[7]
        assert [known.first_sequence for known in state.batches] == [4, 6, 8, 10, 12]
        lives = await world.rows(
            "SELECT o.live, (SELECT COUNT(*) FROM segment s WHERE s.object_id = o.object_id) FROM object o"
        )
        assert all(live == count for live, count in lives)

    async def check_end(self):
        """Once everything is compacted."""
        world = self.world
        await self.check()
        assert (world.backlog.rows, world.backlog.size_bytes, world.backlog.entries) == (0, 0, 0)
        assert await world.rows("SELECT value FROM usage WHERE metric = 1") == [(self.used,)]
        if self.path is None:
            assert world.wal._inner._held_bytes == 0
        else:
            assert world.wal._inner.stats().live_bytes == 0
        assert await world.rows("SELECT COUNT(*) FROM wal_commit") == [(0,)]
        assert len(world.uploads) == 0
        world.forget_tail()
        await self.check()

    async def finish(self):
        """Compact what is left, as the background would after a pause."""
        for _ in range(10):
            try:
                await self.world.compaction.compact_everything()
                await self.world.compaction.run()
            except (Unavailable, OutcomeUnknown):
                continue
            break
        await self.check_end()


@pytest.fixture(params=["copied", "adopted"])
def path_of(request, tmp_path, monkeypatch):
    """A directory for each story, or None where nothing is adopted."""
    if request.param == "copied":
        return lambda: None
    monkeypatch.setattr("penstock.log.upkeep.wal_plan.LONG_BYTES", 2_500)
    monkeypatch.setattr("penstock.log.writer.LONG_BYTES", 2_500)
    numbers = itertools.count()
    return lambda: tmp_path / str(next(numbers))


async def test_the_story_has_something_of_everything(path_of):
    story = await Story(path_of()).prepare()
    story.steps.arm(-1)
    await story.finish()
    assert story.world.compaction.stats.passes >= 2
    assert story.steps.taken > 20
    assert (story.world.compaction.stats.adopted_bytes > 0) is (story.path is not None)


@pytest.mark.parametrize("hows", [("before",), ("after",), ("after", "before"), ("after", "before", "after", "before")])
async def test_failures_from_any_step_on_change_nothing_and_are_made_up_for(hows, path_of):
    for at in itertools.count():
        story = await Story(path_of()).prepare()
        story.steps.arm(at, *hows)
        with contextlib.suppress(Unavailable, OutcomeUnknown):
            await story.world.compaction.compact_everything()
        if story.steps.taken <= at:
            break
        # As long as it is not known whether a pass happened, the sweep must not take its objects.
        assert (len(story.world.uploads) > 0) is (story.world.compaction._unsettled is not None)
        story.steps.arm(-1)
        await story.check()
        await story.finish()


@pytest.mark.parametrize("how", ["crash before", "crash after"])
async def test_a_crash_at_any_step_leaves_the_old_state_or_the_new(how, path_of):
    for at in itertools.count():
        story = await Story(path_of()).prepare()
        story.steps.arm(at, how)
        with contextlib.suppress(Crash):
            await story.world.compaction.compact_everything()
        if story.steps.taken <= at:
            break
        await story.crash()
        await story.check()
        marks = [[mark for _, _, mark in batches_in(body)] for body in await story.contents()]
        assert marks[1] == [0, 1, 2, *range(10, 16)]
        # Whatever the log writes now, it writes nowhere that an object is.
        other = await story.world.topic("other")
        story.used += await story.world.fill(other.partitions, commits=20, size_bytes=5_000, mark=99)
        story.world.forget_tail()
        await story.check()
        await story.finish()
        # What nothing names is an orphan, and there are at most those of one pass.
        keys = {info.key for info in story.world.objects.list("")}
        named = {row[0] for row in await story.world.rows("SELECT key FROM object")}
        assert named <= keys
        orphans = keys - named
        assert len(orphans) <= (1 if story.path is None else 3)
        story.world.objects.delete(sorted(orphans))
        story.used += await story.world.fill(other.partitions, commits=20, size_bytes=5_000, mark=99)
        await story.crash()
        await story.check()
