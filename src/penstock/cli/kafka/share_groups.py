"""Share groups over the Kafka protocol: who is in them, where they begin, what is left for them."""

from __future__ import annotations

from penstock.base.dataclasses import dataclass
from penstock.cli.kafka.client import TopicPartition
from penstock.cli.kafka.connection import Connection
from penstock.cli.kafka.failures import check
from penstock.wire.api_keys import ApiKey
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages.describe_share_group_offsets import (
    DescribeShareGroupOffsetsRequest,
    DescribeShareGroupOffsetsRequestGroup,
    DescribeShareGroupOffsetsResponse,
)
from penstock.wire.messages.share_group_describe import (
    DescribedGroup,
    ShareGroupDescribeRequest,
    ShareGroupDescribeResponse,
)

SHARE = "share"


@dataclass(frozen=True, slots=True, kw_only=True)
class SharePosition:
    """Where a share group is in a partition."""

    start: int
    """Everything before is done with."""
    lag: int | None
    """How many records are not, if the broker says so."""


def describe_share_group(connection: Connection, group_id: str) -> DescribedGroup | None:
    """A share group, or None if there is none of that id."""
    if not connection.offers(ApiKey.SHARE_GROUP_DESCRIBE):
        return None
    request = ShareGroupDescribeRequest(group_ids=[group_id])
    (described,) = connection.call(ApiKey.SHARE_GROUP_DESCRIBE, request, ShareGroupDescribeResponse).groups
    if described.error_code == ErrorCode.GROUP_ID_NOT_FOUND:
        return None
    check(described.error_code, f"group {group_id!r}", described.error_message)
    return described


def assignment_of(group: DescribedGroup, member_id: str) -> tuple[TopicPartition, ...]:
    """What a member reads."""
    return tuple(
        TopicPartition(topic.topic_name, partition)
        for member in group.members
        if member.member_id == member_id
        for topic in member.assignment.topic_partitions
        for partition in topic.partitions
    )


def share_positions(connection: Connection, group_id: str) -> dict[TopicPartition, SharePosition]:
    """Every partition that a group has begun to read."""
    request = DescribeShareGroupOffsetsRequest(
        groups=[DescribeShareGroupOffsetsRequestGroup(group_id=group_id, topics=None)]
    )
    response = connection.call(ApiKey.DESCRIBE_SHARE_GROUP_OFFSETS, request, DescribeShareGroupOffsetsResponse)
    (group,) = response.groups
    check(group.error_code, f"group {group_id!r}", group.error_message)
    found: dict[TopicPartition, SharePosition] = {}
    for topic in group.topics:
        for partition in topic.partitions:
            where = TopicPartition(topic.topic_name, partition.partition_index)
            check(partition.error_code, f"group {group_id!r}, {where}", partition.error_message)
            if partition.start_offset >= 0:
                lag = partition.lag if partition.lag >= 0 else None
                found[where] = SharePosition(start=partition.start_offset, lag=lag)
    return dict(sorted(found.items()))
