"""An event loop that says when a turn ends: all events of the turn are handled, and nothing has been waited for yet.

A flush begins when every request that has arrived is read, and responses leave when every flush that was begun in line
is done. With `call_soon` each of the two would be a turn of its own, with a look at the sockets that finds nothing: a
third of the system calls of a request on a connection of its own. Here both happen at the end of the turn in which the
request arrived.

A turn also serves only a few of the *newcomers*: listening sockets, and connections that have not authenticated yet.
A crowd of them, often one tenant's clients that connect again and again, would otherwise hold up everybody's requests
for as long as all of their steps take.

Only the loop's selector is replaced, which asyncio leaves to whoever makes a loop. Where the loop is another one,
`at_turn_end` is its `call_soon`, and newcomers are served like everybody.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable
from heapq import nsmallest
from typing import Any, Protocol

from penstock.base.clock import SystemClock
from penstock.base.durations import Durations

CallSoon = Callable[[Callable[[], None]], Any]
"""Has something called when everything that has arrived is handled."""
Event = tuple[selectors.SelectorKey, int]
"""A file and what it is ready for."""
NEWCOMERS_PER_TURN = 2
"""Each costs a few tenths of a millisecond, and most turns last about as long."""


class LoopTurn(Protocol):
    """A turn of a loop."""

    @property
    def began_s(self) -> float:
        """When it began, by the monotonic clock."""


class Newcomers:
    """The file descriptors of newcomers, and when each was served last."""

    __slots__ = ("_served", "_turn")

    def __init__(self) -> None:
        self._served: dict[int, int] = {}
        self._turn = 0

    def __len__(self) -> int:
        return len(self._served)

    def add(self, fd: int) -> None:
        """One more. Those who came before it come first."""
        self._served[fd] = self._turn

    def discard(self, fd: int) -> None:
        """It is one no more, if it was."""
        self._served.pop(fd, None)

    def few_of(self, events: list[Event]) -> list[Event]:
        """The events of a turn, of newcomers only those that have waited longest. The others are reported again in the
        next turn: for as long as a file is readable, whoever waits is told so."""
        served = self._served
        waiting = [event[0].fd for event in events if event[0].fd in served]
        if len(waiting) <= NEWCOMERS_PER_TURN:
            return events
        self._turn += 1
        chosen = nsmallest(NEWCOMERS_PER_TURN, waiting, key=served.__getitem__)
        for fd in chosen:
            served[fd] = self._turn
        return [event for event in events if event[0].fd in chosen or event[0].fd not in served]


class _TurnSelector(selectors.DefaultSelector):
    """Ends the turn before it waits."""

    def __init__(self) -> None:
        super().__init__()
        self._now = SystemClock.monotonic
        self.began_s = self._now()
        """When this turn began: what it has found to be readable had arrived by then."""
        self.durations = Durations()
        """How long turns took, from the end of a wait to the beginning of the next one."""
        self.due: list[Callable[[], None]] = []
        self.newcomers = Newcomers()
        self.loop: asyncio.AbstractEventLoop | None = None

    def select(self, timeout: float | None = None) -> list[Event]:
        """Events, after the turn has ended."""
        if self.due and self._end_turn():
            timeout = 0
        took_s, durations = self._now() - self.began_s, self.durations
        durations.counts[int(took_s * 10_000).bit_length()] += 1
        durations.total_s += took_s
        events = super().select(timeout)
        self.began_s = self._now()
        # Listening sockets are always newcomers: where there are few others, no event has to be looked at.
        if len(events) > NEWCOMERS_PER_TURN and len(self.newcomers) > NEWCOMERS_PER_TURN:
            return self.newcomers.few_of(events)
        return events

    def _end_turn(self) -> bool:
        """Call what is due, and what becomes due by that; whether the loop has something to do at once, or sooner.

        The loop has made up its mind how long to wait before it came here.
        """
        loop = self.loop
        timers = len(getattr(loop, "_scheduled", ()))
        while self.due:
            due, self.due = self.due, []
            for callback in due:
                try:
                    callback()
                except Exception as problem:  # noqa: BLE001  # as for any callback of the loop
                    assert loop is not None
                    loop.call_exception_handler({"message": "at the end of a turn", "exception": problem})
        return bool(getattr(loop, "_ready", True)) or len(getattr(loop, "_scheduled", ())) != timers


class TurnLoop(asyncio.SelectorEventLoop):
    """asyncio's own loop, with ends of turns."""

    def __init__(self) -> None:
        self._turn_selector = _TurnSelector()
        super().__init__(self._turn_selector)
        self.time = SystemClock.monotonic  # type: ignore[method-assign]  # What it calls, which saves what timing costs.
        self._turn_selector.loop = self

    @property
    def current_turn(self) -> LoopTurn:
        """The one that is going on."""
        return self._turn_selector

    @property
    def turn_durations(self) -> Durations:
        """How long its turns took: for so long nobody else was served."""
        return self._turn_selector.durations

    @property
    def newcomers(self) -> Newcomers:
        """To be kept up to date by whoever accepts connections."""
        return self._turn_selector.newcomers

    def at_turn_end(self, callback: Callable[[], None]) -> None:
        """Call it when the events of this turn are handled. On the loop's thread."""
        self._turn_selector.due.append(callback)


class _UntimedTurn:
    """Turns of a loop that does not say when they begin, or of another clock: it is now."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now

    @property
    def began_s(self) -> float:
        """When it is asked."""
        return self._now()


def turn_of(loop: asyncio.AbstractEventLoop, now: Callable[[], float]) -> LoopTurn:
    """How to know when a turn began without looking at the clock, where the loop has done that."""
    return loop.current_turn if isinstance(loop, TurnLoop) and now is SystemClock.monotonic else _UntimedTurn(now)


def at_turn_end(loop: asyncio.AbstractEventLoop) -> CallSoon:
    """How to have something called at the end of the turn."""
    return loop.at_turn_end if isinstance(loop, TurnLoop) else loop.call_soon


def newcomers_of(loop: asyncio.AbstractEventLoop) -> Newcomers:
    """Where to note who is a newcomer. Nobody looks at it where the loop is another one."""
    return loop.newcomers if isinstance(loop, TurnLoop) else Newcomers()
