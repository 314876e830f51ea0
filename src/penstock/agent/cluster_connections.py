"""Connections of virtual clusters: counted and limited, once it is known which cluster a connection belongs to.

A connection beyond the limit is not closed at once, because its client would reconnect at once. It is not read from,
and closed after a while.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from math import inf

from penstock.base.clock import Clock
from penstock.clusters.limits import LimitKey, Limits
from penstock.quotas.cluster_rates import ClusterRateLimits

REJECT_DELAY_S, REJECT_DELAY_MAX_S = 1.0, 5.0
"""How long a connection beyond the limit stays open."""
REJECT_APART_S = 0.02
"""The time between closing two of them: their clients reconnect at once, and should not all do so at the same time."""


class ClusterConnections:
    """The connections of each virtual cluster."""

    def __init__(
        self, *, limits: Callable[[int], Limits], cluster_limits: Callable[[int], ClusterRateLimits | None],
        is_open: Callable[[int], bool], clock: Clock,
    ) -> None:  # fmt: skip
        self._limits, self._rates_of, self._clock = limits, cluster_limits, clock
        self.is_open = is_open
        """Whether a cluster exists and is not being deleted."""
        self.counts: Counter[int] = Counter()
        """Connections by cluster."""
        self.refused: Counter[tuple[int, str]] = Counter()
        """Rejected connections by cluster and limit."""
        self._last_closed_s = -inf
        """When the last one of those is closed."""

    def refusal(self, cluster_id: int) -> str | None:
        """Why a cluster may not have another connection now; None if it may: that counts towards its rate."""
        limit = self._limits(cluster_id).get(LimitKey.CONNECTIONS)
        if limit is not None and self.counts[cluster_id] >= limit:
            self.refused[cluster_id, LimitKey.CONNECTIONS] += 1
            return "its cluster has as many connections as it may have"
        rates = self._rates_of(cluster_id)
        if rates is not None and rates.connections is not None:
            now_ms = int(self._clock.monotonic() * 1000)
            if rates.connections.owed_ms(now_ms):
                self.refused[cluster_id, LimitKey.CONNECTION_RATE] += 1
                return "its cluster makes more connections a second than it may"
            rates.connections.charge(1, now_ms)
        return None

    def reject_delay_s(self) -> float:
        """How long a rejected connection stays open."""
        now_s = self._clock.monotonic()
        closed_s = max(now_s + REJECT_DELAY_S, self._last_closed_s + REJECT_APART_S)
        self._last_closed_s = min(closed_s, now_s + REJECT_DELAY_MAX_S)
        return self._last_closed_s - now_s

    def enter(self, cluster_id: int) -> None:
        """A connection is in a cluster from now on."""
        self.counts[cluster_id] += 1

    def leave(self, cluster_id: int) -> None:
        """A connection has left a cluster."""
        self.counts[cluster_id] -= 1
        if not self.counts[cluster_id]:
            del self.counts[cluster_id]
