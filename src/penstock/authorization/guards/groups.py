"""Guards of groups of every kind: members READ their group, onlookers DESCRIBE it, else 30."""

from __future__ import annotations

from collections.abc import Iterable

from penstock.authorization.guards.access import (
    GROUP,
    NO_CLUSTER,
    NO_GROUP,
    NO_TOPIC,
    NO_TRANSACTIONAL_ID,
    TOLD_AT_ONCE,
    TOPIC,
    TRANSACTIONAL_ID,
    Access,
    Ask,
    Refusal,
)
from penstock.base.acls import Operation
from penstock.base.portions import breathe, each
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
    access: Access, request: finding.FindCoordinatorRequest, ask: Ask
) -> finding.FindCoordinatorResponse:
    """DESCRIBE on the group (else 30) or transactional id (else 53); CLUSTER_ACTION for share groups (else 31)."""
    batched = access.context.api_version >= 4
    keys = request.coordinator_keys if batched else [request.key]
    refusals = {}
    for number, key in enumerate(keys):
        await breathe(number)
        refusal = _unfindable(access, request.key_type, key)
        if refusal is not None:
            refusals[key] = refusal
    response: finding.FindCoordinatorResponse
    if not batched:
        for refusal in refusals.values():
            return finding.FindCoordinatorResponse(
                error_code=refusal.code, error_message=refusal.message, node_id=-1, host="", port=-1
            )
        response = await ask(request)
        return response
    request.coordinator_keys = [key for key in keys if key not in refusals]
    response = await ask(request)
    response.coordinators += await each(
        list(refusals),
        lambda key: finding.Coordinator(key=key, node_id=-1, host="", port=-1, error_code=refusals[key].code),
    )
    return response


def _unfindable(access: Access, key_type: int, key: str) -> Refusal | None:
    if key_type == GROUP_KEY and not access.may(Operation.DESCRIBE, GROUP, key):
        return NO_GROUP
    if key_type == TRANSACTION_KEY and not access.may(Operation.DESCRIBE, TRANSACTIONAL_ID, key):
        return NO_TRANSACTIONAL_ID
    if key_type == SHARE_KEY and not access.may_cluster(Operation.CLUSTER_ACTION):
        return NO_CLUSTER
    return None


async def join_group(access: Access, request: joining.JoinGroupRequest, ask: Ask) -> joining.JoinGroupResponse:
    """READ on the group, else 30."""
    if not access.may(Operation.READ, GROUP, request.group_id):
        name = None if access.context.api_version >= NULL_PROTOCOL_SINCE else ""
        return joining.JoinGroupResponse(
            error_code=NO_GROUP.code, generation_id=-1, protocol_name=name, leader="", member_id=""
        )
    response: joining.JoinGroupResponse = await ask(request)
    return response


async def sync_group(access: Access, request: syncing.SyncGroupRequest, ask: Ask) -> syncing.SyncGroupResponse:
    """READ on the group, else 30."""
    if not access.may(Operation.READ, GROUP, request.group_id):
        return syncing.SyncGroupResponse(error_code=NO_GROUP.code)
    response: syncing.SyncGroupResponse = await ask(request)
    return response


async def heartbeat(access: Access, request: heartbeats.HeartbeatRequest, ask: Ask) -> heartbeats.HeartbeatResponse:
    """READ on the group, else 30."""
    if not access.may(Operation.READ, GROUP, request.group_id):
        return heartbeats.HeartbeatResponse(error_code=NO_GROUP.code)
    response: heartbeats.HeartbeatResponse = await ask(request)
    return response


async def leave_group(access: Access, request: leaving.LeaveGroupRequest, ask: Ask) -> leaving.LeaveGroupResponse:
    """READ on the group, else 30."""
    if not access.may(Operation.READ, GROUP, request.group_id):
        return leaving.LeaveGroupResponse(error_code=NO_GROUP.code)
    response: leaving.LeaveGroupResponse = await ask(request)
    return response


