"""The SQL of groups, and the journal that the coordinator runtime writes to.

Offsets are not kept in memory. Commits go through the journal, fenced by the slot's epoch and in order with
everything else that happens to the group; reads of offsets go straight to the database.

Where one process owns the data, pending offsets of transactions, and their outcomes, become durable in commit
records (`PendingOffsetWriter`), and the database gets them later. So each transaction of the journal's database begins
by storing what is still missing, and reads of offsets wait until nothing is (`GroupService`).

Every script may run twice, because the port retries after a conflict; `FencedWrites` resolves whether a transaction
whose answer was lost has happened.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from penstock.base.clock import Clock
from penstock.base.dataclasses import dataclass, field
from penstock.base.errors import CorruptData
from penstock.coordination.fenced_writes import FencedWrites
from penstock.coordination.leases import LeaseHolder
from penstock.coordination.model import Key, slot_of
from penstock.coordination.timers import Scheduler
from penstock.groups.model import (
    AnyGroup,
    AnyMember,
    GroupDeleted,
    GroupStored,
    MemberRemoved,
    MembersCleared,
    MemberStored,
    OffsetAndMetadata,
    OffsetsCommitted,
    OffsetsDeleted,
    OffsetsPending,
    Record,
    TopicPartition,
    TransactionOwner,
)
from penstock.groups.share.model import ShareGroup
from penstock.groups.storage_formats import FORMATS, GroupFormat
from penstock.metadata.database import Script, TransactionRunner
from penstock.metadata.names import long_name, name_key, name_of, row_key
from penstock.metadata.statements import chunks, parameters

T = TypeVar("T")
_log = logging.getLogger(__name__)


TRANSACTION_ONGOING = 1
"""States of an open transaction in the table of transactions."""


@dataclass(slots=True)
class _GroupChange:
    """The combined effect of a batch of records on one group."""

    group: AnyGroup | None = None
    deleted: bool = False
    cleared: bool = False
    members: dict[str, AnyMember | None] = field(default_factory=dict)
    offsets: dict[TopicPartition, OffsetAndMetadata | None] = field(default_factory=dict)
    pending: dict[TransactionOwner, dict[TopicPartition, OffsetAndMetadata]] = field(default_factory=dict)
    overtaken: set[tuple[TransactionOwner, TopicPartition]] = field(default_factory=set)
    """Pending partitions for which the group itself has committed other offsets since: these win when the transaction
    commits."""

    def add(self, record: Record) -> None:
        match record:
            case GroupStored(group=group):
                self.group = group
            case MemberStored(member=member):
                self.members[member.member_id] = member
            case MemberRemoved(member_id=member_id):
                self.members[member_id] = None
            case MembersCleared():
                self.cleared = True
                self.members.clear()
            case GroupDeleted():
                self.group, self.deleted, self.cleared = None, True, True
                self.members.clear()
                self.offsets.clear()
                self.pending.clear()
                self.overtaken.clear()
            case OffsetsPending(owner=owner, offsets=offsets):
                self.pending.setdefault(owner, {}).update(offsets)
                self.overtaken.difference_update((owner, partition) for partition in offsets)
            case OffsetsCommitted(offsets=offsets):
                for partition in offsets:
                    self.offsets[partition] = offsets[partition]
                    self.overtaken.update((owner, partition) for owner, own in self.pending.items() if partition in own)
            case OffsetsDeleted(partitions=partitions):
                for partition in partitions:
                    self.offsets[partition] = None
                    for own in self.pending.values():
                        own.pop(partition, None)


def fold(records: Iterable[tuple[Key, Record]]) -> dict[Key, _GroupChange]:
    """The combined changes of the records of many decisions."""
    changes: dict[Key, _GroupChange] = {}
    for key, record in records:
        changes.setdefault(key, _GroupChange()).add(record)
    return changes


# --- Scripts -------------------------------------------------------------------------------------------------------


def write(
    changes: Mapping[Key, _GroupChange], *, may_be_pending: Container[Key] = ()
) -> Script[frozenset[tuple[int, TransactionOwner]]]:
    """Apply changes in the order of keys, so that transactions cannot deadlock. Returns the owners whose offsets were
    left out, because their transactions have ended.

    `may_be_pending`: groups that may have pending offsets. A group's own commit overrides pending ones, and deleting
    an offset also deletes a pending one that would replace it, as in Kafka.
    """
    owners = {(key[0], owner): None for key in sorted(changes) for owner in changes[key].pending}
    open_owners = yield from _lock_open_transactions(owners)
    for key in sorted(changes):
        change, row = changes[key], row_key(key)
        if change.deleted:
            yield "DELETE FROM group_offset WHERE cluster_id = $1 AND group_id = $2", row
            yield "DELETE FROM txn_offset WHERE cluster_id = $1 AND group_id = $2", row
            # The state of a share group is deleted with it, so that a new one of that name does not continue there.
            yield "DELETE FROM share_partition WHERE cluster_id = $1 AND group_id = $2", row
            yield "DELETE FROM group_ WHERE cluster_id = $1 AND group_id = $2", row
        if change.cleared:
            yield "DELETE FROM group_member WHERE cluster_id = $1 AND group_id = $2", row
        if change.group is not None:
            yield _upsert_group(key, change.group)
        yield from _write_members(key, change.members)
        for topic_id, partition in sorted(p for p, offset in change.offsets.items() if offset is None):
            yield (
                "DELETE FROM group_offset"
                " WHERE cluster_id = $1 AND group_id = $2 AND topic_id = $3 AND partition_index = $4",
                (*row, topic_id, partition),
            )
            if key in may_be_pending:
                yield (
                    "DELETE FROM txn_offset"
                    " WHERE cluster_id = $1 AND group_id = $2 AND topic_id = $3 AND partition_index = $4",
                    (*row, topic_id, partition),
                )
        committed = [(p, offset) for p, offset in sorted(change.offsets.items(), key=_partition) if offset is not None]
        for rows in chunks(committed):
            yield _upsert_offsets(key, rows)
        if committed and key in may_be_pending:
            yield from _overtake(key, [partition for partition, _ in committed])
        for owner, offsets in change.pending.items():
            if (key[0], owner) in open_owners:
                overtaken = {partition for one, partition in change.overtaken if one == owner}
                yield from add_pending(key, owner.producer_id, offsets, overtaken)
    return frozenset(owners.keys() - open_owners)


def _lock_open_transactions(
    owners: Iterable[tuple[int, TransactionOwner]],
) -> Script[set[tuple[int, TransactionOwner]]]:
    """The transactions that are open. The others get no more offsets; these cannot end before this transaction does."""
    found = set()
    for cluster_id, owner in sorted(owners, key=_by_owner):
        rows = yield (
            "UPDATE txn SET epoch = epoch WHERE cluster_id = $1 AND transactional_id = $2 AND producer_id = $3"
            " AND epoch = $4 AND ((state = $5 AND started_ms = $6) OR $7 = 1) RETURNING 1",
            (
                cluster_id, name_key(owner.transactional_id), owner.producer_id, owner.epoch, TRANSACTION_ONGOING,
                owner.began_ms, int(owner.begins),
            ),
        )  # fmt: skip
        if rows:
            found.add((cluster_id, owner))
    return found


def _by_owner(one: tuple[int, TransactionOwner]) -> tuple[int, str, int, int, bool, int]:
    cluster_id, owner = one
    return cluster_id, owner.transactional_id, owner.producer_id, owner.epoch, owner.begins, owner.began_ms


def _overtake(key: Key, partitions: Iterable[TopicPartition]) -> Script[None]:
    for topic_id, partition in partitions:
        yield (
            "UPDATE txn_offset SET is_overtaken = 1"
            " WHERE cluster_id = $1 AND group_id = $2 AND topic_id = $3 AND partition_index = $4",
            (*row_key(key), topic_id, partition),
        )


def add_pending(
    key: Key,
    producer_id: int,
    offsets: Mapping[TopicPartition, OffsetAndMetadata],
    overtaken: Container[TopicPartition] = (),
) -> Script[None]:
    """Store pending offsets of a producer's transaction."""
    for (topic_id, partition), offset in sorted(offsets.items(), key=_partition):
        # When a transaction ends, the newest of several offsets is the one with the latest time. Clocks may go back.
        latest = yield (
            "SELECT MAX(committed_ms) FROM (SELECT committed_ms FROM group_offset"
            " WHERE cluster_id = $1 AND group_id = $2 AND topic_id = $3 AND partition_index = $4"
            " UNION ALL SELECT committed_ms FROM txn_offset WHERE cluster_id = $1 AND group_id = $2 AND topic_id = $3"
            " AND partition_index = $4 AND producer_id <> $5) AS earlier",
            (*row_key(key), topic_id, partition, producer_id),
        )
        earlier_ms = latest[0][0]
        committed_ms = offset.committed_ms if earlier_ms is None else max(offset.committed_ms, int(earlier_ms) + 1)
        yield (
            "INSERT INTO txn_offset (cluster_id, producer_id, group_id, topic_id, partition_index, committed_offset,"
            " leader_epoch, metadata, committed_ms, is_overtaken, long_name)"
            " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"
            " ON CONFLICT (cluster_id, producer_id, group_id, topic_id, partition_index) DO UPDATE SET"
            " committed_offset = excluded.committed_offset, leader_epoch = excluded.leader_epoch,"
            " metadata = excluded.metadata, committed_ms = excluded.committed_ms, is_overtaken = excluded.is_overtaken",
            (
                key[0], producer_id, name_key(key[1]), topic_id, partition, offset.committed_offset,
                offset.leader_epoch, offset.metadata, committed_ms, int((topic_id, partition) in overtaken),
                long_name(key[1]),
            ),
        )  # fmt: skip


