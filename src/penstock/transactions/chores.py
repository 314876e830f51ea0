"""What happens to transactions without a request: those that take too long are aborted, unused ids are forgotten."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from penstock.transactions.service import TransactionService

FIRST_AFTER_S = 60.0
"""After a look that came too early, in a start. Else what restarts more often than it looks would never look."""


class Settings(Protocol):
    """How often, and after how long."""

    @property
    def abort_timed_out_interval_ms(self) -> int:
        """`transaction.abort.timed.out.transaction.cleanup.interval.ms`"""

    @property
    def transactional_id_expiration_ms(self) -> int:
        """`transactional.id.expiration.ms`"""

    @property
    def remove_expired_ids_interval_ms(self) -> int:
        """`transaction.remove.expired.transaction.cleanup.interval.ms`"""


class TimeOuts:
    """The chore that aborts transactions. It rests while there are none."""

    name = "transaction time-outs"

    def __init__(self, service: TransactionService, settings: Settings) -> None:
        self._service, self._settings = service, settings
        self._rests = True
        self.wake: Callable[[], None] = lambda: None
        """Called when it has to look, after a rest."""

    def began(self) -> None:
        """There may be a transaction that can time out. Thousands begin in a second: all but the first are seen when
        those are that it looks for anyway."""
        if self._rests:
            self._rests = False
            self.wake()

    async def run(self) -> float | None:
        """Look at every transaction."""
        self._rests = True  # Whoever begins meanwhile may not be seen.
        if not self._service.abort_timed_out():
            return None
        self._rests = False
        return self._settings.abort_timed_out_interval_ms / 1000


class IdExpiry:
    """The chore that forgets transactional ids."""

    name = "transactional id expiry"

    def __init__(self, service: TransactionService, settings: Settings) -> None:
        self._service, self._settings = service, settings

    async def run(self) -> float | None:
        """Look at every id, first when there are some: chores begin before they are read."""
        interval_s = self._settings.remove_expired_ids_interval_ms / 1000
        if not self._service.is_open:
            return min(interval_s, FIRST_AFTER_S)
        await self._service.expire(self._settings.transactional_id_expiration_ms)
        return interval_s
