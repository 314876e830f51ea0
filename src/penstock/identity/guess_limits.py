"""Rate limits on guesses: attempts with credentials that could be guessed, on however many connections they come.

Every network (an address, or a /64 of IPv6) has a budget of failures, and so has every name with a password, wherever
it is tried from. An attempt takes one from both before anything is checked. Success returns them; a failure spends
them, and they come back with time. So clients with correct passwords pay nothing, however often they log in, and no
success makes up for failures.

When a budget is spent, attempts queue: as many a second proceed as come back. Which of them is correct cannot be known
before it is checked, and any order that favoured correct ones would tell a guesser which those are. What is known
without checking is used:

- An attempt from a network and with a name whose last attempt succeeded need not queue. One attempt at a time has this
  privilege, and its failure ends it: guessers get one guess for each login of the owner. So programs with correct
  passwords are not delayed behind the same address (NAT) as guessers, or as programs with an old password.
- All others queue in lanes, a network's by name and a name's by network, served round robin. So guessing at one name
  delays that name, from that network. Lanes are assigned by a keyed hash, so nobody can pick a name to get in front of
  others; there are few, so each is served before clients time out.
- In a lane, half of the permits go to the newest attempt, a quarter to the oldest, and the rest to a random one:
  neither waiting on many connections nor reconnecting all the time gets every permit.

An attempt that gets no permit in time is disconnected without an answer, because its credential was not checked:
clients retry that by themselves, while they give up after a refusal. Every waiting attempt occupies a
connection, and those are limited.

All of this is in memory: after a start every budget is full, and nobody has succeeded before.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from enum import Enum, auto
from hashlib import blake2b
from itertools import islice
from typing import NamedTuple

from penstock.base.clock import Clock
from penstock.base.dataclasses import dataclass, field
from penstock.base.errors import Unavailable
from penstock.base.randomness import Randomness
from penstock.identity.networks import network_of


class FailureLimit(NamedTuple):
    """A budget of failures."""

    burst: int
    per_s: float


NETWORK_LIMIT = FailureLimit(burst=100, per_s=2.0)
NAME_LIMIT = FailureLimit(burst=1000, per_s=10.0)
"""More: the owner, connecting from a new network, queues with all guessers of that name anywhere."""
LANES = 8
MAX_WAIT_S = 20.0
"""Clients wait for half a minute or longer, and so does the server (`AUTHENTICATION_S`)."""
TICK_S = 0.001
MAX_BUDGETS = 10_000
MAX_KNOWN = 20_000
NOT_IN_TIME = "too much has failed from its network or for its name, and it was not checked in time"


class Guess(NamedTuple):
    """What an attempt will try to prove."""

    subject: bytes
    """A hash of the claimed identity or credential."""
    is_of_password: bool
    """Whether it is a name with a password, which can be guessed from anywhere."""
    others: tuple[bytes, ...] = ()
    """Hashes of other identities that the claim may turn out to mean, which are charged as well."""

    @staticmethod
    def of(claim: bytes, *others: bytes, is_of_password: bool) -> Guess:
        """Attempts with equal claims are about the same subject."""
        return Guess(_hash(claim), is_of_password, tuple(map(_hash, others)))


def _hash(claim: bytes) -> bytes:
    return blake2b(claim, digest_size=16).digest()


class AttemptOutcome(Enum):
    """The outcome of an attempt."""

    SUCCEEDED = auto()
    FAILED = auto()
    NOT_CHECKED = auto()
    """The credential was not checked."""


@dataclass(slots=True, eq=False)
class Permit:
    """Permission to check an attempt."""

    pair: bytes
    """Its network and subject."""
    charged: list[Budget] = field(default_factory=list)
    """The budgets that were charged; success refunds them."""
    all_keys: list[tuple[bytes, FailureLimit]] = field(default_factory=list)
    skips_queue: bool = False
    """Whether it did not queue because the last attempt succeeded."""


@dataclass(slots=True, eq=False)
class _Waiter:
    permit: Permit
    lane: int
    granted: asyncio.Future[None]
    """Done when it has a permit."""


class Budget:
    """The failures left to one network or name, and its queue."""

    def __init__(self, key: bytes, limit: FailureLimit, now: float) -> None:
        self.key, self._limit, self._filled_s = key, limit, now
        self.left: float = limit.burst
        self.lanes: OrderedDict[int, dict[_Waiter, None]] = OrderedDict()
        """Lanes with waiters, in round robin order; in each the oldest is first."""
        self.timer: asyncio.TimerHandle | None = None

    def fill(self, now: float) -> None:
        """Add what has come back by now."""
        self.left = min(self._limit.burst, self.left + (now - self._filled_s) * self._limit.per_s)
        self._filled_s = now

    def take(self, now: float) -> bool:
        """Charge one failure, unless the budget is spent."""
        self.fill(now)
        if self.left < 1:
            return False
        self.left -= 1
        return True

    def spend(self, now: float) -> None:
        """Charge one failure, if there is one. Never negative: a debt would delay attempts that did not cause it."""
        self.fill(now)
        self.left = max(0.0, self.left - 1)

    def refund(self) -> None:
        """Refund one failure."""
        self.left = min(self._limit.burst, self.left + 1)

    def refill_s(self) -> float:
        """Time until one failure is available, rounded up: less than the clock's resolution would be no time at all."""
        return (1 - self.left) / self._limit.per_s + TICK_S

    def enqueue(self, waiting: _Waiter) -> None:
        """Queue an attempt."""
        self.lanes.setdefault(waiting.lane, {})[waiting] = None

    def dequeue(self, waiting: _Waiter) -> None:
        """Remove an attempt from the queue."""
        lane = self.lanes.get(waiting.lane)
        if lane is not None and waiting in lane:
            del lane[waiting]
            if not lane:
                del self.lanes[waiting.lane]

    def pop(self, now: float, draw: Callable[[], float]) -> _Waiter | None:
        """Remove and return the attempt that is next, if the budget has one failure left."""
        while self.lanes and self.take(now):
            number, lane = next(iter(self.lanes.items()))
            self.lanes.move_to_end(number)
            waiting = _chosen(lane, draw())
            del lane[waiting]
            if not lane:
                del self.lanes[number]
            if not waiting.granted.done():
                return waiting
            self.refund()
        return None


