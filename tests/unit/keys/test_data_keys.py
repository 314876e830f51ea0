"""The data keys of clusters, over a key service that is not always there."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fixtures.clocks import ManualClock
from fixtures.key_services import FakeKeyService
from fixtures.tables import have_tables

from penstock.agent.change_poller import ChangePoller
from penstock.base.errors import InvalidRequest, Unavailable
from penstock.base.randomness import SeededRandomness
from penstock.keys.model import KeysErased, KeyState, LockReason
from penstock.keys.service import DataKeys
from penstock.metadata.inline import InlineDatabase


class World:
    """One process with keys; `restarted` is the next."""

    def __init__(self, database: InlineDatabase, service: FakeKeyService, life: int = 1, **options: Any) -> None:
        self.database, self.service, self.life, self.clock = database, service, life, ManualClock()
        self.keys = DataKeys(
            database=database, service=service, clock=self.clock, randomness=SeededRandomness(f"life {life}"),
            timeout_s=0.01, open_s=0.05, **options,
        )  # fmt: skip

    async def open(self) -> World:
        await self.database.open()
        await have_tables(self.database, self.clock)
        await self.keys.open()
        return self

    async def restarted(self) -> World:
        await self.keys.close()
        self.database.crash()
        return await World(self.database.reopen(), self.service, self.life + 1).open()


@pytest.fixture
async def world() -> Any:
    world = await World(InlineDatabase(), FakeKeyService()).open()
    yield world
    await world.keys.close()


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def test_a_cluster_has_the_same_key_after_a_restart(world: World) -> None:
    assert not world.keys.is_on
    assert await world.keys.encrypt(1)
    assert not await world.keys.encrypt(1)
    key = world.keys.current[1]
    after = await world.restarted()
    assert after.keys.current[1] == key
    assert after.keys.locked == {}
    await after.keys.close()


async def test_secrets_are_in_no_text_and_in_no_row(world: World) -> None:
    await world.keys.encrypt(1)
    secret = world.keys.current[1].secret
    assert repr(secret) not in repr(world.keys.current)
    rows = await world.database.read(lambda: _rows("SELECT wrapped FROM data_key"))
    assert rows
    assert not any(secret in bytes(row[0]) for row in rows)


async def test_rotation_keeps_the_old_key_for_reading(world: World) -> None:
    await world.keys.encrypt(1)
    old = world.keys.current[1]
    replaced: list[int] = []
    world.keys.on_replaced = replaced.append
    await world.keys.rotate(1)
    assert world.keys.current[1].key_id != old.key_id
    assert replaced == [old.key_id]
    after = await world.restarted()
    await after.keys.ready((old.key_id,))
    assert after.keys.peek(old.key_id) == old
    await after.keys.forget((old.key_id,))
    assert list(after.keys.stored) == [after.keys.current[1].key_id]
    await after.keys.close()


async def test_a_new_master_key_wraps_every_data_key_and_the_old_one_is_destroyed(world: World) -> None:
    await world.keys.encrypt(1)
    await world.keys.rotate(1)
    keys = {key_id: world.keys.peek(key_id) for key_id in world.keys.stored}
    before = world.keys.clusters[1].master_key_id
    await world.keys.rewrap(1)
    assert world.service.keys[before] is None
    after = await world.restarted()
    await after.keys.ready(keys)
    assert {key_id: after.keys.peek(key_id) for key_id in keys} == keys
    await after.keys.close()


async def test_whoever_hangs_up_stops_no_change(world: World) -> None:
    """Else the database would have it, and nobody here would go by it."""
    await world.keys.encrypt(1)
    old = world.keys.current[1].key_id
    for number, change in enumerate((world.keys.rotate, world.keys.rewrap, world.keys.erase, world.keys.encrypt)):
        cluster_id = 1 if number < 3 else 2
        task = asyncio.ensure_future(change(cluster_id))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: not world.keys._changes._running)
        stored = await world.database.read(lambda: _rows("SELECT cluster_id, state, current_key_id FROM cluster_keys"))
        known = world.keys.clusters
        assert {row[0]: (KeyState(row[1]), row[2]) for row in stored} == {
            key: (one.state, one.current_key_id) for key, one in known.items()
        }
        if number == 0:
            assert world.keys.current[1].key_id != old
    assert (world.keys.clusters[1].state, world.keys.clusters[2].state) == (KeyState.ERASED, KeyState.ON)


async def test_an_old_master_key_that_could_not_be_destroyed_is_destroyed_later(world: World) -> None:
    await world.keys.encrypt(1)
    key, before = world.keys.current[1], world.keys.clusters[1].master_key_id
    world.service.keeps_everything = True
    await world.keys.rewrap(1)
    assert world.service.keys[before] is not None
    assert world.keys.clusters[1].master_key_id != before
    with pytest.raises(InvalidRequest):
        await world.keys.rewrap(1)  # Else nobody would know of the first one any more.
    after = await world.restarted()
    assert after.keys.current[1] == key
    after.service.keeps_everything = False
    after.clock.time_ms += 2_000
    await until(lambda: not after.keys.clusters[1].retired_master_key_id)
    assert after.service.keys[before] is None
    await after.keys.close()


async def test_a_start_without_the_key_service_locks_the_cluster_until_it_is_back(world: World) -> None:
    await world.keys.encrypt(1)
    world.service.hangs = True
    after = await world.restarted()
    assert after.keys.locked == {1: LockReason.WAITING}
    assert 1 not in after.keys.current
    after.service.hangs = False
    after.clock.time_ms += 2_000
    await until(lambda: not after.keys.locked)
    assert after.keys.current[1] == world.keys.current[1]
    await after.keys.close()


async def test_a_service_that_is_away_is_asked_a_few_times_and_not_by_everybody(world: World) -> None:
    await world.keys.encrypt(1)
    old = world.keys.current[1].key_id
    await world.keys.rotate(1)
    after = await world.restarted()
    after.service.is_down, after.service.asked = True, 0
    results = await asyncio.gather(*(after.keys.ready((old,)) for _ in range(50)), return_exceptions=True)
    assert all(isinstance(result, Unavailable) for result in results)
    asked = after.service.asked
    assert 1 <= asked <= 3
    with pytest.raises(Unavailable):
        await after.keys.ready((old,))
    assert after.service.asked == asked  # Not again at once.
    after.service.is_down = False
    after.clock.time_ms += 2_000
    await after.keys.ready((old,))
    await after.keys.close()


async def test_only_so_many_keys_are_kept(world: World) -> None:
    small = await World(InlineDatabase(), world.service, 5, cached_keys=2).open()
    await small.keys.encrypt(1)
    for _ in range(5):
        await small.keys.rotate(1)
    assert len(small.keys.stored) == 6
    held = [key_id for key_id in small.keys.stored if small.keys.peek(key_id) is not None]
    assert len(held) == 3
    assert small.keys.current[1].key_id in held
    await small.keys.close()


async def test_a_cluster_is_locked_before_its_key_goes(world: World) -> None:
    """Other threads look into both, the lock first or the key first, and must not take the cluster for an open one."""
    keys, were_locked = world.keys, []

    class Current(dict[int, Any]):
        def pop(self, cluster_id: int, *default: Any) -> Any:
            were_locked.append(cluster_id in keys.locked)
            return super().pop(cluster_id, *default)

    await keys.encrypt(1)
    keys.current = Current(keys.current)
    await keys.erase(1)
    assert were_locked
    assert all(were_locked)
    assert keys.current == {}


class SlowReads:
    """The database, whose answers to reads take as long as is wanted."""

    def __init__(self, database: InlineDatabase) -> None:
        self._database = database
        self.transaction = database.transaction
        self.arrived, self.goes_on = asyncio.Event(), asyncio.Event()
        self.goes_on.set()

    async def read(self, script: Any) -> Any:
        rows = await self._database.read(script)
        self.arrived.set()
        await self.goes_on.wait()
        return rows


async def test_what_was_read_before_a_change_does_not_undo_it(world: World) -> None:
    database = SlowReads(world.database)
    keys = DataKeys(
        database=database, service=world.service, clock=world.clock, randomness=SeededRandomness("slow"),
        timeout_s=0.01, open_s=0.05,
    )  # fmt: skip
    await keys.open()
    for cluster_id in (1, 2, 3):
        await keys.encrypt(cluster_id)
    old = keys.current[1].key_id
    await keys.rotate(1)
    database.arrived.clear()
    database.goes_on.clear()
    looking = asyncio.create_task(keys.ready((12345,)))
    await database.arrived.wait()
    await keys.rotate(2)
    await keys.erase(3)
    await keys.forget((old,))
    rotated = keys.current[2]
    database.goes_on.set()
    with pytest.raises(KeysErased):
        await looking
    assert (keys.current[2], keys.clusters[2].current_key_id) == (rotated, rotated.key_id)
    assert (keys.locked, keys.clusters[3].state) == ({3: LockReason.ERASED}, KeyState.ERASED)
    assert old not in keys.stored
    await keys.close()


async def check_erased(world: World, key_ids: list[int]) -> None:
    """Nothing of cluster 1 can be had, and cluster 2 is none the worse."""
    assert world.keys.locked == {1: LockReason.ERASED}
    for key_id in key_ids:
        with pytest.raises(KeysErased):
            await world.keys.ready((key_id,))
    with pytest.raises(InvalidRequest):
        await world.keys.encrypt(1)
    assert 2 in world.keys.current


async def test_erasing_takes_everything_and_stays_true(world: World) -> None:
    await world.keys.encrypt(1)
    await world.keys.encrypt(2)
    await world.keys.rotate(1)
    key_ids = [key_id for key_id, key in world.keys.stored.items() if key.cluster_id == 1]
    told: list[int] = []
    world.keys.on_erased = told.append
    assert await world.keys.erase(1)
    assert await world.keys.erase(1)
    assert told == [1]
    await check_erased(world, key_ids)
    after = await world.restarted()
    await check_erased(after, key_ids)
    assert await after.database.read(lambda: _rows("SELECT key_id FROM data_key WHERE cluster_id = 1")) == []
    await after.keys.close()


async def test_erasing_while_the_key_service_is_away_is_finished_later(world: World) -> None:
    await world.keys.encrypt(1)
    master_key_id, key_id = world.keys.clusters[1].master_key_id, world.keys.current[1].key_id
    world.service.is_down = True
    assert not await world.keys.erase(1)
    with pytest.raises(KeysErased):
        await world.keys.ready((key_id,))
    after = await world.restarted()
    assert after.keys.clusters[1].state is KeyState.ERASING
    assert after.keys.locked == {1: LockReason.ERASED}
    after.service.is_down = False
    after.clock.time_ms += 2_000
    await until(lambda: after.keys.clusters[1].state is KeyState.ERASED)
    assert after.service.keys[master_key_id] is None
    await after.keys.close()


async def removed(world: World, cluster_id: int) -> bool:
    try:
        await world.keys.remove(cluster_id)
    except Unavailable:
        return False
    return True


async def test_the_keys_of_a_cluster_that_goes_are_erased_and_forgotten(world: World) -> None:
    await world.keys.encrypt(1)
    await world.keys.encrypt(2)
    master_key_id, key_id = world.keys.clusters[1].master_key_id, world.keys.current[1].key_id
    world.keys.stays = lambda cluster_id: cluster_id == 2
    world.service.is_down = True
    assert not await removed(world, 1)
    assert not await removed(world, 1), "the key service is away"
    with pytest.raises(KeysErased):
        await world.keys.ready((key_id,))
    after = await world.restarted()
    after.keys.stays = world.keys.stays
    assert not await removed(after, 1)
    after.service.is_down = False
    after.clock.time_ms += 2_000
    await until(lambda: after.keys.clusters[1].state is KeyState.ERASED)
    assert await removed(after, 1)
    assert await removed(after, 1), "nothing is left to be removed"
    assert after.service.keys[master_key_id] is None
    assert (set(after.keys.clusters), after.keys.locked, set(after.keys.current)) == ({2}, {}, {2})
    again = await after.restarted()
    assert set(again.keys.clusters) == {2}
    with pytest.raises(KeysErased):
        await again.keys.ready((key_id,))
    await again.keys.close()


async def test_a_cluster_that_goes_gets_no_keys_any_more(world: World) -> None:
    is_there = iter((True, False, False))
    world.keys.stays = lambda cluster_id: next(is_there, False)
    for _ in range(2):  # The first time, it is deleted while its master key is made.
        with pytest.raises(InvalidRequest):
            await world.keys.encrypt(1)
    assert not world.keys.is_on
    assert list(world.service.keys.values()) == [None]


async def test_nothing_is_changed_by_a_service_that_makes_no_key(world: World) -> None:
    world.service.is_down = True
    with pytest.raises(Unavailable):
        await world.keys.encrypt(1)
    assert not world.keys.is_on
    world.service.is_down = False
    world.clock.time_ms += 2_000
    assert await world.keys.encrypt(1)


async def test_a_lost_answer_of_the_database_is_found_out(world: World) -> None:
    await world.keys.encrypt(1)
    before = world.keys.current[1]
    faults = iter(["after"])
    world.database.faults = lambda: next(faults, None)  # type: ignore[assignment,return-value]
    await world.keys.rotate(1)
    assert world.keys.current[1] != before
    assert len(world.keys.stored) == 2


async def test_a_key_that_another_process_made_is_found(world: World) -> None:
    await world.keys.encrypt(1)
    other = DataKeys(
        database=world.database, service=world.service, clock=world.clock, randomness=SeededRandomness("other"),
        timeout_s=0.01, open_s=0.05,
    )  # fmt: skip
    await other.open()
    await world.keys.rotate(1)
    made = world.keys.current[1]
    await other.ready((made.key_id,))
    assert other.peek(made.key_id) == made
    third = DataKeys(
        database=world.database, service=world.service, clock=world.clock, randomness=SeededRandomness("third"),
        timeout_s=0.01, open_s=0.05,
    )  # fmt: skip
    assert not await third.encrypt(1)  # It had not looked, and somebody else was faster.
    assert third.clusters[1].current_key_id == made.key_id
    await other.close()
    await third.close()


async def test_a_key_that_another_process_has_wrapped_anew_is_not_taken_for_erased(world: World) -> None:
    await world.keys.encrypt(1)
    old = world.keys.current[1]
    await world.keys.rotate(1)
    other = await World(world.database, world.service, 2).open()
    assert other.keys.peek(old.key_id) is None
    await world.keys.rewrap(1)
    assert list(world.service.keys.values()).count(None) == 1
    await other.keys.ready((old.key_id,))
    assert other.keys.peek(old.key_id) == old
    await other.keys.close()


async def test_what_another_process_does_to_keys_is_followed(world: World) -> None:
    other = World(world.database, world.service, 2)
    told: list[int] = []
    other.keys.on_erased = told.append
    poller = ChangePoller(world.database, {"cluster keys": other.keys.refresh})
    await poller.poll()
    for cluster_id in (1, 2, 3):
        await world.keys.encrypt(cluster_id)
    await poller.poll()
    await until(lambda: set(other.keys.current) == {1, 2, 3})
    first = other.keys.current[1]
    await world.keys.rotate(1)
    await poller.poll()
    assert other.keys.current[1] == world.keys.current[1] != first
    assert other.keys.locked == {}, "it was there before it was needed"
    assert await world.keys.erase(1)
    await poller.poll()
    assert (told, other.keys.locked, set(other.keys.current)) == ([1], {1: LockReason.ERASED}, {2, 3})
    for key in (first, world.keys.current.get(1, first)):
        assert other.keys.peek(key.key_id) is None
        with pytest.raises(KeysErased):
            await other.keys.ready((key.key_id,))
    assert not await removed(world, 2)
    await until(lambda: world.keys.clusters[2].state is KeyState.ERASED)
    for cluster_id in (1, 2):
        assert await removed(world, cluster_id)
    await poller.poll()
    assert (told, other.keys.locked) == ([1, 2], {1: LockReason.ERASED, 2: LockReason.ERASED})
    for cluster_id in (1, 2):
        assert await removed(other, cluster_id), "its part of the cluster is gone as well"
    assert (set(other.keys.clusters), other.keys.locked) == ({3}, {})
    assert other.keys.peek(other.keys.current[3].key_id) is not None
    await other.keys.close()


async def test_while_keys_are_changed_here_others_changes_wait(world: World) -> None:
    await world.keys.encrypt(1)
    world.service.hangs = True
    changing = asyncio.ensure_future(world.keys.rotate(1))
    await until(lambda: world.keys._changing.locked())
    with pytest.raises(Unavailable):
        await world.keys.refresh()
    world.service.hangs = False
    await asyncio.gather(changing, return_exceptions=True)
    await world.keys.refresh()
    assert set(world.keys.current) == {1}


def _rows(sql: str) -> Any:
    rows = yield sql, ()
    return [tuple(row) for row in rows]
