"""The rows of keys, on every database: scripts may be run twice, and none changes what somebody else has changed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from penstock.agent.change_poller import versions
from penstock.base.errors import Conflict
from penstock.keys import store
from penstock.keys.model import ClusterKeys, KeyState, WrappedKey
from penstock.metadata.database import Database

KEYS = ClusterKeys(7, KeyState.ON, "m1", 2**62 + 1)
FIRST = WrappedKey(2**62 + 1, 7, "m1", b"\0wrapped", 1_700_000_000_000)
SECOND = WrappedKey(5, 7, "m1", b"other", 1_700_000_000_001)
ROTATED = replace(KEYS, current_key_id=SECOND.key_id)


@pytest.fixture
async def begun(database: Database) -> Database:
    for _ in range(2):
        await database.transaction(lambda: store.begin(KEYS, FIRST))
    return database


async def test_what_is_stored_comes_back(begun: Database) -> None:
    assert await begun.read(store.everything) == ([KEYS], [FIRST])
    for _ in range(2):
        await begun.transaction(lambda: store.change(KEYS, ROTATED, (SECOND,)))
    assert await begun.read(store.everything) == ([ROTATED], [FIRST, SECOND])


async def test_a_cluster_has_one_beginning(begun: Database) -> None:
    with pytest.raises(Conflict):
        await begun.transaction(lambda: store.begin(replace(KEYS, current_key_id=5), SECOND))
    assert await begun.read(store.everything) == ([KEYS], [FIRST])


async def test_a_change_that_rests_on_what_is_not_so_any_more_does_not_happen(begun: Database) -> None:
    await begun.transaction(lambda: store.change(KEYS, ROTATED, (SECOND,)))
    other = replace(KEYS, master_key_id="m2", retired_master_key_id="m1")
    with pytest.raises(Conflict):
        await begun.transaction(lambda: store.change(KEYS, other))
    with pytest.raises(Conflict):
        await begun.transaction(lambda: store.change(replace(KEYS, cluster_id=8), other))
    assert (await begun.read(store.everything))[0] == [ROTATED]


async def test_keys_that_are_wrapped_anew_take_the_place_of_the_old(begun: Database) -> None:
    anew = replace(FIRST, master_key_id="m2", wrapped=b"anew")
    after = replace(KEYS, master_key_id="m2", retired_master_key_id="m1")
    await begun.transaction(lambda: store.change(KEYS, after, (anew,)))
    assert await begun.read(store.everything) == ([after], [anew])


async def test_only_replaced_keys_are_forgotten(begun: Database) -> None:
    await begun.transaction(lambda: store.change(KEYS, ROTATED, (SECOND,)))
    for _ in range(2):
        await begun.transaction(lambda: store.forget([FIRST.key_id, SECOND.key_id]))
    assert await begun.read(store.everything) == ([ROTATED], [SECOND])


async def test_only_erased_keys_of_a_cluster_are_forgotten_altogether(begun: Database) -> None:
    erasing, erased = replace(KEYS, state=KeyState.ERASING), replace(KEYS, state=KeyState.ERASED, master_key_id="")
    for before, after in ((KEYS, KEYS), (KEYS, erasing), (erasing, erased)):
        await begun.transaction(lambda: store.change(before, after))  # noqa: B023
        assert (await begun.read(store.everything))[0] == [after]
        for _ in range(2):
            await begun.transaction(lambda: store.remove(KEYS.cluster_id))
    assert await begun.read(store.everything) == ([], [])


async def test_erasing_leaves_no_key_of_the_cluster_and_those_of_others(begun: Database) -> None:
    other = ClusterKeys(8, KeyState.ON, "m8", 8)
    theirs = WrappedKey(8, 8, "m8", b"theirs", 1_700_000_000_002)
    await begun.transaction(lambda: store.begin(other, theirs))
    after = replace(KEYS, state=KeyState.ERASING)
    for _ in range(2):
        await begun.transaction(lambda: store.change(KEYS, after))
    assert await begun.read(store.everything) == ([after, other], [theirs])


async def test_every_change_of_what_there_is_of_a_cluster_is_told_by_a_counter(begun: Database) -> None:
    seen: list[int] = []

    async def is_new() -> bool:
        version = (await begun.read(lambda: versions(("cluster keys",))))["cluster keys"]
        seen.append(version)
        return version not in seen[:-1]

    assert await is_new()
    erased = replace(KEYS, state=KeyState.ERASED, master_key_id="")
    for script in (store.change(KEYS, ROTATED, (SECOND,)), store.change(ROTATED, erased), store.remove(7)):
        await begun.transaction(lambda: script)  # noqa: B023
        assert await is_new()
        assert not await is_new()
    with pytest.raises(Conflict):
        await begun.transaction(lambda: store.change(KEYS, ROTATED))
    assert not await is_new()
