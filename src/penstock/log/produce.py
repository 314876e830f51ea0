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
    Glances,
    Rejected,
    Unread,
    accept,
    accept_shares,
    flags_of_transactional,
    inspect_outside,
    is_transactional,
    limits_of_plain,
    look_inside,
    look_quickly,
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
Verdict = Accepted | Rejected | Unread


class TransactionalIds(Protocol):
    """Knows which producer owns which transactional id."""

    def ownership(self, key: tuple[int, str], producer_id: int) -> ErrorCode:
        """Why a producer does not own a transactional id of a virtual cluster, or NONE."""


class Line(Protocol):
    """The requests of one connection, in order."""

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
        self.looked_at_bytes = 0
        """Bytes of batches that are being decoded, or wait for it."""
        self._looking: set[asyncio.Task[None]] = set()
        self.transactional_ids: TransactionalIds | None = None
        """Ownership of transactional ids. None: nobody owns any."""
        self.authorizer: Authorizer | None = None
        """Checks permissions. None: everybody may write everything."""

    async def drain(self) -> None:
        """Wait for batches that are being decoded."""
        while self._looking:
            await asyncio.wait(self._looking)

    def handle(self, context: RequestContext, request: ProduceRequest, done: Done, line: Line | None = None) -> None:
        """Produce, key 0, v3-13. v7: zstd. v8: record errors. v9: flexible. v13: topic ids.

        Only durable records are acknowledged: `acks` 1 and all are the same. With `acks` 0 there is no response.
        """
        _count_repeats_once(request)
        brought = [share.records for topic in request.topic_data for share in topic.partition_data]
        if not self._may_use_id(context, request.transactional_id, brought):
            done([Appended(ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED)] * len(brought))
            return
        key, transactional = (context.cluster_id, request.transactional_id or ""), request.transactional_id is not None
        judged = Judged(partial(self._owned, key))
        for topic in request.topic_data:
            for share in topic.partition_data:
                if request.acks not in _ACKS:
                    judged.refuse(ErrorCode.INVALID_REQUIRED_ACKS)
                    continue
                partition = self._find(context, context.api_version, topic.name, topic.topic_id, share.index)
                if isinstance(partition, ErrorCode):
                    judged.refuse(partition)
                else:
                    judged.add(
                        partition,
                        self._inspect(
                            share.records, partition, judged.glances, line, version=context.api_version,
                            transactional=transactional,
                        ),
                    )  # fmt: skip
        self._submit(judged, done, line, request.timeout_ms if request.acks else None)

    def handle_plain(
        self, context: RequestContext, request: PlainProduce, frame: bytes | memoryview, done: Done,
        line: Line | None = None,
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
        judged = Judged(owned)
        for name, named_id, index, start, end in shares:
            if name != topic_name or named_id != topic_id:
                topic_name, topic_id = name, named_id
                partitions = self._partitions(context, request.version, name, named_id)
                if not isinstance(partitions, ErrorCode):
                    max_bytes, latest_ms = limits_of_plain(partitions[0].topic.config, now_ms)
            if isinstance(partitions, ErrorCode):
                judged.refuse(partitions)
                continue
            if not 0 <= index < len(partitions):
                judged.refuse(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
                continue
            partition = partitions[index]
            outcome: Verdict | None = accept(frame, start, end, max_bytes, latest_ms, flags)
            if outcome is None:
                outcome = self._inspect(
                    memoryview(frame)[start:end], partition, judged.glances, line, version=request.version,
                    transactional=transactional_id is not None,
                )  # fmt: skip
            judged.add(partition, outcome)
        self._submit(judged, done, line, request.timeout_ms)

    def handle_one(
        self, context: RequestContext, shape: ProduceShape, index: int, records: memoryview, ticket: PendingAppend,
        grant: Grant, line: Line | None = None,
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
        judged = Judged(partial(self._owned, (context.cluster_id, "")))
        outcome = self._inspect(records, partition, judged.glances, line, version=version, transactional=False)
        judged.add(partition, outcome)
        self._submit(judged, lambda results: ticket.settle(0, results[0]), line, ticket.timeout_ms)

    # ---- validating ------------------------------------------------------------------------------------------

    def _inspect(
        self, records: memoryview | bytes | None, partition: Partition, glances: Glances, line: Line | None, *,
        version: int, transactional: bool,
    ) -> Verdict:  # fmt: skip
        config, now_ms = partition.topic.config, self._clock.now_ms()
        found = inspect_outside(records, config, now_ms, version=version, transactional=transactional)
        if not isinstance(found, Unread):
            return found
        if line is None or self.beside is None:
            return look_inside(found.batch, config, now_ms)
        return look_quickly(found, config, now_ms, glances) or found

    def _submit(self, judged: Judged, done: Done, line: Line | None, timeout_ms: int | None) -> None:
        """Submit every valid batch, after decoding those that must be."""
        if not judged.unread:
            judged.submit(self._writer, done, timeout_ms)
            return
        assert line is not None
        assert self.beside is not None
        line.hold()
        task = asyncio.get_running_loop().create_task(self._look(judged, self.beside, done, line, timeout_ms))
        self._looking.add(task)
        task.add_done_callback(self._looking.discard)

    async def _look(self, judged: Judged, beside: OnThread, done: Done, line: Line, timeout_ms: int | None) -> None:
        size = sum(len(unread.batch.data) for _, _, unread in judged.unread)
        self.looked_at_bytes += size
        try:
            for position, partition, unread in judged.unread:
                work = partial(look_inside, unread.batch, partition.topic.config, self._clock.now_ms())
                judged.replace(position, partition, await beside(work))
        finally:
            self.looked_at_bytes -= size
            # Batches that were not decoded are refused, and their producer retries.
            judged.submit(self._writer, done, timeout_ms)
            line.release()

    def _owned(self, key: tuple[int, str], batch: Accepted) -> ErrorCode:
        """Why the producer of a transactional batch may not write it, or NONE."""
        owners = self.transactional_ids
        return ErrorCode.INVALID_PRODUCER_ID_MAPPING if owners is None else owners.ownership(key, batch.producer_id)

    def _may_use_id(
        self, context: RequestContext, transactional_id: str | None, brought: Iterable[bytes | memoryview | None]
    ) -> bool:
        """Whether the caller may use the transactional id; true for a request without transactions."""
        authorizer = self.authorizer
        if authorizer is None or transactional_id is None:
            return True
        return not any(is_transactional(records) for records in brought) or authorizer.allows(
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


class Judged:
    """Verdicts on the batches of a request, in its order."""

    __slots__ = ("_outcomes", "_owned", "_owner", "glances", "unread")

    def __init__(self, owned: Callable[[Accepted], ErrorCode]) -> None:
        self._owned, self._owner, self.glances = owned, NO_PRODUCER_ID, Glances()
        self._outcomes: list[tuple[Partition, Accepted] | Appended] = []
        self.unread: list[tuple[int, Partition, Unread]] = []
        """Batches that must still be decoded, with their positions."""

    def refuse(self, error: ErrorCode) -> None:
        """Refuse the next batch."""
        self._outcomes.append(Appended(error))

    def add(self, partition: Partition, outcome: Verdict) -> None:
        """Add the verdict on the next batch."""
        if isinstance(outcome, Unread):
            self.unread.append((len(self._outcomes), partition, outcome))
            self.refuse(ErrorCode.KAFKA_STORAGE_ERROR)
        else:
            self._outcomes.append(self._final(partition, outcome))

    def replace(self, position: int, partition: Partition, outcome: Accepted | Rejected) -> None:
        """Set the verdict on a batch after it was decoded."""
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
