"""Facts that wait to be told, in order, and what there was no room for.

The queue is bounded in number and in bytes, for clients choose how long their texts are. Nobody can crowd out others:
one virtual cluster has a part of it at most, and of the whole, as of each part, some is kept free of what anybody can
cause any number of. Who may do nothing at all can be refused 20,000 things by one request; whoever fills the queue that
way costs neither others their events, nor their own cluster those of what was really done.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from penstock.audit.model import Attempted, Changed, Decided, Heard, Lost, size_of

CLUSTERS = 4
"""One cluster has a fourth of the queue."""
OF_DECISIONS, OF_FAILURES = 3 / 4, 7 / 8
"""How full the queue may get, and a cluster's part of it, by decisions, and by attempts and changes that failed. What
succeeded may fill it."""


def room_of(fact: Heard) -> float:
    """Which part of the queue may be full for a fact to have room in it."""
    match fact:
        case Decided():
            return OF_DECISIONS
        case Attempted() if not fact.caller.principal:
            return OF_FAILURES
        case Changed() if fact.error:
            return OF_FAILURES
        case _:
            return 1.0


@dataclass(slots=True)
class _Used:
    """How much waits."""

    facts: int = 0
    size_bytes: int = 0

    def add(self, facts: int, size_bytes: int) -> None:
        """So much more."""
        self.facts += facts
        self.size_bytes += size_bytes


class Waiting:
    """A queue of facts."""

    def __init__(self, *, facts_max: int, bytes_max: int) -> None:
        self._facts_max, self._bytes_max = facts_max, bytes_max
        self._facts: deque[tuple[Heard, int]] = deque()
        self._all = _Used()
        self._by_cluster: dict[int, _Used] = {}

    def __len__(self) -> int:
        return len(self._facts)

    @property
    def size_bytes(self) -> int:
        """About how much memory they take."""
        return self._all.size_bytes

    def add(self, fact: Heard) -> bool:
        """Have a fact wait; False if there is no room for it."""
        size, room = size_of(fact), room_of(fact)
        of_cluster = self._by_cluster.get(fact.caller.cluster_id)
        if not self._fits(self._all, size, room):
            return False
        if not self._fits(_Used() if of_cluster is None else of_cluster, size, room / CLUSTERS):
            return False
        self._facts.append((fact, size))
        self._count(fact, 1, size)
        return True

    def _fits(self, used: _Used, size_bytes: int, part: float) -> bool:
        return used.facts + 1 <= self._facts_max * part and used.size_bytes + size_bytes <= self._bytes_max * part

    def _count(self, fact: Heard, facts: int, size_bytes: int) -> None:
        self._all.add(facts, size_bytes)
        of_cluster = self._by_cluster.setdefault(fact.caller.cluster_id, _Used())
        of_cluster.add(facts, size_bytes)
        if not of_cluster.facts:
            del self._by_cluster[fact.caller.cluster_id]

    def take(self, count: int) -> list[Heard]:
        """The first ones, which wait no more."""
        taken = [self._facts.popleft() for _ in range(min(count, len(self._facts)))]
        for fact, size in taken:
            self._count(fact, -1, -size)
        return [fact for fact, _ in taken]

    def put_back(self, facts: Sequence[Heard]) -> None:
        """Have facts wait again, before the others. They have room: it was theirs."""
        for fact in reversed(facts):
            size = size_of(fact)
            self._facts.appendleft((fact, size))
            self._count(fact, 1, size)


class Losses:
    """How many facts were lost, by cluster, and no event tells of it yet."""

    def __init__(self) -> None:
        self._unreported: dict[int, tuple[int, int]] = {}

    def __bool__(self) -> bool:
        return bool(self._unreported)

    @property
    def number(self) -> int:
        """How many there are in all."""
        return sum(number for number, _ in self._unreported.values())

    def add(self, cluster_id: int, number: int, since_ms: int) -> None:
        """So many more of a cluster."""
        before, first_ms = self._unreported.get(cluster_id, (0, since_ms))
        self._unreported[cluster_id] = before + number, min(first_ms, since_ms)

    def take(self, count: int, now_ms: int) -> list[Lost]:
        """Those of so many clusters, to be told."""
        chosen = list(self._unreported)[:count]
        losses = []
        for cluster_id in chosen:
            number, since_ms = self._unreported.pop(cluster_id)
            losses.append(Lost(now_ms, since_ms, number, cluster_id))
        return losses

    def put_back(self, losses: Sequence[Lost]) -> None:
        """They could not be told."""
        for lost in losses:
            self.add(lost.cluster_id, lost.number, lost.since_ms)
