"""Guarded transactions of a coordinator: nothing is written under a lost lease, and every outcome is resolved.

Shared by the journals of all coordinators. Each kind has slots of its own, so that neither its fencing epochs nor the
numbers of its writes mix with another's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from penstock.base.clock import Clock
from penstock.base.errors import OutcomeUnknown, Unavailable
from penstock.coordination import leases
from penstock.coordination.leases import Database, Holder
from penstock.coordination.model import Key, slot_of
from penstock.coordination.timers import Alarms, pause
from penstock.metadata.database import Script

T = TypeVar("T")
_SETTLE_DELAYS_MS = (20, 100, 500, 1000)
"""Pauses between attempts to look up the outcome of a transaction; the last one repeats."""


class GuardedWrites:
    """Writes under the leases of slots."""

    def __init__(
        self,
        database: Database,
        *,
        holder: Holder,
        clock: Clock,
        alarms: Alarms,
        force_leases: bool = True,
        whose: int = leases.SHARED_SLOTS,
    ) -> None:
        self._database, self._holder, self._clock, self._alarms = database, holder, clock, alarms
        self._force_leases, self._whose = force_leases, whose
        self._epochs: dict[int, int] = {}
        self._write_number = 0

    async def open(self) -> frozenset[int]:
        """Take the slots; returns those that are ours."""
        now_ms = self._clock.now_ms()
        self._epochs = await self._database.transaction(
            lambda: leases.take(self._holder, now_ms=now_ms, force=self._force_leases, whose=self._whose)
        )
        return frozenset(self._epochs)

    def check(self, key: Key) -> None:
        """Raise `Fenced` if the slot of a key is not ours."""
        leases.check([slot_of(key)], self._epochs)

    async def write(self, keys: Iterable[Key], changes: Callable[[], Script[T]]) -> T | None:
        """One guarded transaction. Returns or raises only when its outcome is known: the script's result, or None where
        the transaction happened and its result was lost.

        Raises `Unavailable` when nothing was written, `Fenced` when another agent holds a slot of these keys.
        """
        slots = sorted({slot_of(key) for key in keys})
        self._write_number += 1
        number, expires_ms = self._write_number, self._holder.expires_ms(self._clock.now_ms())

        def script() -> Script[T]:
            yield from leases.guard(slots, self._epochs, write_number=number, expires_ms=expires_ms, whose=self._whose)
            return (yield from changes())

        try:
            return await self._database.transaction(script)
        except OutcomeUnknown as error:
            if not await self._happened(slots, number):
                raise Unavailable("the transaction did not happen") from error
            return None
        except leases.SlotsLost as lost:
            self.lose(lost)
            raise

    def lose(self, lost: leases.SlotsLost) -> None:
        """Mark slots as lost: from now on requests for them get NOT_COORDINATOR."""
        for slot in lost.slots:
            self._epochs.pop(slot, None)

    def part(self, keys: Iterable[Key], changes: Callable[[], Script[T]]) -> Callable[[], Script[T]]:
        """The same as part of another transaction, whose owner resolves its outcome. Raises `SlotsLost`.

        It has no write number, so it may run concurrently with a transaction that has one.
        """
        slots = sorted({slot_of(key) for key in keys})

        def script() -> Script[T]:
            # This may run long after others have extended the lease, so the time is read now.
            expires_ms = self._holder.expires_ms(self._clock.now_ms())
            yield from leases.guard(slots, self._epochs, write_number=None, expires_ms=expires_ms, whose=self._whose)
            return (yield from changes())

        return script

    async def _happened(self, slots: Sequence[int], number: int) -> bool:
        attempt = 0
        while True:
            try:
                return await self._database.transaction(
                    lambda: leases.happened(slots, self._epochs, write_number=number, whose=self._whose)
                )
            except (Unavailable, OutcomeUnknown):
                await pause(self._alarms, _SETTLE_DELAYS_MS[min(attempt, len(_SETTLE_DELAYS_MS) - 1)])
                attempt += 1
