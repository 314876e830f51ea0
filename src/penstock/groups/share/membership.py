"""The rules of share group membership. Pure: no await, no clock, no I/O.

A heartbeat may change its member's subscription, which increases the group's epoch; if the target is older than that,
and the minimum interval has passed, a new one is computed; and the member takes over its part of it. A heartbeat that
changes nothing writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from penstock.coordination.model import Reply, Timer, Waiter
from penstock.groups.member_epochs import JOIN_EPOCH, LEAVE_EPOCH
from penstock.groups.model import AnyGroup, GroupDecision, GroupStored, MemberRemoved, MemberStored
from penstock.groups.partitions import Partitions
from penstock.groups.share import assignor
from penstock.groups.share.model import (
    KnownTopic,
    ShareGroup,
    ShareGroupSettings,
    ShareHeartbeat,
    ShareHeartbeatResult,
    ShareMember,
)
from penstock.wire.error_codes import ErrorCode

_SESSION = "session/"

TopicCounts = Callable[[str], tuple[bytes, int] | None]
"""Id and partition count of the topic of a name."""


def heartbeat(
    group: AnyGroup | None, request: ShareHeartbeat, topics: TopicCounts, settings: ShareGroupSettings, waiter: Waiter,
    now_ms: int,
) -> GroupDecision:  # fmt: skip
    """Join, stay or leave."""
    refusal = _refusal(group, request, settings)
    if refusal is not None:
        return GroupDecision(state=group, replies=(Reply(waiter, refusal),))
    before = group if isinstance(group, ShareGroup) else ShareGroup()
    if request.epoch == LEAVE_EPOCH:
        result = ShareHeartbeatResult(member_id=request.member_id, epoch=LEAVE_EPOCH)
        return _without(before, request.member_id, now_ms, Reply(waiter, result))
    known = before.members.get(request.member_id)
    member = _updated(known, request)
    changed = known is None or known.topics != member.topics
    after = replace(before, members={**before.members, member.member_id: member}, empty_since_ms=None)
    after = _known_topics(after, topics)
    if changed or after.topics != before.topics:
        after = replace(after, epoch=before.epoch + 1)
    after = _with_target(after, topics, settings, now_ms)
    member = _with_target_assignment(after.members[member.member_id], after, topics, changed=changed)
    after = replace(after, members={**after.members, member.member_id: member})
    send_assignment = (
        request.epoch == JOIN_EPOCH or request.topics is not None or known is None or known.assigned != member.assigned
    )
    result = ShareHeartbeatResult(
        member_id=member.member_id,
        epoch=member.epoch,
        interval_ms=_interval_ms(after, settings, now_ms),
        assigned=member.assigned if send_assignment else None,
    )
    return GroupDecision(
        state=after if _records(before, after) else group,
        records=_records(before, after),
        replies=(Reply(waiter, result),),
        timers=(Timer(f"{_SESSION}{member.member_id}", settings.session_timeout_ms),),
    )


def expired(group: ShareGroup, timer: str, now_ms: int) -> GroupDecision:
    """A member's session expired."""
    member_id = timer.removeprefix(_SESSION)
    if member_id not in group.members:
        return GroupDecision(state=group)
    return _without(group, member_id, now_ms)


def restored(group: ShareGroup, settings: ShareGroupSettings) -> GroupDecision:
    """A group was loaded: its members get a full session time-out."""
    return GroupDecision(
        state=group,
        timers=tuple(Timer(f"{_SESSION}{member_id}", settings.session_timeout_ms) for member_id in group.members),
    )


