"""Rules of JoinGroup. Pure: no await, no clock, no I/O."""

from __future__ import annotations

from dataclasses import replace

from penstock.coordination.model import Waiter
from penstock.groups.capacity import MAX_MEMBERS, has_metadata_room, size_of
from penstock.groups.decision_builder import SESSION_TIMER, ClassicDecisionBuilder
from penstock.groups.model import ClassicGroup, ClassicMember, GroupDecision, GroupState, Join, JoinResult, SyncResult
from penstock.groups.rebalance import (
    complete_if_joined,
    extend_join_window,
    join_result,
    member_error,
    prepare_or_complete_rebalance,
    prepare_rebalance,
    select_protocol,
    supports_protocols,
)
from penstock.groups.settings import GroupSettings
from penstock.wire.error_codes import ErrorCode


def join(
    group: ClassicGroup | None, request: Join, waiter: Waiter, now_ms: int, settings: GroupSettings
) -> GroupDecision:
    """Become a member, or rejoin: answered when the rebalance completes."""
    is_known = group is not None
    builder = ClassicDecisionBuilder(group or ClassicGroup(since_ms=now_ms), now_ms, settings)
    if not has_valid_session(request, settings):
        _refuse(builder, request, waiter, ErrorCode.INVALID_SESSION_TIMEOUT)
    elif not is_known and request.member_id:
        _refuse(builder, request, waiter, ErrorCode.UNKNOWN_MEMBER_ID)
    elif not _has_metadata_room(builder.group, request):
        _refuse(builder, replace(request, member_id=""), waiter, ErrorCode.GROUP_MAX_SIZE_REACHED)
    elif not _has_member_room(builder.group, request.member_id, settings.max_size):
        builder.remove_members(request.member_id)
        builder.reply(waiter, JoinResult(error=ErrorCode.GROUP_MAX_SIZE_REACHED, member_id=""))
        complete_if_joined(builder)
    elif not supports_protocols(builder.group, request.protocol_type, request.protocols):
        _refuse(builder, request, waiter, ErrorCode.INCONSISTENT_GROUP_PROTOCOL)
    elif not request.member_id:
        _join_new(builder, request, waiter)
    else:
        _join_known(builder, request, waiter)
    return builder.decision()


def has_valid_session(request: Join, settings: GroupSettings) -> bool:
    """Whether the session time-out is within the bounds, whatever state the group is in."""
    return settings.min_session_timeout_ms <= request.session_timeout_ms <= settings.max_session_timeout_ms


def _refuse(builder: ClassicDecisionBuilder, request: Join, waiter: Waiter, error: ErrorCode) -> None:
    builder.reply(waiter, JoinResult(error=error, member_id=request.member_id))


def _has_metadata_room(group: ClassicGroup, request: Join) -> bool:
    """Whether there is memory for the member's metadata, and for one more member's."""
    members, member_id = group.members, request.member_id
    is_known = member_id in members or member_id in group.pending_members or request.instance_id in group.instances
    if not is_known and len(members) + len(group.pending_members) >= MAX_MEMBERS:
        return False
    return has_metadata_room(_size_of(request), (_size_of(other) for key, other in members.items() if key != member_id))


def _size_of(who: Join | ClassicMember) -> int:
    return size_of((who.client_id, who.instance_id or "")) + sum(map(size_of, who.protocols))


def _has_member_room(group: ClassicGroup, member_id: str, max_size: int) -> bool:
    """Whether the group may take this member.

    While a rebalance is prepared, parked joins count instead of members: after the limit was lowered, the last ones to
    rejoin are refused.
    """
    if group.state is GroupState.EMPTY:
        return True
    member = group.members.get(member_id)
    if group.state is GroupState.PREPARING_REBALANCE:
        if member is not None and member.join_waiter is not None:
            return True
        return sum(other.join_waiter is not None for other in group.members.values()) < max_size
    return member is not None or len(group.members) < max_size


def _join_new(builder: ClassicDecisionBuilder, request: Join, waiter: Waiter) -> None:
    if request.instance_id is not None:
        old_id = builder.group.instances.get(request.instance_id)
        if old_id is not None:
            _replace_static(builder, request, waiter, old_id)
        else:
            _add_member(builder, request, waiter, request.new_member_id)
    elif request.member_id_required:
        # The client comes back with its id, so that a join whose answer is lost leaves no orphaned member (KIP-394).
        builder.group = replace(builder.group, pending_members=builder.group.pending_members | {request.new_member_id})
        builder.set_timer(SESSION_TIMER + request.new_member_id, request.session_timeout_ms)
        builder.reply(waiter, JoinResult(error=ErrorCode.MEMBER_ID_REQUIRED, member_id=request.new_member_id))
        extend_join_window(builder, member=False)
    else:
        _add_member(builder, request, waiter, request.new_member_id)


