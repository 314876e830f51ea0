"""Timers that cost nothing while nothing is due.

`Scheduler` is the port to the event loop. `Deadlines` holds the deadlines of one state: moving one later, as every
heartbeat does, touches a dictionary and not the event loop. There is one scheduled call at a time, at or before
the earliest deadline; if it comes too early, another one is scheduled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Protocol


class ScheduledCall(Protocol):
    """A callback that will be called once."""

    def cancel(self) -> None:
        """Cancel the call."""


class Scheduler(Protocol):
    """Schedules callbacks."""

    def time(self) -> float:
        """Seconds since an arbitrary start; never goes back."""

    def call_at(self, when: float, callback: Callable[[], None]) -> ScheduledCall:
        """Call back at that time."""


class LoopScheduler:
    """Scheduler of the running event loop."""

    def time(self) -> float:
        """The loop's time."""
        return asyncio.get_running_loop().time()

    def call_at(self, when: float, callback: Callable[[], None]) -> ScheduledCall:
        """Call back from the loop."""
        return asyncio.get_running_loop().call_at(when, callback)


class Deadlines:
    """Named deadlines of one state, served by a single scheduled call: `on_due`."""

    __slots__ = ("_call", "_call_at_s", "_due_at_s", "_on_due", "_scheduler")

    def __init__(self, scheduler: Scheduler, on_due: Callable[[], None]) -> None:
        self._scheduler, self._on_due = scheduler, on_due
        self._due_at_s: dict[str, float] = {}
        self._call: ScheduledCall | None = None
        self._call_at_s = 0.0

    def __len__(self) -> int:
        return len(self._due_at_s)

    def set(self, name: str, delay_ms: int | None) -> None:
        """Set, move or cancel one deadline."""
        if delay_ms is None:
            self._due_at_s.pop(name, None)
            return
        when = self._scheduler.time() + max(delay_ms, 0) / 1000
        self._due_at_s[name] = when
        if self._call is None or when < self._call_at_s:
            self._schedule(when)

    def pop_due(self, *, except_for: Collection[str] = ()) -> str | None:
        """Remove and return a deadline that has passed, the earliest first; None if there is none."""
        now = self._scheduler.time()
        passed = [name for name, when in self._due_at_s.items() if when <= now and name not in except_for]
        if not passed:
            return None
        name = min(passed, key=self._due_at_s.__getitem__)
        del self._due_at_s[name]
        return name

    def reschedule(self) -> None:
        """After the call has come: schedule the next one, if any deadline is left."""
        self._cancel()
        if self._due_at_s:
            self._schedule(min(self._due_at_s.values()))

    def clear(self) -> None:
        """Forget every deadline."""
        self._due_at_s.clear()
        self._cancel()

    def _schedule(self, when: float) -> None:
        self._cancel()
        self._call_at_s = when
        self._call = self._scheduler.call_at(when, self._on_due)

    def _cancel(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None


async def pause(scheduler: Scheduler, delay_ms: int) -> None:
    """Sleep on the scheduler's clock."""
    woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    call = scheduler.call_at(scheduler.time() + delay_ms / 1000, lambda: woken.set_result(None))
    try:
        await woken
    finally:
        call.cancel()
