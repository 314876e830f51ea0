"""The members of a consumer group, and the indexes derived from them, updated together. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from penstock.groups.consumer.model import ConsumerGroup, ConsumerMember, SubscriptionCounts
from penstock.groups.partitions import updated_owners


def of_members(group: ConsumerGroup, members: Iterable[ConsumerMember]) -> ConsumerGroup:
    """A group with exactly these members. If two claim a partition, the first one owns it."""
    by_id = {member.member_id: member for member in members}
    owners: dict[bytes, dict[int, str]] = {}
    subscription_counts = SubscriptionCounts()
    for member in by_id.values():
        subscription_counts = counts_with(subscription_counts, None, member)
        for assigned in (member.assigned, member.pending_revocation):
            for topic_id, partitions in assigned.items():
                owned = owners.setdefault(topic_id, {})
                for partition in partitions:
                    owned.setdefault(partition, member.member_id)
    instances = {m.instance_id: m.member_id for m in by_id.values() if m.instance_id is not None}
    return replace(group, members=by_id, instances=instances, owners=owners, subscription_counts=subscription_counts)


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
        subscription_counts=counts_with(group.subscription_counts, before, member),
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
        subscription_counts=counts_with(group.subscription_counts, member, None),
    )


def _owners(
    group: ConsumerGroup, member_id: str, before: ConsumerMember | None, after: ConsumerMember | None
) -> Mapping[bytes, Mapping[int, str]]:
    had = () if before is None else (before.assigned, before.pending_revocation)
    has = () if after is None else (after.assigned, after.pending_revocation)
    if had == has:
        return group.owners
    return updated_owners(group.owners, member_id, had, has)


def counts_with(
    subscription_counts: SubscriptionCounts, before: ConsumerMember | None, after: ConsumerMember | None
) -> SubscriptionCounts:
    """The tally after a member's subscription or protocol has changed."""
    if before is not None and after is not None and _counted_fields(before) == _counted_fields(after):
        return subscription_counts
    classic = (after is not None and after.classic is not None) - (before is not None and before.classic is not None)
    return SubscriptionCounts(
        topics=_updated_counts(subscription_counts.topics, _topics(before), _topics(after)),
        regexes=_updated_counts(subscription_counts.regexes, _regexes(before), _regexes(after)),
        assignors=_updated_counts(subscription_counts.assignors, _assignors(before), _assignors(after)),
        classic=subscription_counts.classic + classic,
        protocols=_updated_counts(subscription_counts.protocols, _protocols(before), _protocols(after)),
    )


def _counted_fields(member: ConsumerMember) -> tuple[object, ...]:
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


def _updated_counts(counts: Mapping[str, int], before: frozenset[str], after: frozenset[str]) -> Mapping[str, int]:
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
