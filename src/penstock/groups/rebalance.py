"""The phases of a rebalance of a classic group. Pure: no await, no clock, no I/O.

    prepare    a member joined, left or changed: all must rejoin (requests get REBALANCE_IN_PROGRESS, 27)
    complete   all members are parked in a join, or time is up: next generation, replies to all joins
    sync       the leader's assignments arrive: stable, replies to all syncs

An *initial* rebalance, of a group that was empty, does not complete as soon as all its members have joined: the first
member would always get a generation of its own, and everybody after it would have to wait for that member's next
heartbeat, by default 3 s later. With `group.initial.rebalance.delay.ms` above 0 it is delayed as in Kafka. With 0, the
default here, it is delayed while members keep arriving: until none came for `join_quiet_ms`, or for four times the
longest recent gap between two arrivals, within limits. A single consumer waits 20 ms; fifty that start at the same time
get one generation. Ids given to members that have not come back count as arrivals still to come.
"""

from __future__ import annotations

from penstock.base.dataclasses import replace
from penstock.groups.decision_builder import JOIN_TIMER, SYNC_TIMER, ClassicDecisionBuilder
from penstock.groups.model import (
    CONSUMER,
    ClassicGroup,
    GroupState,
    JoinedMember,
    JoinResult,
    JoinWindow,
    SyncResult,
)
from penstock.groups.settings import GroupSettings
from penstock.groups.subscriptions import subscribed_topics
from penstock.wire.error_codes import ErrorCode

_PENDING_QUIET_MS = 500
"""How long an initial rebalance waits for a member that was given its id and did not come back with it."""


def member_error(group: ClassicGroup, member_id: str, instance_id: str | None) -> ErrorCode:
    """Whether a request comes from a member (KIP-345: an instance id belongs to one member id at a time)."""
    if instance_id is not None:
        holder = group.instances.get(instance_id)
        if holder is None:
            return ErrorCode.UNKNOWN_MEMBER_ID
        if holder != member_id:
            return ErrorCode.FENCED_INSTANCE_ID
    return ErrorCode.NONE if member_id in group.members else ErrorCode.UNKNOWN_MEMBER_ID


def supports_protocols(group: ClassicGroup, protocol_type: str, protocols: tuple[tuple[str, bytes], ...]) -> bool:
    """Whether a member with these protocols is compatible with the group."""
    if group.state is GroupState.EMPTY:
        return bool(protocol_type and protocols)
    if group.protocol_type != protocol_type:
        return False
    others = [{name for name, _ in member.protocols} for member in group.members.values()]
    return any(all(name in names for names in others) for name, _ in protocols)


def select_protocol(group: ClassicGroup) -> str | None:
    """The protocol of the next generation: of those that all members have, the one with the most votes."""
    members = list(group.members.values())
    candidates = set.intersection(*({name for name, _ in member.protocols} for member in members))
    votes: dict[str, int] = {}
    for member in members:
        choice = next((name for name, _ in member.protocols if name in candidates), None)
        if choice is not None:
            votes[choice] = votes.get(choice, 0) + 1
    return max(votes, key=votes.__getitem__, default=None)


def all_joined(group: ClassicGroup) -> bool:
    """Whether every member is parked in a join, and no id is pending."""
    return not group.pending_members and all(member.join_waiter is not None for member in group.members.values())


def join_result(group: ClassicGroup, member_id: str, *, skip_assignment: bool = False) -> JoinResult:
    """The response to a join in the current generation."""
    members: tuple[JoinedMember, ...] = ()
    if group.leader == member_id:
        members = tuple(
            JoinedMember(
                member_id=member.member_id,
                instance_id=member.instance_id,
                metadata=member.metadata(group.protocol_name),
            )
            for member in group.members.values()
        )
    return JoinResult(
        member_id=member_id,
        generation=group.generation,
        protocol_type=group.protocol_type,
        protocol_name=group.protocol_name,
        leader=group.leader or "",
        skip_assignment=skip_assignment,
        members=members,
    )


def prepare_or_complete_rebalance(builder: ClassicDecisionBuilder) -> None:
    """Membership changed: start a rebalance, or complete the one being prepared if possible."""
    if builder.group.state is GroupState.PREPARING_REBALANCE:
        complete_if_joined(builder)
    else:
        prepare_rebalance(builder)


def complete_if_joined(builder: ClassicDecisionBuilder) -> None:
    """Complete the rebalance being prepared when no member is missing. An initial one waits for its timer."""
    group = builder.group
    if group.state is GroupState.PREPARING_REBALANCE and not group.is_initial_rebalance and all_joined(group):
        complete_rebalance(builder)


def prepare_rebalance(builder: ClassicDecisionBuilder) -> None:
    """Require all members to rejoin."""
    group = builder.group
    if group.state is GroupState.COMPLETING_REBALANCE:
        _fail_parked_syncs(builder)
    builder.set_timer(SYNC_TIMER, None)
    was_empty = group.state is GroupState.EMPTY
    members = [replace(member, pending_sync=False) for member in builder.group.members.values()]
    builder.replace_members(members)
    builder.group = replace(builder.group, state=GroupState.PREPARING_REBALANCE, since_ms=builder.now_ms)
    if was_empty:
        window = JoinWindow(opened_ms=builder.now_ms, last_ms=builder.now_ms)
        builder.group = replace(builder.group, join_window=window)
        delay_ms = builder.settings.initial_rebalance_delay_ms
        builder.set_timer(JOIN_TIMER, delay_ms if delay_ms > 0 else builder.settings.join_quiet_ms)
    elif all_joined(builder.group):
        complete_rebalance(builder)
    else:
        builder.set_timer(JOIN_TIMER, rebalance_timeout_ms(builder.group))


