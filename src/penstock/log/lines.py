"""Fair queueing of partitions that have batches waiting for a flush: a queue per virtual cluster. Pure.

A cluster that is alone gets whole flushes, and its partitions are served in the order in which they began to wait.
Where several clusters have appended lately, each gets a limited share of a flush, round robin. A record waits for the
flush in flight and then for its own, so the size of flushes is what one tenant can cost another. The platform's own
cluster, which holds the audit log, is served like the others but does not cause their shares to be limited.

Where there are participants, ends of transactions above all, flushes are kept short for a while: participants do not
queue, they join the next flush, so their latency is that of the flush in flight and of their own. Records pay for it
with a few more flushes, at the same throughput.
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
"""A batch that waits for a flush, the ticket that gets its answer, and its position in that."""
SHARE_MAX_BATCHES, SHARE_MAX_OFFSETS = 2**15, 2**31
"""The most that one partition gets in a flush, markers apart. Producers may claim any record count for a batch, and a
commit row has 32 bits for the offsets of an entry, 16 for its batches."""
SHARED_S = 1.0
"""How long a cluster counts as active after it has appended."""


class Portion(NamedTuple):
    """The largest share of a flush for one cluster. One batch always fits."""

    size_bytes: int
    batches: int


EVERYTHING = Portion(2**62, 2**62)
PART = Portion(512 * 1024, 1024)
"""A disk writes this in one or two milliseconds. So many batches, however small, take the loop as long."""
SHORT_S = 0.002
SHORT = Portion(512 * 1024, 64)
"""The share when there are participants, while a flush is written in less than `SHORT_S`: the loop's time for so
many."""
HURRIED_S = 1.0
"""How long after one participant more are expected."""


class Lines:
    """The queues, and which clusters were active lately."""

    __slots__ = ("_hurried_until_s", "_last", "_lines", "_shared_until_s", "_short")

    def __init__(self) -> None:
        self._lines: dict[int, deque[Partition]] = {}
        """By cluster, the next one to serve first. A partition is in its queue once."""
        self._last: int | None = None
        """The cluster that was served last."""
        self._shared_until_s = self._hurried_until_s = -inf
        self._short = SHORT

    def __bool__(self) -> bool:
        return bool(self._lines)

    def add(self, partition: Partition) -> None:
        """Queue a partition."""
        cluster_id = partition.topic.cluster_id
        line = self._lines.get(cluster_id)
        if line is None:
            line = self._lines[cluster_id] = deque()
        line.append(partition)

    def clear(self) -> None:
        """Empty the queues."""
        self._lines.clear()

    def partitions(self) -> Iterator[Partition]:
        """Every queued partition."""
        return chain.from_iterable(self._lines.values())

    def in_turn(self) -> Sequence[tuple[int, deque[Partition]]]:
        """The waiting clusters with their queues. Call `served` for each from which something is taken."""
        return list(self._lines.items())

    def portion(self, now_s: float) -> Portion:
        """The largest share of the next flush for each cluster."""
        if now_s < self._hurried_until_s:
            return self._short
        return PART if self.is_shared(now_s) else EVERYTHING

    def hurry(self, now_s: float, write_s: float) -> None:
        """There are participants. Where writing a flush takes long, putting it together may take as long."""
        self._hurried_until_s = now_s + HURRIED_S
        times = write_s / SHORT_S
        self._short = SHORT if times <= 1 else Portion(int(SHORT.size_bytes * times), int(SHORT.batches * times))

    def go_in_parts(self, now_s: float) -> bool:
        """Whether one flush may not take everything that waits."""
        return now_s < self._hurried_until_s or self.is_shared(now_s)

    def is_shared(self, now_s: float) -> bool:
        """Whether more than one cluster is active."""
        lines = self._lines
        return now_s < self._shared_until_s or len(lines) - (PLATFORM_CLUSTER_ID in lines) > 1

    def served(self, cluster_id: int, now_s: float) -> None:
        """A cluster has had its share: it moves to the end of the round."""
        line = self._lines.pop(cluster_id)
        if line:
            self._lines[cluster_id] = line
        if cluster_id not in (self._last, PLATFORM_CLUSTER_ID):
            if self._last is not None:
                self._shared_until_s = now_s + SHARED_S
            self._last = cluster_id


@twinned
def fitting(pending: list[Waiting], room_bytes: int, room_batches: int) -> int:
    """How many of a partition's waiting batches fit; one always does."""
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
    """Count a waiting transactional batch, by producer id and epoch."""
    producer = batch.producer_id, batch.producer_epoch
    in_line[producer] = in_line.get(producer, 0) + 1


@twinned
def leave_line(in_line: dict[tuple[int, int], int], taken: list[Waiting]) -> None:
    """Uncount the transactional ones among batches that a flush has taken."""
    for batch, _, _ in taken:
        if batch.flags:
            producer = batch.producer_id, batch.producer_epoch
            left = in_line.pop(producer) - 1
            if left:
                in_line[producer] = left
