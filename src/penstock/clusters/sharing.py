"""Fair division of a bounded resource among virtual clusters. Pure.

While some is free, any cluster may take it. After that a cluster gets more only at the expense of clusters that would
still have more than it: under contention the resource is divided evenly, and no cluster can keep others out. A cluster
that had to give something up does not get it back from the one that received it, however often it asks.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class FairPool:
    """A number of units, and how many each cluster has."""

    __slots__ = ("_of", "_total", "_used")

    def __init__(self, total: int) -> None:
        self._total, self._used = total, 0
        self._of: Counter[int] = Counter()

    @property
    def free(self) -> int:
        """Units that no cluster has."""
        return self._total - self._used

    def of(self, cluster_id: int) -> int:
        """The units of a cluster."""
        return self._of[cluster_id]

    def take(self, cluster_id: int, count: int) -> None:
        """Give a cluster units; take them back if `count` is negative."""
        self._used += count
        self._of[cluster_id] += count
        if not self._of[cluster_id]:
            del self._of[cluster_id]

    def may_have(self, cluster_id: int, more: int) -> bool:
        """Whether a cluster may have more units: free ones, and those of clusters that would have more than it."""
        if self.free >= more:
            return True
        level = self._of[cluster_id] + more
        excess = (count - level for other, count in self._of.items() if other != cluster_id and count > level)
        return self.free + sum(excess) >= more

    def largest_holder(self, but_not: int) -> int:
        """The other cluster with the most units. While too few are free for a cluster that may have more, this one has
        more than it would then have."""
        return max((count, other) for other, count in self._of.items() if other != but_not)[1]


class FairCapacity(Generic[K]):
    """Bounded numbers of items, by keys, and of the parts that items consist of: sessions and their partitions, for
    example. Both are divided fairly among clusters."""

    __slots__ = ("_items", "_of", "_parts")

    def __init__(self, items: int, parts: int) -> None:
        self._items, self._parts = FairPool(items), FairPool(parts)
        self._of: dict[int, OrderedDict[K, int]] = {}
        """Number of parts of each item, by cluster, least recently used first."""

    def add(self, cluster_id: int, key: K, parts: int = 0) -> None:
        """Add an item to a cluster."""
        self._of.setdefault(cluster_id, OrderedDict())[key] = parts
        self._items.take(cluster_id, 1)
        self._parts.take(cluster_id, parts)

    def grow(self, cluster_id: int, key: K, parts: int) -> None:
        """Add parts to an item; remove them if `parts` is negative."""
        self._of[cluster_id][key] += parts
        self._parts.take(cluster_id, parts)

    def use(self, cluster_id: int, key: K) -> None:
        """Mark an item as used now."""
        self._of[cluster_id].move_to_end(key)

    def remove(self, cluster_id: int, key: K) -> None:
        """Remove an item with its parts."""
        of_cluster = self._of[cluster_id]
        self._items.take(cluster_id, -1)
        self._parts.take(cluster_id, -of_cluster.pop(key))
        if not of_cluster:
            del self._of[cluster_id]

    def least_recently_used(self, cluster_id: int) -> K | None:
        """The least recently used item of a cluster; None if it has none."""
        return next(iter(self._of.get(cluster_id, ())), None)

    @property
    def free_parts(self) -> int:
        """Parts that no cluster has."""
        return self._parts.free

    def lacks(self, items: int, parts: int) -> bool:
        """Whether too little is free for these."""
        return self._items.free < items or self._parts.free < parts

    def may_have(self, cluster_id: int, items: int, parts: int) -> bool:
        """Whether a cluster may have this much more, with or without evictions from other clusters."""
        return self._items.may_have(cluster_id, items) and self._parts.may_have(cluster_id, parts)

    def next_eviction(self, cluster_id: int, items: int, parts: int) -> K | None:
        """The item to evict next so that a cluster gets what it may have; None if enough is free. It belongs to the
        cluster that has the most: the least recently used one; for parts, the one with most parts, so that few are
        evicted."""
        if self._items.free < items:
            return self.least_recently_used(self._items.largest_holder(cluster_id))
        if self._parts.free < parts:
            of_largest = self._of[self._parts.largest_holder(cluster_id)]
            return max(of_largest, key=of_largest.__getitem__)
        return None
