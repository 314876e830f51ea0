"""The chore that expires committed offsets, and groups with the last of them (KIP-211)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from penstock.groups.settings import GroupSettings

FIRST_AFTER_S = 60.0
"""Retry interval when groups are not loaded yet. Otherwise a process that restarts often would never expire any."""


class OffsetExpiry:
    """The chore."""

    name = "offset expiry"

    def __init__(
        self, expire: Callable[[], Awaitable[object]], settings: GroupSettings, *, is_ready: Callable[[], bool]
    ) -> None:
        self._expire, self._settings = expire, settings
        self._is_ready = is_ready
        """Whether groups are loaded."""

    async def run(self) -> float | None:
        """Expire offsets of every group that may have expired ones."""
        interval_s = self._settings.offsets_check_interval_ms / 1000
        if not self._is_ready():
            return min(interval_s, FIRST_AFTER_S)
        await self._expire()
        return interval_s
