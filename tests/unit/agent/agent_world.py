"""A server without a port: connections over socket pairs, and a dispatcher whose answers a test gives."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from struct import pack

from penstock.agent.connection import Connection, Slot
from penstock.agent.listeners import Listener
from penstock.agent.server import Server
from penstock.agent.shared_io import SharedIo
from penstock.wire.primitives import Malformed

PRODUCE, FETCH, ECHO, BAD, BUG = 0, 1, 3, 4, 5


class HandClock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.time_s = 1_000.0

    def now_ms(self) -> int:
        return int(self.time_s * 1000)

    def monotonic(self) -> float:
        return self.time_s


class Desk:
    """Takes requests: PRODUCE waits for `answer`, FETCH holds those behind it as well, ECHO is answered at once."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.waiting: list[tuple[Connection, Slot, bytes]] = []
        self.cancelled = 0
        self.reply_bytes = 0
        """How long echoes are, if not as long as what they answer."""

    def __call__(self, connection: Connection, frame: bytes | memoryview) -> None:
        body = bytes(frame)
        self.taken.append(body)
        key = int.from_bytes(body[:2])
        if key == BAD:
            raise Malformed("that is no request")
        if key == BUG:
            raise ZeroDivisionError
        slot = connection.open_slot(key if key in (PRODUCE, FETCH) else ECHO)
        if key == ECHO or len(body) < 2:
            connection.fill(
                slot, framed(body[: self.reply_bytes or None] + bytes(max(0, self.reply_bytes - len(body))))
            )
            return
        self.waiting.append((connection, slot, body))
        if key == FETCH:
            connection.hold()
            connection.cancel_wait = self._cancel

    def answer(self, number: int = 0, *, silently: bool = False) -> None:
        """Answer one of those that wait."""
        connection, slot, body = self.waiting.pop(number)
        connection.fill(slot, [] if silently else framed(body))
        if int.from_bytes(body[:2]) == FETCH and not connection.closed:
            connection.release()

    def _cancel(self) -> None:
        self.cancelled += 1


def framed(body: bytes) -> list[bytes]:
    """A response in two buffers, as messages are."""
    return [pack(">i", len(body)), body] if body else [pack(">i", 0)]


def request(key: int, rest: bytes = b"") -> bytes:
    """A framed request."""
    return b"".join(framed(key.to_bytes(2) + rest))


class Client:
    """The other end of a connection."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock

    async def send(self, *pieces: bytes) -> None:
        """Send pieces, and let the server read each."""
        for piece in pieces:
            await asyncio.get_running_loop().sock_sendall(self.sock, piece)
            await turns(2)

    async def receive(self, count: int) -> list[bytes]:
        """So many responses."""
        return [await self._frame() for _ in range(count)]

    async def _frame(self) -> bytes:
        size = int.from_bytes(await self._exactly(4), "big")
        return await self._exactly(size)

    async def _exactly(self, size: int) -> bytes:
        parts, loop = [], asyncio.get_running_loop()
        while size:
            part = await asyncio.wait_for(loop.sock_recv(self.sock, min(size, 1 << 18)), 10)
            if not part:
                raise ConnectionResetError("closed by the server")
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    async def is_closed(self) -> bool:
        """Whether the server has ended the connection, after what it still had to say."""
        try:
            while await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self.sock, 1 << 16), 10):
                pass
        except ConnectionResetError:
            pass
        return True

    def close(self) -> None:
        """Hang up."""
        self.sock.close()


async def turns(count: int) -> None:
    """Let the loop look at its sockets."""
    for _ in range(count):
        await asyncio.sleep(0)


class Setup:
    """A server and its clients."""

    def __init__(self, max_frame_bytes: int = 100 * 1024 * 1024, **limits) -> None:
        self.clock, self.desk = HandClock(), Desk()
        self.pending_bytes = 0
        self.shared = SharedIo(
            clock=self.clock, pending_bytes=lambda: self.pending_bytes, max_frame_bytes=max_frame_bytes
        )  # fmt: skip
        self.server = Server(shared=self.shared, dispatch=self.desk, **limits)
        self.clients: list[Client] = []

    def connect(self, host: str = "10.0.0.1") -> tuple[Client, Connection]:
        """A client, and the server's side of it."""
        client = self.knock(host)
        connections: Sequence[Connection] = list(self.server._connections.values())
        return client, connections[-1]

    def knock(self, host: str = "10.0.0.1") -> Client:
        """A client, whether it is let in or not."""
        ours, theirs = socket.socketpair()
        for sock in (ours, theirs):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * 1024)
        self.server._accept(theirs, host, Listener())
        client = Client(ours)
        self.clients.append(client)
        return client

    async def close(self) -> None:
        """End everything; nothing may be left over."""
        await self.server.close(0)
        for client in self.clients:
            client.close()
        assert self.nothing_is_held

    @property
    def nothing_is_held(self) -> bool:
        """Whether every byte and every connection was given back."""
        server, shared = self.server, self.shared
        return (shared.partial_bytes, shared.queued_bytes, server.connection_count, server._per_host) == (0, 0, 0, {})
