"""When offsets that nobody has used for long go, and groups with the last of them (KIP-211)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

FIRST_AFTER_S = 60.0
"""After a look that came too early, in a start. Else what restarts more often than it looks would never look."""


class Settings(Protocol):
    """How often."""

    @property
    def offsets_check_interval_ms(self) -> int:
        """`offsets.retention.check.interval.ms`"""


class OffsetExpiry:
    """The chore that drops them."""

    name = "offset expiry"

    def __init__(
        self, expire: Callable[[], Awaitable[object]], settings: Settings, *, is_ready: Callable[[], bool]
    ) -> None:
        self._expire, self._settings = expire, settings
        self._is_ready = is_ready
        """Whether groups have been read."""

    async def run(self) -> float | None:
        """Look at every group that may have something to drop."""
        interval_s = self._settings.offsets_check_interval_ms / 1000
        if not self._is_ready():
            return min(interval_s, FIRST_AFTER_S)
        await self._expire()
        return interval_s
