"""What `read_committed` readers need to know about a log: its last stable offset and its aborted transactions (KIP-98).

A fetch returns the batches of aborted transactions together with a list of those transactions, and the client filters
them out. Recent aborted transactions are kept in memory with their partition. Once WAL compaction has stored them in
the database they may be dropped from memory; `Partition.aborted_from` is where the copy in memory begins, and reads
below it look them up.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from operator import attrgetter
from struct import Struct
from typing import Protocol

from penstock.log import aborted_store
from penstock.log.model import AbortedTransaction, Partition
from penstock.metadata.database import Database
from penstock.wire.records import LENGTH_OVERHEAD

KEPT_ABORTED = 1_000
"""How many aborted transactions of a partition stay in memory although the database has them as well."""
_HEAD = Struct(">qi")
_LAST_OFFSET_DELTA = Struct(">i")
_LAST_OFFSET_DELTA_AT = 23
_by_last_offset = attrgetter("last_offset")


class AbortedLookup(Protocol):
    """Finds aborted transactions that are not in memory."""

    async def between(self, partition: Partition, offset: int, end_offset: int) -> Sequence[AbortedTransaction]:
        """Those that have batches or their marker in a range of offsets, as far as segments reach."""


class NothingAborted:
    """For logs without transactions."""

    async def between(self, partition: Partition, offset: int, end_offset: int) -> Sequence[AbortedTransaction]:
        """None."""
        return ()


class StoredAborted:
    """Looks them up in the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def between(self, partition: Partition, offset: int, end_offset: int) -> Sequence[AbortedTransaction]:
        """Those that have batches or their marker in a range of offsets."""
        partition_id = partition.partition_id
        rows = await self._database.read(lambda: aborted_store.between(partition_id, offset, end_offset))
        return [AbortedTransaction(*map(int, row)) for row in rows]


def aborted_between(aborted: Sequence[AbortedTransaction], offset: int, end_offset: int) -> list[AbortedTransaction]:
    """Those that have batches or their marker in a range of offsets."""
    found = []
    for number in range(bisect_left(aborted, offset, key=_by_last_offset), len(aborted)):
        one = aborted[number]
        if one.first_offset < end_offset:
            found.append(one)
        if one.stable_offset >= end_offset:
            break
    return found


def forget_aborted(partition: Partition) -> None:
    """Drop those below the log start, and the oldest of those that the database has."""
    aborted = partition.aborted
    gone = bisect_left(aborted, partition.log_start, key=_by_last_offset)
    stored = bisect_left(aborted, partition.segmented_to, key=_by_last_offset)
    surplus = min(len(aborted) - KEPT_ABORTED, stored)
    if surplus > gone:
        partition.aborted_from = aborted[surplus - 1].last_offset + 1
        gone = surplus
    del aborted[:gone]


def batches_below(found: Sequence[memoryview], end_offset: int) -> list[memoryview]:
    """The batches that lie entirely below an offset, which must be the start of a batch."""
    kept = []
    for view in found:
        position, end = 0, len(view)
        while position < end:
            base, length = _HEAD.unpack_from(view, position)
            if base >= end_offset:
                break
            position += length + LENGTH_OVERHEAD
        if position >= end:
            kept.append(view)
            continue
        if position:
            kept.append(view[:position])
        break
    return kept


def end_of(found: Sequence[bytes | memoryview]) -> int:
    """The offset after the last batch."""
    view, position, following = found[-1], 0, 0
    while position < len(view):
        base, length = _HEAD.unpack_from(view, position)
        (last_delta,) = _LAST_OFFSET_DELTA.unpack_from(view, position + _LAST_OFFSET_DELTA_AT)
        following = int(base + last_delta + 1)
        position += length + LENGTH_OVERHEAD
    return following
