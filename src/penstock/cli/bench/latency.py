"""The latency phase: records at a steady rate, each timed from when it was due until a consumer had it.

A record carries the moment it was due, not the moment it was sent: if the cluster falls behind, the waiting counts.
Writer and reader are two threads with a connection each. The first half second is not counted.
"""

from __future__ import annotations

import struct
import threading
import time

from penstock.base.clock import Clock
from penstock.base.randomness import Randomness
from penstock.cli.bench.load import IN_FLIGHT, Progress, check_produced, identity, produce_request
from penstock.cli.bench.plan import Latency, Plan
from penstock.cli.kafka.client import Client, TopicPartition
from penstock.cli.kafka.fetching import Reader
from penstock.cli.kafka.offsets import offset_ranges
from penstock.wire.api_keys import ApiKey
from penstock.wire.messages.produce import ProduceResponse
from penstock.wire.records import Record, build_batch

WARM_UP_S = 0.5
GRACE_S = 5.0
_DUE = struct.Struct(">dq")


class _Reading(threading.Thread):
    """Reads until every record came or nothing comes any more."""

    def __init__(self, client: Client, plan: Plan, expected: int, run: int) -> None:
        super().__init__(name="bench-reader", daemon=True)
        self._client, self._expected, self._run = client, expected, run
        topic = client.metadata([plan.topic]).topic(plan.topic)
        kept = offset_ranges(client, [TopicPartition(plan.topic, index) for index in topic.partitions])
        self._reader = Reader(client, {where: extent.end for where, extent in kept.items()})
        self.arrivals: list[tuple[float, float]] = []
        self.give_up_at = float("inf")
        self.failure: Exception | None = None

    def run(self) -> None:
        clock = self._client.clock
        try:
            while len(self.arrivals) < self._expected and clock.monotonic() < self.give_up_at:
                for _, record in self._reader.poll(250):
                    now = clock.monotonic()
                    due, run = _DUE.unpack_from(record.value or bytes(_DUE.size))
                    if run == self._run:  # Others may write to a topic that was named.
                        self.arrivals.append((due, now))
        except Exception as error:  # noqa: BLE001 - whatever ends the thread is raised again where it is awaited.
            self.failure = error


def measure(writer: Client, reader: Client, plan: Plan, randomness: Randomness, progress: Progress) -> Latency:
    """Run the phase."""
    clock = writer.clock
    expected = max(1, int(plan.rate * plan.duration_s))
    run = int.from_bytes(randomness.token(7), "big")
    reading = _Reading(reader, plan, expected, run)
    reading.start()
    started = clock.monotonic()
    _write(writer, plan, randomness, progress, expected=expected, run=run)
    seconds = clock.monotonic() - started
    reading.give_up_at = clock.monotonic() + GRACE_S
    reading.join()
    if reading.failure is not None:
        raise reading.failure
    counted = [(now - due) * 1_000 for due, now in reading.arrivals if due >= started + WARM_UP_S]
    return Latency(
        rate=plan.rate,
        sent=expected,
        seconds=seconds,
        latencies_ms=counted,
        warm_up=len(reading.arrivals) - len(counted),
        lost=expected - len(reading.arrivals),
    )


def _write(client: Client, plan: Plan, randomness: Randomness, progress: Progress, *, expected: int, run: int) -> None:
    clock = client.clock
    producer_id, epoch = identity(client, plan.acks)
    cluster = client.metadata([plan.topic])
    partitions = sorted(cluster.topic(plan.topic).partitions)
    leaders = [client.node(cluster.leader(TopicPartition(plan.topic, index))) for index in partitions]
    filler = randomness.token(max(0, plan.record_bytes - _DUE.size))
    unanswered = 0
    started = clock.monotonic()
    for index in range(expected):
        due = started + index / plan.rate
        _sleep_until(due, clock)
        partition = index % len(leaders)
        record = Record(0, clock.now_ms(), None, _DUE.pack(due, run) + filler)
        batch = build_batch(
            [record],
            compression=plan.compression,
            producer_id=producer_id,
            producer_epoch=epoch,
            base_sequence=index // len(leaders) if producer_id >= 0 else -1,
        )
        leaders[partition].send(ApiKey.PRODUCE, produce_request(plan, partition, batch), answered=plan.acks != 0)
        unanswered += plan.acks != 0
        if unanswered >= IN_FLIGHT:
            oldest = (index - unanswered + 1) % len(leaders)
            check_produced(leaders[oldest].receive(ProduceResponse), plan)
            unanswered -= 1
        if index % max(1, plan.rate // 10) == 0:
            progress(index / expected, f"{index:,} of {expected:,} records at {plan.rate:,}/s")
    for index in range(expected - unanswered, expected):
        check_produced(leaders[index % len(leaders)].receive(ProduceResponse), plan)


def _sleep_until(due: float, clock: Clock) -> None:
    pause = due - clock.monotonic()
    if pause > 0:
        time.sleep(pause)  # noqa: TID251  # there is no loop in a command
