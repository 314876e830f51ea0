"""Topics over the Kafka protocol: create, grow, trim, delete, and how large they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from penstock.cli.kafka.client import Client, Cluster, TopicPartition, by_topic
from penstock.cli.kafka.failures import BrokerError, Unsupported, check
from penstock.wire.api_keys import ApiKey
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages.create_partitions import (
    CreatePartitionsRequest,
    CreatePartitionsResponse,
    CreatePartitionsTopic,
)
from penstock.wire.messages.create_topics import (
    CreatableTopic,
    CreatableTopicConfig,
    CreatableTopicResult,
    CreateTopicsRequest,
    CreateTopicsResponse,
)
from penstock.wire.messages.delete_records import (
    DeleteRecordsPartition,
    DeleteRecordsRequest,
    DeleteRecordsResponse,
    DeleteRecordsTopic,
)
from penstock.wire.messages.delete_topics import DeleteTopicsRequest, DeleteTopicsResponse, DeleteTopicState
from penstock.wire.messages.describe_log_dirs import (
    DescribableLogDirTopic,
    DescribeLogDirsRequest,
    DescribeLogDirsResponse,
)


def create_topic(
    client: Client,
    name: str,
    *,
    partitions: int = -1,
    replication_factor: int = -1,
    configs: Mapping[str, str] | None = None,
    dry_run: bool = False,
) -> CreatableTopicResult:
    """Create a topic; -1 leaves a number to the broker. Raises TOPIC_ALREADY_EXISTS as any other error."""
    topic = CreatableTopic(
        name=name,
        num_partitions=partitions,
        replication_factor=replication_factor,
        configs=[CreatableTopicConfig(name=key, value=value) for key, value in (configs or {}).items()],
    )
    request = CreateTopicsRequest(topics=[topic], timeout_ms=_timeout_ms(client), validate_only=dry_run)

    def attempt() -> CreatableTopicResult:
        result = client.call_controller(ApiKey.CREATE_TOPICS, request, CreateTopicsResponse).topics[0]
        check(result.error_code, f"topic {name!r}", result.error_message)
        return result

    return client.retry(attempt)


def delete_topic(client: Client, name: str) -> None:
    """Delete a topic."""
    request = DeleteTopicsRequest(
        topics=[DeleteTopicState(name=name)], topic_names=[name], timeout_ms=_timeout_ms(client)
    )

    def attempt() -> None:
        result = client.call_controller(ApiKey.DELETE_TOPICS, request, DeleteTopicsResponse).responses[0]
        check(result.error_code, f"topic {name!r}", result.error_message)

    client.retry(attempt)


def wait_for_topic(client: Client, name: str) -> None:
    """Wait until every partition of a topic that was just made has a leader."""

    def attempt() -> None:
        found = client.metadata([name]).topics.get(name)
        if found is None or any(partition.leader < 0 for partition in found.partitions.values()):
            raise BrokerError(ErrorCode.LEADER_NOT_AVAILABLE, f"topic {name!r}")

    client.retry(attempt)


def add_partitions(client: Client, name: str, *, total: int, dry_run: bool = False) -> None:
    """Grow a topic to so many partitions."""
    request = CreatePartitionsRequest(
        topics=[CreatePartitionsTopic(name=name, count=total, assignments=None)],
        timeout_ms=_timeout_ms(client),
        validate_only=dry_run,
    )

    def attempt() -> None:
        result = client.call_controller(ApiKey.CREATE_PARTITIONS, request, CreatePartitionsResponse).results[0]
        check(result.error_code, f"topic {name!r}", result.error_message)

    client.retry(attempt)


def delete_records(client: Client, before: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
    """Delete the records before an offset of each partition; return where the partitions start now."""
    return client.retry(partial(_delete_records, client, before))


def _delete_records(client: Client, before: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
    cluster = client.metadata({where.topic for where in before})
    starts: dict[TopicPartition, int] = {}
    for node_id, partitions in cluster.by_leader(before).items():
        topics = [
            DeleteRecordsTopic(
                name=topic,
                partitions=[
                    DeleteRecordsPartition(partition_index=where.partition, offset=before[where]) for where in wanted
                ],
            )
            for topic, wanted in by_topic(partitions).items()
        ]
        request = DeleteRecordsRequest(topics=topics, timeout_ms=_timeout_ms(client))
        response = client.node(node_id).call(
            ApiKey.DELETE_RECORDS, request, DeleteRecordsResponse, wait_s=client.timeout_s
        )
        for topic in response.topics:
            for result in topic.partitions:
                where = TopicPartition(topic.name, result.partition_index)
                check(result.error_code, f"partition {where}")
                starts[where] = result.low_watermark
    return starts


def sizes(client: Client, cluster: Cluster, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
    """Bytes each partition takes at its leader; brokers that do not tell are left out."""
    found: dict[TopicPartition, int] = {}
    for node_id, led in cluster.by_leader(partitions).items():
        try:
            found |= _sizes_at(client, node_id, led)
        except (BrokerError, Unsupported):
            continue
    return found


def _sizes_at(client: Client, node_id: int, led: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
    topics = [
        DescribableLogDirTopic(topic=topic, partitions=[where.partition for where in wanted])
        for topic, wanted in by_topic(led).items()
    ]
    request = DescribeLogDirsRequest(topics=topics)
    response = client.node(node_id).call(ApiKey.DESCRIBE_LOG_DIRS, request, DescribeLogDirsResponse)
    check(response.error_code, f"log directories of broker {node_id}")
    return {
        TopicPartition(topic.name, partition.partition_index): partition.partition_size
        for directory in response.results
        for topic in directory.topics
        for partition in topic.partitions
        if not partition.is_future_key
    }


def _timeout_ms(client: Client) -> int:
    return int(client.timeout_s * 1_000)
