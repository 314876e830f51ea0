"""Kafka's APIs that create, extend and delete topics: CreateTopics, CreatePartitions, DeleteTopics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from penstock.base.context import RequestContext
from penstock.base.cooperative import count_keys, map_each, yield_if_due
from penstock.base.errors import PlatformError
from penstock.log.admin.config_changes import MAX_KEYS
from penstock.log.admin.config_entries import new_topic_entries
from penstock.log.admin.failures import admin_failure
from penstock.log.brokers import Brokers
from penstock.log.model import Topic
from penstock.log.quota import MutationQuota, NoQuota
from penstock.log.refusals import Refused
from penstock.log.topics import MAX_NEW_PARTITIONS, NewTopic, Topics, unknown_topic
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages.create_partitions import (
    CreatePartitionsRequest,
    CreatePartitionsResponse,
    CreatePartitionsTopic,
    CreatePartitionsTopicResult,
)
from penstock.wire.messages.create_topics import (
    CreatableReplicaAssignment,
    CreatableTopic,
    CreatableTopicConfigs,
    CreatableTopicResult,
    CreateTopicsRequest,
    CreateTopicsResponse,
)
from penstock.wire.messages.delete_topics import (
    DeletableTopicResult,
    DeleteTopicsRequest,
    DeleteTopicsResponse,
    DeleteTopicState,
)

ZERO_UUID = bytes(16)
OPEN = -1
"""Stands for a number that the client leaves to the broker."""
METADATA_TOPIC = "__cluster_metadata"
NEW_AT_ONCE = 8
"""How many new topics, each described by dozens of values, are processed before the event loop is yielded."""
CREATE_THROTTLED_SINCE, GROW_THROTTLED_SINCE, DELETE_THROTTLED_SINCE = 6, 3, 5
"""The versions from which clients know THROTTLING_QUOTA_EXCEEDED (KIP-599)."""


class TopicHandlers:
    """Kafka's topic administration over `Topics`."""

    def __init__(self, topics: Topics, brokers: Brokers, quota: MutationQuota | None = None) -> None:
        self._topics = topics
        self._registry = topics.registry
        self._brokers = brokers
        self._quota = quota or NoQuota()

    async def create_topics(self, context: RequestContext, request: CreateTopicsRequest) -> CreateTopicsResponse:
        """CreateTopics, key 19, v2-7. v4: partitions and replication factor may be left to the broker. v5: the answer
        contains both and the configuration (KIP-525). v6: may be refused by a quota (KIP-599). v7: topic ids. Any
        replication factor is accepted and shown again, but nothing is replicated."""
        allowance = self._quota.allowance(context, strict=context.api_version >= CREATE_THROTTLED_SINCE)
        if await self._partitions_in(context, request.topics) > MAX_NEW_PARTITIONS:
            return CreateTopicsResponse(
                topics=await map_each(request.topics, lambda topic: _not_created(topic.name, _excessive()))
            )
        seen = await count_keys(topic.name for topic in request.topics)
        results: dict[str, CreatableTopicResult] = {}
        wanted: list[NewTopic] = []
        for number, topic in enumerate(request.topics):
            await yield_if_due(number, NEW_AT_ONCE)
            if seen[topic.name] > 1:
                refusal = Refused(ErrorCode.INVALID_REQUEST, "Duplicate topic name.")
                results[topic.name] = _not_created(topic.name, refusal)
                continue
            try:
                new = self._wanted(context, topic)
                self._topics.check_new(context.cluster_id, new)
                allowance.spend(self._topics.counts(context.cluster_id, new)[0])
            except Refused as error:
                results[topic.name] = _not_created(topic.name, error)
                continue
            results[topic.name] = self._result(context, new)
            wanted.append(new)
        if not request.validate_only and wanted:
            await self._create(context, wanted, results)
        return CreateTopicsResponse(
            throttle_time_ms=allowance.throttle_time_ms(), topics=list(results.values())
        )  # fmt: skip

    async def _create(
        self, context: RequestContext, wanted: Sequence[NewTopic], results: dict[str, CreatableTopicResult]
    ) -> None:
        answers: Sequence[Topic | PlatformError]
        try:
            answers = await self._topics.create(context.cluster_id, wanted)
        except PlatformError as error:
            answers = [error] * len(wanted)
        for number, (new, answer) in enumerate(zip(wanted, answers, strict=True)):
            await yield_if_due(number)
            if isinstance(answer, Topic):
                results[new.name].topic_id = answer.topic_id
            else:
                results[new.name] = _not_created(new.name, answer)

    async def _partitions_in(self, context: RequestContext, topics: Sequence[CreatableTopic]) -> int:
        """How many partitions the topics have, those that are only validated included: the answer grows with them."""
        default = self._topics.settings.of(context.cluster_id).whole("num.partitions")
        counts = await map_each(
            topics,
            lambda topic: (
                len(topic.assignments) or max(0, default if topic.num_partitions == OPEN else topic.num_partitions)
            ),
        )
        return sum(counts)

    def _wanted(self, context: RequestContext, topic: CreatableTopic) -> NewTopic:
        if topic.name == METADATA_TOPIC:
            raise Refused(ErrorCode.INVALID_REQUEST, f"Nobody may create {METADATA_TOPIC}.")
        if len(topic.configs) > MAX_KEYS:
            raise Refused(ErrorCode.INVALID_CONFIG, f"A topic has no more than {MAX_KEYS} keys.")
        overrides = {}
        for config in topic.configs:
            if config.value is None:
                raise Refused(ErrorCode.INVALID_CONFIG, f"Null value not supported for topic config {config.name}.")
            overrides[config.name] = config.value
        count, factor = topic.num_partitions, topic.replication_factor
        if topic.assignments:
            count, factor = self._assigned(context, topic)
        return NewTopic(
            name=topic.name,
            partition_count=None if count == OPEN else count,
            replication_factor=None if factor == OPEN else factor,
            overrides=overrides,
        )

    def _assigned(self, context: RequestContext, topic: CreatableTopic) -> tuple[int, int]:
        """Partitions and replication factor of a manual assignment. The brokers that it names have no other effect."""
        if topic.replication_factor != OPEN or topic.num_partitions != OPEN:
            raise Refused(
                ErrorCode.INVALID_REQUEST,
                "With a manual partition assignment, partitions and replication factor must be -1.",
            )
        indexes = sorted(assignment.partition_index for assignment in topic.assignments)
        if indexes != list(range(len(indexes))):
            raise Refused(
                ErrorCode.INVALID_REPLICA_ASSIGNMENT, "Partitions must be numbered from 0 without gaps or repetition."
            )
        return len(indexes), self._replication_factor(context, topic.assignments)

    def _replication_factor(self, context: RequestContext, assignments: Sequence[CreatableReplicaAssignment]) -> int:
        alive = self._alive(context)
        for assignment in assignments:
            check_replicas(alive, assignment.broker_ids)
        sizes = {len(assignment.broker_ids) for assignment in assignments}
        if len(sizes) > 1:
            raise Refused(
                ErrorCode.INVALID_REPLICA_ASSIGNMENT, "All partitions must be assigned to the same number of replicas."
            )
        return sizes.pop()

    def _alive(self, context: RequestContext) -> set[int]:
        return {broker.node_id for broker in self._brokers.alive(context)}

    def _result(self, context: RequestContext, new: NewTopic) -> CreatableTopicResult:
        partition_count, replication_factor = self._topics.counts(context.cluster_id, new)
        result = CreatableTopicResult(
            name=new.name, error_message=None, num_partitions=partition_count, replication_factor=replication_factor
        )
        if context.api_version >= 5:
            result.configs = [
                CreatableTopicConfigs(
                    name=entry.name, value=entry.value, read_only=entry.read_only, config_source=entry.source,
                    is_sensitive=entry.sensitive,
                )
                for entry in new_topic_entries(new.overrides, self._topics.settings.of(context.cluster_id))
                if entry.value is not None
            ]  # fmt: skip
        return result

    async def create_partitions(
        self, context: RequestContext, request: CreatePartitionsRequest
    ) -> CreatePartitionsResponse:
        """CreatePartitions, key 37, v0-3. v2: flexible. v3: may be refused by a quota (KIP-599)."""
        allowance = self._quota.allowance(context, strict=context.api_version >= GROW_THROTTLED_SINCE)
        seen = await count_keys(topic.name for topic in request.topics)
        results, left = dict[str, CreatePartitionsTopicResult](), MAX_NEW_PARTITIONS
        for number, wanted in enumerate(request.topics):
            await yield_if_due(number)
            result = results[wanted.name] = CreatePartitionsTopicResult(name=wanted.name)
            try:
                if seen[wanted.name] > 1:
                    raise Refused(ErrorCode.INVALID_REQUEST, "Duplicate topic name.")
                topic = self._growing(context, wanted)
                left -= wanted.count - len(topic.partitions)
                if left < 0:
                    raise _excessive()
                allowance.spend(wanted.count - len(topic.partitions))
                if not request.validate_only:
                    await self._topics.add_partitions(topic, wanted.count)
            except PlatformError as error:
                result.error_code, result.error_message = admin_failure(error)
        return CreatePartitionsResponse(throttle_time_ms=allowance.throttle_time_ms(), results=list(results.values()))

    def _growing(self, context: RequestContext, wanted: CreatePartitionsTopic) -> Topic:
        topic = self._registry.by_name(context.cluster_id, wanted.name)
        if topic is None:
            raise unknown_topic(wanted.name)
        self._topics.check_partition_count(topic, wanted.count)
        if wanted.assignments is not None:
            added = wanted.count - len(topic.partitions)
            if len(wanted.assignments) != added:
                raise Refused(
                    ErrorCode.INVALID_REPLICA_ASSIGNMENT,
                    f"{added} partition(s) are added, but {len(wanted.assignments)} assignment(s) were given.",
                )
            alive = self._alive(context)
            for assignment in wanted.assignments:
                check_replicas(alive, assignment.broker_ids)
        return topic

    async def delete_topics(self, context: RequestContext, request: DeleteTopicsRequest) -> DeleteTopicsResponse:
        """DeleteTopics, key 20, v1-6. v4: flexible. v5: error messages, may be refused by a quota (KIP-599). v6: also
        by topic id (KIP-516)."""
        allowance = self._quota.allowance(context, strict=context.api_version >= DELETE_THROTTLED_SINCE)
        wanted = request.topics or await map_each(request.topic_names, lambda name: DeleteTopicState(name=name))
        if not self._topics.settings.of(context.cluster_id).flag("delete.topic.enable"):
            code = ErrorCode.INVALID_REQUEST if context.api_version < 3 else ErrorCode.TOPIC_DELETION_DISABLED
            refusal = Refused(code, "Topic deletion is disabled.")
            return DeleteTopicsResponse(responses=await map_each(wanted, lambda state: _not_deleted(state, refusal)))
        names = await count_keys(state.name for state in wanted if state.name is not None)
        ids = await count_keys(state.topic_id for state in wanted if state.topic_id != ZERO_UUID)
        responses: dict[tuple[str | None, bytes], DeletableTopicResult] = {}
        going: dict[Topic, DeletableTopicResult] = {}
        for number, state in enumerate(wanted):
            await yield_if_due(number)
            try:
                _check_target(state, names, ids)
                topic = self._target(context, state)
                if topic in going:
                    del going[topic]
                    state.name, state.topic_id = topic.name, topic.topic_id
                    raise Refused(ErrorCode.INVALID_REQUEST, "The topic is given by its name and by its id.")
                try:
                    allowance.spend(len(topic.partitions))
                except Refused:
                    state.name, state.topic_id = topic.name, topic.topic_id
                    raise
            except Refused as refusal:
                responses[state.name, state.topic_id] = _not_deleted(state, refusal)
                continue
            going[topic] = DeletableTopicResult(name=topic.name, topic_id=topic.topic_id)
        try:
            await self._topics.delete(context.cluster_id, list(going))
        except PlatformError as error:
            for result in going.values():
                result.error_code, result.error_message = admin_failure(error)
        return DeleteTopicsResponse(
            throttle_time_ms=allowance.throttle_time_ms(), responses=[*responses.values(), *going.values()]
        )

    def _target(self, context: RequestContext, state: DeleteTopicState) -> Topic:
        if state.name is not None:
            topic = self._registry.by_name(context.cluster_id, state.name)
            if topic is None:
                raise unknown_topic(state.name)
            return topic
        topic = self._registry.by_id(context.cluster_id, state.topic_id)
        if topic is None:
            raise Refused(ErrorCode.UNKNOWN_TOPIC_ID, "This server does not host this topic ID.")
        return topic


