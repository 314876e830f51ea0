"""Guards of log offsets: listing, epoch ends, deleting records."""

from __future__ import annotations

from penstock.authorization.guards.access import TOPIC, TOPIC_DENIED, Handler, RequestAccess
from penstock.base.acls import Operation
from penstock.base.cooperative import map_nested
from penstock.wire.messages import delete_records as deleting
from penstock.wire.messages import list_offsets as listing
from penstock.wire.messages import offset_for_leader_epoch as epochs


async def list_offsets(
    access: RequestAccess, request: listing.ListOffsetsRequest, handle: Handler
) -> listing.ListOffsetsResponse:
    """DESCRIBE on each topic, else 29 for its partitions."""
    request.topics, denied = await access.split(Operation.DESCRIBE, TOPIC, request.topics, lambda topic: topic.name)
    response: listing.ListOffsetsResponse = await handle(request)
    response.topics += await map_nested(
        denied,
        lambda topic: topic.partitions,
        lambda one: listing.ListOffsetsPartitionResponse(
            partition_index=one.partition_index, error_code=TOPIC_DENIED.code, timestamp=-1, offset=-1
        ),
        lambda topic, partitions: listing.ListOffsetsTopicResponse(name=topic.name, partitions=partitions),
    )
    return response


async def offset_for_leader_epoch(
    access: RequestAccess, request: epochs.OffsetForLeaderEpochRequest, handle: Handler
) -> epochs.OffsetForLeaderEpochResponse:
    """CLUSTER_ACTION, or DESCRIBE on each topic, else 29 for its partitions."""
    denied: list[epochs.OffsetForLeaderTopic] = []
    if not access.may_quietly_on_cluster(Operation.CLUSTER_ACTION):
        request.topics, denied = await access.split(
            Operation.DESCRIBE, TOPIC, request.topics, lambda topic: topic.topic
        )
    response: epochs.OffsetForLeaderEpochResponse = await handle(request)
    response.topics += await map_nested(
        denied,
        lambda topic: topic.partitions,
        lambda one: epochs.EpochEndOffset(partition=one.partition, error_code=TOPIC_DENIED.code),
        lambda topic, partitions: epochs.OffsetForLeaderTopicResult(topic=topic.topic, partitions=partitions),
    )
    return response


async def delete_records(
    access: RequestAccess, request: deleting.DeleteRecordsRequest, handle: Handler
) -> deleting.DeleteRecordsResponse:
    """DELETE on each topic, else 29 for its partitions."""
    request.topics, denied = await access.split(Operation.DELETE, TOPIC, request.topics, lambda topic: topic.name)
    response: deleting.DeleteRecordsResponse = await handle(request)
    response.topics += await map_nested(
        denied,
        lambda topic: topic.partitions,
        lambda one: deleting.DeleteRecordsPartitionResult(
            partition_index=one.partition_index, low_watermark=-1, error_code=TOPIC_DENIED.code
        ),
        lambda topic, partitions: deleting.DeleteRecordsTopicResult(name=topic.name, partitions=partitions),
    )
    return response