def _partition(item: tuple[TopicPartition, Any]) -> TopicPartition:
    return item[0]


def _upsert_group(key: Key, group: AnyGroup) -> tuple[str, Sequence[object]]:
    state = FORMATS[group.kind].encode(group)
    columns = (slot_of(key), group.protocol_type or "", len(group.members), group.empty_since_ms, state, group.kind)
    return (
        "INSERT INTO group_ (cluster_id, group_id, slot, protocol_type, member_count, empty_since_ms, state, kind,"
        " long_name) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (cluster_id, group_id) DO UPDATE SET"
        " slot = excluded.slot, protocol_type = excluded.protocol_type, member_count = excluded.member_count,"
        " empty_since_ms = excluded.empty_since_ms, state = excluded.state, kind = excluded.kind",
        (*row_key(key), *columns, long_name(key[1])),
    )


def _write_members(key: Key, members: Mapping[str, AnyMember | None]) -> Script[None]:
    for member_id in sorted(member_id for member_id, member in members.items() if member is None):
        yield (
            "DELETE FROM group_member WHERE cluster_id = $1 AND group_id = $2 AND member_id = $3",
            (*row_key(key), name_key(member_id)),
        )
    stored = [members[member_id] for member_id in sorted(members)]
    for rows in chunks([member for member in stored if member is not None]):
        values, args = [], list[object](row_key(key))
        for member in rows:
            values.append(f"($1, $2, ${len(args) + 1}, ${len(args) + 2})")
            args += (name_key(member.member_id), FORMATS[member.kind].encode_member(member))
        yield (
            f"INSERT INTO group_member (cluster_id, group_id, member_id, state) VALUES {', '.join(values)}"
            " ON CONFLICT (cluster_id, group_id, member_id) DO UPDATE SET state = excluded.state",
            args,
        )


