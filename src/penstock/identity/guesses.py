"""How many credentials are looked at that may be guesses: a bounded number, on however many connections they come.

Every network (an address, or a /64 of IPv6) has a budget, and every name that has a password has one, wherever it is
tried from. An attempt takes one out of both before anything is looked at. If it proves somebody it gets them back; if
not they are spent, whether its client waits for the answer or hangs up, and come back with time. So who knows their
password pays nothing, however often they log in, and nobody's success pays for what has failed.

Where a budget is spent, attempts wait until it is their turn: as many a second as come back. Which of them is right is
not to be known before it is looked at; any order that favoured right ones would tell a guesser which those are. What is
known without looking is used:

- Who came in from that network by that name the last time that it was tried need not wait. One attempt at a time has
  this, and its failure ends it: guessers have one guess for each time that the owner comes in. So programs that know
  their passwords come and go behind the same address (NAT) as others that guess, or have an old one.
- All others stand in lanes, a network's by name and a name's by network, which take turns. So who guesses at one name
  holds up that name, from there. Which lane it is follows from a secret, so nobody can stand before others by a name
  that they choose; there are few, so each has its turn before anybody's patience ends.
- In a lane half of the turns are the newest's, a quarter the oldest's, and the others anybody's: whether somebody waits
  on many connections or comes and goes all the time, there are turns that they do not win by it.

Whose turn does not come in time is hung up on without an answer, for nothing was found out about their credential:
clients try that again by themselves, where they give up at a refusal. Whoever waits has a connection, of which there
are only so many.

All of this is in memory: after a start every budget is whole, and nobody is known to have come in before.
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
    """How much may fail."""

    at_once: int
    per_s: float


OF_NETWORK = Limit(at_once=100, per_s=2.0)
OF_NAME = Limit(at_once=1000, per_s=10.0)
"""More: the owner, who comes from a network for the first time, is among all those who guess at it anywhere."""
LANES = 8
PATIENCE_S = 20.0
"""Clients wait for half a minute or longer, and so does the gate (`LOGIN_S`)."""
TICK_S = 0.001
MAX_BUDGETS = 10_000
MAX_KNOWN = 20_000
HELD_UP = "too much has failed from its network or for its name, and its turn did not come"


class Guess(NamedTuple):
    """What an attempt is about to prove."""

    subject: bytes
    """A hash of whom or what it claims."""
    is_of_password: bool
    """Whether it is a name with a password, that is, one that can be guessed from anywhere."""
    others: tuple[bytes, ...] = ()
    """The same of whom else it may turn out to claim, who are guessed at as well."""

    @staticmethod
    def of(claim: bytes, *others: bytes, is_of_password: bool) -> Guess:
        """Attempts with equal claims are of the same somebody."""
        return Guess(_hash(claim), is_of_password, tuple(map(_hash, others)))


def _hash(claim: bytes) -> bytes:
    return blake2b(claim, digest_size=16).digest()


class Outcome(Enum):
    """What came of an attempt."""

    PROVEN = auto()
    FAILED = auto()
    UNSEEN = auto()
    """Nobody has looked."""


@dataclass(slots=True, eq=False)
class Turn:
    """The right of an attempt to be looked at."""

    pair: bytes
    """Its network and subject."""
    taken: list[Budget] = field(default_factory=list)
    """What it gets back if it proves somebody."""
    all_keys: list[tuple[bytes, Limit]] = field(default_factory=list)
    is_known: bool = False
    """Whether it has its turn because it came in the last time."""


@dataclass(slots=True, eq=False)
class _Waiting:
    turn: Turn
    lane: int
    come: asyncio.Future[None]
    """Done when its turn has come."""


class Budget:
    """What may fail still, of one network or name, and who waits for it."""

    def __init__(self, key: bytes, limit: Limit, now: float) -> None:
        self.key, self._limit, self._filled_s = key, limit, now
        self.left: float = limit.at_once
        self.lanes: OrderedDict[int, dict[_Waiting, None]] = OrderedDict()
        """Those in which somebody waits, in the order of their turns; in each the oldest is first."""
        self.timer: asyncio.TimerHandle | None = None

    def fill(self, now: float) -> None:
        """Let come back what has by now."""
        self.left = min(self._limit.at_once, self.left + (now - self._filled_s) * self._limit.per_s)
        self._filled_s = now

    def take(self, now: float) -> bool:
        """Take one, unless it is spent."""
        self.fill(now)
        if self.left < 1:
            return False
        self.left -= 1
        return True

    def spend(self, now: float) -> None:
        """Take one, if there is any: debts would keep others waiting, of a name that they have nothing to do with."""
        self.fill(now)
        self.left = max(0.0, self.left - 1)

    def give_back(self) -> None:
        """What was taken for nothing."""
        self.left = min(self._limit.at_once, self.left + 1)

    def due_s(self) -> float:
        """How long it takes until there is one, or a little longer: less than a clock can tell would be no time."""
        return (1 - self.left) / self._limit.per_s + TICK_S

    def stand(self, waiting: _Waiting) -> None:
        """Wait."""
        self.lanes.setdefault(waiting.lane, {})[waiting] = None

    def leave(self, waiting: _Waiting) -> None:
        """Wait no more."""
        lane = self.lanes.get(waiting.lane)
        if lane is not None and waiting in lane:
            del lane[waiting]
            if not lane:
                del self.lanes[waiting.lane]

    def next(self, now: float, draw: Callable[[], float]) -> _Waiting | None:
        """Whose turn it is, if there is one left for them."""
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
    """Of those who wait, by a number in [0, 1)."""
    if drawn < 0.5:
        return next(reversed(lane))
    anybody = int((drawn - 0.75) * 4 * len(lane))
    return next(islice(lane, max(0, anybody), None))


class Guesses:
    """Whose turn it is. `is_on`: whether anybody is held up at all."""

    def __init__(self, clock: Clock, randomness: Randomness, *, is_on: bool = True) -> None:
        self._clock, self._secret, self._is_on = clock, randomness.token(16), is_on
        self._draw = lambda: randomness.uniform(0.0, 1.0)
        self._budgets: dict[bytes, Budget] = {}
        self._quiet: OrderedDict[bytes, None] = OrderedDict()
        """Those for which nobody waits, the one that was not used for longest first."""
        self._known: OrderedDict[bytes, bool] = OrderedDict()
        """Who came in the last time, by network and subject, and whether one of them is being looked at."""
        self._waiting: dict[bytes, dict[_Waiting, None]] = {}
        """The same who wait, by network and subject."""

    async def turn(self, host: str, guess: Guess) -> Turn:
        """Wait until an attempt may be looked at; `end` has to follow. Raises `Unavailable` if it does not come to
        that."""
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
        """An attempt was looked at, or will not be."""
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
        """Somebody came in, or was not looked at: one of those who wait to come in alike may be looked at."""
        pair = turn.pair
        if not turn.is_known and self._known.get(pair):
            return  # That one is being looked at.
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
        """Nobody waits for it any more."""
        if budget.timer is not None:
            budget.timer.cancel()
            budget.timer = None
        if budget.key in self._budgets:
            self._quiet[budget.key] = None

    def _digest(self, text: bytes) -> bytes:
        return blake2b(text, digest_size=16, key=self._secret).digest()
