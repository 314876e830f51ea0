"""The scheduler of chores: background work of the log, one bounded step at a time.

Compaction, retention and garbage collection are chores. They share one task, so at most one of them works at a time;
those with work take turns. A chore returns when it wants its next turn, and callers that create work for it wake it: a
chore without work has no timer, and an idle log does nothing at all.

Everything here runs on the event loop. A chore reads and writes files on an executor, and keeps a step short enough (a
second or so of work) that the others are not kept waiting and the process can stop.

A chore that fails is retried with backoff, which waking does not shorten. It is logged when it starts to fail and when
it works again, not each time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol, runtime_checkable

from penstock.base.clock import Clock
from penstock.base.dataclasses import dataclass
from penstock.base.errors import PlatformError
from penstock.base.randomness import Randomness

FIRST_BACKOFF_S = 1.0
MAX_BACKOFF_S = 60.0
_log = logging.getLogger(__name__)


class Chore(Protocol):
    """A piece of recurring background work."""

    @property
    def name(self) -> str:
        """Its name in logs and metrics, and for `wake`."""

    async def run(self) -> float | None:
        """Do one bounded step. Seconds until it wants to run again: 0 when there is more to do at once, None to run
        only when woken. Every chore gets a first turn at start, to find out what there is to do."""


@runtime_checkable
class Measured(Protocol):
    """A chore that knows its backlog."""

    @property
    def backlog(self) -> int:
        """How much work is waiting, in the chore's own unit."""


@dataclass(slots=True)
class ChoreStats:
    """One chore, counted since the process started."""

    runs: int = 0
    failures: int = 0
    failed_in_a_row: int = 0
    last_duration_s: float = 0.0
    total_duration_s: float = 0.0
    backlog: int = 0


class _Turn:
    """The schedule of a chore."""

    __slots__ = ("chore", "due_at", "not_before", "stats", "woken")

    def __init__(self, chore: Chore) -> None:
        self.chore = chore
        self.due_at: float | None = 0.0
        """Loop time of the next turn; None: only when woken."""
        self.not_before = 0.0
        """Loop time until which backoff after a failure delays it."""
        self.woken = False
        self.stats = ChoreStats()


class Background:
    """Schedules chores."""

    def __init__(self, chores: Sequence[Chore], *, clock: Clock, randomness: Randomness | None = None) -> None:
        self._clock, self._randomness = clock, randomness
        self._turns: dict[str, _Turn] = {}
        self._order: list[_Turn] = []
        """The chore whose last turn is longest ago comes first."""
        self._task: asyncio.Task[None] | None = None
        self._sleeper: asyncio.Future[None] | None = None
        self._stopping = False
        self.add(*chores)

    def add(self, *chores: Chore) -> None:
        """Give these turns as well, the first one soon."""
        for chore in chores:
            if chore.name in self._turns:
                raise ValueError(f"two chores have the same name: {chore.name}")
            turn = self._turns[chore.name] = _Turn(chore)
            self._order.append(turn)
        self._rouse()

    def start(self) -> None:
        """Begin, with a turn for every chore."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="background")

    def wake(self, name: str) -> None:
        """Schedule a chore soon. Cheap: may be called for every commit. On the loop's thread."""
        turn = self._turns[name]
        if not turn.woken:
            turn.woken = True
            self._rouse()

    def waker(self, name: str) -> Callable[[], None]:
        """`wake` for one chore, to hand to callers that create work for it."""
        return partial(self.wake, name)

    async def stop(self) -> None:
        """Let the running step end, and start no other."""
        self._stopping = True
        self._rouse()
        task, self._task = self._task, None
        if task is not None:
            await asyncio.wait((task,))
            task.result()

    def stats(self) -> dict[str, ChoreStats]:
        """Counters by chore."""
        for turn in self._order:
            if isinstance(turn.chore, Measured):
                turn.stats.backlog = turn.chore.backlog
        return {name: turn.stats for name, turn in self._turns.items()}

    def _rouse(self) -> None:
        sleeper = self._sleeper
        if sleeper is not None and not sleeper.done():
            sleeper.set_result(None)

    async def _run(self) -> None:
        time = asyncio.get_running_loop().time
        while not self._stopping:
            now = time()
            turn = next((turn for turn in self._order if _is_due(turn, now)), None)
            if turn is None:
                await self._sleep(now)
                continue
            self._order.remove(turn)
            self._order.append(turn)
            await self._step(turn)
            # Yield to the event loop, even if the chores never wait.
            await asyncio.sleep(0)

    async def _step(self, turn: _Turn) -> None:
        time, began = asyncio.get_running_loop().time, self._clock.monotonic()
        turn.woken = False
        stats = turn.stats
        stats.runs += 1
        try:
            delay_s = await turn.chore.run()
        except Exception as problem:  # noqa: BLE001  A chore's bug must not end the others.
            self._failed(turn, problem)
        else:
            turn.due_at = None if delay_s is None else time() + delay_s
            turn.not_before = 0.0
            if stats.failed_in_a_row:
                _log.info("%s works again after %d failures", turn.chore.name, stats.failed_in_a_row)
                stats.failed_in_a_row = 0
        stats.last_duration_s = self._clock.monotonic() - began
        stats.total_duration_s += stats.last_duration_s

    def _failed(self, turn: _Turn, problem: Exception) -> None:
        stats = turn.stats
        stats.failures += 1
        stats.failed_in_a_row += 1
        if stats.failed_in_a_row == 1:
            detail = None if isinstance(problem, PlatformError) else problem
            _log.error("%s fails and will be tried again: %s", turn.chore.name, problem, exc_info=detail)
        delay_s = min(FIRST_BACKOFF_S * 2 ** min(stats.failed_in_a_row - 1, 10), MAX_BACKOFF_S)
        if self._randomness is not None:
            delay_s *= self._randomness.uniform(0.5, 1.5)
        turn.due_at = turn.not_before = asyncio.get_running_loop().time() + delay_s

    async def _sleep(self, now: float) -> None:
        """Sleep until a chore is woken or the next turn is due."""
        loop = asyncio.get_running_loop()
        wake_at = min((at for turn in self._order if (at := _next_turn_at(turn)) is not None), default=None)
        self._sleeper = loop.create_future()
        timer = None if wake_at is None else loop.call_at(max(wake_at, now), self._rouse)
        try:
            await self._sleeper
        finally:
            self._sleeper = None
            if timer is not None:
                timer.cancel()


def _next_turn_at(turn: _Turn) -> float | None:
    if turn.woken:
        return turn.not_before
    return None if turn.due_at is None else max(turn.due_at, turn.not_before)


def _is_due(turn: _Turn, now: float) -> bool:
    at = _next_turn_at(turn)
    return at is not None and at <= now
