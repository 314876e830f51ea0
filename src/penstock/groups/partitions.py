"""Assigned partitions, and the index of their owners. Pure, immutable.

They are read on every heartbeat and change seldom, so they are plain mappings, replaced topic by topic when something
changes: whatever did not change is the same object as before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

Partitions = Mapping[bytes, frozenset[int]]
"""Partition indexes by topic id; no empty sets."""

PartitionEpochs = Mapping[bytes, Mapping[int, int]]
"""By topic id, each partition with the epoch in which the member got it; no empty mappings."""

PartitionOwners = Mapping[bytes, Mapping[int, str]]
"""By topic id, the id of the member that owns each partition until it has revoked it."""


def partitions_of(assigned: PartitionEpochs) -> dict[bytes, frozenset[int]]:
    """The same without epochs."""
    return {topic_id: frozenset(partitions) for topic_id, partitions in assigned.items()}


def same_partitions(one: PartitionEpochs, other: PartitionEpochs) -> bool:
    """Whether two assignments have the same partitions, whatever their epochs."""
    return one is other or (
        one.keys() == other.keys() and all(one[topic_id].keys() == other[topic_id].keys() for topic_id in one)
    )


def is_subset_of(owned: Partitions, assigned: PartitionEpochs) -> bool:
    """Whether everything owned is assigned."""
    return all(
        topic_id in assigned and partitions <= assigned[topic_id].keys() for topic_id, partitions in owned.items()
    )


def overlaps(owned: Partitions, assigned: PartitionEpochs) -> bool:
    """Whether anything owned is assigned."""
    return any(
        topic_id in assigned and not partitions.isdisjoint(assigned[topic_id]) for topic_id, partitions in owned.items()
    )


def updated_owners(
    owners: PartitionOwners, member_id: str, before: Iterable[PartitionEpochs], after: Iterable[PartitionEpochs]
) -> PartitionOwners:
    """The owners after a member's partitions change from `before` to `after`. What others own by now stays theirs."""
    had, has = _merged(before), _merged(after)
    changed = {topic_id for topic_id in (*had, *has) if had.get(topic_id) != has.get(topic_id)}
    if not changed:
        return owners
    fresh = dict(owners)
    for topic_id in changed:
        partitions = dict(fresh.get(topic_id, {}))
        for partition in had.get(topic_id, frozenset()) - has.get(topic_id, frozenset()):
            if partitions.get(partition) == member_id:
                del partitions[partition]
        for partition in has.get(topic_id, frozenset()):
            partitions.setdefault(partition, member_id)
        if partitions:
            fresh[topic_id] = partitions
        else:
            fresh.pop(topic_id, None)
    return fresh


def _merged(parts: Iterable[PartitionEpochs]) -> dict[bytes, frozenset[int]]:
    together: dict[bytes, frozenset[int]] = {}
    for assigned in parts:
        for topic_id, partitions in assigned.items():
            together[topic_id] = together.get(topic_id, frozenset()).union(partitions)
    return together


def is_free_for(owners: PartitionOwners, member_id: str) -> Callable[[bytes, int], bool]:
    """A predicate: whether no other member still has to revoke a partition."""

    def is_free(topic_id: bytes, partition: int) -> bool:
        return owners.get(topic_id, {}).get(partition, member_id) == member_id

    return is_free
