"""Guards of where logs start and end."""

from __future__ import annotations

from penstock.authorization.guards.access import NO_TOPIC, TOPIC, Access, Ask
from penstock.base.acls import Operation
from penstock.base.portions import nested
from penstock.wire.messages import delete_records as deleting
from penstock.wire.messages import list_offsets as listing
from penstock.wire.messages import offset_for_leader_epoch as epochs


async def list_offsets(access: Access, request: listing.ListOffsetsRequest, ask: Ask) -> listing.ListOffsetsResponse:
    """DESCRIBE on each topic, else 29 for its partitions."""
    request.topics, denied = await access.split(Operation.DESCRIBE, TOPIC, request.topics, lambda topic: topic.name)
    response: listing.ListOffsetsResponse = await ask(request)
    response.topics += await nested(
        denied,
        lambda topic: topic.partitions,
        lambda one: listing.ListOffsetsPartitionResponse(
            partition_index=one.partition_index, error_code=NO_TOPIC.code, timestamp=-1, offset=-1
        ),
        lambda topic, partitions: listing.ListOffsetsTopicResponse(name=topic.name, partitions=partitions),
    )
    return response


async def offset_for_leader_epoch(
    access: Access, request: epochs.OffsetForLeaderEpochRequest, ask: Ask
) -> epochs.OffsetForLeaderEpochResponse:
    """CLUSTER_ACTION, or DESCRIBE on each topic, else 29 for its partitions."""
    denied: list[epochs.OffsetForLeaderTopic] = []
    if not access.might_cluster(Operation.CLUSTER_ACTION):
        request.topics, denied = await access.split(
            Operation.DESCRIBE, TOPIC, request.topics, lambda topic: topic.topic
        )
    response: epochs.OffsetForLeaderEpochResponse = await ask(request)
    response.topics += await nested(
        denied,
        lambda topic: topic.partitions,
        lambda one: epochs.EpochEndOffset(partition=one.partition, error_code=NO_TOPIC.code),
        lambda topic, partitions: epochs.OffsetForLeaderTopicResult(topic=topic.topic, partitions=partitions),
    )
    return response


async def delete_records(
    access: Access, request: deleting.DeleteRecordsRequest, ask: Ask
) -> deleting.DeleteRecordsResponse:
    """DELETE on each topic, else 29 for its partitions."""
    request.topics, denied = await access.split(Operation.DELETE, TOPIC, request.topics, lambda topic: topic.name)
    response: deleting.DeleteRecordsResponse = await ask(request)
    response.topics += await nested(
        denied,
        lambda topic: topic.partitions,
        lambda one: deleting.DeleteRecordsPartitionResult(
            partition_index=one.partition_index, low_watermark=-1, error_code=NO_TOPIC.code
        ),
        lambda topic, partitions: deleting.DeleteRecordsTopicResult(name=topic.name, partitions=partitions),
    )
    return response
