"""Password verification is cached: frequent logins with correct passwords cost others nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

import pytest
from fixtures.clocks import START_MS, ManualClock
from fixtures.tables import have_tables

from penstock.base.randomness import SeededRandomness
from penstock.identity import authenticator as authenticating
from penstock.identity import token_store
from penstock.identity.authenticator import CHECKS_AT_ONCE, Authenticator
from penstock.identity.failures import Denied
from penstock.identity.service import Identities
from penstock.identity.tokens import Token, TokenRules
from penstock.metadata.inline import InlineDatabase

T = TypeVar("T")

TOKEN = Token(
    cluster_id=1, token_id="t", owner="User:alice", requester="User:alice", renewers=(), issued_ms=START_MS,
    expires_ms=START_MS + 1000, max_ms=START_MS + 1000,
)  # fmt: skip


class World:
    """Users and a token, and how much was computed."""

    def __init__(self, database: InlineDatabase) -> None:
        clock, randomness = ManualClock(), SeededRandomness("costs")
        self.database, self.computed, self.goes_on = database, 0, asyncio.Event()
        self.goes_on.set()
        self.identities = Identities(database=database, clock=clock, randomness=randomness)
        self.authenticator = Authenticator(
            database=database, clock=clock, randomness=randomness, on_thread=self._count,
            token_rules=TokenRules(key=b"k" * 16, max_lifetime_ms=1000, expiry_time_ms=1000),
        )  # fmt: skip

    async def _count(self, work: Callable[[], T]) -> T:
        self.computed += 1
        await self.goes_on.wait()
        return work()

    async def is_let_in(self, password: str, name: str = "alice") -> bool:
        try:
            step = await self.authenticator.begin("PLAIN", 1).step(f"\0{name}\0{password}".encode())
        except Denied:
            return False
        return step is not None and step.identity is not None

    async def challenge(self, mechanism: str = "SCRAM-SHA-256") -> bytes:
        step = await self.authenticator.begin(mechanism, 1).step(b"n,,n=t,r=abc,tokenauth=true")
        assert step is not None
        return step.token.partition(b",")[2]

    def spent(self) -> int:
        computed, self.computed = self.computed, 0
        return computed


@pytest.fixture
async def world() -> AsyncIterator[World]:
    database = InlineDatabase()
    await database.open()
    await have_tables(database, ManualClock())
    world = World(database)
    await world.identities.set_password(1, "alice", "right")
    yield world
    await database.close()


async def test_a_password_that_was_right_costs_nothing_until_it_is_another(world: World) -> None:
    assert [await world.is_let_in("right") for _ in range(5)] == [True] * 5
    assert world.spent() == 1
    assert [await world.is_let_in(wrong) for wrong in ("wrong", "wrong", "right2", "")] == [False] * 4
    assert [await world.is_let_in("right", "nobody") for _ in range(2)] == [False] * 2
    assert world.spent() == 5
    await world.identities.set_password(1, "alice", "new")
    assert not await world.is_let_in("right")
    assert await world.is_let_in("new")
    await world.identities.set_password(1, "bob", "right")
    assert await world.is_let_in("right", "bob")
    assert world.spent() == 3


async def test_many_at_once_cost_no_more_than_are_computed_at_once(world: World) -> None:
    assert all(await asyncio.gather(*(world.is_let_in("right") for _ in range(20))))
    assert world.spent() <= CHECKS_AT_ONCE


async def test_a_token_costs_its_holder_nothing_more(world: World) -> None:
    """Its credential is computed before anything is proven by it."""
    assert await world.challenge() != await world.challenge("SCRAM-SHA-512"), "there is no such token yet"
    assert world.spent() == 0
    await world.database.transaction(lambda: token_store.put(TOKEN, b"hash"))
    challenges = {await world.challenge() for _ in range(5)} | {await world.challenge("SCRAM-SHA-512")}
    assert (len(challenges), world.spent()) == (1, 2), "both have the salt of the token"
    await world.database.transaction(lambda: token_store.delete(1, "t"))
    assert await world.challenge() not in challenges


async def test_what_was_begun_for_somebody_who_hung_up_is_remembered(world: World) -> None:
    """Else whoever does so all the time would keep the threads busy, and never have failed."""
    await world.database.transaction(lambda: token_store.put(TOKEN, b"hash"))
    world.goes_on.clear()
    client = asyncio.create_task(world.challenge())
    while not world.computed:
        await asyncio.sleep(0)
    client.cancel()
    await asyncio.gather(client, return_exceptions=True)
    world.goes_on.set()
    await world.authenticator.close()
    assert await world.challenge()
    assert world.spent() == 1


async def test_how_much_is_remembered_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authenticating, "MAX_REMEMBERED", 1)
    await world.identities.set_password(1, "bob", "other")
    assert [await world.is_let_in("right"), await world.is_let_in("other", "bob"), await world.is_let_in("right")] == [
        True, True, True,
    ]  # fmt: skip
    assert world.spent() == 3
