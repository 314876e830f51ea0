"""Timers that cost nothing while nothing is due.

`Alarms` is the port to the event loop. `Deadlines` holds the deadlines of one state: moving one later, as every
heartbeat does, touches a dictionary and not the event loop. There is one alarm at a time, at or before the earliest
deadline; if it fires too early it is set again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Protocol


class Alarm(Protocol):
    """A callback that will be called once."""

    def cancel(self) -> None:
        """Cancel the call."""


class Alarms(Protocol):
    """Schedules callbacks."""

    def time(self) -> float:
        """Seconds since an arbitrary start; never goes back."""

    def call_at(self, when: float, callback: Callable[[], None]) -> Alarm:
        """Call back at that time."""


class LoopAlarms:
    """Alarms of the running event loop."""

    def time(self) -> float:
        """The loop's time."""
        return asyncio.get_running_loop().time()

    def call_at(self, when: float, callback: Callable[[], None]) -> Alarm:
        """Call back from the loop."""
        return asyncio.get_running_loop().call_at(when, callback)


class Deadlines:
    """Named deadlines of one state, served by a single alarm."""

    __slots__ = ("_alarm", "_alarms", "_at", "_ring", "_rings_at")

    def __init__(self, alarms: Alarms, ring: Callable[[], None]) -> None:
        self._alarms, self._ring = alarms, ring
        self._at: dict[str, float] = {}
        self._alarm: Alarm | None = None
        self._rings_at = 0.0

    def __len__(self) -> int:
        return len(self._at)

    def set(self, name: str, delay_ms: int | None) -> None:
        """Set, move or cancel one deadline."""
        if delay_ms is None:
            self._at.pop(name, None)
            return
        when = self._alarms.time() + max(delay_ms, 0) / 1000
        self._at[name] = when
        if self._alarm is None or when < self._rings_at:
            self._arm(when)

    def due(self, *, but_not: Collection[str] = ()) -> str | None:
        """Remove and return a deadline that has passed, the earliest first; None if there is none."""
        now = self._alarms.time()
        passed = [name for name, when in self._at.items() if when <= now and name not in but_not]
        if not passed:
            return None
        name = min(passed, key=self._at.__getitem__)
        del self._at[name]
        return name

    def rearm(self) -> None:
        """After an alarm fired: set the next one, if any deadline is left."""
        self._disarm()
        if self._at:
            self._arm(min(self._at.values()))

    def clear(self) -> None:
        """Forget every deadline."""
        self._at.clear()
        self._disarm()

    def _arm(self, when: float) -> None:
        self._disarm()
        self._rings_at = when
        self._alarm = self._alarms.call_at(when, self._ring)

    def _disarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None


async def pause(alarms: Alarms, delay_ms: int) -> None:
    """Sleep on the alarms' clock."""
    woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    alarm = alarms.call_at(alarms.time() + delay_ms / 1000, lambda: woken.set_result(None))
    try:
        await woken
    finally:
        alarm.cancel()
