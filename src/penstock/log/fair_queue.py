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
from penstock.log.answers import PendingAppend
from penstock.log.batches import Accepted
from penstock.log.model import Partition

PendingBatch = tuple[Accepted, PendingAppend, int]
"""A batch that waits for a flush, the ticket that gets its answer, and its position in that."""
SHARE_MAX_BATCHES, SHARE_MAX_OFFSETS = 2**15, 2**31
"""The most that one partition gets in a flush, markers apart. Producers may claim any record count for a batch, and a
commit row has 32 bits for the offsets of an entry, 16 for its batches."""
SHARED_S = 1.0
"""How long a cluster counts as active after it has appended."""


class FlushQuota(NamedTuple):
    """The limits of what one cluster gets in a flush. One batch always fits."""

    size_bytes: int
    batches: int


UNLIMITED = FlushQuota(2**62, 2**62)
SHARED_QUOTA = FlushQuota(512 * 1024, 1024)
"""A disk writes this in one or two milliseconds; that many batches, however small, take the event loop as long."""
SHORT_WRITE_S = 0.002
SHORT_QUOTA = FlushQuota(512 * 1024, 64)
"""The quota when there are participants, while a flush is written in less than `SHORT_WRITE_S`: that many batches take
the event loop as long."""
SHORT_FOR_S = 1.0
"""How long flushes stay short after a participant: more are expected."""


class FairQueue:
    """The queues, and which clusters were active lately."""

    __slots__ = ("_last", "_queues", "_shared_until_s", "_short", "_short_until_s")

    def __init__(self) -> None:
        self._queues: dict[int, deque[Partition]] = {}
        """By cluster, the next one to serve first. A partition is in its queue once."""
        self._last: int | None = None
        """The cluster that was served last."""
        self._shared_until_s = self._short_until_s = -inf
        self._short = SHORT_QUOTA

    def __bool__(self) -> bool:
        return bool(self._queues)

    def add(self, partition: Partition) -> None:
        """Queue a partition."""
        cluster_id = partition.topic.cluster_id
        partitions = self._queues.get(cluster_id)
        if partitions is None:
            partitions = self._queues[cluster_id] = deque()
        partitions.append(partition)

    def clear(self) -> None:
        """Empty the queues."""
        self._queues.clear()

    def partitions(self) -> Iterator[Partition]:
        """Every queued partition."""
        return chain.from_iterable(self._queues.values())

    def queues(self) -> Sequence[tuple[int, deque[Partition]]]:
        """The waiting clusters with their queues. Call `served` for each from which something is taken."""
        return list(self._queues.items())

    def quota(self, now_s: float) -> FlushQuota:
        """The limit for each cluster in the next flush."""
        if now_s < self._short_until_s:
            return self._short
        return SHARED_QUOTA if self.is_shared(now_s) else UNLIMITED

    def shorten(self, now_s: float, write_s: float) -> None:
        """Keep flushes short for a while, because there are participants: deciding and laying out a flush may take as
        long as writing it."""
        self._short_until_s = now_s + SHORT_FOR_S
        times = write_s / SHORT_WRITE_S
        size_bytes, batches = SHORT_QUOTA
        self._short = SHORT_QUOTA if times <= 1 else FlushQuota(int(size_bytes * times), int(batches * times))

    def is_limited(self, now_s: float) -> bool:
        """Whether one flush may not take everything that waits."""
        return now_s < self._short_until_s or self.is_shared(now_s)

    def is_shared(self, now_s: float) -> bool:
        """Whether more than one cluster is active."""
        queues = self._queues
        return now_s < self._shared_until_s or len(queues) - (PLATFORM_CLUSTER_ID in queues) > 1

    def served(self, cluster_id: int, now_s: float) -> None:
        """A cluster has had its share: it moves to the end of the round."""
        partitions = self._queues.pop(cluster_id)
        if partitions:
            self._queues[cluster_id] = partitions
        if cluster_id not in (self._last, PLATFORM_CLUSTER_ID):
            if self._last is not None:
                self._shared_until_s = now_s + SHARED_S
            self._last = cluster_id


@twinned
def fitting(pending: list[PendingBatch], room_bytes: int, room_batches: int) -> int:
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
def count_waiting(waiting_count: dict[tuple[int, int], int], batch: Accepted) -> None:
    """Count a waiting transactional batch, by producer id and epoch."""
    producer = batch.producer_id, batch.producer_epoch
    waiting_count[producer] = waiting_count.get(producer, 0) + 1


@twinned
def uncount_waiting(waiting_count: dict[tuple[int, int], int], taken: list[PendingBatch]) -> None:
    """Uncount the transactional ones among batches that a flush has taken."""
    for batch, _, _ in taken:
        if batch.flags:
            producer = batch.producer_id, batch.producer_epoch
            left = waiting_count.pop(producer) - 1
            if left:
                waiting_count[producer] = left
