"""Dispatch of requests to the rules of the group's kind. Pure: no await, no clock, no I/O.

APIs that only one kind has are in that kind's own modules. Here are those that may name a group of any kind. A group of
a kind that an API does not support is treated as an unknown group, or as one without that member.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from penstock.base.lazy import lazy_import
from penstock.coordination.model import Key, Waiter
from penstock.groups import offset_rules, transitions
from penstock.groups.consumer.model import ConsumerGroup
from penstock.groups.join import has_valid_session
from penstock.groups.join import join as join_classic
from penstock.groups.model import (
    AnyGroup,
    ClassicGroup,
    ClassicHeartbeat,
    CommitOffsets,
    DeleteOffsets,
    DeleteOffsetsResult,
    GroupDecision,
    Join,
    JoinResult,
    LeaveResult,
    LeavingMember,
    StoredOffsets,
    Sync,
    SyncResult,
)
from penstock.groups.rule_context import RuleContext
from penstock.groups.share.model import ShareGroup
from penstock.groups.streams.model import StreamsGroup
from penstock.groups.transitions import answer
from penstock.wire.error_codes import ErrorCode

if TYPE_CHECKING:
    from penstock.groups.consumer import classic_members
    from penstock.groups.consumer import transitions as consumer
    from penstock.groups.share import membership as share
    from penstock.groups.streams import offsets as streams_offsets
    from penstock.groups.streams import transitions as streams
else:  # Imported lazily: not every deployment has such groups.
    classic_members = lazy_import("penstock.groups.consumer.classic_members")
    consumer = lazy_import("penstock.groups.consumer.transitions")
    share = lazy_import("penstock.groups.share.membership")
    streams = lazy_import("penstock.groups.streams.transitions")
    streams_offsets = lazy_import("penstock.groups.streams.offsets")

RuleContextOf = Callable[[Key, int], RuleContext]
"""The settings and topics that rules use for a group, at a given time."""


class GroupRules:
    """The rules for groups of all kinds."""

    def __init__(self, rule_context: RuleContextOf) -> None:
        self.rule_context = rule_context

    # --- Without a request ---

    def expired(self, key: Key, state: AnyGroup | None, timer: str, now_ms: int) -> GroupDecision:
        """A timer of a group fired."""
        context = self.rule_context(key, now_ms)
        match state:
            case ClassicGroup():
                return transitions.expired(state, timer, now_ms, context.settings)
            case ConsumerGroup():
                return consumer.expired(state, timer, context)
            case ShareGroup():
                return share.expired(state, timer, now_ms)
            case StreamsGroup():
                return streams.expired(state, timer, context)
        return GroupDecision(state=state)

    def restored(self, key: Key, state: AnyGroup, now_ms: int) -> GroupDecision:
        """A group was loaded."""
        context = self.rule_context(key, now_ms)
        match state:
            case ClassicGroup():
                return transitions.restored(state, now_ms, context.settings)
            case ConsumerGroup():
                return consumer.restored(state, context)
            case ShareGroup():
                return share.restored(state, context.settings.share)
            case StreamsGroup():
                return streams.restored(state, context)
        return GroupDecision(state=state)

    def is_stored(self, state: AnyGroup) -> bool:
        """Whether a group has a row. All but classic ones always have."""
        return state.stored if isinstance(state, ClassicGroup) else True

    # --- Members that use the classic protocol ---

    def join(self, key: Key, group: AnyGroup | None, request: Join, waiter: Waiter, now_ms: int) -> GroupDecision:
        """JoinGroup. An empty consumer or streams group becomes a classic one."""
        context = self.rule_context(key, now_ms)
        if isinstance(group, ConsumerGroup) and group.members:
            return classic_members.join(group, request, waiter, context)
        if group is None or isinstance(group, ClassicGroup):
            return join_classic(group, request, waiter, now_ms, context.settings)
        if isinstance(group, ConsumerGroup | StreamsGroup) and not group.members:
            return join_classic(_emptied(group), request, waiter, now_ms, context.settings)
        if not has_valid_session(request, context.settings):
            error, member_id = ErrorCode.INVALID_SESSION_TIMEOUT, request.member_id
        else:
            error, member_id = ErrorCode.INCONSISTENT_GROUP_PROTOCOL, ""
        return answer(group, waiter, JoinResult(error=error, member_id=member_id))

    def sync(self, key: Key, group: AnyGroup | None, request: Sync, waiter: Waiter, now_ms: int) -> GroupDecision:
        """SyncGroup."""
        context = self.rule_context(key, now_ms)
        if isinstance(group, ConsumerGroup):
            return classic_members.sync(group, request, waiter, context)
        if group is None or isinstance(group, ClassicGroup):
            return transitions.sync(group, request, waiter, now_ms, context.settings)
        return answer(group, waiter, SyncResult(error=ErrorCode.UNKNOWN_MEMBER_ID))

    def heartbeat(
        self, key: Key, group: AnyGroup | None, request: ClassicHeartbeat, waiter: Waiter, now_ms: int
    ) -> GroupDecision:
        """Heartbeat."""
        if isinstance(group, ConsumerGroup):
            return classic_members.heartbeat(group, request, waiter, self.rule_context(key, now_ms))
        if group is None or isinstance(group, ClassicGroup):
            return transitions.heartbeat(group, request, waiter)
        return answer(group, waiter, ErrorCode.UNKNOWN_MEMBER_ID)

    def leave(
        self, key: Key, group: AnyGroup | None, leavers: Sequence[LeavingMember], waiter: Waiter, now_ms: int
    ) -> GroupDecision:
        """LeaveGroup."""
        context = self.rule_context(key, now_ms)
        if isinstance(group, ConsumerGroup):
            return classic_members.leave(group, leavers, waiter, context)
        if group is None or isinstance(group, ClassicGroup):
            return transitions.leave(group, leavers, waiter, now_ms, context.settings)
        return answer(group, waiter, LeaveResult(errors=(ErrorCode.UNKNOWN_MEMBER_ID,) * len(leavers)))

    # --- Offsets ---

    def commit_offsets(
        self, key: Key, group: AnyGroup | None, request: CommitOffsets, waiter: Waiter, now_ms: int
    ) -> GroupDecision:
        """OffsetCommit and TxnOffsetCommit."""
        if isinstance(group, ConsumerGroup):
            return consumer.commit_offsets(group, request, waiter)
        if isinstance(group, StreamsGroup):
            return streams_offsets.commit_offsets(group, request, waiter, self.rule_context(key, now_ms).topics)
        if group is None or isinstance(group, ClassicGroup):
            return transitions.commit_offsets(group, request, waiter, now_ms, self.rule_context(key, now_ms).settings)
        return answer(group, waiter, ErrorCode.GROUP_ID_NOT_FOUND)

    def fetch_error(self, group: AnyGroup | None, member_id: str | None, epoch: int, waiter: Waiter) -> GroupDecision:
        """OffsetFetch: whether a caller that claims membership may fetch. Classic groups do not check."""
        error = ErrorCode.NONE
        if isinstance(group, ConsumerGroup):
            error = consumer.fetch_error(group, member_id, epoch)
        elif isinstance(group, StreamsGroup):
            error = streams_offsets.fetch_error(group, member_id, epoch)
        return answer(group, waiter, error)

    def delete_offsets(self, group: AnyGroup | None, request: DeleteOffsets, waiter: Waiter) -> GroupDecision:
        """OffsetDelete."""
        if isinstance(group, ConsumerGroup | StreamsGroup):
            return offset_rules.delete_offsets(group, request, waiter)
        if group is None or isinstance(group, ClassicGroup):
            return transitions.delete_offsets(group, request, waiter)
        return answer(group, waiter, DeleteOffsetsResult(error=ErrorCode.GROUP_ID_NOT_FOUND))

    def expire_offsets(
        self, key: Key, group: AnyGroup | None, stored: StoredOffsets, waiter: Waiter, now_ms: int
    ) -> GroupDecision:
        """Delete expired offsets, and the group with the last of them."""
        context = self.rule_context(key, now_ms)
        if isinstance(group, ConsumerGroup | StreamsGroup):
            return offset_rules.expire_offsets(group, stored, waiter, context)
        if group is None or isinstance(group, ClassicGroup):
            return transitions.expire_offsets(group, stored, waiter, now_ms, context.settings)
        return answer(group, waiter, 0)

    # --- Administration ---

    def delete(self, group: AnyGroup | None, waiter: Waiter) -> GroupDecision:
        """DeleteGroups, one group."""
        return transitions.delete_group(group, waiter)

    def remove(self, group: AnyGroup | None, waiter: Waiter) -> GroupDecision:
        """A group of a virtual cluster that is being deleted."""
        return transitions.remove_group(group, waiter)


def _emptied(group: ConsumerGroup | StreamsGroup) -> ClassicGroup:
    """The classic group that replaces an empty one of another kind. Its offsets stay."""
    return ClassicGroup(since_ms=group.empty_since_ms or 0, stored=True)
