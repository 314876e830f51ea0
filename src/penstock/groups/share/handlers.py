"""Kafka's APIs ShareGroupHeartbeat and ShareGroupDescribe: translation, no rules."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from penstock.base.context import RequestContext
from penstock.base.errors import PlatformError
from penstock.groups.capacity import MAX_SUBSCRIBED_TOPICS
from penstock.groups.describing import describe_within_budget, each_member, grant_all
from penstock.groups.failures import ASK_AGAIN, code_of, message_of
from penstock.groups.member_epochs import JOIN_EPOCH, LEAVE_EPOCH
from penstock.groups.partitions import Partitions
from penstock.groups.share.model import ShareGroup, ShareHeartbeat, ShareMember
from penstock.groups.share.service import ShareGroups
from penstock.log.registry import Registry
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages import share_group_describe as describe_wire
from penstock.wire.messages import share_group_heartbeat as heartbeat_wire

ASSIGNOR = "simple"


class ShareGroupHandlers:
    """Membership APIs of share groups. Every method takes the context and a request, and returns the response."""

    def __init__(self, groups: ShareGroups, registry: Registry) -> None:
        self._groups, self._registry = groups, registry

    async def heartbeat(
        self, context: RequestContext, request: heartbeat_wire.ShareGroupHeartbeatRequest
    ) -> heartbeat_wire.ShareGroupHeartbeatResponse:
        """ShareGroupHeartbeat, key 76, v1."""
        problem = _complaint(request)
        if problem is not None:
            return heartbeat_wire.ShareGroupHeartbeatResponse(
                error_code=ErrorCode.INVALID_REQUEST, error_message=problem
            )
        names = request.subscribed_topic_names
        asked = ShareHeartbeat(
            member_id=request.member_id,
            epoch=request.member_epoch,
            rack_id=request.rack_id,
            topics=None if names is None else frozenset(names),
            client_id=context.client_id or "",
            client_host=f"/{context.client_host}",
        )
        try:
            result = await self._groups.heartbeat((context.cluster_id, request.group_id), asked)
        except PlatformError as failure:
            return heartbeat_wire.ShareGroupHeartbeatResponse(error_code=code_of(failure), error_message=str(failure))
        if result.error is not ErrorCode.NONE:
            return heartbeat_wire.ShareGroupHeartbeatResponse(error_code=result.error, error_message=result.message)
        return heartbeat_wire.ShareGroupHeartbeatResponse(
            member_id=result.member_id,
            member_epoch=result.epoch,
            heartbeat_interval_ms=result.interval_ms,
            assignment=None if result.assigned is None else _assignment(result.assigned),
        )

    async def describe(
        self, context: RequestContext, request: describe_wire.ShareGroupDescribeRequest
    ) -> describe_wire.ShareGroupDescribeResponse:
        """ShareGroupDescribe, key 77, v1."""
        groups = await describe_within_budget(
            request.group_ids, partial(self._described, context),
            lambda group_id: describe_wire.DescribedGroup(group_id=group_id, error_code=ASK_AGAIN),
        )  # fmt: skip
        if request.include_authorized_operations:
            await grant_all(groups)
        return describe_wire.ShareGroupDescribeResponse(groups=groups)

    async def _described(self, context: RequestContext, group_id: str) -> describe_wire.DescribedGroup:
        try:
            group = await self._groups.described((context.cluster_id, group_id))
        except PlatformError as failure:
            return describe_wire.DescribedGroup(
                group_id=group_id, error_code=code_of(failure), error_message=message_of(failure)
            )
        return await self._shown(context.cluster_id, group_id, group)

    async def _shown(self, cluster_id: int, group_id: str, group: ShareGroup) -> describe_wire.DescribedGroup:
        return describe_wire.DescribedGroup(
            group_id=group_id,
            group_state=group.shown_state,
            group_epoch=group.epoch,
            assignment_epoch=group.target_epoch,
            assignor_name=ASSIGNOR,
            members=await each_member(group.members.values(), partial(self._member, cluster_id)),
        )

    def _member(self, cluster_id: int, member: ShareMember) -> describe_wire.Member:
        assigned = [
            describe_wire.TopicPartitions(topic_id=topic_id, topic_name=name, partitions=sorted(partitions))
            for topic_id, partitions in member.assigned.items()
            if (name := self._registry.topic_name(cluster_id, topic_id)) is not None
        ]
        return describe_wire.Member(
            member_id=member.member_id,
            rack_id=member.rack_id,
            member_epoch=member.epoch,
            client_id=member.client_id,
            client_host=member.client_host,
            subscribed_topic_names=sorted(member.topics),
            assignment=describe_wire.Assignment(topic_partitions=assigned),
        )


def _complaint(request: heartbeat_wire.ShareGroupHeartbeatRequest) -> str | None:
    """What is wrong with a request, in Kafka's order and words."""
    if not request.member_id.strip():
        return "MemberId can't be empty."
    if not request.group_id.strip():
        return "GroupId can't be empty."
    if request.rack_id is not None and not request.rack_id.strip():
        return "RackId can't be empty."
    if len(request.subscribed_topic_names or ()) > MAX_SUBSCRIBED_TOPICS:
        return f"A member may subscribe to {MAX_SUBSCRIBED_TOPICS} topics by name."
    if request.member_epoch == JOIN_EPOCH and not request.subscribed_topic_names:
        return "SubscribedTopicNames must be set in first request."
    return "MemberEpoch is invalid." if request.member_epoch < LEAVE_EPOCH else None


def _assignment(assigned: Partitions) -> heartbeat_wire.Assignment:
    return heartbeat_wire.Assignment(topic_partitions=list(_topic_partitions(assigned)))


def _topic_partitions(assigned: Partitions) -> Iterable[heartbeat_wire.TopicPartitions]:
    for topic_id, partitions in assigned.items():
        yield heartbeat_wire.TopicPartitions(topic_id=topic_id, partitions=sorted(partitions))