def check_replicas(alive: set[int], broker_ids: Sequence[int]) -> None:
    """Raise `Refused` unless a partition could be assigned to these brokers: one or more, live, no duplicates."""
    if not broker_ids:
        raise Refused(ErrorCode.INVALID_REPLICA_ASSIGNMENT, "A partition must be assigned to at least one replica.")
    if len(set(broker_ids)) != len(broker_ids):
        raise Refused(ErrorCode.INVALID_REPLICA_ASSIGNMENT, "A partition is assigned to the same replica twice.")
    stranger = next((broker_id for broker_id in broker_ids if broker_id not in alive), None)
    if stranger is not None:
        raise Refused(ErrorCode.INVALID_REPLICA_ASSIGNMENT, f"No such broker: {stranger}.")


def _excessive() -> Refused:
    return Refused(ErrorCode.POLICY_VIOLATION, "Excessively large number of partitions per request.")


def _check_target(state: DeleteTopicState, names: Counter[str], ids: Counter[bytes]) -> None:
    by_id = state.topic_id != ZERO_UUID
    if state.name is not None and by_id:
        complaint = "You may not specify both topic name and topic id."
    elif state.name is None and not by_id:
        complaint = "Neither topic name nor id were specified."
    elif state.name is not None and names[state.name] > 1:
        complaint = "Duplicate topic name."
    elif by_id and ids[state.topic_id] > 1:
        complaint = "Duplicate topic id."
    else:
        return
    raise Refused(ErrorCode.INVALID_REQUEST, complaint)


def _not_created(name: str, error: PlatformError) -> CreatableTopicResult:
    code, message = admin_failure(error)
    return CreatableTopicResult(name=name, error_code=code, error_message=message)


def _not_deleted(state: DeleteTopicState, refusal: Refused) -> DeletableTopicResult:
    return DeletableTopicResult(
        name=state.name, topic_id=state.topic_id, error_code=refusal.code, error_message=refusal.message
    )
