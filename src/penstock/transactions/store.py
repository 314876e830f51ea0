"""The SQL of transactions. Every script leaves the same behind when it is run again at once.

Offsets of an open transaction wait in `txn_offset`; the script that commits it moves them to `group_offset`. Those in
a group that was deleted meanwhile are gone, as the group's own are.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from struct import Struct
from typing import Any, TypeVar

from penstock.base.errors import CorruptData
from penstock.coordination.model import Key
from penstock.metadata.database import Script
from penstock.metadata.names import long_name, name_of, row_key
from penstock.transactions.model import Transaction, TransactionState

_COLUMNS = (
    "cluster_id, transactional_id, producer_id, epoch, last_producer_id, last_epoch, timeout_ms, state, partitions,"
    " group_ids, started_ms, updated_ms, long_name"
)
_COLUMN_COUNT = 13
_UPDATES = ", ".join(f"{column} = excluded.{column}" for column in _COLUMNS.split(", ")[2:])
_ROWS_PER_STATEMENT = (32, 8, 1)
"""How many rows one statement writes: few different statements, so that prepared ones are reused."""

_STATES_FORMAT = b"\x02"
_STATE = Struct(">qqhqhqBqqIII")
_LAYOUTS = {b"\x01": Struct(">qqhqhqBqqHIH"), _STATES_FORMAT: _STATE}
"""By format. The first one had no room for the groups of a large transaction."""

T = TypeVar("T")
Ended = tuple[int, int, bool]
"""Cluster id and producer id of a transaction that ends, and whether by a commit."""


def pack_partitions(partitions: Iterable[int]) -> bytes:
    """The `partitions` column."""
    ids = sorted(partitions)
    return Struct(f">{len(ids)}q").pack(*ids)


def unpack_partitions(blob: bytes) -> frozenset[int]:
    """Read the `partitions` column."""
    return frozenset(Struct(f">{len(blob) // 8}q").unpack(blob))


def pack_groups(groups: Iterable[str]) -> str:
    """The `group_ids` column."""
    return json.dumps(sorted(groups))


def unpack_groups(text: str) -> frozenset[str]:
    """Read the `group_ids` column."""
    return frozenset(json.loads(text))


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
    """Producer id, group id and since when, of transactions with offsets that wait for their end."""
    rows = yield (
        "SELECT producer_id, group_id, long_name, MIN(committed_ms) FROM txn_offset"
        " GROUP BY producer_id, group_id, long_name",
        (),
    )
    return [(int(row[0]), name_of(row[1], row[2]), int(row[3])) for row in rows]


def load_pending_of(cluster_id: int, producer_id: int) -> Script[dict[str, int]]:
    """The same of one producer: groups, and since when."""
    rows = yield (
        "SELECT group_id, long_name, MIN(committed_ms) FROM txn_offset WHERE cluster_id = $1 AND producer_id = $2"
        " GROUP BY group_id, long_name",
        (cluster_id, producer_id),
    )
    return {name_of(row[0], row[1]): int(row[2]) for row in rows}


def put(*txns: Transaction) -> Script[None]:
    """Store transactional ids as they are now."""
    for some in _chunks(txns):
        values, args = [], list[object]()
        for txn in some:
            values.append("(" + ", ".join(f"${len(args) + n}" for n in range(1, _COLUMN_COUNT + 1)) + ")")
            args += (
                *row_key(txn.key), txn.producer_id, txn.epoch, txn.last_producer_id, txn.last_epoch, txn.timeout_ms,
                int(txn.state), pack_partitions(txn.partitions), pack_groups(txn.groups), txn.started_ms,
                txn.updated_ms, long_name(txn.key[1]),
            )  # fmt: skip
        yield (
            f"INSERT INTO txn ({_COLUMNS}) VALUES {', '.join(values)}"
            f" ON CONFLICT (cluster_id, transactional_id) DO UPDATE SET {_UPDATES}",
            args,
        )


def _chunks(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    start = 0
    while start < len(rows):
        size = next(size for size in _ROWS_PER_STATEMENT if size <= len(rows) - start)
        yield rows[start : start + size]
        start += size


def pack_states(txns: Iterable[Transaction]) -> bytes:
    """Transactional ids as a commit record tells of them."""
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


def unpack_states(blob: bytes) -> Iterator[Transaction]:
    """Read what `pack_states` wrote; raise `CorruptData` on anything else."""
    layout = _LAYOUTS.get(blob[:1])
    if layout is None:
        raise CorruptData(f"transactional ids of unknown format {blob[:1]!r}")
    at = 1
    while at < len(blob):
        cluster_id, producer_id, epoch, last_id, last_epoch, timeout_ms, state, started_ms, updated_ms, *sizes = (
            layout.unpack_from(blob, at)
        )
        pieces, at = [], at + layout.size
        for size in sizes:
            pieces.append(blob[at : at + size])
            at += size
        yield Transaction(
            key=(cluster_id, pieces[0].decode()), producer_id=producer_id, epoch=epoch, last_producer_id=last_id,
            last_epoch=last_epoch, timeout_ms=timeout_ms, state=TransactionState(state),
            partitions=unpack_partitions(pieces[1]), groups=unpack_groups(pieces[2].decode()), started_ms=started_ms,
            updated_ms=updated_ms,
        )  # fmt: skip


def redo(changes: Iterable[bytes]) -> Script[None]:
    """Store what commit records tell of transactional ids, oldest first."""
    latest = {txn.key: txn for change in changes for txn in unpack_states(change)}
    yield from put(*(latest[key] for key in sorted(latest)))


def forget(key: Key) -> Script[None]:
    """Delete a transactional id."""
    yield "DELETE FROM txn WHERE cluster_id = $1 AND transactional_id = $2", row_key(key)


def end_offsets(ended: Iterable[Ended]) -> Script[None]:
    """The offsets of producers' transactions become committed, or are gone. Store their ids first: that keeps others
    from adding more.

    One that the group committed itself while this one was waiting is newer, and stays.
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
