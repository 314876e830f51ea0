"""Guards of producers and transactions: WRITE on the transactional id, DESCRIBE to describe it, else 53."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from penstock.authorization.authorizer import WRITE_TOPIC
from penstock.authorization.guards.access import (
    CLUSTER_DENIED,
    GROUP,
    GROUP_DENIED,
    TOPIC,
    TOPIC_DENIED,
    TRANSACTIONAL_ID,
    TRANSACTIONAL_ID_DENIED,
    Handler,
    RequestAccess,
)
from penstock.base.acls import Operation
from penstock.base.cooperative import distinct, map_each, map_nested, map_nested_with_outer, yield_if_due
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages import add_offsets_to_txn as adding_offsets
from penstock.wire.messages import add_partitions_to_txn as adding
from penstock.wire.messages import describe_transactions as describing
from penstock.wire.messages import end_txn as ending
from penstock.wire.messages import init_producer_id as initializing
from penstock.wire.messages import list_transactions as listing
from penstock.wire.messages import txn_offset_commit as committing
from penstock.wire.messages import write_txn_markers as marking

SEVERAL_SINCE = 4
"""The first version of AddPartitionsToTxn for brokers, with several transactions."""
IDS_SINCE = 6
"""The first version of TxnOffsetCommit with topic ids."""
INTERNAL_TOPICS = frozenset(("__consumer_offsets", "__transaction_state", "__share_group_state"))


async def init_producer_id(
    access: RequestAccess, request: initializing.InitProducerIdRequest, handle: Handler
) -> initializing.InitProducerIdResponse:
    """WRITE on the transactional id, else 53. Without one IDEMPOTENT_WRITE, or WRITE on any topic, else 31."""
    code = ErrorCode.NONE
    if request.transactional_id is not None:
        if not access.may(Operation.WRITE, TRANSACTIONAL_ID, request.transactional_id):
            code = TRANSACTIONAL_ID_DENIED.code
    elif not access.may_quietly_on_cluster(Operation.IDEMPOTENT_WRITE) and not await access.may_on_any(WRITE_TOPIC):
        # Neither permission is there: report one denial.
        access.may_on_cluster(Operation.IDEMPOTENT_WRITE)
        code = CLUSTER_DENIED.code
    if code:
        return initializing.InitProducerIdResponse(error_code=code, producer_id=-1, producer_epoch=-1)
    response: initializing.InitProducerIdResponse = await handle(request)
    return response


async def add_partitions(
    access: RequestAccess, request: adding.AddPartitionsToTxnRequest, handle: Handler
) -> adding.AddPartitionsToTxnResponse:
    """WRITE on the transactional id, else 53; on each topic, else 29, and then no partition is added. From v4 on for
    brokers only: CLUSTER_ACTION, else 31."""
    if access.context.api_version >= SEVERAL_SINCE:
        if not access.may_on_cluster(Operation.CLUSTER_ACTION):
            return adding.AddPartitionsToTxnResponse(error_code=CLUSTER_DENIED.code)
        return await _handled(request, handle)
    topics = request.v3_and_below_topics
    if not access.may(Operation.WRITE, TRANSACTIONAL_ID, request.v3_and_below_transactional_id):
        return adding.AddPartitionsToTxnResponse(
            results_by_topic_v3_and_below=await _results(topics, lambda topic, index: TRANSACTIONAL_ID_DENIED.code)
        )
    names = list(await distinct(topic.name for topic in topics))
    _, unwritable = await access.split(
        Operation.WRITE, TOPIC, names, lambda name: None if name in INTERNAL_TOPICS else name
    )
    denied = {*unwritable, *INTERNAL_TOPICS.intersection(names)}
    if not denied:
        return await _handled(request, handle)
    return adding.AddPartitionsToTxnResponse(
        results_by_topic_v3_and_below=await _results(
            topics, lambda topic, index: _partition_error(access, topic.name, index, denied)
        )
    )


async def _handled(request: adding.AddPartitionsToTxnRequest, handle: Handler) -> adding.AddPartitionsToTxnResponse:
    response: adding.AddPartitionsToTxnResponse = await handle(request)
    return response


def _partition_error(access: RequestAccess, topic: str, index: int, denied: set[str]) -> ErrorCode:
    if topic in denied:
        return TOPIC_DENIED.code
    exists = access.has_partition(topic, index)
    return ErrorCode.OPERATION_NOT_ATTEMPTED if exists else ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


async def _results(
    topics: Sequence[adding.AddPartitionsToTxnTopic],
    code_of: Callable[[adding.AddPartitionsToTxnTopic, int], ErrorCode],
) -> list[adding.AddPartitionsToTxnTopicResult]:
    """The results; each partition of a topic has one, even if it was requested twice."""
    return await map_nested_with_outer(
        topics,
        lambda topic: list(dict.fromkeys(topic.partitions)),
        lambda topic, index: adding.AddPartitionsToTxnPartitionResult(
            partition_index=index, partition_error_code=code_of(topic, index)
        ),
        lambda topic, results: adding.AddPartitionsToTxnTopicResult(name=topic.name, results_by_partition=results),
    )


async def add_offsets(
    access: RequestAccess, request: adding_offsets.AddOffsetsToTxnRequest, handle: Handler
) -> adding_offsets.AddOffsetsToTxnResponse:
    """WRITE on the transactional id, else 53; READ on the group, else 30."""
    if not access.may(Operation.WRITE, TRANSACTIONAL_ID, request.transactional_id):
        return adding_offsets.AddOffsetsToTxnResponse(error_code=TRANSACTIONAL_ID_DENIED.code)
    if not access.may(Operation.READ, GROUP, request.group_id):
        return adding_offsets.AddOffsetsToTxnResponse(error_code=GROUP_DENIED.code)
    response: adding_offsets.AddOffsetsToTxnResponse = await handle(request)
    return response


async def end_txn(access: RequestAccess, request: ending.EndTxnRequest, handle: Handler) -> ending.EndTxnResponse:
    """WRITE on the transactional id, else 53."""
    if not access.may(Operation.WRITE, TRANSACTIONAL_ID, request.transactional_id):
        return ending.EndTxnResponse(error_code=TRANSACTIONAL_ID_DENIED.code)
    response: ending.EndTxnResponse = await handle(request)
    return response


async def txn_offset_commit(
    access: RequestAccess, request: committing.TxnOffsetCommitRequest, handle: Handler
) -> committing.TxnOffsetCommitResponse:
    """WRITE on the transactional id, else 53; READ on the group, else 30; READ on each topic, else 29."""
    code = ErrorCode.NONE
    if not access.may(Operation.WRITE, TRANSACTIONAL_ID, request.transactional_id):
        code = TRANSACTIONAL_ID_DENIED.code
    elif not access.may(Operation.READ, GROUP, request.group_id):
        code = GROUP_DENIED.code
    if code:
        return committing.TxnOffsetCommitResponse(topics=await _uncommitted(request.topics, code))
    by_id = access.context.api_version >= IDS_SINCE
    request.topics, denied = await access.split(
        Operation.READ, TOPIC, request.topics, lambda one: access.topic_of(one.name, one.topic_id, by_id=by_id)
    )
    response: committing.TxnOffsetCommitResponse = await handle(request)
    response.topics += await _uncommitted(denied, TOPIC_DENIED.code)
    return response


async def _uncommitted(
    topics: Sequence[committing.TxnOffsetCommitRequestTopic], code: ErrorCode
) -> list[committing.TxnOffsetCommitResponseTopic]:
    return await map_nested(
        topics,
        lambda topic: topic.partitions,
        lambda one: committing.TxnOffsetCommitResponsePartition(partition_index=one.partition_index, error_code=code),
        lambda topic, partitions: committing.TxnOffsetCommitResponseTopic(
            name=topic.name, topic_id=topic.topic_id, partitions=partitions
        ),
    )


async def write_markers(
    access: RequestAccess, request: marking.WriteTxnMarkersRequest, handle: Handler
) -> marking.WriteTxnMarkersResponse:
    """ALTER or CLUSTER_ACTION on the cluster, else 31 for every partition."""
    if access.may_quietly_on_cluster(Operation.ALTER) or access.may_on_cluster(Operation.CLUSTER_ACTION):
        response: marking.WriteTxnMarkersResponse = await handle(request)
        return response
    response, code = marking.WriteTxnMarkersResponse(), CLUSTER_DENIED.code
    for number, marker in enumerate(request.markers):
        await yield_if_due(number)
        topics = await map_nested(
            marker.topics,
            lambda topic: topic.partition_indexes,
            lambda index: marking.WritableTxnMarkerPartitionResult(partition_index=index, error_code=code),
            lambda topic, partitions: marking.WritableTxnMarkerTopicResult(name=topic.name, partitions=partitions),
        )
        response.markers.append(marking.WritableTxnMarkerResult(producer_id=marker.producer_id, topics=topics))
    return response


async def describe_transactions(
    access: RequestAccess, request: describing.DescribeTransactionsRequest, handle: Handler
) -> describing.DescribeTransactionsResponse:
    """DESCRIBE on each transactional id, else 53. Topics are filtered by DESCRIBE."""
    request.transactional_ids, denied = await access.split(
        Operation.DESCRIBE, TRANSACTIONAL_ID, request.transactional_ids, lambda name: name
    )
    response: describing.DescribeTransactionsResponse = await handle(request)
    for number, state in enumerate(response.transaction_states):
        await yield_if_due(number)
        state.topics = await access.visible(Operation.DESCRIBE, TOPIC, state.topics, lambda one: one.topic)
    response.transaction_states += await map_each(
        denied,
        lambda name: describing.TransactionState(error_code=TRANSACTIONAL_ID_DENIED.code, transactional_id=name),
    )
    return response


async def list_transactions(
    access: RequestAccess, request: listing.ListTransactionsRequest, handle: Handler
) -> listing.ListTransactionsResponse:
    """Filtered by DESCRIBE on the transactional id."""
    response: listing.ListTransactionsResponse = await handle(request)
    response.transaction_states = await access.visible(
        Operation.DESCRIBE, TRANSACTIONAL_ID, response.transaction_states, lambda state: state.transactional_id
    )
    return response
