"""Acquisition: which records a member gets. Pure.

First records that are available again, in log order, then new ones. Two modes (KIP-1206):

- *batches*: a record batch is given whole once it is begun, so a member may get more records than it asked for; records
  of one batch mostly change state at the same time later, which is cheap.
- *exact*: never more records than requested (`record_limit`).

Records close to the delivery count limit are given alone, in ever smaller parts of what they were first delivered with:
a record that crashes its consumers must not take its neighbours with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from penstock.share.model import (
    ACQUIRED,
    ARCHIVED,
    AVAILABLE,
    NOBODY,
    Acquire,
    AcquiredRange,
    Batch,
    Fetched,
    Limits,
    Run,
    SharePartition,
)
from penstock.share.runs import archived, changed

_LEAST_SUSPECT_DELIVERIES = 2


def acquired_of(
    partition: SharePartition, asked: Acquire, fetched: Fetched, limits: Limits, expires_ms: int
) -> tuple[list[Run], int, list[AcquiredRange]]:
    """The runs and the next offset after an acquisition, and the acquired ranges."""
    runs, batches = list(partition.runs), fetched.batches
    nothing: tuple[list[Run], int, list[AcquiredRange]] = (runs, partition.next_offset, [])
    if asked.max_records <= 0 or not batches or batches[-1].last < partition.start_offset:
        return nothing
    most, end = min(asked.max_records, limits.max_locks - partition.in_flight), batches[-1].last
    if most <= 0:
        # The limit on records in flight is reached, but some of those may be available.
        most, end = min(asked.max_records, partition.next_offset - fetched.fetch_offset), partition.next_offset - 1
        end = min(end, batches[-1].last)
        if most <= 0:
            return nothing
    if batches[0].first > fetched.fetch_offset:
        # Records that were available there have been compacted away.
        runs = changed(runs, [(fetched.fetch_offset, batches[0].first - 1)], _archive_compacted)
    acquisition = _Acquisition(asked, limits, most, expires_ms)
    runs = acquisition.acquire_available(runs, batches[0].first, end)
    next_offset = partition.next_offset
    if acquisition.open and end >= next_offset:
        first = max(next_offset, batches[0].first)
        if first > next_offset:
            runs.append(Run(next_offset, first - 1, ARCHIVED, 0, NOBODY, 0, (next_offset, first - 1)))
        runs += acquisition.acquire_new(first, end, batches)
        next_offset = runs[-1].last + 1
    if not fetched.aborted:
        return runs, next_offset, acquisition.ranges
    aborted_ranges, visible_ranges = _split_aborted(acquisition.ranges, fetched.aborted)
    return changed(runs, aborted_ranges, lambda run, _: archived(run)), next_offset, visible_ranges


class _Acquisition:
    """An acquisition in progress."""

    __slots__ = ("_asked", "_expires_ms", "_limits", "_most", "_suspect_at", "_taken", "open", "ranges")

    def __init__(self, asked: Acquire, limits: Limits, most: int, expires_ms: int) -> None:
        self._asked, self._limits, self._most, self._expires_ms = asked, limits, most, expires_ms
        self._suspect_at = max(_LEAST_SUSPECT_DELIVERIES, -(-limits.max_deliveries // 2))
        self._taken = 0
        self.open = True
        """Whether more records may be acquired."""
        self.ranges: list[AcquiredRange] = []

    def acquire_available(self, runs: Sequence[Run], first: int, last: int) -> list[Run]:
        """Acquire what is available between two offsets."""
        suspects = {
            run.batch
            for run in runs
            if run.state is AVAILABLE and run.deliveries >= self._suspect_at and run.last >= first and run.first <= last
        }
        result: list[Run] = []
        batch: tuple[int, int] | None = None
        for run in runs:
            start, end = max(run.first, first), min(run.last, last)
            if run.state is not AVAILABLE or start > end or not self.open:
                result.append(run)
                continue
            if run.batch != batch:
                self._start_batch(run.batch in suspects, was_suspect=batch in suspects)
                batch = run.batch
            count = self._room_for(run, end - start + 1, suspect=batch in suspects) if self.open else 0
            result += self._split(run, start, count)
        if batch in suspects and self._taken:
            self.open = False
        return result

    def _start_batch(self, suspect: bool, *, was_suspect: bool) -> None:
        """Decide whether the next batch may be acquired as well."""
        full = self._taken >= self._most
        if full or (self._taken and (suspect or was_suspect)):
            self.open = False

    def _room_for(self, run: Run, count: int, *, suspect: bool) -> int:
        """How many offsets of a run may be acquired."""
        if self._asked.exact:
            count = min(count, self._most - self._taken)
        if not suspect:
            return count
        most, deliveries = self._limits.max_deliveries, run.deliveries
        last_chance = most > _LEAST_SUSPECT_DELIVERIES and deliveries >= most - 1
        if last_chance:
            # Alone: if this delivery fails, the record is archived, and no other one may be archived with it.
            count = 0 if self._taken else min(count, 1)
            self.open = False
        elif deliveries >= self._suspect_at:
            size = run.batch[1] - run.batch[0] + 1
            part = max(1, size >> (deliveries - self._suspect_at + 1))
            if self._taken + count >= part:
                count = max(0, part - self._taken)
                self.open = False
        return count

    def _split(self, run: Run, start: int, count: int) -> Iterator[Run]:
        if count <= 0:
            yield run
            return
        if start > run.first:
            yield run._replace(last=start - 1)
        end = start + count - 1
        yield self._acquire(run._replace(first=start, last=end, deliveries=run.deliveries + 1))
        if end < run.last:
            yield run._replace(first=end + 1)

    def _acquire(self, run: Run) -> Run:
        self._taken += run.last - run.first + 1
        if self._asked.exact and self._taken >= self._most:
            self.open = False
        ranges = self.ranges
        if ranges and ranges[-1].last + 1 == run.first and ranges[-1].deliveries == run.deliveries > 1:
            ranges[-1] = ranges[-1]._replace(last=run.last)
        else:
            ranges.append(AcquiredRange(run.first, run.last, run.deliveries))
        return run._replace(state=ACQUIRED, member=self._asked.member, expires_ms=self._expires_ms)

    def acquire_new(self, first: int, last: int, batches: Sequence[Batch]) -> list[Run]:
        """Acquire new records; the rest of a batch that was begun becomes available."""
        room = self._most - self._taken
        if room <= 0:
            return []
        end = last if last - first < room else min(last, _end_of_batch(batches, first + room - 1))
        if self._asked.exact:
            taken_to = min(end, first + room - 1)
            run = Run(first, taken_to, AVAILABLE, 1, NOBODY, 0, (first, end))
            runs = [self._acquire(run)]
            if taken_to < end:
                runs.append(Run(taken_to + 1, end, AVAILABLE, 0, NOBODY, 0, (first, end)))
            return runs
        return [
            self._acquire(Run(*part, AVAILABLE, 1, NOBODY, 0, part))
            for part in _parts(first, end, batches, self._asked.batch_size)
        ]


def _archive_compacted(run: Run, _: tuple[int, ...]) -> Run:
    return archived(run) if run.state is AVAILABLE else run


def _end_of_batch(batches: Sequence[Batch], offset: int) -> int:
    """The last offset of the batch that contains an offset; the offset itself if none does."""
    for batch in batches:
        if batch.last >= offset:
            return batch.last if batch.first <= offset else offset
    return offset


def _parts(first: int, last: int, batches: Sequence[Batch], size: int) -> Iterator[tuple[int, int]]:
    """A range cut at batch boundaries, into parts of at least `size` offsets."""
    if last - first + 1 > size:
        for batch in batches:
            if batch.first > last:
                break
            if batch.first - first >= max(size, 1):
                yield first, batch.first - 1
                first = batch.first
    yield first, last


def _split_aborted(
    ranges: Sequence[AcquiredRange], aborted: Sequence[Batch]
) -> tuple[list[tuple[int, int]], list[AcquiredRange]]:
    """Separate batches of aborted transactions from the rest of what was just acquired."""
    aborted_ranges: list[tuple[int, int]] = []
    visible_ranges: list[AcquiredRange] = []
    index = 0
    for taken in ranges:
        at = taken.first
        while index < len(aborted) and aborted[index].first <= taken.last:
            start, end = max(aborted[index].first, at), min(aborted[index].last, taken.last)
            if start <= end:
                aborted_ranges.append((start, end))
                if start > at:
                    visible_ranges.append(taken._replace(first=at, last=start - 1))
                at = end + 1
            if aborted[index].last > taken.last:
                break
            index += 1
        if at <= taken.last:
            visible_ranges.append(taken._replace(first=at))
    return aborted_ranges, visible_ranges
