"""Clocks, which are passed in to everything that needs the time.

`now_ms` is the wall clock of records and rows and may jump; `monotonic` measures waits and never goes back.
The simulation passes clocks of its own, which drift.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """A source of time."""

    def now_ms(self) -> int:
        """Wall clock, milliseconds since 1970-01-01 UTC."""

    def monotonic(self) -> float:
        """Seconds since an arbitrary start; never goes back."""


class SystemClock:
    """The clock of this machine."""

    def now_ms(self) -> int:
        """Wall clock, milliseconds since 1970-01-01 UTC."""
        return time.time_ns() // 1_000_000

    monotonic = staticmethod(time.monotonic)
    """Seconds since an arbitrary start; never goes back. Called several times per request, so not wrapped."""


class SteadyClock:
    """Milliseconds of a clock's `monotonic`: for deadlines in memory, which changes of the wall clock do not move."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def now_ms(self) -> int:
        """Since an arbitrary start; never goes back."""
        return int(self._clock.monotonic() * 1000)

    def monotonic(self) -> float:
        """Seconds since an arbitrary start; never goes back."""
        return self._clock.monotonic()
