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
from penstock.groups.consumer.membership import of_members
from penstock.groups.consumer.model import ClassicSide, ConsumerGroup, ConsumerMember
from penstock.groups.consumer.steps import MEMBER_TIMERS, SESSION_TIMER, Step
from penstock.groups.consumer.subscription import assignment_of, encoded_assignment, has_user_data, subscription_of
from penstock.groups.model import (
    CONSUMER,
    AnyGroup,
    Decision,
    Group,
    GroupState,
    JoinResult,
    Member,
    MembersCleared,
    SyncResult,
    with_members,
)
from penstock.groups.rebalance import select_protocol
from penstock.groups.subscriptions import subscribed_topics
from penstock.groups.terms import Terms
from penstock.log.refusals import Refused
from penstock.wire.error_codes import ErrorCode
from penstock.wire.primitives import Malformed

# --- Upgrade -------------------------------------------------------------------------------------------------------


def upgraded(group: AnyGroup, terms: Terms) -> Step:
    """The consumer group that a group of another kind becomes. Raises `Refused` where that is not allowed."""
    if not isinstance(group, Group):
        raise _not_a_consumer_group("Group is not a consumer group.")
    if group.members:
        _check_upgrade(group, terms)
    try:
        members = [_upgraded_member(group, member, terms) for member in group.members.values()]
    except Malformed as error:
        raise _cannot_upgrade("the embedded consumer protocol is malformed") from error
    generation = group.generation if members else 0
    consumer_group = of_members(ConsumerGroup(epoch=generation, target_epoch=generation), members)
    step = Step(consumer_group, terms)
    step.look_at_topics()
    step.store_all()
    for member in members:
        step.session(member)
    _let_go(step, group)
    return step


def _check_upgrade(group: Group, terms: Terms) -> None:
    if not terms.consumer.upgrades:
        raise _cannot_upgrade("online upgrade is disabled")
    if group.protocol_type != CONSUMER:
        raise _cannot_upgrade("the group does not use the consumer embedded protocol")
    if len(group.members) > terms.consumer.max_size:
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


def _upgraded_member(group: Group, member: Member, terms: Terms) -> ConsumerMember:
    protocol_name = group.protocol_name or select_protocol(group)
    says = subscription_of(member.metadata(protocol_name), terms.topics)
    target = assignment_of(member.assignment, terms.topics)
    return ConsumerMember(
        member_id=member.member_id,
        instance_id=member.instance_id,
        rack_id=says.rack_id,
        client_id=member.client_id,
        client_host=member.client_host,
        rebalance_timeout_ms=member.rebalance_timeout_ms,
        topics=says.topics,
        classic=ClassicSide(session_timeout_ms=member.session_timeout_ms, protocols=member.protocols),
        epoch=group.generation,
        previous_epoch=group.generation,
        assigned={topic_id: dict.fromkeys(sorted(found), group.generation) for topic_id, found in target.items()},
        target=target,
    )


def _let_go(step: Step, group: Group) -> None:
    """Members parked in the classic group get REBALANCE_IN_PROGRESS; timers of the rebalance are cancelled."""
    step.timer(rebalance.JOIN_TIMER, None)
    step.timer(rebalance.SYNC_TIMER, None)
    for member_id in sorted(group.pending):
        step.timer(SESSION_TIMER + member_id, None)
    for member in group.members.values():
        error = ErrorCode.REBALANCE_IN_PROGRESS
        step.reply(member.join_waiter, JoinResult(error=error, member_id=member.member_id))
        step.reply(member.sync_waiter, SyncResult(error=error))


# --- Downgrade -----------------------------------------------------------------------------------------------------


def without(group: ConsumerGroup, members: Collection[ConsumerMember], terms: Terms) -> Decision:
    """The group without some members: a classic one, if no member that uses the consumer protocol is left."""
    step = Step(group, terms)
    stay = group.tally.classic - sum(member.classic is not None for member in members)
    if stay == len(group.members) - len(members) > 0 and may_downgrade(stay, terms):
        gone = {member.member_id for member in members}
        return downgraded(step, [m for m in group.members.values() if m.member_id not in gone], rebalances=True)
    step.fence(members)
    return step.decision()


def may_downgrade(size: int, terms: Terms) -> bool:
    """Whether a group with that many classic members may be downgraded."""
    return terms.consumer.downgrades and size <= terms.settings.max_size


def downgraded(step: Step, members: Collection[ConsumerMember], *, rebalances: bool) -> Decision:
    """The classic group of these members, all of which use the classic protocol."""
    terms = step.terms
    for member_id in {**step.group.members, **{member.member_id: None for member in members}}:
        for timer in MEMBER_TIMERS:
            step.timer(timer + member_id, None)
    by_id, instances = with_members([_downgraded_member(member, terms) for member in members])
    group = Group(
        state=GroupState.STABLE,
        generation=step.group.epoch,
        protocol_type=CONSUMER,
        leader=next(iter(by_id)),
        members=by_id,
        instances=instances,
        since_ms=terms.now_ms,
    )
    group = replace(group, protocol_name=select_protocol(group))
    classic = rebalance.Step(
        replace(group, subscribed=subscribed_topics(group)), terms.now_ms, terms.settings, [MembersCleared()]
    )
    classic.replies += step.replies
    classic.timers += step.timers
    classic.store()
    for member in by_id.values():
        classic.session(member)
    if rebalances:
        rebalance.prepare(classic)
    return classic.decision()


def _downgraded_member(member: ConsumerMember, terms: Terms) -> Member:
    classic = member.classic
    if classic is None:
        raise TypeError(f"{member.member_id} does not speak the classic protocol")
    return Member(
        member_id=member.member_id,
        instance_id=member.instance_id,
        client_id=member.client_id,
        client_host=member.client_host,
        rebalance_timeout_ms=member.rebalance_timeout_ms,
        session_timeout_ms=classic.session_timeout_ms,
        protocols=classic.protocols,
        assignment=encoded_assignment(member.target, classic, terms.topics),
    )
