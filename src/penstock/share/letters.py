"""What a dead letter queue is told of a record that was given up, and which topic may be one (KIP-1191). Pure.

A letter says by its headers where the record is, whose it was, how often it was delivered and why it was given up. If
the group asks for copies it has the record's key and value as well, where they can be had: records that retention or
compaction has taken, or that are too large for the queue, are told of without.

What one batch of letters costs is bounded, whatever producers and members have sent: so many letters, so many bytes of
them, so many bytes of the log looked at for copies, each batch of it once. It can be a second's work all the same, and
is done on a worker thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from penstock.base.dataclasses import dataclass, field
from penstock.base.errors import PlatformError
from penstock.log.batches import MAX_RECORDS, Accepted, Rejected, inspect
from penstock.log.model import Topic, TopicConfig
from penstock.log.settings import BrokerSettings
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
"""Kafka's sentences."""
_PREFIX = "__dlq.errors."
_HEADER_OVERHEAD = 10
_OVERHEAD = 32 + len("__dlq.errors.offset") + 20 + _HEADER_OVERHEAD
"""Lengths and deltas of a letter at most, and the header that is another one in each."""
TOGETHER_BYTES, TOGETHER_MAX = 1024 * 1024, 500
"""How large a batch of several letters gets."""
COPIED_BATCH_BYTES = 16 * 1024 * 1024
"""Of batches that are larger than this when they are decompressed nothing is copied."""
LOOKED_AT_BYTES = 16 * 1024 * 1024
"""How much of the log is looked at for one batch of letters, and of what it decompresses to."""
DAMAGE_BYTES = 1024 * 1024
"""How much of that looking for the end of what cannot be read counts as."""
_NEWEST_PRODUCE = 13

Stretch = tuple[int, int]
"""First and last offset."""


class Copy(NamedTuple):
    """What is copied of a record."""

    key: bytes | None = None
    value: bytes | None = None

    @property
    def size_bytes(self) -> int:
        """What it takes."""
        return len(self.key or b"") + len(self.value or b"")


_NOTHING = Copy()


class Source(NamedTuple):
    """Where records were given up."""

    group_id: str
    topic: str
    partition_index: int


class Written(NamedTuple):
    """Letters, and the offsets that they tell of."""

    letters: list[Record]
    offsets: list[int]


class Made(NamedTuple):
    """What a queue says of a batch of letters, and what they tell of."""

    verdict: Accepted | Rejected
    offsets: list[int]


def complaint(name: str, topic: Topic | None, settings: BrokerSettings) -> str | None:
    """Why a topic of that name, which is there or not, is no dead letter queue; in Kafka's order. None if it is one, or
    is to be created."""
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
    """So many offsets of runs, and no more."""
    found: list[Run] = []
    for run in runs:
        if most <= 0:
            break
        found.append(run._replace(last=min(run.last, run.first + most - 1)))
        most -= run.last - run.first + 1
    return found


def stretches_of(offsets: Iterable[int]) -> list[Stretch]:
    """Ascending offsets as stretches."""
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
    """A batch of letters as `write` has them that a queue takes; or one it refuses, of no more than have to be."""
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
    """Letters for runs that are archiving, as many as go together: at least one, though it be too large for the queue.

    What is behind `read_to` was not looked at yet, and has to wait for the next batch.
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
    """What all letters of a run say. The offset comes third."""
    said = {
        "topic": source.topic, "partition": source.partition_index, "group": source.group_id,
        "delivery.count": run.deliveries, "message": CAUSES[run.state],
    }  # fmt: skip
    return tuple((_PREFIX + name, str(value).encode()) for name, value in said.items())


@dataclass(slots=True)
class Copies:
    """What is found of records for one batch of letters."""

    room_bytes: int
    """How much more goes into it."""
    largest_bytes: int
    """Records that are larger are told of without."""
    found: dict[int, Copy] = field(default_factory=dict)
    looked_to: int = -1
    """Up to which offset it is known what there is."""
    work_bytes: int = 0

    @property
    def is_enough(self) -> bool:
        """Whether the rest is for the next batch of letters."""
        return self.room_bytes <= 0 or self.work_bytes >= LOOKED_AT_BYTES

    def pass_over(self, offset: int) -> None:
        """Nothing can be read up to an offset. To find that out was work."""
        self.looked_to = max(self.looked_to, offset)
        self.work_bytes += DAMAGE_BYTES

    def look(self, views: Sequence[memoryview], wanted: Sequence[Stretch]) -> None:
        """Look for wanted offsets in batches that follow each other. Those that cannot be read have nothing to copy,
        nor have the ends of transactions."""
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
        """Decode what is wanted of a batch; it is looked at to its end unless there is no more room."""
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
            # It may have become as large as that before it was known to be none.
            self.work_bytes += COPIED_BATCH_BYTES


def _within(stretches: Sequence[Stretch], index: int, first: int, last: int) -> list[Stretch]:
    """What of stretches from one on lies between two offsets."""
    found = []
    while index < len(stretches) and stretches[index][0] <= last:
        found.append((max(stretches[index][0], first), min(stretches[index][1], last)))
        index += 1
    return found


def behind(stretches: Iterable[Stretch], offset: int) -> list[Stretch]:
    """What of stretches lies behind an offset."""
    return [(max(first, offset + 1), last) for first, last in stretches if last > offset]
