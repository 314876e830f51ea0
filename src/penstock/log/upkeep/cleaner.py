"""The log cleaner: runs key compaction over the partitions that need it, one after the other.

A pass over a partition first reads its dirty segments and notes the latest offset of each key, until they end or the
key map is full. Then it rewrites every segment below the map's end, oldest first, combining as many neighbours as fit
into one, and finally records how far the partition is clean. A full map makes the pass shorter, not wrong: the rest is
still dirty and another pass follows. A pass may end early for any reason: all segments are valid, and the next pass
starts from scratch, so nothing about a pass is stored.

Only segments are cleaned: what is still in the WAL is the active part of the log, Kafka's active segment. The last
stable offset is a bound as well.

Every `log.cleaner.backoff.ms`, and when settings of a compacted topic change, the cleaner looks at the in-memory state
of all partitions. It reads the database only where there are new segments or settings since the last look, or where a
compaction lag has run out. While clients write or read it works at most half of the time, so that they notice little of
it; else it does not pause.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence

from penstock.base.dataclasses import dataclass, replace
from penstock.base.errors import CorruptData, InvalidRequest, OutcomeUnknown, PlatformError
from penstock.base.settings import LiveSettings
from penstock.log import aborted_store, segment_store
from penstock.log.aborted import StoredAborted, aborted_between
from penstock.log.model import NO_TIMESTAMP, Partition, TopicConfig
from penstock.log.registry import Registry
from penstock.log.segments import MAX_SEGMENT_BYTES, MAX_SEGMENT_OFFSETS, SegmentFacts, SegmentRef, ref_of
from penstock.log.upkeep.key_compaction import Cleaning, LogToClean, OffsetMap, Transactions, clean_batch, measure
from penstock.log.upkeep.latest_offsets import LatestOffsets
from penstock.log.upkeep.retention import longest_span_ms
from penstock.log.upkeep.rewriting import Part, Rewrite, SegmentChanges
from penstock.log.upkeep.segment_reader import (
    DECODED_PIECE_BYTES,
    KeyUnavailable,
    SegmentReader,
    SegmentUnavailable,
)
from penstock.metadata.database import Rows, Script
from penstock.wire.records import iter_batches

PARTITIONS_AT_ONCE = 32
REFS_AT_ONCE = 64
GROUP_MAX_SEGMENTS = 1000
MIN_BACKOFF_MS = 100
UNREADABLE_RETRY_MS = 600_000
"""How long a partition is skipped after something in it could not be read."""
NEVER_MS = 2**63 - 1
CLIENTS_STAY_S = 1.0
"""For how long after their last record or byte clients count as present."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """The last look at a partition, and what makes another look necessary."""

    segmented_to: int
    config: TopicConfig
    again_at_ms: int


@dataclass(slots=True)
class CleanerStats:
    """Counted since the process started."""

    passes: int = 0
    read_bytes: int = 0
    written_bytes: int = 0
    mapped_bytes: int = 0
    uncleanable_partitions: int = 0


class Cleaner:
    """The chore that runs key compaction."""

    name = "key compaction"

    def __init__(
        self, changes: SegmentChanges, registry: Registry, settings: LiveSettings,
        activity: Callable[[], int] = lambda: 0,
    ) -> None:  # fmt: skip
        """`activity` changes with everything that clients write or read."""
        start = settings.start
        self._changes, self._registry = changes, registry
        self._activity = activity
        self._seen, self._busy_until = activity(), 0.0
        """The last value of `activity`, and how long clients that it was about count as present."""
        self._enabled = start.flag("log.cleaner.enable")
        self._backoff_s = max(start.whole("log.cleaner.backoff.ms"), MIN_BACKOFF_MS) / 1000
        self._map_capacity = max(1000, start.whole("log.cleaner.dedupe.buffer.size") // LatestOffsets.key_bytes)
        self._measurements: dict[int, Measurement] = {}
        self._waiting: list[Partition] = []
        self._found: list[tuple[float, Partition, LogToClean]] = []
        self._next_measurement_at = changes.clock.monotonic()
        self._pass: CleanerPass | None = None
        self._uncleanable: set[int] = set()
        self._skipped_until_ms: dict[int, int] = {}
        """Partitions with something unreadable, which are skipped for a while."""
        self.stats = CleanerStats()

    @property
    def backlog(self) -> int:
        """Partitions known to need cleaning, and those to look at."""
        return len(self._waiting) + len(self._found) + (self._pass is not None)

    async def run(self) -> float | None:
        """Continue the pass, or choose the partition that needs one most."""
        if not self._enabled:
            return None
        if self._pass is not None:
            return await self._continue(self._pass)
        now = self._changes.clock.monotonic()
        if not self._waiting and not self._found:
            if now < self._next_measurement_at:
                return self._next_measurement_at - now
            self._waiting = self._candidates()
        if self._waiting:
            await self._measure_some()
            return 0.0
        if self._found:
            self._begin()
            return 0.0
        self._next_measurement_at = now + self._backoff_s
        return self._backoff_s

    def close(self) -> None:
        """Abort the pass."""
        if self._pass is not None:
            self._changes.rewriting.discard(self._pass.partition.partition_id)
            self._pass.abort()
            self._pass = None

    def look_soon(self) -> None:
        """Settings of a topic have changed: look with the next turn."""
        self._next_measurement_at = self._changes.clock.monotonic()

    def forget(self, partition_ids: Iterable[int]) -> None:
        """These partitions were deleted."""
        for partition_id in partition_ids:
            self._measurements.pop(partition_id, None)
            self._skipped_until_ms.pop(partition_id, None)
            self._uncleanable.discard(partition_id)
        self.stats.uncleanable_partitions = len(self._uncleanable)

    # ---- choosing --------------------------------------------------------------------------------------------

    def _candidates(self) -> list[Partition]:
        now_ms = self._changes.clock.now_ms()
        found = []
        for partition in self._registry.partitions():
            config = partition.topic.config
            if not config.compact or partition.segmented_to <= max(partition.cleaned_to, partition.log_start):
                continue
            if partition.partition_id in self._uncleanable or partition.partition_id in self._changes.rewriting:
                continue
            if self._changes.is_locked(partition) or now_ms < self._skipped_until_ms.get(partition.partition_id, 0):
                continue
            look = self._measurements.get(partition.partition_id)
            if (
                look is None
                or look.segmented_to != partition.segmented_to
                or look.config is not config
                or look.again_at_ms <= now_ms
            ):
                found.append(partition)
        return found

    async def _measure_some(self) -> None:
        some, self._waiting = self._waiting[:PARTITIONS_AT_ONCE], self._waiting[PARTITIONS_AT_ONCE:]
        starts = [(partition.partition_id, partition.log_start) for partition in some]
        found = await self._changes.database.read(lambda: _all_sizes(starts))
        now_ms = self._changes.clock.now_ms()
        for partition, rows in zip(some, found, strict=True):
            config, segments = partition.topic.config, [SegmentFacts.of(row) for row in rows]
            stable = [segment for segment in segments if segment.last_offset < partition.last_stable_offset]
            to_clean = measure(
                stable, config, cleaned_to=partition.cleaned_to, first_dirty_ms=partition.first_dirty_ms, now_ms=now_ms
            )
            if to_clean.is_worth_cleaning(config):
                self._found.append((to_clean.ratio, partition, to_clean))
            else:
                self._measurements[partition.partition_id] = Measurement(
                    segmented_to=partition.segmented_to, config=config,
                    again_at_ms=again_at(stable, config, to_clean, partition.first_dirty_ms),
                )  # fmt: skip

    def _begin(self) -> None:
        """Start a pass over the dirtiest partition. The others are looked at again after it."""
        ratio, partition, to_clean = max(self._found, key=lambda found: (found[2].is_overdue, found[0]))
        self._found.clear()
        if partition.partition_id in self._changes.rewriting:
            return  # Its segments are being merged: they are not the ones looked at.
        self._measurements.pop(partition.partition_id, None)
        self._changes.rewriting.add(partition.partition_id)
        self._pass = CleanerPass(self._changes, partition, to_clean, OffsetMap(self._map_capacity))
        _log.debug("cleaning partition %d, %.0f %% of which is dirty", partition.partition_id, 100 * ratio)

    # ---- working ---------------------------------------------------------------------------------------------

    async def _continue(self, running: CleanerPass) -> float:
        partition, began = running.partition, self._changes.clock.monotonic()
        try:
            if partition.topic.deleted or not partition.topic.config.compact:
                self.close()
                return 0.0
            await running.step()
        except (CorruptData, InvalidRequest) as problem:
            self._give_up(partition, problem)
            return 0.0
        except SegmentUnavailable as problem:
            # It may stay the dirtiest for long: the others must not wait for it.
            self._skipped_until_ms[partition.partition_id] = self._changes.clock.now_ms() + UNREADABLE_RETRY_MS
            self.close()
            if not isinstance(problem, KeyUnavailable):
                raise
            self._changes.complain(partition, problem)
            return 0.0
        except PlatformError:
            self.close()
            raise
        except Exception as bug:  # noqa: BLE001  # caused by data of this partition: others must not wait
            _log.exception("key compaction failed with an unexpected error")
            self._give_up(partition, bug)
            return 0.0
        except BaseException:
            self.close()
            raise
        if running.is_done:
            self.close()
            self._skipped_until_ms.pop(partition.partition_id, None)
            stats = self.stats
            stats.passes += 1
            stats.mapped_bytes += running.mapped_bytes
            stats.read_bytes += running.read_bytes
            stats.written_bytes += running.written_bytes
        return self._pause_s(began)

    def _pause_s(self, began: float) -> float:
        """How long to pause after a step that began then."""
        now, activity = self._changes.clock.monotonic(), self._activity()
        if activity != self._seen:
            self._seen, self._busy_until = activity, now + CLIENTS_STAY_S
        return now - began if now < self._busy_until else 0.0

    def _give_up(self, partition: Partition, problem: Exception) -> None:
        """Skip a partition until the process ends, or for a while."""
        self.close()
        self._uncleanable.add(partition.partition_id)
        self.stats.uncleanable_partitions = len(self._uncleanable)
        _log.error(
            "%s-%d is not compacted any more until the next start: %s", partition.topic.name, partition.index, problem
        )


def again_at(segments: Sequence[SegmentFacts], config: TopicConfig, to_clean: LogToClean, first_dirty_ms: int) -> int:
    """When a clean enough partition may need cleaning without new data, because a lag runs out."""
    times = [NEVER_MS]
    if to_clean.dirty_bytes and first_dirty_ms >= 0:
        times.append(first_dirty_ms + config.max_compaction_lag_ms + 1)
    held = next((segment for segment in segments if segment.last_offset >= to_clean.end_offset), None)
    if held is not None:
        times.append(held.max_timestamp + config.min_compaction_lag_ms)
    return min(times)


class SegmentGroup:
    """Neighbouring segments that are cleaned together and become one."""

    def __init__(self, config: TopicConfig) -> None:
        self.refs: list[SegmentRef] = []
        self._max_bytes = min(config.segment_bytes, MAX_SEGMENT_BYTES)
        self._max_span_ms = longest_span_ms(config)
        self._size_bytes = 0
        self._oldest_ms, self._newest_ms = NEVER_MS, NO_TIMESTAMP

    def add(self, ref: SegmentRef) -> bool:
        """Add the next segment if it fits; the first one always does."""
        self._size_bytes += ref.byte_length
        self._newest_ms = max(self._newest_ms, ref.max_timestamp)
        if ref.min_timestamp >= 0:
            self._oldest_ms = min(self._oldest_ms, ref.min_timestamp)
        if self.refs and (
            self._size_bytes > self._max_bytes
            or self._newest_ms - self._oldest_ms > self._max_span_ms
            or ref.last_offset - self.refs[0].base_offset >= MAX_SEGMENT_OFFSETS
            or len(self.refs) >= GROUP_MAX_SEGMENTS
        ):
            return False
        self.refs.append(ref)
        return True


class CleanerPass:
    """One pass over one partition. Steps run one after the other; `abort` ends it early."""

    def __init__(self, changes: SegmentChanges, partition: Partition, to_clean: LogToClean, keys: OffsetMap) -> None:
        self.partition = partition
        self.is_done = False
        self.mapped_bytes = self.read_bytes = self.written_bytes = 0
        self._changes, self._to_clean, self._keys = changes, to_clean, keys
        self._mapped_to = max(to_clean.start_offset, partition.log_start)
        keys.end_offset = self._mapped_to
        self._is_mapped = False
        self._reader: SegmentReader | None = None
        self._ref: SegmentRef | None = None
        self._cleaned_to = 0
        self._rewrite: Rewrite | None = None
        self._cleaning: Cleaning | None = None
        self._has_aborted = False

    async def step(self) -> None:
        """Do a bounded amount of work."""
        if not self._has_aborted:
            await self._find_aborted()
        elif not self._is_mapped:
            await self._map_some()
        elif self._rewrite is not None:
            await self._continue(self._rewrite)
        else:
            await self._next_group()

    def abort(self) -> None:
        """Stop early; segments already rewritten stay."""
        if self._rewrite is not None:
            self._rewrite.abort()
            self._rewrite = None

    async def _find_aborted(self) -> None:
        partition, end = self.partition, self._to_clean.end_offset
        recent = aborted_between(partition.aborted, partition.log_start, end)
        older = await StoredAborted(self._changes.database).between(partition, partition.log_start, end)
        self._keys.transactions = Transactions(dict.fromkeys((*older, *recent)))
        self._has_aborted = True

    # ---- first: the keys -------------------------------------------------------------------------------------

    async def _map_some(self) -> None:
        if self._reader is None and not await self._open_next():
            self._is_mapped = True
            self.is_done = self.mapped_bytes == 0
            self._begin_cleaning()
        elif not await self._changes.in_thread(self._map_pieces):
            self._reader = None

    async def _open_next(self) -> bool:
        """Start on the next dirty segment; False when there is none or the map is full."""
        if self._keys.is_full or self._mapped_to >= self._to_clean.end_offset:
            return False
        partition_id, offset = self.partition.partition_id, self._mapped_to
        rows = await self._changes.database.read(lambda: segment_store.segments_from(partition_id, offset, 1))
        ref = ref_of(rows[0]) if rows else None
        if ref is None or ref.last_offset >= self._to_clean.end_offset:
            # It was merged with later ones, or removed: the map covers what it covers.
            return False
        await self._changes.load_keys((ref,))
        self._ref = ref
        self._reader = SegmentReader(
            self._changes.objects, self._changes.sealing, self.partition, ref,
            position=ref.position_for(offset), piece_bytes=DECODED_PIECE_BYTES,
        )  # fmt: skip
        return True

    def _map_pieces(self) -> bool:
        """Map the keys of a few pieces; False when the segment ends or the map is full. On a worker thread."""
        return all(self._map_piece() for _ in self._changes.pieces(lambda: self.mapped_bytes))

    def _map_piece(self) -> bool:
        assert self._reader is not None
        assert self._ref is not None
        piece = self._reader.read()
        if piece is None:
            self._mapped_to = self._ref.last_offset + 1
            self._keys.end_offset = max(self._keys.end_offset, self._mapped_to)
            return False
        self.mapped_bytes += len(piece)
        for position, header in iter_batches(piece):
            if header.last_offset < self._mapped_to:
                continue
            self._keys.note(header, piece[position : position + header.size_bytes])
            self._mapped_to = header.last_offset + 1
            if self._keys.is_full:
                return False
        return True

    # ---- then: the segments ----------------------------------------------------------------------------------

    def _begin_cleaning(self) -> None:
        wanted = frozenset(
            state.batches[-1].last_offset for state in self.partition.producers.values() if state.batches
        )
        self._cleaning = Cleaning(
            keys=self._keys, transactions=self._keys.transactions, now_ms=self._changes.clock.now_ms(),
            wanted_headers=wanted,
            delete_retention_ms=self.partition.topic.config.delete_retention_ms,
        )  # fmt: skip

    async def _next_group(self) -> None:
        refs = await self._group()
        if not refs:
            await self._note_cleaned()
            self.is_done = True
            return
        assert self._cleaning is not None
        # Each with its own transaction state: if the segments have changed meanwhile, they are cleaned again.
        cleaning = self._under_way = replace(self._cleaning, transactions=self._cleaning.transactions.copy())
        self._rewrite = Rewrite(
            self._changes, [Part(self.partition, refs)], lambda header, batch: clean_batch(cleaning, header, batch)
        )

    async def _group(self) -> list[SegmentRef]:
        """The next segments below the map's end, as many as fit into one."""
        partition_id, offset = self.partition.partition_id, max(self._cleaned_to, self.partition.log_start)
        group = SegmentGroup(self.partition.topic.config)
        while True:
            rows = await self._changes.database.read(
                lambda offset=offset: segment_store.segments_from(partition_id, offset, REFS_AT_ONCE)  # type: ignore[misc]
            )
            for ref in map(ref_of, rows):
                if ref.base_offset >= self._keys.end_offset or not group.add(ref):
                    return group.refs
            if len(rows) < REFS_AT_ONCE:
                return group.refs
            offset = group.refs[-1].last_offset + 1

    async def _continue(self, rewrite: Rewrite) -> None:
        await rewrite.step()
        if not rewrite.is_done:
            return
        self._rewrite = None
        self.read_bytes += rewrite.read_bytes
        self.written_bytes += rewrite.written_bytes
        if not rewrite.conflicted:
            self._cleaning = self._under_way
            self._cleaned_to = rewrite.removed[-1].last_offset + 1

    async def _forget_aborted(self) -> None:
        """Remove aborted transactions of which only the marker is left from the list, in memory as well."""
        partition = self.partition
        in_memory = partition.spans[0].base_offset if partition.spans else partition.next_offset
        expired = self._cleaning.transactions.expired_aborts if self._cleaning is not None else ()
        gone = sorted(offset for offset in expired if offset < in_memory)
        if not gone:
            return
        partition_id = partition.partition_id
        await self._changes.database.transaction(lambda: aborted_store.forget(partition_id, gone), background=True)
        partition.aborted[:] = [one for one in partition.aborted if one.last_offset not in gone]

    async def _note_cleaned(self) -> None:
        await self._forget_aborted()
        partition, cleaned_to = self.partition, self._keys.end_offset
        if cleaned_to <= partition.cleaned_to:
            return
        partition_id = partition.partition_id
        rows = await self._changes.database.read(lambda: segment_store.sizes(partition_id, cleaned_to, 1))
        first_dirty_ms = -1
        if rows:
            segment = SegmentFacts.of(rows[0])
            first_dirty_ms = min(segment.min_timestamp, segment.created_ms)
        elif partition.next_offset > cleaned_to:
            first_dirty_ms = self._changes.clock.now_ms()
        try:
            await self._changes.database.transaction(
                lambda: segment_store.cleaned(partition_id, cleaned_to, first_dirty_ms), background=True, locking=True
            )
        except OutcomeUnknown:
            await self._changes.database.transaction(
                lambda: segment_store.cleaned(partition_id, cleaned_to, first_dirty_ms), background=True, locking=True
            )
        partition.cleaned_to = cleaned_to
        partition.first_dirty_ms = first_dirty_ms


def _all_sizes(starts: Sequence[tuple[int, int]]) -> Script[list[Rows]]:
    found = []
    for partition_id, log_start in starts:
        rows = yield from segment_store.sizes(partition_id, log_start, segment_store.NO_LIMIT)
        found.append(rows)
    return found
