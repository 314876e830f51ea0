"""Connections over socket pairs: framing, order, limits, and an end in every state."""

from __future__ import annotations

import asyncio
import os
import random
import resource
from collections.abc import AsyncIterator
from struct import pack

import pytest
from agent_world import BAD, BUG, ECHO, FETCH, PRODUCE, Client, Setup, request, turns

from penstock.agent import connection as limits
from penstock.agent.server import connections_possible
from penstock.agent.shared_io import RECEIVE_BUFFER_BYTES
from penstock.base.memory import MemoryBounds

KIB, MIB = 1024, 1024 * 1024


@pytest.fixture
async def setup() -> AsyncIterator[Setup]:
    setup = Setup(max_frame_bytes=8 * MIB)
    yield setup
    await setup.close()


async def test_who_connects_too_often_takes_no_more_files_than_others() -> None:
    """They are kept for a while, and without credentials."""
    setup = Setup(max_connections=3, throttled_ms=lambda host: 60_000 if host == "10.0.0.9" else 0)
    setup.connect()
    kept = [setup.knock("10.0.0.9") for _ in range(5)]
    assert [await is_open(client) for client in kept] == [True, True, False, False, False]
    assert not await is_open(setup.knock()), "nor is there room for others"
    await setup.close()


async def is_open(client: Client) -> bool:
    try:
        return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client.sock, 1), 0.02) != b""
    except TimeoutError:
        return True


# ---- framing -------------------------------------------------------------------------------------------------

SIZES = [
    1, 2, 3, 100, 4 * KIB, 16 * KIB - 5, 16 * KIB - 4, 16 * KIB - 1, 16 * KIB, 16 * KIB + 1, RECEIVE_BUFFER_BYTES - 5,
    RECEIVE_BUFFER_BYTES - 4, RECEIVE_BUFFER_BYTES - 3, RECEIVE_BUFFER_BYTES + 1, MIB + 3, 5 * MIB,
]  # fmt: skip


@pytest.mark.parametrize("size", SIZES)
async def test_frames_of_every_size(setup: Setup, size: int) -> None:
    client, _ = setup.connect()
    body = (PRODUCE.to_bytes(2) + os.urandom(max(0, size - 2)))[:size]
    sending = asyncio.ensure_future(client.send(pack(">i", size) + body, request(ECHO, b"after")))
    while len(setup.desk.taken) < 2:
        await asyncio.sleep(0.001)
    await sending
    assert setup.desk.taken == [body, ECHO.to_bytes(2) + b"after"]
    assert setup.shared.partial_bytes == 0


async def test_byte_by_byte(setup: Setup) -> None:
    client, _ = setup.connect()
    stream = request(ECHO, b"one") + request(ECHO) + request(ECHO, b"three")
    for position in range(len(stream)):
        await client.send(stream[position : position + 1])
    assert [body[2:] for body in await client.receive(3)] == [b"one", b"", b"three"]


async def test_many_frames_in_one_piece(setup: Setup) -> None:
    client, _ = setup.connect()
    bodies = [b"%d" % number for number in range(500)]
    await client.send(b"".join(request(ECHO, body) for body in bodies))
    assert [body[2:] for body in await client.receive(500)] == bodies


@pytest.mark.parametrize("seed", range(12))
async def test_random_frames_in_random_pieces(setup: Setup, seed: int) -> None:
    draw = random.Random(seed)
    client, _ = setup.connect()
    bodies = [draw.randbytes(draw.choice((0, 1, 50, 5_000, 16_380, 20_000, 300_000))) for _ in range(12)]
    stream = b"".join(request(ECHO, body) for body in bodies)

    async def send() -> None:
        position = 0
        while position < len(stream):
            end = position + draw.choice((1, 3, 4, 5, 1_000, 16_384, 100_000))
            await client.send(stream[position:end])
            position = end

    sending = asyncio.ensure_future(send())
    assert [body[2:] for body in await client.receive(len(bodies))] == bodies
    await sending


