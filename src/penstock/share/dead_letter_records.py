"""The content of dead letters, and which topics may be dead letter queues (KIP-1191). Pure.

The headers of a dead letter say where the record is, which group gave it up, how often it was delivered and why. If the
group asks for copies, the dead letter also has the record's key and value where possible: for records that retention or
compaction has removed, or that are too large for the queue, it has the headers only.

The cost of one batch of dead letters is bounded, whatever producers and members send: in number, in bytes, and in bytes
of the log read for copies, each batch of it once. It may still take a second of CPU time, so it is done on a worker
thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from penstock.base.dataclasses import dataclass, field
from penstock.base.errors import PlatformError
from penstock.base.settings import BrokerSettings
from penstock.log.batches import MAX_RECORDS, Accepted, Rejected, inspect
from penstock.log.model import Topic, TopicConfig
from penstock.share.model import EXHAUSTED, REJECTED, Run
from penstock.wire.records import (
    HEADER_BYTES,
    BatchHeader,
    Record,
    build_batch,
    contents_within,
    iter_batches,
    records_section,
)

CAUSES = {REJECTED: "Offset rejected by client.", EXHAUSTED: "Offset delivery count exceeded the threshold."}
"""Kafka's error messages."""
_PREFIX = "__dlq.errors."
_HEADER_OVERHEAD = 10
_OVERHEAD = 32 + len("__dlq.errors.offset") + 20 + _HEADER_OVERHEAD
"""The longest varint lengths and deltas of a dead letter, and of a header that differs in each dead letter."""
MAX_BATCH_BYTES, MAX_BATCH_RECORDS = 1024 * 1024, 500
"""The size of a batch of several dead letters."""
MAX_COPIED_BATCH_BYTES = 16 * 1024 * 1024
"""Records of batches that decompress to more than this are not copied."""
MAX_SCANNED_BYTES = 16 * 1024 * 1024
"""How much of the log, and of what it decompresses to, is read for one batch of dead letters."""
DAMAGE_CHARGE_BYTES = 1024 * 1024
"""What a search for the end of unreadable data is charged."""
_NEWEST_PRODUCE = 13

OffsetRange = tuple[int, int]
"""First and last offset."""


class RecordCopy(NamedTuple):
    """What a dead letter copies of a record."""

    key: bytes | None = None
    value: bytes | None = None

    @property
    def size_bytes(self) -> int:
        """The size in a batch."""
        return len(self.key or b"") + len(self.value or b"")


_NOTHING = RecordCopy()


class DeadLetterSource(NamedTuple):
    """The group and partition where records were given up."""

    group_id: str
    topic: str
    partition_index: int


class BuiltRecords(NamedTuple):
    """Dead letters, and the offsets that they are about."""

    records: list[Record]
    offsets: list[int]


class BuiltBatch(NamedTuple):
    """The queue's verdict on a batch of dead letters, and the offsets that they are about."""

    verdict: Accepted | Rejected
    offsets: list[int]


def invalid_reason(name: str, topic: Topic | None, settings: BrokerSettings) -> str | None:
    """Why this topic, existing or not, cannot be a dead letter queue, checked in Kafka's order. None if it can be, or
    may be created."""
    if not name:
        return "the group has no dead letter queue any more"
    if name.startswith("__"):
        return f"the name of the dead letter queue {name!r} must not start with __"
    if topic is not None and not topic.config.takes_dead_letters:
        return f"the topic {name!r} does not have errors.deadletterqueue.group.enable=true"
    if topic is None and not settings.flag("errors.deadletterqueue.auto.create.topics.enable"):
        return f"the topic {name!r} is not there, and errors.deadletterqueue.auto.create.topics.enable is false"
    prefix = (settings.text("errors.deadletterqueue.topic.name.prefix") or "").strip()
    if not name.startswith(prefix):
        return f"the name of the dead letter queue {name!r} does not begin with {prefix!r}"
    return None


def first_offsets(runs: Iterable[Run], most: int = MAX_BATCH_RECORDS) -> list[Run]:
    """The first `most` offsets of runs."""
    found: list[Run] = []
    for run in runs:
        if most <= 0:
            break
        found.append(run._replace(last=min(run.last, run.first + most - 1)))
        most -= run.last - run.first + 1
    return found


def ranges_of(offsets: Iterable[int]) -> list[OffsetRange]:
    """Ascending offsets as ranges."""
    ranges: list[OffsetRange] = []
    for offset in offsets:
        if ranges and ranges[-1][1] + 1 == offset:
            ranges[-1] = (ranges[-1][0], offset)
        else:
            ranges.append((offset, offset))
    return ranges


