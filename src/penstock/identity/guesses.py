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
- In a lane, half of the turns go to the newest attempt, a quarter to the oldest, and the rest to a random one: neither
  waiting on many connections nor reconnecting all the time wins every turn.

An attempt whose turn does not come in time is disconnected without an answer, because nothing was found out about its
credential: clients retry that by themselves, while they give up after a refusal. Every waiting attempt occupies a
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


class Limit(NamedTuple):
    """A budget of failures."""

    at_once: int
    per_s: float


OF_NETWORK = Limit(at_once=100, per_s=2.0)
OF_NAME = Limit(at_once=1000, per_s=10.0)
"""More: the owner, coming from a new network, queues with all guessers of that name anywhere."""
LANES = 8
PATIENCE_S = 20.0
"""Clients wait for half a minute or longer, and so does the gate (`LOGIN_S`)."""
TICK_S = 0.001
MAX_BUDGETS = 10_000
MAX_KNOWN = 20_000
HELD_UP = "too much has failed from its network or for its name, and its turn did not come"


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


class Outcome(Enum):
    """The outcome of an attempt."""

    PROVEN = auto()
    FAILED = auto()
    UNSEEN = auto()
    """The credential was not checked."""


@dataclass(slots=True, eq=False)
class Turn:
    """Permission to check an attempt."""

    pair: bytes
    """Its network and subject."""
    taken: list[Budget] = field(default_factory=list)
    """The budgets that success returns to."""
    all_keys: list[tuple[bytes, Limit]] = field(default_factory=list)
    is_known: bool = False
    """Whether it did not queue because the last attempt succeeded."""


@dataclass(slots=True, eq=False)
class _Waiting:
    turn: Turn
    lane: int
    come: asyncio.Future[None]
    """Done when its turn has come."""


class Budget:
    """The failures left to one network or name, and its queue."""

    def __init__(self, key: bytes, limit: Limit, now: float) -> None:
        self.key, self._limit, self._filled_s = key, limit, now
        self.left: float = limit.at_once
        self.lanes: OrderedDict[int, dict[_Waiting, None]] = OrderedDict()
        """Lanes with waiters, in round robin order; in each the oldest is first."""
        self.timer: asyncio.TimerHandle | None = None

    def fill(self, now: float) -> None:
        """Add what has come back by now."""
        self.left = min(self._limit.at_once, self.left + (now - self._filled_s) * self._limit.per_s)
        self._filled_s = now

    def take(self, now: float) -> bool:
        """Take one, unless the budget is spent."""
        self.fill(now)
        if self.left < 1:
            return False
        self.left -= 1
        return True

    def spend(self, now: float) -> None:
        """Take one if there is any. It does not go negative: a debt would delay attempts that did not cause it."""
        self.fill(now)
        self.left = max(0.0, self.left - 1)

    def give_back(self) -> None:
        """Return one."""
        self.left = min(self._limit.at_once, self.left + 1)

    def due_s(self) -> float:
        """Time until there is one, rounded up: less than the clock's resolution would be no time at all."""
        return (1 - self.left) / self._limit.per_s + TICK_S

    def stand(self, waiting: _Waiting) -> None:
        """Queue an attempt."""
        self.lanes.setdefault(waiting.lane, {})[waiting] = None

    def leave(self, waiting: _Waiting) -> None:
        """Remove an attempt from the queue."""
        lane = self.lanes.get(waiting.lane)
        if lane is not None and waiting in lane:
            del lane[waiting]
            if not lane:
                del self.lanes[waiting.lane]

    def next(self, now: float, draw: Callable[[], float]) -> _Waiting | None:
        """The attempt whose turn it is, if the budget has one left."""
        while self.lanes and self.take(now):
            number, lane = next(iter(self.lanes.items()))
            self.lanes.move_to_end(number)
            waiting = _chosen(lane, draw())
            del lane[waiting]
            if not lane:
                del self.lanes[number]
            if not waiting.come.done():
                return waiting
            self.give_back()
        return None


def _chosen(lane: dict[_Waiting, None], drawn: float) -> _Waiting:
    """Choose among the waiters of a lane, by a random number in [0, 1)."""
    if drawn < 0.5:
        return next(reversed(lane))
    anybody = int((drawn - 0.75) * 4 * len(lane))
    return next(islice(lane, max(0, anybody), None))