@pytest.mark.parametrize("size", [0, -1, -(2**31), 8 * MIB + 1, 2**31 - 1])
async def test_sizes_that_no_frame_has(setup: Setup, size: int) -> None:
    client, connection = setup.connect()
    await client.send(request(ECHO, b"before") + pack(">i", size))
    assert await client.receive(1) if not connection.closed else True
    assert await client.is_closed()
    assert setup.desk.taken == [ECHO.to_bytes(2) + b"before"]


async def test_large_frames_must_be_records(setup: Setup) -> None:
    """What is not a produce request is refused as soon as its API key is there, before its bytes cost memory."""
    setup.shared.max_other_bytes = 64 * KIB
    client, _ = setup.connect()
    await client.send(pack(">i", MIB) + ECHO.to_bytes(2) + bytes(20))
    assert await client.is_closed()
    client, _ = setup.connect()
    await client.send(pack(">i", MIB), b"\0", ECHO.to_bytes(2)[1:])
    assert await client.is_closed()
    client, _ = setup.connect()
    await client.send(pack(">i", 100 * KIB) + PRODUCE.to_bytes(2), bytes(100 * KIB - 2))
    await turns(20)
    assert len(setup.desk.taken) == 1


# ---- order ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
async def test_responses_leave_in_the_order_of_requests(setup: Setup, seed: int) -> None:
    draw = random.Random(seed)
    client, _ = setup.connect()
    await client.send(b"".join(request(PRODUCE, b"%d" % number) for number in range(20)))
    assert len(setup.desk.waiting) == 20, "all are under way at once"
    while setup.desk.waiting:
        setup.desk.answer(draw.randrange(len(setup.desk.waiting)))
    assert [int(body[2:]) for body in await client.receive(20)] == list(range(20))


async def test_a_request_without_a_response_holds_up_nobody(setup: Setup) -> None:
    client, _ = setup.connect()
    await client.send(request(PRODUCE, b"silent") + request(PRODUCE, b"heard"))
    setup.desk.answer(1)
    setup.desk.answer(0, silently=True)
    assert await client.receive(1) == [b"\0\0heard"]


async def test_a_held_request_holds_those_behind_it(setup: Setup) -> None:
    client, connection = setup.connect()
    await client.send(request(PRODUCE, b"1") + request(FETCH, b"2") + request(PRODUCE, b"3") + request(ECHO, b"4"))
    assert [body[2:] for body in setup.desk.taken] == [b"1", b"2"]
    assert connection.held
    setup.desk.answer(1)
    assert [body[2:] for body in setup.desk.taken] == [b"1", b"2", b"3", b"4"]
    assert not connection.held
    setup.desk.answer(1)
    setup.desk.answer(0)
    assert [body[2:] for body in await client.receive(4)] == [b"1", b"2", b"3", b"4"]


async def test_held_requests_follow_each_other(setup: Setup) -> None:
    client, _ = setup.connect()
    await client.send(b"".join(request(FETCH, b"%d" % number) for number in range(5)))
    for number in range(5):
        assert len(setup.desk.taken) == number + 1
        setup.desk.answer()
    assert [body[2:] for body in await client.receive(5)] == [b"0", b"1", b"2", b"3", b"4"]


async def test_a_large_frame_behind_a_held_request(setup: Setup) -> None:
    client, _ = setup.connect()
    large = request(PRODUCE, bytes(300 * KIB))
    sending = asyncio.ensure_future(client.send(request(FETCH) + large + request(ECHO, b"end")))
    await turns(30)
    assert len(setup.desk.taken) == 1
    setup.desk.answer()
    await sending
    while len(setup.desk.taken) < 3:
        await asyncio.sleep(0.001)
    setup.desk.answer()
    assert [len(body) for body in await client.receive(3)] == [2, 2 + 300 * KIB, 5]


# ---- limits --------------------------------------------------------------------------------------------------


