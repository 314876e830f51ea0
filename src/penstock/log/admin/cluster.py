"""Cluster metadata: Metadata, DescribeCluster, DescribeTopicPartitions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from penstock.base.context import RequestContext
from penstock.base.cooperative import TurnBudget, distinct, map_each, sort_items, yield_if_due
from penstock.base.errors import PlatformError
from penstock.log import topic_names
from penstock.log.brokers import Broker, Brokers, replica_nodes
from penstock.log.model import LEADER_EPOCH, Partition, Topic
from penstock.log.quota import MutationQuota, NoQuota
from penstock.log.refusals import Refused
from penstock.log.topics import MAX_NEW_PARTITIONS, Topics
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages.describe_cluster import (
    DescribeClusterBroker,
    DescribeClusterRequest,
    DescribeClusterResponse,
)
from penstock.wire.messages.describe_topic_partitions import (
    DescribeTopicPartitionsRequest,
    DescribeTopicPartitionsResponse,
    DescribeTopicPartitionsResponseCursor,
    DescribeTopicPartitionsResponsePartition,
    DescribeTopicPartitionsResponseTopic,
)
from penstock.wire.messages.metadata import (
    MetadataRequest,
    MetadataRequestTopic,
    MetadataResponse,
    MetadataResponseBroker,
    MetadataResponsePartition,
    MetadataResponseTopic,
)

CLUSTER_OPERATIONS = 8096
"""Bit field of the operations allowed on the cluster: all that clusters have. The guard narrows it where ACLs apply."""
TOPIC_OPERATIONS = 3576
"""Bits of the operations allowed on a topic."""
NOT_ASKED = -(2**31)

BROKER_ENDPOINTS = 1
CONTROLLER_ENDPOINTS = 2

ZERO_UUID = bytes(16)


class ClusterHandlers:
    """Kafka's views of brokers, topics and partitions."""

    def __init__(self, topics: Topics, brokers: Brokers, quota: MutationQuota | None = None) -> None:
        self._topics = topics
        self._registry = topics.registry
        self._brokers = brokers
        self._quota = quota or NoQuota()
        self.on_created: Callable[[RequestContext, str, int], None] = lambda context, name, partition_count: None
        """Called for each topic that was auto-created by a Metadata request."""

    def kafka_cluster_id(self, context: RequestContext) -> str:
        """The cluster id that clients of this virtual cluster see."""
        return self._brokers.kafka_cluster_id(context.cluster_id)

    async def metadata(self, context: RequestContext, request: MetadataRequest) -> MetadataResponse:
        """Metadata, key 3, v0-13. v0: an empty list means all topics, from v1 null does. v4: the client may forbid
        auto-creation. v7: leader epochs. v8: authorized operations. v10: topic ids, v12: topics requested by id. v13: a
        top-level error."""
        operations = TOPIC_OPERATIONS if request.include_topic_authorized_operations else NOT_ASKED
        alive = self._brokers.alive(context)
        response = MetadataResponse(
            brokers=[
                MetadataResponseBroker(node_id=broker.node_id, host=broker.host, port=broker.port, rack=broker.rack)
                for broker in alive
            ],
            cluster_id=self._brokers.kafka_cluster_id(context.cluster_id),
            controller_id=self._brokers.controller_id(context),
        )
        if request.include_cluster_authorized_operations:
            response.cluster_authorized_operations = CLUSTER_OPERATIONS
        if request.topics and context.api_version < 12 and True in await distinct(map(_names_an_id, request.topics)):
            # Before v12 the fields exist but must not be used; Kafka refuses the whole request.
            return MetadataResponse(topics=await map_each(request.topics, _unusable))
        found: Sequence[Topic | MetadataResponseTopic]
        if request.topics is None or (context.api_version == 0 and not request.topics):
            found = self._registry.all(context.cluster_id)
        else:
            found = await self._find(context, request.topics, request.allow_auto_topic_creation)
        budget = TurnBudget()
        for topic in found:
            await budget.spend()
            if isinstance(topic, Topic):
                topic = await self._described(context, topic, alive, operations, budget)
            response.topics.append(topic)
        return response

    async def _find(
        self, context: RequestContext, wanted: Sequence[MetadataRequestTopic], may_create: bool
    ) -> list[Topic | MetadataResponseTopic]:
        answers: dict[bytes | str | None, Topic | MetadataResponseTopic] = {}
        unknown: list[str] = []
        has_ids = True in await distinct(topic.topic_id != ZERO_UUID for topic in wanted)
        for number, topic in enumerate(wanted):
            await yield_if_due(number)
            if topic.topic_id != ZERO_UUID:
                answers[topic.topic_id] = self._registry.by_id(context.cluster_id, topic.topic_id) or (
                    MetadataResponseTopic(
                        error_code=ErrorCode.UNKNOWN_TOPIC_ID, name=None, topic_id=topic.topic_id
                    )
                )  # fmt: skip
            elif has_ids:
                continue  # As in Kafka, where nobody asks for some by name and others by id.
            elif topic.name is None:
                answers[None] = MetadataResponseTopic(error_code=ErrorCode.INVALID_REQUEST, name=None)
            elif topic.name not in answers:
                known = self._registry.by_name(context.cluster_id, topic.name)
                answers[topic.name] = known or _missing(topic.name)
                if known is None:
                    unknown.append(topic.name)
        may_create = may_create and self._topics.settings.of(context.cluster_id).flag("auto.create.topics.enable")
        # Topics beyond what one request may create stay unknown; clients retry.
        most = MAX_NEW_PARTITIONS // max(1, self._topics.settings.of(context.cluster_id).whole("num.partitions"))
        creatable = [name for name in unknown if may_create and name not in topic_names.INTERNAL][:most]
        if creatable:
            answers.update(await self._create(context, creatable))
        return list(answers.values())

    async def _create(self, context: RequestContext, names: Sequence[str]) -> dict[str, Topic | MetadataResponseTopic]:
        count = self._topics.settings.of(context.cluster_id).whole("num.partitions")
        try:
            self._quota.allowance(context, strict=True).spend(count * len(names))
            made = await self._topics.ensure(context.cluster_id, names)
        except PlatformError:
            # Known topics must stay visible when nothing can be created; clients retry after this code.
            return {name: MetadataResponseTopic(error_code=ErrorCode.LEADER_NOT_AVAILABLE, name=name) for name in names}
        answers: dict[str, Topic | MetadataResponseTopic] = {}
        for number, (name, one) in enumerate(zip(names, made, strict=True)):
            await yield_if_due(number)
            answers[name] = _refused(name, one.answer) if isinstance(one.answer, Refused) else one.answer
            if one.is_new and isinstance(one.answer, Topic):
                self.on_created(context, one.answer.name, len(one.answer.partitions))
        return answers

    async def _described(
        self, context: RequestContext, topic: Topic, alive: Sequence[Broker], operations: int, budget: TurnBudget
    ) -> MetadataResponseTopic:
        def described(partition: Partition) -> MetadataResponsePartition:
            leader = self._brokers.leader(partition, context)
            replicas = replica_nodes(leader, topic.replication_factor, alive)
            return MetadataResponsePartition(
                partition_index=partition.index, leader_id=leader, leader_epoch=LEADER_EPOCH,
                replica_nodes=replicas, isr_nodes=replicas,
            )  # fmt: skip

        return MetadataResponseTopic(
            name=topic.name, topic_id=topic.topic_id, is_internal=topic.name in topic_names.INTERNAL,
            partitions=await budget.map_each(topic.partitions, described), topic_authorized_operations=operations,
        )  # fmt: skip

    async def describe_cluster(
        self, context: RequestContext, request: DescribeClusterRequest
    ) -> DescribeClusterResponse:
        """DescribeCluster, key 60, v0-2. v1: endpoint type (KIP-919). v2: fenced brokers (KIP-1073); there never are
        any, because an agent whose lease has expired is not listed."""
        if request.endpoint_type != BROKER_ENDPOINTS:
            mismatched = request.endpoint_type == CONTROLLER_ENDPOINTS
            return DescribeClusterResponse(
                error_code=ErrorCode.MISMATCHED_ENDPOINT_TYPE if mismatched else ErrorCode.UNSUPPORTED_ENDPOINT_TYPE,
                error_message="This endpoint serves brokers, not controllers."
                if mismatched
                else f"There are no endpoints of type {request.endpoint_type}.",
            )
        response = DescribeClusterResponse(
            error_message=None,
            cluster_id=self._brokers.kafka_cluster_id(context.cluster_id),
            controller_id=self._brokers.controller_id(context),
            brokers=[
                DescribeClusterBroker(broker_id=broker.node_id, host=broker.host, port=broker.port, rack=broker.rack)
                for broker in self._brokers.alive(context)
            ],
        )
        if request.include_cluster_authorized_operations:
            response.cluster_authorized_operations = CLUSTER_OPERATIONS
        return response

    async def describe_topic_partitions(
        self, context: RequestContext, request: DescribeTopicPartitionsRequest
    ) -> DescribeTopicPartitionsResponse:
        """DescribeTopicPartitions, key 75, v0 (KIP-966): topics by name, in pages that may end inside a topic."""
        names, start = await self._page(context, request)
        response = DescribeTopicPartitionsResponse(next_cursor=None)
        if start < 0:
            response.topics = await map_each(names, lambda name: _failed_description(name, ErrorCode.INVALID_REQUEST))
            return response
        cap = self._topics.settings.of(context.cluster_id).whole("max.request.partition.size.limit")
        remaining = max(1, min(cap, request.response_partition_limit))
        alive = self._brokers.alive(context)
        for number, name in enumerate(names):
            await yield_if_due(number)
            if remaining == 0:
                response.next_cursor = DescribeTopicPartitionsResponseCursor(topic_name=name, partition_index=0)
                break
            topic = self._registry.by_name(context.cluster_id, name)
            if topic is None:
                response.topics.append(_failed_description(name, _missing(name).error_code))
                start = 0
                continue
            page = topic.partitions[start : start + remaining]
            response.topics.append(self._description(context, topic, page, alive))
            remaining -= len(page)
            if start + len(page) < len(topic.partitions):
                response.next_cursor = DescribeTopicPartitionsResponseCursor(
                    topic_name=name, partition_index=start + len(page)
                )
                break
            start = 0
        return response

    async def _page(self, context: RequestContext, request: DescribeTopicPartitionsRequest) -> tuple[list[str], int]:
        asked = await distinct(topic.name for topic in request.topics)
        names = await sort_items(list(asked), str) if asked else []
        cursor = request.cursor
        is_elsewhere = cursor is not None and bool(asked) and cursor.topic_name not in asked
        if cursor is not None and (cursor.partition_index < 0 or is_elsewhere):
            return names, -1
        if not asked:
            names = [topic.name for topic in self._registry.all(context.cluster_id)]
        if cursor is None:
            return names, 0
        names = [name for name in names if name >= cursor.topic_name]
        # A topic that was deleted since the last page leaves no partition to continue with.
        continues = bool(names) and names[0] == cursor.topic_name
        return names, cursor.partition_index if continues else 0

    def _description(
        self, context: RequestContext, topic: Topic, partitions: Sequence[Partition], alive: Sequence[Broker]
    ) -> DescribeTopicPartitionsResponseTopic:
        described = []
        for partition in partitions:
            leader = self._brokers.leader(partition, context)
            replicas = replica_nodes(leader, topic.replication_factor, alive)
            described.append(
                DescribeTopicPartitionsResponsePartition(
                    partition_index=partition.index, leader_id=leader, leader_epoch=LEADER_EPOCH,
                    replica_nodes=replicas, isr_nodes=replicas, eligible_leader_replicas=[], last_known_elr=[],
                )
            )  # fmt: skip
        return DescribeTopicPartitionsResponseTopic(
            name=topic.name, topic_id=topic.topic_id, is_internal=topic.name in topic_names.INTERNAL,
            partitions=described, topic_authorized_operations=TOPIC_OPERATIONS,
        )  # fmt: skip


def _names_an_id(topic: MetadataRequestTopic) -> bool:
    return topic.name is None or topic.topic_id != ZERO_UUID


def _unusable(topic: MetadataRequestTopic) -> MetadataResponseTopic:
    return MetadataResponseTopic(error_code=ErrorCode.INVALID_REQUEST, name=topic.name or "", topic_id=topic.topic_id)


def _missing(name: str) -> MetadataResponseTopic:
    try:
        topic_names.check(name)
    except Refused as refusal:
        return MetadataResponseTopic(error_code=refusal.code, name=name)
    return MetadataResponseTopic(error_code=ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, name=name)


def _refused(name: str, refusal: Refused) -> MetadataResponseTopic:
    # Another agent has just created it: it will be known when the client retries, as this code asks it to.
    raced = refusal.code is ErrorCode.TOPIC_ALREADY_EXISTS
    return MetadataResponseTopic(error_code=ErrorCode.UNKNOWN_TOPIC_OR_PARTITION if raced else refusal.code, name=name)


def _failed_description(name: str, code: int) -> DescribeTopicPartitionsResponseTopic:
    return DescribeTopicPartitionsResponseTopic(error_code=code, name=name)
