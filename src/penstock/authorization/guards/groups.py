"""Guards of groups of every type: members need READ on the group, describing it needs DESCRIBE, else 30."""

from __future__ import annotations

from collections.abc import Iterable

from penstock.authorization.guards.access import (
    CLUSTER_DENIED,
    GROUP,
    GROUP_DENIED,
    OPERATIONS_AT_ONCE,
    TOPIC,
    TOPIC_DENIED,
    TRANSACTIONAL_ID,
    TRANSACTIONAL_ID_DENIED,
    Denial,
    Handler,
    RequestAccess,
)
from penstock.base.acls import Operation
from penstock.base.cooperative import map_each, yield_if_due
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages import consumer_group_describe, consumer_group_heartbeat, delete_groups, describe_groups
from penstock.wire.messages import find_coordinator as finding
from penstock.wire.messages import heartbeat as heartbeats
from penstock.wire.messages import join_group as joining
from penstock.wire.messages import leave_group as leaving
from penstock.wire.messages import list_groups as listing
from penstock.wire.messages import sync_group as syncing

GROUP_KEY, TRANSACTION_KEY, SHARE_KEY = 0, 1, 2
NULL_PROTOCOL_SINCE = 7
HIDDEN_TOPICS = "The group has described topic(s) that the client is not authorized to describe."


async def find_coordinator(
    access: RequestAccess, request: finding.FindCoordinatorRequest, handle: Handler
) -> finding.FindCoordinatorResponse:
    """DESCRIBE on the group (else 30) or transactional id (else 53); CLUSTER_ACTION for share groups (else 31)."""
    batched = access.context.api_version >= 4
    keys = request.coordinator_keys if batched else [request.key]
    denials = {}
    for number, key in enumerate(keys):
        await yield_if_due(number)
        denial = _coordinator_denial(access, request.key_type, key)
        if denial is not None:
            denials[key] = denial
    response: finding.FindCoordinatorResponse
    if not batched:
        for denial in denials.values():
            return finding.FindCoordinatorResponse(
                error_code=denial.code, error_message=denial.message, node_id=-1, host="", port=-1
            )
        response = await handle(request)
        return response
    request.coordinator_keys = [key for key in keys if key not in denials]
    response = await handle(request)
    response.coordinators += await map_each(
        list(denials),
        lambda key: finding.Coordinator(key=key, node_id=-1, host="", port=-1, error_code=denials[key].code),
    )
    return response


def _coordinator_denial(access: RequestAccess, key_type: int, key: str) -> Denial | None:
    if key_type == GROUP_KEY and not access.may(Operation.DESCRIBE, GROUP, key):
        return GROUP_DENIED
    if key_type == TRANSACTION_KEY and not access.may(Operation.DESCRIBE, TRANSACTIONAL_ID, key):
        return TRANSACTIONAL_ID_DENIED
    if key_type == SHARE_KEY and not access.may_on_cluster(Operation.CLUSTER_ACTION):
        return CLUSTER_DENIED
    return None


async def join_group(
    access: RequestAccess, request: joining.JoinGroupRequest, handle: Handler
) -> joining.JoinGroupResponse:
    """READ on the group, else 30."""
    if not access.may(Operation.READ, GROUP, request.group_id):
        name = None if access.context.api_version >= NULL_PROTOCOL_SINCE else ""
        return joining.JoinGroupResponse(
            error_code=GROUP_DENIED.code, generation_id=-1, protocol_name=name, leader="", member_id=""
        )
    response: joining.JoinGroupResponse = await handle(request)
    return response


async def sync_group(
    access: RequestAccess, request: syncing.SyncGroupRequest, handle: Handler
) -> syncing.SyncGroupResponse:
    """READ on the group, else 30."""
    if not access.may(Operation.READ, GROUP, request.group_id):
        return syncing.SyncGroupResponse(error_code=GROUP_DENIED.code)
    response: syncing.SyncGroupResponse = await handle(request)
    return response


async def heartbeat(
    access: RequestAccess, request: heartbeats.HeartbeatRequest, handle: Handler
) -> heartbeats.HeartbeatResponse:
    """READ on the group, else 30."""
    if not access.may(Operation.READ, GROUP, request.group_id):
        return heartbeats.HeartbeatResponse(error_code=GROUP_DENIED.code)
    response: heartbeats.HeartbeatResponse = await handle(request)
    return response


async def leave_group(
    access: RequestAccess, request: leaving.LeaveGroupRequest, handle: Handler
) -> leaving.LeaveGroupResponse:
    """READ on the group, else 30."""
    if not access.may(Operation.READ, GROUP, request.group_id):
        return leaving.LeaveGroupResponse(error_code=GROUP_DENIED.code)
    response: leaving.LeaveGroupResponse = await handle(request)
    return response


