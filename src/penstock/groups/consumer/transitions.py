"""The rules of consumer groups for members that use the consumer protocol (KIP-848). Pure: no await, no clock, no I/O.

A rule that refuses a request raises `Refused`; the group is unchanged then.

A heartbeat, in order: the member is found, or added; its fields are updated; if they or the topics require a new
assignment, the group's epoch increases and a target is computed, at most once per interval; and the member is
reconciled one step towards its target. Most heartbeats do none of this: they restart a timer and change nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from penstock.coordination.model import Reply, Waiter
from penstock.groups import offset_rules
from penstock.groups.capacity import MAX_MEMBERS, has_metadata_room, size_of
from penstock.groups.consumer import migration, regexes
from penstock.groups.consumer.decision_builder import (
    JOIN_TIMER,
    REBALANCE_TIMER,
    SESSION_TIMER,
    SYNC_TIMER,
    ConsumerDecisionBuilder,
    preferred_assignor,
)
from penstock.groups.consumer.model import (
    KIND,
    ConsumerGroup,
    ConsumerHeartbeat,
    ConsumerHeartbeatResult,
    ConsumerMember,
    ResolvedRegex,
)
from penstock.groups.member_epochs import JOIN_EPOCH, STATIC_LEAVE_EPOCH
from penstock.groups.member_errors import (
    fenced_epoch,
    fenced_instance,
    unknown_instance,
    unknown_member,
    unreleased_instance,
)
from penstock.groups.model import (
    AnyGroup,
    CommitOffsets,
    GroupDecision,
    OffsetAndMetadata,
    TopicPartition,
)
from penstock.groups.partitions import is_subset_of, same_partitions
from penstock.groups.reconcile import MemberState
from penstock.groups.rule_context import RuleContext
from penstock.log.refusals import Refused
from penstock.wire.error_codes import ErrorCode

REGEX_RESOLUTION_INTERVAL_MS = 1_000
"""The minimum interval between resolutions of a group's regular expressions, however often topics change."""


# --- Members -------------------------------------------------------------------------------------------------------


def heartbeat(
    group: AnyGroup | None, request: ConsumerHeartbeat, waiter: Waiter, context: RuleContext
) -> GroupDecision:
    """Add a member or keep it alive, and reconcile it one step."""
    builder = _get_or_create_group(group, request, context)
    known = _get_or_create_member(builder, request)
    member = _with_request_fields(known, request)
    _check_regex(builder.group, known, member)
    assignor = preferred_assignor(builder.group, context.consumer)
    builder.put_member(member)
    builder.drop_unused_regexes()
    changes_topics = known.topics != member.topics
    changes_regex = known.regex != member.regex
    is_resolved = changes_regex and (not member.regex or member.regex in builder.group.regexes)
    bump = changes_topics or is_resolved or preferred_assignor(builder.group, context.consumer) != assignor
    if bump or builder.group.topics_version != context.topics.version:
        bump = builder.refresh_topics_hash() or bump
    if bump or not builder.group.epoch:
        builder.bump_epoch()
    builder.compute_target()
    member = builder.reconcile(
        builder.group.members[member.member_id], request.owned, subscription_changed=changes_topics or changes_regex
    )
    builder.restart_session(member)
    changed = not same_partitions(known.assigned, member.assigned)
    result = ConsumerHeartbeatResult(
        member_id=member.member_id,
        epoch=member.epoch,
        interval_ms=builder.heartbeat_interval_ms(member),
        assigned=member.assigned if request.is_full or changed else None,
        resolve=_regexes_to_resolve(builder),
    )
    builder.reply(waiter, result)
    return builder.decision()


def _get_or_create_group(
    group: AnyGroup | None, request: ConsumerHeartbeat, context: RuleContext
) -> ConsumerDecisionBuilder:
    """The consumer group of a request, created or converted when a member joins it; with room for the member."""
    if isinstance(group, ConsumerGroup):
        builder = ConsumerDecisionBuilder(group, context)
    elif request.epoch != JOIN_EPOCH:
        text = "Consumer group not found." if group is None else "Group is not a consumer group."
        raise Refused(ErrorCode.GROUP_ID_NOT_FOUND, text)
    elif group is None:
        builder = ConsumerDecisionBuilder(ConsumerGroup(), context)
    else:
        builder = migration.upgrade(group, context)
    members, capacity = builder.group.members, min(context.consumer.max_size, MAX_MEMBERS)
    if len(members) >= capacity and request.member_id not in members:
        known = builder.group.static_member(request.instance_id)
        if known is None:
            raise Refused(
                ErrorCode.GROUP_MAX_SIZE_REACHED,
                f"The consumer group has reached its maximum capacity of {capacity} members.",
            )
    others = (size_of(other.topics) for key, other in members.items() if key != request.member_id)
    if request.topics is not None and not has_metadata_room(size_of(request.topics), others):
        raise Refused(
            ErrorCode.GROUP_MAX_SIZE_REACHED, "The members of the consumer group subscribe to too many topics together."
        )
    return builder


