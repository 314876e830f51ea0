"""What goes on going wrong is logged now and then, not each time."""

from __future__ import annotations

from penstock.base.clock import Clock


class Seldom:
    """Whether it is time to say something, that has not been said for so many seconds."""

    __slots__ = ("_clock", "_every_s", "_said_s")

    def __init__(self, clock: Clock, every_s: float) -> None:
        self._clock, self._every_s = clock, every_s
        self._said_s: float | None = None

    def is_due(self, *, is_new: bool = False) -> bool:
        """Ask just before it is said. What is new is said at once."""
        now_s = self._clock.monotonic()
        if self._said_s is not None and not is_new and now_s - self._said_s < self._every_s:
            return False
        self._said_s = now_s
        return True
