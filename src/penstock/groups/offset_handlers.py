"""Kafka's APIs of committed offsets, translated to the group service and back.

Offsets of an open transaction are pending. With `require_stable` such partitions get UNSTABLE_OFFSET_COMMIT.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping

from penstock.base.context import RequestContext
from penstock.base.cooperative import (
    CHEAP_ITEMS_PER_TURN,
    ResponseBudget,
    TurnBudget,
    free_lists,
    map_each,
    map_nested,
    map_nested_with_outer,
    yield_if_due,
)
from penstock.base.errors import PlatformError
from penstock.coordination.model import Key
from penstock.groups.commit_validation import validate_offsets
from penstock.groups.failures import ASK_AGAIN, code_of, offset_fetch_code_of
from penstock.groups.model import CommitOffsets, DeleteOffsets, OffsetAndMetadata, TopicPartition
from penstock.groups.service import GroupService, TopicLookup
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitResponse,
    OffsetCommitResponsePartition,
    OffsetCommitResponseTopic,
)
from penstock.wire.messages.offset_delete import (
    OffsetDeleteRequest,
    OffsetDeleteResponse,
    OffsetDeleteResponsePartition,
    OffsetDeleteResponseTopic,
)
from penstock.wire.messages.offset_fetch import (
    OffsetFetchRequest,
    OffsetFetchRequestGroup,
    OffsetFetchRequestTopics,
    OffsetFetchResponse,
    OffsetFetchResponseGroup,
    OffsetFetchResponsePartition,
    OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
)
from penstock.wire.primitives import PART_CHARS

TOPIC_IDS_SINCE = 10
MAX_TIME_MS = 2**63 - 1
"""A longer retention means for ever."""


class OffsetHandlers:
    """OffsetCommit, OffsetFetch, OffsetDelete. Every method takes the context and a request, and returns the
    response."""

    def __init__(self, groups: GroupService, topics: TopicLookup) -> None:
        self._groups, self._topics = groups, topics

    async def offset_commit(self, context: RequestContext, request: OffsetCommitRequest) -> OffsetCommitResponse:
        """OffsetCommit, key 8, v2-10.

        v2-4: the client sets the retention. v6: leader epochs. v7: static members. v9: GROUP_ID_NOT_FOUND (69). v10:
        topic ids.
        """
        now_ms, retention_ms = self._groups.now_ms(), request.retention_time_ms
        asked = await validate_offsets(
            self._topics, context.cluster_id, request.topics, by_id=context.api_version >= TOPIC_IDS_SINCE,
            metadata_max_size=self._groups.settings.offset_metadata_max_size, now_ms=now_ms,
            expires_ms=None if retention_ms < 0 else min(now_ms + retention_ms, MAX_TIME_MS),
        )  # fmt: skip
        if asked.is_for_group:
            asked.outcome = await self._commit(context, request, asked.offsets)
        topics = await asked.response_topics(request.topics, OffsetCommitResponseTopic, OffsetCommitResponsePartition)
        return OffsetCommitResponse(topics=topics)

    async def _commit(
        self,
        context: RequestContext,
        request: OffsetCommitRequest,
        offsets: Mapping[TopicPartition, OffsetAndMetadata],
    ) -> ErrorCode:
        asked = CommitOffsets(
            member_id=request.member_id,
            instance_id=request.group_instance_id,
            generation=request.generation_id_or_member_epoch,
            offsets=offsets,
            knows_unknown_groups=context.api_version >= 9,
            version=context.api_version,
        )
        try:
            return await self._groups.commit_offsets((context.cluster_id, request.group_id), asked)
        except PlatformError as error:
            return code_of(error)

    async def offset_fetch(self, context: RequestContext, request: OffsetFetchRequest) -> OffsetFetchResponse:
        """OffsetFetch, key 9, v1-10.

        v2: null topics mean all, a group-level error. v7: require_stable. v8: several groups (KIP-709). v10: topic ids.
        A group that does not exist has no committed offsets, which is no error.
        """
        if context.api_version >= 8:
            return OffsetFetchResponse(groups=await self._fetch_all(context, request))
        topics = None
        if request.topics is not None:
            topics = await map_each(
                request.topics,
                lambda topic: OffsetFetchRequestTopics(name=topic.name, partition_indexes=topic.partition_indexes),
            )
        asked = OffsetFetchRequestGroup(group_id=request.group_id, topics=topics)
        group = await self._fetch(context, asked, request.require_stable)
        response = await _single_group(group, context.api_version)
        await free_lists(group.topics, topics or [])
        return response

    async def _fetch_all(self, context: RequestContext, request: OffsetFetchRequest) -> list[OffsetFetchResponseGroup]:
        groups, budget = [], ResponseBudget()
        for number, group in enumerate(request.groups):
            await yield_if_due(number)
            if not budget.is_left:
                groups.append(OffsetFetchResponseGroup(group_id=group.group_id, error_code=ASK_AGAIN))
                continue
            fetched = await self._fetch(context, group, request.require_stable)
            budget.spend(1 + sum(await map_each(fetched.topics, _parts_in)))
            groups.append(fetched)
        return groups

    async def _fetch(
        self, context: RequestContext, request: OffsetFetchRequestGroup, require_stable: bool
    ) -> OffsetFetchResponseGroup:
        key: Key = (context.cluster_id, request.group_id)
        response = OffsetFetchResponseGroup(group_id=request.group_id)
        try:
            if request.member_id is not None or request.member_epoch >= 0:
                error = await self._groups.may_fetch(key, request.member_id, request.member_epoch)
                if error is not ErrorCode.NONE:
                    response.error_code = error
                    return response
            if require_stable:
                offsets, pending = await self._groups.stable_offsets(key)
            else:
                offsets, pending = await self._groups.offsets(key), frozenset[TopicPartition]()
        except PlatformError as error:
            response.error_code = code = offset_fetch_code_of(error)
            for number, topic in enumerate(request.topics or ()):
                await yield_if_due(number)
                response.topics.append(await _fetched(topic, None, {}, frozenset(), code))
            return response
        asked = await self._all_topics(context, offsets) if request.topics is None else request.topics
        for number, topic in enumerate(asked):
            await yield_if_due(number)
            topic_id, error_code = self._fetched_topic(context, topic)
            response.topics.append(await _fetched(topic, topic_id, offsets, pending, error_code))
        return response

    def _fetched_topic(
        self, context: RequestContext, topic: OffsetFetchRequestTopics
    ) -> tuple[bytes | None, ErrorCode]:
        if context.api_version < 10:
            return self._topics.topic_id(context.cluster_id, topic.name), ErrorCode.NONE
        topic_id = bytes(topic.topic_id)
        if self._topics.topic_name(context.cluster_id, topic_id) is None:
            return None, ErrorCode.UNKNOWN_TOPIC_ID
        return topic_id, ErrorCode.NONE

    async def _all_topics(
        self, context: RequestContext, offsets: Iterable[TopicPartition]
    ) -> list[OffsetFetchRequestTopics]:
        """The existing topics in which a group has offsets."""
        partitions: dict[bytes, list[int]] = {}
        for number, (topic_id, partition) in enumerate(offsets):
            await yield_if_due(number, CHEAP_ITEMS_PER_TURN)
            partitions.setdefault(topic_id, []).append(partition)
        names = {topic_id: self._topics.topic_name(context.cluster_id, topic_id) for topic_id in partitions}
        return [
            OffsetFetchRequestTopics(name=name, topic_id=topic_id, partition_indexes=partitions[topic_id])
            for topic_id, name in names.items()
            if name is not None
        ]

    async def offset_delete(self, context: RequestContext, request: OffsetDeleteRequest) -> OffsetDeleteResponse:
        """OffsetDelete, key 47, v0 (KIP-496)."""
        if not request.group_id:
            return OffsetDeleteResponse(error_code=ErrorCode.INVALID_GROUP_ID)
        cluster_id = context.cluster_id
        known, wanted, budget = (
            dict[str, bytes | None](),
            dict[str, tuple[TopicPartition, ...]](),
            TurnBudget(CHEAP_ITEMS_PER_TURN),
        )
        for topic in request.topics:
            topic_id = known[topic.name] = self._topics.topic_id(cluster_id, topic.name)
            if topic_id is not None:
                wanted[topic.name] = tuple((topic_id, partition.partition_index) for partition in topic.partitions)
            await budget.spend(1 + len(topic.partitions))
        try:
            result = await self._groups.delete_offsets((cluster_id, request.group_id), DeleteOffsets(topics=wanted))
        except PlatformError as error:
            return OffsetDeleteResponse(error_code=code_of(error))
        if result.error is not ErrorCode.NONE:
            return OffsetDeleteResponse(error_code=result.error)

        def error_of(topic: str, partition: int) -> ErrorCode:
            topic_id = known[topic]
            count = 0 if topic_id is None else self._topics.partition_count(cluster_id, topic_id) or 0
            if not 0 <= partition < count:
                return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            return ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC if topic in result.subscribed else ErrorCode.NONE

        topics = await map_nested_with_outer(
            request.topics,
            lambda topic: topic.partitions,
            lambda topic, one: OffsetDeleteResponsePartition(
                partition_index=one.partition_index, error_code=error_of(topic.name, one.partition_index)
            ),
            lambda topic, partitions: OffsetDeleteResponseTopic(name=topic.name, partitions=partitions),
        )
        return OffsetDeleteResponse(topics=topics)


async def _fetched(
    topic: OffsetFetchRequestTopics,
    topic_id: bytes | None,
    offsets: Mapping[TopicPartition, OffsetAndMetadata],
    pending: Container[TopicPartition],
    error: ErrorCode,
) -> OffsetFetchResponseTopics:
    """The offsets of one topic; -1 where there is none."""
    response = OffsetFetchResponseTopics(name=topic.name, topic_id=topic.topic_id)
    for number, partition in enumerate(topic.partition_indexes):
        await yield_if_due(number)
        offset = None if topic_id is None else offsets.get((topic_id, partition))
        is_unstable = topic_id is not None and (topic_id, partition) in pending
        if is_unstable:
            offset = None
        response.partitions.append(
            OffsetFetchResponsePartitions(
                partition_index=partition,
                committed_offset=-1 if offset is None else offset.committed_offset,
                committed_leader_epoch=-1 if offset is None else offset.leader_epoch,
                metadata="" if offset is None else offset.metadata,
                error_code=ErrorCode.UNSTABLE_OFFSET_COMMIT if is_unstable else error,
            )
        )
    return response


def _parts_in(topic: OffsetFetchResponseTopics) -> int:
    """The size of a topic in the response: the same as `parts_of`, in a tenth of the time."""
    said = sum(len(partition.metadata or "") for partition in topic.partitions)
    return 1 + len(topic.partitions) + said // PART_CHARS


async def _single_group(group: OffsetFetchResponseGroup, version: int) -> OffsetFetchResponse:
    """The response of v1-7, which has no list of groups; v1 has only errors of partitions."""
    topics = await map_nested(
        group.topics,
        lambda topic: topic.partitions,
        lambda one: OffsetFetchResponsePartition(
            partition_index=one.partition_index, committed_offset=one.committed_offset,
            committed_leader_epoch=one.committed_leader_epoch, metadata=one.metadata, error_code=one.error_code,
        ),
        lambda topic, partitions: OffsetFetchResponseTopic(name=topic.name, partitions=partitions),
    )  # fmt: skip
    return OffsetFetchResponse(error_code=group.error_code if version >= 2 else ErrorCode.NONE, topics=topics)
