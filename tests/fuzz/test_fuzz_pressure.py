"""Clients that take more than they need: memory stays bounded, the process survives, others do not notice."""

from __future__ import annotations

import contextlib
import resource
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from struct import pack

import pytest
from canary import MIB, TOPIC, healthy
from fixtures.raw_client import request_bytes
from fixtures.server import Server
from fixtures.waiting import eventually
from fixtures.wire import Wire, batch, fetch_topic

from penstock.wire.api_keys import ApiKey
from penstock.wire.messages import fetch
from penstock.wire.messages.api_versions import ApiVersionsRequest
from penstock.wire.messages.produce import PartitionProduceData, ProduceRequest, TopicProduceData

FEW_FILES = 140
FRAME_BYTES = 90 * MIB
HEADER = pack(">hhih", 0, 9, 1, 4) + b"fuzz\0"
VERSIONS = request_bytes(
    ApiKey.API_VERSIONS, 3, ApiVersionsRequest(client_software_name="f", client_software_version="1")
)


@pytest.fixture
def clients(server: Server) -> Iterator[ExitStack]:
    """Sockets that are closed after the test, and let go of by the server."""
    with ExitStack() as stack:
        yield stack
    eventually(lambda: server.process.num_fds() < FEW_FILES, within_s=30, what="closed connections being let go of")


@pytest.fixture(autouse=True)
def many_files() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 16_384), hard))


def connect(server: Server, clients: ExitStack, *, timeout_s: float = 20) -> socket.socket:
    opened = socket.create_connection(("127.0.0.1", server.kafka_port), timeout=timeout_s)
    return clients.enter_context(contextlib.closing(opened))


def in_threads(work: Callable[[int], None], count: int) -> None:
    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
        assert not thread.is_alive()


def test_announced_frames_cost_nothing(server: Server, clients: ExitStack) -> None:
    with healthy(server, grows_mib=24) as canary:
        for _ in range(40):
            connect(server, clients).sendall(pack(">i", FRAME_BYTES) + HEADER + bytes(60_000))
        canary.goes_on(200)


def test_huge_frames_are_received_within_a_budget(server: Server, clients: ExitStack) -> None:
    """A dozen clients send 90 MiB each: more than a gigabyte passes through what 192 MiB can hold, and is refused."""
    body = bytes(4 * MIB)
    answered = []

    def send(_: int) -> None:
        client = connect(server, clients, timeout_s=100)
        client.sendall(pack(">i", FRAME_BYTES) + HEADER)
        sent = len(HEADER)
        while sent < FRAME_BYTES:
            sent += client.send(body[: min(len(body), FRAME_BYTES - sent)])
        answered.append(client.recv(1))

    with healthy(server, grows_mib=320) as canary:
        in_threads(send, 12)
        canary.goes_on(50)
    assert answered == [b""] * 12  # Zeros are no produce request: closed, not answered.


def test_frames_that_trickle_do_not_keep_memory_from_others(server: Server, clients: ExitStack) -> None:
    hoarders = [connect(server, clients) for _ in range(60)]
    with healthy(server, grows_mib=260) as canary:
        for client in hoarders:
            client.sendall(pack(">i", FRAME_BYTES) + HEADER)
            client.settimeout(0.05)
            with contextlib.suppress(TimeoutError):
                client.sendall(bytes(5 * MIB))
        began = time.monotonic()
        with Wire(server.bootstrap) as wire:  # Another client with something large to send.
            for _ in range(5):
                answer = wire.produce(TOPIC, batch(b"x" * 900_000))
                assert answer.error_code == 0
        assert time.monotonic() - began < 10
        canary.goes_on(50)


def test_idle_connections_are_cheap(server: Server, clients: ExitStack) -> None:
    count = 2_000
    with healthy(server, grows_mib=24) as canary:
        for _ in range(count):
            connect(server, clients).sendall(VERSIONS)
        canary.goes_on(200)
        assert server.process.num_fds() > count


def test_a_byte_at_a_time(server: Server, clients: ExitStack) -> None:
    with Wire(server.bootstrap) as wire:
        records = batch(b"slow")
        request = ProduceRequest(
            acks=-1,
            timeout_ms=20_000,
            topic_data=[TopicProduceData(name=TOPIC, partition_data=[PartitionProduceData(index=0, records=records)])],
        )
        frame = request_bytes(ApiKey.PRODUCE, 9, request)
        with healthy(server, grows_mib=16):
            writers = [connect(server, clients) for _ in range(200)]
            for position in range(len(frame)):
                for client in writers:
                    client.sendall(frame[position : position + 1])
            for client in writers:
                assert client.recv(4)
        assert wire.list_offset(TOPIC, -1).offset >= 200


