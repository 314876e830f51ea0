"""Giving memory back while the agent is idle.

Arenas keep the memory they once took, because fresh pages are expensive. After a while in which nothing was written or
read it serves nobody: consumers have the recent batches already, or find them in files. The bookkeeping for each
stretch of batches is dropped as well; for small batches that is as much memory again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from penstock.base.later import later

if TYPE_CHECKING:
    import ctypes
else:
    ctypes = later("ctypes")

IDLE_S = 15.0


class IdleMemory:
    """The chore. Wake it when something has been done; it stays awake until it has given back what that took."""

    name = "memory"

    def __init__(
        self, *, activity: Callable[[], int], held_bytes: Callable[[], int], drop: Callable[[], None],
        now: Callable[[], float],
    ) -> None:  # fmt: skip
        self._activity, self._held_bytes, self._now = activity, held_bytes, now
        self.drops = [drop]
        """Each gives back the memory of one part."""
        self._seen, self._since = -1, 0.0
        """What was done when something new had been done for the last time, and when that was seen."""

    async def run(self) -> float | None:
        """Look whether anything happened since the last look, which may have been a moment ago."""
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
