"""The members of a consumer group, and the indexes derived from them, updated together. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from penstock.groups.consumer.model import ConsumerGroup, ConsumerMember, Tally
from penstock.groups.partitions import handed_over


def of_members(group: ConsumerGroup, members: Iterable[ConsumerMember]) -> ConsumerGroup:
    """A group with exactly these members. If two claim a partition, the first one owns it."""
    by_id = {member.member_id: member for member in members}
    owners: dict[bytes, dict[int, str]] = {}
    tally = Tally()
    for member in by_id.values():
        tally = tally_with(tally, None, member)
        for assigned in (member.assigned, member.revoking):
            for topic_id, partitions in assigned.items():
                owned = owners.setdefault(topic_id, {})
                for partition in partitions:
                    owned.setdefault(partition, member.member_id)
    instances = {m.instance_id: m.member_id for m in by_id.values() if m.instance_id is not None}
    return replace(group, members=by_id, instances=instances, owners=owners, tally=tally)


def with_member(group: ConsumerGroup, member: ConsumerMember) -> ConsumerGroup:
    """Add a member, or replace the one with the same id."""
    before = group.members.get(member.member_id)
    instances = group.instances
    if member.instance_id is not None and instances.get(member.instance_id) != member.member_id:
        instances = {**instances, member.instance_id: member.member_id}
    return replace(
        group,
        members={**group.members, member.member_id: member},
        instances=instances,
        owners=_owners(group, member.member_id, before, member),
        tally=tally_with(group.tally, before, member),
        empty_since_ms=None,
    )


def without_member(group: ConsumerGroup, member: ConsumerMember) -> ConsumerGroup:
    """Remove a member and everything that it owns."""
    instances = group.instances
    if member.instance_id is not None and instances.get(member.instance_id) == member.member_id:
        instances = {name: held for name, held in instances.items() if name != member.instance_id}
    return replace(
        group,
        members={member_id: kept for member_id, kept in group.members.items() if member_id != member.member_id},
        instances=instances,
        owners=_owners(group, member.member_id, member, None),
        tally=tally_with(group.tally, member, None),
    )


def _owners(
    group: ConsumerGroup, member_id: str, before: ConsumerMember | None, after: ConsumerMember | None
) -> Mapping[bytes, Mapping[int, str]]:
    had = () if before is None else (before.assigned, before.revoking)
    has = () if after is None else (after.assigned, after.revoking)
    if had == has:
        return group.owners
    return handed_over(group.owners, member_id, had, has)


def tally_with(tally: Tally, before: ConsumerMember | None, after: ConsumerMember | None) -> Tally:
    """The tally after a member's subscription or protocol has changed."""
    if before is not None and after is not None and _said(before) == _said(after):
        return tally
    classic = (after is not None and after.classic is not None) - (before is not None and before.classic is not None)
    return Tally(
        topics=_moved(tally.topics, _topics(before), _topics(after)),
        regexes=_moved(tally.regexes, _regexes(before), _regexes(after)),
        assignors=_moved(tally.assignors, _assignors(before), _assignors(after)),
        classic=tally.classic + classic,
        protocols=_moved(tally.protocols, _protocols(before), _protocols(after)),
    )


def _said(member: ConsumerMember) -> tuple[object, ...]:
    return (member.topics, member.regex, member.assignor, member.classic)


def _topics(member: ConsumerMember | None) -> frozenset[str]:
    return frozenset() if member is None else member.topics


def _regexes(member: ConsumerMember | None) -> frozenset[str]:
    return frozenset() if member is None or not member.regex else frozenset((member.regex,))


def _assignors(member: ConsumerMember | None) -> frozenset[str]:
    return frozenset() if member is None or member.assignor is None else frozenset((member.assignor,))


def _protocols(member: ConsumerMember | None) -> frozenset[str]:
    if member is None or member.classic is None:
        return frozenset()
    return frozenset(name for name, _ in member.classic.protocols)


def _moved(counts: Mapping[str, int], before: frozenset[str], after: frozenset[str]) -> Mapping[str, int]:
    if before == after:
        return counts
    moved = dict(counts)
    for name in after - before:
        moved[name] = moved.get(name, 0) + 1
    for name in before - after:
        moved[name] -= 1
        if not moved[name]:
            del moved[name]
    return moved
