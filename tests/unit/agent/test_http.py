"""The HTTP side has no credentials, so what a client of it can hold is bounded."""

from __future__ import annotations

import asyncio

import pytest

from penstock.agent import http
from penstock.agent.http import application, names_this_machine, serving

GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


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
    async with serving(application(lambda: True, lambda: b""), "127.0.0.1", 0) as port:
        reader, writer = await connect(port)
        writer.write(sent)
        assert await ends(reader)
        writer.close()


async def test_who_asks_again_and_again_may_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "PATIENCE_S", 0.4)
    async with serving(application(lambda: True, lambda: b""), "127.0.0.1", 0) as port:
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


@pytest.mark.parametrize(("host", "status"), [(b"evil.example", b"421"), (b"127.0.0.1:1", b"200")])
async def test_who_asks_by_the_name_of_another_machine_is_told_nothing(host: bytes, status: bytes) -> None:
    """As a page does in a browser on this machine, whose name leads here all of a sudden."""
    async with serving(application(lambda: True, lambda: b"secret"), "127.0.0.1", 0) as port:
        reader, writer = await connect(port)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n" % host)
        answer = await asyncio.wait_for(reader.read(), 10)
        assert answer.startswith(b"HTTP/1.1 " + status)
        assert (b"secret" in answer) is (status == b"200")
        writer.close()


async def test_there_are_only_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "MAX_CONNECTIONS", 3)
    async with serving(application(lambda: True, lambda: b""), "127.0.0.1", 0) as port:
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
