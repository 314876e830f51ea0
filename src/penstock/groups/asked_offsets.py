"""The partitions of a commit request, validated one by one: which offsets can be committed, and why others cannot.

Shared by OffsetCommit and TxnOffsetCommit, whose requests, errors and responses have the same shape.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from penstock.base.cooperative import TurnBudget
from penstock.base.dataclasses import dataclass, field
from penstock.groups.model import Offset, TopicPartition
from penstock.groups.service import Topics
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages.offset_commit import OffsetCommitRequestPartition, OffsetCommitRequestTopic
from penstock.wire.messages.txn_offset_commit import TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic

T = TypeVar("T")
AskedTopic = OffsetCommitRequestTopic | TxnOffsetCommitRequestTopic
AskedPartition = OffsetCommitRequestPartition | TxnOffsetCommitRequestPartition

_ASKED_ABOUT = (ErrorCode.NONE, ErrorCode.OFFSET_METADATA_TOO_LARGE)
"""What partitions that there are are judged to be."""


@dataclass(slots=True)
class AskedOffsets:
    """A request, with a verdict on each partition. Partitions are identified by their position: topic, partition."""

    offsets: dict[TopicPartition, Offset] = field(default_factory=dict)
    errors: dict[tuple[int, int], ErrorCode] = field(default_factory=dict)

    outcome: ErrorCode = ErrorCode.NONE
    """The group's error for all partitions that it is asked about."""

    is_for_group: bool = False
    """Whether any partition is valid, so that the group must be asked."""

    async def told(
        self, asked: Sequence[AskedTopic], topic_of: Callable[..., T], partition_of: Callable[..., object]
    ) -> list[T]:
        """The response in the shape of the request, built from the API's messages for topics and partitions."""
        answers, budget = list[T](), TurnBudget()
        for t, topic in enumerate(asked):
            await budget.spend()
            if not topic.partitions:
                continue
            results = []
            partitions: Sequence[AskedPartition] = topic.partitions
            for p, partition in enumerate(partitions):
                await budget.spend()
                error = self.errors[t, p]
                if self.outcome is not ErrorCode.NONE and error in _ASKED_ABOUT:
                    error = self.outcome
                results.append(partition_of(partition_index=partition.partition_index, error_code=error))
            answers.append(topic_of(name=topic.name, topic_id=topic.topic_id, partitions=results))
        return answers


async def sort_out(
    topics: Topics, cluster_id: int, asked: Sequence[AskedTopic], *, by_id: bool, metadata_max_size: int, now_ms: int,
    expires_ms: int | None = None,
) -> AskedOffsets:  # fmt: skip
    """Resolve topics and validate each partition."""
    found, budget = AskedOffsets(), TurnBudget()
    for t, topic in enumerate(asked):
        await budget.spend()
        topic_id = _topic_id(topics, cluster_id, topic, by_id=by_id)
        count = None if topic_id is None else topics.partition_count(cluster_id, topic_id) or 0
        partitions: Sequence[AskedPartition] = topic.partitions
        for p, partition in enumerate(partitions):
            await budget.spend()
            found.errors[t, p] = error = _error(count, partition, metadata_max_size, by_id=by_id)
            found.is_for_group = found.is_for_group or error in _ASKED_ABOUT
            if error is ErrorCode.NONE and topic_id is not None:
                found.offsets[topic_id, partition.partition_index] = Offset(
                    committed_offset=partition.committed_offset,
                    leader_epoch=partition.committed_leader_epoch,
                    metadata=partition.committed_metadata or "",
                    committed_ms=now_ms,
                    expires_ms=expires_ms,
                )
    return found


def _topic_id(topics: Topics, cluster_id: int, topic: AskedTopic, *, by_id: bool) -> bytes | None:
    if not by_id:
        return topics.topic_id(cluster_id, topic.name)
    topic_id = bytes(topic.topic_id)
    return None if topics.topic_name(cluster_id, topic_id) is None else topic_id


def _error(count: int | None, partition: AskedPartition, metadata_max_size: int, *, by_id: bool) -> ErrorCode:
    if count is None:
        return ErrorCode.UNKNOWN_TOPIC_ID if by_id else ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    if not 0 <= partition.partition_index < count:
        return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    if len(partition.committed_metadata or "") > metadata_max_size:
        return ErrorCode.OFFSET_METADATA_TOO_LARGE
    return ErrorCode.NONE