def _upsert_offsets(key: Key, rows: Sequence[tuple[TopicPartition, OffsetAndMetadata]]) -> tuple[str, Sequence[object]]:
    values, args = [], list[object](row_key(key))
    for (topic_id, partition), offset in rows:
        values.append(f"($1, $2, {parameters(7, len(args) + 1)})")
        args += (topic_id, partition, offset.committed_offset, offset.leader_epoch, offset.metadata)
        args += (offset.committed_ms, offset.expires_ms)
    return (
        "INSERT INTO group_offset (cluster_id, group_id, topic_id, partition_index, committed_offset, leader_epoch,"
        f" metadata, committed_ms, expires_ms) VALUES {', '.join(values)}"
        " ON CONFLICT (cluster_id, group_id, topic_id, partition_index) DO UPDATE SET"
        " committed_offset = excluded.committed_offset, leader_epoch = excluded.leader_epoch,"
        " metadata = excluded.metadata, committed_ms = excluded.committed_ms, expires_ms = excluded.expires_ms",
        args,
    )


def load_group(key: Key) -> Script[AnyGroup | None]:
    """One group."""
    row = row_key(key)
    rows = yield "SELECT kind, state FROM group_ WHERE cluster_id = $1 AND group_id = $2", row
    if not rows:
        return None
    stored_as = _format_of(rows[0][0])
    members: list[bytes] = []
    if stored_as.stores_members:
        stored = yield "SELECT state FROM group_member WHERE cluster_id = $1 AND group_id = $2 ORDER BY member_id", row
        members = [bytes(row[0]) for row in stored]
    return stored_as.decode(bytes(rows[0][1]), members)


