"""Chores of the transaction coordinator: aborting timed-out transactions, and deleting expired ids."""

from __future__ import annotations

from collections.abc import Callable

from penstock.transactions.service import TransactionService
from penstock.transactions.settings import TransactionSettings

FIRST_AFTER_S = 60.0
"""Retry interval when ids are not loaded yet. Otherwise a process that restarts often would never expire any."""


class TransactionTimeouts:
    """The chore that aborts timed-out transactions. It is idle while there are none."""

    name = "transaction time-outs"

    def __init__(self, service: TransactionService, settings: TransactionSettings) -> None:
        self._service, self._settings = service, settings
        self._rests = True
        self.wake: Callable[[], None] = lambda: None
        """Called to wake the chore."""

    def began(self) -> None:
        """There may be a transaction that can time out. Thousands begin in a second: only the first one wakes the
        chore, the others are found by its next run."""
        if self._rests:
            self._rests = False
            self.wake()

    async def run(self) -> float | None:
        """Check every transaction."""
        self._rests = True  # A transaction that begins meanwhile may be missed.
        if not self._service.abort_timed_out():
            return None
        self._rests = False
        return self._settings.timeout_check_interval_ms / 1000


class TransactionalIdExpiry:
    """The chore that deletes expired transactional ids."""

    name = "transactional id expiry"

    def __init__(self, service: TransactionService, settings: TransactionSettings) -> None:
        self._service, self._settings = service, settings

    async def run(self) -> float | None:
        """Check every id, first when they are loaded: chores start earlier than that."""
        interval_s = self._settings.id_check_interval_ms / 1000
        if not self._service.is_open:
            return min(interval_s, FIRST_AFTER_S)
        await self._service.expire(self._settings.id_expiration_ms)
        return interval_s
