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
from penstock.groups.capacity import MAX_MEMBERS, is_room, size_of
from penstock.groups.consumer import migration
from penstock.groups.consumer.model import ClassicSide, ConsumerGroup, ConsumerMember
from penstock.groups.consumer.steps import JOIN_TIMER, SYNC_TIMER, Step
from penstock.groups.consumer.subscription import Subscription, encoded_assignment, subscription_of
from penstock.groups.consumer.transitions import check_not_fenced, static_successor
from penstock.groups.join import has_valid_session
from penstock.groups.model import (
    CONSUMER,
    Decision,
    Heartbeat,
    Join,
    JoinResult,
    Leaver,
    LeaveResult,
    Sync,
    SyncResult,
)
from penstock.groups.partitions import is_free_for
from penstock.groups.reconcile import Reconciliation
from penstock.groups.terms import Terms
from penstock.log.refusals import Refused
from penstock.wire.error_codes import ErrorCode
from penstock.wire.primitives import Malformed

UUID_CHARS = 36


def join(group: ConsumerGroup, request: Join, waiter: Waiter, terms: Terms) -> Decision:
    """Become a member, or rejoin: answered at once."""
    # Only classic groups put the client's id before the UUID.
    member_id = request.member_id or request.new_member_id[-UUID_CHARS:]
    if not has_valid_session(request, terms.settings):
        invalid = JoinResult(error=ErrorCode.INVALID_SESSION_TIMEOUT, member_id=request.member_id)
        return Decision(state=group, replies=(Reply(waiter, invalid),))
    error = _join_error(group, request, terms)
    if error is not ErrorCode.NONE:
        return _refused(group, waiter, error)
    if not request.member_id and request.instance_id is None and request.member_id_required:
        # The client comes back with its id, so that a join whose answer is lost leaves no orphaned member (KIP-394).
        result = JoinResult(error=ErrorCode.MEMBER_ID_REQUIRED, member_id=member_id)
        return Decision(state=group, replies=(Reply(waiter, result),))
    try:
        says = subscription_of(request.protocols[0][1], terms.topics)
        return _join(group, request, member_id, says, waiter, terms)
    except Malformed:
        return _refused(group, waiter, ErrorCode.INCONSISTENT_GROUP_PROTOCOL)
    except Refused as refused:
        return _refused(group, waiter, refused.code)


def _refused(group: ConsumerGroup, waiter: Waiter, error: ErrorCode) -> Decision:
    # As in Kafka, the response has no member id, unlike refusals of a classic group.
    return Decision(state=group, replies=(Reply(waiter, JoinResult(error=error, member_id="")),))


def _join_error(group: ConsumerGroup, request: Join, terms: Terms) -> ErrorCode:
    names = [name for name, _ in request.protocols]
    if terms.consumer.migration_policy == "disabled" or request.protocol_type != CONSUMER:
        return ErrorCode.INCONSISTENT_GROUP_PROTOCOL
    is_known = request.member_id in group.members or group.static_member(request.instance_id) is not None
    if len(group.members) >= min(terms.consumer.max_size, MAX_MEMBERS) and not is_known:
        return ErrorCode.GROUP_MAX_SIZE_REACHED
    others = (size_of(other.topics) for key, other in group.members.items() if key != request.member_id)
    if not is_room(sum(map(size_of, request.protocols)), others):
        return ErrorCode.GROUP_MAX_SIZE_REACHED
    if not any(group.tally.protocols.get(name, 0) == group.tally.classic for name in names):
        return ErrorCode.INCONSISTENT_GROUP_PROTOCOL
    return ErrorCode.NONE


def _join(
    group: ConsumerGroup, request: Join, member_id: str, says: Subscription, waiter: Waiter, terms: Terms
) -> Decision:
    step = Step(group, terms)
    replaced = group.static_member(request.instance_id)
    known = _found(step, request, member_id)
    member = _said(known, request, says)
    step.put(member)
    step.forget_regexes()
    changed = known.topics != member.topics or known.regex != member.regex
    bump = changed
    if bump or step.group.topics_version != terms.topics.version:
        bump = step.look_at_topics() or bump
    if bump or not step.group.epoch:
        step.bump()
    takes_over = (
        replaced is not None and replaced.classic is None and step.group.tally.classic == len(step.group.members)
    )
    if takes_over and migration.may_downgrade(len(step.group.members), terms):
        # It replaces the last member of the consumer protocol, so the group is downgraded.
        stale = step.group.target_epoch < step.group.epoch
        if not stale:
            member = step.reconcile(member, says.owned, subscription_changed=changed)
        step.reply(waiter, _joined(member))
        members = list(step.group.members.values())
        # A member that waits for partitions of another one is not told to rejoin any more when they are released.
        is_settled = not stale and all(one.has_reached(step.group.target_epoch) for one in members)
        return migration.downgraded(step, members, rebalances=not is_settled)
    step.retarget()
    member = step.reconcile(step.group.members[member.member_id], says.owned, subscription_changed=changed)
    step.timer(JOIN_TIMER + member.member_id, None)
    step.session(member)
    step.timer(SYNC_TIMER + member.member_id, member.rebalance_timeout_ms)
    step.reply(waiter, _joined(member))
    return step.decision()