def _get_or_create_member(builder: ConsumerDecisionBuilder, request: ConsumerHeartbeat) -> ConsumerMember:
    """The member that sent a heartbeat."""
    group = builder.group
    if request.instance_id is None:
        member = group.members.get(request.member_id)
        if member is None and request.epoch == JOIN_EPOCH:
            return ConsumerMember(member_id=request.member_id)
        if member is None:
            raise unknown_member(request.member_id)
    else:
        member = group.static_member(request.instance_id)
        if request.epoch == JOIN_EPOCH:
            return static_successor(builder, member, request.member_id, request.instance_id, is_classic=False)
        if member is None:
            raise unknown_instance(request.instance_id)
        check_not_fenced(member, request.member_id, request.instance_id)
    _check_epoch(member, request)
    return member


def static_successor(
    builder: ConsumerDecisionBuilder,
    before: ConsumerMember | None,
    member_id: str,
    instance_id: str,
    *,
    is_classic: bool,
) -> ConsumerMember:
    """The member that joins as a static one: new, or replacing the one that had the instance id."""
    if before is None:
        known = builder.group.members.get(member_id)
        return ConsumerMember(member_id=member_id) if known is None else known
    both_modern = not is_classic and before.classic is None
    if both_modern and before.epoch != STATIC_LEAVE_EPOCH and before.member_id != member_id:
        raise unreleased_instance(member_id, instance_id, before.member_id)
    if before.member_id == member_id and before.epoch != STATIC_LEAVE_EPOCH:
        return before
    builder.remove_member(before)
    # It keeps the assignment of the member that it replaces.
    successor = replace(before, member_id=member_id, epoch=0, previous_epoch=0, told_to_rejoin=False)
    builder.put_member(successor)
    return successor


def check_not_fenced(member: ConsumerMember, member_id: str, instance_id: str) -> None:
    """Raise `Refused` if another member has the instance id."""
    if member.member_id != member_id:
        raise fenced_instance(member_id, instance_id, member.member_id)


def _check_epoch(member: ConsumerMember, request: ConsumerHeartbeat) -> None:
    """A member is in its epoch; or in the previous one, if it may have missed a response and owns nothing
    unassigned."""
    if request.epoch in (JOIN_EPOCH, member.epoch):
        return
    may_have_missed_response = (
        request.epoch == member.previous_epoch < member.epoch
        and request.owned is not None
        and is_subset_of(request.owned, member.assigned)
    )
    if not may_have_missed_response:
        raise fenced_epoch(KIND, request.epoch, member.epoch)


def _with_request_fields(member: ConsumerMember, request: ConsumerHeartbeat) -> ConsumerMember:
    """The member with the fields of its heartbeat."""
    if (
        request.topics is None and request.regex is None and request.assignor is None and request.rack_id is None
        and request.rebalance_timeout_ms == -1 and member.classic is None
        and (member.client_id, member.client_host) == (request.client_id, request.client_host)
    ):  # fmt: skip
        return member
    # If a set is equal, the same object is kept, which members share.
    topics = member.topics if request.topics is None or request.topics == member.topics else request.topics
    return replace(
        member,
        instance_id=request.instance_id if request.instance_id is not None else member.instance_id,
        rack_id=request.rack_id if request.rack_id is not None else member.rack_id,
        rebalance_timeout_ms=(
            request.rebalance_timeout_ms if request.rebalance_timeout_ms != -1 else member.rebalance_timeout_ms
        ),
        assignor=request.assignor if request.assignor is not None else member.assignor,
        topics=topics,
        regex=request.regex if request.regex is not None else member.regex,
        client_id=request.client_id,
        client_host=request.client_host,
        classic=None,
        told_to_rejoin=False,
    )


def _check_regex(group: ConsumerGroup, before: ConsumerMember, after: ConsumerMember) -> None:
    if after.regex and after.regex != before.regex and after.regex not in group.subscription_counts.regexes:
        regexes.check(after.regex)


def leave(group: AnyGroup | None, request: ConsumerHeartbeat, waiter: Waiter, context: RuleContext) -> GroupDecision:
    """Remove a member, or note that a static one left temporarily and keeps its assignment."""
    if not isinstance(group, ConsumerGroup):
        text = "Consumer group not found." if group is None else "Group is not a consumer group."
        raise Refused(ErrorCode.GROUP_ID_NOT_FOUND, text)
    if request.instance_id is None:
        member = group.members.get(request.member_id)
        if member is None:
            raise unknown_member(request.member_id)
    else:
        member = group.static_member(request.instance_id)
        if member is None:
            raise unknown_instance(request.instance_id)
        check_not_fenced(member, request.member_id, request.instance_id)
    result = ConsumerHeartbeatResult(member_id=member.member_id, epoch=request.epoch)
    if request.epoch == STATIC_LEAVE_EPOCH and request.instance_id is not None:
        builder = ConsumerDecisionBuilder(group, context)
        assigned_since_join = {topic_id: dict.fromkeys(found, 0) for topic_id, found in member.assigned.items()}
        builder.put_member(
            replace(member, epoch=STATIC_LEAVE_EPOCH, assigned=assigned_since_join, pending_revocation={})
        )
        builder.set_timer(REBALANCE_TIMER + member.member_id, None)
        builder.reply(waiter, result)
        return builder.decision()
    decision = migration.remove_members(group, (member,), context)
    return replace(decision, replies=(*decision.replies, Reply(waiter, result)))


