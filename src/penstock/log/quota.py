"""The ports to quotas that the log needs: how much a client may read, and how much it may change.

`penstock.quotas` implements them, and the agent connects the two. Without quotas nobody has a limit.
"""

from __future__ import annotations

from typing import Protocol

from penstock.base.context import RequestContext


class Allowance(Protocol):
    """How much one request may change."""

    def spend(self, partitions: int) -> None:
        """Create or delete so many partitions; raise `Refused` when that is not allowed now."""

    def throttle_time_ms(self) -> int:
        """How long the client is made to wait after this request."""


class MutationQuota(Protocol):
    """Knows how much clients may change."""

    def allowance(self, context: RequestContext, *, strict: bool) -> Allowance:
        """What one request may change. `strict`: its client knows what THROTTLING_QUOTA_EXCEEDED means."""


class FetchQuota(Protocol):
    """Knows how much clients may read."""

    def fetch_room(self, context: RequestContext) -> int | None:
        """How much an answer can hold that is not bound to be too much; None for any number of bytes."""

    def on_fetch(self, context: RequestContext, size_bytes: int) -> tuple[int, bool]:
        """So much would be read: how many milliseconds to wait, and whether it may be sent."""


class _Unlimited:
    """Anything goes."""

    def spend(self, partitions: int) -> None:
        """Create or delete so many partitions."""

    def throttle_time_ms(self) -> int:
        """Nobody waits."""
        return 0


class NoQuota:
    """Nobody has a limit."""

    def allowance(self, context: RequestContext, *, strict: bool) -> Allowance:
        """Anything."""
        return UNLIMITED


UNLIMITED = _Unlimited()
