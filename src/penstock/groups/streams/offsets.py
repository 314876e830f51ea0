"""Offsets of streams groups: who may commit and fetch them. Pure: no await, no clock, no I/O."""

from __future__ import annotations

from penstock.coordination.model import Reply, Waiter
from penstock.groups import offset_rules
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
    return offset_rules.commit_error(
        group.members, request, lambda member: _held_all_since(group, member, request, topics)
    )


def _held_all_since(group: StreamsGroup, member: StreamsMember, request: CommitOffsets, topics: TopicView) -> bool:
    """Whether a member has had the tasks of all these partitions since the epoch that the request names."""
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
    return offset_rules.fetch_error(group.members, member_id, epoch)