def _join_known(builder: ClassicDecisionBuilder, request: Join, waiter: Waiter) -> None:
    group = builder.group
    if request.member_id in group.pending_members and request.instance_id is None:
        return _add_member(builder, request, waiter, request.member_id)
    error = member_error(group, request.member_id, request.instance_id)
    if error is not ErrorCode.NONE:
        return _refuse(builder, request, waiter, error)
    member = group.members[request.member_id]
    if _must_rebalance(group, member, request):
        _park(builder, member, request, waiter)
        return prepare_or_complete_rebalance(builder)
    # The client may have missed the response: it continues in the current generation.
    return builder.reply(waiter, join_result(group, member.member_id))


def _must_rebalance(group: ClassicGroup, member: ClassicMember, request: Join) -> bool:
    """A member's join starts a rebalance when it changes something, or when the leader wants to reassign."""
    match group.state:
        case GroupState.COMPLETING_REBALANCE:
            return member.protocols != request.protocols
        case GroupState.STABLE:
            return group.leader == member.member_id or member.protocols != request.protocols
        case _:
            return True


def _add_member(builder: ClassicDecisionBuilder, request: Join, waiter: Waiter, member_id: str) -> None:
    group = builder.group
    member = ClassicMember(
        member_id=member_id,
        instance_id=request.instance_id,
        client_id=request.client_id,
        client_host=request.client_host,
        rebalance_timeout_ms=request.rebalance_timeout_ms,
        session_timeout_ms=request.session_timeout_ms,
        protocols=request.protocols,
        join_waiter=waiter,
        is_new=True,
    )
    builder.group = replace(
        group,
        pending_members=group.pending_members - {member_id},
        protocol_type=group.protocol_type if group.members else request.protocol_type,
        leader=group.leader or member_id,
    )
    builder.put_member(member)
    extend_join_window(builder, member=True)
    # It cannot send heartbeats before it has a response.
    builder.restart_session(member, builder.settings.new_member_join_timeout_ms)
    prepare_or_complete_rebalance(builder)


def _park(builder: ClassicDecisionBuilder, member: ClassicMember, request: Join, waiter: Waiter) -> None:
    """Park a join with the member's current metadata. An earlier parked join of the same member is obsolete."""
    builder.reply(member.join_waiter, JoinResult(error=ErrorCode.REBALANCE_IN_PROGRESS, member_id=member.member_id))
    builder.put_member(
        replace(
            member,
            protocols=request.protocols,
            rebalance_timeout_ms=request.rebalance_timeout_ms,
            session_timeout_ms=request.session_timeout_ms,
            join_waiter=waiter,
        )
    )


def _replace_static(builder: ClassicDecisionBuilder, request: Join, waiter: Waiter, old_id: str) -> None:
    """A static member rejoins with a new id (KIP-345): it replaces the old id, which is fenced."""
    old_leader = builder.group.leader
    member = _replace_member_id(builder, request, old_id)
    group = builder.group
    if group.state is GroupState.STABLE:
        if select_protocol(group) == group.protocol_name:
            # Nothing that matters to the assignment has changed: no rebalance, only the new id is stored.
            is_leader = group.leader == member.member_id
            if request.may_skip_assignment:
                builder.reply(waiter, join_result(group, member.member_id, skip_assignment=is_leader))
            else:
                # An old client that sees itself as leader would assign: it gets its old id as the leader.
                answer = join_result(group, member.member_id)
                builder.reply(waiter, replace(answer, leader=old_leader or "", members=()))
            return builder.store_group()
        _await_rebalance(builder, member, waiter)
        return prepare_rebalance(builder)
    _await_rebalance(builder, member, waiter)
    if group.state is GroupState.COMPLETING_REBALANCE:
        # The leader may already be assigning to the old id, and the new id would get nothing.
        return prepare_rebalance(builder)
    return complete_if_joined(builder)


def _await_rebalance(builder: ClassicDecisionBuilder, member: ClassicMember, waiter: Waiter) -> None:
    builder.put_member(replace(member, join_waiter=waiter))


def _replace_member_id(builder: ClassicDecisionBuilder, request: Join, old_id: str) -> ClassicMember:
    group = builder.group
    old = group.members[old_id]
    builder.reply(old.join_waiter, JoinResult(error=ErrorCode.FENCED_INSTANCE_ID, member_id=old_id))
    builder.reply(old.sync_waiter, SyncResult(error=ErrorCode.FENCED_INSTANCE_ID))
    builder.set_timer(SESSION_TIMER + old_id, None)
    member = replace(
        old,
        member_id=request.new_member_id,
        client_id=request.client_id,
        client_host=request.client_host,
        protocols=request.protocols,
        rebalance_timeout_ms=request.rebalance_timeout_ms,
        session_timeout_ms=request.session_timeout_ms,
        join_waiter=None,
        sync_waiter=None,
        is_new=False,  # Its session starts now, and does not expire while it is parked.
    )
    builder.replace_members(member if key == old_id else other for key, other in group.members.items())
    if group.leader == old_id:
        builder.group = replace(builder.group, leader=member.member_id)
    builder.restart_session(member)
    return member
