"""Kafka's APIs of consumer groups, translated to the group service and back. No rules here.

`authorized_operations` lists all operations; the guard narrows it where ACLs apply.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial

from penstock.authorization.authorizer import Authorizer, action
from penstock.base.acls import Operation, ResourceType
from penstock.base.context import RequestContext
from penstock.base.cooperative import CHEAP_ITEMS_PER_TURN, build_dict, yield_if_due
from penstock.base.errors import PlatformError
from penstock.groups.capacity import MAX_SUBSCRIBED_TOPICS
from penstock.groups.consumer.decision_builder import preferred_assignor
from penstock.groups.consumer.model import ConsumerGroup, ConsumerHeartbeat, ConsumerHeartbeatResult, ConsumerMember
from penstock.groups.describing import describe_within_budget, each_member, grant_all
from penstock.groups.failures import ASK_AGAIN, code_of, message_of
from penstock.groups.member_epochs import JOIN_EPOCH, LEAVE_EPOCH, STATIC_LEAVE_EPOCH
from penstock.groups.partitions import Partitions
from penstock.groups.service import GroupService, TopicLookup
from penstock.groups.settings import ConsumerSettings
from penstock.log.refusals import Refused
from penstock.wire.api_keys import ApiKey
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages import consumer_group_describe as describe_wire
from penstock.wire.messages import consumer_group_heartbeat as heartbeat_wire

_CLIENT_MAKES_ID_SINCE = 1
"""The version of ConsumerGroupHeartbeat from which members generate their own ids (KIP-1082)."""

_TYPE_CLASSIC, _TYPE_CONSUMER = 0, 1

_DESCRIBE_TOPIC = action(Operation.DESCRIBE, ResourceType.TOPIC)


class ConsumerGroupHandlers:
    """ConsumerGroupHeartbeat and ConsumerGroupDescribe."""

    def __init__(self, groups: GroupService, topics: TopicLookup) -> None:
        self._groups, self._topics = groups, topics
        self.authorizer: Authorizer | None = None
        """Set where ACLs apply: regular expressions match only topics that the member may describe."""

    async def heartbeat(
        self, context: RequestContext, request: heartbeat_wire.ConsumerGroupHeartbeatRequest
    ) -> heartbeat_wire.ConsumerGroupHeartbeatResponse:
        """ConsumerGroupHeartbeat, key 68, v0-1. v1: the client generates the member id, and may subscribe by a regular
        expression."""
        key = (context.cluster_id, request.group_id)
        try:
            _check(request, self._groups.settings.consumer, context.api_version)
            may_see, owned = partial(self._may_see, context), await _owned(request.topic_partitions)
            result = await self._groups.consumer_heartbeat(key, self._asked(context, request, owned), may_see)
        except Refused as refused:
            return heartbeat_wire.ConsumerGroupHeartbeatResponse(error_code=refused.code, error_message=refused.message)
        except PlatformError as error:
            return heartbeat_wire.ConsumerGroupHeartbeatResponse(error_code=code_of(error))
        return _response(result)

    def _may_see(self, context: RequestContext, topic: str) -> bool:
        authorizer, key = self.authorizer, ApiKey.CONSUMER_GROUP_HEARTBEAT
        return authorizer is None or authorizer.allows(context, key, _DESCRIBE_TOPIC, topic, is_quiet=True)

    def _asked(
        self, context: RequestContext, request: heartbeat_wire.ConsumerGroupHeartbeatRequest, owned: Partitions | None
    ) -> ConsumerHeartbeat:
        names = request.subscribed_topic_names
        return ConsumerHeartbeat(
            member_id=request.member_id or self._groups.new_member_id(),
            epoch=request.member_epoch,
            instance_id=request.instance_id,
            rack_id=request.rack_id,
            rebalance_timeout_ms=request.rebalance_timeout_ms,
            topics=None if names is None else frozenset(names),
            regex=request.subscribed_topic_regex,
            assignor=request.server_assignor,
            owned=owned,
            client_id=context.client_id or "",
            client_host=f"/{context.client_host}",
        )

    async def describe(
        self, context: RequestContext, request: describe_wire.ConsumerGroupDescribeRequest
    ) -> describe_wire.ConsumerGroupDescribeResponse:
        """ConsumerGroupDescribe, key 69, v0-1. v1: the protocol that a member uses."""
        groups = await describe_within_budget(
            request.group_ids, partial(self._describe, context),
            lambda group_id: describe_wire.DescribedGroup(group_id=group_id, error_code=ASK_AGAIN),
        )  # fmt: skip
        if request.include_authorized_operations:
            await grant_all(groups)
        return describe_wire.ConsumerGroupDescribeResponse(groups=groups)

    async def _describe(self, context: RequestContext, group_id: str) -> describe_wire.DescribedGroup:
        try:
            group = await self._groups.described((context.cluster_id, group_id), ConsumerGroup)
        except PlatformError as error:
            return describe_wire.DescribedGroup(
                group_id=group_id, error_code=code_of(error), error_message=message_of(error)
            )
        return describe_wire.DescribedGroup(
            group_id=group_id,
            group_state=group.shown_state,
            group_epoch=group.epoch,
            assignment_epoch=group.target_epoch,
            assignor_name=preferred_assignor(group, self._groups.settings.consumer),
            members=await each_member(group.members.values(), partial(self._described, context)),
        )

    def _described(self, context: RequestContext, member: ConsumerMember) -> describe_wire.Member:
        return describe_wire.Member(
            member_id=member.member_id,
            instance_id=member.instance_id,
            rack_id=member.rack_id,
            member_epoch=member.epoch,
            client_id=member.client_id,
            client_host=member.client_host,
            subscribed_topic_names=sorted(member.topics),
            subscribed_topic_regex=member.regex or "",
            assignment=self._assignment(context, _held(member)),
            target_assignment=self._assignment(context, member.target),
            member_type=_TYPE_CONSUMER if member.classic is None else _TYPE_CLASSIC,
        )

    def _assignment(
        self, context: RequestContext, partitions: Mapping[bytes, Iterable[int]]
    ) -> describe_wire.Assignment:
        return describe_wire.Assignment(
            topic_partitions=[
                describe_wire.TopicPartitions(topic_id=topic_id, topic_name=name, partitions=sorted(found))
                for topic_id, found in partitions.items()
                if (name := self._topics.topic_name(context.cluster_id, topic_id)) is not None
            ]
        )


def _held(member: ConsumerMember) -> dict[bytes, set[int]]:
    """The partitions a member has, including those it has not revoked yet."""
    held: dict[bytes, set[int]] = {}
    for partitions in (member.assigned, member.pending_revocation):
        for topic_id, found in partitions.items():
            held.setdefault(topic_id, set()).update(found)
    return held


def _check(request: heartbeat_wire.ConsumerGroupHeartbeatRequest, settings: ConsumerSettings, version: int) -> None:
    """Raise `Refused` for an inconsistent request."""
    if len(request.subscribed_topic_names or ()) > MAX_SUBSCRIBED_TOPICS:
        raise _invalid(f"A member may subscribe to {MAX_SUBSCRIBED_TOPICS} topics by name.")
    brings_id = version >= _CLIENT_MAKES_ID_SINCE or request.member_epoch > 0 or request.member_epoch == LEAVE_EPOCH
    if (brings_id or request.member_epoch == STATIC_LEAVE_EPOCH) and not request.member_id.strip():
        raise _invalid("MemberId can't be empty.")
    for name, value in (
        ("GroupId", request.group_id),
        ("InstanceId", request.instance_id),
        ("RackId", request.rack_id),
    ):
        if value is not None and not value.strip():
            raise _invalid(f"{name} can't be empty.")
    if request.member_epoch == JOIN_EPOCH:
        if request.rebalance_timeout_ms == -1:
            raise _invalid("RebalanceTimeoutMs must be provided in first request.")
        if request.topic_partitions is None or request.topic_partitions:
            raise _invalid("TopicPartitions must be empty when (re-)joining.")
        if request.subscribed_topic_names is None and request.subscribed_topic_regex is None:
            raise _invalid("Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when (re-)joining.")
    elif request.member_epoch == STATIC_LEAVE_EPOCH and request.instance_id is None:
        raise _invalid("InstanceId can't be null.")
    elif request.member_epoch < STATIC_LEAVE_EPOCH:
        raise _invalid("MemberEpoch is invalid.")
    assignor = request.server_assignor
    if assignor is not None and assignor not in settings.assignors:
        raise Refused(
            ErrorCode.UNSUPPORTED_ASSIGNOR,
            f"ServerAssignor {assignor} is not supported. Supported assignors: {', '.join(settings.assignors)}.",
        )


def _invalid(message: str) -> Refused:
    return Refused(ErrorCode.INVALID_REQUEST, message)


async def _owned(listed: list[heartbeat_wire.ConsumerGroupHeartbeatRequestTopicPartitions] | None) -> Partitions | None:
    if listed is None:
        return None
    owned: dict[bytes, set[int]] = {}
    for number, topic in enumerate(listed):
        await yield_if_due(number, CHEAP_ITEMS_PER_TURN)
        if topic.partitions:
            owned.setdefault(bytes(topic.topic_id), set()).update(topic.partitions)
    return await build_dict(list(owned.items()), lambda one: (one[0], frozenset(one[1])))


def _response(result: ConsumerHeartbeatResult) -> heartbeat_wire.ConsumerGroupHeartbeatResponse:
    assignment = None
    if result.assigned is not None:
        assignment = heartbeat_wire.Assignment(
            topic_partitions=[
                heartbeat_wire.ConsumerGroupHeartbeatResponseTopicPartitions(
                    topic_id=topic_id, partitions=sorted(found)
                )
                for topic_id, found in result.assigned.items()
            ]
        )
    return heartbeat_wire.ConsumerGroupHeartbeatResponse(
        member_id=result.member_id,
        member_epoch=result.epoch,
        heartbeat_interval_ms=result.interval_ms,
        assignment=assignment,
    )
