"""Which transactional ids this process coordinates, and what proves it in every write.

The one process that owns a data directory coordinates all of them and has nothing to prove. Where several agents share
a database, ids go by slots, which are leased; each write begins by updating the lease rows of its slots where their
epochs are its own, so that of a coordinator that was replaced without knowing nothing is written. Commits update the
shard's row first, then leases, then transactional ids: nobody waits for each other in a circle.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from penstock.base.clock import Clock
from penstock.base.errors import Fenced
from penstock.coordination import leases
from penstock.coordination.leases import TRANSACTION_SLOTS, Holder, SlotsLost
from penstock.coordination.model import Key, slot_of
from penstock.log.commit_path import Outdated
from penstock.metadata.database import Database, Script


class Slots(Protocol):
    """What a coordinator needs to know of its share of the work."""

    is_shared: bool
    """Whether others coordinate what this process does not, and append to the same partitions."""

    async def take(self) -> None:
        """Take the share."""

    def has(self, key: Key) -> bool:
        """Whether an id belongs to it, as far as is known here."""

    def guard(self, keys: Iterable[Key]) -> Script[None]:
        """The first steps of a write. Raises `Outdated` if one of the ids does not belong to it any more."""

    def lose(self, problem: Outdated) -> bool:
        """Note what a guard has found out; whether that was anything."""


class AllSlots:
    """Everything, without question."""

    is_shared = False

    async def take(self) -> None:
        """Nothing to take."""

    def has(self, key: Key) -> bool:
        """Every one."""
        return True

    def guard(self, keys: Iterable[Key]) -> Script[None]:
        """Nothing to prove."""
        yield from ()

    def lose(self, problem: Outdated) -> bool:
        """Never."""
        return False


class LeasedSlots:
    """Slots under leases. All of them are taken, by force, as for groups."""

    is_shared = True

    def __init__(self, database: Database, *, holder: Holder, clock: Clock) -> None:
        self._database, self._holder, self._clock = database, holder, clock
        self._epochs: dict[int, int] = {}

    async def take(self) -> None:
        """Take the leases."""
        now_ms = self._clock.now_ms()
        self._epochs = await self._database.transaction(
            lambda: leases.take(self._holder, now_ms=now_ms, force=True, whose=TRANSACTION_SLOTS)
        )

    def has(self, key: Key) -> bool:
        """Whether the id's slot was taken and is not known to be lost."""
        return slot_of(key) in self._epochs

    def guard(self, keys: Iterable[Key]) -> Script[None]:
        """Prove that the slots are still this process', and extend their leases."""
        slots = {slot_of(key) for key in keys}
        try:
            yield from leases.guard(
                slots, self._epochs, write_number=0, expires_ms=self._holder.expires_ms(self._clock.now_ms()),
                whose=TRANSACTION_SLOTS,
            )  # fmt: skip
        except SlotsLost as lost:
            raise Outdated(str(lost)) from lost
        except Fenced as unknown:
            raise Outdated(str(unknown)) from unknown

    def lose(self, problem: Outdated) -> bool:
        """From now on whoever asks for an id of these slots is sent to its new coordinator."""
        lost = problem.__cause__
        if not isinstance(lost, SlotsLost):
            return False
        for slot in lost.slots:
            self._epochs.pop(slot, None)
        return True