class Guesses:
    """Schedules attempts. `is_on`: whether any are delayed at all."""

    def __init__(self, clock: Clock, randomness: Randomness, *, is_on: bool = True) -> None:
        self._clock, self._secret, self._is_on = clock, randomness.token(16), is_on
        self._draw = lambda: randomness.uniform(0.0, 1.0)
        self._budgets: dict[bytes, Budget] = {}
        self._quiet: OrderedDict[bytes, None] = OrderedDict()
        """Budgets without waiters, least recently used first."""
        self._known: OrderedDict[bytes, bool] = OrderedDict()
        """Last attempts that succeeded, by network and subject, and whether one is being checked."""
        self._waiting: dict[bytes, dict[_Waiting, None]] = {}
        """Waiters by network and subject."""

    async def turn(self, host: str, guess: Guess) -> Turn:
        """Wait until an attempt may be checked; `end` must follow. Raises `Unavailable` if its turn does not come."""
        network, subject = self._digest(network_of(host).encode()), self._digest(guess.subject)
        turn = Turn(self._digest(network + subject))
        if not self._is_on:
            return turn
        steps = [(network, OF_NETWORK, subject)]
        if guess.is_of_password:
            steps += ((name, OF_NAME, network) for name in (subject, *map(self._digest, guess.others)))
        turn.all_keys = [(key, limit) for key, limit, _ in steps]
        if self._known.get(turn.pair) is False:
            self._known[turn.pair] = turn.is_known = True
            return turn
        try:
            async with asyncio.timeout(PATIENCE_S):
                for key, limit, among in steps:
                    if not turn.is_known:
                        await self._take(turn, self._budget(key, limit), among[0] % LANES)
        except TimeoutError:
            self.end(turn, Outcome.UNSEEN)
            raise Unavailable(HELD_UP) from None
        except BaseException:
            self.end(turn, Outcome.UNSEEN)
            raise
        return turn

    def end(self, turn: Turn, outcome: Outcome) -> None:
        """An attempt was checked, or will not be."""
        if not self._is_on:
            return
        if outcome is Outcome.FAILED:
            self._known.pop(turn.pair, None)
            if turn.is_known:
                now = self._clock.monotonic()
                for key, limit in turn.all_keys:
                    self._budget(key, limit).spend(now)
            return
        self._give_back(turn)
        if outcome is Outcome.PROVEN or (turn.is_known and turn.pair in self._known):
            self._know(turn)

    def _give_back(self, turn: Turn) -> None:
        taken, turn.taken = turn.taken, []
        for budget in taken:
            budget.give_back()
            self._serve(budget)

    async def _take(self, turn: Turn, budget: Budget, lane: int) -> None:
        if not budget.lanes and budget.take(self._clock.monotonic()):
            turn.taken.append(budget)
            return
        waiting = _Waiting(turn, lane, asyncio.get_running_loop().create_future())
        same = self._waiting.setdefault(turn.pair, {})
        same[waiting] = None
        budget.stand(waiting)
        self._quiet.pop(budget.key, None)
        self._serve(budget)
        try:
            await waiting.come
        finally:
            budget.leave(waiting)
            if not budget.lanes:
                self._let_rest(budget)
            del same[waiting]
            if not same:
                del self._waiting[turn.pair]

    def _serve(self, budget: Budget) -> None:
        now = self._clock.monotonic()
        while (waiting := budget.next(now, self._draw)) is not None:
            waiting.turn.taken.append(budget)
            waiting.come.set_result(None)
        if budget.lanes and budget.timer is None:
            budget.timer = asyncio.get_running_loop().call_later(budget.due_s(), self._on_due, budget)

    def _on_due(self, budget: Budget) -> None:
        budget.timer = None
        self._serve(budget)

    def _know(self, turn: Turn) -> None:
        """An attempt succeeded, or was not checked: a waiter of the same network and subject may be checked."""
        pair = turn.pair
        if not turn.is_known and self._known.get(pair):
            return  # Another one is being checked.
        following = next((one for one in reversed(self._waiting.get(pair, {})) if not one.come.done()), None)
        self._known[pair] = following is not None
        self._known.move_to_end(pair)
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
        if following is not None:
            following.turn.is_known = True
            following.come.set_result(None)
            self._give_back(following.turn)

    def _budget(self, key: bytes, limit: Limit) -> Budget:
        budget = self._budgets.get(key)
        if budget is None:
            if len(self._budgets) >= MAX_BUDGETS and self._quiet:
                forgotten, _ = self._quiet.popitem(last=False)
                del self._budgets[forgotten]
            budget = self._budgets[key] = Budget(key, limit, self._clock.monotonic())
        if not budget.lanes:
            self._quiet[key] = None
            self._quiet.move_to_end(key)
        return budget

    def _let_rest(self, budget: Budget) -> None:
        """The budget has no waiters any more."""
        if budget.timer is not None:
            budget.timer.cancel()
            budget.timer = None
        if budget.key in self._budgets:
            self._quiet[budget.key] = None

    def _digest(self, text: bytes) -> bytes:
        return blake2b(text, digest_size=16, key=self._secret).digest()
