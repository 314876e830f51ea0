"""Kafka's APIs of transactions, translated to the service and back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from functools import partial

from penstock.base.context import RequestContext
from penstock.base.cooperative import (
    CHEAP_ITEMS_PER_TURN,
    TurnBudget,
    distinct,
    map_each,
    map_nested_with_outer,
    sort_items,
    yield_if_due,
)
from penstock.base.errors import PlatformError
from penstock.coordination.model import Key
from penstock.groups.consumer import regexes
from penstock.groups.describing import describe_within_budget
from penstock.groups.failures import ASK_AGAIN, code_of
from penstock.log.model import Partition
from penstock.log.producer_ids import ProducerIds
from penstock.log.refusals import Refused
from penstock.log.registry import Registry
from penstock.transactions.cells import Cell
from penstock.transactions.model import (
    NO_EPOCH,
    NO_PRODUCER_ID,
    STATE_NAMES,
    AddToTransaction,
    EndTransaction,
    InitProducerId,
    ProducerIdAndEpoch,
    Result,
)
from penstock.transactions.service import TransactionService
from penstock.transactions.settings import TransactionSettings
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages import describe_transactions as describing
from penstock.wire.messages import list_transactions as listing
from penstock.wire.messages.add_offsets_to_txn import AddOffsetsToTxnRequest, AddOffsetsToTxnResponse
from penstock.wire.messages.add_partitions_to_txn import (
    AddPartitionsToTxnPartitionResult,
    AddPartitionsToTxnRequest,
    AddPartitionsToTxnResponse,
    AddPartitionsToTxnResult,
    AddPartitionsToTxnTopic,
    AddPartitionsToTxnTopicResult,
    AddPartitionsToTxnTransaction,
)
from penstock.wire.messages.describe_transactions import DescribeTransactionsRequest, DescribeTransactionsResponse
from penstock.wire.messages.end_txn import EndTxnRequest, EndTxnResponse
from penstock.wire.messages.init_producer_id import InitProducerIdRequest, InitProducerIdResponse
from penstock.wire.messages.list_transactions import ListTransactionsRequest, ListTransactionsResponse
from penstock.wire.messages.write_txn_markers import (
    WritableTxnMarker,
    WritableTxnMarkerPartitionResult,
    WritableTxnMarkerResult,
    WritableTxnMarkerTopicResult,
    WriteTxnMarkersRequest,
    WriteTxnMarkersResponse,
)

FIRST_EPOCH = 0
SEVERAL_SINCE = 4
"""The version of AddPartitionsToTxn from which it has several transactions."""
FENCED_SINCE = {"init": 4, "add_partitions": 2, "add_offsets": 2, "end": 2}
"""The version of each API from which clients know PRODUCER_FENCED."""
RAISES_EPOCH_SINCE = 5
MARKED_AT_ONCE = 1_000
"""The most partitions whose markers an administrator writes with one flush."""
_STATE_NAMES = frozenset({*STATE_NAMES.values(), "PrepareCommit", "PrepareAbort", "Dead", "PrepareEpochFence"})


class TransactionHandlers:
    """The transaction APIs. Every method takes the context and a request, and returns the response."""

    def __init__(
        self, service: TransactionService, registry: Registry, producer_ids: ProducerIds, settings: TransactionSettings
    ) -> None:
        self._service, self._registry, self._producer_ids = service, registry, producer_ids
        self._settings = settings
        self.producer_limit: Callable[[int], float | None] = lambda cluster_id: None
        """The limit on producer ids of a virtual cluster; None: no limit."""

    async def init_producer_id(self, context: RequestContext, request: InitProducerIdRequest) -> InitProducerIdResponse:
        """InitProducerId, key 22, v0-5. v2: flexible. v3: current id and epoch (KIP-360). v4: PRODUCER_FENCED. v5:
        transaction version 2. Producers without a transactional id get a new producer id each time."""
        try:
            self._check_producer_limit(context.cluster_id, request.transactional_id)
            if request.transactional_id is None:
                producer_id = await self._producer_ids.take()
                return InitProducerIdResponse(producer_id=producer_id, producer_epoch=FIRST_EPOCH)
            if not request.transactional_id:
                return _init_failed(ErrorCode.INVALID_REQUEST)
            if not 0 < request.transaction_timeout_ms <= self._settings.max_timeout_ms:
                return _init_failed(ErrorCode.INVALID_TRANSACTION_TIMEOUT)
            expected = None
            if request.producer_id != NO_PRODUCER_ID or request.producer_epoch != NO_EPOCH:
                if request.producer_id == NO_PRODUCER_ID or request.producer_epoch == NO_EPOCH:
                    return _init_failed(ErrorCode.INVALID_REQUEST)
                expected = ProducerIdAndEpoch(request.producer_id, request.producer_epoch)
            result = await self._service.init(
                (context.cluster_id, request.transactional_id),
                InitProducerId(timeout_ms=request.transaction_timeout_ms, expected=expected),
            )
        except PlatformError as problem:
            return _init_failed(code_of(problem))
        if result.error:
            return _init_failed(_known(result.error, context, "init"))
        return InitProducerIdResponse(producer_id=result.producer.producer_id, producer_epoch=result.producer.epoch)

    def _check_producer_limit(self, cluster_id: int, transactional_id: str | None) -> None:
        """Raise `Refused` if a producer needs an id and its virtual cluster is at its limit."""
        limit = self.producer_limit(cluster_id)
        if limit is None:
            return
        if transactional_id and self._service.cell((cluster_id, transactional_id)) is not None:
            return
        # Known to partitions, or owned by transactional ids.
        if self._registry.producer_total(cluster_id) >= limit:
            raise Refused(
                ErrorCode.POLICY_VIOLATION, f"The virtual cluster has reached its limit of {limit:.0f} producer ids."
            )

    # ---- adding to a transaction -----------------------------------------------------------------------------

    async def add_partitions(
        self, context: RequestContext, request: AddPartitionsToTxnRequest
    ) -> AddPartitionsToTxnResponse:
        """AddPartitionsToTxn, key 24, v0-5. v2: PRODUCER_FENCED. v3: flexible. v4: several transactions, or
        verification only. v5: transaction version 2, TRANSACTION_ABORTABLE where verification fails."""
        if context.api_version < SEVERAL_SINCE:
            one = AddPartitionsToTxnTransaction(
                transactional_id=request.v3_and_below_transactional_id,
                producer_id=request.v3_and_below_producer_id,
                producer_epoch=request.v3_and_below_producer_epoch,
                topics=request.v3_and_below_topics,
            )
            results = await self._add(context, one)
            return AddPartitionsToTxnResponse(results_by_topic_v3_and_below=results)
        response = AddPartitionsToTxnResponse()
        for number, asked in enumerate(request.transactions):
            await yield_if_due(number)
            response.results_by_transaction.append(
                AddPartitionsToTxnResult(
                    transactional_id=asked.transactional_id, topic_results=await self._add(context, asked)
                )
            )
        return response

    async def _add(
        self, context: RequestContext, asked: AddPartitionsToTxnTransaction
    ) -> list[AddPartitionsToTxnTopicResult]:
        found, budget = dict[tuple[str, int], Partition | None](), TurnBudget()
        for topic in asked.topics:
            await budget.spend()
            for index in topic.partitions:
                await budget.spend()
                found[topic.name, index] = self._partition(context, topic.name, index)
        if None in found.values():
            unknown, others = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, ErrorCode.OPERATION_NOT_ATTEMPTED
            return await _per_partition(asked.topics, lambda name, index: others if found[name, index] else unknown)
        if not asked.transactional_id:
            return await _per_partition(asked.topics, lambda name, index: ErrorCode.INVALID_REQUEST)
        key, producer = (
            (context.cluster_id, asked.transactional_id),
            ProducerIdAndEpoch(asked.producer_id, asked.producer_epoch),
        )
        if asked.verify_only:

            def verified(name: str, index: int) -> ErrorCode:
                partition = found[name, index]
                assert partition is not None
                return _known(self._verify(key, producer, partition), context, "add_partitions")

            return await _per_partition(asked.topics, verified)
        ids = frozenset(partition.partition_id for partition in found.values() if partition is not None)
        error = _known(
            await self._code(self._service.add(key, AddToTransaction(producer=producer, partitions=ids))),
            context,
            "add_partitions",
        )
        return await _per_partition(asked.topics, lambda name, index: error)

    def _verify(self, key: Key, producer: ProducerIdAndEpoch, partition: Partition) -> ErrorCode:
        try:
            self._service.require(key)
        except PlatformError as problem:
            return code_of(problem)
        return self._service.verify(key, producer, [partition])

    async def add_offsets(self, context: RequestContext, request: AddOffsetsToTxnRequest) -> AddOffsetsToTxnResponse:
        """AddOffsetsToTxn, key 25, v0-4. v2: PRODUCER_FENCED. v3: flexible."""
        if not request.transactional_id:
            return AddOffsetsToTxnResponse(error_code=ErrorCode.INVALID_REQUEST)
        producer = ProducerIdAndEpoch(request.producer_id, request.producer_epoch)
        error = await self._code(
            self._service.add(
                (context.cluster_id, request.transactional_id),
                AddToTransaction(producer=producer, groups=frozenset((request.group_id,))),
            )
        )
        return AddOffsetsToTxnResponse(error_code=_known(error, context, "add_offsets"))

    async def end_txn(self, context: RequestContext, request: EndTxnRequest) -> EndTxnResponse:
        """EndTxn, key 26, v0-5. v2: PRODUCER_FENCED. v3: flexible. v5: the response has the next epoch (KIP-890)."""
        if not request.transactional_id:
            return EndTxnResponse(error_code=ErrorCode.INVALID_REQUEST)
        try:
            outcome: Result | PlatformError = await self._service.end(*_end_of(context, request))
        except PlatformError as problem:
            outcome = problem
        return _ended(context, outcome)

    def begin_end_txn(
        self, context: RequestContext, request: EndTxnRequest, done: Callable[[EndTxnResponse | None], None]
    ) -> None:
        """The same, answered as soon as the transaction has ended. None: use `end_txn`."""
        if not request.transactional_id:
            done(EndTxnResponse(error_code=ErrorCode.INVALID_REQUEST))
            return

        def callback(outcome: Result | PlatformError | None) -> None:
            done(None if outcome is None else _ended(context, outcome))

        self._service.end_soon(*_end_of(context, request), callback)

    async def _code(self, answer: Awaitable[Result]) -> ErrorCode:
        try:
            return (await answer).error
        except PlatformError as problem:
            return code_of(problem)

    # ---- administration --------------------------------------------------------------------------------------

    async def describe_transactions(
        self, context: RequestContext, request: DescribeTransactionsRequest
    ) -> DescribeTransactionsResponse:
        """DescribeTransactions, key 65, v0 (KIP-664): the owner of an id, and the partitions of its transaction."""
        states = await describe_within_budget(
            request.transactional_ids, partial(self._describe, context),
            lambda name: describing.TransactionState(error_code=ASK_AGAIN, transactional_id=name),
        )  # fmt: skip
        return DescribeTransactionsResponse(transaction_states=states)

    async def _describe(self, context: RequestContext, transactional_id: str) -> describing.TransactionState:
        key = (context.cluster_id, transactional_id)
        try:
            self._service.require(key)
        except PlatformError as problem:
            return describing.TransactionState(error_code=code_of(problem), transactional_id=transactional_id)
        cell = self._service.cell(key)
        if not transactional_id or cell is None:
            code = ErrorCode.TRANSACTIONAL_ID_NOT_FOUND if transactional_id else ErrorCode.INVALID_REQUEST
            return describing.TransactionState(error_code=code, transactional_id=transactional_id)
        topics: dict[str, list[int]] = {}
        for partition in self._service.partitions_of(cell):
            topics.setdefault(partition.topic.name, []).append(partition.index)
        txn = cell.txn
        return describing.TransactionState(
            transactional_id=transactional_id,
            transaction_state=STATE_NAMES[cell.state],
            transaction_timeout_ms=txn.timeout_ms,
            transaction_start_time_ms=cell.began_ms,
            producer_id=txn.producer_id,
            producer_epoch=txn.epoch,
            topics=[
                describing.TopicData(topic=name, partitions=sorted(indexes)) for name, indexes in sorted(topics.items())
            ],
        )

    async def list_transactions(
        self, context: RequestContext, request: ListTransactionsRequest
    ) -> ListTransactionsResponse:
        """ListTransactions, key 66, v0-2. Filters by state and producer (KIP-664). v1: by duration. v2: by a pattern of
        ids."""
        pattern = request.transactional_id_pattern
        if pattern:
            try:
                regexes.check(pattern)
            except Refused as refused:
                return ListTransactionsResponse(error_code=refused.code)
        states, now_ms = await distinct(request.state_filters), self._service.now_ms()
        producer_ids = await distinct(request.producer_id_filters)

        def is_asked(cell: Cell) -> bool:
            if states and STATE_NAMES[cell.state] not in states:
                return False
            if producer_ids and cell.txn.producer_id not in producer_ids:
                return False
            return request.duration_filter < 0 or (cell.is_ongoing and now_ms - cell.began_ms > request.duration_filter)

        asked: dict[str, Cell] = {}
        for number, cell in enumerate(list(self._service.all(context.cluster_id))):
            await yield_if_due(number, CHEAP_ITEMS_PER_TURN)
            if is_asked(cell):
                asked[cell.txn.key[1]] = cell
        names = await sort_items(list(asked), str)
        if pattern:
            names = [name async for name in regexes.matching(pattern, names)]
        return ListTransactionsResponse(
            unknown_state_filters=await sort_items([state for state in states if state not in _STATE_NAMES], str),
            transaction_states=await map_each(
                names,
                lambda name: listing.TransactionState(
                    transactional_id=name, producer_id=asked[name].txn.producer_id,
                    transaction_state=STATE_NAMES[asked[name].state],
                ),
            ),
        )  # fmt: skip

    async def write_markers(self, context: RequestContext, request: WriteTxnMarkersRequest) -> WriteTxnMarkersResponse:
        """WriteTxnMarkers, key 27, v1-2: used by administrators to abort a hanging transaction in a partition."""
        response = WriteTxnMarkersResponse()
        for number, asked in enumerate(request.markers):
            await yield_if_due(number)
            if asked.topics:
                response.markers.append(await self._write_marker(context, asked))
        return response

    async def _write_marker(self, context: RequestContext, asked: WritableTxnMarker) -> WritableTxnMarkerResult:
        found, budget = dict[tuple[str, int], Partition | None](), TurnBudget()
        for topic in asked.topics:
            await budget.spend()
            for index in topic.partition_indexes:
                await budget.spend()
                found[topic.name, index] = self._partition(context, topic.name, index)
        partitions = [partition for partition in found.values() if partition is not None]
        refusals, error = dict[Partition, ErrorCode](), ErrorCode.NONE
        try:
            for first in range(0, len(partitions), MARKED_AT_ONCE) or (0,):
                producer = ProducerIdAndEpoch(asked.producer_id, asked.producer_epoch)
                refusals |= await self._service.write_marker(
                    producer, partitions[first : first + MARKED_AT_ONCE],
                    commit=asked.transaction_result, coordinator_epoch=asked.coordinator_epoch,
                )  # fmt: skip
        except PlatformError:
            error = ErrorCode.KAFKA_STORAGE_ERROR

        def code(partition: Partition | None) -> ErrorCode:
            if partition is None:
                return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            return error or refusals.get(partition, ErrorCode.NONE)

        topics = await map_nested_with_outer(
            asked.topics,
            lambda topic: topic.partition_indexes,
            lambda topic, index: WritableTxnMarkerPartitionResult(
                partition_index=index, error_code=code(found[topic.name, index])
            ),
            lambda topic, results: WritableTxnMarkerTopicResult(name=topic.name, partitions=results),
        )
        return WritableTxnMarkerResult(producer_id=asked.producer_id, topics=topics)

    def _partition(self, context: RequestContext, name: str, index: int) -> Partition | None:
        topic = self._registry.by_name(context.cluster_id, name)
        return topic.partitions[index] if topic is not None and 0 <= index < len(topic.partitions) else None


def _init_failed(code: ErrorCode) -> InitProducerIdResponse:
    return InitProducerIdResponse(error_code=code, producer_id=NO_PRODUCER_ID, producer_epoch=NO_EPOCH)


def _end_of(context: RequestContext, request: EndTxnRequest) -> tuple[Key, EndTransaction]:
    producer = ProducerIdAndEpoch(request.producer_id, request.producer_epoch)
    raises_epoch = context.api_version >= RAISES_EPOCH_SINCE
    end = EndTransaction(producer=producer, commit=request.committed, raises_epoch=raises_epoch)
    return (context.cluster_id, request.transactional_id), end


def _ended(context: RequestContext, outcome: Result | PlatformError) -> EndTxnResponse:
    if isinstance(outcome, PlatformError):
        return EndTxnResponse(error_code=code_of(outcome))
    if outcome.error:
        return EndTxnResponse(error_code=_known(outcome.error, context, "end"))
    return EndTxnResponse(producer_id=outcome.producer.producer_id, producer_epoch=outcome.producer.epoch)


def _known(error: ErrorCode, context: RequestContext, api: str) -> ErrorCode:
    """The error as this version knows it."""
    if error is ErrorCode.PRODUCER_FENCED and context.api_version < FENCED_SINCE[api]:
        return ErrorCode.INVALID_PRODUCER_EPOCH
    return error


async def _per_partition(
    topics: Iterable[AddPartitionsToTxnTopic], error_of: Callable[[str, int], ErrorCode]
) -> list[AddPartitionsToTxnTopicResult]:
    return await map_nested_with_outer(
        topics,
        lambda topic: topic.partitions,
        lambda topic, index: AddPartitionsToTxnPartitionResult(
            partition_index=index, partition_error_code=error_of(topic.name, index)
        ),
        lambda topic, results: AddPartitionsToTxnTopicResult(name=topic.name, results_by_partition=results),
    )
