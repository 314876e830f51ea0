"""Rate-limited warnings about connections: clients that have not authenticated can cause any number of them."""

from __future__ import annotations

import logging

from penstock.base.clock import Clock

WINDOW_S = 60.0
MAX_PER_WINDOW = 20
_log = logging.getLogger("penstock.agent.connection")


class ConnectionWarnings:
    """Logs the first few of each minute, and how many were left out with the first one of a later minute."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._window_ends = 0.0
        self._logged = 0
        self._left_out = 0

    def warn(self, text: str, *values: object) -> None:
        """Log a warning, unless there were too many of late."""
        now = self._clock.monotonic()
        if now >= self._window_ends:
            if self._left_out:
                _log.warning("%d more warnings about connections were left out", self._left_out)
            self._window_ends, self._logged, self._left_out = now + WINDOW_S, 0, 0
        if self._logged < MAX_PER_WINDOW:
            self._logged += 1
            _log.warning(text, *values)
        else:
            self._left_out += 1
