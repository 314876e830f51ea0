"""The assignor `simple` of share groups. Pure and deterministic.

Every partition gets equally many members, as few as give each member something to do; partition counts of members are
balanced to within one. Current assignments are kept as far as that allows. With equal subscriptions the partitions of
all topics are spread together, otherwise topic by topic.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from penstock.groups.share.model import Partitions

Slot = tuple[bytes, int]
"""A partition by topic id and index."""


def assigned(
    subscriptions: Mapping[str, frozenset[bytes]], counts: Mapping[bytes, int], before: Mapping[str, Partitions]
) -> dict[str, Partitions]:
    """The partitions of each member. Inputs: subscribed topics by member, partition counts by topic, current
    assignments by member. Topics without a count are not assigned."""
    member_ids = sorted(subscriptions)
    had = {
        member_id: {(topic_id, index) for topic_id, found in before.get(member_id, {}).items() for index in found}
        for member_id in member_ids
    }
    has: dict[str, list[Slot]] = {member_id: [] for member_id in member_ids}
    if len(set(subscriptions.values())) <= 1:
        wanted = next(iter(subscriptions.values()), frozenset())
        _spread(member_ids, _slots(wanted, counts), had, has)
    else:
        for topic_id in sorted(counts):
            subscribers = [member_id for member_id in member_ids if topic_id in subscriptions[member_id]]
            _spread(subscribers, _slots((topic_id,), counts), had, has)
    return {member_id: _by_topic(slots) for member_id, slots in has.items()}


def _slots(topic_ids: Iterable[bytes], counts: Mapping[bytes, int]) -> list[Slot]:
    return [(topic_id, index) for topic_id in sorted(topic_ids) for index in range(counts.get(topic_id, 0))]


def _spread(
    member_ids: Sequence[str], slots: Sequence[Slot], had: Mapping[str, set[Slot]], has: dict[str, list[Slot]]
) -> None:
    """Assign slots to members, in addition to slots of other topics."""
    if not slots or not member_ids:
        return
    sharers = -(-len(member_ids) // len(slots))
    total, size = sharers * len(slots), len(member_ids)
    room = dict.fromkeys(slots, sharers)
    mine: dict[str, list[Slot]] = {}
    quota: dict[str, int] = {}
    for number, member_id in enumerate(member_ids):
        quota[member_id] = -(-total * (number + 1) // size) + (-total * number // size)
        kept = mine[member_id] = []
        for slot in sorted(had[member_id]):
            if len(kept) < quota[member_id] and room.get(slot, 0) > 0:
                kept.append(slot)
                room[slot] -= 1
    hungry = [member_id for member_id in member_ids if len(mine[member_id]) < quota[member_id]]
    # Unassigned slots first, so that no partition has no member while another has two.
    for slot in sorted(slots, key=lambda slot: (-room[slot], slot)):
        for member_id in list(hungry):
            if room[slot] == 0:
                break
            if slot in mine[member_id]:
                continue
            mine[member_id].append(slot)
            room[slot] -= 1
            hungry.remove(member_id)
            if len(mine[member_id]) < quota[member_id]:
                hungry.append(member_id)
    for member_id, found in mine.items():
        has[member_id] += found


def _by_topic(slots: Iterable[Slot]) -> dict[bytes, frozenset[int]]:
    topics: dict[bytes, set[int]] = {}
    for topic_id, index in slots:
        topics.setdefault(topic_id, set()).add(index)
    return {topic_id: frozenset(topics[topic_id]) for topic_id in sorted(topics)}
