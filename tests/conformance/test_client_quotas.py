"""librdkafka under quotas: held to its rate, while another client notices nothing."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer
from fixtures.server import Server
from fixtures.waiting import eventually
from fixtures.wire import Wire

from penstock.wire.api_keys import ApiKey
from penstock.wire.messages import alter_client_quotas as alter

RATE = 400_000
"""Bytes a second. A window of four seconds lets three seconds' worth through at once."""
SETTLE_S, MEASURE_S = 6, 12
VALUE = b"v" * 1000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory: Path = tmp_path_factory.mktemp("quotas")
    server = Server(directory, settings={"quota.window.num": "4"})
    server.start()
    yield server
    assert server.stop() == 0


def limit(server: Server, client_id: str, **limits: float) -> None:
    entry = alter.AlterClientQuotasRequestEntryData(
        entity=[alter.AlterClientQuotasRequestEntityData(entity_type="client-id", entity_name=client_id)],
        ops=[alter.OpData(key=key, value=value) for key, value in limits.items()],
    )
    with Wire(server.bootstrap) as wire:
        request = alter.AlterClientQuotasRequest(entries=[entry])
        assert wire.call(ApiKey.ALTER_CLIENT_QUOTAS, 1, request).entries[0].error_code == 0


def create(server: Server, name: str) -> None:
    with Wire(server.bootstrap) as wire:
        wire.create_topic(name)


class Greedy:
    """Produces as fast as it may."""

    def __init__(self, server: Server, topic: str) -> None:
        self.topic, self.delivered_bytes, self.throttled_ms = topic, 0, 0
        self.producer = Producer(
            {
                "bootstrap.servers": server.bootstrap, "client.id": "greedy", "linger.ms": 5, "batch.size": 20_000,
                "queue.buffering.max.messages": 2_000, "throttle_cb": self._throttled,
            }
        )  # fmt: skip

    def run(self, seconds: float) -> float:
        """Produce for so long; the bytes a second that were acknowledged meanwhile."""
        began, before = time.monotonic(), self.delivered_bytes
        while time.monotonic() < began + seconds:
            try:
                self.producer.produce(self.topic, VALUE, on_delivery=self._delivered)
            except BufferError:
                self.producer.poll(0.01)
            else:
                self.producer.poll(0)
        return (self.delivered_bytes - before) / (time.monotonic() - began)

    def stop(self) -> None:
        """Give up what is not delivered."""
        self.producer.purge()
        self.producer.flush(5)

    def _delivered(self, error: object, _: object) -> None:
        if error is None:
            self.delivered_bytes += len(VALUE)

    def _throttled(self, event: object) -> None:
        self.throttled_ms += event.throttle_time  # type: ignore[attr-defined]


def round_trips(producer: Producer, topic: str, count: int) -> float:
    """The median seconds that single records take."""
    took = []
    for _ in range(count):
        began = time.monotonic()
        producer.produce(topic, b"ping")
        assert producer.flush(10) == 0
        took.append(time.monotonic() - began)
    return statistics.median(took)


def test_a_producer_is_held_to_its_rate(server: Server) -> None:
    create(server, "greedy")
    limit(server, "greedy", producer_byte_rate=RATE)
    greedy = Greedy(server, "greedy")
    assert greedy.run(SETTLE_S) > 0
    rate = greedy.run(MEASURE_S)
    greedy.stop()
    assert rate == pytest.approx(RATE, rel=0.15)
    assert greedy.throttled_ms > 0, "the client was not told"


def test_nobody_else_notices(server: Server) -> None:
    create(server, "crowd")
    create(server, "polite")
    limit(server, "greedy", producer_byte_rate=RATE)
    polite = Producer({"bootstrap.servers": server.bootstrap, "client.id": "polite", "linger.ms": 0})
    round_trips(polite, "polite", 50)
    before_s = round_trips(polite, "polite", 300)
    greedy = Greedy(server, "crowd")
    greedy.run(SETTLE_S)  # Its queue is full from now on, and it is muted most of the time.
    beside_s = round_trips(polite, "polite", 300)
    greedy.stop()
    assert greedy.throttled_ms > 0
    # What else the machine does changes meanwhile.
    alone_s = max(before_s, round_trips(polite, "polite", 300))
    assert beside_s <= 1.5 * alone_s + 0.001


def test_a_consumer_is_held_to_its_rate(server: Server) -> None:
    create(server, "read")
    filler = Producer({"bootstrap.servers": server.bootstrap, "client.id": "filler", "batch.size": 20_000})
    for _ in range(RATE * (SETTLE_S + MEASURE_S + 8) // len(VALUE)):
        filler.produce("read", VALUE)
        filler.poll(0)
    eventually(lambda: filler.flush(1) == 0, what="the records being there")
    limit(server, "reader", consumer_byte_rate=RATE)
    consumer = Consumer(
        {
            "bootstrap.servers": server.bootstrap, "client.id": "reader", "group.id": "readers",
            "auto.offset.reset": "earliest", "fetch.max.bytes": 100_000, "max.partition.fetch.bytes": 50_000,
            "message.max.bytes": 50_000,
        }
    )  # fmt: skip
    consumer.subscribe(["read"])

    def read(seconds: float) -> float:
        began, count = time.monotonic(), 0
        while time.monotonic() < began + seconds:
            message = consumer.poll(0.1)
            if message is not None:
                assert message.error() is None
                count += len(message.value())
        return count / (time.monotonic() - began)

    try:
        read(SETTLE_S)
        rate = read(MEASURE_S)
    finally:
        consumer.close()
    # What would be too much is not sent, so what is allowed is read at once and then waits to be forgotten, which takes
    # up to one window longer: with four of them, up to a quarter less than the limit.
    assert 0.7 * RATE <= rate <= 1.1 * RATE
