"""Acknowledgements, from ShareAcknowledge or piggybacked on ShareFetch: validated, then passed to their partitions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from penstock.base.context import RequestContext
from penstock.base.errors import Fenced, PlatformError
from penstock.base.portions import MADE_AT_ONCE, Pace, together
from penstock.groups.failures import message_of
from penstock.log.refusals import Refused
from penstock.log.registry import Registry
from penstock.share.model import Acknowledged, Acknowledgement, AcknowledgeType
from penstock.share.service import SharePartitions
from penstock.share.sessions import SessionKey, TopicIdPartition
from penstock.share.store import PartitionName
from penstock.wire.error_codes import ErrorCode

MAX_ACKNOWLEDGED_OFFSETS = 50_000
"""The most offsets of a partition that a request may acknowledge one by one. No group has as many in flight."""
MAX_MEMBER_ID = 36
"""Members choose their ids; Kafka's clients use UUIDs."""
RENEW_SINCE = 2


class WireBatch(Protocol):
    """What acknowledgement batches of both requests have in common."""

    first_offset: int
    last_offset: int
    acknowledge_types: list[int]


class AcknowledgeResult(NamedTuple):
    """The result for one partition."""

    error: ErrorCode = ErrorCode.NONE
    message: str | None = None


Acknowledgements = Mapping[TopicIdPartition, Sequence[WireBatch]]


class Acknowledging:
    """Validates acknowledgements and passes them to their partitions."""

    def __init__(self, registry: Registry, partitions: SharePartitions) -> None:
        self._registry, self._partitions = registry, partitions

    async def acknowledge(
        self, key: SessionKey, acknowledgements: Acknowledgements, *, version: int, is_renewal: bool
    ) -> dict[TopicIdPartition, AcknowledgeResult]:
        """The result for each partition; returns once everything accepted is durable."""
        results: dict[TopicIdPartition, AcknowledgeResult] = {}
        good: list[tuple[TopicIdPartition, list[Acknowledgement]]] = []
        pace = Pace(MADE_AT_ONCE)
        for partition, batches in acknowledgements.items():
            await pace.step(1 + len(batches))
            error = self._validate(key, partition, batches, version, is_renewal)
            if error is not ErrorCode.NONE or not batches:
                results[partition] = AcknowledgeResult(error)
            else:
                given = [Acknowledgement(one.first_offset, one.last_offset, one.acknowledge_types) for one in batches]
                good.append((partition, given))
        if len(good) == 1:
            results[good[0][0]] = await self._one(key, *good[0])
        else:
            # Concurrently, so that they become durable in one transaction.
            done = await together(good, lambda one: self._one(key, *one))
            results.update(zip((partition for partition, _ in good), done, strict=True))
        return results

    async def _one(
        self, key: SessionKey, partition: TopicIdPartition, given: Sequence[Acknowledgement]
    ) -> AcknowledgeResult:
        name = PartitionName(key.cluster_id, key.group_id, *partition)
        try:
            answer: Acknowledged = await self._partitions.acknowledge(name, key.holder, given)
        except PlatformError as failure:
            return AcknowledgeResult(acknowledge_failure(failure), message_of(failure))
        return AcknowledgeResult(answer.error, answer.message)

    def _validate(
        self, key: SessionKey, partition: TopicIdPartition, batches: Sequence[WireBatch], version: int, is_renewal: bool
    ) -> ErrorCode:
        topic = self._registry.by_id(key.cluster_id, partition.topic_id)
        if topic is None:
            return ErrorCode.UNKNOWN_TOPIC_ID
        highest = AcknowledgeType.RENEW if version >= RENEW_SINCE else AcknowledgeType.REJECT
        before = -1
        if sum(len(batch.acknowledge_types) for batch in batches) > MAX_ACKNOWLEDGED_OFFSETS:
            return ErrorCode.INVALID_REQUEST
        for batch in batches:
            types = batch.acknowledge_types
            size = batch.last_offset - batch.first_offset + 1
            if size <= 0 or batch.first_offset < before or not types or len(types) not in (1, size):
                return ErrorCode.INVALID_REQUEST
            if not all(0 <= kind <= highest for kind in types):
                return ErrorCode.INVALID_REQUEST
            if AcknowledgeType.RENEW in types and not is_renewal:
                return ErrorCode.INVALID_REQUEST
            before = batch.last_offset
        if not 0 <= partition.partition_index < len(topic.partitions):
            return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        return ErrorCode.NONE


async def acknowledgements_of(topics: Iterable[Any]) -> Acknowledgements:
    """The acknowledgements of a request of either kind, by partition."""
    acknowledgements, pace = dict[TopicIdPartition, Sequence[WireBatch]](), Pace(MADE_AT_ONCE)
    for topic in topics:
        await pace.step()
        for partition in topic.partitions:
            await pace.step()
            if partition.acknowledgement_batches:
                place = TopicIdPartition(topic.topic_id, partition.partition_index)
                acknowledgements[place] = partition.acknowledgement_batches
    return acknowledgements


def session_key(context: RequestContext, group_id: str | None, member_id: str | None) -> SessionKey:
    """The session of a request. Raises `Refused`."""
    if group_id is None:
        raise Refused(ErrorCode.INVALID_REQUEST, "Invalid group id in the request.")
    if not member_id or len(member_id) > MAX_MEMBER_ID:
        raise Refused(ErrorCode.INVALID_REQUEST, "Invalid member id in the request.")
    return SessionKey(context.cluster_id, group_id, member_id, context.principal)


def acknowledge_failure(error: PlatformError) -> ErrorCode:
    """The error when acknowledgements could not be made durable."""
    if isinstance(error, Refused):
        return error.code
    return ErrorCode.NOT_LEADER_OR_FOLLOWER if isinstance(error, Fenced) else ErrorCode.COORDINATOR_NOT_AVAILABLE
