"""The assignor `simple` of share groups. Pure and deterministic.

Every partition gets equally many members, as few as give each member something to do; partition counts of members are
balanced to within one. Current assignments are kept as far as that allows. With equal subscriptions the partitions of
all topics are spread together, otherwise topic by topic.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from penstock.groups.model import TopicPartition
from penstock.groups.partitions import Partitions


def assign_partitions(
    subscriptions: Mapping[str, frozenset[bytes]], counts: Mapping[bytes, int], before: Mapping[str, Partitions]
) -> dict[str, Partitions]:
    """The partitions of each member. Inputs: subscribed topics by member, partition counts by topic, current
    assignments by member. Topics without a count are not assigned."""
    member_ids = sorted(subscriptions)
    had = {
        member_id: {(topic_id, index) for topic_id, found in before.get(member_id, {}).items() for index in found}
        for member_id in member_ids
    }
    has: dict[str, list[TopicPartition]] = {member_id: [] for member_id in member_ids}
    if len(set(subscriptions.values())) <= 1:
        wanted = next(iter(subscriptions.values()), frozenset())
        _spread(member_ids, _partitions_of(wanted, counts), had, has)
    else:
        for topic_id in sorted(counts):
            subscribers = [member_id for member_id in member_ids if topic_id in subscriptions[member_id]]
            _spread(subscribers, _partitions_of((topic_id,), counts), had, has)
    return {member_id: _by_topic(partitions) for member_id, partitions in has.items()}


def _partitions_of(topic_ids: Iterable[bytes], counts: Mapping[bytes, int]) -> list[TopicPartition]:
    return [(topic_id, index) for topic_id in sorted(topic_ids) for index in range(counts.get(topic_id, 0))]


def _spread(
    member_ids: Sequence[str],
    partitions: Sequence[TopicPartition],
    had: Mapping[str, set[TopicPartition]],
    has: dict[str, list[TopicPartition]],
) -> None:
    """Assign partitions to members, in addition to those of other topics."""
    if not partitions or not member_ids:
        return
    members_per_partition = -(-len(member_ids) // len(partitions))
    total, size = members_per_partition * len(partitions), len(member_ids)
    room = dict.fromkeys(partitions, members_per_partition)
    assigned_now: dict[str, list[TopicPartition]] = {}
    quota: dict[str, int] = {}
    for number, member_id in enumerate(member_ids):
        quota[member_id] = -(-total * (number + 1) // size) + (-total * number // size)
        kept = assigned_now[member_id] = []
        for partition in sorted(had[member_id]):
            if len(kept) < quota[member_id] and room.get(partition, 0) > 0:
                kept.append(partition)
                room[partition] -= 1
    below_quota = [member_id for member_id in member_ids if len(assigned_now[member_id]) < quota[member_id]]
    # Unassigned partitions first, so that no partition has no member while another has two.
    for partition in sorted(partitions, key=lambda partition: (-room[partition], partition)):
        for member_id in list(below_quota):
            if room[partition] == 0:
                break
            if partition in assigned_now[member_id]:
                continue
            assigned_now[member_id].append(partition)
            room[partition] -= 1
            below_quota.remove(member_id)
            if len(assigned_now[member_id]) < quota[member_id]:
                below_quota.append(member_id)
    for member_id, found in assigned_now.items():
        has[member_id] += found


def _by_topic(partitions: Iterable[TopicPartition]) -> dict[bytes, frozenset[int]]:
    topics: dict[bytes, set[int]] = {}
    for topic_id, index in partitions:
        topics.setdefault(topic_id, set()).add(index)
    return {topic_id: frozenset(topics[topic_id]) for topic_id in sorted(topics)}
