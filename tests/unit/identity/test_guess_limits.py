"""Rate limits on guesses, and who can still log in meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from itertools import count

import pytest
from fixtures.clocks import LoopClock
from fixtures.sim_loop import SimLoop

from penstock.base.errors import Unavailable
from penstock.base.randomness import SeededRandomness
from penstock.identity import guess_limits as module
from penstock.identity.guess_limits import (
    LANES,
    MAX_BUDGETS,
    MAX_WAIT_S,
    NAME_LIMIT,
    NETWORK_LIMIT,
    AttemptOutcome,
    FailureLimit,
    Guess,
    GuessLimiter,
)

HOME, AWAY = "10.0.0.1", "10.0.0.2"
SHORTLY_S = 0.001


def named(name: str) -> Guess:
    return Guess(name.encode(), is_of_password=True)


class World:
    """Attempts, and what became of them."""

    def __init__(self, loop: SimLoop, seed: int) -> None:
        self._loop = loop
        self.guesses = GuessLimiter(LoopClock(), SeededRandomness(f"guesses {seed}"))
        self.looked_at = 0
        self._tasks: list[asyncio.Task[bool]] = []

    async def attempt(self, host: str, name: str, *, is_right: bool = False, takes_s: float = SHORTLY_S) -> bool:
        """Whether it was looked at."""
        try:
            permit = await self.guesses.acquire(host, named(name))
        except Unavailable:
            return False
        self.looked_at += 1
        outcome = AttemptOutcome.FAILED
        try:
            await asyncio.sleep(takes_s)
            outcome = AttemptOutcome.SUCCEEDED if is_right else AttemptOutcome.FAILED
        finally:
            self.guesses.release(permit, outcome)
        return True

    def begin(self, host: str, name: str, *, is_right: bool = False) -> asyncio.Task[bool]:
        task = asyncio.ensure_future(self.attempt(host, name, is_right=is_right))
        self._tasks.append(task)
        return task

    async def comes_in(self, host: str, name: str) -> float:
        """How long somebody takes who knows the password, whatever their client has to repeat."""
        began = self._loop.time()
        while not await self.attempt(host, name, is_right=True):
            await asyncio.sleep(0.1)
        return self._loop.time() - began

    async def spend(self, host: str, name: str = "somebody") -> None:
        """Fail until nothing is left."""
        for _ in range(NETWORK_LIMIT.burst):
            assert await self.attempt(host, name, takes_s=0)

    def guess_on(
        self, host: str, connections: int, name: Callable[[int], str], *, patience_s: float = 2 * MAX_WAIT_S
    ) -> None:
        """Guess on many connections, on each again and again, and hang up where that takes longer."""
        numbers = count()

        async def one() -> bool:
            while True:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self.attempt(host, name(next(numbers))), patience_s)
                await asyncio.sleep(SHORTLY_S)

        self._tasks += [asyncio.ensure_future(one()) for _ in range(connections)]

    async def end(self) -> None:
        """Everybody goes, and nothing is left of them."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        assert not self.guesses._waiting
        assert not any(budget.lanes or budget.timer for budget in self.guesses._budgets.values())


def simulated(scenario: Callable[[World, SimLoop], Coroutine[None, None, None]], *, seeds: int = 3) -> None:
    for seed in range(seeds):
        loop = SimLoop(seed)

        async def run(loop: SimLoop = loop, seed: int = seed) -> None:
            world = World(loop, seed)
            await scenario(world, loop)
            await world.end()

        loop.run(run())
        assert not loop.pending_timers()


@pytest.mark.parametrize("connections", [10, 500])
@pytest.mark.parametrize("names", [1, 7, 10**9])
def test_more_connections_make_no_more_guesses(connections: int, names: int) -> None:
    async def scenario(world: World, loop: SimLoop) -> None:
        world.guess_on(HOME, connections, lambda number: f"name {number % names}")
        await asyncio.sleep(60)
        bound = NETWORK_LIMIT.burst + 60 * NETWORK_LIMIT.per_s
        assert bound - 5 <= world.looked_at <= bound + 1

    simulated(scenario, seeds=1)


