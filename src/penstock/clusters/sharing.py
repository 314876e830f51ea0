"""What all virtual clusters share, and there is only so much of, divided fairly. Pure.

While something is left anybody may have it. Once nothing is, a cluster gets more at the cost of those that have more
than it then has, so that what many want is divided evenly, and nobody, whoever it is, keeps the others from having any.
Whoever had to give something up does not get it back from whom it went to, however often it asks.
"""

from __future__ import annotations

from collections import Counter


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
