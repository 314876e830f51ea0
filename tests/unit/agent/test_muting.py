"""A muted connection: nothing is read or begun, everything owed is sent, nobody else waits, no timer is left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from agent_world import ECHO, FETCH, PRODUCE, Setup, request, turns

from penstock.agent.shared_io import FIRST_SHORTAGE_MS
from penstock.agent.throttling import Stopwatch, timed
from penstock.quotas.throttles import ClientMeters

LONG_MS, SHORT_MS = 60_000, 30


@pytest.fixture
async def setup() -> AsyncIterator[Setup]:
    setup = Setup()
    yield setup
    await setup.close()


async def test_nothing_is_read_until_the_time_is_over(setup: Setup) -> None:
    client, connection = setup.connect()
    loop = asyncio.get_running_loop()
    began = loop.time()
    connection.mute(SHORT_MS)
    await client.send(request(ECHO, b"1"), request(ECHO, b"2"))
    assert setup.desk.taken == []
    assert [body[2:] for body in await client.receive(2)] == [b"1", b"2"]
    assert SHORT_MS / 1000 - 0.002 <= loop.time() - began < 5


async def test_what_was_read_ahead_waits_and_what_is_owed_is_sent(setup: Setup) -> None:
    client, connection = setup.connect()
    await client.send(request(PRODUCE, b"under way"))
    connection.mute(SHORT_MS)
    setup.desk.answer()
    assert [body[2:] for body in await client.receive(1)] == [b"under way"]
    await client.send(request(ECHO, b"after"))
    assert len(setup.desk.taken) == 1
    assert [body[2:] for body in await client.receive(1)] == [b"after"]


async def test_a_held_request_that_is_answered_does_not_end_it(setup: Setup) -> None:
    client, connection = setup.connect()
    await client.send(request(FETCH, b"held") + request(ECHO, b"behind"))
    connection.mute(SHORT_MS)
    assert connection.held
    setup.desk.answer()
    assert not connection.held
    assert [body[2:] for body in await client.receive(1)] == [b"held"]
    assert len(setup.desk.taken) == 1
    assert [body[2:] for body in await client.receive(1)] == [b"behind"]


async def test_nobody_else_waits(setup: Setup) -> None:
    _, muted = setup.connect()
    muted.mute(LONG_MS)
    other, _ = setup.connect()
    await other.send(request(ECHO, b"now"))
    assert [body[2:] for body in await other.receive(1)] == [b"now"]


async def test_the_longer_time_counts(setup: Setup) -> None:
    client, connection = setup.connect()
    connection.mute(LONG_MS)
    connection.mute(SHORT_MS)
    await client.send(request(ECHO))
    await asyncio.sleep(SHORT_MS / 1000 * 2)
    assert setup.desk.taken == []


@pytest.mark.parametrize("size", [10, 100_000])
async def test_hanging_up_leaves_no_timer(setup: Setup, size: int) -> None:
    client, connection = setup.connect()
    await client.send(request(PRODUCE, bytes(size))[: size // 2 + 8])
    connection.mute(LONG_MS)
    timer = connection._muted_until
    connection.close()
    assert timer is not None
    assert timer.cancelled()
    await turns(3)
    assert setup.nothing_is_held


async def test_a_large_frame_goes_on_afterwards(setup: Setup) -> None:
    client, connection = setup.connect()
    frame = request(ECHO, bytes(100_000))
    await client.send(frame[:50_000])
    connection.mute(SHORT_MS)
    sending = asyncio.ensure_future(client.send(frame[50_000:]))
    (body,) = await client.receive(1)
    await sending
    assert len(body) == 100_002


# ---- a short of memory is said in the same way ----------------------------------------------------------------------


async def test_who_is_held_back_for_lack_of_memory_is_told(setup: Setup) -> None:
    client, connection = setup.connect()
    setup.pending_bytes = setup.shared.pending_max_bytes + 1
    await client.send(request(PRODUCE))
    assert setup.desk.taken == []
    assert connection.throttle_ms == FIRST_SHORTAGE_MS
    setup.clock.time_s += 0.3
    setup.pending_bytes = 0
    setup.shared.make_room()
    await turns(2)
    assert len(setup.desk.taken) == 1
    setup.pending_bytes = setup.shared.pending_max_bytes + 1
    await client.send(request(PRODUCE))
    assert connection.throttle_ms == 300, "as long as it took the last time"
    setup.pending_bytes = 0
    setup.shared.make_room()


# ---- connections over the rate --------------------------------------------------------------------------------------


async def test_who_connects_too_often_is_closed_after_the_wait() -> None:
    waits = [SHORT_MS]
    setup = Setup(throttled_ms=lambda address: waits.pop() if waits else 0)
    unwelcome = setup.knock()
    assert setup.server.connection_count == 0
    assert await unwelcome.is_closed()
    setup.connect()
    assert setup.server.connection_count == 1
    await setup.close()


# ---- the time that requests take ------------------------------------------------------------------------------------


class StepClock:
    """A clock that only work moves."""

    def __init__(self) -> None:
        self.time_s = 0.0

    def now_ms(self) -> int:
        return int(self.time_s * 1000)

    def monotonic(self) -> float:
        return self.time_s


async def test_only_the_works_own_steps_are_timed() -> None:
    clock = StepClock()
    stopwatch = Stopwatch(ClientMeters(), clock)

    async def work() -> str:
        clock.time_s += 1
        await asyncio.sleep(0)
        clock.time_s += 2
        return "done"

    async def others() -> None:
        clock.time_s += 100

    stopwatch.pause()
    found, _ = await asyncio.gather(timed(work(), stopwatch), others())
    assert found == "done"
    assert stopwatch.spent_s() == 3


async def test_a_timed_task_can_be_cancelled_and_can_fail() -> None:
    stopwatch = Stopwatch(ClientMeters(), StepClock())
    cleaned = []

    async def wait() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            cleaned.append(True)

    async def fail() -> None:
        await asyncio.sleep(0)
        raise ZeroDivisionError

    async def run(work) -> None:
        await timed(work, stopwatch)

    task = asyncio.ensure_future(run(wait()))
    await turns(2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cleaned == [True]
    with pytest.raises(ZeroDivisionError):
        await run(fail())
