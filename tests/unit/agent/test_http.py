"""The HTTP side: what it answers, and that clients of it, who need no credentials, can hold only so much."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
from collections.abc import Iterator

import pytest
from starlette.applications import Starlette

from penstock.agent import http
from penstock.agent.http import application, names_this_machine, serving

GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
PAGE = b"# HELP a Figures.\n"


async def metrics() -> bytes:
    return PAGE


def served(*, why_not_ready: str | None = None) -> Starlette:
    return application(lambda: why_not_ready, metrics)


async def connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    async with asyncio.timeout(10):
        while True:
            try:
                return await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:  # It does not listen yet.
                await asyncio.sleep(0.01)


async def is_answered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    writer.write(GET)
    try:
        return b"200 OK" in await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionResetError):
        return False


async def ends(reader: asyncio.StreamReader) -> bool:
    try:
        return await asyncio.wait_for(reader.read(), 5) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize(
    "sent", [b"", b"GET /healthz HTTP/1.1\r\nHost: local", b"POST /healthz HTTP/1.1\r\nContent-Le"]
)
async def test_a_request_that_does_not_come_is_not_waited_for(sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "PATIENCE_S", 0.05)
    async with serving(served(), "127.0.0.1", 0) as port:
        reader, writer = await connect(port)
        writer.write(sent)
        assert await ends(reader)
        writer.close()


async def test_who_asks_again_and_again_may_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "PATIENCE_S", 0.4)
    async with serving(served(), "127.0.0.1", 0) as port:
        reader, writer = await connect(port)
        for _ in range(6):
            assert await is_answered(reader, writer)
            assert await reader.readexactly(3) == b"ok\n"
            await asyncio.sleep(0.1)
        writer.close()


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:8080", "127.0.0.1:8080", "127.9.9.9", "[::1]:8080", "metrics.localhost", "localhost."],
)
def test_this_machine_has_names(host: str) -> None:
    assert names_this_machine(host)


@pytest.mark.parametrize(
    "host",
    ["", "evil.example", "evil.example:8080", "127.0.0.1.evil.example", "localhost@evil.example", "evil@localhost",
     "10.0.0.7", "0.0.0.0", "[2001:db8::1]", "[::1", "::1", "localhost:80:80", "localhost/x", "evillocalhost"],
)  # fmt: skip
def test_others_have_other_names(host: str) -> None:
    assert not names_this_machine(host)


@pytest.mark.parametrize(("host", "status"), [("evil.example", 421), ("127.0.0.1:1", 200)])
async def test_who_asks_by_the_name_of_another_machine_is_told_nothing(host: str, status: int) -> None:
    """As a page does in a browser on this machine, whose name leads here all of a sudden."""
    answer = await answers(request("GET /metrics HTTP/1.1", f"Host: {host}", "Connection: close"))
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert (PAGE in answer) is (status == 200)


async def test_there_are_only_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "MAX_CONNECTIONS", 3)
    async with serving(served(), "127.0.0.1", 0) as port:
        idle = [await connect(port) for _ in range(3)]
        for _, writer in idle:
            writer.write(GET[:9])
            await writer.drain()
        reader, writer = await connect(port)
        assert await ends(reader)
        idle[0][1].close()
        async with asyncio.timeout(10):
            while not await is_answered(*await connect(port)):
                await asyncio.sleep(0.01)
        for _, one in (*idle, (reader, writer)):
            one.close()


async def answers(sent: bytes, *, why_not_ready: str | None = None) -> bytes:
    """All that comes back until the connection ends, which it has to."""
    async with serving(served(why_not_ready=why_not_ready), "127.0.0.1", 0) as port:
        reader, writer = await connect(port)
        writer.write(sent)
        found = await asyncio.wait_for(reader.read(), 5)
        writer.close()
    return found


def request(first: str, *fields: str) -> bytes:
    return "\r\n".join([first, *fields, "", ""]).encode()


@pytest.mark.parametrize(
    ("path", "why_not_ready", "status", "body"),
    [
        ("/healthz", "stopping", "200 OK", b"ok\n"),
        ("/readyz", None, "200 OK", b"ready\n"),
        ("/readyz?verbose", "stopping", "503 Service Unavailable", b"stopping\n"),
        ("/metrics", None, "200 OK", PAGE),
        ("/", None, "404 Not Found", b"Not Found"),
    ],
)
async def test_documents(path: str, why_not_ready: str | None, status: str, body: bytes) -> None:
    sent = request(f"GET {path} HTTP/1.1", "Host: localhost", "Connection: close")
    head, _, found = (await answers(sent, why_not_ready=why_not_ready)).partition(b"\r\n\r\n")
    first, *fields = head.decode().lower().split("\r\n")
    assert first == f"http/1.1 {status}".lower()
    assert found == body
    assert {f"content-length: {len(body)}", "connection: close"} <= set(fields)
    version = "version=0.0.4; " if path == "/metrics" else ""
    assert f"content-type: text/plain; {version}charset=utf-8" in fields


async def test_a_head_is_an_answer_without_its_body() -> None:
    found = await answers(request("HEAD /metrics HTTP/1.1", "host: localhost", "connection: Upgrade, Close"))
    assert found.startswith(b"HTTP/1.1 200 OK\r\n")
    assert f"\r\ncontent-length: {len(PAGE)}\r\n".encode() in found
    assert found.endswith(b"\r\n\r\n")


async def test_requests_may_come_at_once_and_in_pieces() -> None:
    async with serving(served(), "127.0.0.1", 0) as port:
        reader, writer = await connect(port)
        writer.write(GET + GET + GET[:20])
        for _ in range(2):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            assert await reader.readexactly(3) == b"ok\n"
        writer.write(GET[20:])
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        writer.close()


async def test_what_is_being_answered_is_finished() -> None:
    asked, goes_on = asyncio.Event(), asyncio.Event()

    async def slow() -> bytes:
        asked.set()
        await goes_on.wait()
        return PAGE

    async with serving(application(lambda: True, slow), "127.0.0.1", 0) as port:
        idle, idle_writer = await connect(port)
        reader, writer = await connect(port)
        writer.write(request("GET /metrics HTTP/1.1", "Host: localhost"))
        await asked.wait()
        asyncio.get_running_loop().call_later(0.05, goes_on.set)
    assert (await reader.read()).endswith(b"\r\n\r\n" + PAGE)
    assert await ends(idle)
    writer.close()
    idle_writer.close()


async def test_running_out_of_files_costs_one_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """asyncio logs a traceback for each attempt to accept, as many as may wait, once a second."""
    async with serving(served(), "127.0.0.1", 0) as port:
        reader, writer = await connect(port)
        assert await is_answered(reader, writer)
        with socket.socket() as client:
            client.setblocking(False)
            with no_more_files():
                await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", port))
                async with asyncio.timeout(10):
                    while not caplog.records:
                        await asyncio.sleep(0.01)
                assert await is_answered(reader, writer)
            assert await is_answered(*await asyncio.open_connection(sock=client))
        writer.close()
    (record,) = caplog.records
    assert record.getMessage().endswith("Too many open files")
    assert record.exc_info is None


@contextlib.contextmanager
def no_more_files() -> Iterator[None]:
    """Use up the descriptors of this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = [os.open(os.devnull, os.O_RDONLY)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(taken) + 32, hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(taken[0]))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in taken:
            os.close(descriptor)
