"""The rules of key compaction (KIP-58, KIP-534). Pure: no await, no clock, no I/O.

Compaction goes over a partition twice. First over its dirty part, the batches it has not processed yet: an `OffsetMap`
notes the latest offset of every key, as many keys as fit. Then over everything below the map's end, oldest first:
`clean_batch` keeps a record only if no later one has its key.

A tombstone, a record without value, must reach every consumer that read the value it deletes. So it is kept the first
time, and its batch gets a *delete horizon*: the time from which on compaction may drop the batch's tombstones. That is
safe because the map covered the tombstone when the horizon was set: older values of its key were dropped in the same
pass, or before.

Offsets never change. A batch keeps its base and last offset, whatever records it loses, and is removed when it has none
left, unless its header is still needed.

Compaction stays below the last stable offset, so every transaction in it has ended. Batches of aborted ones are
dropped, and their keys supersede nothing; those of committed ones are like all others. A marker without any batch of
its transaction left before it gets a delete horizon as well, for consumers that are between the two. After that a
commit marker is dropped. An abort marker stays until it is off the list of aborted transactions, for which
`Transactions.expired_aborts` asks: a consumer that got the transaction in that list must find its marker.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from operator import attrgetter

from penstock.base.dataclasses import dataclass, field
from penstock.log.model import AbortedTransaction, TopicConfig
from penstock.log.segments import SegmentFacts
from penstock.log.upkeep.latest_offsets import FURTHEST_MS, LatestOffsets, kept_records, note_keys, records_in_order
from penstock.storage.wal import Buffer
from penstock.wire.primitives import Malformed
from penstock.wire.records import BatchHeader, keep_records, records_view, scan_records, shorten

_by_last_offset = attrgetter("last_offset")
MAX_DECOMPRESSED_BYTES = 256 * 1024 * 1024


class Transactions:
    """The transactions of a partition, tracked from its beginning."""

    __slots__ = ("_aborted", "_ends", "_seen", "expired_aborts")

    def __init__(self, aborted: Iterable[AbortedTransaction] = ()) -> None:
        self._aborted: dict[int, list[AbortedTransaction]] = {}
        for one in aborted:
            self._aborted.setdefault(one.producer_id, []).append(one)
        self._ends = {one.last_offset for ones in self._aborted.values() for one in ones}
        self._seen: set[int] = set()
        """Producers with batches since their last marker."""
        self.expired_aborts: set[int] = set()
        """Offsets of abort markers whose transactions may be removed from the list of aborted ones."""

    def copy(self) -> Transactions:
        """A copy, to continue from here without changing the original."""
        other = Transactions()
        other._aborted, other._ends = self._aborted, self._ends
        other._seen, other.expired_aborts = self._seen.copy(), self.expired_aborts.copy()
        return other

    def is_aborted(self, header: BatchHeader) -> bool:
        """Whether a batch belongs to an aborted transaction."""
        if not header.is_transactional or header.is_control:
            return False
        ones = self._aborted.get(header.producer_id)
        if ones is None:
            return False
        at = bisect_left(ones, header.base_offset, key=_by_last_offset)
        return at < len(ones) and ones[at].first_offset <= header.base_offset

    def note(self, header: BatchHeader) -> None:
        """A transaction has a batch here."""
        self._seen.add(header.producer_id)

    def end(self, header: BatchHeader) -> tuple[bool, bool]:
        """Process a marker: whether its transaction has a batch before it, and whether it is on the list of aborted
        ones."""
        has_batches = header.producer_id in self._seen
        self._seen.discard(header.producer_id)
        return has_batches, header.base_offset in self._ends


class OffsetMap:
    """The latest offset of each key in a range of the log."""

    __slots__ = ("capacity", "end_offset", "latest", "transactions")

    def __init__(self, capacity: int) -> None:
        self.transactions = Transactions()
        self.latest = LatestOffsets(capacity)
        self.capacity = capacity
        self.end_offset = 0
        """The map covers everything from its start up to this offset (exclusive)."""

    def __len__(self) -> int:
        return len(self.latest)

    @property
    def is_full(self) -> bool:
        """Whether the range must end here. The last batch may have exceeded the capacity."""
        return len(self.latest) >= self.capacity

    def note(self, header: BatchHeader, batch: Buffer) -> None:
        """Add the next batch."""
        if not header.is_control and not self.transactions.is_aborted(header):
            data = _records(header, batch)
            if data is not None:
                note_keys(self.latest, header, data)
        self.end_offset = header.last_offset + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleaning:
    """The parameters of one pass over a partition."""

    keys: OffsetMap
    now_ms: int
    delete_retention_ms: int
    transactions: Transactions = field(default_factory=Transactions)
    wanted_headers: frozenset[int] = frozenset()
    """Last offsets of batches whose headers stay when their records are dropped: the last ones of live producers."""

    @property
    def horizon_ms(self) -> int:
        """The delete horizon of tombstones that the pass meets first."""
        return min(self.now_ms + self.delete_retention_ms, FURTHEST_MS)

    def wants_header(self, header: BatchHeader) -> bool:
        """Whether an empty batch stays. The last one of the pass does, so that consumers reach the end of the log."""
        return header.last_offset in self.wanted_headers or header.last_offset + 1 >= self.keys.end_offset


def clean_batch(cleaning: Cleaning, header: BatchHeader, batch: Buffer) -> Buffer | None:
    """What remains of one batch: the same object if nothing changes, other bytes, or None."""
    keys = cleaning.keys
    if header.base_offset >= keys.end_offset:
        return batch
    if header.is_control:
        return _clean_marker(cleaning, header, batch)
    if cleaning.transactions.is_aborted(header):
        cleaning.transactions.note(header)
        return keep_records(header, batch, b"", (), keep_empty=cleaning.wants_header(header))
    if header.record_count == 0:
        return batch if cleaning.wants_header(header) else None
    data, horizon = _records(header, batch), header.delete_horizon_ms
    expired = horizon is not None and cleaning.now_ms >= horizon
    kept = None if data is None else kept_records(keys.latest, header, data, keys.end_offset, expired)
    if kept is None:
        return batch
    if header.is_transactional:
        cleaning.transactions.note(header)
    if horizon is None and kept.has_tombstones:
        left = bytes(kept.data)
        spans = scan_records(header._replace(record_count=kept.record_count), left)
        return keep_records(header, batch, left, spans, delete_horizon_ms=cleaning.horizon_ms)
    if kept.record_count == header.record_count:
        return batch
    if not kept.record_count and not cleaning.wants_header(header):
        return None
    return shorten(header, kept.data, kept.record_count, kept.max_timestamp)


def _clean_marker(cleaning: Cleaning, header: BatchHeader, batch: Buffer) -> Buffer | None:
    has_batches, is_listed = cleaning.transactions.end(header)
    horizon = header.delete_horizon_ms
    if has_batches or cleaning.wants_header(header):
        return batch
    if horizon is None:
        data = _records(header, batch)
        spans = None if data is None else records_in_order(header, bytes(data))
        if data is None or spans is None:
            return batch
        return keep_records(header, batch, bytes(data), spans, delete_horizon_ms=cleaning.horizon_ms)
    if cleaning.now_ms < horizon:
        return batch
    if is_listed:
        cleaning.transactions.expired_aborts.add(header.base_offset)
        return batch
    return None


def _records(header: BatchHeader, batch: Buffer) -> Buffer | None:
    """The decompressed records of a batch, or None if they cannot be decompressed."""
    try:
        return records_view(batch, header, max_bytes=MAX_DECOMPRESSED_BYTES)
    except Malformed:
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class LogToClean:
    """How much of a partition compaction could process now."""

    start_offset: int
    """Where the dirty part begins."""
    end_offset: int
    """Where the part that may be compacted ends."""
    dirty_bytes: int
    total_bytes: int
    is_overdue: bool
    """Whether `max.compaction.lag.ms` requires compaction whatever the ratio."""

    @property
    def ratio(self) -> float:
        """The dirty ratio, in bytes."""
        return self.dirty_bytes / self.total_bytes if self.total_bytes else 0.0

    def is_worth_cleaning(self, config: TopicConfig) -> bool:
        """Kafka's condition: overdue, or dirtier than `min.cleanable.dirty.ratio`."""
        return self.dirty_bytes > 0 and (self.is_overdue or self.ratio > config.min_cleanable_dirty_ratio)


def measure(
    segments: Sequence[SegmentFacts], config: TopicConfig, *, cleaned_to: int, first_dirty_ms: int, now_ms: int
) -> LogToClean:
    """Measure a partition by its segments, in order, from its log start on."""
    clean, dirty, start, end = 0, 0, cleaned_to, cleaned_to
    for segment in segments:
        if segment.last_offset < cleaned_to:
            clean += segment.byte_length
            continue
        if config.min_compaction_lag_ms > 0 and segment.max_timestamp > now_ms - config.min_compaction_lag_ms:
            break
        dirty += segment.byte_length
        end = segment.last_offset + 1
    return LogToClean(
        start_offset=start, end_offset=end, dirty_bytes=dirty, total_bytes=clean + dirty,
        is_overdue=0 <= first_dirty_ms < now_ms - config.max_compaction_lag_ms,
    )  # fmt: skip