def groups_with_members(slots: Iterable[int]) -> Script[list[tuple[Key, AnyGroup]]]:
    """The groups of some slots that have members. One that cannot be decoded is skipped; requests for it get the
    error."""
    wanted = frozenset(slots)
    rows = yield "SELECT slot, cluster_id, group_id, long_name, kind, state FROM group_ WHERE member_count > 0", ()
    stored = yield "SELECT cluster_id, group_id, state FROM group_member ORDER BY cluster_id, group_id, member_id", ()
    members: dict[Key, list[bytes]] = {}
    for cluster_id, group_id, state in stored:
        members.setdefault((int(cluster_id), str(group_id)), []).append(bytes(state))
    groups = []
    for slot, cluster_id, group_id, long, kind, state in rows:
        if int(slot) not in wanted:
            continue
        key = int(cluster_id), name_of(group_id, long)
        try:
            group = _format_of(kind).decode(bytes(state), members.get((int(cluster_id), str(group_id)), ()))
        except CorruptData as problem:
            _log.error("the group %r of cluster %d cannot be read: %s", key[1], key[0], problem)
            continue
        groups.append((key, group))
    return groups


def _format_of(name: object) -> GroupFormat:
    found = FORMATS.get(str(name))
    if found is None:
        raise CorruptData(f"there are no groups of kind {name}")
    return found


@dataclass(frozen=True, slots=True)
class StoredGroup:
    """A stored group in a list."""

    group_id: str
    kind: str
    protocol_type: str
    has_members: bool


def list_groups(cluster_id: int) -> Script[list[StoredGroup]]:
    """Every stored group, by id; long ids by their digests."""
    rows = yield (
        "SELECT group_id, long_name, kind, protocol_type, member_count FROM group_ WHERE cluster_id = $1"
        " ORDER BY group_id",
        (cluster_id,),
    )
    return [StoredGroup(name_of(row[0], row[1]), str(row[2]), str(row[3]), int(row[4]) > 0) for row in rows]


def count_groups() -> Script[dict[int, int]]:
    """How many groups of each virtual cluster are stored."""
    rows = yield "SELECT cluster_id, COUNT(*) FROM group_ GROUP BY cluster_id", ()
    return {int(cluster_id): int(count) for cluster_id, count in rows}


def has_group(key: Key) -> Script[bool]:
    """Whether a group is stored."""
    return bool((yield "SELECT 1 FROM group_ WHERE cluster_id = $1 AND group_id = $2", row_key(key)))


def offsets_of(key: Key) -> Script[dict[TopicPartition, OffsetAndMetadata]]:
    """All offsets of a group, by topic id and partition."""
    rows = yield (
        "SELECT topic_id, partition_index, committed_offset, leader_epoch, metadata, committed_ms, expires_ms"
        " FROM group_offset WHERE cluster_id = $1 AND group_id = $2 ORDER BY topic_id, partition_index",
        row_key(key),
    )
    return {
        (bytes(row[0]), int(row[1])): OffsetAndMetadata(
            committed_offset=int(row[2]),
            leader_epoch=int(row[3]),
            metadata=str(row[4]),
            committed_ms=int(row[5]),
            expires_ms=None if row[6] is None else int(row[6]),
        )
        for row in rows
    }


def pending_of(key: Key) -> Script[frozenset[TopicPartition]]:
    """The partitions for which a group has pending offsets."""
    rows = yield (
        "SELECT topic_id, partition_index FROM txn_offset WHERE cluster_id = $1 AND group_id = $2",
        row_key(key),
    )
    return frozenset((bytes(row[0]), int(row[1])) for row in rows)


def groups_with_pending(slots: Container[int]) -> Script[set[Key]]:
    """The groups of some slots that have pending offsets."""
    rows = yield "SELECT DISTINCT cluster_id, group_id, long_name FROM txn_offset", ()
    keys = {(int(row[0]), name_of(row[1], row[2])) for row in rows}
    return {key for key in keys if slot_of(key) in slots}


def offsets_and_pending(key: Key) -> Script[tuple[dict[TopicPartition, OffsetAndMetadata], frozenset[TopicPartition]]]:
    """Both, in one snapshot."""
    offsets = yield from offsets_of(key)
    pending = yield from pending_of(key)
    return offsets, pending


def topic_names(cluster_id: int, topic_ids: Iterable[bytes]) -> Script[dict[bytes, str]]:
    """The names of those topics that exist."""
    names = {}
    for topic_id in sorted(topic_ids):
        rows = yield "SELECT name FROM topic WHERE cluster_id = $1 AND topic_id = $2", (cluster_id, topic_id)
        if rows:
            names[topic_id] = str(rows[0][0])
    return names