async def test_a_client_that_reads_nothing_is_not_read_from(setup: Setup) -> None:
    client, connection = setup.connect()
    setup.desk.reply_bytes = 100 * KIB
    bodies = [b"%03d" % number for number in range(200)]
    sending = asyncio.ensure_future(client.send(*[request(ECHO, body) for body in bodies]))
    await turns(700)
    answered = len(setup.desk.taken)
    assert answered < 60
    assert connection.out_bytes <= limits.OUTPUT_MAX_BYTES + 200 * KIB
    assert connection.stalled_since is not None
    responses = await client.receive(200)
    await sending
    assert [body[2:5] for body in responses] == bodies
    await turns(2)
    assert (connection.out_bytes, connection.stalled_since) == (0, None)


async def test_requests_that_are_not_answered_are_bounded(setup: Setup) -> None:
    client, _ = setup.connect()
    count = limits.MAX_SLOTS + 500
    sending = asyncio.ensure_future(client.send(*[request(PRODUCE, b"%d" % number) for number in range(count)]))
    await asyncio.sleep(0.2)
    assert 100 < len(setup.desk.taken) <= limits.MAX_SLOTS
    receiving = asyncio.ensure_future(client.receive(count))
    while setup.desk.waiting or len(setup.desk.taken) < count:
        if setup.desk.waiting:
            setup.desk.answer()
        await asyncio.sleep(0)
    assert [int(body[2:]) for body in await receiving] == list(range(count))
    await sending


async def test_requests_without_responses_that_are_bounded_make_room_for_those_behind_them(setup: Setup) -> None:
    client, _ = setup.connect()
    await client.send(b"".join(request(PRODUCE) for _ in range(limits.MAX_SLOTS + 5)))
    assert len(setup.desk.taken) == limits.MAX_SLOTS
    while setup.desk.waiting:
        setup.desk.answer(silently=True)
    await turns(5)
    assert len(setup.desk.waiting) == 5
    while setup.desk.waiting:
        setup.desk.answer(silently=True)
    await client.send(b"".join(request(PRODUCE) for _ in range(limits.MAX_SLOTS)))
    assert len(setup.desk.waiting) == limits.MAX_SLOTS
    await client.send(request(ECHO, b"read"))
    assert len(setup.desk.waiting) == limits.MAX_SLOTS, "nor is that read before there is room"
    while setup.desk.waiting:
        setup.desk.answer(silently=True)
    assert await asyncio.wait_for(client.receive(1), 5) == [ECHO.to_bytes(2) + b"read"]


async def test_requests_behind_a_held_one_are_bounded(setup: Setup) -> None:
    client, connection = setup.connect()
    piece = request(ECHO, bytes(4 * KIB))
    sending = asyncio.ensure_future(client.send(request(FETCH), *[piece] * 400))
    await turns(2_000)
    bound = max(limits.QUEUE_MAX_BYTES, limits.READ_AHEAD_BYTES) + RECEIVE_BUFFER_BYTES
    assert 0 < setup.shared.queued_bytes <= bound
    assert len(connection._queue) <= limits.QUEUE_MAX_REQUESTS + RECEIVE_BUFFER_BYTES // len(piece)
    assert len(setup.desk.taken) == 1
    setup.desk.answer()
    assert len(await client.receive(401)) == 401
    await sending
    assert setup.shared.queued_bytes == 0


async def test_reading_stops_while_too_much_waits_for_a_flush(setup: Setup) -> None:
    client, _ = setup.connect()
    setup.pending_bytes = 1 << 40
    await client.send(request(ECHO, b"one"))
    await turns(20)
    assert setup.desk.taken == []
    setup.pending_bytes = 0
    setup.shared.make_room()
    assert [body[2:] for body in await client.receive(1)] == [b"one"]


