"""Leases of slots, and the statements that fence a stale holder.

A `lease` row says who coordinates a slot, under which fencing epoch, and until when others must not take it. Taking a
slot raises its epoch. Every write of a coordinator starts by updating the lease rows of the slots that it touches
*where the epoch is its own*: a holder that lost a slot matches fewer rows than it names, and its transaction changes
nothing. The same update extends the lease, so an idle holder writes nothing; an expired lease may be taken by any
agent that needs it, and its former holder finds out at its next write.

The update also stores the number of the write. When the answer of a commit is lost, the row says whether it happened:
the row lock makes that read wait for a commit in flight.

All slots taken together get the same epoch, so that one statement fences a transaction over many slots. Slots are
shared by all virtual clusters of a deployment, under cluster id 0. Coordinators of transactions have slots apart from
those of groups, because their writes are parts of other transactions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from penstock.base.dataclasses import dataclass
from penstock.base.errors import Fenced
from penstock.coordination.model import SLOT_COUNT
from penstock.metadata.database import Script
from penstock.metadata.statements import parameters

GROUP_SLOTS = 0
"""In place of a cluster id: the slots of group coordinators, which all virtual clusters share."""
TRANSACTION_SLOTS = -1
"""The same for coordinators of transactions."""
SHARE_PARTITION_SLOTS = -2
"""The same for share partitions."""


_EVERY_SLOT = ", ".join(f"($1, {slot}, $2, $3, 0, $4)" for slot in range(SLOT_COUNT))


class SlotsLost(Fenced):
    """Another agent has taken these slots."""

    def __init__(self, slots: Iterable[int]) -> None:
        self.slots = tuple(sorted(slots))
        super().__init__(f"slots {list(self.slots)} have another holder")


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseHolder:
    """The identity of a holder, and the duration of its leases."""

    name: str
    lease_ms: int | None = None
    """None: a lease does not expire; it is taken by force, as by the only agent of an embedded deployment at its
    start."""

    def expires_ms(self, now_ms: int) -> int | None:
        """When a lease that is taken or extended now expires."""
        return None if self.lease_ms is None else now_ms + self.lease_ms


def take(holder: LeaseHolder, *, now_ms: int, force: bool, slot_space: int = GROUP_SLOTS) -> Script[dict[int, int]]:
    """Take every slot that is free, expired, or already ours; all of them by force. Returns slot → epoch."""
    rows = yield "SELECT COALESCE(MAX(epoch), 0) FROM lease WHERE cluster_id = $1", (slot_space,)
    epoch = int(rows[0][0]) + 1
    fence = "" if force else " WHERE lease.holder = excluded.holder OR lease.expires_ms <= $5"
    rows = yield (
        f"INSERT INTO lease (cluster_id, slot, holder, epoch, write_number, expires_ms) VALUES {_EVERY_SLOT}"
        " ON CONFLICT (cluster_id, slot) DO UPDATE SET holder = excluded.holder, epoch = excluded.epoch,"
        f" write_number = 0, expires_ms = excluded.expires_ms{fence} RETURNING slot, epoch",
        (slot_space, holder.name, epoch, holder.expires_ms(now_ms), *(() if force else (now_ms,))),
    )
    return {int(slot): int(taken) for slot, taken in rows}


def fence(
    slots: Iterable[int],
    epochs: Mapping[int, int],
    *,
    write_number: int | None,
    expires_ms: int | None,
    slot_space: int = GROUP_SLOTS,
) -> Script[None]:
    """The first statements of a coordinator's transaction. Raises `SlotsLost` when a slot is not ours any more.

    Without a number, the row keeps that of the last numbered write, whose outcome can still be looked up.
    """
    for epoch, wanted in sorted(_by_epoch(slots, epochs).items()):
        rows = yield (
            "UPDATE lease SET write_number = COALESCE($1, write_number), expires_ms = $2"
            f" WHERE cluster_id = $3 AND epoch = $4 AND slot IN ({parameters(len(wanted), 5)}) RETURNING slot",
            (write_number, expires_ms, slot_space, epoch, *wanted),
        )
        if len(rows) != len(wanted):
            raise SlotsLost(set(wanted) - {int(row[0]) for row in rows})


def was_committed(
    slots: Iterable[int], epochs: Mapping[int, int], *, write_number: int, slot_space: int = GROUP_SLOTS
) -> Script[bool]:
    """Whether the transaction with that number was committed. Run it as a transaction: it waits for the row locks."""
    for epoch, wanted in sorted(_by_epoch(slots, epochs).items()):
        rows = yield (
            "UPDATE lease SET epoch = epoch WHERE cluster_id = $1 AND epoch = $2 AND slot = $3 RETURNING write_number",
            (slot_space, epoch, wanted[0]),
        )
        if not rows:
            raise SlotsLost(wanted[:1])
        if int(rows[0][0]) != write_number:
            return False
    return True


def lost(epochs: Mapping[int, int], *, slot_space: int = GROUP_SLOTS) -> Script[list[int]]:
    """Which of these slots are not ours any more. Extends nothing."""
    rows = yield "SELECT slot, epoch FROM lease WHERE cluster_id = $1", (slot_space,)
    found = {int(slot): int(epoch) for slot, epoch in rows}
    return [slot for slot, epoch in epochs.items() if found.get(slot) != epoch]


def check(slots: Iterable[int], epochs: Mapping[int, int]) -> None:
    """Raise `Fenced` when one of the slots was not taken."""
    _by_epoch(slots, epochs)


def _by_epoch(slots: Iterable[int], epochs: Mapping[int, int]) -> dict[int, list[int]]:
    wanted: dict[int, list[int]] = {}
    for slot in sorted(set(slots)):
        if slot not in epochs:
            raise Fenced(f"slot {slot} is not ours")
        wanted.setdefault(epochs[slot], []).append(slot)
    return wanted
