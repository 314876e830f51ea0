"""The ports to quotas that the log needs: bytes read, and partitions created or deleted (KIP-599).

`penstock.quotas` implements them, and the agent connects the two. Without quotas nothing is limited.
"""

from __future__ import annotations

from typing import Protocol

from penstock.base.context import RequestContext


class Allowance(Protocol):
    """What one request may still create and delete."""

    def spend(self, partitions: int) -> None:
        """Account for so many partitions created or deleted; raise `Refused` when the quota is exceeded."""

    def throttle_time_ms(self) -> int:
        """The throttle time of the request so far."""


class MutationQuota(Protocol):
    """The quota on partition mutations."""

    def allowance(self, context: RequestContext, *, strict: bool) -> Allowance:
        """The allowance of one request. `strict`: the client knows THROTTLING_QUOTA_EXCEEDED, so it may be refused."""


class FetchQuota(Protocol):
    """The quota on bytes read."""

    def fetch_room(self, context: RequestContext) -> int | None:
        """The largest response that can be within the quota; None: no limit."""

    def on_fetch(self, context: RequestContext, size_bytes: int) -> tuple[int, bool]:
        """Account for a response of this size: the throttle time in milliseconds, and whether it may be sent now."""


class _Unlimited:
    """An allowance without limits."""

    def spend(self, partitions: int) -> None:
        """Always allowed."""

    def throttle_time_ms(self) -> int:
        """0."""
        return 0


class NoQuota:
    """The port without quotas."""

    def allowance(self, context: RequestContext, *, strict: bool) -> Allowance:
        """An allowance without limits."""
        return UNLIMITED


UNLIMITED = _Unlimited()