async def test_connections_are_bounded(setup: Setup) -> None:
    small = Setup(max_connections=3, max_connections_per_host=2)
    first, _ = small.connect("a")
    small.connect("a")
    third, _ = small.connect("a")
    assert await third.is_closed()
    small.connect("b")
    fourth, _ = small.connect("c")
    assert await fourth.is_closed()
    first.close()
    await turns(3)
    fifth, _ = small.connect("a")
    await fifth.send(request(ECHO, b"in"))
    assert await fifth.receive(1) == [ECHO.to_bytes(2) + b"in"]
    assert small.server.accepted == 4
    await small.close()


async def test_connections_leave_files_for_data() -> None:
    assert connections_possible(1024) == 768
    assert connections_possible(100) == 50
    assert connections_possible(-1) == 2**31 - 1
    limits_before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (5, limits_before[1]))
    try:
        small = Setup()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits_before)
    for host in ("a", "b"):
        small.connect(host)
    refused, _ = small.connect("c")
    assert await refused.is_closed()
    await small.close()


# ---- ends ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [BAD, BUG])
async def test_a_bad_request_costs_one_connection(setup: Setup, key: int) -> None:
    bad, _ = setup.connect()
    good, _ = setup.connect()
    await bad.send(request(key) + request(ECHO, b"never"))
    assert await bad.is_closed()
    await good.send(request(ECHO, b"fine"))
    assert await good.receive(1) == [ECHO.to_bytes(2) + b"fine"]
    assert len(setup.desk.taken) == 2


@pytest.mark.parametrize("key", [BAD, BUG])
async def test_a_bad_request_behind_a_held_one(setup: Setup, key: int) -> None:
    client, connection = setup.connect()
    await client.send(request(FETCH) + request(key) + request(ECHO))
    setup.desk.answer()
    assert await client.is_closed()
    assert connection.closed
    assert len(setup.desk.taken) == 2
    assert setup.shared.queued_bytes == 0


STATES = {
    "idle": [],
    "within a size": [request(ECHO)[:2]],
    "within a small frame": [request(ECHO, b"never")[:7]],
    "within a large frame": [request(PRODUCE, bytes(100 * KIB))[: 50 * KIB]],
    "before a large frame's key": [pack(">i", 5 * MIB)],
    "under way": [request(PRODUCE, b"1"), request(PRODUCE, b"2")],
    "held": [request(FETCH, b"1")],
    "held, more behind": [request(FETCH, b"1") + request(ECHO) * 5],
    "held, a large frame behind": [request(FETCH, b"1"), request(PRODUCE, bytes(100 * KIB))[: 20 * KIB]],
}


@pytest.mark.parametrize("who", ["client", "server"])
@pytest.mark.parametrize("state", STATES)
async def test_an_end_in_every_state(setup: Setup, state: str, who: str) -> None:
    client, connection = setup.connect()
    await client.send(*STATES[state])
    await turns(5)
    if who == "client":
        client.close()
        await turns(5)
        if not connection.closed:
            # A connection that is not read from learns of the end when it is read or written again.
            assert connection.answering
            connection.close()
    else:
        connection.close()
        assert await client.is_closed()
    assert connection.closed
    assert setup.nothing_is_held
    assert setup.desk.cancelled == state.startswith("held")
    while setup.desk.waiting:
        setup.desk.answer()  # What it produced is still written; nobody hears of it.
    connection.close()
    connection.send()
    assert setup.nothing_is_held


async def test_a_client_that_is_gone_while_responses_wait(setup: Setup) -> None:
    client, connection = setup.connect()
    setup.desk.reply_bytes = 4 * MIB
    await client.send(request(ECHO))
    await turns(5)
    assert connection.out_bytes
    client.close()
    await turns(10)
    assert connection.closed
    assert setup.nothing_is_held


async def test_stopping_takes_nothing_new_and_sends_what_is_ready(setup: Setup) -> None:
    client, _ = setup.connect()
    await client.send(request(PRODUCE, b"before"))
    setup.server.stop_listening()
    await client.send(request(ECHO, b"after"))
    setup.desk.answer()
    await turns(3)
    closing = asyncio.ensure_future(setup.server.close(1.0))
    assert await client.receive(1) == [b"\0\0before"]
    assert await client.is_closed()
    await closing
    assert len(setup.desk.taken) == 1


