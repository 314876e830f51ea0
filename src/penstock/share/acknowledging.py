"""Acknowledgements, from ShareAcknowledge or piggybacked on ShareFetch: validated, then passed to their partitions."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from penstock.base.context import RequestContext
from penstock.base.cooperative import CHEAP_ITEMS_PER_TURN, TurnBudget, yield_if_due
from penstock.base.errors import Fenced, PlatformError
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


class SubmittedAcknowledgements:
    """Acknowledgements of a request that were passed to their partitions."""

    def __init__(self) -> None:
        self.refused: dict[TopicIdPartition, AcknowledgeResult] = {}
        self.passed: dict[TopicIdPartition, asyncio.Future[Acknowledged]] = {}

    async def results(self) -> dict[TopicIdPartition, AcknowledgeResult]:
        """The result for each partition, once everything accepted is durable."""
        results = self.refused
        for number, (partition, passed) in enumerate(self.passed.items()):
            await yield_if_due(number, CHEAP_ITEMS_PER_TURN)
            try:
                answer = await passed
            except PlatformError as failure:
                results[partition] = _failed(failure)
            else:
                results[partition] = AcknowledgeResult(answer.error, answer.message)
        return results


Acknowledgements = Mapping[TopicIdPartition, Sequence[WireBatch]]


class Acknowledging:
    """Validates acknowledgements and passes them to their partitions."""

    def __init__(self, registry: Registry, partitions: SharePartitions) -> None:
        self._registry, self._partitions = registry, partitions

    async def acknowledge(
        self, key: SessionKey, acknowledgements: Acknowledgements, *, version: int, is_renewal: bool
    ) -> dict[TopicIdPartition, AcknowledgeResult]:
        """The result for each partition; returns once everything accepted is durable."""
        return await (await self.begin(key, acknowledgements, version=version, is_renewal=is_renewal)).results()

    async def begin(
        self, key: SessionKey, acknowledgements: Acknowledgements, *, version: int, is_renewal: bool
    ) -> SubmittedAcknowledgements:
        """Pass them to their partitions. When this returns, whatever is submitted for any of these partitions later is
        decided after its acknowledgements."""
        begun, budget = SubmittedAcknowledgements(), TurnBudget()
        for partition, batches in acknowledgements.items():
            await budget.spend(1 + len(batches))
            error = self._validate(key, partition, batches, version, is_renewal)
            if error is not ErrorCode.NONE or not batches:
                begun.refused[partition] = AcknowledgeResult(error)
            else:
                given = [Acknowledgement(one.first_offset, one.last_offset, one.acknowledge_types) for one in batches]
                self._pass(key, partition, given, begun)
        return begun

    def _pass(
        self,
        key: SessionKey,
        partition: TopicIdPartition,
        given: Sequence[Acknowledgement],
        begun: SubmittedAcknowledgements,
    ) -> None:
        name = PartitionName(key.cluster_id, key.group_id, *partition)
        try:
            begun.passed[partition] = self._partitions.acknowledge(name, key.holder, given)
        except PlatformError as failure:
            begun.refused[partition] = _failed(failure)

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
    acknowledgements, budget = dict[TopicIdPartition, Sequence[WireBatch]](), TurnBudget(CHEAP_ITEMS_PER_TURN)
    for topic in topics:
        await budget.spend()
        for partition in topic.partitions:
            await budget.spend()
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


def _failed(problem: PlatformError) -> AcknowledgeResult:
    """The outcome of acknowledgements that could not be made durable."""
    if isinstance(problem, Refused):
        error = problem.code
    else:
        fenced = isinstance(problem, Fenced)
        error = ErrorCode.NOT_LEADER_OR_FOLLOWER if fenced else ErrorCode.COORDINATOR_NOT_AVAILABLE
    return AcknowledgeResult(error, message_of(problem))
