"""The SQL of transactions, and its encoding in commit records. Every script is idempotent when it is run again at once.

Offsets of an open transaction are pending in `txn_offset`; the script that commits it moves them to `group_offset`.
Those of a group that was deleted meanwhile are gone, as the group's own are.

A commit record contains ids as states, in a format of their own, and offsets as events: new pending offsets, and
producers whose transactions have ended. Format 3, big-endian: size of the ids u32, number of the ended u32; the ids;
per ended one cluster id i64, producer id i64, whether by a commit u8; then, per group with pending offsets, cluster id
i64, producer id i64, size of the group id u32, number of the partitions u32, group id, and per partition topic id (16
bytes), index i32, offset i64, leader epoch i32, time i64, expiry i64 (-1: by the retention), size of the metadata u32,
metadata.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain, starmap
from struct import Struct
from struct import error as StructError
from typing import Any, NamedTuple, TypeVar

from penstock.base.dataclasses import dataclass, field
from penstock.base.errors import CorruptData
from penstock.base.integers import pack_i64s, unpack_i64s
from penstock.coordination.model import Key
from penstock.groups.model import OffsetAndMetadata, OffsetsPending, TopicPartition
from penstock.groups.store import add_pending
from penstock.metadata.database import Script
from penstock.metadata.names import long_name, name_of, row_key
from penstock.metadata.statements import chunks, parameter_rows
from penstock.transactions.model import Transaction, TransactionState

_COLUMNS = (
    "cluster_id, transactional_id, producer_id, epoch, last_producer_id, last_epoch, timeout_ms, state, partitions,"
    " group_ids, started_ms, updated_ms, long_name"
)
_COLUMN_COUNT = 13
_UPDATES = ", ".join(f"{column} = excluded.{column}" for column in _COLUMNS.split(", ")[2:])

_STATES_FORMAT = b"\x02"
_STATE = Struct(">qqhqhqBqqIII")
_LAYOUTS = {b"\x01": Struct(">qqhqhqBqqHIH"), _STATES_FORMAT: _STATE}
"""By format version. The first one had no room for the groups of a large transaction."""

_CHANGES_FORMAT = b"\x03"
_CHANGES = Struct(">II")
_ENDED = Struct(">qq?")
_PENDING = Struct(">qqII")
_OFFSET = Struct(">16siqiqqI")
_NO_EXPIRY = -1
_NO_GROUPS = "[]"
UTF8_BYTES_MAX = 4
"""UTF-8 bytes of one character, at most."""

T = TypeVar("T")
Ended = tuple[int, int, bool]
"""Cluster id and producer id of a transaction that ends, and whether by a commit."""
Pending = tuple[Key, int, Mapping[TopicPartition, OffsetAndMetadata]]
"""Pending offsets of a group in a producer's transaction: the group, the producer id, the offsets."""


class TransactionChanges(NamedTuple):
    """The changes of transactions that one commit record contains."""

    states: Sequence[Transaction] = ()
    pending: Sequence[Pending] = ()
    ended: Sequence[Ended] = ()


def pack_partitions(partitions: Iterable[int]) -> bytes:
    """The `partitions` column."""
    return pack_i64s(sorted(partitions))


def unpack_partitions(blob: bytes) -> frozenset[int]:
    """Read the `partitions` column."""
    return frozenset(unpack_i64s(blob))


def pack_groups(groups: Collection[str]) -> str:
    """The `group_ids` column."""
    return json.dumps(sorted(groups)) if groups else _NO_GROUPS


def unpack_groups(text: str) -> frozenset[str]:
    """Read the `group_ids` column."""
    return frozenset() if text == _NO_GROUPS else frozenset(json.loads(text))


def load() -> Script[list[Transaction]]:
    """Every transactional id."""
    rows = yield f"SELECT {_COLUMNS} FROM txn", ()
    return [_transaction(row) for row in rows]


def load_one(key: Key) -> Script[Transaction | None]:
    """One transactional id, or None."""
    rows = yield f"SELECT {_COLUMNS} FROM txn WHERE cluster_id = $1 AND transactional_id = $2", row_key(key)
    return _transaction(rows[0]) if rows else None


