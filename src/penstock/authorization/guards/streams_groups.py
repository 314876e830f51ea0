"""Guards of streams groups (KIP-1071): READ on the group, DESCRIBE on every topic of the topology."""

from __future__ import annotations

from collections.abc import Iterator

from penstock.authorization.guards.access import GROUP, NO_GROUP, NO_TOPIC, TOLD_AT_ONCE, TOPIC, Access, Ask
from penstock.authorization.guards.groups import HIDDEN_TOPICS, refused_member
from penstock.base.acls import Operation
from penstock.base.portions import breathe, each
from penstock.wire.messages import streams_group_describe as describing
from penstock.wire.messages import streams_group_heartbeat as heartbeats
from penstock.wire.messages import streams_group_topology_description_update as updating


async def heartbeat(
    access: Access, request: heartbeats.StreamsGroupHeartbeatRequest, ask: Ask
) -> heartbeats.StreamsGroupHeartbeatResponse:
    """READ on the group, else 30; DESCRIBE on every topic of the topology, else 29."""
    topics = () if request.topology is None else _topics(request.topology)
    refusal = await refused_member(access, request.group_id, topics)
    if refusal is not None:
        return heartbeats.StreamsGroupHeartbeatResponse(error_code=refusal.code, error_message=refusal.message)
    response: heartbeats.StreamsGroupHeartbeatResponse = await ask(request)
    return response


def _topics(topology: heartbeats.Topology | describing.Topology) -> Iterator[str]:
    for part in topology.subtopologies or ():
        yield from part.source_topics
        yield from part.repartition_sink_topics
        yield from (topic.name for topic in part.repartition_source_topics)
        yield from (topic.name for topic in part.state_changelog_topics)


async def describe(
    access: Access, request: describing.StreamsGroupDescribeRequest, ask: Ask
) -> describing.StreamsGroupDescribeResponse:
    """DESCRIBE on each group, else 30, and on each topic of its topology, else 29, no members and no topology."""
    request.group_ids, denied = await access.split(
        Operation.DESCRIBE, GROUP, request.group_ids, lambda group_id: group_id
    )
    response: describing.StreamsGroupDescribeResponse = await ask(request)
    for number, group in enumerate(response.groups):
        await breathe(number, TOLD_AT_ONCE)
        if request.include_authorized_operations and not group.error_code:
            group.authorized_operations = access.operations(GROUP, group.group_id)
        names = () if group.topology is None else sorted(set(_topics(group.topology)))
        if not await access.may_all(Operation.DESCRIBE, TOPIC, names):
            group.error_code, group.error_message, group.members = NO_TOPIC.code, HIDDEN_TOPICS, []
            group.topology = group.topology_description = None
    response.groups += await each(
        denied,
        lambda group_id: describing.DescribedGroup(
            error_code=NO_GROUP.code, error_message=None, group_id=group_id, topology=None, topology_description=None
        ),
    )
    return response


async def update_topology_description(
    access: Access, request: updating.StreamsGroupTopologyDescriptionUpdateRequest, ask: Ask
) -> updating.StreamsGroupTopologyDescriptionUpdateResponse:
    """READ on the group, else 30."""
    if not access.may(Operation.READ, GROUP, request.group_id):
        return updating.StreamsGroupTopologyDescriptionUpdateResponse(
            error_code=NO_GROUP.code, error_message=NO_GROUP.message
        )
    response: updating.StreamsGroupTopologyDescriptionUpdateResponse = await ask(request)
    return response
