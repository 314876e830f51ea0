"""Which transactional ids this process coordinates, and how every write proves it.

The only process that owns a data directory coordinates all of them and has nothing to prove. Where several agents share
a database, ids are divided into slots, which are leased; each write begins by updating the lease rows of its slots
where their epochs are its own, so that nothing of a fenced coordinator is written. Commits update the shard's row
first, then leases, then transactional ids: this lock order cannot deadlock.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from penstock.base.clock import Clock
from penstock.base.errors import Fenced
from penstock.coordination import leases
from penstock.coordination.leases import TRANSACTION_SLOTS, LeaseHolder, SlotsLost
from penstock.coordination.model import Key, slot_of
from penstock.log.commit_path import Outdated
from penstock.metadata.database import Database, Script


class Slots(Protocol):
    """The slots of a coordinator."""

    is_shared: bool
    """Whether others coordinate what this process does not, and append to the same partitions."""

    async def take(self) -> None:
        """Take the slots."""

    def has(self, key: Key) -> bool:
        """Whether an id is coordinated here, as far as is known."""

    def fence(self, keys: Iterable[Key]) -> Script[None]:
        """The first statements of a write. Raises `Outdated` if one of the ids is not coordinated here any more."""

    def lose(self, problem: Outdated) -> bool:
        """Record what a guard has found out; whether slots were lost."""


class AllSlots:
    """All slots, without leases."""

    is_shared = False

    async def take(self) -> None:
        """Nothing to take."""

    def has(self, key: Key) -> bool:
        """True."""
        return True

    def fence(self, keys: Iterable[Key]) -> Script[None]:
        """Nothing to prove."""
        yield from ()

    def lose(self, problem: Outdated) -> bool:
        """Never."""
        return False


class LeasedSlots:
    """Leased slots. All of them are taken, by force, as for groups."""

    is_shared = True

    def __init__(self, database: Database, *, holder: LeaseHolder, clock: Clock) -> None:
        self._database, self._holder, self._clock = database, holder, clock
        self._epochs: dict[int, int] = {}

    async def take(self) -> None:
        """Take the leases."""
        now_ms = self._clock.now_ms()
        self._epochs = await self._database.transaction(
            lambda: leases.take(self._holder, now_ms=now_ms, force=True, slot_space=TRANSACTION_SLOTS)
        )

    def has(self, key: Key) -> bool:
        """Whether the id's slot was taken and is not known to be lost."""
        return slot_of(key) in self._epochs

    def fence(self, keys: Iterable[Key]) -> Script[None]:
        """Prove that the slots are still ours, and extend their leases."""
        slots = {slot_of(key) for key in keys}
        try:
            yield from leases.fence(
                slots, self._epochs, write_number=0, expires_ms=self._holder.expires_ms(self._clock.now_ms()),
                slot_space=TRANSACTION_SLOTS,
            )  # fmt: skip
        except SlotsLost as lost:
            raise Outdated(str(lost)) from lost
        except Fenced as unknown:
            raise Outdated(str(unknown)) from unknown

    def lose(self, problem: Outdated) -> bool:
        """Mark slots as lost: from now on requests for their ids get NOT_COORDINATOR."""
        lost = problem.__cause__
        if not isinstance(lost, SlotsLost):
            return False
        for slot in lost.slots:
            self._epochs.pop(slot, None)
        return True
