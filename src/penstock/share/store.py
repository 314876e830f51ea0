"""The SQL of share partitions: scripts for the metadata port, and the journal that the coordination runner writes to.

A partition is one row, written whole: what is in flight of it is bounded by the limit of locks, and mostly is a few
dozen bytes. Only the last of several changes that travel in one transaction is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from penstock.base.clock import Clock
from penstock.coordination.guarded import GuardedWrites
from penstock.coordination.leases import SHARE_SLOTS, Database, Holder, Script
from penstock.coordination.model import Key, slot_of
from penstock.coordination.timers import Alarms
from penstock.metadata.names import long_name, name_key, name_of
from penstock.share.encoding import decode, encode
from penstock.share.model import Deleted, Record, SharePartition, Stored


class PartitionName(NamedTuple):
    """Which partition of which group."""

    cluster_id: int
    group_id: str
    topic_id: bytes
    partition_index: int

    @property
    def key(self) -> Key:
        """What the runner knows it by."""
        return self.cluster_id, f"{self.group_id}:{self.topic_id.hex()}:{self.partition_index}"

    @classmethod
    def of(cls, key: Key) -> PartitionName:
        """The name that made a key."""
        group_id, topic_id, index = key[1].rsplit(":", 2)
        return cls(key[0], group_id, bytes.fromhex(topic_id), int(index))

    @property
    def row_key(self) -> tuple[int, str, bytes, int]:
        """What the database knows it by."""
        return self.cluster_id, name_key(self.group_id), self.topic_id, self.partition_index


class Summary(NamedTuple):
    """What an administrator sees of a partition."""

    start_offset: int
    delivery_complete: int


# --- Scripts -------------------------------------------------------------------------------------------------------


def write(changes: Mapping[Key, Record]) -> Script[None]:
    """Apply changes, in the order of keys, so that transactions never wait for each other in a circle."""
    for key in sorted(changes):
        match changes[key]:
            case Stored(partition=partition):
                name = PartitionName.of(key)
                yield (
                    "INSERT INTO share_partition (cluster_id, group_id, topic_id, partition_index, slot, start_offset,"
                    " delivery_complete, state_epoch, state, long_name)"
                    " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
                    " ON CONFLICT (cluster_id, group_id, topic_id, partition_index) DO UPDATE SET slot = excluded.slot,"
                    " start_offset = excluded.start_offset, delivery_complete = excluded.delivery_complete,"
                    " state_epoch = excluded.state_epoch, state = excluded.state",
                    (
                        *name.row_key,
                        slot_of(key),
                        partition.start_offset,
                        partition.delivery_complete,
                        partition.state_epoch,
                        encode(partition),
                        long_name(name.group_id),
                    ),
                )
            case Deleted():
                yield (
                    "DELETE FROM share_partition"
                    " WHERE cluster_id = $1 AND group_id = $2 AND topic_id = $3 AND partition_index = $4",
                    PartitionName.of(key).row_key,
                )


def load(name: PartitionName) -> Script[SharePartition | None]:
    """One partition."""
    rows = yield (
        "SELECT start_offset, state_epoch, state FROM share_partition"
        " WHERE cluster_id = $1 AND group_id = $2 AND topic_id = $3 AND partition_index = $4",
        name.row_key,
    )
    if not rows:
        return None
    start_offset, state_epoch, state = rows[0]
    return decode(bytes(state), start_offset=int(start_offset), state_epoch=int(state_epoch))


def summaries(cluster_id: int, group_id: str) -> Script[dict[tuple[bytes, int], Summary]]:
    """Every partition that a group has read from, by topic id and index."""
    rows = yield (
        "SELECT topic_id, partition_index, start_offset, delivery_complete FROM share_partition"
        " WHERE cluster_id = $1 AND group_id = $2 ORDER BY topic_id, partition_index",
        (cluster_id, name_key(group_id)),
    )
    return {(bytes(row[0]), int(row[1])): Summary(int(row[2]), int(row[3])) for row in rows}


def of_topic(cluster_id: int, topic_id: bytes) -> Script[list[PartitionName]]:
    """Every group's partitions of a topic."""
    rows = yield (
        "SELECT group_id, long_name, partition_index FROM share_partition WHERE cluster_id = $1 AND topic_id = $2",
        (cluster_id, topic_id),
    )
    return [PartitionName(cluster_id, name_of(row[0], row[1]), topic_id, int(row[2])) for row in rows]


# --- Journal -------------------------------------------------------------------------------------------------------


class ShareJournal:
    """Makes decisions about share partitions durable, under the leases of their slots."""

    def __init__(
        self, database: Database, *, holder: Holder, clock: Clock, alarms: Alarms, force_leases: bool = True
    ) -> None:
        self._database = database
        self._writes = GuardedWrites(
            database, holder=holder, clock=clock, alarms=alarms, force_leases=force_leases, whose=SHARE_SLOTS
        )

    async def open(self) -> Sequence[tuple[Key, SharePartition]]:
        """Take the slots. Locks did not survive, so no partition has to be in memory."""
        await self._writes.open()
        return ()

    async def load(self, key: Key) -> SharePartition | None:
        """Read one partition, if its slot is ours."""
        self._writes.check(key)
        return await self._database.read(lambda: load(PartitionName.of(key)))

    async def write(self, records: Iterable[tuple[Key, Record]]) -> tuple[()]:
        """One guarded transaction."""
        changes = dict(records)
        await self._writes.write(changes, lambda: write(changes))
        return ()
