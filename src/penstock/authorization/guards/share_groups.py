"""Guards of share groups (KIP-932): members need READ on the group and the topics, describing needs DESCRIBE."""

from __future__ import annotations

from typing import Any

from penstock.authorization.guards.access import (
    GROUP,
    GROUP_DENIED,
    OPERATIONS_AT_ONCE,
    TOPIC,
    TOPIC_DENIED,
    Handler,
    RequestAccess,
)
from penstock.authorization.guards.groups import HIDDEN_TOPICS, member_denial
from penstock.base.acls import Operation
from penstock.base.cooperative import map_each, map_nested, yield_if_due
from penstock.wire.messages import alter_share_group_offsets as altering
from penstock.wire.messages import delete_share_group_offsets as deleting
from penstock.wire.messages import describe_share_group_offsets as offsets
from penstock.wire.messages import share_acknowledge as acknowledging
from penstock.wire.messages import share_fetch as fetching
from penstock.wire.messages import share_group_describe as describing
from penstock.wire.messages import share_group_heartbeat as heartbeats


async def heartbeat(
    access: RequestAccess, request: heartbeats.ShareGroupHeartbeatRequest, handle: Handler
) -> heartbeats.ShareGroupHeartbeatResponse:
    """READ on the group, else 30; DESCRIBE on every topic that is subscribed to, else 29."""
    denial = await member_denial(access, request.group_id, request.subscribed_topic_names)
    if denial is not None:
        return heartbeats.ShareGroupHeartbeatResponse(error_code=denial.code, error_message=denial.message)
    response: heartbeats.ShareGroupHeartbeatResponse = await handle(request)
    return response


async def describe(
    access: RequestAccess, request: describing.ShareGroupDescribeRequest, handle: Handler
) -> describing.ShareGroupDescribeResponse:
    """DESCRIBE on each group, else 30; on each topic assigned to a member, else 29 and an empty member list."""
    request.group_ids, denied = await access.split(
        Operation.DESCRIBE, GROUP, request.group_ids, lambda group_id: group_id
    )
    response: describing.ShareGroupDescribeResponse = await handle(request)
    for number, group in enumerate(response.groups):
        await yield_if_due(number, OPERATIONS_AT_ONCE)
        if request.include_authorized_operations and not group.error_code:
            group.authorized_operations = access.operations(GROUP, group.group_id)
        held = {topic.topic_name for member in group.members for topic in member.assignment.topic_partitions}
        if not await access.may_all(Operation.DESCRIBE, TOPIC, sorted(held)):
            group.error_code, group.error_message, group.members = TOPIC_DENIED.code, HIDDEN_TOPICS, []
    response.groups += await map_each(
        denied,
        lambda group_id: describing.DescribedGroup(error_code=GROUP_DENIED.code, error_message=None, group_id=group_id),
    )
    return response


def _name_of(access: RequestAccess, topic_id: bytes) -> str | None:
    return access.topics.topic_name(access.context.cluster_id, bytes(topic_id))


async def fetch(
    access: RequestAccess, request: fetching.ShareFetchRequest, handle: Handler
) -> fetching.ShareFetchResponse:
    """READ on the group, else 30; READ on each topic, else 29 for its partitions. Topics of the session that are not in
    the request are checked by the handler, before it acquires records."""
    if not access.may(Operation.READ, GROUP, request.group_id or ""):
        return fetching.ShareFetchResponse(error_code=GROUP_DENIED.code, error_message=GROUP_DENIED.message)
    request.topics, denied = await access.split(
        Operation.READ, TOPIC, request.topics, lambda topic: _name_of(access, topic.topic_id)
    )
    response: fetching.ShareFetchResponse = await handle(request)
    if response.error_code:
        return response
    response.responses += await map_nested(
        denied,
        lambda topic: topic.partitions,
        lambda one: _unfetched(one.partition_index),
        lambda topic, partitions: fetching.ShareFetchableTopicResponse(topic_id=topic.topic_id, partitions=partitions),
    )
    return response


def _unfetched(index: int) -> Any:
    return fetching.PartitionData(
        partition_index=index, error_code=TOPIC_DENIED.code, error_message=TOPIC_DENIED.message,
        acknowledge_error_message=None, records=None,
    )  # fmt: skip


