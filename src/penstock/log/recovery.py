"""Recovery: how an agent rebuilds its in-memory state at start.

Rows of `partition` and `producer_state` contain the state up to the shard's WAL floor, folded there by WAL compaction.
Everything after the floor is in `wal_commit` rows, which are few; they are replayed in order through the same function
that applies a fresh commit. Then the WAL is told which of its objects are live. The time that this takes depends on the
number of rows since the last compaction, not on the size of the log.

Numbers of commits have no gaps. Where a row is missing, its object would be taken for free space, and its partitions
would go on at offsets that are taken: such a database is refused before anything is changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import starmap
from struct import Struct
from typing import Any, Protocol, TypeVar

from penstock.base.collector import without_collector
from penstock.base.errors import CorruptData
from penstock.log import aborted_store
from penstock.log.commits import Commit, apply_entry, unpack_bases, unpack_entries
from penstock.log.model import KEPT_BATCHES, OpenTransaction, ProducerState, SequenceBatch
from penstock.log.registry import Registry
from penstock.metadata.database import Rows, Script
from penstock.storage.wal import WalLocation, WalStore

T = TypeVar("T")

ROWS_AT_ONCE = 2_000
_BATCH = Struct(">iiqqq")
BATCH_BYTES = _BATCH.size


class SnapshotReader(Protocol):
    """The part of the metadata port that recovery uses."""

    async def read(self, script: Callable[[], Script[T]]) -> T:
        """Run a read-only script."""


def pack_batches(batches: Iterable[SequenceBatch]) -> bytes:
    """The `batches` column of `producer_state`: per batch first and last sequence i32, base and last offset i64,
    timestamp i64; oldest first."""
    return b"".join(
        _BATCH.pack(batch.first_sequence, batch.last_sequence, batch.base_offset, batch.last_offset, batch.timestamp)
        for batch in batches
    )


def unpack_batches(blob: bytes) -> tuple[SequenceBatch, ...]:
    """Read the `batches` column of `producer_state`."""
    if len(blob) % _BATCH.size:
        raise CorruptData(f"a producer state has {len(blob)} bytes of batches")
    return tuple(starmap(SequenceBatch, _BATCH.iter_unpack(blob[-KEPT_BATCHES * BATCH_BYTES :])))


async def load_state(database: SnapshotReader, registry: Registry, wal: WalStore, *, shard_id: int = 1) -> int:
    """Bring the partitions of a loaded registry up to the last durable commit; the number of that commit.

    Call it after `Topics.load` and before anything is appended. Raises `CorruptData` if the row of a commit is missing.
    """
    missing = await database.read(partial(missing_row, shard_id))
    if missing is not None:
        raise CorruptData(
            f"The metadata has lost the row of commit {missing}, but not what came after it: what that commit appended"
            " would be overwritten. Restore the data directory, and its metadata, from the same backup."
        )
    with without_collector():
        seq, floor = await _load_folded(database, registry, shard_id)
        last_seq, live = await _replay_rows(database, registry, shard_id, floor)
        for partition in registry.partitions():
            # The log start was moved by commits that are lost: what is appended from now on must not be trimmed by it.
            partition.next_offset = max(partition.next_offset, partition.log_start)
    wal.recover(live)
    return max(seq, last_seq)


async def _load_folded(database: SnapshotReader, registry: Registry, shard_id: int) -> tuple[int, int]:
    """Load what compaction has folded into rows: the shard's commit number, and its WAL floor."""
    seq, floor, partitions, producers, aborted = await database.read(lambda: _load(shard_id))
    for partition_id, first_dirty_ms in partitions:
        partition = registry.partition(partition_id)
        if partition is not None:
            partition.first_dirty_ms = first_dirty_ms
    for partition_id, last_offset in aborted:
        partition = registry.partition(partition_id)
        if partition is not None:
            partition.aborted_from = last_offset + 1
    for partition_id, producer_id, epoch, last_ms, batches, first_offset, started_ms in producers:
        partition = registry.partition(partition_id)
        if partition is not None:
            state = ProducerState(producer_id, epoch, last_ms, unpack_batches(bytes(batches)))
            partition.know({producer_id: state})
            if first_offset >= 0:
                partition.transactions[producer_id] = OpenTransaction(first_offset, started_ms)
                partition.segmented_transactions[producer_id] = OpenTransaction(first_offset, started_ms)
    return seq, floor


