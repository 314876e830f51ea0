"""Idempotent producers, from a client's side: InitProducerId, DescribeProducers."""

from __future__ import annotations

from penstock.base.context import RequestContext
from penstock.base.errors import PlatformError
from penstock.log.model import Partition, ProducerState
from penstock.log.producer_ids import ProducerIds
from penstock.log.registry import Registry
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages import describe_producers
from penstock.wire.messages.describe_producers import (
    DescribeProducersRequest,
    DescribeProducersResponse,
    PartitionResponse,
    TopicResponse,
)
from penstock.wire.messages.init_producer_id import InitProducerIdRequest, InitProducerIdResponse

FIRST_EPOCH = 0
NONE = -1


class ProducerHandlers:
    """Kafka's APIs about producer ids and what partitions remember of them."""

    def __init__(self, registry: Registry, producer_ids: ProducerIds) -> None:
        self._registry = registry
        self._producer_ids = producer_ids

    async def init_producer_id(self, context: RequestContext, request: InitProducerIdRequest) -> InitProducerIdResponse:
        """InitProducerId, key 22, v0-5. v2: flexible. v3: a producer may say who it was (KIP-360). v5: transactions
        of version 2. Idempotent producers get a fresh id each time; there are no transactions yet."""
        if request.transactional_id is None:
            try:
                producer_id = await self._producer_ids.take()
            except PlatformError:
                # Clients ask again after this code.
                return _refused(ErrorCode.COORDINATOR_NOT_AVAILABLE)
            return InitProducerIdResponse(producer_id=producer_id, producer_epoch=FIRST_EPOCH)
        empty = not request.transactional_id
        return _refused(ErrorCode.INVALID_REQUEST if empty else ErrorCode.UNSUPPORTED_VERSION)

    async def describe_producers(
        self, context: RequestContext, request: DescribeProducersRequest
    ) -> DescribeProducersResponse:
        """DescribeProducers, key 61, v0 (KIP-664): what partitions remember of their producers."""
        response = DescribeProducersResponse()
        for wanted in request.topics:
            topic = self._registry.by_name(context.cluster_id, wanted.name)
            partitions = [] if topic is None else topic.partitions
            results = [
                _described(partitions[index])
                if 0 <= index < len(partitions)
                else PartitionResponse(
                    partition_index=index, error_code=ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
                    error_message="This server does not host this topic-partition.",
                )
                for index in wanted.partition_indexes
            ]  # fmt: skip
            response.topics.append(TopicResponse(name=wanted.name, partitions=results))
        return response


def _refused(code: ErrorCode) -> InitProducerIdResponse:
    return InitProducerIdResponse(error_code=code, producer_id=NONE, producer_epoch=NONE)


def _described(partition: Partition) -> PartitionResponse:
    return PartitionResponse(
        partition_index=partition.index,
        active_producers=[_producer(partition, state) for state in partition.producers.values()],
    )


def _producer(partition: Partition, state: ProducerState) -> describe_producers.ProducerState:
    transaction = partition.transactions.get(state.producer_id)
    newest = state.batches[-1] if state.batches else None
    return describe_producers.ProducerState(
        producer_id=state.producer_id,
        producer_epoch=state.epoch,
        last_sequence=NONE if newest is None else newest.last_sequence,
        last_timestamp=state.last_ms if newest is None else newest.timestamp,
        coordinator_epoch=NONE if transaction is None else 0,
        current_txn_start_offset=NONE if transaction is None else transaction.first_offset,
    )
