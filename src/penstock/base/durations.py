"""Histograms of durations, for Prometheus, with bucket bounds that double.

Counting a duration is a multiplication, the highest bit of a number and two additions, in preallocated lists. It is
done for every request; the hot path has it inline, because a call takes as long again. The first bucket ends at 100 µs,
each of the following ends at twice the bound of the one before, up to 13 seconds, and the last has no bound.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import accumulate

_PER_S = 10_000
"""The reciprocal of the first bound."""
BOUNDS_S = tuple(2**number / _PER_S for number in range(18))
"""The upper bounds of all buckets but the last."""
_BUCKETS = 64
"""Enough for any duration that a clock can measure, so that none has to be capped."""


class Durations:
    """A histogram that is written by one thread."""

    __slots__ = ("counts", "total_s")

    def __init__(self) -> None:
        self.counts = [0] * _BUCKETS
        """Counts by the bit length of the duration in units of 100 µs."""
        self.total_s = 0.0
        """Sum of all durations."""

    def add(self, duration_s: float) -> None:
        """Count one."""
        self.counts[int(duration_s * 10_000).bit_length()] += 1
        self.total_s += duration_s

    @property
    def count(self) -> int:
        """Number of durations."""
        return sum(self.counts)

    def cumulative(self) -> list[int]:
        """Cumulative counts of the bounds, and the total, as Prometheus wants them."""
        counts, bounded = self.counts, len(BOUNDS_S)
        return list(accumulate([*counts[:bounded], sum(counts[bounded:])]))


class SharedDurations(Durations):
    """A histogram that is written by several threads."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()

    def add(self, duration_s: float) -> None:
        """Count one."""
        with self._lock:
            super().add(duration_s)


class CollectorPauses:
    """The pauses of Python's garbage collector, by generation. A callback for `gc.callbacks`."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now, self._began_s = now, 0.0
        self.by_generation = tuple(Durations() for _ in range(3))

    def __call__(self, phase: str, info: dict[str, int]) -> None:
        """A collection begins or ends."""
        if phase == "start":
            self._began_s = self._now()
        else:
            self.by_generation[info["generation"]].add(self._now() - self._began_s)
