"""Time-outs of produce requests: a request whose time-out has passed is answered before its outcome is known. Its
records may still be appended.

Nothing is recorded when a request arrives. Only a request that a periodic scan finds waiting gets a deadline, so the
many that are answered in time cost nothing; the others are answered up to a second late, and never early.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from math import inf

from penstock.base.clock import Clock
from penstock.base.log_throttle import LogThrottle
from penstock.log.answers import PendingAppend

SCAN_INTERVAL_S = 1.0
"""The scan interval: how late a time-out may be."""
MIN_SCAN_INTERVAL_S = 0.05
COMPLAIN_EVERY_S = 10.0
_log = logging.getLogger(__name__)


class ProduceTimeouts:
    """The requests that were found waiting, with their deadlines. Scans only while there may be any."""

    def __init__(self, clock: Clock, waiting: Callable[[], Iterable[PendingAppend] | None]) -> None:
        self._clock, self._waiting = clock, waiting
        """`waiting` yields those that wait, some of them several times; None: there are none and never will be."""
        self._deadlines: dict[PendingAppend, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._log_throttle = LogThrottle(clock, COMPLAIN_EVERY_S)
        self.count = 0
        """Requests that timed out, since the process started."""

    def watch(self) -> None:
        """Requests begin to wait."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SCAN_INTERVAL_S, self._scan)

    def stop(self) -> None:
        """Stop scanning."""
        self._deadlines.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _scan(self) -> None:
        waiting, self._timer = self._waiting(), None
        if waiting is None:
            self._deadlines.clear()
            return
        before = self.count
        pause_s = self.answer(waiting)
        if self.count > before and self._log_throttle.is_due():
            _log.warning(
                "%d produce requests timed out: the disk or the database is slow. Their records may still be appended",
                self.count - before,
            )
        self._timer = asyncio.get_running_loop().call_later(pause_s, self._scan)

    def answer(self, waiting: Iterable[PendingAppend]) -> float:
        """Answer those whose time-out has passed; in how many seconds to scan again."""
        now_s = self._clock.monotonic()
        known, deadlines = self._deadlines, dict[PendingAppend, float]()
        soonest = inf
        for ticket in list(waiting):
            timeout_ms = ticket.timeout_ms
            if timeout_ms is None or ticket in deadlines:
                continue
            deadline = known.get(ticket)
            if deadline is None:
                deadline = now_s + timeout_ms / 1000
            deadlines[ticket] = deadline
            if deadline <= now_s:
                self.count += 1
                ticket.time_out()
            elif deadline < soonest:
                soonest = deadline
        self._deadlines = deadlines
        return max(MIN_SCAN_INTERVAL_S, min(soonest - now_s, SCAN_INTERVAL_S))
