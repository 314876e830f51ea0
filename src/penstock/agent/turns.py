"""An event loop that says when a turn ends: all events of the turn are handled, and nothing has been waited for yet.

A flush begins when every request that has arrived is read, and responses leave when every flush that was begun in line
is done. With `call_soon` each of the two would be a turn of its own, with a look at the sockets that finds nothing: a
third of the system calls of a request on a connection of its own. Here both happen at the end of the turn in which the
request arrived.

Only the loop's selector is replaced, which asyncio leaves to whoever makes a loop. Where the loop is another one,
`at_turn_end` is its `call_soon`.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable
from typing import Any, Protocol

from penstock.base.clock import SystemClock
from penstock.base.durations import Durations

Soon = Callable[[Callable[[], None]], Any]
"""Has something called when everything that has arrived is handled."""


class Turn(Protocol):
    """A turn of a loop."""

    @property
    def began_s(self) -> float:
        """When it began, by the monotonic clock."""


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
        self.loop: asyncio.AbstractEventLoop | None = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Events, after the turn has ended."""
        if self.due and self._end_turn():
            timeout = 0
        took_s, durations = self._now() - self.began_s, self.durations
        durations.counts[int(took_s * 10_000).bit_length()] += 1
        durations.total_s += took_s
        events = super().select(timeout)
        self.began_s = self._now()
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
    def current_turn(self) -> Turn:
        """The one that is going on."""
        return self._turn_selector

    @property
    def turn_durations(self) -> Durations:
        """How long its turns took: for so long nobody else was served."""
        return self._turn_selector.durations

    def at_turn_end(self, callback: Callable[[], None]) -> None:
        """Call it when the events of this turn are handled. On the loop's thread."""
        self._turn_selector.due.append(callback)


class _Unknown:
    """Turns of a loop that does not say when they begin, or of another clock: it is now."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now

    @property
    def began_s(self) -> float:
        """When it is asked."""
        return self._now()


def turn_of(loop: asyncio.AbstractEventLoop, now: Callable[[], float]) -> Turn:
    """How to know when a turn began without looking at the clock, where the loop has done that."""
    return loop.current_turn if isinstance(loop, TurnLoop) and now is SystemClock.monotonic else _Unknown(now)


def at_turn_end(loop: asyncio.AbstractEventLoop) -> Soon:
    """How to have something called at the end of the turn."""
    return loop.at_turn_end if isinstance(loop, TurnLoop) else loop.call_soon