def _transaction(row: Sequence[Any]) -> Transaction:
    return Transaction(
        key=(int(row[0]), name_of(row[1], row[12])), producer_id=int(row[2]), epoch=int(row[3]),
        last_producer_id=int(row[4]), last_epoch=int(row[5]), timeout_ms=int(row[6]), state=TransactionState(row[7]),
        partitions=unpack_partitions(bytes(row[8])), groups=unpack_groups(str(row[9])),
        started_ms=int(row[10]), updated_ms=int(row[11]),
    )  # fmt: skip


def load_pending() -> Script[list[tuple[int, str, int]]]:
    """Producer id, group id and time of the first pending offset, for transactions that have any."""
    rows = yield (
        "SELECT producer_id, group_id, long_name, MIN(committed_ms) FROM txn_offset"
        " GROUP BY producer_id, group_id, long_name",
        (),
    )
    return [(int(row[0]), name_of(row[1], row[2]), int(row[3])) for row in rows]


def load_pending_of(cluster_id: int, producer_id: int) -> Script[dict[str, int]]:
    """The same for one producer: groups, and since when."""
    rows = yield (
        "SELECT group_id, long_name, MIN(committed_ms) FROM txn_offset WHERE cluster_id = $1 AND producer_id = $2"
        " GROUP BY group_id, long_name",
        (cluster_id, producer_id),
    )
    return {name_of(row[0], row[1]): int(row[2]) for row in rows}


def put(*txns: Transaction) -> Script[None]:
    """Store transactional ids."""
    for some in chunks(txns):
        args: list[object] = []
        for txn in some:
            args += (
                *row_key(txn.key), txn.producer_id, txn.epoch, txn.last_producer_id, txn.last_epoch, txn.timeout_ms,
                int(txn.state), pack_partitions(txn.partitions), pack_groups(txn.groups), txn.started_ms,
                txn.updated_ms, long_name(txn.key[1]),
            )  # fmt: skip
        yield (
            f"INSERT INTO txn ({_COLUMNS}) VALUES {parameter_rows(len(some), _COLUMN_COUNT)}"
            f" ON CONFLICT (cluster_id, transactional_id) DO UPDATE SET {_UPDATES}",
            args,
        )


def pack_states(txns: Iterable[Transaction]) -> bytes:
    """Encode transactional ids for a commit record."""
    parts = [_STATES_FORMAT]
    for txn in txns:
        cluster_id, name = txn.key
        id_, partitions, groups = name.encode(), pack_partitions(txn.partitions), pack_groups(txn.groups).encode()
        parts += (
            _STATE.pack(
                cluster_id, txn.producer_id, txn.epoch, txn.last_producer_id, txn.last_epoch, txn.timeout_ms,
                int(txn.state), txn.started_ms, txn.updated_ms, len(id_), len(partitions), len(groups),
            ),
            id_, partitions, groups,
        )  # fmt: skip
    return b"".join(parts)


_Packed = tuple[tuple[Any, ...], bytes, int]
"""A partly decoded id: its fields of fixed size, and where the others are."""


def unpack_states(blob: bytes) -> Iterator[Transaction]:
    """Decode what `pack_states` wrote; raise `CorruptData` on anything else."""
    return (_unpack_state(*packed) for _, packed in _walk_states(blob))


def _walk_states(blob: bytes) -> Iterator[tuple[tuple[int, bytes], _Packed]]:
    """The keys of encoded states, without decoding the states."""
    layout = _LAYOUTS.get(blob[:1])
    if layout is None:
        raise CorruptData(f"transactional ids of unknown format {blob[:1]!r}")
    at = 1
    while at < len(blob):
        try:
            fields, at = layout.unpack_from(blob, at), at + layout.size
        except StructError as problem:
            raise CorruptData("the transactional ids in a commit record are truncated") from problem
        yield (fields[0], blob[at : at + fields[9]]), (fields, blob, at)
        at += fields[9] + fields[10] + fields[11]


def _unpack_state(fields: tuple[Any, ...], blob: bytes, at: int) -> Transaction:
    cluster_id, producer_id, epoch, last_id, last_epoch, timeout_ms, state, started_ms, updated_ms, *sizes = fields
    pieces = []
    for size in sizes:
        pieces.append(blob[at : at + size])
        at += size
    return Transaction(
        key=(cluster_id, pieces[0].decode()), producer_id=producer_id, epoch=epoch, last_producer_id=last_id,
        last_epoch=last_epoch, timeout_ms=timeout_ms, state=TransactionState(state),
        partitions=unpack_partitions(pieces[1]), groups=unpack_groups(pieces[2].decode()), started_ms=started_ms,
        updated_ms=updated_ms,
    )  # fmt: skip


