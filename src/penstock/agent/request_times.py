"""How long clients wait for answers, by API, and a line in the log about one that took very long."""

from __future__ import annotations

import logging
from collections.abc import Callable
from math import inf

from penstock.base.clock import Clock
from penstock.base.durations import Durations
from penstock.base.log_throttle import LogThrottle
from penstock.wire.api_keys import ApiKey

WARN_EVERY_S = 10.0
"""How often the log tells of a slow request."""
NAME_MAX = 64
"""Characters of a client's name in the log."""
WAITING = frozenset({ApiKey.JOIN_GROUP, ApiKey.SYNC_GROUP, ApiKey.SHARE_FETCH})
"""Whose answers wait for other members, or for records: that they take long says nothing."""
_log = logging.getLogger("penstock.agent.requests")


class RequestTimes:
    """Of all connections. On the loop's thread."""

    def __init__(
        self, clock: Clock, *, slow_s: float = inf, last_flush: Callable[[], str] = lambda: "not known"
    ) -> None:  # fmt: skip
        self.answered = {int(key): Durations() for key in ApiKey}
        """From a request's arrival until its answer is ready to be sent, by API key."""
        self.throttled = Durations()
        """For how long clients were told to wait."""
        self.stalled = Durations()
        """How long answers waited for a client to take more of them."""
        self.slow_s = slow_s
        """From where on the log tells of a request."""
        self._last_flush, self._seldom, self._left_out = last_flush, LogThrottle(clock, WARN_EVERY_S), 0

    def warn_slow(self, key: int, took_s: float, client_id: str | None, host: str) -> None:
        """A request took longer than that: say so, and where the time went, unless it was said of another just now."""
        if key in WAITING:
            return
        if not self._seldom.is_due():
            self._left_out += 1
            return
        where = f"; the last flush: {self._last_flush()}" if key == ApiKey.PRODUCE else ""
        more = f"; {self._left_out} more since the last such line" if self._left_out else ""
        self._left_out = 0
        _log.warning(
            "%s of client %r at %s took %.0f ms%s%s", ApiKey(key).name, (client_id or "")[:NAME_MAX], host,
            1000 * took_s, where, more,
        )  # fmt: skip