async def describe(
    access: RequestAccess, request: describe_groups.DescribeGroupsRequest, handle: Handler
) -> describe_groups.DescribeGroupsResponse:
    """DescribeGroups: DESCRIBE on each group, else 30."""
    request.groups, denied = await access.split(Operation.DESCRIBE, GROUP, request.groups, lambda group_id: group_id)
    response: describe_groups.DescribeGroupsResponse = await handle(request)
    if request.include_authorized_operations:
        for number, group in enumerate(response.groups):
            await yield_if_due(number, OPERATIONS_AT_ONCE)
            if not group.error_code:
                group.authorized_operations = access.operations(GROUP, group.group_id)
    response.groups += await map_each(
        denied,
        lambda group_id: describe_groups.DescribedGroup(
            error_code=GROUP_DENIED.code, error_message=None, group_id=group_id, authorized_operations=-(1 << 31)
        ),
    )
    return response


async def list_groups(
    access: RequestAccess, request: listing.ListGroupsRequest, handle: Handler
) -> listing.ListGroupsResponse:
    """DESCRIBE on the cluster lists all groups; otherwise the list is filtered by DESCRIBE on the group."""
    response: listing.ListGroupsResponse = await handle(request)
    if not access.may_quietly_on_cluster(Operation.DESCRIBE):
        response.groups = await access.visible(Operation.DESCRIBE, GROUP, response.groups, lambda group: group.group_id)
    return response


async def delete(
    access: RequestAccess, request: delete_groups.DeleteGroupsRequest, handle: Handler
) -> delete_groups.DeleteGroupsResponse:
    """DeleteGroups: DELETE on each group, else 30."""
    wanted = list(dict.fromkeys(request.groups_names))
    request.groups_names, denied = await access.split(Operation.DELETE, GROUP, wanted, lambda group_id: group_id)
    response: delete_groups.DeleteGroupsResponse = await handle(request)
    response.results += await map_each(
        denied, lambda group_id: delete_groups.DeletableGroupResult(group_id=group_id, error_code=GROUP_DENIED.code)
    )
    return response


# ---- groups with a heartbeat API (KIP-848) ---------------------------------------------------------------------------


async def member_denial(access: RequestAccess, group_id: str, topics: Iterable[str] | None) -> Denial | None:
    """Why the caller may not join with these topics; None if it may: READ on the group, DESCRIBE on all topics."""
    if not access.may(Operation.READ, GROUP, group_id):
        return GROUP_DENIED
    if not await access.may_all(Operation.DESCRIBE, TOPIC, topics or ()):
        return TOPIC_DENIED
    return None


async def consumer_heartbeat(
    access: RequestAccess, request: consumer_group_heartbeat.ConsumerGroupHeartbeatRequest, handle: Handler
) -> consumer_group_heartbeat.ConsumerGroupHeartbeatResponse:
    """READ on the group, else 30; DESCRIBE on every topic that is subscribed to by name, else 29."""
    denial = await member_denial(access, request.group_id, request.subscribed_topic_names)
    if denial is not None:
        return consumer_group_heartbeat.ConsumerGroupHeartbeatResponse(
            error_code=denial.code, error_message=denial.message
        )
    response: consumer_group_heartbeat.ConsumerGroupHeartbeatResponse = await handle(request)
    return response


async def consumer_describe(
    access: RequestAccess, request: consumer_group_describe.ConsumerGroupDescribeRequest, handle: Handler
) -> consumer_group_describe.ConsumerGroupDescribeResponse:
    """DESCRIBE on each group, else 30; on each topic assigned to a member, else 29 and an empty member list."""
    request.group_ids, denied = await access.split(
        Operation.DESCRIBE, GROUP, request.group_ids, lambda group_id: group_id
    )
    response: consumer_group_describe.ConsumerGroupDescribeResponse = await handle(request)
    for number, group in enumerate(response.groups):
        await yield_if_due(number, OPERATIONS_AT_ONCE)
        if request.include_authorized_operations and not group.error_code:
            group.authorized_operations = access.operations(GROUP, group.group_id)
        held = {
            topic.topic_name
            for member in group.members
            for assignment in (member.assignment, member.target_assignment)
            for topic in assignment.topic_partitions
        }
        if not await access.may_all(Operation.DESCRIBE, TOPIC, sorted(held)):
            group.error_code, group.error_message, group.members = TOPIC_DENIED.code, HIDDEN_TOPICS, []
    response.groups += await map_each(
        denied,
        lambda group_id: consumer_group_describe.DescribedGroup(
            error_code=ErrorCode.GROUP_AUTHORIZATION_FAILED, error_message=None, group_id=group_id
        ),
    )
    return response
