"""Online migration between the classic and the consumer protocol (KIP-848). Pure: no await, no clock, no I/O.

Upgrade: a member joins a classic group with the consumer protocol. The classic members become members that use the
classic protocol, with their current assignments as targets; each keeps its generation as its epoch.

Downgrade: the last member that uses the consumer protocol is gone. The others become a classic group again, in a
generation equal to the group's epoch, and rejoin.

`group.consumer.migration.policy` allows either. A group without members simply takes the protocol of its next member.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from penstock.groups import rebalance
from penstock.groups.consumer.decision_builder import MEMBER_TIMERS, SESSION_TIMER, ConsumerDecisionBuilder
from penstock.groups.consumer.embedded_protocol import (
    encoded_assignment,
    has_user_data,
    parse_assignment,
    parse_subscription,
)
from penstock.groups.consumer.membership import of_members
from penstock.groups.consumer.model import ClassicMemberMetadata, ConsumerGroup, ConsumerMember
from penstock.groups.decision_builder import JOIN_TIMER as CLASSIC_JOIN_TIMER
from penstock.groups.decision_builder import SYNC_TIMER as CLASSIC_SYNC_TIMER
from penstock.groups.decision_builder import ClassicDecisionBuilder
from penstock.groups.model import (
    CONSUMER,
    AnyGroup,
    ClassicGroup,
    ClassicMember,
    GroupDecision,
    GroupState,
    JoinResult,
    MembersCleared,
    SyncResult,
    with_members,
)
from penstock.groups.rebalance import select_protocol
from penstock.groups.rule_context import RuleContext
from penstock.groups.subscriptions import subscribed_topics
from penstock.log.refusals import Refused
from penstock.wire.error_codes import ErrorCode
from penstock.wire.primitives import Malformed

# --- Upgrade -------------------------------------------------------------------------------------------------------


def upgrade(group: AnyGroup, context: RuleContext) -> ConsumerDecisionBuilder:
    """The consumer group that a group of another kind becomes. Raises `Refused` where that is not allowed."""
    if not isinstance(group, ClassicGroup):
        raise _not_a_consumer_group("Group is not a consumer group.")
    if group.members:
        _check_upgrade(group, context)
    try:
        members = [_upgraded_member(group, member, context) for member in group.members.values()]
    except Malformed as error:
        raise _cannot_upgrade("the embedded consumer protocol is malformed") from error
    generation = group.generation if members else 0
    consumer_group = of_members(ConsumerGroup(epoch=generation, target_epoch=generation), members)
    builder = ConsumerDecisionBuilder(consumer_group, context)
    builder.refresh_topics_hash()
    builder.store_group_and_members()
    for member in members:
        builder.restart_session(member)
    _release_parked_members(builder, group)
    return builder


def _check_upgrade(group: ClassicGroup, context: RuleContext) -> None:
    if not context.consumer.upgrades:
        raise _cannot_upgrade("online upgrade is disabled")
    if group.protocol_type != CONSUMER:
        raise _cannot_upgrade("the group does not use the consumer embedded protocol")
    if len(group.members) > context.consumer.max_size:
        raise _cannot_upgrade("the group size exceeds the consumer group maximum size")
    try:
        custom = any(has_user_data(member.assignment) for member in group.members.values())
    except Malformed as error:
        raise _cannot_upgrade("the embedded consumer protocol is malformed") from error
    if custom:
        raise _cannot_upgrade(
            "an unsupported custom assignor is in use. Please refer to the documentation or switch to a default"
            " assignor before re-attempting the upgrade"
        )


def _cannot_upgrade(reason: str) -> Refused:
    return _not_a_consumer_group(f"Cannot upgrade classic group to consumer group because {reason}.")


def _not_a_consumer_group(message: str) -> Refused:
    return Refused(ErrorCode.GROUP_ID_NOT_FOUND, message)


def _upgraded_member(group: ClassicGroup, member: ClassicMember, context: RuleContext) -> ConsumerMember:
    protocol_name = group.protocol_name or select_protocol(group)
    subscription = parse_subscription(member.metadata(protocol_name), context.topics)
    target = parse_assignment(member.assignment, context.topics)
    return ConsumerMember(
        member_id=member.member_id,
        instance_id=member.instance_id,
        rack_id=subscription.rack_id,
        client_id=member.client_id,
        client_host=member.client_host,
        rebalance_timeout_ms=member.rebalance_timeout_ms,
        topics=subscription.topics,
        classic=ClassicMemberMetadata(session_timeout_ms=member.session_timeout_ms, protocols=member.protocols),
        epoch=group.generation,
        previous_epoch=group.generation,
        assigned={topic_id: dict.fromkeys(sorted(found), group.generation) for topic_id, found in target.items()},
        target=target,
    )


def _release_parked_members(builder: ConsumerDecisionBuilder, group: ClassicGroup) -> None:
    """Members parked in the classic group get REBALANCE_IN_PROGRESS; timers of the rebalance are cancelled."""
    builder.set_timer(CLASSIC_JOIN_TIMER, None)
    builder.set_timer(CLASSIC_SYNC_TIMER, None)
    for member_id in sorted(group.pending_members):
        builder.set_timer(SESSION_TIMER + member_id, None)
    for member in group.members.values():
        error = ErrorCode.REBALANCE_IN_PROGRESS
        builder.reply(member.join_waiter, JoinResult(error=error, member_id=member.member_id))
        builder.reply(member.sync_waiter, SyncResult(error=error))


# --- Downgrade -----------------------------------------------------------------------------------------------------


def remove_members(group: ConsumerGroup, members: Collection[ConsumerMember], context: RuleContext) -> GroupDecision:
    """The group without some members: a classic one, if no member that uses the consumer protocol is left."""
    builder = ConsumerDecisionBuilder(group, context)
    classic_count = group.subscription_counts.classic - sum(member.classic is not None for member in members)
    if classic_count == len(group.members) - len(members) > 0 and may_downgrade(classic_count, context):
        gone = {member.member_id for member in members}
        return downgrade(builder, [m for m in group.members.values() if m.member_id not in gone], rebalances=True)
    builder.fence_members(members)
    return builder.decision()


def may_downgrade(size: int, context: RuleContext) -> bool:
    """Whether a group with that many classic members may be downgraded."""
    return context.consumer.downgrades and size <= context.settings.max_size


def downgrade(
    builder: ConsumerDecisionBuilder, members: Collection[ConsumerMember], *, rebalances: bool
) -> GroupDecision:
    """The classic group of these members, all of which use the classic protocol."""
    context = builder.context
    for member_id in {**builder.group.members, **{member.member_id: None for member in members}}:
        for timer in MEMBER_TIMERS:
            builder.set_timer(timer + member_id, None)
    by_id, instances = with_members([_downgraded_member(member, context) for member in members])
    group = ClassicGroup(
        state=GroupState.STABLE,
        generation=builder.group.epoch,
        protocol_type=CONSUMER,
        leader=next(iter(by_id)),
        members=by_id,
        instances=instances,
        since_ms=context.now_ms,
    )
    group = replace(group, protocol_name=select_protocol(group))
    classic = ClassicDecisionBuilder(
        replace(group, subscribed=subscribed_topics(group)), context.now_ms, context.settings, [MembersCleared()]
    )
    classic.replies += builder.replies
    classic.timers += builder.timers
    classic.store_group()
    for member in by_id.values():
        classic.restart_session(member)
    if rebalances:
        rebalance.prepare_rebalance(classic)
    return classic.decision()


def _downgraded_member(member: ConsumerMember, context: RuleContext) -> ClassicMember:
    classic = member.classic
    if classic is None:
        raise TypeError(f"{member.member_id} does not speak the classic protocol")
    return ClassicMember(
        member_id=member.member_id,
        instance_id=member.instance_id,
        client_id=member.client_id,
        client_host=member.client_host,
        rebalance_timeout_ms=member.rebalance_timeout_ms,
        session_timeout_ms=classic.session_timeout_ms,
        protocols=classic.protocols,
        assignment=encoded_assignment(member.target, classic, context.topics),
    )
