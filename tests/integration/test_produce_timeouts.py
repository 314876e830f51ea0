"""A store that does not answer: producers are told when their time-outs have passed, and lose and double nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, TypeVar

import pytest
from confluent_kafka import Producer
from fixtures.waiting import eventually
from fixtures.wire import Wire, batch

from penstock.agent.agent import Agent
from penstock.agent.metrics import exposition
from penstock.base.options import UpOptions
from penstock.log.commits import Commit, CommitEntry
from penstock.wire.api_keys import ApiKey
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages import produce

T = TypeVar("T")
TIMED_OUT = (ErrorCode.REQUEST_TIMED_OUT, -1)
TIMEOUT_MS = 300


class StuckCommits:
    """A commit path whose store takes as long as a test wants, in front of one that works."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.goes_on = asyncio.Event()
        self.goes_on.set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def commit_now(self, body: memoryview, entries: Sequence[CommitEntry], heads: Sequence[int], change: Any) -> Any:
        return self._inner.commit_now(body, entries, heads, change) if self.goes_on.is_set() else None

    async def commit(
        self, body: memoryview, entries: Sequence[CommitEntry], heads: Sequence[int], change: Any
    ) -> Commit:
        await self.goes_on.wait()
        commit: Commit = await self._inner.commit(body, entries, heads, change)
        return commit


class Place:
    """An agent on this loop; clients are on threads."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.commits = StuckCommits(agent.log.writer._commit_path)
        agent.log.writer._commit_path = self.commits  # type: ignore[assignment]

        self._loop = asyncio.get_running_loop()

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.agent.kafka_port}"

    def stick(self) -> None:
        """From the next request on; for threads."""
        self._loop.call_soon_threadsafe(self.commits.goes_on.clear)

    def let_go(self) -> None:
        """The store answers again; for threads."""
        self._loop.call_soon_threadsafe(self.commits.goes_on.set)

    async def do(self, work: Callable[[Wire], T]) -> T:
        def run() -> T:
            with Wire(self.bootstrap) as wire:
                return work(wire)

        return await asyncio.to_thread(run)

    @property
    def timed_out(self) -> int:
        """How many requests have been told so."""
        return self.agent.log.writer.timeouts.count


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    agent = Agent(UpOptions(data_dir=None, kafka_port=0))
    await agent.start()
    yield (place := Place(agent))
    place.commits.goes_on.set()
    await agent.stop()


def results_of(wire: Wire, version: int, correlation_id: int) -> list[tuple[int, int]]:
    response = wire.receive(ApiKey.PRODUCE, version, correlation_id)
    return [(one.error_code, one.base_offset) for topic in response.responses for one in topic.partition_responses]


async def test_producers_are_told_in_order_and_recognised_when_they_try_again(place: Place) -> None:
    """Requests like the one before on their connection, in the old form, by id, and of several partitions."""

    def work(wire: Wire) -> None:
        topic_id, own = wire.create_topic("orders", partitions=2), wire.producer_id()

        def send(sequence: int, **options: Any) -> tuple[int, int]:
            records = batch(b"%d" % sequence, producer_id=own, producer_epoch=0, base_sequence=sequence)
            return wire.send_produce("orders", records, **{"timeout_ms": TIMEOUT_MS, **options})

        assert results_of(wire, *send(0)) == [(0, 0)]
        place.stick()
        began = time.monotonic()
        sent = [
            send(1), send(2), send(3, version=7),
            wire.send_produce(topic_id, batch(b"by id"), partition=1, acks=1, timeout_ms=TIMEOUT_MS),
        ]  # fmt: skip
        shares = [produce.PartitionProduceData(index=index, records=batch(b"both")) for index in (0, 1)]
        both = produce.ProduceRequest(
            acks=-1, timeout_ms=TIMEOUT_MS, topic_data=[produce.TopicProduceData(name="orders", partition_data=shares)]
        )
        sent.append((9, wire.send(ApiKey.PRODUCE, 9, both)))
        assert [results_of(wire, *one) for one in sent] == [[TIMED_OUT]] * 4 + [[TIMED_OUT, TIMED_OUT]]
        assert time.monotonic() - began > TIMEOUT_MS / 1000
        again = [send(sequence, timeout_ms=20_000) for sequence in (1, 2, 3)]
        place.let_go()
        assert [results_of(wire, *one) for one in again] == [[(0, 1)], [(0, 2)], [(0, 3)]]
        assert [record.value for record in wire.fetch_records("orders")] == [b"0", b"1", b"2", b"3", b"both"]
        assert [record.value for record in wire.fetch_records("orders", partition=1)] == [b"by id", b"both"]

    await place.do(work)
    assert place.timed_out == 5
    assert "penstock_produce_timeouts_total 5.0" in exposition(place.agent).decode().splitlines()


async def test_who_wants_no_acknowledgement_is_not_told(place: Place) -> None:
    """An answer that nobody reads would be taken for the next one."""

    def work(wire: Wire) -> None:
        wire.create_topic("orders")
        place.stick()
        wire.send_produce("orders", batch(b"quiet"), acks=0, timeout_ms=0)
        asked = wire.send_produce("orders", batch(b"loud"), timeout_ms=0)
        assert place.timed_out == 0
        eventually(lambda: place.timed_out == 1, what="the second one's time being up")
        place.let_go()
        # The first one has no answer, which is known only now; before that none behind it may be sent.
        assert results_of(wire, *asked) == [TIMED_OUT]
        assert [record.value for record in wire.fetch_records("orders")] == [b"quiet", b"loud"]

    await place.do(work)


async def test_librdkafka_tries_again_and_doubles_nothing(place: Place) -> None:
    await place.do(lambda wire: wire.create_topic("orders"))
    reports: list[Any] = []

    def work() -> None:
        producer = Producer(
            {
                "bootstrap.servers": place.bootstrap, "enable.idempotence": True, "request.timeout.ms": TIMEOUT_MS,
                "retry.backoff.ms": 20, "retry.backoff.max.ms": 50, "linger.ms": 0, "batch.num.messages": 2,
            }
        )  # fmt: skip
        producer.produce("orders", b"first", on_delivery=lambda error, message: reports.append(error))
        assert producer.flush(15) == 0
        place.stick()
        for number in range(20):
            producer.produce("orders", b"%d" % number, on_delivery=lambda error, message: reports.append(error))
        eventually(lambda: (producer.poll(0.05), place.timed_out > 5)[1], what="time being up, more than once")
        place.let_go()
        assert producer.flush(15) == 0

    await asyncio.to_thread(work)
    assert reports == [None] * 21
    values = await place.do(lambda wire: [record.value for record in wire.fetch_records("orders")])
    assert values == [b"first", *(b"%d" % number for number in range(20))]
