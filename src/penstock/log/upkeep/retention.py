"""Retention by time and size, and the chore that moves log starts forward.

Records expire in whole ranges: a segment, or a span (what one commit added). A range has expired when its newest record
has; a timestamp in the future keeps it, and everything after it. Ranges without timestamps are as old as the object
that contains them. By size only segments expire, and only while at least `retention.bytes` remain.

Kafka keeps a segment open for up to `segment.ms` and removes it as a whole. Here ranges are small, so records are
removed soon after they expire, whatever the traffic. What is still in the WAL expires by the log start moving past it;
its bytes are freed with the commits they are in.

Nothing above the last stable offset expires, however old: `read_committed` consumers could not have read it yet. A
transaction stays open for `transaction.max.timeout.ms` at most.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence

from penstock.base.clock import Clock
from penstock.base.dataclasses import dataclass
from penstock.base.settings import LiveSettings
from penstock.log import segment_store
from penstock.log.model import Partition, Span, TopicConfig
from penstock.log.registry import Registry
from penstock.log.segments import SegmentFacts
from penstock.log.topics import Topics
from penstock.metadata.database import Database, Rows, Script

PARTITIONS_AT_ONCE = 64
SEGMENTS_AT_ONCE = 64
"""How many segments of a partition are considered at once. When all of them have expired, it is looked at again."""
RETENTION_SHARE = 8
FOR_EVER_MS = 2**63 - 1


def longest_span_ms(config: TopicConfig) -> int:
    """How much time one segment may span, so that old records do not stay because of new ones."""
    if not config.delete:
        return FOR_EVER_MS
    if config.retention_ms < 0:
        return config.segment_ms
    return min(config.segment_ms, config.retention_ms // RETENTION_SHARE)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionDecision:
    """Retention's decision about a partition."""

    log_start: int
    """The new log start: everything below it has expired."""
    is_final: bool = True
    """Whether all segments were considered."""


def decide(
    partition: Partition, segments: Sequence[SegmentFacts], config: TopicConfig, *, now_ms: int,
    leaving_bytes: int = 0, complete: bool = True,
) -> RetentionDecision:  # fmt: skip
    """Decide by a partition's first segments from its log start on; `complete`: there are no more.

    `leaving_bytes` are in segments below the log start, which the partition's size still includes.
    """
    by_age = _expired_by_age(partition, segments, config, now_ms, complete)
    by_size = _expired_by_size(partition, segments, config, leaving_bytes)
    mark = max(by_age, by_size)
    if partition.transactions:
        mark = min(mark, partition.last_stable_offset)
    mark = max(partition.log_start, mark)
    return RetentionDecision(log_start=mark, is_final=complete or mark <= segments[-1].last_offset)


def _expired_by_age(
    partition: Partition, segments: Sequence[SegmentFacts], config: TopicConfig, now_ms: int, complete: bool
) -> int:
    mark = partition.log_start
    if config.retention_ms < 0:
        return mark
    oldest_kept_ms = now_ms - config.retention_ms
    for segment in segments:
        if segment.max_timestamp >= oldest_kept_ms:
            return mark
        mark = segment.last_offset + 1
    return _expired_spans(partition.spans, mark, oldest_kept_ms) if complete else mark


def _expired_spans(spans: Iterable[Span], mark: int, oldest_kept_ms: int) -> int:
    for span in spans:
        if span.last_offset < mark:
            continue
        # Records without timestamps wait until they are in a segment, which knows when it was written.
        if not 0 <= span.max_timestamp < oldest_kept_ms:
            break
        mark = span.last_offset + 1
    return mark


def _expired_by_size(
    partition: Partition, segments: Sequence[SegmentFacts], config: TopicConfig, leaving_bytes: int
) -> int:
    mark = partition.log_start
    if config.retention_bytes < 0:
        return mark
    excess = partition.size_bytes - leaving_bytes - config.retention_bytes
    for segment in segments:
        excess -= segment.byte_length
        if excess < 0:
            break
        mark = segment.last_offset + 1
    return mark


class Retention:
    """The chore: goes through all partitions every `log.retention.check.interval.ms`, some in each step."""

    name = "retention"

    def __init__(
        self, *, database: Database, registry: Registry, topics: Topics, settings: LiveSettings, clock: Clock,
        settle: Callable[[], Awaitable[None]],
    ) -> None:  # fmt: skip
        self._database, self._registry, self._topics, self._settings = database, registry, topics, settings
        self._clock = clock
        self._settle = settle
        """Corrects the sizes of partitions first: a size that is too large would remove too much."""
        self._waiting: list[Partition] = []
        self._next_pass_at = clock.monotonic()
        self.passes = 0
        self.moved_starts = 0
        """How often a log start was moved."""

    @property
    def backlog(self) -> int:
        """Partitions that this pass has not looked at yet."""
        return len(self._waiting)

    async def run(self) -> float | None:
        """Apply retention to some partitions."""
        now = self._clock.monotonic()
        if not self._waiting:
            if now < self._next_pass_at:
                return self._next_pass_at - now
            self._next_pass_at = now + self._settings.start.whole("log.retention.check.interval.ms") / 1000
            self._waiting = [partition for partition in self._registry.partitions() if _is_bounded(partition)]
            self.passes += 1
        some, self._waiting = self._waiting[:PARTITIONS_AT_ONCE], self._waiting[PARTITIONS_AT_ONCE:]
        if some:
            self._waiting += await self._look(some)
        return 0.0 if self._waiting else max(0.0, self._next_pass_at - self._clock.monotonic())

    async def _look(self, partitions: Sequence[Partition]) -> list[Partition]:
        """Move log starts where necessary; the partitions that must be looked at again."""
        partitions = [partition for partition in partitions if _is_bounded(partition)]
        await self._settle()
        starts = [(partition.partition_id, partition.log_start) for partition in partitions]
        found = await self._database.read(lambda: _first_sizes(starts))
        now_ms = self._clock.now_ms()
        marks: dict[int, dict[Partition, int]] = {}
        again = []
        for partition, (leaving_bytes, rows) in zip(partitions, found, strict=True):
            decision = decide(
                partition, [SegmentFacts.of(row) for row in rows], partition.topic.config, now_ms=now_ms,
                leaving_bytes=leaving_bytes, complete=len(rows) < SEGMENTS_AT_ONCE,
            )  # fmt: skip
            if decision.log_start > partition.log_start and not partition.topic.deleted:
                marks.setdefault(partition.topic.cluster_id, {})[partition] = decision.log_start
            if not decision.is_final:
                again.append(partition)
        for cluster_id, moved in marks.items():
            await self._topics.trim(cluster_id, moved)
            self.moved_starts += len(moved)
        return again


def _is_bounded(partition: Partition) -> bool:
    """Whether retention may find anything to remove."""
    config = partition.topic.config
    return (
        config.delete
        and (config.retention_ms >= 0 or config.retention_bytes >= 0)
        and partition.next_offset > partition.log_start
        and not partition.topic.deleted
    )


def _first_sizes(starts: Sequence[tuple[int, int]]) -> Script[list[tuple[int, Rows]]]:
    found = []
    for partition_id, log_start in starts:
        leaving_bytes = yield from segment_store.bytes_below(partition_id, log_start)
        rows = yield from segment_store.sizes(partition_id, log_start, SEGMENTS_AT_ONCE)
        found.append((leaving_bytes, rows))
    return found