def require_empty(group: AnyGroup | None, topics: Mapping[bytes, int], waiter: Waiter, now_ms: int) -> GroupDecision:
    """An administrator is about to set offsets of topics: the group must be an empty share group. One that does not
    exist is created. Replies with an error code and a message."""
    if group is not None and not isinstance(group, ShareGroup):
        return GroupDecision(state=group, replies=(Reply(waiter, _not_a_share_group()),))
    before = group or ShareGroup(empty_since_ms=now_ms)
    if before.members:
        result = ShareHeartbeatResult(error=ErrorCode.NON_EMPTY_GROUP, message="The group is not empty.")
        return GroupDecision(state=group, replies=(Reply(waiter, result),))
    known = {topic_id: KnownTopic(count, count) for topic_id, count in topics.items() if topic_id not in before.topics}
    after = replace(before, topics={**before.topics, **known})
    records = (GroupStored(after),) if after != group else ()
    return GroupDecision(state=after, records=records, replies=(Reply(waiter, ShareHeartbeatResult()),))


def forget_topics(
    group: AnyGroup | None, topic_ids: frozenset[bytes], waiter: Waiter, *, must_be_empty: bool = True
) -> GroupDecision:
    """Remove topics from the group's state."""
    if not isinstance(group, ShareGroup):
        return GroupDecision(state=group, replies=(Reply(waiter, _not_a_share_group()),))
    if must_be_empty and group.members:
        result = ShareHeartbeatResult(error=ErrorCode.NON_EMPTY_GROUP, message="The group is not empty.")
        return GroupDecision(state=group, replies=(Reply(waiter, result),))
    if topic_ids.isdisjoint(group.topics):
        return GroupDecision(state=group, replies=(Reply(waiter, ShareHeartbeatResult()),))
    topics = {topic_id: known for topic_id, known in group.topics.items() if topic_id not in topic_ids}
    # Members get what is left with their next heartbeats.
    after = replace(group, topics=topics, epoch=group.epoch + 1 if group.members else group.epoch)
    return GroupDecision(state=after, records=(GroupStored(after),), replies=(Reply(waiter, ShareHeartbeatResult()),))


# --- Parts ---------------------------------------------------------------------------------------------------------


def _not_a_share_group() -> ShareHeartbeatResult:
    return ShareHeartbeatResult(error=ErrorCode.GROUP_ID_NOT_FOUND, message="There is no share group of that id.")


def _refusal(
    group: AnyGroup | None, request: ShareHeartbeat, settings: ShareGroupSettings
) -> ShareHeartbeatResult | None:
    """Why a request is refused, in Kafka's order."""
    if not isinstance(group, ShareGroup) and (group is not None or request.epoch != JOIN_EPOCH):
        return _not_a_share_group()
    members: Mapping[str, ShareMember] = group.members if isinstance(group, ShareGroup) else {}
    member = members.get(request.member_id)
    if request.epoch != LEAVE_EPOCH and member is None and len(members) >= settings.max_size:
        message = f"The share group has reached its maximum capacity of {settings.max_size} members."
        return ShareHeartbeatResult(error=ErrorCode.GROUP_MAX_SIZE_REACHED, message=message)
    if member is None:
        if request.epoch == JOIN_EPOCH:
            return None
        message = f"Member {request.member_id} is not a member of the group."
        return ShareHeartbeatResult(error=ErrorCode.UNKNOWN_MEMBER_ID, message=message)
    if request.epoch in (JOIN_EPOCH, LEAVE_EPOCH, member.epoch, member.previous_epoch):
        return None
    return ShareHeartbeatResult(
        error=ErrorCode.FENCED_MEMBER_EPOCH,
        message=f"The member is at epoch {member.epoch}, not {request.epoch}. It must rejoin.",
    )


def _updated(known: ShareMember | None, request: ShareHeartbeat) -> ShareMember:
    member = known or ShareMember(member_id=request.member_id)
    return replace(
        member,
        rack_id=member.rack_id if request.rack_id is None else request.rack_id,
        topics=member.topics if request.topics is None else request.topics,
        client_id=request.client_id,
        client_host=request.client_host,
    )


