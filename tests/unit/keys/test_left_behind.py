"""A new master key, where one of the data keys is damaged."""

from __future__ import annotations

from typing import Any

import pytest
from fixtures.key_services import FakeKeyService
from test_data_keys import World, _rows, until

from penstock.base.errors import CorruptData, Unavailable
from penstock.metadata.inline import InlineDatabase


@pytest.fixture
async def world() -> Any:
    return await World(InlineDatabase(), FakeKeyService()).open()


async def _damaged(world: World) -> tuple[World, dict[int, Any], int]:
    """A cluster with three data keys after a restart, their secrets, and the first, of which a bit is flipped."""
    await world.keys.encrypt(1)
    await world.keys.rotate(1)
    await world.keys.rotate(1)
    secrets = {key_id: world.keys.peek(key_id) for key_id in world.keys.stored}
    damaged = next(iter(world.keys.stored))
    await _flip(world, damaged)
    return await world.restarted(), secrets, damaged


async def _flip(world: World, key_id: int) -> None:
    wrapped = bytearray(
        (await world.database.read(lambda: _rows(f"SELECT wrapped FROM data_key WHERE key_id = {key_id}")))[0][0]
    )
    wrapped[-1] ^= 1

    def script() -> Any:
        yield "UPDATE data_key SET wrapped = $1 WHERE key_id = $2", (bytes(wrapped), key_id)

    await world.database.transaction(script)


async def test_a_data_key_that_cannot_be_unwrapped_keeps_no_other_from_a_new_master_key(world: World) -> None:
    world, secrets, damaged = await _damaged(world)
    before = world.keys.clusters[1].master_key_id
    with pytest.raises(CorruptData, match=f"2 of 3 data keys .*{damaged}"):
        await world.keys.rewrap(1)
    after = world.keys.clusters[1].master_key_id
    by = {key_id: key.master_key_id for key_id, key in world.keys.stored.items()}
    assert by == {key_id: before if key_id == damaged else after for key_id in secrets}
    assert world.service.keys[before] is not None, "what is damaged may be restored from a backup"
    with pytest.raises(Unavailable):
        await world.keys.rewrap(1)
    assert len(world.service.keys) == 2, "no master key is made for nothing"
    await world.keys.rotate(1)
    await _flip(world, damaged)
    world = await world.restarted()
    assert world.service.keys[before] is not None
    await world.keys.rewrap(1)
    assert world.service.keys[before] is None
    assert {key.master_key_id for key in world.keys.stored.values()} == {after}
    await world.keys.ready(secrets)
    assert {key_id: world.keys.peek(key_id) for key_id in secrets} == secrets
    await world.keys.close()


async def test_a_master_key_goes_with_the_last_data_key_that_it_was_kept_for(world: World) -> None:
    world, _, damaged = await _damaged(world)
    before = world.keys.clusters[1].master_key_id
    with pytest.raises(CorruptData):
        await world.keys.rewrap(1)
    await world.keys.forget([damaged])
    await until(lambda: world.service.keys[before] is None)
    await world.keys.rewrap(1)
    await world.keys.close()


async def test_erasing_destroys_a_master_key_that_was_kept_for_a_data_key(world: World) -> None:
    world, _, _ = await _damaged(world)
    with pytest.raises(CorruptData):
        await world.keys.rewrap(1)
    assert await world.keys.erase(1)
    assert list(world.service.keys.values()) == [None, None]
    await world.keys.close()