# --- Regular expressions -------------------------------------------------------------------------------------------


def _regexes_to_resolve(builder: ConsumerDecisionBuilder) -> frozenset[str]:
    """The regular expressions to resolve now; records that it was requested."""
    group, context = builder.group, builder.context
    if (
        not group.subscription_counts.regexes
        or 0 <= context.now_ms - group.regexes_requested_ms < REGEX_RESOLUTION_INTERVAL_MS
    ):
        return frozenset()
    old_ms = context.now_ms - context.consumer.regex_refresh_interval_ms
    stale = any(
        (found := group.regexes.get(pattern)) is None
        or found.version != context.topics.version
        or found.resolved_ms < old_ms
        for pattern in group.subscription_counts.regexes
    )
    if not stale:
        return frozenset()
    builder.group = replace(group, regexes_requested_ms=context.now_ms)
    return frozenset(group.subscription_counts.regexes)


def regexes_resolved(
    group: AnyGroup | None, found: Mapping[str, frozenset[str]], version: int, waiter: Waiter, context: RuleContext
) -> GroupDecision:
    """Regular expressions were resolved, with that version of the topics: changes require a new assignment."""
    if not isinstance(group, ConsumerGroup):
        return GroupDecision(state=group, replies=(Reply(waiter, False),))
    builder = ConsumerDecisionBuilder(group, context)
    before = group.regexes
    now = {pattern: topics for pattern, topics in found.items() if pattern in group.subscription_counts.regexes}
    changed = any(pattern not in before or before[pattern].topics != topics for pattern, topics in now.items())
    fresh = {
        pattern: ResolvedRegex(
            topics=before[pattern].topics if pattern in before and before[pattern].topics == topics else topics,
            resolved_ms=context.now_ms,
            version=version,
        )
        for pattern, topics in now.items()
    }
    builder.group = replace(group, regexes={**before, **fresh})
    if changed:
        builder.refresh_topics_hash()
        builder.bump_epoch()
    builder.reply(waiter, changed)
    return builder.decision()


# --- Timers --------------------------------------------------------------------------------------------------------


def expired(group: ConsumerGroup, timer: str, context: RuleContext) -> GroupDecision:
    """A timer fired."""
    for prefix in (SESSION_TIMER, JOIN_TIMER, SYNC_TIMER, REBALANCE_TIMER):
        if timer.startswith(prefix):
            member = group.members.get(timer.removeprefix(prefix))
            if member is None or (prefix == REBALANCE_TIMER and member.state is not MemberState.UNREVOKED):
                break
            return migration.remove_members(group, (member,), context)
    return GroupDecision(state=group)


def restored(group: ConsumerGroup, context: RuleContext) -> GroupDecision:
    """A group was loaded: every member gets a full session time-out."""
    builder = ConsumerDecisionBuilder(group, context)
    for member in group.members.values():
        builder.restart_session(member)
        if member.state is MemberState.UNREVOKED and member.classic is None:
            builder.set_timer(REBALANCE_TIMER + member.member_id, member.rebalance_timeout_ms)
    return builder.decision()


# --- Offsets -------------------------------------------------------------------------------------------------------


def commit_offsets(group: ConsumerGroup, request: CommitOffsets, waiter: Waiter) -> GroupDecision:
    """Commit offsets for a member, or for a caller without membership while the group is empty."""
    error = _commit_error(group, request)
    records = request.records if error is ErrorCode.NONE else ()
    return GroupDecision(state=group, records=records, replies=(Reply(waiter, error),))


def _commit_error(group: ConsumerGroup, request: CommitOffsets) -> ErrorCode:
    def held_all(member: ConsumerMember) -> bool:
        return request.generation >= 0 and _held_all_since(member, request.offsets, request.generation)

    return offset_rules.commit_error(group.members, request, held_all, is_classic=_is_classic)


def _held_all_since(member: ConsumerMember, offsets: Mapping[TopicPartition, OffsetAndMetadata], epoch: int) -> bool:
    """Whether a member has had all these partitions since an epoch."""

    def since(topic_id: bytes, partition: int) -> int | None:
        found = member.assigned.get(topic_id, {}).get(partition)
        return member.pending_revocation.get(topic_id, {}).get(partition) if found is None else found

    return all((found := since(*partition)) is not None and found <= epoch for partition in offsets)


def fetch_error(group: ConsumerGroup, member_id: str | None, epoch: int) -> ErrorCode:
    """Whether a member may fetch offsets. A caller that does not claim membership may."""
    return offset_rules.fetch_error(group.members, member_id, epoch, is_classic=_is_classic)


def _is_classic(member: ConsumerMember) -> bool:
    return member.classic is not None