def _found(step: Step, request: Join, member_id: str) -> ConsumerMember:
    if request.instance_id is None:
        known = step.group.members.get(member_id)
        return ConsumerMember(member_id=member_id) if known is None else known
    before = step.group.static_member(request.instance_id)
    if not request.member_id:
        return static_successor(step, before, member_id, request.instance_id, is_classic=True)
    if before is None:
        raise Refused(ErrorCode.UNKNOWN_MEMBER_ID, f"Instance id {request.instance_id} is unknown.")
    check_not_fenced(before, request.member_id, request.instance_id)
    return before


def _said(member: ConsumerMember, request: Join, says: Subscription) -> ConsumerMember:
    topics = member.topics if says.topics == member.topics else says.topics
    return replace(
        member,
        instance_id=request.instance_id if request.instance_id is not None else member.instance_id,
        rack_id=says.rack_id if says.rack_id is not None else member.rack_id,
        rebalance_timeout_ms=request.rebalance_timeout_ms,
        topics=topics,
        regex="",
        client_id=request.client_id,
        client_host=request.client_host,
        classic=ClassicSide(session_timeout_ms=request.session_timeout_ms, protocols=request.protocols),
        told_to_join=False,
    )


def _joined(member: ConsumerMember) -> JoinResult:
    protocols = () if member.classic is None else member.classic.protocols
    return JoinResult(
        member_id=member.member_id, generation=member.epoch, protocol_type=CONSUMER, protocol_name=protocols[0][0]
    )


def sync(group: ConsumerGroup, request: Sync, waiter: Waiter, terms: Terms) -> Decision:
    """Get the assignment."""
    try:
        member, classic = _member(group, request.member_id, request.instance_id, request.generation)
    except Refused as refused:
        return Decision(state=group, replies=(Reply(waiter, SyncResult(error=refused.code)),))
    name = classic.protocols[0][0]
    if request.protocol_type not in (None, CONSUMER) or request.protocol_name not in (None, name):
        error = ErrorCode.INCONSISTENT_GROUP_PROTOCOL
        return Decision(state=group, replies=(Reply(waiter, SyncResult(error=error)),))
    step = Step(group, terms)
    if group.target_epoch > member.epoch and member.state is not Reconciliation.UNREVOKED:
        _tell_to_join(step, member)
        step.reply(waiter, SyncResult(error=ErrorCode.REBALANCE_IN_PROGRESS))
        return step.decision()
    step.timer(SYNC_TIMER + member.member_id, None)
    step.session(member)
    assignment = encoded_assignment(member.assigned, classic, terms.topics)
    step.reply(waiter, SyncResult(protocol_type=CONSUMER, protocol_name=name, assignment=assignment))
    return step.decision()


def heartbeat(group: ConsumerGroup, request: Heartbeat, waiter: Waiter, terms: Terms) -> Decision:
    """Keep a member alive, or tell it to rejoin."""
    try:
        member, _ = _member(group, request.member_id, request.instance_id, request.generation)
    except Refused as refused:
        return Decision(state=group, replies=(Reply(waiter, refused.code),))
    step = Step(group, terms)
    if step.group.topics_version != terms.topics.version and step.look_at_topics():
        step.bump()
    step.session(member)
    # Before the target of the group's epoch may be computed, rejoining would be useless; afterwards this member may be
    # the only one left to trigger the computation.
    is_behind = member.epoch < step.group.target_epoch or step.may_retarget()
    must_join = is_behind or member.state is Reconciliation.UNREVOKED or _is_complete(group, member)
    if must_join:
        _tell_to_join(step, member)
    step.reply(waiter, ErrorCode.REBALANCE_IN_PROGRESS if must_join else ErrorCode.NONE)
    return step.decision()


def _is_complete(group: ConsumerGroup, member: ConsumerMember) -> bool:
    """Whether everything that a member has been waiting for is available now."""
    if member.state is not Reconciliation.UNRELEASED:
        return False
    is_free = is_free_for(group.owners, member.member_id)
    return all(is_free(topic_id, p) for topic_id, found in member.target.items() for p in found)


def _tell_to_join(step: Step, member: ConsumerMember) -> None:
    if not member.told_to_join:
        step.timer(JOIN_TIMER + member.member_id, member.rebalance_timeout_ms)
        step.note(replace(member, told_to_join=True))


def _member(
    group: ConsumerGroup, member_id: str, instance_id: str | None, generation: int
) -> tuple[ConsumerMember, ClassicSide]:
    member = group.members.get(member_id) if instance_id is None else group.static_member(instance_id)
    if member is not None and instance_id is not None:
        check_not_fenced(member, member_id, instance_id)
    if member is None or member.classic is None:
        raise Refused(ErrorCode.UNKNOWN_MEMBER_ID, f"{member_id} is no member that uses the classic protocol.")
    if generation != member.epoch:
        raise Refused(ErrorCode.ILLEGAL_GENERATION, f"The generation of {member_id} is {member.epoch}.")
    return member, member.classic


def leave(group: ConsumerGroup, leavers: Sequence[Leaver], waiter: Waiter, terms: Terms) -> Decision:
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
        return Decision(state=group, replies=(reply,))
    decision = migration.without(group, tuple(gone.values()), terms)
    return replace(decision, replies=(*decision.replies, reply))