# ---- who holds up others -------------------------------------------------------------------------------------


async def test_the_silent_are_closed(setup: Setup) -> None:
    idle = Setup(idle_s=60.0)
    silent, _ = idle.connect()
    busy, _ = idle.connect()
    waiting, _ = idle.connect()
    await waiting.send(request(FETCH))
    idle.clock.time_s += 50
    await busy.send(request(ECHO))
    idle.clock.time_s += 20
    idle.server._sweep()
    assert await silent.is_closed()
    assert idle.server.connection_count == 2, "one was heard of lately, the other waits for us"
    await idle.close()


async def test_the_silent_may_stay_where_that_is_wanted() -> None:
    patient = Setup(idle_s=-0.001)
    patient.connect()
    patient.clock.time_s += 1_000_000
    patient.server._sweep()
    assert patient.server.connection_count == 1
    await patient.close()


@pytest.mark.parametrize(("limit", "after_s"), [(8 * MIB, 600), (3 * MIB, 5), (1 * MIB, 1)])
async def test_who_does_not_read_is_closed(setup: Setup, limit: int, after_s: float) -> None:
    """The sooner, the more memory such clients hold."""
    setup.shared.memory = MemoryBounds(unread_bytes=limit)
    client, connection = setup.connect()
    setup.desk.reply_bytes = 4 * MIB
    await client.send(request(ECHO))
    await turns(5)
    setup.clock.time_s += after_s - 0.5
    setup.server._sweep()
    assert not connection.closed
    setup.clock.time_s += 1
    setup.server._sweep()
    assert connection.closed


async def test_incomplete_frames_are_received_one_after_the_other(setup: Setup) -> None:
    setup.shared.memory = MemoryBounds(partial_bytes=100 * KIB)
    clients = [setup.connect()[0] for _ in range(4)]
    frame = request(PRODUCE, bytes(400 * KIB))
    sending = [asyncio.ensure_future(client.send(frame)) for client in clients]
    bystander, _ = setup.connect()
    await bystander.send(request(ECHO, b"small"))
    assert await bystander.receive(1) == [ECHO.to_bytes(2) + b"small"]
    most = 0
    while len(setup.desk.taken) < 5:
        await asyncio.sleep(0)
        most = max(most, setup.shared.partial_bytes)
    await asyncio.gather(*sending)
    assert most <= 100 * KIB + 400 * KIB + 4 * RECEIVE_BUFFER_BYTES
    assert setup.shared.partial_bytes == 0


async def test_a_frame_behind_responses_that_are_not_read_holds_up_no_others(setup: Setup) -> None:
    """It is the first of those that wait for memory, but it is not read from either."""
    setup.shared.memory, setup.desk.reply_bytes = MemoryBounds(partial_bytes=75 * KIB), 4 * MIB
    reads_nothing, connection = setup.connect()
    frame = request(PRODUCE, bytes(400 * KIB))
    await reads_nothing.send(request(ECHO) + frame[: 50 * KIB])
    other, _ = setup.connect()
    sending = asyncio.ensure_future(other.send(frame))
    await turns(50)
    assert connection.frame_bytes
    assert [len(body) for body in setup.desk.taken] == [2, 2 + 400 * KIB]
    await sending


async def test_a_frame_that_trickles_is_given_up_when_others_wait(setup: Setup) -> None:
    setup.shared.memory = MemoryBounds(partial_bytes=75 * KIB)
    slow, connection = setup.connect()
    await slow.send(request(PRODUCE, bytes(400 * KIB))[: 100 * KIB])
    await turns(5)
    setup.clock.time_s += 10
    await slow.send(b"\0")
    setup.server._sweep()
    assert connection.closed
    assert setup.shared.partial_bytes == 0
