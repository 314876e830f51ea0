"""Rate limits of virtual clusters. Pure; the time is an argument, in milliseconds.

Virtual clusters share an agent, so the burst of one is what its limit allows for one second: unlike a quota, which is
an average over ten seconds, unused allowance cannot be saved up. A virtual cluster above its limit is throttled until
the excess is made up for; others are not.
"""

from __future__ import annotations

from collections.abc import Mapping

from penstock.clusters.limits import LimitKey, Limits
from penstock.quotas.meters import SampleWindows, TokenBucket

_BURST_WINDOW = SampleWindows(samples=1, window_ms=1000)


class RateLimit:
    """A token bucket with its limit, per second."""

    __slots__ = ("_bucket", "limit")

    def __init__(self, limit: float, bucket: TokenBucket | None = None) -> None:
        self.limit = limit
        self._bucket = bucket or TokenBucket(_BURST_WINDOW)

    def charge(self, amount: float, now_ms: int) -> int:
        """Count an amount; the throttle time in milliseconds."""
        return self._bucket.charge(amount, self.limit, now_ms)

    def owed_ms(self, now_ms: int) -> int:
        """How long until nothing is owed."""
        return self._bucket.excess_ms(self.limit, now_ms)

    def limited_to(self, limit: float) -> RateLimit:
        """The same with another limit: debts are kept."""
        return RateLimit(limit, self._bucket)


class ClusterRateLimits:
    """The rate limits of one virtual cluster; None where there is no limit."""

    __slots__ = ("bytes_in", "bytes_out", "connections", "requests")

    def __init__(self, limits: Limits, before: ClusterRateLimits | None = None) -> None:
        self.bytes_in: RateLimit | None = None if before is None else before.bytes_in
        self.bytes_out: RateLimit | None = None if before is None else before.bytes_out
        self.requests: RateLimit | None = None if before is None else before.requests
        self.connections: RateLimit | None = None if before is None else before.connections
        self.bytes_in = _rate_limit(limits, LimitKey.BYTES_IN_RATE, self.bytes_in)
        self.bytes_out = _rate_limit(limits, LimitKey.BYTES_OUT_RATE, self.bytes_out)
        self.requests = _rate_limit(limits, LimitKey.REQUEST_RATE, self.requests)
        self.connections = _rate_limit(limits, LimitKey.CONNECTION_RATE, self.connections)

    @property
    def limits_clients(self) -> bool:
        """Whether requests have to be counted."""
        return not (self.bytes_in is None and self.bytes_out is None and self.requests is None)


def _rate_limit(limits: Mapping[str, float], key: str, before: RateLimit | None) -> RateLimit | None:
    limit = limits.get(key)
    if limit is None:
        return None
    return RateLimit(limit) if before is None else before.limited_to(limit)