async def acknowledge(
    access: RequestAccess, request: acknowledging.ShareAcknowledgeRequest, handle: Handler
) -> acknowledging.ShareAcknowledgeResponse:
    """READ on the group, else 30; READ on each topic, else 29 for its partitions."""
    if not access.may(Operation.READ, GROUP, request.group_id or ""):
        return acknowledging.ShareAcknowledgeResponse(error_code=GROUP_DENIED.code, error_message=GROUP_DENIED.message)
    request.topics, denied = await access.split(
        Operation.READ, TOPIC, request.topics, lambda topic: _name_of(access, topic.topic_id)
    )
    response: acknowledging.ShareAcknowledgeResponse = await handle(request)
    if response.error_code:
        return response
    response.responses += await map_nested(
        denied,
        lambda topic: topic.partitions,
        lambda one: acknowledging.PartitionData(
            partition_index=one.partition_index, error_code=TOPIC_DENIED.code, error_message=TOPIC_DENIED.message
        ),
        lambda topic, partitions: acknowledging.ShareAcknowledgeTopicResponse(
            topic_id=topic.topic_id, partitions=partitions
        ),
    )
    return response


async def describe_offsets(
    access: RequestAccess, request: offsets.DescribeShareGroupOffsetsRequest, handle: Handler
) -> offsets.DescribeShareGroupOffsetsResponse:
    """DESCRIBE on each group, else 30; on each topic, else 29. "All topics" are filtered by DESCRIBE."""
    asked, refused = await access.split(Operation.DESCRIBE, GROUP, request.groups, lambda group: group.group_id)
    hidden: list[list[offsets.DescribeShareGroupOffsetsRequestTopic]] = []
    for number, group in enumerate(asked):
        await yield_if_due(number)
        denied: list[offsets.DescribeShareGroupOffsetsRequestTopic] = []
        if group.topics is not None:
            group.topics, denied = await access.split(
                Operation.DESCRIBE, TOPIC, group.topics, lambda topic: topic.topic_name
            )
        hidden.append(denied)
    request.groups = asked
    response: offsets.DescribeShareGroupOffsetsResponse = await handle(request)
    for number, (group, answer, denied) in enumerate(zip(asked, response.groups, hidden, strict=True)):
        await yield_if_due(number)
        if group.topics is None:
            answer.topics = await access.visible(Operation.DESCRIBE, TOPIC, answer.topics, lambda one: one.topic_name)
        answer.topics += await map_nested(
            denied,
            lambda topic: topic.partitions,
            lambda index: offsets.DescribeShareGroupOffsetsResponsePartition(
                partition_index=index, start_offset=-1, error_code=TOPIC_DENIED.code, error_message=TOPIC_DENIED.message
            ),
            lambda topic, partitions: offsets.DescribeShareGroupOffsetsResponseTopic(
                topic_name=topic.topic_name, partitions=partitions
            ),
        )
    response.groups += await map_each(
        refused,
        lambda group: offsets.DescribeShareGroupOffsetsResponseGroup(
            group_id=group.group_id, error_code=GROUP_DENIED.code, error_message=GROUP_DENIED.message
        ),
    )
    return response


async def alter_offsets(
    access: RequestAccess, request: altering.AlterShareGroupOffsetsRequest, handle: Handler
) -> altering.AlterShareGroupOffsetsResponse:
    """READ on the group, else 30; READ on each topic, else 29 for its partitions."""
    if not access.may(Operation.READ, GROUP, request.group_id):
        return altering.AlterShareGroupOffsetsResponse(error_code=GROUP_DENIED.code, error_message=GROUP_DENIED.message)
    request.topics, denied = await access.split(Operation.READ, TOPIC, request.topics, lambda topic: topic.topic_name)
    response: altering.AlterShareGroupOffsetsResponse = await handle(request)
    if response.error_code:
        return response
    response.responses += await map_nested(
        denied,
        lambda topic: topic.partitions,
        lambda one: altering.AlterShareGroupOffsetsResponsePartition(
            partition_index=one.partition_index, error_code=TOPIC_DENIED.code, error_message=TOPIC_DENIED.message
        ),
        lambda topic, partitions: altering.AlterShareGroupOffsetsResponseTopic(
            topic_name=topic.topic_name, partitions=partitions
        ),
    )
    return response


async def delete_offsets(
    access: RequestAccess, request: deleting.DeleteShareGroupOffsetsRequest, handle: Handler
) -> deleting.DeleteShareGroupOffsetsResponse:
    """DELETE on the group, else 30; READ on each topic, else 29."""
    if not access.may(Operation.DELETE, GROUP, request.group_id):
        return deleting.DeleteShareGroupOffsetsResponse(
            error_code=GROUP_DENIED.code, error_message=GROUP_DENIED.message
        )
    request.topics, denied = await access.split(Operation.READ, TOPIC, request.topics, lambda topic: topic.topic_name)
    response: deleting.DeleteShareGroupOffsetsResponse = await handle(request)
    if response.error_code:
        return response
    response.responses += await map_each(
        denied,
        lambda topic: deleting.DeleteShareGroupOffsetsResponseTopic(
            topic_name=topic.topic_name, error_code=TOPIC_DENIED.code, error_message=TOPIC_DENIED.message
        ),
    )
    return response
