"""How long something takes, counted in buckets that double: what a histogram of Prometheus is made of.

Counting is a multiplication, a look at a number's highest bit and two additions, in lists that are there from the
beginning: it may be done for every request, where it is written out, for a call takes as long again. The first bucket
is what takes less than 100 µs; each of those behind it reaches twice as far as the one before, up to 13 seconds, and
the rest is one more.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import accumulate

_PER_S = 10_000
"""How often the first bucket goes into a second."""
BOUNDS_S = tuple(2**number / _PER_S for number in range(18))
"""Up to where each bucket reaches, but the last one, which has no end."""
_SLOTS = 64
"""As many as a number of any size that a clock can tell needs: nothing is compared with a largest one."""


class Durations:
    """Counts durations. By one thread."""

    __slots__ = ("counts", "total_s")

    def __init__(self) -> None:
        self.counts = [0] * _SLOTS
        """By how many binary digits their tenths of milliseconds have."""
        self.total_s = 0.0
        """All of them together."""

    def add(self, duration_s: float) -> None:
        """Count one."""
        self.counts[int(duration_s * 10_000).bit_length()] += 1
        self.total_s += duration_s

    @property
    def count(self) -> int:
        """How many there were."""
        return sum(self.counts)

    def cumulative(self) -> list[int]:
        """How many were in each bucket or one before it: a number for each bound, and how many there were."""
        counts, bounded = self.counts, len(BOUNDS_S)
        return list(accumulate([*counts[:bounded], sum(counts[bounded:])]))


class SharedDurations(Durations):
    """The same for several threads."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()

    def add(self, duration_s: float) -> None:
        """Count one."""
        with self._lock:
            super().add(duration_s)


class Collections:
    """How long Python's garbage collector holds everything up, by generation. Goes into `gc.callbacks`."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now, self._began_s = now, 0.0
        self.by_generation = tuple(Durations() for _ in range(3))

    def __call__(self, phase: str, info: dict[str, int]) -> None:
        """A collection begins or ends."""
        if phase == "start":
            self._began_s = self._now()
        else:
            self.by_generation[info["generation"]].add(self._now() - self._began_s)