def build_batch_for(
    source: DeadLetterSource,
    runs: Iterable[Run],
    copies: Mapping[int, RecordCopy],
    *,
    read_to: int,
    queue: TopicConfig,
    now_ms: int,
) -> BuiltBatch:
    """A batch of dead letters that the queue accepts; or one it refuses, as small as possible."""
    built = build_records(
        source, runs, copies, read_to=read_to, batch_max_bytes=queue.largest_batch_bytes, now_ms=now_ms
    )
    records = built.records
    while True:
        verdict = inspect(build_batch(records), queue, now_ms, version=_NEWEST_PRODUCE, transactional=False)
        offsets = built.offsets[: len(records)]
        if isinstance(verdict, Accepted):
            return BuiltBatch(verdict, offsets)
        if verdict.records:
            return BuiltBatch(verdict, [offsets[index] for index, _ in verdict.records])
        if len(records) == 1:
            return BuiltBatch(verdict, offsets)
        records = records[: len(records) // 2]


def build_records(
    source: DeadLetterSource,
    runs: Iterable[Run],
    copies: Mapping[int, RecordCopy],
    *,
    read_to: int,
    batch_max_bytes: int,
    now_ms: int,
) -> BuiltRecords:
    """As many dead letters for archiving runs as fit into a batch: at least one, even if that is too large for the
    queue.

    Offsets after `read_to` have not been read yet, and wait for the next batch.
    """
    records: list[Record] = []
    offsets: list[int] = []
    left = min(batch_max_bytes, MAX_BATCH_BYTES) - HEADER_BYTES
    for run in runs:
        common = _headers(source, run)
        overhead = _OVERHEAD + sum(len(name) + len(value) + _HEADER_OVERHEAD for name, value in common)
        for offset in range(run.first, run.last + 1):
            copy = copies.get(offset, _NOTHING)
            if overhead + copy.size_bytes > batch_max_bytes - HEADER_BYTES:
                copy = _NOTHING
            size = overhead + copy.size_bytes
            if records and (offset > read_to or size > left or len(records) == MAX_BATCH_RECORDS):
                return BuiltRecords(records, offsets)
            left -= size
            headers = (*common[:2], (_PREFIX + "offset", b"%d" % offset), *common[2:])
            records.append(
                Record(offset=len(records), timestamp=now_ms, key=copy.key, value=copy.value, headers=headers)
            )
            offsets.append(offset)
    return BuiltRecords(records, offsets)


def _headers(source: DeadLetterSource, run: Run) -> tuple[tuple[str, bytes], ...]:
    """The headers that all dead letters of a run share. The offset comes third."""
    fields = {
        "topic": source.topic, "partition": source.partition_index, "group": source.group_id,
        "delivery.count": run.deliveries, "message": CAUSES[run.state],
    }  # fmt: skip
    return tuple((_PREFIX + name, str(value).encode()) for name, value in fields.items())


@dataclass(slots=True)
class RecordCopies:
    """The copies found for one batch of dead letters."""

    room_bytes: int
    """Bytes that still fit."""
    largest_bytes: int
    """Larger records are not copied."""
    found: dict[int, RecordCopy] = field(default_factory=dict)
    scanned_to: int = -1
    """Records have been searched up to this offset."""
    scanned_bytes: int = 0

    @property
    def is_full(self) -> bool:
        """Whether the rest has to wait for the next batch of dead letters."""
        return self.room_bytes <= 0 or self.scanned_bytes >= MAX_SCANNED_BYTES

    def skip_to(self, offset: int) -> None:
        """Skip unreadable data up to an offset, and charge for the search."""
        self.scanned_to = max(self.scanned_to, offset)
        self.scanned_bytes += DAMAGE_CHARGE_BYTES

    def scan(self, views: Sequence[memoryview], wanted: Sequence[OffsetRange]) -> None:
        """Search consecutive batches for wanted offsets. Batches that cannot be decoded, and control batches, have
        nothing to copy."""
        index = 0
        for view in views:
            self.scanned_bytes += len(view)
            for position, header in iter_batches(view):
                while index < len(wanted) and wanted[index][1] < header.base_offset:
                    index += 1
                if index == len(wanted):
                    break
                here = _ranges_within(wanted, index, header.base_offset, header.last_offset)
                if here and not header.is_control:
                    self._scan_batch(view[position : position + header.size_bytes], header, here)
                    if self.is_full:
                        return
                self.scanned_to = max(self.scanned_to, header.last_offset)
            if index == len(wanted):
                break
        if index == len(wanted):
            self.scanned_to = max(self.scanned_to, wanted[-1][1])

    def _scan_batch(self, batch: memoryview, header: BatchHeader, wanted: Sequence[OffsetRange]) -> None:
        """Decode the wanted records of a batch, to its end unless there is no more room."""
        self.scanned_to = max(self.scanned_to, header.last_offset)
        if header.record_count > MAX_RECORDS or header.size_bytes > MAX_COPIED_BATCH_BYTES:
            return
        try:
            data = records_section(batch, header, max_bytes=MAX_COPIED_BATCH_BYTES)
            self.scanned_bytes += len(data)
            for offset, key, value in contents_within(header, data, wanted):
                copy = RecordCopy(key, value)
                if copy.size_bytes > self.largest_bytes or offset in self.found:
                    continue
                self.found[offset] = copy
                self.room_bytes -= copy.size_bytes
                if self.room_bytes <= 0:
                    self.scanned_to = offset
                    return
        except PlatformError:
            # It may have decompressed to that size before it turned out to be damaged.
            self.scanned_bytes += MAX_COPIED_BATCH_BYTES


def _ranges_within(ranges: Sequence[OffsetRange], index: int, first: int, last: int) -> list[OffsetRange]:
    """The parts of ranges, from number `index` on, that lie between two offsets."""
    found = []
    while index < len(ranges) and ranges[index][0] <= last:
        found.append((max(ranges[index][0], first), min(ranges[index][1], last)))
        index += 1
    return found


def ranges_after(ranges: Iterable[OffsetRange], offset: int) -> list[OffsetRange]:
    """The parts of ranges after an offset."""
    return [(max(first, offset + 1), last) for first, last in ranges if last > offset]
