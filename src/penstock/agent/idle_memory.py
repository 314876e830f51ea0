"""Releases memory while the agent is idle.

Arenas keep the memory they have allocated, because fresh pages are expensive. When nothing has been written or read for
a while it is of no use: consumers have the recent batches already, or read them from files. The bookkeeping of those
batches is dropped as well; for small batches that is as much memory again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from penstock.base.lazy import lazy_import

if TYPE_CHECKING:
    import ctypes
else:
    ctypes = lazy_import("ctypes")

IDLE_S = 15.0


class IdleMemory:
    """The chore. Woken by activity, it runs until the memory is released."""

    name = "memory"

    def __init__(
        self, *, activity: Callable[[], int], held_bytes: Callable[[], int], drop: Callable[[], None],
        now: Callable[[], float],
    ) -> None:  # fmt: skip
        self._activity, self._held_bytes, self._now = activity, held_bytes, now
        self.drops = [drop]
        """Each releases the memory of one part."""
        self._seen, self._since = -1, 0.0
        """The last value of `activity`, and when it was seen first."""

    async def run(self) -> float | None:
        """Check for activity since the last run."""
        if not self._held_bytes():
            return None
        activity, now = self._activity(), self._now()
        if activity != self._seen:
            self._seen, self._since = activity, now
        left_s = self._since + IDLE_S - now
        if left_s > 0:
            return left_s
        for drop in self.drops:
            drop()
        trim_heap()
        return None


def trim_heap() -> None:
    """Let the C library give free memory back to the system, where it can."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
