"""The partitions of a commit request, validated one by one: which offsets can be committed, and why others cannot.

Shared by OffsetCommit and TxnOffsetCommit, whose requests, errors and responses have the same shape.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from penstock.base.cooperative import TurnBudget
from penstock.base.dataclasses import dataclass, field
from penstock.groups.model import OffsetAndMetadata, TopicPartition
from penstock.groups.service import TopicLookup
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages.offset_commit import OffsetCommitRequestPartition, OffsetCommitRequestTopic
from penstock.wire.messages.txn_offset_commit import TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic

T = TypeVar("T")
CommitTopic = OffsetCommitRequestTopic | TxnOffsetCommitRequestTopic
CommitPartition = OffsetCommitRequestPartition | TxnOffsetCommitRequestPartition

_DECIDED_BY_GROUP = (ErrorCode.NONE, ErrorCode.OFFSET_METADATA_TOO_LARGE)
"""Codes of partitions that exist: if the group refuses the commit, they get its error instead."""


@dataclass(slots=True)
class ValidatedOffsets:
    """The valid offsets of a request, and an error code for each of its partitions."""

    offsets: dict[TopicPartition, OffsetAndMetadata] = field(default_factory=dict)
    errors: dict[tuple[int, int], ErrorCode] = field(default_factory=dict)
    """By position in the request: index of the topic, index of the partition."""
    outcome: ErrorCode = ErrorCode.NONE
    """The group's answer, which replaces the code of partitions that it decides on."""
    is_for_group: bool = False
    """Whether any partition is valid, so that the group must be asked."""

    async def response_topics(
        self, asked: Sequence[CommitTopic], topic_of: Callable[..., T], partition_of: Callable[..., object]
    ) -> list[T]:
        """The response in the shape of the request, built from the API's messages for topics and partitions."""
        answers, budget = list[T](), TurnBudget()
        for t, topic in enumerate(asked):
            await budget.spend()
            if not topic.partitions:
                continue
            results = []
            partitions: Sequence[CommitPartition] = topic.partitions
            for p, partition in enumerate(partitions):
                await budget.spend()
                error = self.errors[t, p]
                if self.outcome is not ErrorCode.NONE and error in _DECIDED_BY_GROUP:
                    error = self.outcome
                results.append(partition_of(partition_index=partition.partition_index, error_code=error))
            answers.append(topic_of(name=topic.name, topic_id=topic.topic_id, partitions=results))
        return answers


async def validate_offsets(
    topics: TopicLookup, cluster_id: int, asked: Sequence[CommitTopic], *, by_id: bool,
    metadata_max_size: int, now_ms: int, expires_ms: int | None = None,
) -> ValidatedOffsets:  # fmt: skip
    """Resolve topics and validate each partition."""
    found, budget = ValidatedOffsets(), TurnBudget()
    for t, topic in enumerate(asked):
        await budget.spend()
        topic_id = _topic_id(topics, cluster_id, topic, by_id=by_id)
        count = None if topic_id is None else topics.partition_count(cluster_id, topic_id) or 0
        partitions: Sequence[CommitPartition] = topic.partitions
        for p, partition in enumerate(partitions):
            await budget.spend()
            found.errors[t, p] = error = _error(count, partition, metadata_max_size, by_id=by_id)
            found.is_for_group = found.is_for_group or error in _DECIDED_BY_GROUP
            if error is ErrorCode.NONE and topic_id is not None:
                found.offsets[topic_id, partition.partition_index] = OffsetAndMetadata(
                    committed_offset=partition.committed_offset,
                    leader_epoch=partition.committed_leader_epoch,
                    metadata=partition.committed_metadata or "",
                    committed_ms=now_ms,
                    expires_ms=expires_ms,
                )
    return found


def _topic_id(topics: TopicLookup, cluster_id: int, topic: CommitTopic, *, by_id: bool) -> bytes | None:
    if not by_id:
        return topics.topic_id(cluster_id, topic.name)
    topic_id = bytes(topic.topic_id)
    return None if topics.topic_name(cluster_id, topic_id) is None else topic_id


def _error(count: int | None, partition: CommitPartition, metadata_max_size: int, *, by_id: bool) -> ErrorCode:
    if count is None:
        return ErrorCode.UNKNOWN_TOPIC_ID if by_id else ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    if not 0 <= partition.partition_index < count:
        return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    if len(partition.committed_metadata or "") > metadata_max_size:
        return ErrorCode.OFFSET_METADATA_TOO_LARGE
    return ErrorCode.NONE
