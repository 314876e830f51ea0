"""Chores whose transaction is in flight when the connection is lost: they resolve it before they delete."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fixtures.compaction_world import LogWorld
from fixtures.upkeep_world import GRACE_MS, UpkeepWorld, record

from penstock.base.errors import OutcomeUnknown, PlatformError, Unavailable
from penstock.log.model import Partition
from penstock.metadata.database import Script
from penstock.metadata.inline import InlineDatabase
from penstock.storage.memory import MemoryObjectStore, MemoryWal


class LateDatabase(InlineDatabase):
    """A server that goes on with a commit when its client has gone. Whoever wants the same row then waits for that."""

    loses_next = goes_away = is_away = False
    late: Callable[[], Script[Any]] | None = None

    async def transaction(
        self, script: Callable[[], Script[Any]], *, background: bool = False, locking: bool = False
    ) -> Any:
        if self.is_away:
            raise Unavailable("no connection")
        if locking and self.loses_next:
            self.loses_next, self.late, self.is_away = False, script, self.goes_away
            raise OutcomeUnknown("the connection was lost during a commit, which may have happened")
        if locking:
            await self.arrive()
        return await super().transaction(script, background=background, locking=locking)

    async def arrive(self) -> None:
        """The commit ends."""
        late, self.late = self.late, None
        if late is not None:
            await super().transaction(late)


async def keyed_log() -> tuple[UpkeepWorld, LateDatabase, Partition]:
    """Two segments that key compaction makes one, whose transaction will be late."""
    database = LateDatabase()
    world = await UpkeepWorld(database=database).start()
    partition = (await world.topic(cleanup_policy="compact")).partitions[0]
    await world.segment(partition, [record("a", 1), record("b", 1)])
    await world.segment(partition, [record("a", 2)])
    world.clock.time_ms += 15_000
    database.loses_next = True
    return world, database, partition


async def test_segments_whose_replacement_is_late_are_replaced_once() -> None:
    world, _, partition = await keyed_log()
    await world.run(world.upkeep.cleaner)
    assert [found.offset for found in await world.records(partition)] == [1, 2]
    assert await world.segment_count(partition) == 1
    assert not len(world.uploads)
    await world.check()


@pytest.mark.parametrize("happens", [True, False])
async def test_an_object_that_may_be_named_yet_is_no_orphan(happens: bool) -> None:
    world, database, partition = await keyed_log()
    database.goes_away = True
    with pytest.raises(OutcomeUnknown):
        await world.run(world.upkeep.cleaner)
    keys = world.stored_keys()
    assert len(keys) == 3
    world.clock.time_ms += 2 * GRACE_MS
    await world.run(world.upkeep.orphans)
    assert world.stored_keys() == keys
    if not happens:
        database.late = None
    database.is_away = False
    await world.run()
    assert [found.offset for found in await world.records(partition)] == [1, 2]
    assert not len(world.uploads)
    world.clock.time_ms += 2 * GRACE_MS
    await world.run()
    assert len(world.stored_keys()) == 1
    await world.check()


@pytest.mark.parametrize(("happens", "goes_away"), [(True, False), (True, True), (False, True)])
async def test_commits_are_moved_into_segments_once(happens: bool, goes_away: bool) -> None:
    database = LateDatabase()
    world = await LogWorld(database, MemoryWal(2**30), MemoryObjectStore()).open()
    partition = (await world.topic()).partitions[0]
    await world.fill([partition], commits=3)
    before = await world.contents(partition)
    database.loses_next, database.goes_away = True, goes_away
    if goes_away:
        with pytest.raises(PlatformError):
            await world.compaction.compact_everything()
        if not happens:
            database.late = None
        database.is_away = False
    await world.compaction.compact_everything()
    assert partition.segmented_to == partition.next_offset
    assert not len(world.uploads)
    world.forget_tail()
    assert await world.contents(partition) == before
    database.crash()
    after = await world.restarted(database.reopen())
    assert await after.contents(after.partition("t")) == before


async def test_retention_goes_by_the_size_that_a_late_change_leaves() -> None:
    database = LateDatabase()
    world = await UpkeepWorld(database=database).start()
    topic = await world.topic(
        cleanup_policy="compact,delete", retention_bytes=2_500_000, retention_ms=-1, segment_bytes=1_100_000,
        min_cleanable_dirty_ratio=0,
    )  # fmt: skip
    partition = topic.partitions[0]
    for key in ("a", "b", "a", "b"):
        await world.segment(partition, [record(key, b"v" * 1_000_000)])
    world.clock.time_ms += 15_000
    database.loses_next = database.goes_away = True
    with pytest.raises(OutcomeUnknown):
        await world.run(world.upkeep.cleaner)
    database.is_away = False
    await world.run(world.upkeep.retention)
    assert await world.segment_count(partition) == 3
    assert partition.log_start == 0
    await world.check()
