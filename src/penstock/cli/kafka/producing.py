"""Writing records: batches per partition, idempotent by default, one request per leader and round.

A batch keeps its producer id and sequence over retries, so that a batch whose answer was lost is stored once. Rounds
do not overlap: the next one is built when the last one was answered, which keeps order without more rules. What is too
large for its topic goes in halves, in their order, as far as there is more than one record to it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial

from penstock.base.dataclasses import dataclass, field
from penstock.base.errors import InvalidRequest
from penstock.base.randomness import Randomness
from penstock.cli.kafka.client import Client, Topic, TopicPartition
from penstock.cli.kafka.failures import BrokerError, check
from penstock.cli.kafka.partitioner import StickyPartition, partition_of_key
from penstock.wire.api_keys import ApiKey
from penstock.wire.compression import Compression
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages.init_producer_id import InitProducerIdRequest, InitProducerIdResponse
from penstock.wire.messages.produce import (
    PartitionProduceData,
    PartitionProduceResponse,
    ProduceRequest,
    ProduceResponse,
    TopicProduceData,
)
from penstock.wire.records import Record, build_batch

# Half of what a broker takes by default: records grow by their framing, and not every topic keeps the default.
BATCH_BYTES = 512 * 1024
ROUND_BYTES = 4 * 1024 * 1024
_RECORD_OVERHEAD_BYTES = 32
_CREATION_S = 5.0
_SEQUENCES = 2**31
_TOO_LARGE = (ErrorCode.MESSAGE_TOO_LARGE, ErrorCode.RECORD_LIST_TOO_LARGE)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProducerSettings:
    """How to write."""

    acks: int = -1
    compression: Compression = Compression.NONE
    idempotent: bool = True


@dataclass(slots=True)
class Written:
    """What went to one partition."""

    records: int = 0
    size_bytes: int = 0
    first_offset: int | None = None
    last_offset: int | None = None


@dataclass(slots=True)
class _Pending:
    records: list[Record] = field(default_factory=list)
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class _Batch:
    data: bytes
    records: Sequence[Record]
    sequence: int


class Producer:
    """Collects records of one topic and writes them."""

    def __init__(self, client: Client, topic: str, settings: ProducerSettings, randomness: Randomness) -> None:
        self._client, self._settings = client, settings
        self.topic = topic_or_created(client, topic)
        self._sticky = StickyPartition(len(self.topic.partitions), randomness)
        self._producer_id, self._epoch = self._identity()
        self._sequences: dict[int, int] = {}
        self._pending: dict[int, _Pending] = {}
        self._pending_bytes = 0
        self._batch_bytes = BATCH_BYTES
        """Less once the topic has turned out to take less."""
        self.written: dict[int, Written] = {}

    @property
    def has_pending(self) -> bool:
        """Whether records wait to be written."""
        return bool(self._pending)

    def append(
        self,
        *,
        key: bytes | None,
        value: bytes | None,
        headers: tuple[tuple[str, bytes | None], ...] = (),
        timestamp_ms: int | None = None,
        partition: int | None = None,
    ) -> None:
        """Take one record; writes when enough are together."""
        chosen = self._partition(key) if partition is None else partition
        size = len(key or b"") + len(value or b"") + _RECORD_OVERHEAD_BYTES
        pending = self._pending.get(chosen)
        if pending is not None and pending.size_bytes + size > self._batch_bytes:
            if key is None and partition is None:
                self._sticky.move()
            self.flush()
            pending = None
        if pending is None:
            pending = self._pending.setdefault(chosen, _Pending())
        timestamp = self._client.clock.now_ms() if timestamp_ms is None else timestamp_ms
        pending.records.append(Record(len(pending.records), timestamp, key, value, headers))
        pending.size_bytes += size
        self._pending_bytes += size
        if self._pending_bytes > ROUND_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what waits, and wait until it is acknowledged."""
        waiting = {
            number: deque([self._build(pending.records, self._take_sequences(number, len(pending.records)))])
            for number, pending in self._pending.items()
        }
        self._pending, self._pending_bytes = {}, 0
        while waiting:
            batches = {number: queue[0] for number, queue in waiting.items()}
            self._client.retry(partial(self._round, batches))
            for number, queue in list(waiting.items()):
                batch = queue.popleft()
                if number in batches:
                    self._batch_bytes = min(self._batch_bytes, _size_of(batch.records) // 2)
                    queue.extendleft(self._halves(batch))
                if not queue:
                    del waiting[number]

    def _identity(self) -> tuple[int, int]:
        if not self._settings.idempotent:
            return -1, -1
        request = InitProducerIdRequest(transactional_id=None, transaction_timeout_ms=60_000)

        def attempt() -> tuple[int, int]:
            answer = self._client.any_node().call(ApiKey.INIT_PRODUCER_ID, request, InitProducerIdResponse)
            check(answer.error_code, "an identity for this producer")
            return answer.producer_id, answer.producer_epoch

        return self._client.retry(attempt)

    def _partition(self, key: bytes | None) -> int:
        return self._sticky.current if key is None else partition_of_key(key, len(self.topic.partitions))

    def _take_sequences(self, partition: int, count: int) -> int:
        sequence = self._sequences.get(partition, 0)
        self._sequences[partition] = (sequence + count) % _SEQUENCES
        return sequence

    def _build(self, records: Sequence[Record], sequence: int) -> _Batch:
        data = build_batch(
            records,
            compression=self._settings.compression,
            producer_id=self._producer_id,
            producer_epoch=self._epoch,
            base_sequence=sequence if self._settings.idempotent else -1,
        )
        return _Batch(data, records, sequence)

    def _halves(self, batch: _Batch) -> tuple[_Batch, _Batch]:
        """The second half of a batch, and the first."""
        middle = len(batch.records) // 2
        second = [record._replace(offset=number) for number, record in enumerate(batch.records[middle:])]
        return (
            self._build(second, (batch.sequence + middle) % _SEQUENCES),
            self._build(batch.records[:middle], batch.sequence),
        )

    def _round(self, batches: dict[int, _Batch]) -> None:
        """Send every batch that is not acknowledged yet; acknowledged ones leave `batches`, those to be halved stay."""
        name, answered = self.topic.name, self._settings.acks != 0
        cluster = self._client.metadata([name])
        by_leader = cluster.by_leader(TopicPartition(name, partition) for partition in batches)
        connections = [self._client.node(node_id) for node_id in by_leader]
        for connection, led in zip(connections, by_leader.values(), strict=True):
            request = self._request({where.partition: batches[where.partition] for where in led})
            connection.send(ApiKey.PRODUCE, request, answered=answered)
        if not answered:
            for partition in list(batches):
                self._acknowledged(partition, batches.pop(partition), base_offset=-1)
            return
        failures: list[BrokerError] = []
        answers = [connection.receive(ProduceResponse, wait_s=self._client.timeout_s) for connection in connections]
        for answer in answers:
            for result in (result for topic in answer.responses for result in topic.partition_responses):
                try:
                    self._check(result)
                    self._acknowledged(result.index, batches.pop(result.index), base_offset=result.base_offset)
                except BrokerError as error:
                    if error.code not in _TOO_LARGE or len(batches[result.index].records) == 1:
                        failures.append(error)
        if failures:
            # What cannot pass is said first; what may pass is tried again by the caller.
            raise min(failures, key=lambda failure: failure.is_retriable)

    def _request(self, batches: Mapping[int, _Batch]) -> ProduceRequest:
        data = [PartitionProduceData(index=partition, records=batch.data) for partition, batch in batches.items()]
        return ProduceRequest(
            acks=self._settings.acks,
            timeout_ms=int(self._client.timeout_s * 1_000),
            topic_data=[TopicProduceData(name=self.topic.name, partition_data=data)],
        )

    def _check(self, result: PartitionProduceResponse) -> None:
        if result.error_code == ErrorCode.DUPLICATE_SEQUENCE_NUMBER:
            return  # The first attempt was stored after all.
        details = [error.batch_index_error_message for error in result.record_errors or ()]
        detail = next((text for text in details if text), result.error_message)
        check(result.error_code, f"{self.topic.name}[{result.index}]", detail)

    def _acknowledged(self, partition: int, batch: _Batch, *, base_offset: int) -> None:
        written = self.written.setdefault(partition, Written())
        count = len(batch.records)
        written.records += count
        written.size_bytes += _size_of(batch.records)
        if base_offset >= 0:
            written.first_offset = base_offset if written.first_offset is None else written.first_offset
            written.last_offset = base_offset + count - 1


def _size_of(records: Sequence[Record]) -> int:
    """Bytes of keys and values."""
    return sum(len(record.key or b"") + len(record.value or b"") for record in records)


def topic_or_created(client: Client, name: str) -> Topic:
    """A topic, made by the broker if it does that on first use."""
    deadline = client.clock.monotonic() + min(_CREATION_S, client.timeout_s)

    def attempt() -> Topic:
        cluster = client.metadata([name], create=True)
        code = cluster.errors.get(name)
        if code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION and client.clock.monotonic() < deadline:
            # What a broker answers while it makes the topic, and for ever if it does not make topics.
            raise BrokerError(ErrorCode.LEADER_NOT_AVAILABLE, f"topic {name!r}")
        if code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION:
            raise InvalidRequest(f"topic {name!r} does not exist. Create it: penstock topic create {name}")
        return cluster.topic(name)

    return client.retry(attempt)


def total(written: Sequence[Written]) -> Written:
    """Everything written, as one."""
    return Written(records=sum(part.records for part in written), size_bytes=sum(part.size_bytes for part in written))
