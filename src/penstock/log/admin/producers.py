"""DescribeProducers: the producer states that partitions keep."""

from __future__ import annotations

from penstock.base.context import RequestContext
from penstock.base.cooperative import ResponseBudget, yield_if_due
from penstock.log import topic_names
from penstock.log.model import Partition, ProducerState
from penstock.log.refusals import Refused
from penstock.log.registry import Registry
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages import describe_producers
from penstock.wire.messages.describe_producers import (
    DescribeProducersRequest,
    DescribeProducersResponse,
    PartitionResponse,
    TopicResponse,
)

NONE = -1
ASK_AGAIN = ErrorCode.NOT_LEADER_OR_FOLLOWER
"""The error for partitions that no longer fit into the answer: clients keep the rest and ask again for these."""


class ProducerHandlers:
    """Kafka's DescribeProducers API."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def describe_producers(
        self, context: RequestContext, request: DescribeProducersRequest
    ) -> DescribeProducersResponse:
        """DescribeProducers, key 61, v0 (KIP-664): the producer states that partitions keep."""
        response, budget = DescribeProducersResponse(), ResponseBudget()
        for number, wanted in enumerate(request.topics):
            await yield_if_due(number)
            topic = self._registry.by_name(context.cluster_id, wanted.name)
            partitions = [] if topic is None else topic.partitions
            missing = _missing(wanted.name)
            results = []
            for position, index in enumerate(wanted.partition_indexes):
                await yield_if_due(position)
                if not budget.is_left:
                    result = PartitionResponse(partition_index=index, error_code=ASK_AGAIN)
                elif 0 <= index < len(partitions):
                    result = _described(partitions[index])
                else:
                    result = PartitionResponse(
                        partition_index=index, error_code=missing.code, error_message=missing.message
                    )
                budget.spend(1 + len(result.active_producers))
                results.append(result)
            response.topics.append(TopicResponse(name=wanted.name, partitions=results))
        return response


def _missing(name: str) -> Refused:
    """Why there is no such partition."""
    try:
        topic_names.check(name)
    except Refused as refusal:
        return refusal
    return Refused(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "This server does not host this topic-partition.")


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
        coordinator_epoch=NONE,  # Kafka sends that of the last marker.
        current_txn_start_offset=NONE if transaction is None else transaction.first_offset,
    )
