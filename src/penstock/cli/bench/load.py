"""The two bulk phases: write as fast as acknowledgements allow, read all of it back.

Batches are built once from random bytes. For each request only the header is new (identity, sequence, time) and the
checksum is made again, so the measurement is of the cluster and not of how fast Python builds records.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable

from penstock.base.clock import Clock
from penstock.base.dataclasses import dataclass
from penstock.base.randomness import Randomness
from penstock.cli.bench.plan import Plan, Throughput
from penstock.cli.kafka.client import Client, TopicPartition
from penstock.cli.kafka.connection import Connection
from penstock.cli.kafka.failures import check
from penstock.cli.kafka.fetching import Reader
from penstock.cli.kafka.offsets import offset_ranges
from penstock.wire.api_keys import ApiKey
from penstock.wire.messages.init_producer_id import InitProducerIdRequest, InitProducerIdResponse
from penstock.wire.messages.produce import PartitionProduceData, ProduceRequest, ProduceResponse, TopicProduceData
from penstock.wire.records import (
    CRC_POSITION,
    HEADER,
    HEADER_BYTES,
    Record,
    build_batch,
    crc_of,
    parse_header,
    verify_crc,
)

IN_FLIGHT = 5
"""Requests sent to a broker before the first is answered: Kafka's own producers keep as many."""

Progress = Callable[[float, str], None]


class BatchTemplate:
    """Batches of the same records, each with its own sequence and time."""

    def __init__(self, plan: Plan, randomness: Randomness, *, producer_id: int, epoch: int) -> None:
        records = [
            Record(index, 0, None, randomness.token(plan.record_bytes)) for index in range(plan.records_per_batch)
        ]
        template = build_batch(records, compression=plan.compression)
        self._payload = template[HEADER_BYTES:]
        self._header = parse_header(template)._replace(producer_id=producer_id, producer_epoch=epoch)
        self._sequences: dict[int, int] = {}

    def next(self, partition: int, now_ms: int) -> bytes:
        """The next batch of a partition."""
        sequence = -1
        if self._header.producer_id >= 0:
            sequence = self._sequences.get(partition, 0)
            self._sequences[partition] = (sequence + self._header.record_count) % 2**31
        header = self._header._replace(base_timestamp=now_ms, max_timestamp=now_ms, base_sequence=sequence)
        batch = bytearray(HEADER.pack(*header))
        batch += self._payload
        struct.pack_into(">I", batch, CRC_POSITION, crc_of(batch))
        return bytes(batch)


@dataclass(frozen=True, slots=True)
class _Sent:
    connection: Connection
    at: float


def identity(client: Client, acks: int) -> tuple[int, int]:
    """A producer id and epoch, if acks allow to be idempotent."""
    if acks != -1:
        return -1, -1
    request = InitProducerIdRequest(transactional_id=None, transaction_timeout_ms=60_000)
    answer = client.any_node().call(ApiKey.INIT_PRODUCER_ID, request, InitProducerIdResponse)
    check(answer.error_code, "an identity for this producer")
    return answer.producer_id, answer.producer_epoch


def produce_request(plan: Plan, partition: int, batch: bytes) -> ProduceRequest:
    """One batch to one partition."""
    data = [PartitionProduceData(index=partition, records=batch)]
    return ProduceRequest(
        acks=plan.acks, timeout_ms=30_000, topic_data=[TopicProduceData(name=plan.topic, partition_data=data)]
    )


def check_produced(answer: ProduceResponse, plan: Plan) -> None:
    """Nothing is tried again here: a load test that hides failures measures something else."""
    result = answer.responses[0].partition_responses[0]
    check(result.error_code, f"{plan.topic}[{result.index}]", result.error_message)


def produce(client: Client, plan: Plan, randomness: Randomness, progress: Progress) -> Throughput:
    """Write for the planned time."""
    clock = client.clock
    producer_id, epoch = identity(client, plan.acks)
    batches = BatchTemplate(plan, randomness, producer_id=producer_id, epoch=epoch)
    cluster = client.metadata([plan.topic])
    leaders = [
        client.node(cluster.leader(TopicPartition(plan.topic, index)))
        for index in sorted(cluster.topic(plan.topic).partitions)
    ]
    waiting: deque[_Sent] = deque()
    latencies_ms: list[float] = []
    requests = 0
    started = clock.monotonic()
    while (elapsed := clock.monotonic() - started) < plan.duration_s:
        partition = requests % len(leaders)
        leaders[partition].send(
            ApiKey.PRODUCE,
            produce_request(plan, partition, batches.next(partition, clock.now_ms())),
            answered=plan.acks != 0,
        )
        requests += 1
        if plan.acks != 0:
            waiting.append(_Sent(leaders[partition], clock.monotonic()))
        if len(waiting) >= IN_FLIGHT:
            latencies_ms.append(_answered(waiting.popleft(), plan, clock))
        if requests % 64 == 0:
            progress(elapsed / plan.duration_s, _rate_text(requests * plan.records_per_batch, plan, elapsed))
    latencies_ms += [_answered(sent, plan, clock) for sent in waiting]
    records = requests * plan.records_per_batch
    progress(1.0, _rate_text(records, plan, clock.monotonic() - started))
    return Throughput(
        records=records,
        size_bytes=records * plan.record_bytes,
        seconds=clock.monotonic() - started,
        latencies_ms=latencies_ms,
    )


def _answered(sent: _Sent, plan: Plan, clock: Clock) -> float:
    check_produced(sent.connection.receive(ProduceResponse), plan)
    return (clock.monotonic() - sent.at) * 1_000


def consume(client: Client, plan: Plan, progress: Progress) -> Throughput:
    """Read from the start to the end, or as far as the planned time allows. Checksums are verified."""
    clock = client.clock
    topic = client.metadata([plan.topic]).topic(plan.topic)
    kept = offset_ranges(client, [TopicPartition(plan.topic, index) for index in topic.partitions])
    reader = Reader(
        client,
        {where: extent.start for where, extent in kept.items()},
        ends={where: extent.end for where, extent in kept.items()},
    )
    expected = max(1, sum(extent.records for extent in kept.values()))
    records = 0
    started = clock.monotonic()
    while reader.open and (elapsed := clock.monotonic() - started) < plan.duration_s:
        for _, header, batch in reader.poll_batches(1_000):
            verify_crc(batch, 0, header)
            records += header.record_count
        progress(max(records / expected, elapsed / plan.duration_s), _rate_text(records, plan, elapsed))
    progress(1.0, _rate_text(records, plan, clock.monotonic() - started))
    return Throughput(records=records, size_bytes=records * plan.record_bytes, seconds=clock.monotonic() - started)


def _rate_text(records: int, plan: Plan, elapsed_s: float) -> str:
    from penstock.cli.text_formats.quantities import count_text, size_text

    seconds = max(elapsed_s, 1e-3)
    return f"{count_text(records / seconds)} records/s, {size_text(records * plan.record_bytes / seconds)}/s"
