"""The log's state in memory: topics, partitions, spans, producer states.

`Topic` and `Partition` mirror rows of the database. They change in one way only: a durable commit or a durable change
of metadata is applied to them, in commit order, on the event loop's thread. So code on the loop sees a partition only
between two commits, never inside one.

A partition's bytes are in *spans* (recent: one per commit, in a WAL object and mostly in memory as well) and in
*segments* (older: written by compaction, found through the database). Every offset in [`log_start`, `next_offset`) is
in a segment or in a span; where both have it, they agree.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol

from penstock.base.dataclasses import dataclass, field
from penstock.storage.wal import WalLocation

NO_TIMESTAMP = -1
NO_PRODUCER_ID = -1
LEADER_EPOCH = 0
"""Constant: any agent leads any partition, so there are no leader changes."""

KEPT_BATCHES = 5
"""How many batches of a producer are remembered to recognise duplicates; clients keep at most five in flight."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicConfig:
    """The topic settings that the log acts on, resolved from overrides and defaults."""

    delete: bool = True
    compact: bool = False
    retention_ms: int = 604_800_000
    retention_bytes: int = -1
    max_message_bytes: int = 1_048_588
    log_append_time: bool = False
    timestamp_before_max_ms: int = 2**63 - 1
    timestamp_after_max_ms: int = 3_600_000
    compression: int = -1
    """Codec id of stored batches (0 none … 4 zstd); -1 keeps the producer's."""
    compression_level: int | None = None
    min_compaction_lag_ms: int = 0
    max_compaction_lag_ms: int = 2**63 - 1
    delete_retention_ms: int = 86_400_000
    min_cleanable_dirty_ratio: float = 0.5
    segment_bytes: int = 1_073_741_824
    segment_ms: int = 604_800_000
    takes_dead_letters: bool = False
    """Whether the topic may be a dead letter queue of share groups (KIP-1191)."""
    largest_batch_bytes: int = field(init=False, default=0)
    """Also bounds a batch, which must fit into a segment."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "largest_batch_bytes", min(self.max_message_bytes, self.segment_bytes))

    @property
    def plain(self) -> bool:
        """Whether batches are stored exactly as sent, without looking at their records."""
        return not (self.compact or self.log_append_time or self.compression >= 0)


@dataclass(slots=True, eq=False, kw_only=True)
class Topic:
    """A topic of one virtual cluster."""

    cluster_id: int
    topic_id: bytes
    name: str
    replication_factor: int
    """As requested at creation; nothing is replicated, but tools expect it back."""
    created_ms: int
    overrides: Mapping[str, str]
    config: TopicConfig
    partitions: list[Partition] = field(default_factory=list)
    deleted: bool = False


@dataclass(slots=True)
class SequenceBatch:
    """One remembered batch of a producer: enough to answer a duplicate of it."""

    first_sequence: int
    last_sequence: int
    base_offset: int
    last_offset: int
    timestamp: int


@dataclass(slots=True)
class ProducerState:
    """What a partition remembers of one producer (KIP-98)."""

    producer_id: int
    epoch: int
    last_ms: int
    batches: tuple[SequenceBatch, ...] = ()
    """The last few batches, oldest first. A tuple, because a partition may have very many producers, most of them idle:
    it takes no more room than it needs, and copies of the state share it."""

    def add(self, batch: SequenceBatch) -> None:
        """Remember one more batch, and drop the oldest beyond the limit."""
        self.batches = (*self.batches[1 - KEPT_BATCHES :], batch)


class OpenTransaction(NamedTuple):
    """A transaction that has batches in a partition and no marker yet."""

    first_offset: int
    started_ms: int


class AbortedTransaction(NamedTuple):
    """An aborted transaction, whose batches `read_committed` must not show."""

    producer_id: int
    first_offset: int
    last_offset: int
    """The offset of its marker."""
    stable_offset: int
    """The last stable offset after the marker: any transaction aborted later begins there or after it."""


class Seal(NamedTuple):
    """The key that a range of stored bytes is sealed by (see seals.py)."""

    key_id: int
    salt: bytes


class EntrySeal(NamedTuple):
    """How the bytes that a commit adds to a partition are sealed in their WAL object."""

    key_id: int
    salt: bytes
    start: int
    """Where the sealed range begins in the object."""
    length: int
    """Plain bytes of the whole range."""
    skipped: int
    """Where the entry begins in them: not 0 if batches before it were left out of the commit."""
    base_offset: int
    """The base offset written in the range's first batch; the entry's own may differ."""
    crc: int
    """CRC-32C of the sealed range: tells without the key whether it was written completely."""


class Span:
    """The batches of one partition that one commit added, contiguous in offsets and bytes."""

    __slots__ = (
        "base_offset", "batch_count", "byte_length", "byte_start", "index", "last_offset", "location",
        "max_timestamp", "seal", "seq", "view",
    )  # fmt: skip

    def __init__(
        self, base_offset: int, last_offset: int, seq: int, location: WalLocation | None, byte_start: int,
        byte_length: int, max_timestamp: int, batch_count: int, view: memoryview | None,
    ) -> None:  # fmt: skip
        self.base_offset = base_offset
        self.last_offset = last_offset
        self.seq = seq
        self.location = location
        """The WAL object, or None once the bytes are in a segment and only the copy in memory is left."""
        self.byte_start = byte_start
        """The span's position in the object, unless its bytes are sealed there."""
        self.byte_length = byte_length
        self.max_timestamp = max_timestamp
        self.batch_count = batch_count
        self.seal: EntrySeal | None = None
        self.index: tuple[bytes, bytes] | None = None
        """Offset index and time index, as a segment has them, of a long span whose bytes in the WAL object already have
        their final offsets: it can become a segment in place."""
        self.view = view
        """The bytes in memory with their final offsets, or None if only the WAL object has them."""