def _fail_parked_syncs(builder: ClassicDecisionBuilder) -> None:
    """The generation ends before it has assignments: parked syncs get REBALANCE_IN_PROGRESS."""
    members = []
    for member in builder.group.members.values():
        if member.sync_waiter is not None:
            builder.reply(member.sync_waiter, SyncResult(error=ErrorCode.REBALANCE_IN_PROGRESS))
            builder.restart_session(member)
        members.append(replace(member, assignment=b"", sync_waiter=None))
    builder.replace_members(members)


def complete_rebalance(builder: ClassicDecisionBuilder) -> None:
    """Start the next generation with the members that have joined, and with static ones, which may be restarting."""
    builder.set_timer(JOIN_TIMER, None)
    members = builder.group.members.values()
    builder.remove_members(*(one.member_id for one in members if one.join_waiter is None and one.instance_id is None))
    if builder.group.members and not _elect_leader(builder):
        # Only static members, and none has rejoined: wait for them, or for their sessions to expire.
        builder.set_timer(JOIN_TIMER, rebalance_timeout_ms(builder.group))
        return
    builder.group = replace(
        builder.group, generation=builder.group.generation + 1, since_ms=builder.now_ms, join_window=None
    )
    if builder.group.members:
        _start_generation(builder)
    else:
        _become_empty(builder)
    builder.store_group()


def _elect_leader(builder: ClassicDecisionBuilder) -> bool:
    """Make a member that has rejoined the leader. False if none has."""
    group = builder.group
    leader = group.members.get(group.leader or "")
    if leader is not None and leader.join_waiter is not None:
        return True
    for member in group.members.values():
        if member.join_waiter is not None:
            builder.group = replace(group, leader=member.member_id)
            return True
    return False


def _start_generation(builder: ClassicDecisionBuilder) -> None:
    protocol_name = select_protocol(builder.group)
    group = replace(builder.group, state=GroupState.COMPLETING_REBALANCE, protocol_name=protocol_name)
    group = replace(group, subscribed=subscribed_topics(group))
    members = []
    for member in group.members.values():
        builder.reply(member.join_waiter, join_result(group, member.member_id))
        builder.restart_session(member)
        members.append(replace(member, join_waiter=None, is_new=False, pending_sync=True))
    builder.group = group
    builder.replace_members(members)
    builder.set_timer(SYNC_TIMER, rebalance_timeout_ms(group))


def _become_empty(builder: ClassicDecisionBuilder) -> None:
    subscribed: frozenset[str] | None = frozenset() if builder.group.protocol_type == CONSUMER else None
    builder.group = replace(
        builder.group, state=GroupState.EMPTY, protocol_name=None, leader=None, subscribed=subscribed, join_window=None
    )


def rebalance_timeout_ms(group: ClassicGroup) -> int:
    """The longest rebalance time-out of the members."""
    return max((member.rebalance_timeout_ms for member in group.members.values()), default=0)


# --- The initial rebalance -----------------------------------------------------------------------------------------


def extend_join_window(builder: ClassicDecisionBuilder, *, member: bool) -> None:
    """A member joined an initial rebalance, or was given an id to join it with."""
    window = builder.group.join_window
    if window is None:
        return
    gap_ms = max(builder.now_ms - window.last_ms, window.gap_ms // 2)
    window = replace(window, last_ms=builder.now_ms, gap_ms=gap_ms, arrived=window.arrived or member)
    builder.group = replace(builder.group, join_window=window)
    if builder.settings.initial_rebalance_delay_ms == 0:
        builder.set_timer(
            JOIN_TIMER, min(_quiet_ms(window, builder.settings), _left_ms(builder, builder.settings.join_window_max_ms))
        )


def join_timer_fired(builder: ClassicDecisionBuilder) -> None:
    """The timer of an initial rebalance fired: complete it, or wait for members that are still arriving."""
    group, settings = builder.group, builder.settings
    window = group.join_window
    if window is None:
        return complete_rebalance(builder)
    if settings.initial_rebalance_delay_ms > 0:
        left_ms = _left_ms(builder, rebalance_timeout_ms(group))
        if not (window.arrived and left_ms > 0):
            return complete_rebalance(builder)
        builder.group = replace(group, join_window=replace(window, arrived=False))
        return builder.set_timer(JOIN_TIMER, min(settings.initial_rebalance_delay_ms, left_ms))
    quiet_ms = _PENDING_QUIET_MS if group.pending_members else 0
    wait_ms = min(window.last_ms + quiet_ms - builder.now_ms, _left_ms(builder, settings.join_window_max_ms))
    if wait_ms > 0:
        return builder.set_timer(JOIN_TIMER, wait_ms)
    return complete_rebalance(builder)


def _quiet_ms(window: JoinWindow, settings: GroupSettings) -> int:
    return min(max(settings.join_quiet_ms, 4 * window.gap_ms), settings.join_quiet_max_ms)


def _left_ms(builder: ClassicDecisionBuilder, limit_ms: int) -> int:
    window = builder.group.join_window
    # A wall clock set back must not make it longer.
    return limit_ms if window is None else min(max(window.opened_ms + limit_ms - builder.now_ms, 0), limit_ms)
