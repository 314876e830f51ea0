"""A rate limit on log messages, so that a lasting failure is not logged every time."""

from __future__ import annotations

from penstock.base.clock import Clock


class LogThrottle:
    """Lets one message pass per interval."""

    __slots__ = ("_clock", "_every_s", "_logged_s")

    def __init__(self, clock: Clock, every_s: float) -> None:
        self._clock, self._every_s = clock, every_s
        self._logged_s: float | None = None

    def is_due(self, *, is_new: bool = False) -> bool:
        """Whether to log now; if so, the interval begins anew. What is new is always logged."""
        now_s = self._clock.monotonic()
        if self._logged_s is not None and not is_new and now_s - self._logged_s < self._every_s:
            return False
        self._logged_s = now_s
        return True
