"""Kafka's APIs of share groups: ShareFetch, ShareAcknowledge, and administration of share group offsets."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial

from penstock.base.context import RequestContext
from penstock.base.cooperative import CHEAP_ITEMS_PER_TURN, TurnBudget, map_nested_with_outer, yield_if_due
from penstock.base.errors import PlatformError
from penstock.groups.describing import describe_within_budget
from penstock.groups.failures import ASK_AGAIN, code_of, message_of
from penstock.groups.share.service import ShareGroups
from penstock.log.model import LEADER_EPOCH, Topic
from penstock.log.refusals import Refused
from penstock.log.registry import Registry
from penstock.share.acknowledging import AcknowledgeResult, Acknowledging, acknowledgements_of, session_key
from penstock.share.fetch import ShareFetchHandler
from penstock.share.service import SharePartitions
from penstock.share.sessions import FINAL_EPOCH, INITIAL_EPOCH, ShareSession, ShareSessions, TopicIdPartition
from penstock.share.settings import ShareConfigs
from penstock.share.store import PartitionName, SharePartitionSummary
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages import alter_share_group_offsets as alter
from penstock.wire.messages import delete_share_group_offsets as delete
from penstock.wire.messages import describe_share_group_offsets as describe
from penstock.wire.messages.share_acknowledge import (
    PartitionData,
    ShareAcknowledgeRequest,
    ShareAcknowledgeResponse,
    ShareAcknowledgeTopicResponse,
)
from penstock.wire.messages.share_fetch import ShareFetchRequest, ShareFetchResponse

_NONE = -1
_ZERO_UUID = bytes(16)


class ShareHandlers:
    """Share groups except for membership, which is in `groups/share`."""

    def __init__(
        self,
        *,
        registry: Registry,
        groups: ShareGroups,
        partitions: SharePartitions,
        sessions: ShareSessions,
        configs: ShareConfigs,
        fetch: ShareFetchHandler,
    ) -> None:
        self._registry, self._groups, self._partitions = registry, groups, partitions
        self._sessions, self._configs, self._fetch = sessions, configs, fetch
        self._acknowledging = Acknowledging(registry, partitions)
        self._releases: set[asyncio.Task[None]] = set()
        sessions.on_evicted = self._release_soon

    # --- Records ---

    async def share_fetch(self, context: RequestContext, request: ShareFetchRequest) -> ShareFetchResponse:
        """ShareFetch, key 78, v1-2. v2: acquire modes (KIP-1206), renewals (KIP-1222)."""
        return await self._fetch.share_fetch(context, request)

    async def share_acknowledge(
        self, context: RequestContext, request: ShareAcknowledgeRequest
    ) -> ShareAcknowledgeResponse:
        """ShareAcknowledge, key 79, v1-2. v2: renewals, lock duration in the response (KIP-1222)."""
        epoch = request.share_session_epoch
        try:
            key = session_key(context, request.group_id, request.member_id)
            if epoch == INITIAL_EPOCH:
                raise Refused(ErrorCode.INVALID_SHARE_SESSION_EPOCH, "A share session begins with a fetch.")
            if epoch == FINAL_EPOCH:
                self._sessions.require(key)
            else:
                self._sessions.advance(key, epoch)
        except Refused as refused:
            return ShareAcknowledgeResponse(error_code=refused.code, error_message=refused.message)
        results = await self._acknowledging.acknowledge(
            key, await acknowledgements_of(request.topics), version=context.api_version, is_renewal=request.is_renew_ack
        )
        if epoch == FINAL_EPOCH:
            await self._fetch.close_session(key)
        return ShareAcknowledgeResponse(
            acquisition_lock_timeout_ms=self._configs.of(key.cluster_id, key.group_id).limits.lock_ms,
            responses=await _acknowledged(results),
        )

    # --- Administration ---

    async def describe_offsets(
        self, context: RequestContext, request: describe.DescribeShareGroupOffsetsRequest
    ) -> describe.DescribeShareGroupOffsetsResponse:
        """DescribeShareGroupOffsets, key 90, v0-1. v1: lag (KIP-1226)."""
        groups = await describe_within_budget(
            request.groups, partial(self._described, context.cluster_id),
            lambda asked: describe.DescribeShareGroupOffsetsResponseGroup(
                group_id=asked.group_id, error_code=ASK_AGAIN
            ),
        )  # fmt: skip
        return describe.DescribeShareGroupOffsetsResponse(groups=groups)

    async def _described(
        self, cluster_id: int, asked: describe.DescribeShareGroupOffsetsRequestGroup
    ) -> describe.DescribeShareGroupOffsetsResponseGroup:
        try:
            return await self._offsets_of(cluster_id, asked)
        except PlatformError as failure:
            return describe.DescribeShareGroupOffsetsResponseGroup(
                group_id=asked.group_id, error_code=code_of(failure), error_message=message_of(failure)
            )

    async def _offsets_of(
        self, cluster_id: int, asked: describe.DescribeShareGroupOffsetsRequestGroup
    ) -> describe.DescribeShareGroupOffsetsResponseGroup:
        summaries = await self._partitions.summaries(cluster_id, asked.group_id)
        wanted: dict[str, Sequence[int]] = {}
        if asked.topics is None:
            group = await self._groups.find((cluster_id, asked.group_id))
            for topic_id, known in () if group is None else group.topics.items():
                name = self._registry.topic_name(cluster_id, topic_id)
                if name is not None:
                    wanted[name] = range(known.partition_count)
        else:
            wanted = {topic.topic_name: topic.partitions for topic in asked.topics}
        described, budget = (
            describe.DescribeShareGroupOffsetsResponseGroup(group_id=asked.group_id),
            TurnBudget(CHEAP_ITEMS_PER_TURN),
        )
        for name, indexes in wanted.items():
            topic = self._registry.by_name(cluster_id, name)
            partitions = await budget.map_each(indexes, partial(_described_offset, topic, summaries))
            described.topics.append(
                describe.DescribeShareGroupOffsetsResponseTopic(
                    topic_name=name, topic_id=_id_of(topic), partitions=partitions
                )
            )
            await budget.spend()
        return described

    async def alter_offsets(
        self, context: RequestContext, request: alter.AlterShareGroupOffsetsRequest
    ) -> alter.AlterShareGroupOffsetsResponse:
        """AlterShareGroupOffsets, key 91, v0: for groups without members."""
        cluster_id, group_id = context.cluster_id, request.group_id
        topics, offsets, budget = (
            dict[str, Topic | None](),
            dict[PartitionName, int](),
            TurnBudget(CHEAP_ITEMS_PER_TURN),
        )
        for asked in request.topics:
            topic = topics[asked.topic_name] = self._registry.by_name(cluster_id, asked.topic_name)
            await budget.spend()
            for partition in asked.partitions if topic is not None else ():
                await budget.spend()
                if topic is not None and 0 <= partition.partition_index < len(topic.partitions):
                    name = PartitionName(cluster_id, group_id, topic.topic_id, partition.partition_index)
                    offsets[name] = partition.start_offset
        try:
            if not group_id:
                raise Refused(ErrorCode.INVALID_GROUP_ID, "The group id must not be empty.")
            known = {topic.topic_id: len(topic.partitions) for topic in topics.values() if topic is not None}
            await self._partitions.settle_group((cluster_id, group_id))
            await self._groups.require_empty((cluster_id, group_id), known)
            await self._partitions.reset(offsets)
        except PlatformError as failure:
            return alter.AlterShareGroupOffsetsResponse(error_code=code_of(failure), error_message=message_of(failure))
        return alter.AlterShareGroupOffsetsResponse(
            responses=await map_nested_with_outer(
                request.topics,
                lambda asked: asked.partitions,
                lambda asked, one: _altered(topics[asked.topic_name], one.partition_index),
                lambda asked, partitions: alter.AlterShareGroupOffsetsResponseTopic(
                    topic_name=asked.topic_name, topic_id=_id_of(topics[asked.topic_name]), partitions=partitions
                ),
            )
        )

    async def delete_offsets(
        self, context: RequestContext, request: delete.DeleteShareGroupOffsetsRequest
    ) -> delete.DeleteShareGroupOffsetsResponse:
        """DeleteShareGroupOffsets, key 92, v0: for groups without members."""
        cluster_id, group_id = context.cluster_id, request.group_id
        try:
            if not group_id:
                raise Refused(ErrorCode.INVALID_GROUP_ID, "The group id must not be empty.")
            await self._partitions.settle_group((cluster_id, group_id))
            # Refuse an unknown or non-empty group before anything is lost.
            await self._groups.forget_topics((cluster_id, group_id), ())
            group = await self._groups.find((cluster_id, group_id))
            known = {} if group is None else group.topics
            responses, found = [], []
            for number, asked in enumerate(request.topics):
                await yield_if_due(number)
                topic = self._registry.by_name(cluster_id, asked.topic_name)
                if topic is not None and topic.topic_id in known:
                    found.append(topic)
                    responses.append(_deleted(asked.topic_name, topic.topic_id, ErrorCode.NONE, None))
                else:
                    complaint = "There is no offset information to delete." if topic is not None else "Unknown topic."
                    responses.append(
                        _deleted(asked.topic_name, _ZERO_UUID, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, complaint)
                    )
            await self._forget(cluster_id, group_id, found)
        except PlatformError as failure:
            return delete.DeleteShareGroupOffsetsResponse(
                error_code=code_of(failure), error_message=message_of(failure)
            )
        return delete.DeleteShareGroupOffsetsResponse(responses=responses)

    async def _forget(self, cluster_id: int, group_id: str, topics: Sequence[Topic]) -> None:
        names = (
            PartitionName(cluster_id, group_id, topic.topic_id, partition.index)
            for topic in topics
            for partition in topic.partitions
        )
        await self._partitions.forget(names)
        await self._groups.forget_topics((cluster_id, group_id), [topic.topic_id for topic in topics])

    # --- What else happens ---

    def on_connection_closed(self, connection_id: int) -> None:
        """A client disconnected: release what its sessions had acquired."""
        for session in self._sessions.close_connection(connection_id):
            self._release_soon(session)

    def _release_soon(self, session: ShareSession) -> None:
        task = asyncio.get_running_loop().create_task(self._fetch.release(session))
        self._releases.add(task)
        task.add_done_callback(self._releases.discard)


async def _acknowledged(results: Mapping[TopicIdPartition, AcknowledgeResult]) -> list[ShareAcknowledgeTopicResponse]:
    topics: dict[bytes, ShareAcknowledgeTopicResponse] = {}
    for number, (partition, outcome) in enumerate(results.items()):
        await yield_if_due(number, CHEAP_ITEMS_PER_TURN)
        topic = topics.setdefault(partition.topic_id, ShareAcknowledgeTopicResponse(topic_id=partition.topic_id))
        topic.partitions.append(
            PartitionData(
                partition_index=partition.partition_index, error_code=outcome.error, error_message=outcome.message
            )
        )
    return list(topics.values())


def _unknown_offset(index: int) -> describe.DescribeShareGroupOffsetsResponsePartition:
    return describe.DescribeShareGroupOffsetsResponsePartition(
        partition_index=index,
        start_offset=_NONE,
        lag=_NONE,
        error_code=ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        error_message="This server does not host this topic-partition.",
    )


def _offset(
    topic: Topic, index: int, summary: SharePartitionSummary | None
) -> describe.DescribeShareGroupOffsetsResponsePartition:
    """A group's start offset in a partition; -1 if it has not begun to read it."""
    if summary is None:
        return describe.DescribeShareGroupOffsetsResponsePartition(
            partition_index=index, start_offset=_NONE, leader_epoch=LEADER_EPOCH, lag=_NONE
        )
    lag = topic.partitions[index].next_offset - summary.start_offset - summary.delivery_complete
    return describe.DescribeShareGroupOffsetsResponsePartition(
        partition_index=index, start_offset=summary.start_offset, leader_epoch=LEADER_EPOCH, lag=max(lag, 0)
    )


def _described_offset(
    topic: Topic | None, summaries: Mapping[tuple[bytes, int], SharePartitionSummary], index: int
) -> describe.DescribeShareGroupOffsetsResponsePartition:
    if topic is None or not 0 <= index < len(topic.partitions):
        return _unknown_offset(index)
    return _offset(topic, index, summaries.get((topic.topic_id, index)))


def _id_of(topic: Topic | None) -> bytes:
    return _ZERO_UUID if topic is None else topic.topic_id


def _altered(topic: Topic | None, index: int) -> alter.AlterShareGroupOffsetsResponsePartition:
    if topic is not None and 0 <= index < len(topic.partitions):
        return alter.AlterShareGroupOffsetsResponsePartition(partition_index=index)
    return alter.AlterShareGroupOffsetsResponsePartition(
        partition_index=index,
        error_code=ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        error_message="This server does not host this topic-partition.",
    )


def _deleted(
    name: str, topic_id: bytes, error: ErrorCode, message: str | None
) -> delete.DeleteShareGroupOffsetsResponseTopic:
    return delete.DeleteShareGroupOffsetsResponseTopic(
        topic_name=name, topic_id=topic_id, error_code=error, error_message=message
    )
