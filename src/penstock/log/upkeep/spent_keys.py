"""Forgetting data keys that seal nothing any more.

A key that was replaced seals nothing new. It is needed while a segment is sealed by it, or a commit in the WAL may be:
those up to the one in flight when it was replaced. Objects being written may be sealed by it as well, before any row
says so; so nothing is forgotten while there are any.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from penstock.keys import transitions
from penstock.keys.service import DataKeys
from penstock.log import segment_store
from penstock.log.upkeep import wal_store
from penstock.log.upkeep.rewriting import SegmentChanges
from penstock.metadata.database import Script

INTERVAL_S = 600.0
BUSY_S = 5.0


class SpentKeys:
    """The chore: has work from the replacement of a key until nothing is sealed by it."""

    name = "spent keys"

    def __init__(self, changes: SegmentChanges, keys: DataKeys, last_seq: Callable[[], int]) -> None:
        self._changes, self._keys, self._last_seq = changes, keys, last_seq
        self._replaced_at: dict[int, int] = {}
        """By key, the last commit that may be sealed by it. After a start that is the last commit of all."""
        self.forgotten = 0

    async def run(self) -> float | None:
        """Check the keys that were replaced."""
        keys, changes = self._keys, self._changes
        current = {cluster.current_key_id for cluster in keys.clusters.values()}
        replaced = [key_id for key_id in keys.stored if key_id not in current]
        if not replaced:
            return None
        for key_id in replaced:
            # One flush may be in flight.
            self._replaced_at.setdefault(key_id, self._last_seq() + 1)
        if len(changes.uploads):
            return BUSY_S
        floor, in_use = await changes.database.read(lambda: _in_use(changes.shard_id, replaced))
        spent = transitions.spent(keys.stored.values(), keys.clusters, in_use, self._replaced_at, floor)
        if spent:
            await keys.forget(spent)
            self.forgotten += len(spent)
        return INTERVAL_S if len(spent) < len(replaced) else None


def _in_use(shard_id: int, key_ids: Sequence[int]) -> Script[tuple[int, set[int]]]:
    floor = yield from wal_store.floor_of(shard_id)
    found = yield from segment_store.keys_in_use(key_ids)
    return floor, set(found)
