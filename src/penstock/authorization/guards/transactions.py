"""Guards of producers and transactions: WRITE on the transactional id, DESCRIBE to look at it, else 53."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from penstock.authorization.authorizer import WRITE_TOPIC
from penstock.authorization.guards.access import (
    GROUP,
    NO_CLUSTER,
    NO_GROUP,
    NO_TOPIC,
    NO_TRANSACTIONAL_ID,
    TOPIC,
    TRANSACTIONAL_ID,
    Access,
    Ask,
)
from penstock.base.acls import Operation
from penstock.base.portions import breathe, distinct, each, nested, nested_with
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
"""The version of AddPartitionsToTxn that is for brokers."""
IDS_SINCE = 6
"""The version of TxnOffsetCommit that names topics by id."""
INTERNAL_TOPICS = frozenset(("__consumer_offsets", "__transaction_state", "__share_group_state"))


async def init_producer_id(
    access: Access, request: initializing.InitProducerIdRequest, ask: Ask
) -> initializing.InitProducerIdResponse:
    """WRITE on the transactional id, else 53. Without one IDEMPOTENT_WRITE, or WRITE on any topic, else 31."""
    code = ErrorCode.NONE
    if request.transactional_id is not None:
        if not access.may(Operation.WRITE, TRANSACTIONAL_ID, request.transactional_id):
            code = NO_TRANSACTIONAL_ID.code
    elif not access.might_cluster(Operation.IDEMPOTENT_WRITE) and not await access.might_any(WRITE_TOPIC):
        # Nothing else would do: now it is a denial to report.
        access.may_cluster(Operation.IDEMPOTENT_WRITE)
        code = NO_CLUSTER.code
    if code:
        return initializing.InitProducerIdResponse(error_code=code, producer_id=-1, producer_epoch=-1)
    response: initializing.InitProducerIdResponse = await ask(request)
    return response


async def add_partitions(
    access: Access, request: adding.AddPartitionsToTxnRequest, ask: Ask
) -> adding.AddPartitionsToTxnResponse:
    """WRITE on the transactional id, else 53, and on each topic, else 29, and then nothing is added. From v4 on it is
    an API for brokers: CLUSTER_ACTION, else 31."""
    if access.context.api_version >= SEVERAL_SINCE:
        if not access.may_cluster(Operation.CLUSTER_ACTION):
            return adding.AddPartitionsToTxnResponse(error_code=NO_CLUSTER.code)
        return await _ask(request, ask)
    topics = request.v3_and_below_topics
    if not access.may(Operation.WRITE, TRANSACTIONAL_ID, request.v3_and_below_transactional_id):
        return adding.AddPartitionsToTxnResponse(
            results_by_topic_v3_and_below=await _results(topics, lambda topic, index: NO_TRANSACTIONAL_ID.code)
        )
    names = list(await distinct(topic.name for topic in topics))
    _, unwritable = await access.split(
        Operation.WRITE, TOPIC, names, lambda name: None if name in INTERNAL_TOPICS else name
    )
    denied = {*unwritable, *INTERNAL_TOPICS.intersection(names)}
    if not denied:
        return await _ask(request, ask)
    return adding.AddPartitionsToTxnResponse(
        results_by_topic_v3_and_below=await _results(
            topics, lambda topic, index: _why_not(access, topic.name, index, denied)
        )
    )


async def _ask(request: adding.AddPartitionsToTxnRequest, ask: Ask) -> adding.AddPartitionsToTxnResponse:
    response: adding.AddPartitionsToTxnResponse = await ask(request)
    return response


def _why_not(access: Access, topic: str, index: int, denied: set[str]) -> ErrorCode:
    if topic in denied:
        return NO_TOPIC.code
    exists = access.has_partition(topic, index)
    return ErrorCode.OPERATION_NOT_ATTEMPTED if exists else ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


async def _results(
    topics: Sequence[adding.AddPartitionsToTxnTopic],
    code_of: Callable[[adding.AddPartitionsToTxnTopic, int], ErrorCode],
) -> list[adding.AddPartitionsToTxnTopicResult]:
    """The answer, in which each partition of a topic is told of once."""
    return await nested_with(
        topics,
        lambda topic: list(dict.fromkeys(topic.partitions)),
        lambda topic, index: adding.AddPartitionsToTxnPartitionResult(
            partition_index=index, partition_error_code=code_of(topic, index)
        ),
        lambda topic, results: adding.AddPartitionsToTxnTopicResult(name=topic.name, results_by_partition=results),
    )


async def add_offsets(
    access: Access, request: adding_offsets.AddOffsetsToTxnRequest, ask: Ask
) -> adding_offsets.AddOffsetsToTxnResponse:
    """WRITE on the transactional id, else 53; READ on the group, else 30."""
    if not access.may(Operation.WRITE, TRANSACTIONAL_ID, request.transactional_id):
        return adding_offsets.AddOffsetsToTxnResponse(error_code=NO_TRANSACTIONAL_ID.code)
    if not access.may(Operation.READ, GROUP, request.group_id):
        return adding_offsets.AddOffsetsToTxnResponse(error_code=NO_GROUP.code)
    response: adding_offsets.AddOffsetsToTxnResponse = await ask(request)
    return response


async def end_txn(access: Access, request: ending.EndTxnRequest, ask: Ask) -> ending.EndTxnResponse:
    """WRITE on the transactional id, else 53."""
    if not access.may(Operation.WRITE, TRANSACTIONAL_ID, request.transactional_id):
        return ending.EndTxnResponse(error_code=NO_TRANSACTIONAL_ID.code)
    response: ending.EndTxnResponse = await ask(request)
    return response


async def txn_offset_commit(
    access: Access, request: committing.TxnOffsetCommitRequest, ask: Ask
) -> committing.TxnOffsetCommitResponse:
    """WRITE on the transactional id, else 53; READ on the group, else 30; READ on each topic, else 29."""
    code = ErrorCode.NONE
    if not access.may(Operation.WRITE, TRANSACTIONAL_ID, request.transactional_id):
        code = NO_TRANSACTIONAL_ID.code
    elif not access.may(Operation.READ, GROUP, request.group_id):
        code = NO_GROUP.code
    if code:
        return committing.TxnOffsetCommitResponse(topics=await _uncommitted(request.topics, code))
    by_id = access.context.api_version >= IDS_SINCE
    request.topics, denied = await access.split(
        Operation.READ, TOPIC, request.topics, lambda one: access.topic_of(one.name, one.topic_id, by_id=by_id)
    )
    response: committing.TxnOffsetCommitResponse = await ask(request)
    response.topics += await _uncommitted(denied, NO_TOPIC.code)
    return response


async def _uncommitted(
    topics: Sequence[committing.TxnOffsetCommitRequestTopic], code: ErrorCode
) -> list[committing.TxnOffsetCommitResponseTopic]:
    return await nested(
        topics,
        lambda topic: topic.partitions,
        lambda one: committing.TxnOffsetCommitResponsePartition(partition_index=one.partition_index, error_code=code),
        lambda topic, partitions: committing.TxnOffsetCommitResponseTopic(
            name=topic.name, topic_id=topic.topic_id, partitions=partitions
        ),
    )


async def write_markers(
    access: Access, request: marking.WriteTxnMarkersRequest, ask: Ask
) -> marking.WriteTxnMarkersResponse:
    """ALTER or CLUSTER_ACTION on the cluster, else 31 for every partition."""
    if access.might_cluster(Operation.ALTER) or access.may_cluster(Operation.CLUSTER_ACTION):
        response: marking.WriteTxnMarkersResponse = await ask(request)
        return response
    response, code = marking.WriteTxnMarkersResponse(), NO_CLUSTER.code
    for number, marker in enumerate(request.markers):
        await breathe(number)
        topics = await nested(
            marker.topics,
            lambda topic: topic.partition_indexes,
            lambda index: marking.WritableTxnMarkerPartitionResult(partition_index=index, error_code=code),
            lambda topic, partitions: marking.WritableTxnMarkerTopicResult(name=topic.name, partitions=partitions),
        )
        response.markers.append(marking.WritableTxnMarkerResult(producer_id=marker.producer_id, topics=topics))
    return response


async def describe_transactions(
    access: Access, request: describing.DescribeTransactionsRequest, ask: Ask
) -> describing.DescribeTransactionsResponse:
    """DESCRIBE on each transactional id, else 53. Of the topics only those one may describe are shown."""
    request.transactional_ids, denied = await access.split(
        Operation.DESCRIBE, TRANSACTIONAL_ID, request.transactional_ids, lambda name: name
    )
    response: describing.DescribeTransactionsResponse = await ask(request)
    for number, state in enumerate(response.transaction_states):
        await breathe(number)
        state.topics = await access.visible(Operation.DESCRIBE, TOPIC, state.topics, lambda one: one.topic)
    response.transaction_states += await each(
        denied,
        lambda name: describing.TransactionState(error_code=NO_TRANSACTIONAL_ID.code, transactional_id=name),
    )
    return response


async def list_transactions(
    access: Access, request: listing.ListTransactionsRequest, ask: Ask
) -> listing.ListTransactionsResponse:
    """Those one may describe."""
    response: listing.ListTransactionsResponse = await ask(request)
    response.transaction_states = await access.visible(
        Operation.DESCRIBE, TRANSACTIONAL_ID, response.transaction_states, lambda state: state.transactional_id
    )
    return response
