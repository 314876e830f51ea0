"""Which users an attempt counts against: all that its name may mean, under any of their names."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import TypeVar

import pytest
from fixtures.clocks import ManualClock
from fixtures.tables import have_tables

from penstock.base.randomness import SeededRandomness
from penstock.identity.authenticator import Authenticator
from penstock.identity.failures import Denied
from penstock.identity.guess_limits import Guess
from penstock.identity.service import Identities
from penstock.metadata.inline import InlineDatabase

T = TypeVar("T")

DEFAULT, ACME = 1, 7
LIKE_A_KEY = "PK" + "A" * 16


async def in_line(work: Callable[[], T]) -> T:
    return work()


@pytest.fixture
async def world() -> AsyncIterator[tuple[Authenticator, Identities]]:
    database, clock, randomness = InlineDatabase(), ManualClock(), SeededRandomness("guesses")
    await database.open()
    await have_tables(database, clock)
    authenticator = Authenticator(
        database=database, clock=clock, randomness=randomness, on_thread=in_line,
        cluster_named={"default": DEFAULT, "acme": ACME}.get,
    )  # fmt: skip
    yield authenticator, Identities(database=database, clock=clock, randomness=randomness)
    await database.close()


def plain(name: str, password: str = "wrong") -> bytes:
    return f"\0{name}\0{password}".encode()


async def guess_at(
    authenticator: Authenticator, name: str, *, cluster_id: int = DEFAULT, mechanism: str = "PLAIN",
    is_bound: bool = False,
) -> Guess:  # fmt: skip
    exchange = authenticator.begin(mechanism, cluster_id, is_bound=is_bound)
    if mechanism == "PLAIN":
        guess = exchange.guess(plain(name))
    else:
        await exchange.step(f"n,,n={name},r=abcdefgh".encode())
        guess = exchange.guess(b"")
    assert guess is not None
    return guess


def whom(guess: Guess) -> set[bytes]:
    return {guess.subject, *guess.others}


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256"])
async def test_a_user_is_guessed_at_by_every_name_that_opens_its_account(
    world: tuple[Authenticator, Identities], mechanism: str
) -> None:
    authenticator, _ = world
    alice = await guess_at(authenticator, "alice", mechanism=mechanism)
    elsewhere = await guess_at(authenticator, "alice@default", cluster_id=ACME, mechanism=mechanism)
    here = await guess_at(authenticator, "alice@default", mechanism=mechanism)
    bound = await guess_at(authenticator, "alice@default", is_bound=True, mechanism=mechanism)
    assert alice.subject == elsewhere.subject == here.subject
    assert not alice.others
    assert whom(bound) < whom(here), "one whose whole name it is"
    assert not whom(bound) & whom(alice)
    assert not whom(bound) & whom(elsewhere), "of another cluster"
    whole = await guess_at(authenticator, "alice@example.com", mechanism=mechanism)
    assert not whole.others
    assert all(one.is_of_password for one in (alice, elsewhere, here, bound, whole))


async def test_a_name_that_looks_like_a_key_is_guessed_at_as_a_users_if_there_is_no_such_key(
    world: tuple[Authenticator, Identities],
) -> None:
    authenticator, identities = world
    await identities.set_password(DEFAULT, LIKE_A_KEY, "right")
    exchange = authenticator.begin("PLAIN", DEFAULT)
    token = plain(LIKE_A_KEY, "right")
    first = exchange.guess(token)
    assert first is not None
    assert not first.is_of_password
    assert await exchange.step(token) is None
    second = exchange.guess(token)
    assert second == await guess_at(authenticator, LIKE_A_KEY, mechanism="SCRAM-SHA-256")
    assert second.is_of_password
    assert not whom(first) & whom(second), "who is known by the one is not known by the other"
    step = await exchange.step(token)
    assert step is not None
    assert step.identity is not None
    assert step.identity.principal == f"User:{LIKE_A_KEY}"


async def test_a_key_is_not_guessed_at(world: tuple[Authenticator, Identities]) -> None:
    authenticator, identities = world
    await identities.create_account(DEFAULT, "robot", "")
    made = await identities.create_key(DEFAULT, "robot", "", -1)
    assert made is not None
    exchange = authenticator.begin("PLAIN", DEFAULT)
    right, wrong = plain(made.key.key_id, made.secret), plain(made.key.key_id)
    guess = exchange.guess(right)
    assert guess is not None
    assert not guess.is_of_password
    step = await exchange.step(right)
    assert step is not None
    assert step.identity is not None
    assert step.identity.principal == "User:robot"
    with pytest.raises(Denied):
        await authenticator.begin("PLAIN", DEFAULT).step(wrong)