def forget_topic(cluster_id: int, topic_id: bytes) -> Script[None]:
    """Delete all offsets of a deleted topic. Its id is never reused, so this needs no fencing."""
    yield "DELETE FROM txn_offset WHERE cluster_id = $1 AND topic_id = $2", (cluster_id, topic_id)
    yield "DELETE FROM group_offset WHERE cluster_id = $1 AND topic_id = $2", (cluster_id, topic_id)


def with_old_offsets(after: Key, *, empty_before_ms: int, now_ms: int, limit: int) -> Script[list[Key]]:
    """Groups that may have something to expire, in pages by key: those without members or offsets expire themselves."""
    rows = yield (
        "SELECT g.cluster_id, g.group_id, g.long_name FROM group_ g WHERE (g.cluster_id, g.group_id) > ($1, $2)"
        " AND (g.empty_since_ms <= $3 OR EXISTS (SELECT 1 FROM group_offset o WHERE o.cluster_id = g.cluster_id"
        " AND o.group_id = g.group_id AND (o.committed_ms <= $3 OR o.expires_ms <= $4))"
        " OR (g.empty_since_ms IS NOT NULL AND g.kind <> $5 AND NOT EXISTS (SELECT 1 FROM group_offset o"
        " WHERE o.cluster_id = g.cluster_id AND o.group_id = g.group_id)))"
        " ORDER BY g.cluster_id, g.group_id LIMIT $6",
        (*row_key(after), empty_before_ms, now_ms, ShareGroup.kind, limit),
    )
    return [(int(row[0]), name_of(row[1], row[2])) for row in rows]


# --- Journal -------------------------------------------------------------------------------------------------------


class PendingOffsetWriter(Protocol):
    """Makes pending offsets durable without the database (in commit records)."""

    def prefers_commit_record(self, offsets: Sequence[tuple[Key, OffsetsPending]]) -> bool:
        """Whether a commit record is better for these now than the database."""

    async def store_pending(self, offsets: Sequence[tuple[Key, OffsetsPending]]) -> Collection[int]:
        """Store pending offsets, all or nothing, in order; the indexes of those whose transactions have ended. Raises
        `Unavailable` when nothing happened."""


class GroupJournal:
    """Makes decisions about groups durable, under the leases of their slots."""

    def __init__(
        self, database: TransactionRunner, *, holder: LeaseHolder, clock: Clock, scheduler: Scheduler,
        force_leases: bool = True, pending_offset_writer: PendingOffsetWriter | None = None,
    ) -> None:  # fmt: skip
        self._database, self._pending_offset_writer = database, pending_offset_writer
        self._writes = FencedWrites(
            database, holder=holder, clock=clock, scheduler=scheduler, force_leases=force_leases
        )
        self._pending: set[Key] = set()
        """Groups that have had pending offsets."""
        self.counts: dict[int, int] = {}
        """How many groups were stored when the slots were taken, by virtual cluster."""

    async def open(self) -> Sequence[tuple[Key, AnyGroup]]:
        """Take the slots; returns the groups that have members."""
        slots = await self._writes.open()
        self._pending = await self._database.read(lambda: groups_with_pending(slots))
        self.counts = await self._database.read(count_groups)
        return await self._database.read(lambda: groups_with_members(slots))

    async def load(self, key: Key) -> AnyGroup | None:
        """Load one group, if its slot is ours."""
        self._writes.check(key)
        await self._writes.resolve_unknown_outcome()
        return await self._database.read(lambda: load_group(key))

    async def write(self, records: Iterable[tuple[Key, Record]]) -> Collection[int]:
        """One fenced transaction; where there are only pending offsets, a commit record if that is faster. Returns or
        raises only when the outcome is known. Refused are pending offsets of transactions that have ended; all of them,
        if the answer was lost and that is not known."""
        written = list(records)
        pending = [(key, record) for key, record in written if isinstance(record, OffsetsPending)]
        self._pending.update(key for key, _ in pending)
        if (
            self._pending_offset_writer is not None
            and len(pending) == len(written)
            and self._pending_offset_writer.prefers_commit_record(pending)
        ):
            for key, _ in pending:
                self._writes.check(key)
            return await self._pending_offset_writer.store_pending(pending)
        changes = fold(written)
        left_out = await self._writes.write(changes, lambda: write(changes, may_be_pending=self._pending))
        self._pending.difference_update(
            key for key, change in changes.items() if change.deleted and not change.pending
        )  # fmt: skip
        if left_out is not None and not left_out:
            return ()
        return [
            number
            for number, (key, record) in enumerate(written)
            if isinstance(record, OffsetsPending) and (left_out is None or (key[0], record.owner) in left_out)
        ]
