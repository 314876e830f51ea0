"""Guards of streams groups (KIP-1071): READ on the group, DESCRIBE on every topic of the topology."""

from __future__ import annotations

from collections.abc import Iterator

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
from penstock.base.cooperative import map_each, yield_if_due
from penstock.wire.messages import streams_group_describe as describing
from penstock.wire.messages import streams_group_heartbeat as heartbeats
from penstock.wire.messages import streams_group_topology_description_update as updating


async def heartbeat(
    access: RequestAccess, request: heartbeats.StreamsGroupHeartbeatRequest, handle: Handler
) -> heartbeats.StreamsGroupHeartbeatResponse:
    """READ on the group, else 30; DESCRIBE on every topic of the topology, else 29."""
    topics = () if request.topology is None else _topics(request.topology)
    denial = await member_denial(access, request.group_id, topics)
    if denial is not None:
        return heartbeats.StreamsGroupHeartbeatResponse(error_code=denial.code, error_message=denial.message)
    response: heartbeats.StreamsGroupHeartbeatResponse = await handle(request)
    return response


def _topics(topology: heartbeats.Topology | describing.Topology) -> Iterator[str]:
    for part in topology.subtopologies or ():
        yield from part.source_topics
        yield from part.repartition_sink_topics
        yield from (topic.name for topic in part.repartition_source_topics)
        yield from (topic.name for topic in part.state_changelog_topics)


async def describe(
    access: RequestAccess, request: describing.StreamsGroupDescribeRequest, handle: Handler
) -> describing.StreamsGroupDescribeResponse:
    """DESCRIBE on each group, else 30; on each topic of its topology, else 29 without members and topology."""
    request.group_ids, denied = await access.split(
        Operation.DESCRIBE, GROUP, request.group_ids, lambda group_id: group_id
    )
    response: describing.StreamsGroupDescribeResponse = await handle(request)
    for number, group in enumerate(response.groups):
        await yield_if_due(number, OPERATIONS_AT_ONCE)
        if request.include_authorized_operations and not group.error_code:
            group.authorized_operations = access.operations(GROUP, group.group_id)
        names = () if group.topology is None else sorted(set(_topics(group.topology)))
        if not await access.may_all(Operation.DESCRIBE, TOPIC, names):
            group.error_code, group.error_message, group.members = TOPIC_DENIED.code, HIDDEN_TOPICS, []
            group.topology = group.topology_description = None
    response.groups += await map_each(
        denied,
        lambda group_id: describing.DescribedGroup(
            error_code=GROUP_DENIED.code,
            error_message=None,
            group_id=group_id,
            topology=None,
            topology_description=None,
        ),
    )
    return response


async def update_topology_description(
    access: RequestAccess, request: updating.StreamsGroupTopologyDescriptionUpdateRequest, handle: Handler
) -> updating.StreamsGroupTopologyDescriptionUpdateResponse:
    """READ on the group, else 30."""
    if not access.may(Operation.READ, GROUP, request.group_id):
        return updating.StreamsGroupTopologyDescriptionUpdateResponse(
            error_code=GROUP_DENIED.code, error_message=GROUP_DENIED.message
        )
    response: updating.StreamsGroupTopologyDescriptionUpdateResponse = await handle(request)
    return response