def pack_changes(changes: TransactionChanges) -> bytes:
    """Encode the transactions' part of a commit record. If it has ids only, it is in the format of ids."""
    states = pack_states(changes.states)
    if not changes.pending and not changes.ended:
        return states
    parts = [_CHANGES_FORMAT, _CHANGES.pack(len(states), len(changes.ended)), states]
    parts.extend(_ENDED.pack(*ended) for ended in changes.ended)
    for (cluster_id, group_id), producer_id, offsets in changes.pending:
        group = group_id.encode()
        parts += (_PENDING.pack(cluster_id, producer_id, len(group), len(offsets)), group)
        for (topic_id, partition), offset in offsets.items():
            metadata = offset.metadata.encode()
            parts += (
                _OFFSET.pack(
                    topic_id, partition, offset.committed_offset, offset.leader_epoch, offset.committed_ms,
                    _NO_EXPIRY if offset.expires_ms is None else offset.expires_ms, len(metadata),
                ),
                metadata,
            )  # fmt: skip
    return b"".join(parts)


def size_of(offsets: Iterable[tuple[Key, OffsetsPending]]) -> int:
    """The largest size of pending offsets in a commit record."""
    return sum(
        _PENDING.size + UTF8_BYTES_MAX * len(group_id)
        + sum(_OFFSET.size + UTF8_BYTES_MAX * len(offset.metadata) for offset in record.offsets.values())
        for (_, group_id), record in offsets
    )  # fmt: skip


def unpack_changes(blob: bytes) -> TransactionChanges:
    """Decode what `pack_changes` or `pack_states` wrote; raise `CorruptData` on anything else."""
    states, changes = _split_changes(blob)
    return changes._replace(states=tuple(unpack_states(states)))


def _split_changes(blob: bytes) -> tuple[bytes, TransactionChanges]:
    """The encoded ids, and the decoded rest."""
    if blob[:1] != _CHANGES_FORMAT:
        return blob, TransactionChanges()
    try:
        states_bytes, ended_count = _CHANGES.unpack_from(blob, 1)
        at = 1 + _CHANGES.size + states_bytes
        end = at + ended_count * _ENDED.size
        ended = tuple(_ENDED.iter_unpack(blob[at:end]))
        return blob[at - states_bytes : at], TransactionChanges((), tuple(_unpack_pending(blob, end)), ended)
    except StructError as problem:
        raise CorruptData("the transactional part of a commit record is truncated") from problem


def _unpack_pending(blob: bytes, at: int) -> Iterator[Pending]:
    while at < len(blob):
        cluster_id, producer_id, group_bytes, count = _PENDING.unpack_from(blob, at)
        at += _PENDING.size
        group_id, at = blob[at : at + group_bytes].decode(), at + group_bytes
        offsets = {}
        for _ in range(count):
            topic_id, partition, committed, leader_epoch, committed_ms, expires_ms, size = _OFFSET.unpack_from(blob, at)
            at += _OFFSET.size
            metadata, at = blob[at : at + size].decode(), at + size
            offsets[topic_id, partition] = OffsetAndMetadata(
                committed_offset=committed, leader_epoch=leader_epoch, metadata=metadata, committed_ms=committed_ms,
                expires_ms=None if expires_ms == _NO_EXPIRY else expires_ms,
            )  # fmt: skip
        yield (cluster_id, group_id), producer_id, offsets


def redo(records: Iterable[bytes]) -> Script[None]:
    """Apply the contents of commit records to the database, oldest first."""
    latest: dict[tuple[int, bytes], _Packed] = {}
    decoded = []
    for record in records:
        states, changes = _split_changes(record)
        # A busy id occurs very often; only its last state counts, so only that is decoded.
        latest.update(_walk_states(states))
        decoded.append(changes)
    yield from put(*(_unpack_state(*latest[key]) for key in sorted(latest)))
    for pending, ended in merged_offsets(decoded):
        yield from move_offsets(pending, ended)