def _chosen(lane: dict[_Waiter, None], drawn: float) -> _Waiter:
    """Choose among the waiters of a lane, by a random number in [0, 1)."""
    if drawn < 0.5:
        return next(reversed(lane))
    number = int((drawn - 0.75) * 4 * len(lane))
    return next(islice(lane, max(0, number), None))


class GuessLimiter:
    """Grants permits to check attempts. `is_on`: whether any attempt is delayed at all."""

    def __init__(self, clock: Clock, randomness: Randomness, *, is_on: bool = True) -> None:
        self._clock, self._secret, self._is_on = clock, randomness.token(16), is_on
        self._draw = lambda: randomness.uniform(0.0, 1.0)
        self._budgets: dict[bytes, Budget] = {}
        self._idle: OrderedDict[bytes, None] = OrderedDict()
        """Budgets without waiters, least recently used first."""
        self._successes: OrderedDict[bytes, bool] = OrderedDict()
        """Last attempts that succeeded, by network and subject, and whether one is being checked."""
        self._waiting: dict[bytes, dict[_Waiter, None]] = {}
        """Waiters by network and subject."""

    async def acquire(self, host: str, guess: Guess) -> Permit:
        """Wait for permission to check an attempt; `release` must follow. Raises `Unavailable` if it takes too long."""
        network, subject = self._digest(network_of(host).encode()), self._digest(guess.subject)
        permit = Permit(self._digest(network + subject))
        if not self._is_on:
            return permit
        steps = [(network, NETWORK_LIMIT, subject)]
        if guess.is_of_password:
            steps += ((name, NAME_LIMIT, network) for name in (subject, *map(self._digest, guess.others)))
        permit.all_keys = [(key, limit) for key, limit, _ in steps]
        if self._successes.get(permit.pair) is False:
            self._successes[permit.pair] = permit.skips_queue = True
            return permit
        try:
            async with asyncio.timeout(MAX_WAIT_S):
                for key, limit, among in steps:
                    if not permit.skips_queue:
                        await self._charge(permit, self._budget(key, limit), among[0] % LANES)
        except TimeoutError:
            self.release(permit, AttemptOutcome.NOT_CHECKED)
            raise Unavailable(NOT_IN_TIME) from None
        except BaseException:
            self.release(permit, AttemptOutcome.NOT_CHECKED)
            raise
        return permit

    def release(self, permit: Permit, outcome: AttemptOutcome) -> None:
        """An attempt was checked, or will not be."""
        if not self._is_on:
            return
        if outcome is AttemptOutcome.FAILED:
            self._successes.pop(permit.pair, None)
            if permit.skips_queue:
                now = self._clock.monotonic()
                for key, limit in permit.all_keys:
                    self._budget(key, limit).spend(now)
            return
        self._refund(permit)
        if outcome is AttemptOutcome.SUCCEEDED or (permit.skips_queue and permit.pair in self._successes):
            self._on_success(permit)

    def _refund(self, permit: Permit) -> None:
        charged, permit.charged = permit.charged, []
        for budget in charged:
            budget.refund()
            self._serve(budget)

    async def _charge(self, permit: Permit, budget: Budget, lane: int) -> None:
        if not budget.lanes and budget.take(self._clock.monotonic()):
            permit.charged.append(budget)
            return
        waiting = _Waiter(permit, lane, asyncio.get_running_loop().create_future())
        same = self._waiting.setdefault(permit.pair, {})
        same[waiting] = None
        budget.enqueue(waiting)
        self._idle.pop(budget.key, None)
        self._serve(budget)
        try:
            await waiting.granted
        finally:
            budget.dequeue(waiting)
            if not budget.lanes:
                self._on_queue_empty(budget)
            del same[waiting]
            if not same:
                del self._waiting[permit.pair]

    def _serve(self, budget: Budget) -> None:
        now = self._clock.monotonic()
        while (waiting := budget.pop(now, self._draw)) is not None:
            waiting.permit.charged.append(budget)
            waiting.granted.set_result(None)
        if budget.lanes and budget.timer is None:
            budget.timer = asyncio.get_running_loop().call_later(budget.refill_s(), self._on_due, budget)

    def _on_due(self, budget: Budget) -> None:
        budget.timer = None
        self._serve(budget)

    def _on_success(self, permit: Permit) -> None:
        """An attempt succeeded, or was not checked: a waiter of the same network and subject may be checked."""
        pair = permit.pair
        if not permit.skips_queue and self._successes.get(pair):
            return  # Another one is being checked.
        following = next((one for one in reversed(self._waiting.get(pair, {})) if not one.granted.done()), None)
        self._successes[pair] = following is not None
        self._successes.move_to_end(pair)
        if len(self._successes) > MAX_KNOWN:
            self._successes.popitem(last=False)
        if following is not None:
            following.permit.skips_queue = True
            following.granted.set_result(None)
            self._refund(following.permit)

    def _budget(self, key: bytes, limit: FailureLimit) -> Budget:
        budget = self._budgets.get(key)
        if budget is None:
            if len(self._budgets) >= MAX_BUDGETS and self._idle:
                forgotten, _ = self._idle.popitem(last=False)
                del self._budgets[forgotten]
            budget = self._budgets[key] = Budget(key, limit, self._clock.monotonic())
        if not budget.lanes:
            self._idle[key] = None
            self._idle.move_to_end(key)
        return budget

    def _on_queue_empty(self, budget: Budget) -> None:
        """The budget has no waiters any more."""
        if budget.timer is not None:
            budget.timer.cancel()
            budget.timer = None
        if budget.key in self._budgets:
            self._idle[budget.key] = None

    def _digest(self, text: bytes) -> bytes:
        return blake2b(text, digest_size=16, key=self._secret).digest()
