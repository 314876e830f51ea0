"""Offsets of streams groups: who may commit and fetch them. Pure: no await, no clock, no I/O."""

from __future__ import annotations

from penstock.coordination.model import Reply, Waiter
from penstock.groups.consumer.transitions import MODERN_COMMITS_SINCE, STALE_EPOCHS_SINCE
from penstock.groups.model import CommitOffsets, GroupDecision
from penstock.groups.rule_context import TopicView
from penstock.groups.streams.model import StreamsGroup, StreamsMember
from penstock.groups.streams.tasks import Task
from penstock.wire.error_codes import ErrorCode


def commit_offsets(group: StreamsGroup, request: CommitOffsets, waiter: Waiter, topics: TopicView) -> GroupDecision:
    """Commit offsets for a member, or for a caller without membership while the group is empty."""
    error = _commit_error(group, request, topics)
    records = request.records if error is ErrorCode.NONE else ()
    return GroupDecision(state=group, records=records, replies=(Reply(waiter, error),))


def _commit_error(group: StreamsGroup, request: CommitOffsets, topics: TopicView) -> ErrorCode:
    in_transaction = request.owner is not None
    if request.generation < 0 and not group.members:
        return ErrorCode.NONE
    if in_transaction and request.generation == -1 and not request.member_id and request.instance_id is None:
        # Producers from before KIP-447 send no member.
        return ErrorCode.NONE
    member = group.members.get(request.member_id)
    if member is None:
        return ErrorCode.UNKNOWN_MEMBER_ID
    if not in_transaction and request.version < MODERN_COMMITS_SINCE:
        return ErrorCode.UNSUPPORTED_VERSION
    if request.generation == member.epoch or (
        request.generation < member.epoch and _had_all(group, member, request, topics)
    ):
        return ErrorCode.NONE
    understands = not in_transaction or request.version >= STALE_EPOCHS_SINCE
    return ErrorCode.STALE_MEMBER_EPOCH if understands else ErrorCode.ILLEGAL_GENERATION


def _had_all(group: StreamsGroup, member: StreamsMember, request: CommitOffsets, topics: TopicView) -> bool:
    """Whether a member has had the tasks of all these partitions since its epoch (KIP-1251)."""
    for topic_id, partition in request.offsets:
        name = topics.topic_name(topic_id)
        reader = None if name is None or group.topology is None else group.topology.reader(name)
        task = Task(reader or "", partition)
        since = member.assigned.active.get(task, member.pending_revocation.active.get(task))
        if reader is None or since is None or request.generation < since:
            return False
    return True


def fetch_error(group: StreamsGroup, member_id: str | None, epoch: int) -> ErrorCode:
    """Whether a member may fetch offsets. A caller that does not claim membership may."""
    if member_id is None and epoch < 0:
        return ErrorCode.NONE
    member = group.members.get(member_id or "")
    if member is None:
        return ErrorCode.UNKNOWN_MEMBER_ID
    return ErrorCode.NONE if epoch == member.epoch else ErrorCode.STALE_MEMBER_EPOCH
