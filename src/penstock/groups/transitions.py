"""The rules of classic groups, except joining (`join`) and the steps of a rebalance (`rebalance`).

Pure: no await, no clock, no I/O. A rule gets the group, or None if there is none with that id, and returns its next
state with the records that make it durable. Groups are immutable, so undoing a failed write is keeping the old value;
heartbeats only set timers and write nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from penstock.coordination.model import Reply, Timer, Waiter
from penstock.groups import offset_rules
from penstock.groups.decision_builder import JOIN_TIMER, SESSION_TIMER, SYNC_TIMER, ClassicDecisionBuilder
from penstock.groups.model import (
    CONSUMER,
    AnyGroup,
    ClassicGroup,
    ClassicHeartbeat,
    CommitOffsets,
    DeleteOffsets,
    DeleteOffsetsResult,
    GroupDecision,
    GroupDeleted,
    GroupState,
    JoinResult,
    LeaveResult,
    LeavingMember,
    OffsetAndMetadata,
    StoredOffsets,
    Sync,
    SyncResult,
)
from penstock.groups.rebalance import (
    complete_if_joined,
    join_timer_fired,
    member_error,
    prepare_or_complete_rebalance,
    prepare_rebalance,
    rebalance_timeout_ms,
)
from penstock.groups.settings import GroupSettings
from penstock.wire.error_codes import ErrorCode

_GENERATIONS = (GroupState.STABLE, GroupState.COMPLETING_REBALANCE)


def answer(group: AnyGroup | None, waiter: Waiter, value: object) -> GroupDecision:
    """Reply at once, and change nothing."""
    return GroupDecision(state=group, replies=(Reply(waiter, value),))


# --- Members -------------------------------------------------------------------------------------------------------


def heartbeat(group: ClassicGroup | None, request: ClassicHeartbeat, waiter: Waiter) -> GroupDecision:
    """Keep a member alive, or tell it to rejoin while a rebalance is prepared."""
    if group is None:
        return answer(group, waiter, ErrorCode.UNKNOWN_MEMBER_ID)
    error = member_error(group, request.member_id, request.instance_id)
    if error is not ErrorCode.NONE:
        return answer(group, waiter, error)
    if request.generation != group.generation:
        return answer(group, waiter, ErrorCode.ILLEGAL_GENERATION)
    preparing = group.state is GroupState.PREPARING_REBALANCE
    code = ErrorCode.REBALANCE_IN_PROGRESS if preparing else ErrorCode.NONE
    timer = Timer(SESSION_TIMER + request.member_id, group.members[request.member_id].session_timeout_ms)
    return GroupDecision(state=group, replies=(Reply(waiter, code),), timers=(timer,))


def sync(
    group: ClassicGroup | None, request: Sync, waiter: Waiter, now_ms: int, settings: GroupSettings
) -> GroupDecision:
    """Get the assignment of this generation; the leader's request has everybody's."""
    error = _sync_error(group, request)
    if group is None or error is not ErrorCode.NONE:
        return answer(group, waiter, SyncResult(error=error))
    builder = ClassicDecisionBuilder(group, now_ms, settings)
    member = replace(group.members[request.member_id], pending_sync=False)
    if group.state is GroupState.STABLE:
        builder.put_member(member)
        builder.reply(waiter, _sync_result(group, member.assignment))
    else:
        builder.reply(member.sync_waiter, SyncResult(error=ErrorCode.REBALANCE_IN_PROGRESS))  # An obsolete retry.
        builder.put_member(replace(member, sync_waiter=waiter))
        if group.leader == member.member_id:
            _assign(builder, request.assignments)
    if not any(other.pending_sync for other in builder.group.members.values()):
        builder.set_timer(SYNC_TIMER, None)
    return builder.decision()


def _sync_error(group: ClassicGroup | None, request: Sync) -> ErrorCode:
    if group is None:
        return ErrorCode.UNKNOWN_MEMBER_ID
    error = member_error(group, request.member_id, request.instance_id)
    if error is not ErrorCode.NONE:
        return error
    if request.generation != group.generation:
        return ErrorCode.ILLEGAL_GENERATION
    for asked, actual in ((request.protocol_type, group.protocol_type), (request.protocol_name, group.protocol_name)):
        if asked is not None and actual is not None and asked != actual:
            return ErrorCode.INCONSISTENT_GROUP_PROTOCOL
    return ErrorCode.NONE if group.state in _GENERATIONS else ErrorCode.REBALANCE_IN_PROGRESS


def _assign(builder: ClassicDecisionBuilder, assignments: Mapping[str, bytes]) -> None:
    members = []
    for member in builder.group.members.values():
        assignment = assignments.get(member.member_id, b"")
        if member.sync_waiter is not None:
            builder.reply(member.sync_waiter, _sync_result(builder.group, assignment))
            builder.restart_session(member)
        members.append(replace(member, assignment=assignment, sync_waiter=None))
    builder.replace_members(members)
    builder.group = replace(builder.group, state=GroupState.STABLE, since_ms=builder.now_ms)
    builder.store_group()


def _sync_result(group: ClassicGroup, assignment: bytes) -> SyncResult:
    return SyncResult(protocol_type=group.protocol_type, protocol_name=group.protocol_name, assignment=assignment)


def leave(
    group: ClassicGroup | None, leavers: Sequence[LeavingMember], waiter: Waiter, now_ms: int, settings: GroupSettings
) -> GroupDecision:
    """Remove members now, instead of when their sessions expire."""
    if group is None:
        return answer(group, waiter, LeaveResult(errors=(ErrorCode.UNKNOWN_MEMBER_ID,) * len(leavers)))
    builder = ClassicDecisionBuilder(group, now_ms, settings)
    gone: dict[str, None] = {}
    errors = tuple(_leave_error(group, leaver, gone) for leaver in leavers)
    builder.remove_members(*gone)
    if builder.group.state not in _GENERATIONS:
        complete_if_joined(builder)
    elif ErrorCode.NONE in errors:
        prepare_rebalance(builder)  # Also for an id that was never joined with.
    builder.reply(waiter, LeaveResult(errors=errors))
    return builder.decision()


def _leave_error(group: ClassicGroup, leaver: LeavingMember, gone: dict[str, None]) -> ErrorCode:
    """Why a member cannot leave, or NONE: then it is added to `gone`, and cannot be named again."""
    member_id = leaver.member_id
    if not member_id and leaver.instance_id is not None:
        member_id = group.instances.get(leaver.instance_id, "")
    if member_id in gone:
        return ErrorCode.UNKNOWN_MEMBER_ID
    if member_id not in group.pending_members:
        error = member_error(group, member_id, leaver.instance_id)
        if error is not ErrorCode.NONE:
            # The owner of the instance id may have left earlier in this request.
            has_left = leaver.instance_id is not None and group.instances.get(leaver.instance_id) in gone
            return ErrorCode.UNKNOWN_MEMBER_ID if has_left else error
    gone[member_id] = None
    return ErrorCode.NONE


# --- Timers --------------------------------------------------------------------------------------------------------


def expired(group: ClassicGroup | None, timer: str, now_ms: int, settings: GroupSettings) -> GroupDecision:
    """A timer fired."""
    if group is None:
        return GroupDecision(state=None)
    builder = ClassicDecisionBuilder(group, now_ms, settings)
    if timer == JOIN_TIMER:
        if group.state is GroupState.PREPARING_REBALANCE:
            join_timer_fired(builder)
    elif timer == SYNC_TIMER:
        _sync_expired(builder)
    else:
        _session_expired(builder, timer.removeprefix(SESSION_TIMER))
    return builder.decision()


def _sync_expired(builder: ClassicDecisionBuilder) -> None:
    late = [member.member_id for member in builder.group.members.values() if member.pending_sync]
    if late and builder.group.state in _GENERATIONS:
        builder.remove_members(*late)
        prepare_rebalance(builder)


def _session_expired(builder: ClassicDecisionBuilder, member_id: str) -> None:
    group = builder.group
    member = group.members.get(member_id)
    if member is not None:
        waits = member.join_waiter is not None or member.sync_waiter is not None
        if waits and not member.is_new:
            return  # Parked, so it is alive; its session restarts with the reply.
        builder.remove_members(member_id)
        prepare_or_complete_rebalance(builder)
    elif member_id in group.pending_members:
        builder.remove_members(member_id)
        complete_if_joined(builder)


def restored(group: ClassicGroup, now_ms: int, settings: GroupSettings) -> GroupDecision:
    """A group was loaded: every member gets a full session time-out."""
    builder = ClassicDecisionBuilder(group, now_ms, settings)
    for member in group.members.values():
        builder.restart_session(member)
    if len(group.members) > settings.max_size:
        # The limit was lowered: members that rejoin when there is no room left are refused.
        prepare_rebalance(builder)
    elif group.state is GroupState.COMPLETING_REBALANCE:
        builder.replace_members([replace(member, pending_sync=True) for member in group.members.values()])
        builder.set_timer(SYNC_TIMER, rebalance_timeout_ms(group))
    return builder.decision()


# --- Offsets -------------------------------------------------------------------------------------------------------


def commit_offsets(
    group: ClassicGroup | None, request: CommitOffsets, waiter: Waiter, now_ms: int, settings: GroupSettings
) -> GroupDecision:
    """Commit offsets for a member of the current generation, or for a caller without membership while it is empty."""
    if group is None and request.generation >= 0 and request.owner is None:
        return answer(group, waiter, _unknown_group(request))
    builder = ClassicDecisionBuilder(group or ClassicGroup(since_ms=now_ms), now_ms, settings)
    error = _commit_error(builder.group, request)
    if error is ErrorCode.NONE:
        member = builder.group.members.get(request.member_id)
        if member is not None and request.owner is None:
            builder.restart_session(member)
        if not builder.group.stored and request.offsets:
            builder.store_group()
        builder.records += request.records
    builder.reply(waiter, error)
    return builder.decision()


def _unknown_group(request: CommitOffsets) -> ErrorCode:
    """Old clients get ILLEGAL_GENERATION for an unknown group: they rejoin."""
    return ErrorCode.GROUP_ID_NOT_FOUND if request.knows_unknown_groups else ErrorCode.ILLEGAL_GENERATION


def _commit_error(group: ClassicGroup, request: CommitOffsets) -> ErrorCode:
    in_transaction = request.owner is not None
    if request.generation < 0 and group.state is GroupState.EMPTY:
        return ErrorCode.NONE
    if request.generation < 0 and not request.member_id and request.instance_id is None:
        # Producers from before KIP-447 send no member.
        return ErrorCode.NONE if in_transaction else ErrorCode.UNKNOWN_MEMBER_ID
    if in_transaction and group.state is GroupState.EMPTY and not group.stored and request.generation >= 0:
        return _unknown_group(request)
    error = member_error(group, request.member_id, request.instance_id)
    if error is not ErrorCode.NONE:
        return error
    if request.generation != group.generation:
        return ErrorCode.ILLEGAL_GENERATION
    completing = group.state is GroupState.COMPLETING_REBALANCE and not in_transaction
    return ErrorCode.REBALANCE_IN_PROGRESS if completing else ErrorCode.NONE


def delete_offsets(group: ClassicGroup | None, request: DeleteOffsets, waiter: Waiter) -> GroupDecision:
    """Delete offsets of topics that no member subscribes to."""
    if group is None:
        return answer(group, waiter, DeleteOffsetsResult(error=ErrorCode.GROUP_ID_NOT_FOUND))
    if group.state is not GroupState.EMPTY and group.protocol_type != CONSUMER:
        return answer(group, waiter, DeleteOffsetsResult(error=ErrorCode.NON_EMPTY_GROUP))
    return offset_rules.delete_offsets(group, request, waiter)


def delete_group(group: AnyGroup | None, waiter: Waiter) -> GroupDecision:
    """Delete an empty group of any kind, and its offsets."""
    if group is None:
        return answer(group, waiter, ErrorCode.GROUP_ID_NOT_FOUND)
    if group.empty_since_ms is None:
        return answer(group, waiter, ErrorCode.NON_EMPTY_GROUP)
    return GroupDecision(state=None, records=(GroupDeleted(),), replies=(Reply(waiter, ErrorCode.NONE),))


def remove_group(group: AnyGroup | None, waiter: Waiter) -> GroupDecision:
    """Delete a group of any kind with its members, which cannot come back: their virtual cluster is being deleted."""
    if group is None:
        return answer(group, waiter, ErrorCode.GROUP_ID_NOT_FOUND)
    replies = [Reply(waiter, ErrorCode.NONE)]
    if isinstance(group, ClassicGroup):
        error = ErrorCode.COORDINATOR_NOT_AVAILABLE
        for member in group.members.values():
            if member.join_waiter is not None:
                replies.append(Reply(member.join_waiter, JoinResult(error=error, member_id=member.member_id)))
            if member.sync_waiter is not None:
                replies.append(Reply(member.sync_waiter, SyncResult(error=error)))
    return GroupDecision(state=None, records=(GroupDeleted(),), replies=tuple(replies))


def expire_offsets(
    group: ClassicGroup | None, stored: StoredOffsets, waiter: Waiter, now_ms: int, settings: GroupSettings
) -> GroupDecision:
    """Delete expired offsets, and an empty group with the last of them, or without any (KIP-211).

    The retention counts from when the group became empty, else from the commit: for simple groups, and for topics that
    the consumers of a stable group do not subscribe to any more.
    """
    if group is None:
        return answer(group, waiter, 0)
    is_empty = group.state is GroupState.EMPTY and not group.pending_members
    return offset_rules.delete_expired(
        group, stored, lambda topic, offset: _is_expired(group, topic, offset, now_ms, settings), waiter,
        is_empty=is_empty,
    )  # fmt: skip


def _is_expired(
    group: ClassicGroup, topic: str, offset: OffsetAndMetadata, now_ms: int, settings: GroupSettings
) -> bool:
    if group.is_subscribed(topic):
        return False
    if group.protocol_type is None:
        base_ms = offset.committed_ms
    elif group.state is GroupState.EMPTY:
        base_ms = group.since_ms
    elif group.state is GroupState.STABLE and group.subscribed is not None:
        base_ms = offset.committed_ms
    else:
        return False
    if offset.expires_ms is not None:
        return now_ms >= offset.expires_ms
    return now_ms - base_ms >= settings.offsets_retention_ms
