"""Streams groups over the Kafka protocol: who is in them, and what their tasks read."""

from __future__ import annotations

from penstock.cli.kafka.client import Client, TopicPartition
from penstock.cli.kafka.connection import Connection
from penstock.cli.kafka.failures import check
from penstock.wire.api_keys import ApiKey
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages.streams_group_describe import (
    DescribedGroup,
    Member,
    StreamsGroupDescribeRequest,
    StreamsGroupDescribeResponse,
)

STREAMS = "streams"


def describe_streams_group(connection: Connection, group_id: str) -> DescribedGroup | None:
    """A streams group, or None if there is none of that id."""
    if not connection.offers(ApiKey.STREAMS_GROUP_DESCRIBE):
        return None
    request = StreamsGroupDescribeRequest(group_ids=[group_id])
    (described,) = connection.call(ApiKey.STREAMS_GROUP_DESCRIBE, request, StreamsGroupDescribeResponse).groups
    if described.error_code == ErrorCode.GROUP_ID_NOT_FOUND:
        return None
    check(described.error_code, f"group {group_id!r}", described.error_message)
    return described


def assignments_of(client: Client, group: DescribedGroup) -> dict[str, tuple[TopicPartition, ...]]:
    """The partitions that the active tasks of each member read, by member id."""
    parts = [] if group.topology is None else group.topology.subtopologies or []
    inputs = {
        part.subtopology_id: [*part.source_topics, *(topic.name for topic in part.repartition_source_topics)]
        for part in parts
    }
    topics = client.metadata({topic for names in inputs.values() for topic in names}).topics if inputs else {}

    def read_by(member: Member) -> tuple[TopicPartition, ...]:
        # A topic may have fewer partitions than its subtopology has tasks.
        return tuple(
            TopicPartition(topic, partition)
            for tasks in member.assignment.active_tasks
            for topic in inputs.get(tasks.subtopology_id, ())
            for partition in tasks.partitions
            if topic in topics and partition in topics[topic].partitions
        )

    return {member.member_id: read_by(member) for member in group.members}