def _known_topics(group: ShareGroup, topics: TopicCounts) -> ShareGroup:
    """The group with the topics that are subscribed and exist now, added to those it knew."""
    known = dict(group.topics)
    for name in {name for member in group.members.values() for name in member.topics}:
        found = topics(name)
        if found is not None:
            topic_id, count = found
            before = known.get(topic_id)
            if before is None:
                known[topic_id] = KnownTopic(count, count)
            elif before.partition_count != count:
                known[topic_id] = before._replace(partition_count=count)
    return group if known == group.topics else replace(group, topics=known)


def _subscribed(member: ShareMember, topics: TopicCounts) -> frozenset[bytes]:
    return frozenset(found[0] for found in map(topics, member.topics) if found is not None)


def _with_target(group: ShareGroup, topics: TopicCounts, settings: ShareGroupSettings, now_ms: int) -> ShareGroup:
    """The group with a target of its epoch, unless the minimum interval has not passed."""
    if group.target_epoch >= group.epoch or _interval_left_ms(group, settings, now_ms) > 0:
        return group
    subscriptions = {member_id: _subscribed(member, topics) for member_id, member in group.members.items()}
    counts = {topic_id: known.partition_count for topic_id, known in group.topics.items()}
    targets = assignor.assign_partitions(
        subscriptions, counts, {member_id: member.target for member_id, member in group.members.items()}
    )
    members = {
        member_id: member if member.target == targets[member_id] else replace(member, target=targets[member_id])
        for member_id, member in group.members.items()
    }
    return replace(group, members=members, target_epoch=group.epoch, assigned_ms=now_ms)


def _interval_left_ms(group: ShareGroup, settings: ShareGroupSettings, now_ms: int) -> int:
    since_ms = now_ms - group.assigned_ms
    # Assigned in the future: the clock was set back.
    return 0 if group.assigned_ms == 0 or since_ms < 0 else settings.assignment_interval_ms - since_ms


def _interval_ms(group: ShareGroup, settings: ShareGroupSettings, now_ms: int) -> int:
    """The member's heartbeat interval: shorter than usual if there will be news for it."""
    if group.target_epoch >= group.epoch:
        return settings.heartbeat_interval_ms
    return min(max(_interval_left_ms(group, settings, now_ms), 1), settings.heartbeat_interval_ms)


def _with_target_assignment(
    member: ShareMember, group: ShareGroup, topics: TopicCounts, *, changed: bool
) -> ShareMember:
    """The member with its part of the target, as far as it still subscribes to it."""
    if member.epoch == group.target_epoch and not changed:
        return member
    subscribed = _subscribed(member, topics)
    assigned: Partitions = {topic_id: found for topic_id, found in member.target.items() if topic_id in subscribed}
    if member.epoch == group.target_epoch:
        return replace(member, assigned=assigned)
    return replace(member, assigned=assigned, epoch=group.target_epoch, previous_epoch=member.epoch)


def _without(group: ShareGroup, member_id: str, now_ms: int, *replies: Reply) -> GroupDecision:
    """The group without a member; the others get a new assignment with their next heartbeats."""
    members = {key: member for key, member in group.members.items() if key != member_id}
    epoch = group.epoch + 1
    after = replace(group, members=members, epoch=epoch)
    if not members:
        # The next member to join need not wait because of an assignment for members that are gone.
        after = replace(after, target_epoch=epoch, assigned_ms=0, empty_since_ms=now_ms)
    return GroupDecision(
        state=after,
        records=(MemberRemoved(member_id), GroupStored(after)),
        replies=replies,
        timers=(Timer(f"{_SESSION}{member_id}", None),),
    )


def _records(before: ShareGroup, after: ShareGroup) -> tuple[GroupStored | MemberStored, ...]:
    """The records that a heartbeat's changes need."""
    members = [
        MemberStored(member) for member_id, member in after.members.items() if before.members.get(member_id) != member
    ]
    same = replace(after, members={}) == replace(before, members={}) and before.members.keys() == after.members.keys()
    return (*members,) if same else (GroupStored(after), *members)
