"""The SQL of aborted transactions: one row for each whose marker is in a segment."""

from __future__ import annotations

from collections.abc import Iterable

from penstock.log.model import AbortedTransaction
from penstock.metadata.database import Rows, Script


def add(partition_id: int, aborted: Iterable[AbortedTransaction]) -> Script[None]:
    """Store what moves into segments."""
    for one in aborted:
        yield (
            "INSERT INTO aborted_txn (partition_id, last_offset, producer_id, first_offset, stable_offset)"
            " VALUES ($1, $2, $3, $4, $5) ON CONFLICT (partition_id, last_offset) DO NOTHING",
            (partition_id, one.last_offset, one.producer_id, one.first_offset, one.stable_offset),
        )


def between(partition_id: int, offset: int, end_offset: int) -> Script[Rows]:
    """Those with batches or their marker in a range of offsets, in the order of their markers.

    The scan can stop early: after the first one that left nothing undecided below the end of the range, no later one
    reaches into it.
    """
    last = yield (
        "SELECT last_offset FROM aborted_txn WHERE partition_id = $1 AND last_offset >= $2 AND stable_offset >= $3"
        " ORDER BY last_offset LIMIT 1",
        (partition_id, offset, end_offset),
    )
    return (
        yield (
            "SELECT producer_id, first_offset, last_offset, stable_offset FROM aborted_txn WHERE partition_id = $1"
            " AND last_offset >= $2 AND last_offset <= $3 AND first_offset < $4 ORDER BY last_offset",
            (partition_id, offset, last[0][0] if last else 2**63 - 1, end_offset),
        )
    )


def ends(shard_id: int) -> Script[Rows]:
    """partition_id and the last offset, for partitions that have any."""
    return (
        yield (
            "SELECT a.partition_id, MAX(a.last_offset) FROM aborted_txn a JOIN partition p"
            " ON p.partition_id = a.partition_id WHERE p.shard_id = $1 GROUP BY a.partition_id",
            (shard_id,),
        )
    )


def forget(partition_id: int, last_offsets: Iterable[int]) -> Script[None]:
    """Remove some, by the offsets of their markers."""
    for last_offset in last_offsets:
        yield "DELETE FROM aborted_txn WHERE partition_id = $1 AND last_offset = $2", (partition_id, last_offset)


def forget_below(partition_id: int, log_start: int) -> Script[None]:
    """Remove those that lie entirely below the log start."""
    yield "DELETE FROM aborted_txn WHERE partition_id = $1 AND last_offset < $2", (partition_id, log_start)
