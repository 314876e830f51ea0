"""The plan of a pass of WAL compaction, computed from commits: what moves, what is metered, which producers are stored.

Pure: no await, no clock, no I/O. A `CompactionPlan` takes whole commits, oldest first, until it has the size of one
pass. Per partition it has the range of offsets that becomes segments. The bytes of that range are the partition's
spans, so the plan reads commits only for what spans do not have: usage and the batches of idempotent producers.

A producer's state is stored as of the end of the range. In memory it may be ahead, and replaying the commits after the
floor over a state that is ahead would remember batches twice; so it is assembled from the pass's own batches and, if
those are fewer than are kept, from what memory has from before the range.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Iterator
from operator import attrgetter

from penstock.base.dataclasses import dataclass, field
from penstock.base.errors import CorruptData
from penstock.base.twins import twinned
from penstock.log.commits import CONTROL, Commit, CommitEntry, ProducerBatch, follow_all, sequence_batch
from penstock.log.model import KEPT_BATCHES, AbortedTransaction, OpenTransaction, Partition, Span
from penstock.log.recovery import pack_batches
from penstock.log.registry import Registry
from penstock.log.segment_store import Fold, ProducerRow
from penstock.log.segments import LONG_BYTES
from penstock.log.upkeep.wal_backlog import CompactionPolicy
from penstock.log.usage import Metric, UsageKey, bucket_of
from penstock.storage.wal import WalLocation, pages_of

_by_last_offset = attrgetter("last_offset")
_NO_TRANSACTION = OpenTransaction(-1, -1)


_Counted = dict[int, list[int]]
"""Bytes and records by bucket."""


@dataclass(slots=True)
class PassProducer:
    """What the pass knows about one producer."""

    epoch: int
    last_ms: int
    batches: deque[tuple[int, ProducerBatch]] = field(default_factory=lambda: deque(maxlen=KEPT_BATCHES))
    """The last batches, each with the base offset of its entry."""


@dataclass(slots=True)
class WalFile:
    """What a pass takes from one WAL file."""

    key: str
    first_seq: int
    held_bytes: int = 0
    long_bytes: int = 0
    """Bytes in ranges that could be segments in place."""


@dataclass(slots=True)
class PartitionRange:
    """The range of one partition that a pass moves into segments."""

    partition: Partition
    base_offset: int
    end_offset: int
    head_seq: int
    first_ms: int
    byte_length: int = 0
    counted: _Counted = field(default_factory=dict)
    producers: dict[int, PassProducer] = field(default_factory=dict)
    transactions: dict[int, OpenTransaction] = field(default_factory=dict)
    """Transactions that are open at the end of the range."""
    aborted: list[AbortedTransaction] = field(default_factory=list)
    """Aborted transactions whose markers are in the range."""
    taken: list[Span] = field(default_factory=list)
    """All spans of the range."""
    spans: list[Span] = field(default_factory=list)
    """The spans whose bytes are kept, without those below the log start."""
    views: list[memoryview | None] = field(default_factory=list)
    """Their views when the pass began: these stay valid, while a span may lose its own."""

    def take_spans(self) -> None:
        """Find the spans and hold on to the bytes that are in memory."""
        spans, log_start = self.partition.spans, self.partition.log_start
        first = bisect_left(spans, self.base_offset, key=_by_last_offset)
        last = bisect_left(spans, self.end_offset, lo=first, key=_by_last_offset)
        self.taken = spans[first:last]
        if sum(span.byte_length for span in self.taken) != self.byte_length:
            raise CorruptData(
                f"partition {self.partition.partition_id} has other batches from {self.base_offset} to"
                f" {self.end_offset} in memory than its commits say"
            )
        self.spans = self.taken[bisect_left(self.taken, log_start, key=_by_last_offset) :]
        self.views = [span.view for span in self.spans]

    @property
    def is_empty(self) -> bool:
        """Whether everything was in segments before."""
        return self.end_offset == self.base_offset

    @property
    def skipped_bytes(self) -> int:
        """Bytes below the log start, which are dropped."""
        return self.byte_length - sum(span.byte_length for span in self.spans)

    def fold(self) -> Fold:
        """The new content of the partition's row."""
        return Fold(
            partition_id=self.partition.partition_id,
            segmented_from=self.base_offset,
            segmented_to=self.end_offset,
            head_seq=self.head_seq,
            size_bytes=sum(span.byte_length for span in self.spans),
            first_dirty_ms=self.first_ms,
            producers=tuple(self._producer_row(producer_id) for producer_id in self.producers),
            aborted=tuple(self.aborted),
        )

    def _producer_row(self, producer_id: int) -> ProducerRow:
        found = self.producers[producer_id]
        batches = [sequence_batch(base, batch) for base, batch in found.batches]
        known = self.partition.producers.get(producer_id)
        if known is not None and known.epoch == found.epoch:
            older = [batch for batch in known.batches if batch.last_offset < self.base_offset]
            batches = older + batches
        transaction = self.transactions.get(producer_id, _NO_TRANSACTION)
        return ProducerRow(
            producer_id=producer_id, epoch=found.epoch, last_ms=found.last_ms,
            batches=pack_batches(batches[-KEPT_BATCHES:]),
            txn_first_offset=transaction.first_offset, txn_started_ms=transaction.started_ms,
        )  # fmt: skip


