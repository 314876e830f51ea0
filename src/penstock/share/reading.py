"""What the log has for a share partition: batches by their headers, and which of them were aborted. Pure.

Records are not decoded. Of the bytes that were read, the batches that contain acquired records are returned.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from struct import Struct
from typing import NamedTuple

from penstock.log.model import AbortedTransaction
from penstock.share.model import Acquired, AcquiredRange, Batch
from penstock.wire.records import HEADER_BYTES, LENGTH_OVERHEAD

_HEAD = Struct(">qi9xHi")
"""Base offset, length, attributes, last offset delta."""
_PRODUCER_ID = Struct(">q")
_PRODUCER_ID_AT = 43
_TRANSACTIONAL, _CONTROL = 0x10, 0x20


class ScannedBatches(NamedTuple):
    """Batches and their positions."""

    batches: list[Batch]
    positions: list[tuple[int, int, int]]
    """For each batch: index of the view, start, end."""
    views: Sequence[memoryview]


class AcquiredBatches(NamedTuple):
    """Acquired records, and the batches that contain them."""

    ranges: tuple[AcquiredRange, ...] = ()
    records: Sequence[memoryview] = ()

    @property
    def offset_count(self) -> int:
        """How many offsets."""
        return sum(taken.last - taken.first + 1 for taken in self.ranges)

    @property
    def size_bytes(self) -> int:
        """How many bytes."""
        return sum(map(len, self.records))


NOTHING = AcquiredBatches()


def scan(views: Sequence[memoryview], offset: int, count: int) -> ScannedBatches:
    """The batches from the one with an offset on, until they cover `count` offsets."""
    batches: list[Batch] = []
    positions: list[tuple[int, int, int]] = []
    enough = offset + count
    for number, view in enumerate(views):
        position, end = 0, len(view)
        while position + HEADER_BYTES <= end:
            base, length, _, last_delta = _HEAD.unpack_from(view, position)
            following = position + length + LENGTH_OVERHEAD
            if following > end:
                break
            last = base + last_delta
            if last >= offset:
                batches.append(Batch(base, last))
                positions.append((number, position, following))
                if last + 1 >= enough:
                    return ScannedBatches(batches, positions, views)
            position = following
    return ScannedBatches(batches, positions, views)


def aborted_batches(found: ScannedBatches, aborted: Iterable[AbortedTransaction]) -> list[Batch]:
    """The batches that belong to aborted transactions."""
    by_producer: dict[int, list[AbortedTransaction]] = {}
    for transaction in aborted:
        by_producer.setdefault(transaction.producer_id, []).append(transaction)
    if not by_producer:
        return []
    unseen: list[Batch] = []
    for batch, (number, position, _) in zip(found.batches, found.positions, strict=True):
        view = found.views[number]
        _, _, attributes, _ = _HEAD.unpack_from(view, position)
        if not attributes & _TRANSACTIONAL or attributes & _CONTROL:
            continue
        (producer_id,) = _PRODUCER_ID.unpack_from(view, position + _PRODUCER_ID_AT)
        if any(t.first_offset <= batch.first <= t.last_offset for t in by_producer.get(producer_id, ())):
            unseen.append(batch)
    return unseen


def acquired_batches(acquired: Acquired, found: Sequence[ScannedBatches]) -> AcquiredBatches:
    """What was acquired, with its bytes from what was `found` last."""
    if not acquired.ranges:
        return NOTHING
    return AcquiredBatches(acquired.ranges, _bytes_of(found[0], acquired.ranges))


def _bytes_of(found: ScannedBatches, ranges: Sequence[AcquiredRange]) -> list[memoryview]:
    """The batches from the first to the last one with acquired records."""
    first, last = ranges[0].first, ranges[-1].last
    pieces: list[list[int]] = []
    for batch, (number, start, end) in zip(found.batches, found.positions, strict=True):
        if batch.last < first:
            continue
        if batch.first > last:
            break
        if pieces and pieces[-1][0] == number and pieces[-1][2] == start:
            pieces[-1][2] = end
        else:
            pieces.append([number, start, end])
    return [found.views[number][start:end] for number, start, end in pieces]
