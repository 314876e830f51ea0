"""TxnOffsetCommit: offsets that become committed when a transaction does.

First the group is made part of the transaction, durably; then the group's coordinator judges the member and stores
the offsets as pending, in order with everything else that happens to the group. They are stored only if the producer
still has that transaction.
"""

from __future__ import annotations

from typing import Protocol

from penstock.base.context import RequestContext
from penstock.base.errors import PlatformError
from penstock.groups.failures import code_of
from penstock.groups.model import CommitOffsets, Offset, TopicPartition, TransactionOwner
from penstock.groups.service import GroupService
from penstock.transactions.model import Add, Producer
from penstock.transactions.service import TransactionService
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages.txn_offset_commit import (
    TxnOffsetCommitRequest,
    TxnOffsetCommitRequestPartition,
    TxnOffsetCommitRequestTopic,
    TxnOffsetCommitResponse,
    TxnOffsetCommitResponsePartition,
    TxnOffsetCommitResponseTopic,
)

IMPLICIT_SINCE, ABORTABLE_SINCE, TOPIC_IDS_SINCE = 5, 4, 6


class Topics(Protocol):
    """What is to be known of topics."""

    def topic_id(self, cluster_id: int, name: str) -> bytes | None:
        """The id of the topic of that name, or None."""

    def topic_name(self, cluster_id: int, topic_id: bytes) -> str | None:
        """The name of the topic with that id, or None."""

    def partition_count(self, cluster_id: int, topic_id: bytes) -> int | None:
        """How many partitions the topic with that id has, or None when there is no such topic."""


class TransactionOffsetHandlers:
    """Answers TxnOffsetCommit."""

    def __init__(self, service: TransactionService, groups: GroupService, topics: Topics) -> None:
        self._service, self._groups, self._topics = service, groups, topics

    async def txn_offset_commit(
        self, context: RequestContext, request: TxnOffsetCommitRequest
    ) -> TxnOffsetCommitResponse:
        """TxnOffsetCommit, key 28, v0-6. v2: leader epochs. v3: flexible, members (KIP-447). v4: TRANSACTION_ABORTABLE.
        v5: the group becomes part of the transaction by this (KIP-890). v6: topic ids."""
        now_ms = self._groups.now_ms()
        errors: dict[tuple[int, int], ErrorCode] = {}
        offsets: dict[TopicPartition, Offset] = {}
        for t, topic in enumerate(request.topics):
            topic_id = self._topic_id(context, topic)
            for p, partition in enumerate(topic.partitions):
                errors[t, p] = error = self._error(context, topic_id, partition)
                if error is ErrorCode.NONE and topic_id is not None:
                    offsets[topic_id, partition.partition_index] = Offset(
                        committed_offset=partition.committed_offset,
                        leader_epoch=partition.committed_leader_epoch,
                        metadata=partition.committed_metadata or "",
                        committed_ms=now_ms,
                    )
        if offsets:
            failure = await self._commit(context, request, offsets)
            errors = {where: failure if error is ErrorCode.NONE else error for where, error in errors.items()}
        return TxnOffsetCommitResponse(
            topics=[
                TxnOffsetCommitResponseTopic(
                    name=topic.name,
                    topic_id=topic.topic_id,
                    partitions=[
                        TxnOffsetCommitResponsePartition(
                            partition_index=partition.partition_index, error_code=errors[t, p]
                        )
                        for p, partition in enumerate(topic.partitions)
                    ],
                )
                for t, topic in enumerate(request.topics)
            ]
        )

    def _topic_id(self, context: RequestContext, topic: TxnOffsetCommitRequestTopic) -> bytes | None:
        if context.api_version < TOPIC_IDS_SINCE:
            return self._topics.topic_id(context.cluster_id, topic.name)
        topic_id = bytes(topic.topic_id)
        return None if self._topics.topic_name(context.cluster_id, topic_id) is None else topic_id

    def _error(
        self, context: RequestContext, topic_id: bytes | None, partition: TxnOffsetCommitRequestPartition
    ) -> ErrorCode:
        if topic_id is None:
            by_id = context.api_version >= TOPIC_IDS_SINCE
            return ErrorCode.UNKNOWN_TOPIC_ID if by_id else ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        count = self._topics.partition_count(context.cluster_id, topic_id) or 0
        if not 0 <= partition.partition_index < count:
            return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        if len(partition.committed_metadata or "") > self._groups.settings.offset_metadata_max_size:
            return ErrorCode.OFFSET_METADATA_TOO_LARGE
        return ErrorCode.NONE

    async def _commit(
        self, context: RequestContext, request: TxnOffsetCommitRequest, offsets: dict[TopicPartition, Offset]
    ) -> ErrorCode:
        try:
            error = await self._join(context, request)
            if error is not ErrorCode.NONE:
                return error
            asked = CommitOffsets(
                member_id=request.member_id,
                instance_id=request.group_instance_id,
                generation=request.generation_id_or_member_epoch,
                offsets=offsets,
                owner=TransactionOwner(
                    transactional_id=request.transactional_id,
                    producer_id=request.producer_id,
                    epoch=request.producer_epoch,
                ),
            )
            return await self._groups.commit_offsets((context.cluster_id, request.group_id), asked)
        except PlatformError as problem:
            return code_of(problem)

    async def _join(self, context: RequestContext, request: TxnOffsetCommitRequest) -> ErrorCode:
        """Make the group part of the transaction, or see whether it is."""
        key, groups = (context.cluster_id, request.transactional_id), frozenset((request.group_id,))
        add = Add(producer=Producer(request.producer_id, request.producer_epoch), groups=groups)
        error = self._service.add_error(key, add)
        if error is None and context.api_version < IMPLICIT_SINCE:
            abortable = context.api_version >= ABORTABLE_SINCE
            return ErrorCode.TRANSACTION_ABORTABLE if abortable else ErrorCode.INVALID_TXN_STATE
        if error is None:
            error = (await self._service.add(key, add)).error
        return ErrorCode.INVALID_PRODUCER_EPOCH if error is ErrorCode.PRODUCER_FENCED else error
