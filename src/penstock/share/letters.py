"""The content of dead letters, and which topics may be dead letter queues (KIP-1191). Pure.

The headers of a letter say where the record is, which group gave it up, how often it was delivered and why. If the
group asks for copies, the letter also has the record's key and value where possible: for records that retention or
compaction has removed, or that are too large for the queue, it has the headers only.

The cost of one batch of letters is bounded, whatever producers and members send: in number, in bytes, and in bytes of
the log read for copies, each batch of it once. It may still take a second of CPU time, so it is done on a worker
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
"""The longest varint lengths and deltas of a letter, and of a header that differs in each letter."""
TOGETHER_BYTES, TOGETHER_MAX = 1024 * 1024, 500
"""The size of a batch of several letters."""
COPIED_BATCH_BYTES = 16 * 1024 * 1024
"""Records of batches that decompress to more than this are not copied."""
LOOKED_AT_BYTES = 16 * 1024 * 1024
"""How much of the log, and of what it decompresses to, is read for one batch of letters."""
DAMAGE_BYTES = 1024 * 1024
"""What a search for the end of unreadable data is charged."""
_NEWEST_PRODUCE = 13

Stretch = tuple[int, int]
"""First and last offset."""


class Copy(NamedTuple):
    """What a letter copies of a record."""

    key: bytes | None = None
    value: bytes | None = None

    @property
    def size_bytes(self) -> int:
        """The size in a batch."""
        return len(self.key or b"") + len(self.value or b"")


_NOTHING = Copy()


class Source(NamedTuple):
    """The group and partition where records were given up."""

    group_id: str
    topic: str
    partition_index: int


class Written(NamedTuple):
    """Letters, and the offsets that they are about."""

    letters: list[Record]
    offsets: list[int]


class Made(NamedTuple):
    """The queue's verdict on a batch of letters, and the offsets that they are about."""

    verdict: Accepted | Rejected
    offsets: list[int]


def complaint(name: str, topic: Topic | None, settings: BrokerSettings) -> str | None:
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


def first_of(runs: Iterable[Run], most: int = TOGETHER_MAX) -> list[Run]:
    """The first `most` offsets of runs."""
    found: list[Run] = []
    for run in runs:
        if most <= 0:
            break
        found.append(run._replace(last=min(run.last, run.first + most - 1)))
        most -= run.last - run.first + 1
    return found


def stretches_of(offsets: Iterable[int]) -> list[Stretch]:
    """Ascending offsets as ranges."""
    stretches: list[Stretch] = []
    for offset in offsets:
        if stretches and stretches[-1][1] + 1 == offset:
            stretches[-1] = (stretches[-1][0], offset)
        else:
            stretches.append((offset, offset))
    return stretches


