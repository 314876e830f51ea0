"""Metrics of clients take long to read where clients want that: nobody else waits for it, and what waits is bounded."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TypeVar

import pytest
from fixtures.wire import Wire

from penstock.agent.agent import Agent
from penstock.base.options import UpOptions
from penstock.telemetry import handlers
from penstock.telemetry.sinks import Apply
from penstock.wire.api_keys import ApiKey
from penstock.wire.messages.get_telemetry_subscriptions import GetTelemetrySubscriptionsRequest
from penstock.wire.messages.push_telemetry import PushTelemetryRequest
from penstock.wire.primitives import Buffer

T = TypeVar("T")
SIZE = 100


class SlowSink:
    """Metrics that take until they are let."""

    deltas = False

    def __init__(self) -> None:
        self.dropped = self.taken = 0
        self.begun, self.open = threading.Event(), threading.Event()

    def read(self, client: str, labels: Mapping[str, str], payload: Buffer, expires_s: float) -> Apply:
        self.begun.set()
        assert self.open.wait(10), "nobody else was answered meanwhile"
        return self._take

    def _take(self) -> None:
        self.taken += 1


class Place:
    """An agent on this loop; clients are on threads."""

    def __init__(self, agent: Agent, sink: SlowSink) -> None:
        self.agent, self.sink = agent, sink

    async def do(self, work: Callable[[Wire], T]) -> T:
        def run() -> T:
            with Wire(f"127.0.0.1:{self.agent.kafka_port}") as wire:
                return work(wire)

        return await asyncio.to_thread(run)


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    agent = Agent(UpOptions(data_dir=None, kafka_port=0, client_metrics="prometheus"))
    await agent.start()
    assert agent.telemetry is not None
    sink = SlowSink()
    agent.telemetry._sink = sink
    yield Place(agent, sink)
    sink.open.set()
    await agent.stop()


def push(wire: Wire) -> int:
    """A client's first push."""
    found = wire.call(ApiKey.GET_TELEMETRY_SUBSCRIPTIONS, 0, GetTelemetrySubscriptionsRequest())
    request = PushTelemetryRequest(
        client_instance_id=found.client_instance_id, subscription_id=found.subscription_id, metrics=bytes(SIZE)
    )
    return int(wire.call(ApiKey.PUSH_TELEMETRY, 0, request).error_code)


async def test_others_are_answered_while_metrics_are_read(place: Place) -> None:
    pushing = asyncio.ensure_future(place.do(push))
    assert await asyncio.to_thread(place.sink.begun.wait, 10)
    assert (await place.do(lambda wire: wire.metadata([]))).brokers
    assert not pushing.done()
    place.sink.open.set()
    assert await pushing == 0
    assert place.sink.taken == 1


async def test_what_waits_to_be_read_is_bounded(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handlers, "READING_MAX_BYTES", 2 * SIZE)
    pushing = [asyncio.ensure_future(place.do(push)) for _ in range(5)]
    async with asyncio.timeout(10):
        while place.sink.dropped < 3:
            await asyncio.sleep(0.01)
    place.sink.open.set()
    assert [await one for one in pushing] == [0] * 5
    assert (place.sink.taken, place.sink.dropped) == (2, 3)
    assert await place.do(push) == 0
    assert place.sink.taken == 3
