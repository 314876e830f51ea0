"""Produce: validate each partition's batch, submit the valid ones to the writer, answer when all are settled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Protocol

from penstock.authorization.authorizer import WRITE_TOPIC, WRITE_TRANSACTIONAL_ID, Authorizer, Grant
from penstock.base.clock import Clock
from penstock.base.context import RequestContext
from penstock.base.threads import OnThread
from penstock.log.answers import Appended, PendingAppend, Ticket
from penstock.log.batches import (
    Accepted,
    InlineDecodeBudget,
    Rejected,
    Undecoded,
    accept,
    accept_shares,
    flags_of_transactional,
    inspect_header,
    inspect_records,
    inspect_records_inline,
    is_transactional,
    limits_of_plain,
)
from penstock.log.model import NO_PRODUCER_ID, Partition
from penstock.log.producers import is_fenced
from penstock.log.registry import Registry
from penstock.log.writer import Writer
from penstock.wire.api_keys import ApiKey
from penstock.wire.error_codes import ErrorCode
from penstock.wire.hot import PlainProduce, ProduceShape
from penstock.wire.messages.produce import (
    BatchIndexAndErrorMessage,
    PartitionProduceData,
    PartitionProduceResponse,
    ProduceRequest,
    ProduceResponse,
    TopicProduceData,
    TopicProduceResponse,
)

TOPIC_IDS_SINCE = 13
_ACKS = (-1, 0, 1)
_PRODUCE = int(ApiKey.PRODUCE)

Done = Callable[[list[Appended]], None]
ValidationResult = Accepted | Rejected | Undecoded


class TransactionalIds(Protocol):
    """Knows which producer owns which transactional id."""

    def ownership(self, key: tuple[int, str], producer_id: int) -> ErrorCode:
        """Why a producer does not own a transactional id of a virtual cluster, or NONE."""


class RequestOrder(Protocol):
    """Keeps the requests of one connection in order."""

    def hold(self) -> None:
        """Hold back the requests after this one."""

    def release(self) -> None:
        """Continue with them."""


class ProduceHandler:
    """Answers Produce. `done` gets one result per partition, in the request's order, when all are durable or refused,
    or when the request's time-out has passed; it may be called before `handle` returns.

    Where records must be decoded, as a topic or an unusual timestamp may require, it is done on a thread if it may take
    long: producers determine how long. Later requests of the connection are held back, so that batches are written in
    the order in which they arrived.
    """

    def __init__(self, *, registry: Registry, writer: Writer, clock: Clock) -> None:
        self._registry, self._writer, self._clock = registry, writer, clock
        self.beside: OnThread | None = None
        """The thread that decodes batches; None: the event loop's."""
        self.decoding_bytes = 0
        """Bytes of batches that are being decoded, or wait for it."""
        self._decoding: set[asyncio.Task[None]] = set()
        self.transactional_ids: TransactionalIds | None = None
        """Ownership of transactional ids. None: there are none."""
        self.authorizer: Authorizer | None = None
        """Checks permissions. None: everything is allowed."""

    async def drain(self) -> None:
        """Wait for batches that are being decoded."""
        while self._decoding:
            await asyncio.wait(self._decoding)

    def handle(
        self, context: RequestContext, request: ProduceRequest, done: Done, order: RequestOrder | None = None
    ) -> None:
        """Produce, key 0, v3-13. v7: zstd. v8: record errors. v9: flexible. v13: topic ids.

        Only durable records are acknowledged: `acks` 1 and all are the same. With `acks` 0 there is no response.
        """
        _count_repeats_once(request)
        batches = [share.records for topic in request.topic_data for share in topic.partition_data]
        if not self._may_use_id(context, request.transactional_id, batches):
            done([Appended(ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED)] * len(batches))
            return
        key, transactional = (context.cluster_id, request.transactional_id or ""), request.transactional_id is not None
        validation = ProduceValidation(partial(self._owned, key))
        for topic in request.topic_data:
            for share in topic.partition_data:
                if request.acks not in _ACKS:
                    validation.refuse(ErrorCode.INVALID_REQUIRED_ACKS)
                    continue
                partition = self._find(context, context.api_version, topic.name, topic.topic_id, share.index)
                if isinstance(partition, ErrorCode):
                    validation.refuse(partition)
                else:
                    validation.add(
                        partition,
                        self._inspect(
                            share.records, partition, validation.budget, order, version=context.api_version,
                            transactional=transactional,
                        ),
                    )  # fmt: skip
        self._submit(validation, done, order, request.timeout_ms if request.acks else None)

    def handle_plain(
        self, context: RequestContext, request: PlainProduce, frame: bytes | memoryview, done: Done,
        order: RequestOrder | None = None,
    ) -> None:  # fmt: skip
        """The same for a request that was parsed without a message; it wants an acknowledgement."""
        shares, now_ms, transactional_id = request.shares, self._clock.now_ms(), request.transactional_id
        flags = 0
        if transactional_id is not None:
            flags, whole = flags_of_transactional(request.version), memoryview(frame)
            if not self._may_use_id(context, transactional_id, (whole[share[3] : share[4]] for share in shares)):
                done([Appended(ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED)] * len(shares))
                return
        owned = partial(self._owned, (context.cluster_id, transactional_id or ""))
        topic_name, topic_id = shares[0][:2] if shares else ("", b"")
        partitions = self._partitions(context, request.version, topic_name, topic_id) if shares else []
        if shares and not isinstance(partitions, ErrorCode):
            max_bytes, latest_ms = limits_of_plain(partitions[0].topic.config, now_ms)
            accepted = accept_shares(frame, shares, partitions, max_bytes, latest_ms, flags)
            if accepted is not None:
                first = accepted[0][1]
                if not first.flags or owned(first) is ErrorCode.NONE:
                    self._writer.submit_all(accepted, Ticket([None] * len(accepted), done, request.timeout_ms))
                    return
        validation = ProduceValidation(owned)
        for name, named_id, index, start, end in shares:
            if name != topic_name or named_id != topic_id:
                topic_name, topic_id = name, named_id
                partitions = self._partitions(context, request.version, name, named_id)
                if not isinstance(partitions, ErrorCode):
                    max_bytes, latest_ms = limits_of_plain(partitions[0].topic.config, now_ms)
            if isinstance(partitions, ErrorCode):
                validation.refuse(partitions)
                continue
            if not 0 <= index < len(partitions):
                validation.refuse(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
                continue
            partition = partitions[index]
            outcome: ValidationResult | None = accept(frame, start, end, max_bytes, latest_ms, flags)
            if outcome is None:
                outcome = self._inspect(
                    memoryview(frame)[start:end], partition, validation.budget, order, version=request.version,
                    transactional=transactional_id is not None,
                )  # fmt: skip
            validation.add(partition, outcome)
        self._submit(validation, done, order, request.timeout_ms)

    def handle_one(
        self, context: RequestContext, shape: ProduceShape, index: int, records: memoryview, ticket: PendingAppend,
        grant: Grant, order: RequestOrder | None = None,
    ) -> None:  # fmt: skip
        """The same for a request of one partition, without a transaction, that wants an acknowledgement. The grant is
        that of all requests of this shape in this context."""
        version, now_ms = shape.version, self._clock.now_ms()
        partition = self._find(context, version, shape.topic_name, shape.topic_id, index, grant)
        if isinstance(partition, ErrorCode):
            ticket.settle(0, Appended(partition))
            return
        config = partition.topic.config
        batch = accept(records, 0, len(records), *limits_of_plain(config, now_ms))
        if batch is not None:
            self._writer.submit(partition, batch, ticket, 0)
            return
        validation = ProduceValidation(partial(self._owned, (context.cluster_id, "")))
        outcome = self._inspect(records, partition, validation.budget, order, version=version, transactional=False)
        validation.add(partition, outcome)
        self._submit(validation, lambda results: ticket.settle(0, results[0]), order, ticket.timeout_ms)

    # ---- validating ------------------------------------------------------------------------------------------

    def _inspect(
        self, records: memoryview | bytes | None, partition: Partition, budget: InlineDecodeBudget,
        order: RequestOrder | None, *, version: int, transactional: bool,
    ) -> ValidationResult:  # fmt: skip
        config, now_ms = partition.topic.config, self._clock.now_ms()
        found = inspect_header(records, config, now_ms, version=version, transactional=transactional)
        if not isinstance(found, Undecoded):
            return found
        if order is None or self.beside is None:
            return inspect_records(found.batch, config, now_ms)
        return inspect_records_inline(found, config, now_ms, budget) or found

    def _submit(
        self, validation: ProduceValidation, done: Done, order: RequestOrder | None, timeout_ms: int | None
    ) -> None:
        """Submit every valid batch, after decoding those that must be."""
        if not validation.undecoded:
            validation.submit(self._writer, done, timeout_ms)
            return
        assert order is not None
        assert self.beside is not None
        order.hold()
        task = asyncio.get_running_loop().create_task(
            self._decode_and_submit(validation, self.beside, done, order, timeout_ms)
        )
        self._decoding.add(task)
        task.add_done_callback(self._decoding.discard)

    async def _decode_and_submit(
        self, validation: ProduceValidation, beside: OnThread, done: Done, order: RequestOrder, timeout_ms: int | None
    ) -> None:
        size = sum(len(undecoded.batch.data) for _, _, undecoded in validation.undecoded)
        self.decoding_bytes += size
        try:
            for position, partition, undecoded in validation.undecoded:
                work = partial(inspect_records, undecoded.batch, partition.topic.config, self._clock.now_ms())
                validation.replace(position, partition, await beside(work))
        finally:
            self.decoding_bytes -= size
            # Batches that were not decoded are refused, and their producer retries.
            validation.submit(self._writer, done, timeout_ms)
            order.release()

    def _owned(self, key: tuple[int, str], batch: Accepted) -> ErrorCode:
        """Why the producer of a transactional batch may not write it, or NONE."""
        owners = self.transactional_ids
        return ErrorCode.INVALID_PRODUCER_ID_MAPPING if owners is None else owners.ownership(key, batch.producer_id)

    def _may_use_id(
        self, context: RequestContext, transactional_id: str | None, batches: Iterable[bytes | memoryview | None]
    ) -> bool:
        """Whether the caller may use the transactional id; true for a request without transactions."""
        authorizer = self.authorizer
        if authorizer is None or transactional_id is None:
            return True
        return not any(is_transactional(records) for records in batches) or authorizer.allows(
            context, _PRODUCE, WRITE_TRANSACTIONAL_ID, transactional_id
        )

    def _find(
        self, context: RequestContext, version: int, name: str, topic_id: bytes, index: int, grant: Grant | None = None
    ) -> Partition | ErrorCode:
        """The partition that a request of this version names, or why there is none for this caller."""
        partitions = self._partitions(context, version, name, topic_id, grant)
        if isinstance(partitions, ErrorCode):
            return partitions
        return partitions[index] if 0 <= index < len(partitions) else ErrorCode.UNKNOWN_TOPIC_OR_PARTITION

    def _partitions(
        self, context: RequestContext, version: int, name: str, topic_id: bytes, grant: Grant | None = None
    ) -> list[Partition] | ErrorCode:
        """The topic's partitions that a request of this version names, or why there are none for this caller."""
        if version >= TOPIC_IDS_SINCE:
            topic = self._registry.by_id(context.cluster_id, topic_id)
            if topic is None:
                return ErrorCode.UNKNOWN_TOPIC_ID
            name = topic.name
        else:
            topic = self._registry.by_name(context.cluster_id, name)
        authorizer = self.authorizer
        # Checked before it is known whether the topic exists: existence, too, is confidential.
        if authorizer is not None and (grant is None or grant.generation != authorizer.generation):
            if not authorizer.allows(context, _PRODUCE, WRITE_TOPIC, name):
                return ErrorCode.TOPIC_AUTHORIZATION_FAILED
            if grant is not None:
                grant.generation = authorizer.generation
        return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION if topic is None else topic.partitions


class ProduceValidation:
    """The results of validating the batches of a request, in its order."""

    __slots__ = ("_outcomes", "_owned", "_owner", "budget", "undecoded")

    def __init__(self, owned: Callable[[Accepted], ErrorCode]) -> None:
        self._owned, self._owner, self.budget = owned, NO_PRODUCER_ID, InlineDecodeBudget()
        self._outcomes: list[tuple[Partition, Accepted] | Appended] = []
        self.undecoded: list[tuple[int, Partition, Undecoded]] = []
        """Batches that must still be decoded, with their positions."""

    def refuse(self, error: ErrorCode) -> None:
        """Refuse the next batch."""
        self._outcomes.append(Appended(error))

    def add(self, partition: Partition, outcome: ValidationResult) -> None:
        """Add the result for the next batch."""
        if isinstance(outcome, Undecoded):
            self.undecoded.append((len(self._outcomes), partition, outcome))
            self.refuse(ErrorCode.KAFKA_STORAGE_ERROR)
        else:
            self._outcomes.append(self._final(partition, outcome))

    def replace(self, position: int, partition: Partition, outcome: Accepted | Rejected) -> None:
        """Set the result for a batch after it was decoded."""
        self._outcomes[position] = self._final(partition, outcome)

    def _final(self, partition: Partition, outcome: Accepted | Rejected) -> tuple[Partition, Accepted] | Appended:
        if isinstance(outcome, Rejected):
            return _rejection(partition, outcome)
        if outcome.flags and outcome.producer_id != self._owner:
            error = self._owned(outcome)
            if error is not ErrorCode.NONE:
                fenced = is_fenced(partition.producers.get(outcome.producer_id), outcome.producer_epoch)
                return Appended(ErrorCode.INVALID_PRODUCER_EPOCH if fenced else error)
            self._owner = outcome.producer_id
        return partition, outcome

    def submit(self, writer: Writer, done: Done, timeout_ms: int | None) -> None:
        """Submit the valid batches, and answer."""
        results = [outcome if isinstance(outcome, Appended) else None for outcome in self._outcomes]
        if None not in results:
            done(results)  # type: ignore[arg-type]  # nothing was accepted, so all are refusals
            return
        ticket = Ticket(results, done, timeout_ms)
        for position, outcome in enumerate(self._outcomes):
            if not isinstance(outcome, Appended):
                writer.submit(*outcome, ticket, position)


def _count_repeats_once(request: ProduceRequest) -> None:
    """Of a partition that is named more than once, only the last batch is written and answered, as in Kafka."""
    last: dict[tuple[str, bytes, int], PartitionProduceData] = {}
    count = 0
    for topic in request.topic_data:
        count += len(topic.partition_data)
        for share in topic.partition_data:
            last[topic.name, topic.topic_id, share.index] = share
    if len(last) == count:
        return
    topics: dict[tuple[str, bytes], TopicProduceData] = {}
    for (name, topic_id, _), share in last.items():
        topic = topics.setdefault((name, topic_id), TopicProduceData(name=name, topic_id=topic_id, partition_data=[]))
        topic.partition_data.append(share)
    request.topic_data = list(topics.values())


def portions_of(request: ProduceRequest, partitions: int) -> list[ProduceRequest]:
    """Split a request into several of so many partitions each, to be answered one after the other. Pure."""
    _count_repeats_once(request)
    portions, left = list[ProduceRequest](), 0
    for topic in request.topic_data:
        shares = topic.partition_data
        while shares:
            if not left:
                left = partitions
                portions.append(
                    ProduceRequest(
                        transactional_id=request.transactional_id, acks=request.acks, timeout_ms=request.timeout_ms
                    )
                )  # fmt: skip
            some, shares = shares[:left], shares[left:]
            left -= len(some)
            data = TopicProduceData(name=topic.name, topic_id=topic.topic_id, partition_data=some)
            portions[-1].topic_data.append(data)
    return portions


_WITHOUT_LOG_START = (ErrorCode.MESSAGE_TOO_LARGE, ErrorCode.RECORD_LIST_TOO_LARGE, ErrorCode.CORRUPT_MESSAGE)
"""Errors that Kafka detects before it reads the log start offset."""


def _rejection(partition: Partition, outcome: Rejected) -> Appended:
    log_start = -1 if outcome.by_request or outcome.error in _WITHOUT_LOG_START else partition.log_start
    return Appended(outcome.error, log_start=log_start, message=outcome.message, record_errors=outcome.records)


def refusal_of(topic_name: str, topic_id: bytes, index: int, result: Appended) -> ProduceResponse:
    """The answer to a request of one partition."""
    topic = TopicProduceResponse(name=topic_name, topic_id=topic_id, partition_responses=[_share_of(index, result)])
    return ProduceResponse(responses=[topic])


def response_of_plain(request: PlainProduce, results: list[Appended]) -> ProduceResponse:
    """The response to a request that was parsed without a message."""
    response = ProduceResponse()
    for (name, topic_id, index, _, _), result in zip(request.shares, results, strict=True):
        last = response.responses[-1] if response.responses else None
        if last is None or last.name != name or last.topic_id != topic_id:
            last = TopicProduceResponse(name=name, topic_id=topic_id)
            response.responses.append(last)
        last.partition_responses.append(_share_of(index, result))
    return response


def response_of(request: ProduceRequest, results: Sequence[Appended]) -> ProduceResponse:
    """The response to a request."""
    remaining = iter(results)
    response = ProduceResponse()
    for topic in request.topic_data:
        answered = TopicProduceResponse(name=topic.name, topic_id=topic.topic_id)
        for share in topic.partition_data:
            answered.partition_responses.append(_share_of(share.index, next(remaining)))
        if topic.partition_data:
            response.responses.append(answered)
    return response


def _share_of(index: int, result: Appended) -> PartitionProduceResponse:
    return PartitionProduceResponse(
        index=index,
        error_code=result.error,
        base_offset=result.base_offset,
        log_append_time_ms=result.append_time_ms,
        log_start_offset=result.log_start,
        record_errors=[
            BatchIndexAndErrorMessage(batch_index=number, batch_index_error_message=message)
            for number, message in result.record_errors
        ],
        error_message=result.message,
    )
