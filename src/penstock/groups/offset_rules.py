"""Rules of committed offsets that several kinds of groups share. Pure: no await, no clock, no I/O.

Who may commit and fetch them, for groups with server-side assignment; which may be deleted, and which expire, for all
groups that have any.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar

from penstock.coordination.model import Reply, Waiter
from penstock.groups.model import (
    AnyGroup,
    CommitOffsets,
    DeleteOffsets,
    DeleteOffsetsResult,
    GroupDecision,
    GroupDeleted,
    OffsetAndMetadata,
    OffsetsDeleted,
    Record,
    StoredOffsets,
)
from penstock.groups.rule_context import RuleContext
from penstock.wire.error_codes import ErrorCode

EPOCHS_IN_COMMITS_SINCE = 9
"""The version of OffsetCommit from which members with a member epoch may commit."""
STALE_EPOCHS_IN_TRANSACTIONS_SINCE = 6
"""The version of TxnOffsetCommit from which clients know STALE_MEMBER_EPOCH."""


class SubscribedGroup(AnyGroup, Protocol):
    """A group that knows which topics it subscribes to."""

    def is_subscribed(self, topic: str) -> bool:
        """Whether any member subscribes to a topic."""


class MemberWithEpoch(Protocol):
    """A member of a group with server-side assignment."""

    @property
    def epoch(self) -> int:
        """Its member epoch."""


M = TypeVar("M", bound=MemberWithEpoch)


def _no_member_is_classic(member: MemberWithEpoch) -> bool:
    return False


def commit_error(
    members: Mapping[str, M],
    request: CommitOffsets,
    held_all: Callable[[M], bool],
    *,
    is_classic: Callable[[M], bool] = _no_member_is_classic,
) -> ErrorCode:
    """Whether a member may commit, or a caller without membership while the group is empty.

    `held_all`: whether a member has had the partitions of the request since the epoch that it names. Then an older
    epoch than its own is accepted (KIP-1251). `is_classic`: whether it uses the classic protocol, with generations.
    """
    in_transaction = request.owner is not None
    if request.generation < 0 and not members:
        return ErrorCode.NONE
    if in_transaction and request.generation == -1 and not request.member_id and request.instance_id is None:
        # Producers from before KIP-447 send no member.
        return ErrorCode.NONE
    member = members.get(request.member_id)
    if member is None:
        return ErrorCode.UNKNOWN_MEMBER_ID
    has_epoch = not is_classic(member)
    if not in_transaction and has_epoch and request.version < EPOCHS_IN_COMMITS_SINCE:
        return ErrorCode.UNSUPPORTED_VERSION
    if request.generation == member.epoch or (request.generation < member.epoch and held_all(member)):
        return ErrorCode.NONE
    knows_stale_epochs = not in_transaction or request.version >= STALE_EPOCHS_IN_TRANSACTIONS_SINCE
    return ErrorCode.STALE_MEMBER_EPOCH if has_epoch and knows_stale_epochs else ErrorCode.ILLEGAL_GENERATION


def fetch_error(
    members: Mapping[str, M],
    member_id: str | None,
    epoch: int,
    *,
    is_classic: Callable[[M], bool] = _no_member_is_classic,
) -> ErrorCode:
    """Whether a member may fetch offsets. A caller that does not claim membership may."""
    if member_id is None and epoch < 0:
        return ErrorCode.NONE
    member = members.get(member_id or "")
    if member is None:
        return ErrorCode.UNKNOWN_MEMBER_ID
    if epoch == member.epoch:
        return ErrorCode.NONE
    return ErrorCode.ILLEGAL_GENERATION if is_classic(member) else ErrorCode.STALE_MEMBER_EPOCH


def delete_offsets(group: SubscribedGroup, request: DeleteOffsets, waiter: Waiter) -> GroupDecision:
    """Delete offsets of topics that no member subscribes to."""
    subscribed = frozenset(topic for topic in request.topics if group.is_subscribed(topic))
    partitions = tuple(p for topic, ps in request.topics.items() if topic not in subscribed for p in ps)
    records: tuple[Record, ...] = (OffsetsDeleted(partitions),) if partitions else ()
    result = DeleteOffsetsResult(subscribed=subscribed)
    return GroupDecision(state=group, records=records, replies=(Reply(waiter, result),))


def expire_offsets(
    group: SubscribedGroup, stored: StoredOffsets, waiter: Waiter, context: RuleContext
) -> GroupDecision:
    """Delete expired offsets of a group with server-side assignment.

    The retention counts from the commit, for topics that no member subscribes to. An empty group without offsets
    expires at once.
    """
    retention_ms = context.settings.offsets_retention_ms

    def is_expired(topic: str, offset: OffsetAndMetadata) -> bool:
        expires_ms = offset.committed_ms + retention_ms if offset.expires_ms is None else offset.expires_ms
        return not group.is_subscribed(topic) and context.now_ms >= expires_ms

    return delete_expired(group, stored, is_expired, waiter, is_empty=group.empty_since_ms is not None)


def delete_expired(
    group: AnyGroup,
    stored: StoredOffsets,
    is_expired: Callable[[str, OffsetAndMetadata], bool],
    waiter: Waiter,
    *,
    is_empty: bool,
) -> GroupDecision:
    """Delete expired offsets, and an empty group with the last of them, or without any (KIP-211). Replies with their
    number.

    Offsets of a topic without a name belong to a deleted one, so they are deleted too. Partitions with an offset
    pending in an open transaction keep their committed one, and the group.
    """
    expired = tuple(
        partition
        for partition, offset in stored.offsets.items()
        if partition not in stored.pending
        and ((name := stored.topic_names.get(partition[0])) is None or is_expired(name, offset))
    )
    replies = (Reply(waiter, len(expired)),)
    if is_empty and len(expired) == len(stored.offsets) and not stored.pending:
        return GroupDecision(state=None, records=(GroupDeleted(),), replies=replies)
    records: tuple[Record, ...] = (OffsetsDeleted(expired),) if expired else ()
    return GroupDecision(state=group, records=records, replies=replies)