def test_hanging_up_makes_no_guess_cheaper() -> None:
    async def scenario(world: World, loop: SimLoop) -> None:
        for _ in range(1000):
            task = world.begin(HOME, "alice")
            await asyncio.sleep(SHORTLY_S / 2)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert world.looked_at <= NETWORK_LIMIT.burst + 2

    simulated(scenario)


def test_who_knows_the_password_pays_nothing() -> None:
    async def scenario(world: World, loop: SimLoop) -> None:
        began = loop.time()
        assert all(await asyncio.gather(*(world.begin(HOME, "app", is_right=True) for _ in range(1000))))
        for _ in range(1000):
            assert await world.attempt(HOME, "app", is_right=True)
        assert loop.time() - began < 3000 * SHORTLY_S

    simulated(scenario)


def test_nobodys_success_pays_for_what_failed() -> None:
    """Whoever has one password guesses others no faster for it."""

    async def scenario(world: World, loop: SimLoop) -> None:
        for _ in range(NETWORK_LIMIT.burst):
            await world.attempt(HOME, "alice", takes_s=0)
            assert await world.attempt(HOME, "mallory", is_right=True, takes_s=0)
        began = loop.time()
        await world.attempt(HOME, "alice")
        assert loop.time() - began > 0.9 / NETWORK_LIMIT.per_s

    simulated(scenario)


@pytest.mark.parametrize("connections", [1, 100, 1000])
def test_known_ones_come_and_go_while_somebody_guesses_at_their_address(connections: int) -> None:
    """Behind one address (NAT), on any number of connections, at other names."""

    async def scenario(world: World, loop: SimLoop) -> None:
        await world.attempt(HOME, "app", is_right=True)
        world.guess_on(HOME, connections, lambda number: f"name {number}")
        await asyncio.sleep(30)
        for _ in range(20):
            assert await world.comes_in(HOME, "app") < 2 * SHORTLY_S
        many = [world.begin(HOME, "app", is_right=True) for _ in range(50)]
        began = loop.time()
        assert all(await asyncio.gather(*many))
        assert loop.time() - began < 100 * SHORTLY_S

    simulated(scenario, seeds=1)


@pytest.mark.parametrize(("name", "within_s"), [("alice", 5 * MAX_WAIT_S), ("bob", 3 / NETWORK_LIMIT.per_s)])
def test_who_comes_for_the_first_time_gets_in_while_somebody_guesses_at_their_address(
    name: str, within_s: float
) -> None:  # fmt: skip
    """Also at their own name."""

    async def scenario(world: World, loop: SimLoop) -> None:
        world.guess_on(HOME, 40, lambda _: "alice")
        await asyncio.sleep(10.1)
        assert await world.comes_in(HOME, name) <= within_s

    simulated(scenario, seeds=10)


@pytest.mark.parametrize("patience_s", [1.0, 5.0, MAX_WAIT_S])
def test_who_comes_for_the_first_time_gets_in_whatever_guessers_do_with_many_connections(patience_s: float) -> None:
    """They have a hundred, guess at any number of names, and wait, or come and go all the time."""

    async def scenario(world: World, loop: SimLoop) -> None:
        for number in range(100):
            world.guess_on(HOME, 1, lambda _, number=number: f"name {number}", patience_s=patience_s)
        await asyncio.sleep(10.1)
        assert await world.comes_in(HOME, "bob") < 300

    simulated(scenario, seeds=1)


def test_names_take_turns() -> None:
    async def scenario(world: World, loop: SimLoop) -> None:
        await world.spend(HOME)
        for number in range(1000):
            world.begin(HOME, f"name {number}")
        await asyncio.sleep(SHORTLY_S)
        assert await world.comes_in(HOME, "bob") <= MAX_WAIT_S

    simulated(scenario)
    assert LANES / NETWORK_LIMIT.per_s < MAX_WAIT_S