@pytest.mark.parametrize("cold", [False, True])
def test_readers_that_never_read(server: Server, clients: ExitStack, cold: bool) -> None:
    """Each asks for everything again and again and takes nothing, while the log moves on under them."""
    topic = f"unread-{cold}"
    with Wire(server.bootstrap) as wire:
        wire.create_topic(topic)
        values = batch(b"x" * 900_000)
        for _ in range(100 if cold else 8):  # More than the tail holds, or less.
            assert wire.produce(topic, values).error_code == 0
        with healthy(server, grows_mib=400) as canary:
            for _ in range(150):
                reader = clients.enter_context(Wire(server.bootstrap))
                reader.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                for _ in range(50):
                    reader.send_fetch(topic, 0, partition_max_bytes=4 * MIB)
                assert wire.produce(topic, values).error_code == 0
            canary.goes_on(100)


def test_storms_of_connections(server: Server) -> None:
    reset = struct.pack("ii", 1, 0)

    def storm(number: int) -> None:
        for turn in range(400):
            client = socket.create_connection(("127.0.0.1", server.kafka_port), timeout=20)
            if turn % 3 == 0:
                client.sendall(VERSIONS)
            if turn % 2 == 0:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
            client.close()

    with healthy(server, grows_mib=24):
        in_threads(storm, 8)
    eventually(lambda: server.process.num_fds() < FEW_FILES, what="closed connections being let go of")


def test_thousands_of_requests_at_once(server: Server, clients: ExitStack) -> None:
    count = 20_000
    client = connect(server, clients, timeout_s=60)
    with healthy(server, grows_mib=40) as canary:
        sender = threading.Thread(target=client.sendall, args=(VERSIONS * count,), daemon=True)
        sender.start()
        canary.goes_on(100)  # Nobody reads the answers yet.
        reader = client.makefile("rb")
        for _ in range(count):
            (size,) = struct.unpack(">i", reader.read(4))
            assert len(reader.read(size)) == size
        sender.join(timeout=20)
        reader.close()


def test_requests_behind_one_that_waits(server: Server, clients: ExitStack) -> None:
    """A long poll, and behind it as much as the connection takes: it is not read far ahead."""
    filler = pack(">i", 200_000) + HEADER + bytes(200_000 - len(HEADER))
    with Wire(server.bootstrap) as wire:
        wire.create_topic("quiet")
    with healthy(server, grows_mib=60) as canary:
        for _ in range(100):
            client = clients.enter_context(Wire(server.bootstrap))
            client.send_fetch("quiet", 0, max_wait_ms=60_000)
            client.socket.settimeout(0.05)
            with contextlib.suppress(TimeoutError):
                client.socket.sendall(filler * 50)
        canary.goes_on(100)


def test_fetch_sessions_of_everything_and_more(server: Server, clients: ExitStack) -> None:
    """Sessions that name tens of thousands of partitions, which do not exist, and are given more and more."""
    with healthy(server, grows_mib=120):
        for which in range(6):
            client = clients.enter_context(Wire(server.bootstrap, timeout_s=60))
            session_id, epoch = 0, 0
            for turn in range(4):
                wanted = [
                    fetch.FetchPartition(partition=turn * 15_000 + number, partition_max_bytes=1)
                    for number in range(15_000)
                ]
                request = fetch.FetchRequest(
                    max_wait_ms=0, min_bytes=1, max_bytes=MIB, session_id=session_id, session_epoch=epoch,
                    topics=[fetch_topic(f"nothing-{which}", wanted)],
                )  # fmt: skip
                answer = client.call(ApiKey.FETCH, 12, request)
                session_id, epoch = answer.session_id, epoch + 1
                if answer.error_code or not session_id:
                    break


def test_writers_that_do_not_wait(server: Server, clients: ExitStack) -> None:
    """Many clients send large batches as fast as they can and read no answer before the end."""
    topic, each = "flood", 15
    values = batch(b"x" * 900_000)
    with Wire(server.bootstrap) as wire:
        wire.create_topic(topic, partitions=4)

    def flood(number: int) -> None:
        with Wire(server.bootstrap, timeout_s=100) as client:
            for _ in range(each):
                client.send_produce(topic, values, partition=number % 4)
            for _ in range(each):
                answer = client.receive(ApiKey.PRODUCE, 9).responses[0].partition_responses[0]
                assert answer.error_code == 0

    with healthy(server, grows_mib=350) as canary:
        in_threads(flood, 40)
        canary.goes_on(20)
    with Wire(server.bootstrap) as wire:
        assert sum(wire.list_offset(topic, -1, partition=number).offset for number in range(4)) == 40 * each
