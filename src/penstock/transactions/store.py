"""The SQL of transactions. Every script leaves the same behind when it is run again at once.

Offsets of an open transaction wait in `txn_offset`; the script that commits it moves them to `group_offset`. Those in
a group that was deleted meanwhile are gone, as the group's own are.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from struct import Struct

from penstock.coordination.model import Key
from penstock.metadata.database import Script
from penstock.transactions.model import Transaction, TransactionState

_COLUMNS = (
    "cluster_id, transactional_id, producer_id, epoch, last_producer_id, last_epoch, timeout_ms, state, partitions,"
    " group_ids, started_ms, updated_ms"
)
_UPDATES = ", ".join(f"{column} = excluded.{column}" for column in _COLUMNS.split(", ")[2:])


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
    return [
        Transaction(
            key=(int(row[0]), str(row[1])), producer_id=int(row[2]), epoch=int(row[3]), last_producer_id=int(row[4]),
            last_epoch=int(row[5]), timeout_ms=int(row[6]), state=TransactionState(row[7]),
            partitions=unpack_partitions(bytes(row[8])), groups=unpack_groups(str(row[9])),
            started_ms=int(row[10]), updated_ms=int(row[11]),
        )
        for row in rows
    ]  # fmt: skip


def put(txn: Transaction) -> Script[None]:
    """Store a transactional id as it is now."""
    marks = ", ".join(f"${number}" for number in range(1, 13))
    yield (
        f"INSERT INTO txn ({_COLUMNS}) VALUES ({marks})"
        f" ON CONFLICT (cluster_id, transactional_id) DO UPDATE SET {_UPDATES}",
        (
            *txn.key, txn.producer_id, txn.epoch, txn.last_producer_id, txn.last_epoch, txn.timeout_ms, int(txn.state),
            pack_partitions(txn.partitions), pack_groups(txn.groups), txn.started_ms, txn.updated_ms,
        ),
    )  # fmt: skip


def forget(key: Key) -> Script[None]:
    """Delete a transactional id."""
    yield "DELETE FROM txn WHERE cluster_id = $1 AND transactional_id = $2", key


def end_offsets(cluster_id: int, producer_id: int, *, commit: bool) -> Script[None]:
    """The offsets of a producer's transaction become committed, or are gone.

    One that the group committed itself while this one was waiting is newer, and stays.
    """
    if commit:
        yield (
            "INSERT INTO group_offset (cluster_id, group_id, topic_id, partition_index, committed_offset, leader_epoch,"
            " metadata, committed_ms, expires_ms) SELECT cluster_id, group_id, topic_id, partition_index,"
            " committed_offset, leader_epoch, metadata, committed_ms, CAST(NULL AS BIGINT) FROM txn_offset"
            " WHERE cluster_id = $1 AND producer_id = $2"
            " ON CONFLICT (cluster_id, group_id, topic_id, partition_index) DO UPDATE SET"
            " committed_offset = excluded.committed_offset, leader_epoch = excluded.leader_epoch,"
            " metadata = excluded.metadata, committed_ms = excluded.committed_ms, expires_ms = excluded.expires_ms"
            " WHERE group_offset.committed_ms < excluded.committed_ms",
            (cluster_id, producer_id),
        )
    yield "DELETE FROM txn_offset WHERE cluster_id = $1 AND producer_id = $2", (cluster_id, producer_id)
