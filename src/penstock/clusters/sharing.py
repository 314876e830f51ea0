"""What all virtual clusters share, and there is only so much of, divided fairly. Pure.

While something is left anybody may have it. Once nothing is, a cluster gets more at the cost of those that have more
than it then has, so that what many want is divided evenly, and nobody, whoever it is, keeps the others from having any.
Whoever had to give something up does not get it back from whom it went to, however often it asks.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Shared:
    """So much of something, and how much each cluster has of it."""

    __slots__ = ("_of", "_total", "_used")

    def __init__(self, total: int) -> None:
        self._total, self._used = total, 0
        self._of: Counter[int] = Counter()

    @property
    def left(self) -> int:
        """What nobody has."""
        return self._total - self._used

    def of(self, cluster_id: int) -> int:
        """What a cluster has."""
        return self._of[cluster_id]

    def take(self, cluster_id: int, count: int) -> None:
        """A cluster has so much more, or, if that is negative, less."""
        self._used += count
        self._of[cluster_id] += count
        if not self._of[cluster_id]:
            del self._of[cluster_id]

    def may_have(self, cluster_id: int, more: int) -> bool:
        """Whether a cluster gets so much more of what is left and of what those give up who would have more than it."""
        if self.left >= more:
            return True
        level = self._of[cluster_id] + more
        beyond = (has - level for other, has in self._of.items() if other != cluster_id and has > level)
        return self.left + sum(beyond) >= more

    def richest(self, but_not: int) -> int:
        """Who of the others has most: as long as too little is left for somebody who may have more, that one has more
        than they would then have."""
        return max((has, other) for other, has in self._of.items() if other != but_not)[1]


class Holdings(Generic[K]):
    """What clusters have of something that has parts, by keys: there is only so much of it, and of its parts."""

    __slots__ = ("_of", "_parts", "_wholes")

    def __init__(self, wholes: int, parts: int) -> None:
        self._wholes, self._parts = Shared(wholes), Shared(parts)
        self._of: dict[int, OrderedDict[K, int]] = {}
        """How many parts each has, by cluster, the one that was not used for longest first."""

    def add(self, cluster_id: int, key: K, parts: int = 0) -> None:
        """A cluster has one more."""
        self._of.setdefault(cluster_id, OrderedDict())[key] = parts
        self._wholes.take(cluster_id, 1)
        self._parts.take(cluster_id, parts)

    def grow(self, cluster_id: int, key: K, parts: int) -> None:
        """One of a cluster's has so many parts more, or, if that is negative, less."""
        self._of[cluster_id][key] += parts
        self._parts.take(cluster_id, parts)

    def use(self, cluster_id: int, key: K) -> None:
        """It is in use."""
        self._of[cluster_id].move_to_end(key)

    def remove(self, cluster_id: int, key: K) -> None:
        """It is gone."""
        of_cluster = self._of[cluster_id]
        self._wholes.take(cluster_id, -1)
        self._parts.take(cluster_id, -of_cluster.pop(key))
        if not of_cluster:
            del self._of[cluster_id]

    def oldest(self, cluster_id: int) -> K | None:
        """Which of a cluster's was not used for longest."""
        return next(iter(self._of.get(cluster_id, ())), None)

    @property
    def parts_left(self) -> int:
        """How many parts nobody has."""
        return self._parts.left

    def lacks(self, wholes: int, parts: int) -> bool:
        """Whether there is too little left for so much more."""
        return self._wholes.left < wholes or self._parts.left < parts

    def may_have(self, cluster_id: int, wholes: int, parts: int) -> bool:
        """Whether a cluster gets so much more, if others have to give something up for it or not."""
        return self._wholes.may_have(cluster_id, wholes) and self._parts.may_have(cluster_id, parts)

    def given_up(self, cluster_id: int, wholes: int, parts: int) -> K | None:
        """What has to go next, so that a cluster gets what it may have; None: there is enough. Of whoever has most the
        one that was not used for longest, and for parts the one with most of them: few have to begin anew."""
        if self._wholes.left < wholes:
            return self.oldest(self._wholes.richest(cluster_id))
        if self._parts.left < parts:
            of_richest = self._of[self._parts.richest(cluster_id)]
            return max(of_richest, key=of_richest.__getitem__)
        return None
