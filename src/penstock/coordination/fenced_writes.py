"""Fenced transactions of a coordinator: nothing is written under a lost lease, and nothing is read or written
before the outcome of the last write is known.

Shared by the journals of all coordinators. Each kind has slots of its own, so that neither its fencing epochs nor the
numbers of its writes mix with another's.

When the answer of a write is lost, its outcome is looked up. While the database does not answer, all writers wait, but
for at most `OUTCOME_TIMEOUT_S`, because more and more of them would wait. Then the write stays *unresolved*: its
requests fail, and so does every later read and write of these states, until the database has answered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import count
from typing import TypeVar

from penstock.base.clock import Clock
from penstock.base.errors import Fenced, OutcomeUnknown, Unavailable
from penstock.coordination import leases
from penstock.coordination.leases import LeaseHolder
from penstock.coordination.model import Key, slot_of
from penstock.coordination.timers import Scheduler, pause
from penstock.metadata.database import Script, TransactionRunner

T = TypeVar("T")
_LOOK_UP_DELAYS_MS = (20, 100, 500, 1000)
"""Pauses between attempts to look up the outcome of a transaction; the last one repeats."""
OUTCOME_TIMEOUT_S = 10
"""Limit of that while others wait: less than the 30 s that clients wait for a response."""


class FencedWrites:
    """Writes under the leases of slots. `slot_space` says whose slots: those of groups, transactions or share
    partitions (`leases`)."""

    def __init__(
        self,
        database: TransactionRunner,
        *,
        holder: LeaseHolder,
        clock: Clock,
        scheduler: Scheduler,
        force_leases: bool = True,
        slot_space: int = leases.GROUP_SLOTS,
    ) -> None:
        self._database, self._holder, self._clock, self._scheduler = database, holder, clock, scheduler
        self._force_leases, self._slot_space = force_leases, slot_space
        self._epochs: dict[int, int] = {}
        self._write_number = 0
        self._unresolved: tuple[Sequence[int], int] | None = None
        """Slots and number of a write with an unknown outcome."""

    async def open(self) -> frozenset[int]:
        """Take the slots; returns those that are ours."""
        now_ms = self._clock.now_ms()
        self._epochs = await self._database.transaction(
            lambda: leases.take(self._holder, now_ms=now_ms, force=self._force_leases, slot_space=self._slot_space)
        )
        return frozenset(self._epochs)

    def check(self, key: Key) -> None:
        """Raise `Fenced` if the slot of a key is not ours."""
        leases.check([slot_of(key)], self._epochs)

    async def prove(self) -> None:
        """Find out which slots others have taken: from then on `check` raises `Fenced` for their keys.

        A decision that writes nothing is not fenced: another holder may have changed its state since. If the slots are
        proven between a request and the decision, then not before the request came.
        """
        epochs = dict(self._epochs)
        lost = await self._database.read(lambda: leases.lost(epochs, slot_space=self._slot_space))
        if lost:
            self.mark_lost(leases.SlotsLost(lost))

    async def resolve_unknown_outcome(self) -> None:
        """Return once the outcome of every write is final, so that states may be loaded.

        Raises `Unavailable` while the database does not answer.
        """
        unresolved = self._unresolved
        if unresolved is None:
            return
        try:
            await self._read_outcome(*unresolved)
        except OutcomeUnknown as error:
            raise Unavailable("the outcome of the last write is unknown") from error
        except Fenced:
            pass  # The new holder of the slot had to wait for the end of that write.
        if self._unresolved is unresolved:
            self._unresolved = None

    async def write(self, keys: Iterable[Key], changes: Callable[[], Script[T]]) -> T | None:
        """One fenced transaction, one at a time. Returns the script's result, or None where the transaction happened
        and its result was lost.

        Raises `Unavailable` when nothing was written, `Fenced` when another agent holds a slot of these keys (the
        transaction may have happened only if its answer was lost before), and `OutcomeUnknown` when the outcome could
        not be looked up in time.
        """
        await self.resolve_unknown_outcome()
        slots = sorted({slot_of(key) for key in keys})
        self._write_number += 1
        number, expires_ms = self._write_number, self._holder.expires_ms(self._clock.now_ms())

        def script() -> Script[T]:
            yield from leases.fence(
                slots, self._epochs, write_number=number, expires_ms=expires_ms, slot_space=self._slot_space
            )
            return (yield from changes())

        try:
            return await self._database.transaction(script)
        except OutcomeUnknown as error:
            if not await self._look_up_outcome(slots, number):
                raise Unavailable("the transaction did not happen") from error
            return None
        except leases.SlotsLost as lost:
            self.mark_lost(lost)
            raise

    def mark_lost(self, lost: leases.SlotsLost) -> None:
        """Mark slots as lost: from now on requests for them get NOT_COORDINATOR."""
        for slot in lost.slots:
            self._epochs.pop(slot, None)

    def as_part(self, keys: Iterable[Key], changes: Callable[[], Script[T]]) -> Callable[[], Script[T]]:
        """The same as part of another transaction, whose owner resolves its outcome. Raises `SlotsLost`.

        It has no write number, so it may run concurrently with a transaction that has one.
        """
        slots = sorted({slot_of(key) for key in keys})

        def script() -> Script[T]:
            # This may run long after others have extended the lease, so the time is read now.
            expires_ms = self._holder.expires_ms(self._clock.now_ms())
            yield from leases.fence(
                slots, self._epochs, write_number=None, expires_ms=expires_ms, slot_space=self._slot_space
            )
            return (yield from changes())

        return script

    async def _look_up_outcome(self, slots: Sequence[int], number: int) -> bool:
        """Whether the write of that number was committed. Raises `OutcomeUnknown` when that cannot be found out in
        time."""
        self._unresolved = unresolved = slots, number
        deadline_s = self._scheduler.time() + OUTCOME_TIMEOUT_S
        for attempt in count():
            try:
                was_committed = await self._read_outcome(*unresolved)
            except (Unavailable, OutcomeUnknown) as error:
                if self._scheduler.time() >= deadline_s:
                    raise OutcomeUnknown("the database does not answer whether a write happened") from error
                await pause(self._scheduler, _LOOK_UP_DELAYS_MS[min(attempt, len(_LOOK_UP_DELAYS_MS) - 1)])
            else:
                break
        self._unresolved = None
        return was_committed

    async def _read_outcome(self, slots: Sequence[int], number: int) -> bool:
        try:
            return await self._database.transaction(
                lambda: leases.was_committed(slots, self._epochs, write_number=number, slot_space=self._slot_space)
            )
        except leases.SlotsLost as lost:
            self.mark_lost(lost)
            raise
