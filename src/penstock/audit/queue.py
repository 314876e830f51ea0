"""The bounded queue of facts, and counts of those that were dropped.

It is bounded in number and in bytes, because clients choose the length of texts. Part of it is reserved against facts
that anybody can cause in any number: a principal without any permission can be denied 20,000 things by one request, and
that must not cost others the events of changes that were really made.

Nobody can crowd out others. When the queue is full, a fact of a party that has fewer queued than another replaces the
newest refusal of the party that has the most; so those who flood the queue, however many, share what the others leave.
Unauthenticated callers do not count as part of the cluster that they name, and have a share of their own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from heapq import heapify, heappop, heapreplace

from penstock.audit.model import Attempted, CapturedFact, Changed, Decided, Lost, size_of
from penstock.base.dataclasses import dataclass, field

OF_DECISIONS, OF_FAILURES = 3 / 4, 7 / 8
"""How full the queue may get with decisions, and with failed attempts and changes. Successful ones may fill it."""

Party = tuple[int, bool]
"""The virtual cluster, and whether the caller was authenticated as belonging to it."""


def fill_limit(fact: CapturedFact) -> float:
    """How full the queue may be for this fact to be added."""
    match fact:
        case Decided():
            return OF_DECISIONS
        case Attempted() if not fact.caller.principal:
            return OF_FAILURES
        case Changed() if fact.error:
            return OF_FAILURES
        case _:
            return 1.0


def party_of(fact: CapturedFact) -> Party:
    """The party whose share of the queue a fact counts against."""
    return fact.caller.cluster_id, bool(fact.caller.principal)


FactList = deque[tuple[CapturedFact, int]]
"""Facts with their sizes, in the order of their numbers."""


@dataclass(slots=True)
class _Share:
    """The queued facts of a party."""

    done: FactList = field(default_factory=deque)
    """Successful changes."""
    refused: FactList = field(default_factory=deque)
    facts: int = 0
    size_bytes: int = 0

    def list_of(self, fact: CapturedFact) -> FactList:
        """The list for a fact."""
        return self.done if fill_limit(fact) == 1.0 else self.refused


class FactQueue:
    """The queue, ordered by number."""

    def __init__(self, *, facts_max: int, bytes_max: int) -> None:
        self._facts_max, self._bytes_max = facts_max, bytes_max
        self._facts = self._bytes = 0
        self._shares: dict[Party, _Share] = {}

    def __len__(self) -> int:
        return self._facts

    @property
    def size_bytes(self) -> int:
        """About how much memory the facts take."""
        return self._bytes

    def add(self, fact: CapturedFact) -> Sequence[CapturedFact]:
        """Queue a fact at the end; returns what is dropped for it: others, or itself if there is no room."""
        size = size_of(fact)
        room = fill_limit(fact)
        lost: list[CapturedFact] = []
        if not self._fits(size, room) and not self._make_room(fact, size, room, lost):
            return (*lost, fact)
        self._share(party_of(fact)).list_of(fact).append((fact, size))
        self._count(fact, 1, size)
        return lost

    def _fits(self, size_bytes: int, part: float) -> bool:
        return self._facts + 1 <= self._facts_max * part and self._bytes + size_bytes <= self._bytes_max * part

    def _make_room(self, fact: CapturedFact, size: int, room: float, lost: list[CapturedFact]) -> bool:
        """Drop facts of parties that have more, if there are any."""
        own = self._shares.get(party_of(fact), _NOTHING)
        weight = self._weight(own.facts + 1, own.size_bytes + size)
        if weight * len(self._shares) >= room:
            return False  # It has its share already: no search for every fact of a flood.
        while not lost or not self._fits(size, 1.0):
            most = max(
                (share for share in self._shares.values() if share.refused), default=_NOTHING,
                key=lambda share: self._weight(share.facts, share.size_bytes),
            )  # fmt: skip
            if self._weight(most.facts, most.size_bytes) <= weight:
                return False
            newest, its_size = most.refused.pop()
            self._count(newest, -1, -its_size)
            lost.append(newest)
        return True

    def _weight(self, facts: int, size_bytes: int) -> float:
        return max(facts / self._facts_max, size_bytes / self._bytes_max)

    def _share(self, party: Party) -> _Share:
        share = self._shares.get(party)
        if share is None:
            share = self._shares[party] = _Share()
        return share

    def _count(self, fact: CapturedFact, facts: int, size_bytes: int) -> None:
        self._facts += facts
        self._bytes += size_bytes
        party = party_of(fact)
        share = self._shares[party]
        share.facts += facts
        share.size_bytes += size_bytes
        if not share.facts:
            del self._shares[party]

    def take(self, count: int) -> list[CapturedFact]:
        """Remove and return the first facts."""
        lines = [line for share in self._shares.values() for line in (share.done, share.refused) if line]
        first = [(line[0][0].number, which) for which, line in enumerate(lines)]
        heapify(first)
        taken: list[CapturedFact] = []
        while first and len(taken) < count:
            line = lines[first[0][1]]
            fact, size = line.popleft()
            self._count(fact, -1, -size)
            taken.append(fact)
            if line:
                heapreplace(first, (line[0][0].number, first[0][1]))
            else:
                heappop(first)
        return taken

    def put_back(self, facts: Sequence[CapturedFact]) -> None:
        """Return facts to the front of the queue. There is room: it was theirs."""
        for fact in reversed(facts):
            size = size_of(fact)
            self._share(party_of(fact)).list_of(fact).appendleft((fact, size))
            self._count(fact, 1, size)


_NOTHING = _Share()


class Losses:
    """How many facts were dropped, by cluster, since the last event that said so."""

    def __init__(self) -> None:
        self._unreported: dict[int, tuple[int, int]] = {}

    def __bool__(self) -> bool:
        return bool(self._unreported)

    @property
    def number(self) -> int:
        """The total."""
        return sum(number for number, _ in self._unreported.values())

    def add(self, cluster_id: int, number: int, since_ms: int) -> None:
        """Count dropped facts of a cluster."""
        before, first_ms = self._unreported.get(cluster_id, (0, since_ms))
        self._unreported[cluster_id] = before + number, min(first_ms, since_ms)

    def take(self, count: int, now_ms: int) -> list[Lost]:
        """Remove and return the counts of some clusters."""
        chosen = list(self._unreported)[:count]
        losses = []
        for cluster_id in chosen:
            number, since_ms = self._unreported.pop(cluster_id)
            losses.append(Lost(now_ms, since_ms, number, cluster_id))
        return losses

    def put_back(self, losses: Sequence[Lost]) -> None:
        """Return counts whose events could not be stored."""
        for lost in losses:
            self.add(lost.cluster_id, lost.number, lost.since_ms)