def test_a_failure_ends_what_a_success_gave() -> None:
    """One guess for each time that the owner comes in, and no more."""

    async def scenario(world: World, loop: SimLoop) -> None:
        await world.attempt(HOME, "alice", is_right=True)
        await world.spend(HOME)
        world.looked_at = 0
        for _ in range(10):
            world.begin(HOME, "alice")
        await asyncio.sleep(0.5 / NETWORK_LIMIT.per_s)
        assert world.looked_at == 1
        await asyncio.sleep(2 / NETWORK_LIMIT.per_s)
        assert world.looked_at == 3

    simulated(scenario)


def test_a_failure_that_did_not_queue_is_charged_all_the_same() -> None:
    """Whoever knows one password has no failures for free with it."""

    async def scenario(world: World, loop: SimLoop) -> None:
        await world.attempt(HOME, "alice", is_right=True)
        await world.attempt(HOME, "alice", takes_s=0)
        for number in range(NETWORK_LIMIT.burst - 1):
            assert await world.attempt(HOME, f"name {number}", takes_s=0)
        began = loop.time()
        assert await world.attempt(HOME, "another", takes_s=0)
        assert loop.time() - began > 0.5 / NETWORK_LIMIT.per_s

    simulated(scenario, seeds=1)


def test_a_later_success_gives_back_what_a_failure_ended() -> None:
    async def scenario(world: World, loop: SimLoop) -> None:
        for is_right in (True, False, True):
            await world.attempt(HOME, "alice", is_right=is_right, takes_s=0)
        await world.spend(HOME)
        began = loop.time()
        assert await world.attempt(HOME, "alice", is_right=True)
        assert loop.time() - began < 2 * SHORTLY_S, "it need not queue"

    simulated(scenario, seeds=1)


def test_other_networks_do_not_notice() -> None:
    async def scenario(world: World, loop: SimLoop) -> None:
        await world.spend(HOME, "alice")
        assert await world.comes_in(AWAY, "alice") < 2 * SHORTLY_S
        began = loop.time()
        await world.attempt("2001:db8::1", "bob")
        assert loop.time() - began < 2 * SHORTLY_S

    simulated(scenario)


def test_addresses_of_one_ipv6_network_have_one_budget() -> None:
    async def scenario(world: World, loop: SimLoop) -> None:
        for number in range(NETWORK_LIMIT.burst):
            assert await world.attempt(f"2001:db8::{number:x}", f"name {number}", takes_s=0)
        began = loop.time()
        assert await world.attempt("2001:db8::ffff:1", "alice")
        assert loop.time() - began > 0.9 / NETWORK_LIMIT.per_s
        began = loop.time()
        assert await world.attempt("2001:db8:0:1::1", "alice")
        assert loop.time() - began < 2 * SHORTLY_S

    simulated(scenario)


def test_a_name_is_guessed_at_from_everywhere_together_and_its_owner_gets_in_where_they_are_successes() -> None:
    async def scenario(world: World, loop: SimLoop) -> None:
        await world.attempt(HOME, "alice", is_right=True)
        world.looked_at = 0
        for number in range(1000):
            world.guess_on(f"10.1.{number // 250}.{number % 250}", 1, lambda _: "alice")
        await asyncio.sleep(30)
        assert world.looked_at <= NAME_LIMIT.burst + 30 * NAME_LIMIT.per_s + 1
        for _ in range(10):
            assert await world.comes_in(HOME, "alice") < 2 * SHORTLY_S
        assert await world.comes_in(AWAY, "bob") < 2 * SHORTLY_S

    simulated(scenario, seeds=1)


