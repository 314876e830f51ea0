"""The HTTP side of an agent: is it alive, is it ready, what does it count.

These are three documents to be read, so this is HTTP/1.1 (RFC 9112) as far as reading goes, and no framework: the
import of one was a fifth of a start. Whoever can reach the address needs no credentials, so what a client can hold is
bounded: there are only so many connections, a request is only so long, and it makes progress or ends.

It listens for this machine only and asks nobody who they are. A page of somebody's, in a browser on this machine, must
not get here because its name suddenly leads here (DNS rebinding): only who asks by a name of this machine is answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

from penstock.agent.listeners import is_loopback
from penstock.agent.server import listening_socket
from penstock.base.dataclasses import dataclass

MAX_CONNECTIONS = 64
"""At the same time: each has a file and memory."""
MAX_HEAD_BYTES = 16 * 1024
PATIENCE_S = 10.0
"""How long a request may take to come and its answer to be taken, both together."""
TEXT = "text/plain; charset=utf-8"
EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"
_REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    421: "Misdirected Request",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}
_READING = (b"GET", b"HEAD")
_HOST = r"(?i)(\[[0-9a-f:.]+\]|[^][:@/]+)(:[0-9]*)?"
_VERSIONS = (b"HTTP/1.1", b"HTTP/1.0")


@dataclass(frozen=True, slots=True)
class Document:
    """What is answered."""

    body: bytes
    status: int = 200
    kind: str = TEXT


Documents = Mapping[bytes, Callable[[], Awaitable[Document]]]
"""By path."""


def documents(ready: Callable[[], bool], metrics: Callable[[], Awaitable[bytes]]) -> Documents:
    """`/healthz`, `/readyz`, `/metrics`."""

    async def healthz() -> Document:
        return Document(b"ok\n")

    async def readyz() -> Document:
        return Document(b"ready\n") if ready() else Document(b"starting or stopping\n", 503)

    async def show_metrics() -> Document:
        return Document(await metrics(), kind=EXPOSITION)

    return {b"/healthz": healthz, b"/readyz": readyz, b"/metrics": show_metrics}


@contextlib.asynccontextmanager
async def serving(served: Documents, host: str, port: int) -> AsyncIterator[int]:
    """Serve for as long as the context lasts; the port. Raises `Unavailable` when the address is taken."""
    sock = listening_socket(host, port)
    connections = _Connections(served)
    server = await asyncio.start_server(connections.attend, sock=sock, limit=MAX_HEAD_BYTES)
    try:
        yield int(sock.getsockname()[1])
    finally:
        server.close()
        await connections.close()
        await server.wait_closed()


class _Connections:
    """Everybody who is connected."""

    def __init__(self, served: Documents) -> None:
        self._served = served
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle: set[asyncio.Task[None]] = set()
        """Those who have asked for nothing yet, or nothing more."""
        self._closing = False

    async def attend(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer whoever has connected, for as long as there is something to answer."""
        task = asyncio.current_task()
        assert task is not None
        if self._closing or len(self._tasks) >= MAX_CONNECTIONS:
            writer.transport.abort()
            return
        self._tasks.add(task)
        writer.transport.set_write_buffer_limits(0)  # `drain` waits until everything is taken.
        try:
            while await self._answered(reader, writer, task):
                pass
            writer.close()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # It has gone, or takes too long, or has nothing to ask while the server ends.
        finally:
            writer.transport.abort()  # What was taken still arrives.
            self._tasks.discard(task)

    async def close(self) -> None:
        """Finish what is being answered, and end."""
        self._closing = True
        for task in self._idle:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _answered(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, task: asyncio.Task[None]
    ) -> bool:
        """Answer one request; whether there may be another."""
        async with asyncio.timeout(PATIENCE_S):
            self._idle.add(task)
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except asyncio.LimitOverrunError:
                head = None
            finally:
                self._idle.discard(task)
            request = None if head is None else _parsed(head)
            if request is None:
                found, is_last, is_head = Document(b"", 431 if head is None else 400), True, False
            else:
                found = await self._found(request)
                is_last, is_head = request.is_last or self._closing, request.method == b"HEAD"
            writer.write(_encoded(found, is_last=is_last, is_head=is_head))
            await writer.drain()
        return not is_last

    async def _found(self, request: _Request) -> Document:
        if request.host is not None and not names_this_machine(request.host):
            return Document(b"Ask for this by 127.0.0.1 or localhost. A proxy must not hand on another Host.\n", 421)
        document = self._served.get(request.path)
        if document is None:
            return Document(b"Not Found\n", 404)
        if request.method not in _READING:
            return Document(b"Method Not Allowed\n", 405)
        return await document()


@dataclass(frozen=True, slots=True)
class _Request:
    method: bytes
    path: bytes
    host: str | None
    """None where none was said: that is no browser."""
    is_last: bool
    """Whether nothing can follow: that was said, or something follows that nobody reads."""


def _parsed(head: bytes) -> _Request | None:
    """A request, if it is one."""
    first, *lines = head[:-4].split(b"\r\n")
    fields = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or name != name.strip() or (name.lower() == b"host" and b"host" in fields):
            return None
        fields[name.lower()] = value.strip()
    words = first.split(b" ")
    if len(words) != 3 or words[2] not in _VERSIONS or (words[2] == _VERSIONS[0] and b"host" not in fields):
        return None
    has_body = b"transfer-encoding" in fields or fields.get(b"content-length", b"0") != b"0"
    asks_to_close = b"close" in map(bytes.strip, fields.get(b"connection", b"").lower().split(b","))
    return _Request(
        method=words[0], path=words[1].partition(b"?")[0],
        host=fields[b"host"].decode("latin-1") if b"host" in fields else None,
        is_last=has_body or asks_to_close or words[2] != _VERSIONS[0],
    )  # fmt: skip


def names_this_machine(host: str) -> bool:
    """Whether a `Host` header names what listens for this machine only."""
    match = re.fullmatch(_HOST, host)
    name = match[1].strip("[]").rstrip(".").lower() if match else ""
    return is_loopback(name) or name.endswith(".localhost")


def _encoded(found: Document, *, is_last: bool, is_head: bool) -> bytes:
    lines = [
        f"HTTP/1.1 {found.status} {_REASONS[found.status]}",
        f"content-length: {len(found.body)}",
        f"content-type: {found.kind}",
    ]
    if found.status == 405:
        lines.append("allow: GET, HEAD")
    if is_last:
        lines.append("connection: close")
    return "\r\n".join([*lines, "", ""]).encode() + (b"" if is_head else found.body)
