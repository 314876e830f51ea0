"""The SQL of share partitions, and the journal that the coordinator runtime writes to.

A partition is one row, written as a whole: what is in flight is bounded by the limit on locks, and usually takes a few
dozen bytes. Of several changes in one transaction only the last one is written.

Dead letters travel with a flush of the log, whose transaction also notes, beside the row, which records they are about
(column `told`). The next write of the row that says so merges the note into the state.
"""

from __future__ import annotations

import logging
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from penstock.base.clock import Clock
from penstock.base.errors import CorruptData, Unavailable
from penstock.coordination.fenced_writes import FencedWrites
from penstock.coordination.leases import SHARE_PARTITION_SLOTS, LeaseHolder
from penstock.coordination.model import Key, slot_of
from penstock.coordination.timers import Scheduler
from penstock.log.writer import Writer
from penstock.metadata.database import Script, TransactionRunner
from penstock.metadata.names import long_name, name_key, name_of
from penstock.share.encoding import decode, encode, encode_ranges
from penstock.share.model import DeadLetterBatch, Record, SharePartition, StateDeleted, StateStored
from penstock.share.participants import DeadLetterAppend

_log = logging.getLogger(__name__)


class PartitionName(NamedTuple):
    """A partition of a group."""

    cluster_id: int
    group_id: str
    topic_id: bytes
    partition_index: int

    @property
    def key(self) -> Key:
        """The key for the runtime."""
        return self.cluster_id, f"{self.group_id}:{self.topic_id.hex()}:{self.partition_index}"

    @classmethod
    def of(cls, key: Key) -> PartitionName:
        """The name from a key."""
        group_id, topic_id, index = key[1].rsplit(":", 2)
        return cls(key[0], group_id, bytes.fromhex(topic_id), int(index))

    @staticmethod
    def group_of(key: Key) -> Key:
        """The group of a key."""
        return key[0], key[1].rsplit(":", 2)[0]

    @staticmethod
    def is_of_group(key: Key, group: Key) -> bool:
        """Whether a key belongs to a group."""
        return key[0] == group[0] and PartitionName.group_of(key) == group

    @property
    def row_key(self) -> tuple[int, str, bytes, int]:
        """The primary key in the database."""
        return self.cluster_id, name_key(self.group_id), self.topic_id, self.partition_index


class SharePartitionSummary(NamedTuple):
    """What an administrator sees of a partition."""

    start_offset: int
    delivery_complete: int


# --- Scripts -------------------------------------------------------------------------------------------------------


def write(changes: Mapping[Key, Record], settled: Container[Key] = ()) -> Script[None]:
    """Apply changes in the order of keys, so that transactions cannot deadlock.

    `settled`: keys whose notes about written dead letters are removed.
    """
    for key in sorted(changes):
        match changes[key]:
            case StateStored(partition=partition):
                name = PartitionName.of(key)
                yield (
                    "INSERT INTO share_partition (cluster_id, group_id, topic_id, partition_index, slot, start_offset,"
                    " delivery_complete, state_epoch, state, long_name, archiving)"
                    " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"
                    " ON CONFLICT (cluster_id, group_id, topic_id, partition_index) DO UPDATE SET slot = excluded.slot,"
                    " start_offset = excluded.start_offset, delivery_complete = excluded.delivery_complete,"
                    " state_epoch = excluded.state_epoch, state = excluded.state,"
                    " archiving = excluded.archiving" + (", told = NULL" if key in settled else ""),
                    (
                        *name.row_key,
                        slot_of(key),
                        partition.start_offset,
                        partition.delivery_complete,
                        partition.state_epoch,
                        encode(partition),
                        long_name(name.group_id),
                        partition.archiving,
                    ),
                )
            case StateDeleted():
                yield (
                    "DELETE FROM share_partition"
                    " WHERE cluster_id = $1 AND group_id = $2 AND topic_id = $3 AND partition_index = $4",
                    PartitionName.of(key).row_key,
                )


def load(name: PartitionName) -> Script[SharePartition | None]:
    """One partition."""
    rows = yield (
        "SELECT start_offset, state_epoch, state, told FROM share_partition"
        " WHERE cluster_id = $1 AND group_id = $2 AND topic_id = $3 AND partition_index = $4",
        name.row_key,
    )
    return _decoded(rows[0]) if rows else None


def _decoded(row: Sequence[Any]) -> SharePartition:
    start_offset, state_epoch, state, dead_lettered = row
    return decode(
        bytes(state),
        start_offset=int(start_offset),
        state_epoch=int(state_epoch),
        dead_lettered=bytes(dead_lettered or b""),
    )