async def describe(
    access: Access, request: describe_groups.DescribeGroupsRequest, ask: Ask
) -> describe_groups.DescribeGroupsResponse:
    """DescribeGroups: DESCRIBE on each group, else 30."""
    request.groups, denied = await access.split(Operation.DESCRIBE, GROUP, request.groups, lambda group_id: group_id)
    response: describe_groups.DescribeGroupsResponse = await ask(request)
    if request.include_authorized_operations:
        for number, group in enumerate(response.groups):
            await breathe(number, TOLD_AT_ONCE)
            if not group.error_code:
                group.authorized_operations = access.operations(GROUP, group.group_id)
    response.groups += await each(
        denied,
        lambda group_id: describe_groups.DescribedGroup(
            error_code=NO_GROUP.code, error_message=None, group_id=group_id, authorized_operations=-(1 << 31)
        ),
    )
    return response


async def list_groups(access: Access, request: listing.ListGroupsRequest, ask: Ask) -> listing.ListGroupsResponse:
    """All groups with DESCRIBE on the cluster, else those that one may describe."""
    response: listing.ListGroupsResponse = await ask(request)
    if not access.might_cluster(Operation.DESCRIBE):
        response.groups = await access.visible(Operation.DESCRIBE, GROUP, response.groups, lambda group: group.group_id)
    return response


async def delete(
    access: Access, request: delete_groups.DeleteGroupsRequest, ask: Ask
) -> delete_groups.DeleteGroupsResponse:
    """DeleteGroups: DELETE on each group, else 30."""
    wanted = list(dict.fromkeys(request.groups_names))
    request.groups_names, denied = await access.split(Operation.DELETE, GROUP, wanted, lambda group_id: group_id)
    response: delete_groups.DeleteGroupsResponse = await ask(request)
    response.results += await each(
        denied, lambda group_id: delete_groups.DeletableGroupResult(group_id=group_id, error_code=NO_GROUP.code)
    )
    return response


# ---- groups whose members heartbeat (KIP-848) ------------------------------------------------------------------------


async def refused_member(access: Access, group_id: str, topics: Iterable[str] | None) -> Refusal | None:
    """Why the caller may not be a member that reads these topics: READ on the group, DESCRIBE on all of them."""
    if not access.may(Operation.READ, GROUP, group_id):
        return NO_GROUP
    if not await access.may_all(Operation.DESCRIBE, TOPIC, topics or ()):
        return NO_TOPIC
    return None


async def consumer_heartbeat(
    access: Access, request: consumer_group_heartbeat.ConsumerGroupHeartbeatRequest, ask: Ask
) -> consumer_group_heartbeat.ConsumerGroupHeartbeatResponse:
    """READ on the group, else 30; DESCRIBE on every topic that is subscribed to by name, else 29."""
    refusal = await refused_member(access, request.group_id, request.subscribed_topic_names)
    if refusal is not None:
        return consumer_group_heartbeat.ConsumerGroupHeartbeatResponse(
            error_code=refusal.code, error_message=refusal.message
        )
    response: consumer_group_heartbeat.ConsumerGroupHeartbeatResponse = await ask(request)
    return response


async def consumer_describe(
    access: Access, request: consumer_group_describe.ConsumerGroupDescribeRequest, ask: Ask
) -> consumer_group_describe.ConsumerGroupDescribeResponse:
    """DESCRIBE on each group, else 30, and on each topic its members have, else 29 and no members."""
    request.group_ids, denied = await access.split(
        Operation.DESCRIBE, GROUP, request.group_ids, lambda group_id: group_id
    )
    response: consumer_group_describe.ConsumerGroupDescribeResponse = await ask(request)
    for number, group in enumerate(response.groups):
        await breathe(number, TOLD_AT_ONCE)
        if request.include_authorized_operations and not group.error_code:
            group.authorized_operations = access.operations(GROUP, group.group_id)
        held = {
            topic.topic_name
            for member in group.members
            for assignment in (member.assignment, member.target_assignment)
            for topic in assignment.topic_partitions
        }
        if not await access.may_all(Operation.DESCRIBE, TOPIC, sorted(held)):
            group.error_code, group.error_message, group.members = NO_TOPIC.code, HIDDEN_TOPICS, []
    response.groups += await each(
        denied,
        lambda group_id: consumer_group_describe.DescribedGroup(
            error_code=ErrorCode.GROUP_AUTHORIZATION_FAILED, error_message=None, group_id=group_id
        ),
    )
    return response
