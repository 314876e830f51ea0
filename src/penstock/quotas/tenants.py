"""Rate limits of virtual clusters. Pure; the time is an argument.

Tenants share an agent, so the burst of a tenant is what its limit allows for one second: unlike a quota, which is an
average over ten seconds, it cannot be saved up. A tenant above its limit is throttled until the excess is made up for;
nobody else is.
"""

from __future__ import annotations

from collections.abc import Mapping

from penstock.clusters.limits import LimitKey, Limits
from penstock.quotas.meters import TokenBucket, Windows

_SECOND = Windows(samples=1, window_ms=1000)


class Spending:
    """A token bucket with a tenant's rate limit."""

    __slots__ = ("_bucket", "limit")

    def __init__(self, limit: float, bucket: TokenBucket | None = None) -> None:
        self.limit = limit
        self._bucket = bucket or TokenBucket(_SECOND)

    def charge(self, amount: float, now_ms: int) -> int:
        """Count an amount; the throttle time in milliseconds."""
        return self._bucket.charge(amount, self.limit, now_ms)

    def owed_ms(self, now_ms: int) -> int:
        """How long until nothing is owed."""
        return self._bucket.excess_ms(self.limit, now_ms)

    def limited_to(self, limit: float) -> Spending:
        """The same with another limit: debts are kept."""
        return Spending(limit, self._bucket)


class Tenant:
    """The rate limits of one virtual cluster; None where there is no limit."""

    __slots__ = ("bytes_in", "bytes_out", "connections", "requests")

    def __init__(self, limits: Limits, before: Tenant | None = None) -> None:
        self.bytes_in: Spending | None = None if before is None else before.bytes_in
        self.bytes_out: Spending | None = None if before is None else before.bytes_out
        self.requests: Spending | None = None if before is None else before.requests
        self.connections: Spending | None = None if before is None else before.connections
        self.bytes_in = _spending(limits, LimitKey.BYTES_IN_RATE, self.bytes_in)
        self.bytes_out = _spending(limits, LimitKey.BYTES_OUT_RATE, self.bytes_out)
        self.requests = _spending(limits, LimitKey.REQUEST_RATE, self.requests)
        self.connections = _spending(limits, LimitKey.CONNECTION_RATE, self.connections)

    @property
    def limits_clients(self) -> bool:
        """Whether requests have to be counted."""
        return not (self.bytes_in is None and self.bytes_out is None and self.requests is None)


def _spending(limits: Mapping[str, float], key: str, before: Spending | None) -> Spending | None:
    limit = limits.get(key)
    if limit is None:
        return None
    return Spending(limit) if before is None else before.limited_to(limit)
