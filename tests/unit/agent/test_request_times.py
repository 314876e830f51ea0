"""How long requests take: from when to when, what does not count, and which the log tells of."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest
from agent_world import ECHO, FETCH, PRODUCE, HandClock, Setup, request, turns
from wired_world import Wired, make_topic, producing

from penstock.agent.agent import Agent
from penstock.agent.request_times import WARN_EVERY_S, RequestTimes
from penstock.base.clock import SystemClock
from penstock.base.options import UpOptions
from penstock.wire.api_keys import ApiKey
from penstock.wire.messages.api_versions import ApiVersionsRequest
from penstock.wire.messages.fetch import FetchPartition, FetchRequest, FetchTopic


@pytest.fixture
async def setup() -> AsyncIterator[Setup]:
    setup = Setup()
    yield setup
    await setup.close()


def seen(times: RequestTimes, key: int) -> tuple[int, float]:
    return times.answered[key].count, round(times.answered[key].total_s, 6)


async def test_from_arriving_until_the_answer_is_there(setup: Setup) -> None:
    client, _ = setup.connect()
    await client.send(request(PRODUCE, b"1") + request(PRODUCE, b"2"))
    setup.clock.time_s += 0.25
    setup.desk.answer(1)
    setup.clock.time_s += 0.5
    setup.desk.answer()
    await client.receive(2)
    assert seen(setup.shared.times, PRODUCE) == (2, 1.0)


async def test_who_waits_for_those_before_counts_from_its_own_beginning(setup: Setup) -> None:
    """As in Kafka, which reads a connection's next request when it has answered the one before."""
    client, _ = setup.connect()
    await client.send(request(FETCH, b"held") + request(PRODUCE, b"behind"))
    setup.clock.time_s += 3
    setup.desk.answer()
    setup.clock.time_s += 0.5
    setup.desk.answer()
    await client.receive(2)
    assert seen(setup.shared.times, FETCH) == (1, 3.0)
    assert seen(setup.shared.times, PRODUCE) == (1, 0.5)


async def test_being_muted_is_another_matter(setup: Setup) -> None:
    client, connection = setup.connect()
    connection.mute(20)
    await client.send(request(ECHO))
    await client.receive(1)
    assert seen(setup.shared.times, ECHO) == (1, 0.0)
    assert (setup.shared.times.throttled.count, setup.shared.times.throttled.total_s) == (1, 0.02)


async def test_a_client_that_reads_slowly_is_seen(setup: Setup) -> None:
    client, connection = setup.connect()
    setup.desk.reply_bytes = 900_000
    await client.send(request(ECHO))
    await turns(5)
    assert connection.stalled_since is not None
    setup.clock.time_s += 2
    await client.receive(1)
    stalled = setup.shared.times.stalled
    assert stalled.count >= 1
    assert stalled.total_s == 2.0


class StillClock(HandClock):
    """Stands still, but for what records are compared with."""

    def now_ms(self) -> int:
        return SystemClock().now_ms()


@pytest.fixture
async def still() -> AsyncIterator[Wired]:
    """An agent whose clock stands still."""
    agent = Agent(
        UpOptions(data_dir=None, kafka_port=0, http_port=0, settings={"slow.request.log.ms": "500"}), clock=StillClock()
    )
    await agent.start()
    wired = Wired(agent)
    yield wired
    await wired.close()


async def test_what_a_fetch_waits_for_data_is_not_its_own_time(still: Wired) -> None:
    client = still.connect()
    await make_topic(still, client)
    partition = FetchPartition(partition=0, fetch_offset=0, partition_max_bytes=1000)
    fetch = FetchRequest(
        max_wait_ms=20, min_bytes=1, max_bytes=1000, session_epoch=-1,
        topics=[FetchTopic(topic="orders", partitions=[partition])],
    )  # fmt: skip
    await still.ask(client, ApiKey.FETCH, 11, fetch)
    waits, (count, total_s) = still.agent.requests.fetch.waits, seen(still.agent.server.shared.times, ApiKey.FETCH)
    # By the agent's clock no time has passed: all that is counted is what the wait has been taken off.
    assert (waits.count, count, total_s) == (1, 1, -round(waits.total_s, 6))
    assert waits.total_s >= 0.02
    await still.ask(client, ApiKey.PRODUCE, 9, producing("orders", acks=-1))
    await still.ask(client, ApiKey.FETCH, 11, fetch)
    assert (waits.count, seen(still.agent.server.shared.times, ApiKey.FETCH)) == (1, (2, total_s))


async def test_the_log_tells_of_a_slow_one_and_then_counts(still: Wired, caplog: pytest.LogCaptureFixture) -> None:
    clock = still.agent.runtime.clock
    assert isinstance(clock, HandClock)
    client = still.connect()
    await make_topic(still, client)
    (connection,) = still.agent.server.connections

    def take(key: int, took_s: float) -> None:
        slot = connection.open_slot(key)
        slot.since_s -= took_s
        connection.fill(slot, [])

    with caplog.at_level(logging.WARNING, "penstock.agent.requests"):
        for key, took_s in ((ApiKey.METADATA, 0.4), (ApiKey.JOIN_GROUP, 9), (ApiKey.PRODUCE, 0.75), (ApiKey.FETCH, 2)):
            take(key, took_s)
        clock.time_s += WARN_EVERY_S
        connection.last_active = clock.monotonic()
        take(ApiKey.METADATA, 1)
    assert [record.getMessage() for record in caplog.records] == [
        "PRODUCE of client 'tester' at 10.0.0.1 took 750 ms; the last flush: waited 0 ms, prepared 0 ms, written 0 ms",
        "METADATA of client 'tester' at 10.0.0.1 took 1000 ms; 1 more since the last such line",
    ]


async def test_every_request_of_an_agent_is_counted_once(wired: Wired) -> None:
    client = wired.connect()
    await make_topic(wired, client)
    for acks in (-1, 1, -1):
        await wired.ask(client, ApiKey.PRODUCE, 9, producing("orders", acks=acks))
    await wired.send(client, ApiKey.PRODUCE, 9, producing("orders", acks=0))
    await wired.ask(client, ApiKey.API_VERSIONS, 0, ApiVersionsRequest())
    await asyncio.sleep(0)
    answered, requests = wired.agent.server.shared.times.answered, wired.agent.requests.dispatcher.requests
    assert {key: one.count for key, one in answered.items()} == requests
    assert requests[ApiKey.PRODUCE] == 4
    stages = wired.agent.log.writer.stages.by_name()
    assert {one.count for one in stages.values()} == {wired.agent.log.writer.stats.commits} == {4}