@dataclass(slots=True)
class _ProducerOffsets:
    """The offsets of one producer in a series of records, by group."""

    first_end: bool | None = None
    """Whether the first of its transactions that ended was committed; None if none has ended."""
    committed: dict[Key, dict[TopicPartition, OffsetAndMetadata]] = field(default_factory=dict)
    pending: dict[Key, dict[TopicPartition, OffsetAndMetadata]] = field(default_factory=dict)

    def end(self, *, commit: bool) -> None:
        if self.first_end is None:
            self.first_end = commit
        if commit:
            for group, offsets in self.pending.items():
                self.committed.setdefault(group, {}).update(offsets)
        self.pending = {}


def merged_offsets(records: Sequence[TransactionChanges]) -> Iterable[tuple[Sequence[Pending], Sequence[Ended]]]:
    """The changes of offsets in order, without those that have no visible effect: of a producer's transactions only the
    last committed offset of each partition matters. A streaming application commits the same ones in each transaction.

    Everything is kept where several producers have sent offsets of the same partitions.
    """
    owners: dict[tuple[Key, TopicPartition], int] = {}
    by_producer: dict[tuple[int, int], _ProducerOffsets] = {}
    for changes in records:
        for group, producer_id, offsets in changes.pending:
            if any(owners.setdefault((group, partition), producer_id) != producer_id for partition in offsets):
                return [(changes.pending, changes.ended) for changes in records]
            by_producer.setdefault((group[0], producer_id), _ProducerOffsets()).pending.setdefault(group, {}).update(
                offsets
            )
        for cluster_id, producer_id, commit in changes.ended:
            by_producer.setdefault((cluster_id, producer_id), _ProducerOffsets()).end(commit=commit)
    return chain.from_iterable(starmap(_steps, by_producer.items()))


def _steps(producer: tuple[int, int], history: _ProducerOffsets) -> Iterator[tuple[Sequence[Pending], Sequence[Ended]]]:
    """The same for one producer, whose transactions are merged into one."""
    cluster_id, producer_id = producer
    if history.first_end is False:
        # Offsets pending from before were not committed together with later ones.
        yield (), ((cluster_id, producer_id, False),)
    if history.first_end or history.committed:
        pending = [(group, producer_id, offsets) for group, offsets in history.committed.items()]
        yield pending, ((cluster_id, producer_id, True),)
    if history.pending:
        yield [(group, producer_id, offsets) for group, offsets in history.pending.items()], ()


def move_offsets(pending: Iterable[Pending], ended: Iterable[Ended]) -> Script[None]:
    """Apply the offsets of one flush. No transaction that ends in it gets new pending ones."""
    for group, producer_id, offsets in pending:
        yield from add_pending(group, producer_id, offsets)
    yield from end_offsets(ended)


def forget(key: Key) -> Script[None]:
    """Delete a transactional id."""
    yield "DELETE FROM txn WHERE cluster_id = $1 AND transactional_id = $2", row_key(key)


def end_offsets(ended: Iterable[Ended]) -> Script[None]:
    """Commit or discard the pending offsets of transactions. Store their ids first: that prevents other agents from
    adding more through the database.

    An offset that the group committed itself in the meantime is newer, and stays.
    """
    for cluster_id, producer_id, commit in ended:
        if commit:
            yield from _commit_offsets(cluster_id, producer_id)
        yield "DELETE FROM txn_offset WHERE cluster_id = $1 AND producer_id = $2", (cluster_id, producer_id)


def _commit_offsets(cluster_id: int, producer_id: int) -> Script[None]:
    yield (
        "INSERT INTO group_offset (cluster_id, group_id, topic_id, partition_index, committed_offset, leader_epoch,"
        " metadata, committed_ms, expires_ms) SELECT cluster_id, group_id, topic_id, partition_index,"
        " committed_offset, leader_epoch, metadata, committed_ms, CAST(NULL AS BIGINT) FROM txn_offset"
        " WHERE cluster_id = $1 AND producer_id = $2 AND is_overtaken = 0"
        " ORDER BY group_id, topic_id, partition_index"
        " ON CONFLICT (cluster_id, group_id, topic_id, partition_index) DO UPDATE SET"
        " committed_offset = excluded.committed_offset, leader_epoch = excluded.leader_epoch,"
        " metadata = excluded.metadata, committed_ms = excluded.committed_ms, expires_ms = excluded.expires_ms"
        " WHERE group_offset.committed_ms < excluded.committed_ms",
        (cluster_id, producer_id),
    )