def load_archiving() -> Script[list[tuple[Key, SharePartition]]]:
    """Every partition with records that need a dead letter. One that cannot be decoded is skipped; its readers get the
    error."""
    rows = yield (
        "SELECT cluster_id, group_id, long_name, topic_id, partition_index, start_offset, state_epoch, state, told"
        " FROM share_partition WHERE archiving > 0 ORDER BY cluster_id, group_id, topic_id, partition_index",
        (),
    )
    found = []
    for row in rows:
        name = PartitionName(int(row[0]), name_of(row[1], row[2]), bytes(row[3]), int(row[4]))
        try:
            found.append((name.key, _decoded(row[5:])))
        except CorruptData as problem:
            _log.error("dead letters of the share group %r are not written: %s", name.group_id, problem)
    return found


def note_dead_letters(name: PartitionName, state_epoch: int, ranges: Iterable[tuple[int, int]]) -> Script[None]:
    """Note that dead letters about ranges are in the queue, unless the group was deleted or reset meanwhile."""
    yield (
        "UPDATE share_partition SET told = $5"
        " WHERE cluster_id = $1 AND group_id = $2 AND topic_id = $3 AND partition_index = $4"
        " AND state_epoch = $6 AND archiving > 0",
        (*name.row_key, encode_ranges(ranges), state_epoch),
    )


def summaries(cluster_id: int, group_id: str) -> Script[dict[tuple[bytes, int], SharePartitionSummary]]:
    """Every partition that a group has read from, by topic id and index."""
    rows = yield (
        "SELECT topic_id, partition_index, start_offset, delivery_complete FROM share_partition"
        " WHERE cluster_id = $1 AND group_id = $2 ORDER BY topic_id, partition_index",
        (cluster_id, name_key(group_id)),
    )
    return {(bytes(row[0]), int(row[1])): SharePartitionSummary(int(row[2]), int(row[3])) for row in rows}


def of_topic(cluster_id: int, topic_id: bytes) -> Script[list[PartitionName]]:
    """Every group's partitions of a topic."""
    rows = yield (
        "SELECT group_id, long_name, partition_index FROM share_partition WHERE cluster_id = $1 AND topic_id = $2",
        (cluster_id, topic_id),
    )
    return [PartitionName(cluster_id, name_of(row[0], row[1]), topic_id, int(row[2])) for row in rows]


def deleted_topics() -> Script[list[tuple[int, bytes]]]:
    """Topics that groups have state for but that do not exist any more: virtual cluster and topic id."""
    rows = yield (
        "SELECT DISTINCT p.cluster_id, p.topic_id FROM share_partition p WHERE NOT EXISTS"
        " (SELECT 1 FROM topic t WHERE t.cluster_id = p.cluster_id AND t.topic_id = p.topic_id)",
        (),
    )
    return [(int(row[0]), bytes(row[1])) for row in rows]


# --- Journal -------------------------------------------------------------------------------------------------------


class ShareJournal:
    """Makes decisions about share partitions durable, under the leases of their slots."""

    def __init__(
        self, database: TransactionRunner, *, holder: LeaseHolder, clock: Clock, scheduler: Scheduler,
        force_leases: bool = True, writer: Writer | None = None,
    ) -> None:  # fmt: skip
        self._database, self._writer = database, writer
        self._writes = FencedWrites(
            database,
            holder=holder,
            clock=clock,
            scheduler=scheduler,
            force_leases=force_leases,
            slot_space=SHARE_PARTITION_SLOTS,
        )

    async def open(self) -> Sequence[tuple[Key, SharePartition]]:
        """Take the slots. Locks do not survive, so only partitions that need dead letters are loaded."""
        slots = await self._writes.open()
        found = await self._database.read(load_archiving)
        return [(key, partition) for key, partition in found if slot_of(key) in slots]

    async def prove(self) -> None:
        """Find out which slots others have taken. Raises `Unavailable`."""
        await self._writes.prove()

    def check(self, key: Key) -> None:
        """Raise `Fenced` if the slot of a partition is known not to be ours."""
        self._writes.check(key)

    async def load(self, key: Key) -> SharePartition | None:
        """Load one partition, if its slot is ours."""
        self._writes.check(key)
        await self._writes.resolve_unknown_outcome()
        return await self._database.read(lambda: load(PartitionName.of(key)))

    async def write(self, records: Iterable[tuple[Key, Record]]) -> tuple[()]:
        """One fenced transaction."""
        records = list(records)
        changes = dict(records)
        settled = {key for key, record in records if isinstance(record, StateDeleted) or record.is_settled}
        await self._writes.write(changes, lambda: write(changes, settled))
        return ()

    async def append_dead_letters(self, key: Key, state_epoch: int, dead_letters: DeadLetterBatch) -> bool:
        """Append dead letters with a flush, and note that they were; whether the queue still existed.

        Raises `Unavailable` or `Conflict` when nothing happened, `Fenced` when another agent holds the slot.
        """
        if self._writer is None or self._writer.has_stopped:
            raise Unavailable("nothing is appended to the log any more")
        name = PartitionName.of(key)
        note = self._writes.as_part([key], lambda: note_dead_letters(name, state_epoch, dead_letters.ranges))
        append = DeadLetterAppend(self._writes, note, dead_letters, self._writer.lock_of)
        self._writer.enlist(append)
        return await append.outcome