def is_long(span: Span) -> bool:
    """Whether a span could be a segment of its own in place."""
    return span.index is not None and span.byte_length >= LONG_BYTES


class CompactionPlan:
    """One pass."""

    def __init__(self, registry: Registry, policy: CompactionPolicy, floor: int) -> None:
        self._registry, self._policy = registry, policy
        self.floor = self.new_floor = floor
        self.committed_ms = 0
        self.entries = 0
        self.held_bytes = 0
        """Bytes of the WAL that become free."""
        self.locations: list[WalLocation] = []
        self.files: dict[str, WalFile] = {}
        self.ranges: dict[int, PartitionRange] = {}
        self._changes = 0
        self._unknown: dict[int, _Counted] = {}

    @property
    def rows(self) -> int:
        """How many commits it takes."""
        return len(self.locations)

    @property
    def is_sparse(self) -> bool:
        """Whether its segments would be tiny, and nothing needs them soon; key compaction works on segments only."""
        ranges = self.ranges.values()
        size_bytes = sum(moved.byte_length for moved in ranges)
        return size_bytes < self._policy.sparse_bytes * len(ranges) and not any(
            moved.partition.topic.config.compact for moved in ranges
        )

    def has_room_for(self, commit: Commit) -> bool:
        """Whether another commit still belongs to this pass; the first one always does."""
        policy = self._policy
        if not self.locations:
            return True
        if self.rows >= policy.pass_rows:
            return False
        if self._changes >= policy.pass_changes:
            # Commits to partitions that are in the pass already add no segments.
            ranges = self.ranges
            if any(entry.partition_id not in ranges for entry in commit.entries):
                return False
        size_bytes, location = self.held_bytes + commit.location.length, commit.location
        if location.key == self.locations[-1].key and location.length >= LONG_BYTES * len(commit.entries):
            # Probably the file will be adopted: take the rest of it.
            return size_bytes <= 2 * policy.pass_bytes
        return size_bytes <= policy.pass_bytes

    def add(self, commit: Commit) -> None:
        """Take the next commit."""
        bucket_ms, ranges = bucket_of(commit.committed_ms), self.ranges
        for entry, base in zip(commit.entries, commit.bases, strict=True):
            moved = ranges.get(entry.partition_id) or self._begin(entry.partition_id, commit)
            counted = self._unknown[entry.partition_id] if moved is None else moved.counted
            count = counted.get(bucket_ms)
            if count is None:
                count = counted[bucket_ms] = [0, 0]
            count[0] += entry.byte_length
            count[1] += entry.offset_count
            if moved is not None and base >= moved.end_offset:
                self._take(moved, entry, base, commit)
        self.new_floor = commit.seq
        self.committed_ms = commit.committed_ms
        self.entries += len(commit.entries)
        self.held_bytes += pages_of((commit.location,))
        self.locations.append(commit.location)
        key = commit.location.key
        if key not in self.files:
            self.files[key] = WalFile(key, commit.seq)
        self.files[key].held_bytes += pages_of((commit.location,))

    def used(self) -> Counter[UsageKey]:
        """What clusters used."""
        used: Counter[UsageKey] = Counter()
        for moved in self.ranges.values():
            for key, value in _metrics(moved.counted):
                used[UsageKey(moved.partition.topic.cluster_id, *key)] += value
        return used

    def used_by_unknown(self) -> dict[int, dict[tuple[int, Metric], int]]:
        """The same for partitions that this agent does not know."""
        return {partition_id: dict(_metrics(counted)) for partition_id, counted in self._unknown.items()}

    def _begin(self, partition_id: int, commit: Commit) -> PartitionRange | None:
        if partition_id in self._unknown:
            return None
        partition = self._registry.partition(partition_id)
        if partition is None:
            self._unknown[partition_id] = {}
            return None
        start = partition.segmented_to
        self._changes += 2
        moved = self.ranges[partition_id] = PartitionRange(
            partition, start, start, commit.seq, commit.committed_ms,
            transactions=dict(partition.segmented_transactions),
        )  # fmt: skip
        return moved

    def _take(self, moved: PartitionRange, entry: CommitEntry, base: int, commit: Commit) -> None:
        moved.end_offset = base + entry.offset_count
        moved.byte_length += entry.byte_length
        moved.head_seq = commit.seq
        follow_all(moved.transactions, moved.aborted, base, entry.producer_batches, commit.committed_ms)
        self._changes += note_producers(moved.producers, base, entry.producer_batches, commit.committed_ms)


@twinned
def note_producers(
    producers: dict[int, PassProducer], base: int, batches: tuple[ProducerBatch, ...], committed_ms: int
) -> int:
    """Note the batches of an entry with that base offset; how many of their producers are new."""
    found = 0
    for batch in batches:
        producer = producers.get(batch.producer_id)
        if producer is None or batch.epoch > producer.epoch:
            found += producer is None
            producer = producers[batch.producer_id] = PassProducer(batch.epoch, committed_ms)
        producer.last_ms = committed_ms
        if not batch.flags & CONTROL:
            producer.batches.append((base, batch))
    return found


def _metrics(counted: _Counted) -> Iterator[tuple[tuple[int, Metric], int]]:
    for bucket_ms, (size_bytes, records) in counted.items():
        yield (bucket_ms, Metric.BYTES_IN), size_bytes
        yield (bucket_ms, Metric.RECORDS_IN), records