class Waiter(Protocol):
    """Waits for data of a partition: a long poll."""

    def on_append(self, size_bytes: int) -> None:
        """So many bytes were committed. Called inside a commit, on the loop: must only note it and schedule work."""

    def on_stable(self, size_bytes: int) -> None:
        """The same for a partition with transactions: how much of it a given reader may see has to be looked up."""

    def on_change(self) -> None:
        """The partition changed in another way (deleted, log start moved): answer now."""


class ProducerCounts:
    """Counts the distinct producer ids of a virtual cluster; one id may be known in several places."""

    __slots__ = ("_places",)

    def __init__(self) -> None:
        self._places: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, producer_id: int) -> bool:
        return producer_id in self._places

    def added(self, producer_ids: Iterable[int]) -> None:
        """One more place knows each of these ids."""
        for producer_id in producer_ids:
            self._places[producer_id] = self._places.get(producer_id, 0) + 1

    def removed(self, producer_ids: Iterable[int]) -> None:
        """One place fewer knows each of these ids. A counting mistake must not fail a flush, so it is tolerated."""
        for producer_id in producer_ids:
            left = self._places.pop(producer_id, 1) - 1
            if left:
                self._places[producer_id] = left


class Partition:
    """One partition: its offsets, its recent spans, its producers and transactions, and its waiters."""

    __slots__ = (
        "aborted", "aborted_from", "awaited", "cleaned_to", "first_dirty_ms", "index", "log_start", "next_offset",
        "partition_id", "pending", "producer_counts", "producers", "segmented_to", "segmented_transactions",
        "size_bytes", "spans", "topic", "transactions", "waiters",
    )  # fmt: skip

    def __init__(
        self, *, partition_id: int, topic: Topic, index: int, next_offset: int = 0, log_start: int = 0,
        segmented_to: int = 0, size_bytes: int = 0, cleaned_to: int = 0, first_dirty_ms: int = -1,
    ) -> None:  # fmt: skip
        self.partition_id = partition_id
        self.topic = topic
        self.index = index
        self.next_offset = next_offset
        """The high watermark, which is also the log end offset: the next offset of the *committed* log."""
        self.log_start = log_start
        self.segmented_to = segmented_to
        """Every committed offset below this one is in a segment (or was removed)."""
        self.size_bytes = size_bytes
        self.cleaned_to = cleaned_to
        """Key compaction has processed everything below this offset."""
        self.first_dirty_ms = first_dirty_ms
        self.producers: dict[int, ProducerState] = {}
        """Change it through `know`, `add_producer` and `forget_producers`, or after them, which keep `producer_counts`
        right."""
        self.producer_counts: ProducerCounts | None = None
        self.awaited: dict[int, ProducerState] = {}
        """Producers that are known only because a flush with their first batch failed: that batch must be retried
        before those that were sent after it. Belongs to the writer."""
        self.transactions: dict[int, OpenTransaction] = {}
        """Open transactions by producer id, in the order of their first offsets."""
        self.segmented_transactions: dict[int, OpenTransaction] = {}
        """The transactions that were open at `segmented_to`."""
        self.aborted: list[AbortedTransaction] = []
        """In the order of their markers. Those that end below `aborted_from` are only in the database."""
        self.aborted_from = 0
        self.spans: list[Span] = []
        """In offset order, contiguous."""
        self.waiters: dict[Waiter, None] = {}
        self.pending: list[Any] = []
        """The partition's write buffer; belongs to the writer."""

    @property
    def last_stable_offset(self) -> int:
        """The first offset of the oldest open transaction, else the high watermark."""
        if not self.transactions:
            return self.next_offset
        return max(self.log_start, next(iter(self.transactions.values())).first_offset)

    def count_producers(self, producer_counts: ProducerCounts | None) -> None:
        """Count this partition's producers in another tally from now on."""
        if self.producer_counts is not None:
            self.producer_counts.removed(self.producers)
        self.producer_counts = producer_counts
        if producer_counts is not None:
            producer_counts.added(self.producers)

    def know(self, states: Mapping[int, ProducerState]) -> None:
        """Set the states of producers."""
        if self.producer_counts is not None:
            self.producer_counts.added([producer_id for producer_id in states if producer_id not in self.producers])
        self.producers.update(states)

    def add_producer(self, producer_id: int) -> None:
        """Count a producer whose state is about to be added."""
        if self.producer_counts is not None and producer_id not in self.producers:
            self.producer_counts.added((producer_id,))

    def forget_producers(self, producer_ids: Iterable[int]) -> None:
        """Drop the states of these producers."""
        known = [producer_id for producer_id in producer_ids if self.producers.pop(producer_id, None) is not None]
        if self.producer_counts is not None:
            self.producer_counts.removed(known)

    def drop_lost_spans(self) -> None:
        """Drop the oldest spans that are neither in the WAL nor in memory: segments have their bytes."""
        spans, lost = self.spans, 0
        while lost < len(spans) and spans[lost].location is None and spans[lost].view is None:
            lost += 1
        del spans[:lost]

    def wake(self) -> None:
        """Notify all waiters of a change that is not an append."""
        for waiter in list(self.waiters):
            waiter.on_change()
