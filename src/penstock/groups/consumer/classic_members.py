"""The rules for members of a consumer group that use the classic protocol. Pure: no await, no clock, no I/O.

Such a member joins, gets its epoch as a generation, syncs to get its assignment, and sends heartbeats. Their responses
tell it to rejoin (REBALANCE_IN_PROGRESS): when there is a new epoch, when it must revoke partitions, or when partitions
it waits for were released. The coordinator assigns, so there is no leader and every join is answered at once. Telling
it to rejoin starts a timer within which it must; so does a join, until the sync.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from penstock.coordination.model import Reply, Waiter
from penstock.groups.capacity import MAX_MEMBERS, has_metadata_room, size_of
from penstock.groups.consumer import migration
from penstock.groups.consumer.decision_builder import JOIN_TIMER, SYNC_TIMER, ConsumerDecisionBuilder
from penstock.groups.consumer.embedded_protocol import ClassicSubscription, encoded_assignment, parse_subscription
from penstock.groups.consumer.model import ClassicMemberMetadata, ConsumerGroup, ConsumerMember
from penstock.groups.consumer.transitions import check_not_fenced, static_successor
from penstock.groups.join import has_valid_session
from penstock.groups.member_errors import unknown_instance
from penstock.groups.model import (
    CONSUMER,
    ClassicHeartbeat,
    GroupDecision,
    Join,
    JoinResult,
    LeaveResult,
    LeavingMember,
    Sync,
    SyncResult,
)
from penstock.groups.partitions import is_free_for
from penstock.groups.reconcile import MemberState
from penstock.groups.rule_context import RuleContext
from penstock.log.refusals import Refused
from penstock.wire.error_codes import ErrorCode
from penstock.wire.primitives import Malformed

UUID_CHARS = 36


def join(group: ConsumerGroup, request: Join, waiter: Waiter, context: RuleContext) -> GroupDecision:
    """Become a member, or rejoin: answered at once."""
    # Only classic groups put the client's id before the UUID.
    member_id = request.member_id or request.new_member_id[-UUID_CHARS:]
    if not has_valid_session(request, context.settings):
        invalid = JoinResult(error=ErrorCode.INVALID_SESSION_TIMEOUT, member_id=request.member_id)
        return GroupDecision(state=group, replies=(Reply(waiter, invalid),))
    error = _join_error(group, request, context)
    if error is not ErrorCode.NONE:
        return _refused(group, waiter, error)
    if not request.member_id and request.instance_id is None and request.member_id_required:
        # The client comes back with its id, so that a join whose answer is lost leaves no orphaned member (KIP-394).
        result = JoinResult(error=ErrorCode.MEMBER_ID_REQUIRED, member_id=member_id)
        return GroupDecision(state=group, replies=(Reply(waiter, result),))
    try:
        subscription = parse_subscription(request.protocols[0][1], context.topics)
        return _join(group, request, member_id, subscription, waiter, context)
    except Malformed:
        return _refused(group, waiter, ErrorCode.INCONSISTENT_GROUP_PROTOCOL)
    except Refused as refused:
        return _refused(group, waiter, refused.code)


def _refused(group: ConsumerGroup, waiter: Waiter, error: ErrorCode) -> GroupDecision:
    # As in Kafka, the response has no member id, unlike refusals of a classic group.
    return GroupDecision(state=group, replies=(Reply(waiter, JoinResult(error=error, member_id="")),))


def _join_error(group: ConsumerGroup, request: Join, context: RuleContext) -> ErrorCode:
    names = [name for name, _ in request.protocols]
    if context.consumer.migration_policy == "disabled" or request.protocol_type != CONSUMER:
        return ErrorCode.INCONSISTENT_GROUP_PROTOCOL
    is_known = request.member_id in group.members or group.static_member(request.instance_id) is not None
    if len(group.members) >= min(context.consumer.max_size, MAX_MEMBERS) and not is_known:
        return ErrorCode.GROUP_MAX_SIZE_REACHED
    others = (size_of(other.topics) for key, other in group.members.items() if key != request.member_id)
    if not has_metadata_room(sum(map(size_of, request.protocols)), others):
        return ErrorCode.GROUP_MAX_SIZE_REACHED
    if not any(group.subscription_counts.protocols.get(name, 0) == group.subscription_counts.classic for name in names):
        return ErrorCode.INCONSISTENT_GROUP_PROTOCOL
    return ErrorCode.NONE


def _join(
    group: ConsumerGroup,
    request: Join,
    member_id: str,
    subscription: ClassicSubscription,
    waiter: Waiter,
    context: RuleContext,
) -> GroupDecision:
    builder = ConsumerDecisionBuilder(group, context)
    replaced = group.static_member(request.instance_id)
    known = _get_or_create_member(builder, request, member_id)
    member = _with_request_fields(known, request, subscription)
    builder.put_member(member)
    builder.drop_unused_regexes()
    changed = known.topics != member.topics or known.regex != member.regex
    bump = changed
    if bump or builder.group.topics_version != context.topics.version:
        bump = builder.refresh_topics_hash() or bump
    if bump or not builder.group.epoch:
        builder.bump_epoch()
    takes_over = (
        replaced is not None
        and replaced.classic is None
        and builder.group.subscription_counts.classic == len(builder.group.members)
    )
    if takes_over and migration.may_downgrade(len(builder.group.members), context):
        # It replaces the last member of the consumer protocol, so the group is downgraded.
        stale = builder.group.target_epoch < builder.group.epoch
        if not stale:
            member = builder.reconcile(member, subscription.owned, subscription_changed=changed)
        builder.reply(waiter, _join_result(member))
        members = list(builder.group.members.values())
        # A member that waits for partitions of another one is not told to rejoin any more when they are released.
        is_settled = not stale and all(one.has_reached(builder.group.target_epoch) for one in members)
        return migration.downgrade(builder, members, rebalances=not is_settled)
    builder.compute_target()
    member = builder.reconcile(
        builder.group.members[member.member_id], subscription.owned, subscription_changed=changed
    )
    builder.set_timer(JOIN_TIMER + member.member_id, None)
    builder.restart_session(member)
    builder.set_timer(SYNC_TIMER + member.member_id, member.rebalance_timeout_ms)
    builder.reply(waiter, _join_result(member))
    return builder.decision()


def _get_or_create_member(builder: ConsumerDecisionBuilder, request: Join, member_id: str) -> ConsumerMember:
    if request.instance_id is None:
        known = builder.group.members.get(member_id)
        return ConsumerMember(member_id=member_id) if known is None else known
    before = builder.group.static_member(request.instance_id)
    if not request.member_id:
        return static_successor(builder, before, member_id, request.instance_id, is_classic=True)
    if before is None:
        raise unknown_instance(request.instance_id)
    check_not_fenced(before, request.member_id, request.instance_id)
    return before


def _with_request_fields(member: ConsumerMember, request: Join, subscription: ClassicSubscription) -> ConsumerMember:
    topics = member.topics if subscription.topics == member.topics else subscription.topics
    return replace(
        member,
        instance_id=request.instance_id if request.instance_id is not None else member.instance_id,
        rack_id=subscription.rack_id if subscription.rack_id is not None else member.rack_id,
        rebalance_timeout_ms=request.rebalance_timeout_ms,
        topics=topics,
        regex="",
        client_id=request.client_id,
        client_host=request.client_host,
        classic=ClassicMemberMetadata(session_timeout_ms=request.session_timeout_ms, protocols=request.protocols),
        told_to_rejoin=False,
    )


def _join_result(member: ConsumerMember) -> JoinResult:
    protocols = () if member.classic is None else member.classic.protocols
    return JoinResult(
        member_id=member.member_id, generation=member.epoch, protocol_type=CONSUMER, protocol_name=protocols[0][0]
    )


def sync(group: ConsumerGroup, request: Sync, waiter: Waiter, context: RuleContext) -> GroupDecision:
    """Get the assignment."""
    try:
        member, classic = _get_member(group, request.member_id, request.instance_id, request.generation)
    except Refused as refused:
        return GroupDecision(state=group, replies=(Reply(waiter, SyncResult(error=refused.code)),))
    name = classic.protocols[0][0]
    if request.protocol_type not in (None, CONSUMER) or request.protocol_name not in (None, name):
        error = ErrorCode.INCONSISTENT_GROUP_PROTOCOL
        return GroupDecision(state=group, replies=(Reply(waiter, SyncResult(error=error)),))
    builder = ConsumerDecisionBuilder(group, context)
    if group.target_epoch > member.epoch and member.state is not MemberState.UNREVOKED:
        _tell_to_rejoin(builder, member)
        builder.reply(waiter, SyncResult(error=ErrorCode.REBALANCE_IN_PROGRESS))
        return builder.decision()
    builder.set_timer(SYNC_TIMER + member.member_id, None)
    builder.restart_session(member)
    assignment = encoded_assignment(member.assigned, classic, context.topics)
    builder.reply(waiter, SyncResult(protocol_type=CONSUMER, protocol_name=name, assignment=assignment))
    return builder.decision()


def heartbeat(group: ConsumerGroup, request: ClassicHeartbeat, waiter: Waiter, context: RuleContext) -> GroupDecision:
    """Keep a member alive, or tell it to rejoin."""
    try:
        member, _ = _get_member(group, request.member_id, request.instance_id, request.generation)
    except Refused as refused:
        return GroupDecision(state=group, replies=(Reply(waiter, refused.code),))
    builder = ConsumerDecisionBuilder(group, context)
    if builder.group.topics_version != context.topics.version and builder.refresh_topics_hash():
        builder.bump_epoch()
    builder.restart_session(member)
    # Before the target of the group's epoch may be computed, rejoining would be useless; afterwards this member may be
    # the only one left to trigger the computation.
    is_behind = member.epoch < builder.group.target_epoch or builder.may_compute_target()
    must_join = is_behind or member.state is MemberState.UNREVOKED or _target_is_released(group, member)
    if must_join:
        _tell_to_rejoin(builder, member)
    builder.reply(waiter, ErrorCode.REBALANCE_IN_PROGRESS if must_join else ErrorCode.NONE)
    return builder.decision()


def _target_is_released(group: ConsumerGroup, member: ConsumerMember) -> bool:
    """Whether everything that a member has been waiting for is available now."""
    if member.state is not MemberState.UNRELEASED:
        return False
    is_free = is_free_for(group.owners, member.member_id)
    return all(is_free(topic_id, p) for topic_id, found in member.target.items() for p in found)


def _tell_to_rejoin(builder: ConsumerDecisionBuilder, member: ConsumerMember) -> None:
    if not member.told_to_rejoin:
        builder.set_timer(JOIN_TIMER + member.member_id, member.rebalance_timeout_ms)
        builder.put_soft_state(replace(member, told_to_rejoin=True))


def _get_member(
    group: ConsumerGroup, member_id: str, instance_id: str | None, generation: int
) -> tuple[ConsumerMember, ClassicMemberMetadata]:
    member = group.members.get(member_id) if instance_id is None else group.static_member(instance_id)
    if member is not None and instance_id is not None:
        check_not_fenced(member, member_id, instance_id)
    if member is None or member.classic is None:
        raise Refused(ErrorCode.UNKNOWN_MEMBER_ID, f"{member_id} is no member that uses the classic protocol.")
    if generation != member.epoch:
        raise Refused(ErrorCode.ILLEGAL_GENERATION, f"The generation of {member_id} is {member.epoch}.")
    return member, member.classic


def leave(
    group: ConsumerGroup, leavers: Sequence[LeavingMember], waiter: Waiter, context: RuleContext
) -> GroupDecision:
    """Remove members of either protocol: administrators remove members with this API, whatever protocol these use."""
    errors: list[ErrorCode] = []
    gone: dict[str, ConsumerMember] = {}
    for leaver in leavers:
        by_name = leaver.instance_id is not None
        member = group.static_member(leaver.instance_id) if by_name else group.members.get(leaver.member_id)
        if member is None:
            errors.append(ErrorCode.UNKNOWN_MEMBER_ID)
        elif by_name and leaver.member_id not in ("", member.member_id):
            errors.append(ErrorCode.FENCED_INSTANCE_ID)
        else:
            errors.append(ErrorCode.NONE)
            gone[member.member_id] = member
    reply = Reply(waiter, LeaveResult(errors=tuple(errors)))
    if not gone:
        return GroupDecision(state=group, replies=(reply,))
    decision = migration.remove_members(group, tuple(gone.values()), context)
    return replace(decision, replies=(*decision.replies, reply))