def test_what_cannot_be_guessed_holds_up_nobody_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Secrets of API keys and tokens: whoever knows the id of one must not keep others from using it."""
    monkeypatch.setattr(module, "NAME_LIMIT", FailureLimit(burst=2, per_s=0.01))

    async def scenario(world: World, loop: SimLoop) -> None:
        began = loop.time()
        for _ in range(10):
            world.guesses.release(
                await world.guesses.acquire(HOME, Guess(b"PK", is_of_password=False)), AttemptOutcome.FAILED
            )
        assert loop.time() - began < SHORTLY_S

    simulated(scenario)


def test_who_has_several_names_is_guessed_at_by_all_of_them_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NAME_LIMIT", FailureLimit(burst=2, per_s=0.1))

    async def scenario(world: World, loop: SimLoop) -> None:
        both = Guess.of(b"1 alice", b"1 alice@default", is_of_password=True)
        for guess in (both, Guess.of(b"1 alice", is_of_password=True)):
            world.guesses.release(await world.guesses.acquire(HOME, guess), AttemptOutcome.FAILED)
        began = loop.time()
        world.guesses.release(
            await world.guesses.acquire(AWAY, Guess.of(b"1 alice", is_of_password=True)), AttemptOutcome.FAILED
        )
        assert 9 < loop.time() - began < 11
        began = loop.time()
        other = Guess.of(b"1 alice@default", is_of_password=True)
        world.guesses.release(await world.guesses.acquire(AWAY, other), AttemptOutcome.FAILED)
        assert loop.time() - began < SHORTLY_S, "it has been guessed at once"

    simulated(scenario)


def test_for_whom_somebody_waits_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BUDGETS", 10)

    async def scenario(world: World, loop: SimLoop) -> None:
        await world.spend(HOME)
        waiting = [world.begin(HOME, f"waits {number}") for number in range(8)]
        await asyncio.sleep(SHORTLY_S)
        for number in range(50):
            await world.attempt(f"10.1.0.{number}", f"name {number}", takes_s=0)
            assert len(world.guesses._budgets) <= 10
            assert len(world.guesses._idle) == len(world.guesses._budgets) - 1
        await asyncio.gather(*waiting)
        await world.attempt(AWAY, "alice")
        assert len(world.guesses._idle) == len(world.guesses._budgets) <= 10

    simulated(scenario)


def test_whose_turn_does_not_come_is_let_go() -> None:
    async def scenario(world: World, loop: SimLoop) -> None:
        await world.spend(HOME)
        began = loop.time()
        tasks = [world.begin(HOME, "alice") for _ in range(500)]
        await asyncio.sleep(SHORTLY_S)
        seen = await asyncio.gather(*tasks)
        assert loop.time() - began <= MAX_WAIT_S + SHORTLY_S
        assert 0 < sum(seen) <= MAX_WAIT_S * NETWORK_LIMIT.per_s

    simulated(scenario)


def test_few_are_remembered() -> None:
    async def scenario(world: World, loop: SimLoop) -> None:
        for number in range(MAX_BUDGETS):
            await world.attempt(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", f"name {number}", takes_s=0)
        assert len(world.guesses._budgets) == MAX_BUDGETS

    simulated(scenario, seeds=1)


def test_the_last_ones_to_come_in_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_KNOWN", 10)

    async def scenario(world: World, loop: SimLoop) -> None:
        for number in range(100):
            await world.attempt(HOME, f"name {number}", is_right=True)
        assert len(world.guesses._successes) == 10
        await world.spend(HOME)
        assert await world.comes_in(HOME, "name 99") < 2 * SHORTLY_S
        assert await world.comes_in(HOME, "name 1") > 0.5 / NETWORK_LIMIT.per_s

    simulated(scenario)


def test_where_failing_costs_nothing_nobody_is_held_up() -> None:
    async def scenario(world: World, loop: SimLoop) -> None:
        world.guesses = GuessLimiter(LoopClock(), SeededRandomness("off"), is_on=False)
        began = loop.time()
        for _ in range(2 * NETWORK_LIMIT.burst):
            assert await world.attempt(HOME, "alice", takes_s=0)
        assert loop.time() == began

    simulated(scenario)
