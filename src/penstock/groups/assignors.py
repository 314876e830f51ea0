"""The server-side assignors of consumer groups (KIP-848): `uniform` and `range`. Pure and deterministic.

    uniform   balances the number of partitions per member, to within one; moves as few as that allows
    range     topic by topic, a range of partitions for each member; so members get the same range of topics with equal
              partition counts (co-partitioning)

Neither is rack aware, as in Apache Kafka 4; racks matter on the fetch path only.

An assignor gets all members with their current targets, and returns the new targets. A member whose target does not
change gets the same object back, so that callers can compare by identity.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence

from penstock.base.dataclasses import dataclass
from penstock.groups.partitions import Partitions

MAX_ROUNDS = 16
"""How many passes over all topics `uniform` makes to balance members with different subscriptions. Usually two do."""

_MEMBERS_LAST = "\U0010ffff"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscriber:
    """What an assignor knows of a member."""

    member_id: str
    instance_id: str | None
    topic_ids: frozenset[bytes]
    target: Partitions


PartitionCounts = Mapping[bytes, int]
"""Partition counts by topic id, of all topics that any member subscribes to."""

Assignor = Callable[[Sequence[Subscriber], PartitionCounts], dict[str, Partitions]]


def uniform(subscribers: Sequence[Subscriber], counts: PartitionCounts) -> dict[str, Partitions]:
    """Balance partition counts, moving as few partitions as possible."""
    kept = _kept(subscribers, counts)
    if _homogeneous(subscribers):
        _share_evenly(subscribers, counts, kept)
    else:
        _fill_and_balance(subscribers, counts, kept)
    return {s.member_id: _target(s.target, kept[n]) for n, s in enumerate(subscribers)}


def range_(subscribers: Sequence[Subscriber], counts: PartitionCounts) -> dict[str, Partitions]:
    """A range of each topic for each of its subscribers; static members first, ordered by instance id."""
    ordered = sorted(subscribers, key=_range_order)
    targets: dict[str, dict[bytes, frozenset[int]]] = {s.member_id: {} for s in subscribers}
    for topic_id, count in counts.items():
        members = [s for s in ordered if topic_id in s.topic_ids]
        if not members:
            continue
        least, more = divmod(count, len(members))
        start = 0
        for number, subscriber in enumerate(members):
            end = start + least + (number < more)
            if end > start:
                targets[subscriber.member_id][topic_id] = frozenset(range(start, end))
            start = end
    return {s.member_id: s.target if s.target == targets[s.member_id] else targets[s.member_id] for s in subscribers}


ASSIGNORS: Mapping[str, Assignor] = {"uniform": uniform, "range": range_}
"""By the name used in settings and requests."""


def _range_order(subscriber: Subscriber) -> tuple[str, str]:
    return (_MEMBERS_LAST if subscriber.instance_id is None else subscriber.instance_id, subscriber.member_id)


def _homogeneous(subscribers: Sequence[Subscriber]) -> bool:
    first = subscribers[0].topic_ids if subscribers else frozenset()
    return all(s.topic_ids is first or s.topic_ids == first for s in subscribers)


OwnedPartitions = list[tuple[bytes, int]]


def _kept(subscribers: Sequence[Subscriber], counts: PartitionCounts) -> list[OwnedPartitions]:
    """What each member keeps: existing, subscribed partitions that no member before it has."""
    taken: set[tuple[bytes, int]] = set()
    kept = []
    for subscriber in subscribers:
        mine: OwnedPartitions = []
        for topic_id in sorted(subscriber.target.keys() & subscriber.topic_ids):
            count = counts.get(topic_id, 0)
            mine += ((topic_id, p) for p in sorted(subscriber.target[topic_id]) if p < count)
        if not taken.isdisjoint(mine):
            mine = [partition for partition in mine if partition not in taken]
        taken.update(mine)
        kept.append(mine)
    return kept


def _target(before: Partitions, owned: Iterable[tuple[bytes, int]]) -> Partitions:
    by_topic: dict[bytes, set[int]] = {}
    for topic_id, partition in owned:
        by_topic.setdefault(topic_id, set()).add(partition)
    # A set and a frozenset with the same elements are equal.
    return before if before == by_topic else {topic_id: frozenset(found) for topic_id, found in by_topic.items()}


# --- Homogeneous subscriptions -------------------------------------------------------------------------------------


def _share_evenly(subscribers: Sequence[Subscriber], counts: PartitionCounts, kept: list[OwnedPartitions]) -> None:
    if not subscribers:
        return
    topic_ids = sorted(topic_id for topic_id in subscribers[0].topic_ids if topic_id in counts)
    least, more = divmod(sum(counts[topic_id] for topic_id in topic_ids), len(subscribers))
    # Members above the minimum keep one more while the remainder lasts, so that it need not move.
    for mine in kept:
        if len(mine) > least:
            quota = least + (more > 0)
            more -= more > 0
            del mine[quota:]
    taken = {partition for mine in kept for partition in mine}
    free = [(t, p) for t in topic_ids for p in range(counts[t]) if (t, p) not in taken]
    position = 0
    for mine in kept:
        if len(mine) <= least:
            quota = least + (more > 0 and position < len(free))
            size = quota - len(mine)
            more -= quota > least
            mine += free[position : position + size]
            position += size


# --- Heterogeneous subscriptions -----------------------------------------------------------------------------------


class _MutableAssignment:
    """What members with different subscriptions have, by topic, and how much that is: moving a partition costs nothing
    that grows with what a member has."""

    def __init__(self, kept: Iterable[OwnedPartitions]) -> None:
        self.held: list[dict[bytes, list[int]]] = []
        self.loads: list[int] = []
        for mine in kept:
            by_topic: dict[bytes, list[int]] = {}
            for topic_id, partition in mine:
                by_topic.setdefault(topic_id, []).append(partition)
            self.held.append(by_topic)
            self.loads.append(len(mine))

    def assign(self, number: int, topic_id: bytes, partition: int) -> None:
        self.held[number].setdefault(topic_id, []).append(partition)
        self.loads[number] += 1

    def unassign(self, number: int, topic_id: bytes) -> int:
        self.loads[number] -= 1
        return self.held[number][topic_id].pop()

    def partitions_of(self, number: int) -> OwnedPartitions:
        return [(topic_id, partition) for topic_id, found in self.held[number].items() for partition in found]


def _fill_and_balance(subscribers: Sequence[Subscriber], counts: PartitionCounts, kept: list[OwnedPartitions]) -> None:
    """Give every partition that nobody has to who has least, then move partitions from who has most to who has least.

    Topics with few subscribers come first: theirs have no choice.
    """
    taken = {partition for mine in kept for partition in mine}
    assignment = _MutableAssignment(kept)
    members: dict[bytes, list[int]] = {}
    for number, subscriber in enumerate(subscribers):
        for topic_id in subscriber.topic_ids:
            members.setdefault(topic_id, []).append(number)
    order = sorted((t for t in members if t in counts), key=lambda t: (len(members[t]), t))
    for topic_id in order:
        loads = [(assignment.loads[number], number) for number in members[topic_id]]
        heapq.heapify(loads)
        for partition in range(counts[topic_id]):
            if (topic_id, partition) not in taken:
                load, number = loads[0]
                assignment.assign(number, topic_id, partition)
                heapq.heapreplace(loads, (load + 1, number))
    for _ in range(MAX_ROUNDS):
        if not sum(_balance(topic_id, members[topic_id], assignment) for topic_id in order):
            break
    for number in range(len(kept)):
        kept[number] = assignment.partitions_of(number)


def _balance(topic_id: bytes, members: Sequence[int], assignment: _MutableAssignment) -> int:
    """Move partitions of one topic until no subscriber who has some has two more than another. How many moved."""
    loads, held = assignment.loads, assignment.held
    least = [(loads[number], number) for number in members]
    most = [(-load, number) for load, number in least if held[number].get(topic_id)]
    if not most or -min(most)[0] - min(least)[0] <= 1:
        return 0
    heapq.heapify(most)
    heapq.heapify(least)
    moved = 0
    while most:
        load, most_loaded = -most[0][0], most[0][1]
        low, least_loaded = least[0]
        if load != loads[most_loaded] or not held[most_loaded][topic_id]:
            heapq.heappop(most)
            if held[most_loaded][topic_id]:
                heapq.heappush(most, (-loads[most_loaded], most_loaded))
            continue
        if low != loads[least_loaded]:
            heapq.heapreplace(least, (loads[least_loaded], least_loaded))
            continue
        if load - low <= 1:
            break
        assignment.assign(least_loaded, topic_id, assignment.unassign(most_loaded, topic_id))
        heapq.heapreplace(most, (-loads[most_loaded], most_loaded))
        heapq.heappush(most, (-loads[least_loaded], least_loaded))
        moved += 1
    return moved