async def _replay_rows(
    database: SnapshotReader, registry: Registry, shard_id: int, position: int
) -> tuple[int, list[WalLocation]]:
    """Replay what came after the floor: the number of the last commit, and which WAL objects are live."""
    live: list[WalLocation] = []
    while True:
        rows = await database.read(partial(commits_after, shard_id, position, ROWS_AT_ONCE))
        for row in rows:
            commit = read_commit(row)
            live.append(commit.location)
            _replay(registry, commit)
            position = commit.seq
        if len(rows) < ROWS_AT_ONCE:
            return position, live


def _load(shard_id: int) -> Script[tuple[int, int, Rows, Rows, Rows]]:
    shard = yield "SELECT commit_seq, wal_floor FROM shard WHERE shard_id = $1", (shard_id,)
    partitions = yield (
        "SELECT partition_id, first_dirty_ms FROM partition WHERE shard_id = $1 AND first_dirty_ms >= 0",
        (shard_id,),
    )
    producers = yield (
        "SELECT producer_state.partition_id, producer_id, epoch, last_ms, batches, txn_first_offset, txn_started_ms"
        " FROM producer_state JOIN partition ON partition.partition_id = producer_state.partition_id"
        " WHERE partition.shard_id = $1 ORDER BY txn_first_offset",
        (shard_id,),
    )
    seq, floor = shard[0] if shard else (0, 0)
    aborted = yield from aborted_store.ends(shard_id)
    return int(seq), int(floor), partitions, producers, aborted


def missing_row(shard_id: int) -> Script[int | None]:
    """The first commit above the WAL floor that has no row although a later one is known; None if there is none."""
    rows = yield (
        "SELECT wal_floor, commit_seq, (SELECT MAX(seq) FROM wal_commit WHERE shard_id = $1),"
        " (SELECT COUNT(*) FROM wal_commit WHERE shard_id = $1 AND seq > shard.wal_floor)"
        " FROM shard WHERE shard_id = $1",
        (shard_id,),
    )
    if not rows:
        return None
    floor, last, newest, count = rows[0]
    if int(count) == max(floor, last, newest or 0) - floor:
        return None
    rows = yield (
        "SELECT MIN(seq) FROM wal_commit WHERE shard_id = $1 AND seq >= $2 AND NOT EXISTS"
        " (SELECT 1 FROM wal_commit AS next WHERE next.shard_id = $1 AND next.seq = wal_commit.seq + 1)",
        (shard_id, floor + 1),
    )
    first = yield "SELECT 1 FROM wal_commit WHERE shard_id = $1 AND seq = $2", (shard_id, floor + 1)
    return int(rows[0][0]) + 1 if first else int(floor) + 1


def commits_after(shard_id: int, seq: int, limit: int) -> Script[Rows]:
    """The next rows of the commit log, for `read_commit`."""
    return (
        yield (
            "SELECT seq, object_id, wal_key, wal_offset, wal_length, committed_ms, agent_id, entries, bases"
            " FROM wal_commit WHERE shard_id = $1 AND seq > $2 ORDER BY seq LIMIT $3",
            (shard_id, seq, limit),
        )
    )


def read_commit(row: Sequence[Any]) -> Commit:
    """A row of `commits_after` as the commit it records."""
    seq, object_id, key, offset, length, committed_ms, agent_id, entries, bases = row
    return Commit(
        seq, bytes(object_id), WalLocation(key, offset, length), committed_ms, agent_id,
        unpack_entries(bytes(entries)), unpack_bases(bytes(bases)),
    )  # fmt: skip


def _replay(registry: Registry, commit: Commit) -> None:
    for position, entry in enumerate(commit.entries):
        partition = registry.partition(entry.partition_id)
        if partition is not None:
            apply_entry(partition, commit, position, None)