def make(
    source: Source, runs: Iterable[Run], copies: Mapping[int, Copy], *, read_to: int, queue: TopicConfig, now_ms: int
) -> Made:
    """A batch of letters that the queue accepts; or one it refuses, as small as possible."""
    written = write(source, runs, copies, read_to=read_to, batch_max_bytes=queue.largest_batch_bytes, now_ms=now_ms)
    letters = written.letters
    while True:
        verdict = inspect(build_batch(letters), queue, now_ms, version=_NEWEST_PRODUCE, transactional=False)
        offsets = written.offsets[: len(letters)]
        if isinstance(verdict, Accepted):
            return Made(verdict, offsets)
        if verdict.records:
            return Made(verdict, [offsets[index] for index, _ in verdict.records])
        if len(letters) == 1:
            return Made(verdict, offsets)
        letters = letters[: len(letters) // 2]


def write(
    source: Source, runs: Iterable[Run], copies: Mapping[int, Copy], *, read_to: int, batch_max_bytes: int, now_ms: int
) -> Written:
    """As many letters for archiving runs as fit into a batch: at least one, even if that is too large for the queue.

    Offsets after `read_to` have not been read yet, and wait for the next batch.
    """
    letters: list[Record] = []
    offsets: list[int] = []
    left = min(batch_max_bytes, TOGETHER_BYTES) - HEADER_BYTES
    for run in runs:
        common = _headers(source, run)
        overhead = _OVERHEAD + sum(len(name) + len(value) + _HEADER_OVERHEAD for name, value in common)
        for offset in range(run.first, run.last + 1):
            copy = copies.get(offset, _NOTHING)
            if overhead + copy.size_bytes > batch_max_bytes - HEADER_BYTES:
                copy = _NOTHING
            size = overhead + copy.size_bytes
            if letters and (offset > read_to or size > left or len(letters) == TOGETHER_MAX):
                return Written(letters, offsets)
            left -= size
            headers = (*common[:2], (_PREFIX + "offset", b"%d" % offset), *common[2:])
            letters.append(
                Record(offset=len(letters), timestamp=now_ms, key=copy.key, value=copy.value, headers=headers)
            )
            offsets.append(offset)
    return Written(letters, offsets)


def _headers(source: Source, run: Run) -> tuple[tuple[str, bytes], ...]:
    """The headers that all letters of a run share. The offset comes third."""
    said = {
        "topic": source.topic, "partition": source.partition_index, "group": source.group_id,
        "delivery.count": run.deliveries, "message": CAUSES[run.state],
    }  # fmt: skip
    return tuple((_PREFIX + name, str(value).encode()) for name, value in said.items())


@dataclass(slots=True)
class Copies:
    """The copies found for one batch of letters."""

    room_bytes: int
    """Bytes that still fit."""
    largest_bytes: int
    """Larger records are not copied."""
    found: dict[int, Copy] = field(default_factory=dict)
    looked_to: int = -1
    """Records have been searched up to this offset."""
    work_bytes: int = 0

    @property
    def is_enough(self) -> bool:
        """Whether the rest has to wait for the next batch of letters."""
        return self.room_bytes <= 0 or self.work_bytes >= LOOKED_AT_BYTES

    def pass_over(self, offset: int) -> None:
        """Skip unreadable data up to an offset, and charge for the search."""
        self.looked_to = max(self.looked_to, offset)
        self.work_bytes += DAMAGE_BYTES

    def look(self, views: Sequence[memoryview], wanted: Sequence[Stretch]) -> None:
        """Search consecutive batches for wanted offsets. Batches that cannot be decoded, and control batches, have
        nothing to copy."""
        index = 0
        for view in views:
            self.work_bytes += len(view)
            for position, header in iter_batches(view):
                while index < len(wanted) and wanted[index][1] < header.base_offset:
                    index += 1
                if index == len(wanted):
                    break
                here = _within(wanted, index, header.base_offset, header.last_offset)
                if here and not header.is_control:
                    self._look_into(view[position : position + header.size_bytes], header, here)
                    if self.is_enough:
                        return
                self.looked_to = max(self.looked_to, header.last_offset)
            if index == len(wanted):
                break
        if index == len(wanted):
            self.looked_to = max(self.looked_to, wanted[-1][1])

    def _look_into(self, batch: memoryview, header: BatchHeader, wanted: Sequence[Stretch]) -> None:
        """Decode the wanted records of a batch, to its end unless there is no more room."""
        self.looked_to = max(self.looked_to, header.last_offset)
        if header.record_count > MAX_RECORDS or header.size_bytes > COPIED_BATCH_BYTES:
            return
        try:
            data = records_section(batch, header, max_bytes=COPIED_BATCH_BYTES)
            self.work_bytes += len(data)
            for offset, key, value in contents_within(header, data, wanted):
                copy = Copy(key, value)
                if copy.size_bytes > self.largest_bytes or offset in self.found:
                    continue
                self.found[offset] = copy
                self.room_bytes -= copy.size_bytes
                if self.room_bytes <= 0:
                    self.looked_to = offset
                    return
        except PlatformError:
            # It may have decompressed to that size before it turned out to be damaged.
            self.work_bytes += COPIED_BATCH_BYTES


def _within(stretches: Sequence[Stretch], index: int, first: int, last: int) -> list[Stretch]:
    """The parts of ranges, from number `index` on, that lie between two offsets."""
    found = []
    while index < len(stretches) and stretches[index][0] <= last:
        found.append((max(stretches[index][0], first), min(stretches[index][1], last)))
        index += 1
    return found


def behind(stretches: Iterable[Stretch], offset: int) -> list[Stretch]:
    """The parts of ranges after an offset."""
    return [(max(first, offset + 1), last) for first, last in stretches if last > offset]
