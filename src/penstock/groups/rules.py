"""Which rules apply to a request: those of the kind that the group is of. Pure: no await, no clock, no I/O.

APIs that only one kind has are in that kind's own modules. Here are those that may name a group of any kind. A group of
a kind that an API knows nothing of is answered as if there were no such group, or no such member in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from penstock.coordination.model import Key, Waiter
from penstock.groups import transitions
from penstock.groups.join import join as join_classic
from penstock.groups.model import (
    AnyGroup,
    CommitOffsets,
    Decision,
    DeleteOffsets,
    DeleteOffsetsResult,
    Group,
    Heartbeat,
    Join,
    JoinResult,
    Leaver,
    LeaveResult,
    Offset,
    Sync,
    SyncResult,
    TopicPartition,
)
from penstock.groups.settings import GroupSettings
from penstock.groups.share import membership as share
from penstock.groups.share.model import ShareGroup
from penstock.groups.transitions import answer
from penstock.wire.error_codes import ErrorCode


class GroupRules:
    """Rules for groups of all kinds."""

    def __init__(self, settings: GroupSettings) -> None:
        self._settings = settings

    # --- Without a request ---

    def expired(self, key: Key, state: AnyGroup | None, timer: str, now_ms: int) -> Decision:
        """A timer of a group fired."""
        if state is None:
            return Decision(state=None)
        if isinstance(state, Group):
            return transitions.expired(state, timer, now_ms, self._settings)
        if isinstance(state, ShareGroup):
            return share.expired(state, timer, now_ms)
        return Decision(state=state)

    def restored(self, state: AnyGroup, now_ms: int) -> Decision:
        """A group was read back."""
        if isinstance(state, Group):
            return transitions.restored(state, now_ms, self._settings)
        if isinstance(state, ShareGroup):
            return share.restored(state, self._settings.share)
        return Decision(state=state)

    # --- Members that speak the classic protocol ---

    def join(self, key: Key, group: AnyGroup | None, request: Join, waiter: Waiter, now_ms: int) -> Decision:
        """JoinGroup."""
        if group is None or isinstance(group, Group):
            return join_classic(group, request, waiter, now_ms, self._settings)
        error = ErrorCode.INCONSISTENT_GROUP_PROTOCOL
        return answer(group, waiter, JoinResult(error=error, member_id=request.member_id))

    def sync(self, key: Key, group: AnyGroup | None, request: Sync, waiter: Waiter, now_ms: int) -> Decision:
        """SyncGroup."""
        if group is None or isinstance(group, Group):
            return transitions.sync(group, request, waiter, now_ms, self._settings)
        return answer(group, waiter, SyncResult(error=ErrorCode.UNKNOWN_MEMBER_ID))

    def heartbeat(self, key: Key, group: AnyGroup | None, request: Heartbeat, waiter: Waiter) -> Decision:
        """Heartbeat."""
        if group is None or isinstance(group, Group):
            return transitions.heartbeat(group, request, waiter)
        return answer(group, waiter, ErrorCode.UNKNOWN_MEMBER_ID)

    def leave(
        self, key: Key, group: AnyGroup | None, leavers: Sequence[Leaver], waiter: Waiter, now_ms: int
    ) -> Decision:
        """LeaveGroup."""
        if group is None or isinstance(group, Group):
            return transitions.leave(group, leavers, waiter, now_ms, self._settings)
        return answer(group, waiter, LeaveResult(errors=(ErrorCode.UNKNOWN_MEMBER_ID,) * len(leavers)))

    # --- Offsets ---

    def commit_offsets(
        self, key: Key, group: AnyGroup | None, request: CommitOffsets, waiter: Waiter, now_ms: int
    ) -> Decision:
        """OffsetCommit and TxnOffsetCommit."""
        if group is None or isinstance(group, Group):
            return transitions.commit_offsets(group, request, waiter, now_ms, self._settings)
        return answer(group, waiter, ErrorCode.GROUP_ID_NOT_FOUND)

    def delete_offsets(self, group: AnyGroup | None, request: DeleteOffsets, waiter: Waiter) -> Decision:
        """OffsetDelete."""
        if group is None or isinstance(group, Group):
            return transitions.delete_offsets(group, request, waiter)
        return answer(group, waiter, DeleteOffsetsResult(error=ErrorCode.GROUP_ID_NOT_FOUND))

    def expire_offsets(
        self,
        group: AnyGroup | None,
        offsets: Mapping[TopicPartition, Offset],
        topic_names: Mapping[bytes, str],
        waiter: Waiter,
        now_ms: int,
    ) -> Decision:
        """Drop offsets that nobody needs any more, and the group with the last of them."""
        if group is None or isinstance(group, Group):
            return transitions.expire_offsets(group, offsets, topic_names, waiter, now_ms, self._settings)
        return answer(group, waiter, 0)

    # --- Administration ---

    def delete(self, group: AnyGroup | None, waiter: Waiter) -> Decision:
        """DeleteGroups, one group."""
        return transitions.delete_group(group, waiter)
