"""Runs of offsets: splitting, changing, and joining them. Pure.

Every function takes runs in ascending order and returns runs in ascending order that cover the same offsets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from penstock.share.model import ARCHIVED, AVAILABLE, EXHAUSTED, NOBODY, Limits, RecordState, Run

S = TypeVar("S", bound=tuple[int, ...])


def archived(run: Run) -> Run:
    """A run that will not be delivered again."""
    return run._replace(state=ARCHIVED, member=NOBODY, expires_ms=0)


def given_up(run: Run, state: RecordState, limits: Limits) -> Run:
    """A run that will not be delivered again: archiving if the group has a dead letter queue, else archived."""
    return archived(run)._replace(state=state) if limits.dead_letters else archived(run)


def released(run: Run, limits: Limits) -> Run:
    """An acquired run that is released: available again, unless the delivery count limit is reached."""
    if run.deliveries >= limits.max_deliveries:
        return given_up(run, EXHAUSTED, limits)
    return run._replace(state=AVAILABLE, member=NOBODY, expires_ms=0)


def changed(runs: Iterable[Run], ranges: Sequence[S], change: Callable[[Run, S], Run]) -> list[Run]:
    """Apply a change to the offsets of runs that are within ranges, in one pass over both.

    Ranges begin with their first and last offset; they ascend and do not overlap.
    """
    result: list[Run] = []
    index = 0
    for run in runs:
        at = run.first
        while index < len(ranges) and ranges[index][0] <= run.last:
            offset_range = ranges[index]
            start, end = max(offset_range[0], at), min(offset_range[1], run.last)
            if start <= end:
                if start > at:
                    result.append(run._replace(first=at, last=start - 1))
                result.append(change(run._replace(first=start, last=end), offset_range))
                at = end + 1
            if offset_range[1] > run.last:
                break
            index += 1
        if at <= run.last:
            result.append(run._replace(first=at))
    return result


def joined(runs: Iterable[Run]) -> tuple[Run, ...]:
    """Join neighbours with equal state. Finished records count as equal, however they were finished."""
    result: list[Run] = []
    for run in runs:
        if result:
            before = result[-1]
            if before[2:] == run[2:] or (before.state is run.state and run.terminal):
                result[-1] = before._replace(last=run.last)
                continue
        result.append(run)
    return tuple(result)
