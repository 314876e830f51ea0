"""Partitions with batches that wait for a flush: a line for each virtual cluster, and what each gets of a flush. Pure.

Alone, a cluster gets whole flushes, and its partitions go in the order in which they began to wait. Where others have
appended lately, each gets a limited share of a flush, in turn. A record waits for the flush under way and then for its
own, so what it waits for is how large others make them. The platform's own cluster, whose records tell what the others
do, is in line like them and limits nobody.

Where passengers come, ends of transactions above all, flushes are short for a while: passengers never wait in line,
they go with the next flush, and what that takes beside them, and the one under way, is what they wait for. Records pay
for it with a few more flushes, and no more of them are sent than before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import chain
from math import inf
from typing import NamedTuple

from penstock.base.context import PLATFORM_CLUSTER_ID
from penstock.base.twins import twinned
from penstock.log.answers import Settles
from penstock.log.batches import Accepted
from penstock.log.model import Partition

Waiting = tuple[Accepted, Settles, int]
"""A batch that waits for a flush, whom to tell of its outcome, and its position in what that answers."""
SHARE_MAX_BATCHES, SHARE_MAX_OFFSETS = 2**15, 2**31
"""What one partition gets by a flush, but for markers. How many records a batch has is only what its producer says, and
a commit row has 32 bits for the offsets of an entry, 16 for the batches."""
SHARED_S = 1.0
"""For how long a cluster that has appended is expected to go on."""


class Portion(NamedTuple):
    """What one cluster may have of a flush. One batch always fits."""

    size_bytes: int
    batches: int


EVERYTHING = Portion(2**62, 2**62)
PART = Portion(512 * 1024, 1024)
"""A disk takes this in one or two milliseconds. So many batches, however small, take the loop as long."""
SHORT_S = 0.002
SHORT = Portion(512 * 1024, 64)
"""Beside passengers, if a flush is written in less than `SHORT_S`, which is what the loop has to do for so many."""
HURRIED_S = 1.0
"""For how long more passengers are expected."""


class Lines:
    """Who waits, and who has been here."""

    __slots__ = ("_hurried_until_s", "_last", "_lines", "_shared_until_s", "_short")

    def __init__(self) -> None:
        self._lines: dict[int, deque[Partition]] = {}
        """By cluster, whose turn is first. A partition is in it once."""
        self._last: int | None = None
        """Who was in a flush last."""
        self._shared_until_s = self._hurried_until_s = -inf
        self._short = SHORT

    def __bool__(self) -> bool:
        return bool(self._lines)

    def add(self, partition: Partition) -> None:
        """A partition begins to wait."""
        cluster_id = partition.topic.cluster_id
        line = self._lines.get(cluster_id)
        if line is None:
            line = self._lines[cluster_id] = deque()
        line.append(partition)

    def clear(self) -> None:
        """Nobody waits any more."""
        self._lines.clear()

    def partitions(self) -> Iterator[Partition]:
        """Everybody who waits."""
        return chain.from_iterable(self._lines.values())

    def in_turn(self) -> Sequence[tuple[int, deque[Partition]]]:
        """The clusters that wait, with their lines. Tell `served` of each that something is taken from."""
        return list(self._lines.items())

    def portion(self, now_s: float) -> Portion:
        """What each of them may have of the next flush."""
        if now_s < self._hurried_until_s:
            return self._short
        return PART if self.is_shared(now_s) else EVERYTHING

    def hurry(self, now_s: float, write_s: float) -> None:
        """There are passengers. Where it takes long to write a flush, it may take as long to put it together."""
        self._hurried_until_s = now_s + HURRIED_S
        times = write_s / SHORT_S
        self._short = SHORT if times <= 1 else Portion(int(SHORT.size_bytes * times), int(SHORT.batches * times))

    def go_in_parts(self, now_s: float) -> bool:
        """Whether one flush does not take all that waits."""
        return now_s < self._hurried_until_s or self.is_shared(now_s)

    def is_shared(self, now_s: float) -> bool:
        """Whether flushes are for more than one cluster now."""
        lines = self._lines
        return now_s < self._shared_until_s or len(lines) - (PLATFORM_CLUSTER_ID in lines) > 1

    def served(self, cluster_id: int, now_s: float) -> None:
        """A cluster has had its turn: the next one is behind all others."""
        line = self._lines.pop(cluster_id)
        if line:
            self._lines[cluster_id] = line
        if cluster_id not in (self._last, PLATFORM_CLUSTER_ID):
            if self._last is not None:
                self._shared_until_s = now_s + SHARED_S
            self._last = cluster_id


@twinned
def fitting(pending: list[Waiting], room_bytes: int, room_batches: int) -> int:
    """How many of the waiting batches of a partition fit; one always does."""
    if len(pending) == 1:
        return 1
    size = offsets = 0
    most = min(room_batches, SHARE_MAX_BATCHES, len(pending))
    for count in range(most):
        batch = pending[count][0]
        size += len(batch.data)
        offsets += batch.offset_count
        if count and (size > room_bytes or offsets > SHARE_MAX_OFFSETS):
            return count
    return most


@twinned
def join_line(in_line: dict[tuple[int, int], int], batch: Accepted) -> None:
    """Count a batch of a transaction that begins to wait, by producer id and epoch."""
    producer = batch.producer_id, batch.producer_epoch
    in_line[producer] = in_line.get(producer, 0) + 1


@twinned
def leave_line(in_line: dict[tuple[int, int], int], taken: list[Waiting]) -> None:
    """Count those of transactions among the batches that a flush has taken no more."""
    for batch, _, _ in taken:
        if batch.flags:
            producer = batch.producer_id, batch.producer_epoch
            left = in_line.pop(producer) - 1
            if left:
                in_line[producer] = left
