"""The Kafka listener: accepts connections, shares memory among them, and keeps it bounded.

Bounds: a frame's size, the bytes of frames that have not arrived completely, the bytes that wait for a flush, and
what a client leaves unread. At each of them reading stops until there is room; who makes no progress while others
wait for that room is closed.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable

from penstock.agent.complaints import Complaints
from penstock.agent.connection import Connection
from penstock.base.clock import Clock
from penstock.base.errors import Unavailable
from penstock.storage.arena import Arena

RECEIVE_BUFFER_BYTES = 256 * 1024
RECEIVE_ARENA_BYTES = 24 * 1024 * 1024
MAX_OTHER_BYTES = 16 * 1024 * 1024
"""The largest request that carries no records."""
PARTIAL_MAX_BYTES = 128 * 1024 * 1024
PENDING_MAX_BYTES = 64 * 1024 * 1024
STALL_S = 5.0
"""How long a connection may make no progress while others wait for its memory."""
UNREAD_S = 60.0
"""How long responses may wait for a client that takes nothing."""
_SWEEP_S = 1.0
_ACCEPT_BATCH = 64
_log = logging.getLogger(__name__)

Dispatch = Callable[[Connection, "bytes | memoryview"], None]


class Server:
    """One listening socket and its connections."""

    def __init__(
        self,
        *,
        clock: Clock,
        dispatch: Dispatch,
        pending_bytes: Callable[[], int],
        max_frame_bytes: int = 100 * 1024 * 1024,
        max_connections: int = 2**31 - 1,
        max_connections_per_host: int = 2**31 - 1,
        idle_s: float = 600.0,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.dispatch = dispatch
        self.max_frame_bytes, self.max_other_bytes = max_frame_bytes, min(MAX_OTHER_BYTES, max_frame_bytes)
        self.receive_buffer = memoryview(bytearray(RECEIVE_BUFFER_BYTES))
        self.partial_bytes = 0
        """Bytes held of large frames that have not arrived completely."""
        self.draining = False
        self.complaints = Complaints(clock)
        self._arena = Arena(RECEIVE_ARENA_BYTES)
        self._clock, self._pending_bytes = clock, pending_bytes
        self._max_connections, self._max_per_host, self._idle_s = max_connections, max_connections_per_host, idle_s
        self._connections: dict[int, Connection] = {}
        self._per_host: dict[str, int] = {}
        self._held_back: dict[int, Connection] = {}
        self._unsent: list[Connection] = []
        self._listener: socket.socket | None = None
        self._last_id = 0
        self._sweeper: asyncio.TimerHandle | None = None
        self.accepted = 0

    def now(self) -> float:
        """Seconds, for time-outs."""
        return self._clock.monotonic()

    @property
    def connection_count(self) -> int:
        """Connections there are now."""
        return len(self._connections)

    # ---- listening -----------------------------------------------------------------------------------------------

    def listen(self, host: str, port: int) -> int:
        """Take the address and start accepting; the port, which was chosen by the system if 0 was asked for."""
        self._listener = listening_socket(host, port)
        self._listener.listen(1024)
        self.loop.add_reader(self._listener.fileno(), self._on_connection)
        return int(self._listener.getsockname()[1])

    def _on_connection(self) -> None:
        assert self._listener is not None
        for _ in range(_ACCEPT_BATCH):
            try:
                sock, address = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as problem:
                # Out of file descriptors, most likely: connections that end make room; do not spin meanwhile.
                _log.error("a connection could not be accepted: %s", problem)
                self._pause_accepting()
                return
            self._accept(sock, str(address[0]))

    def _accept(self, sock: socket.socket, host: str) -> None:
        if len(self._connections) >= self._max_connections or self._per_host.get(host, 0) >= self._max_per_host:
            self.complaints.warn("a connection from %s is refused: there are as many as the settings allow", host)
            sock.close()
            return
        sock.setblocking(False)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._last_id += 1
        self.accepted += 1
        connection = Connection(self, sock, host, self._last_id)
        self._connections[connection.connection_id] = connection
        self._per_host[host] = self._per_host.get(host, 0) + 1
        if self._sweeper is None:
            self._sweeper = self.loop.call_later(_SWEEP_S, self._sweep)

    def _pause_accepting(self) -> None:
        listener = self._listener
        if listener is None:
            return
        self.loop.remove_reader(listener.fileno())
        self.loop.call_later(0.2, self._resume_accepting)

    def _resume_accepting(self) -> None:
        if self._listener is not None:
            self.loop.add_reader(self._listener.fileno(), self._on_connection)

    def forget(self, connection: Connection) -> None:
        """A connection ended."""
        if self._connections.pop(connection.connection_id, None) is None:
            return
        self._held_back.pop(connection.connection_id, None)
        left = self._per_host[connection.host] - 1
        if left:
            self._per_host[connection.host] = left
        else:
            del self._per_host[connection.host]

    # ---- memory --------------------------------------------------------------------------------------------------

    def receive_memory(self, size_bytes: int) -> memoryview:
        """Memory for one large frame."""
        memory, _ = self._arena.reserve(size_bytes)
        return memory

    @property
    def overloaded(self) -> bool:
        """Whether more must not be read for now."""
        return self.partial_bytes > PARTIAL_MAX_BYTES or self._pending_bytes() > PENDING_MAX_BYTES

    def hold_back(self, connection: Connection) -> bool:
        """Stop reading a connection until there is room; False for the one that must go on for room to come back."""
        if self.partial_bytes > PARTIAL_MAX_BYTES and connection is self._furthest():
            return False
        connection.pause()
        self._held_back[connection.connection_id] = connection
        return True

    def _furthest(self) -> Connection | None:
        """The oldest connection with an incomplete frame that is not held back."""
        for connection in self._connections.values():
            if connection.connection_id not in self._held_back and connection.receiving:
                return connection
        return None

    def make_room(self) -> None:
        """Room may have come back: read again where reading was stopped for lack of it."""
        if self._held_back and not self.overloaded:
            held, self._held_back = self._held_back, {}
            for connection in held.values():
                connection.resume()

    def _sweep(self) -> None:
        """Close who holds up others, who takes no responses, and who has been silent for long."""
        self._sweeper = None
        now = self.now()
        starved = self.partial_bytes > PARTIAL_MAX_BYTES
        for connection in list(self._connections.values()):
            stalled = connection.stalled_since
            silent = now - connection.last_active
            unread = stalled is not None and now - stalled > UNREAD_S
            stuck = connection.receiving and silent > (STALL_S if starved else self._idle_s)
            idle = silent > self._idle_s and not connection.waiting_responses
            if unread:
                connection.refuse(f"it took nothing of its responses for {UNREAD_S:.0f} s")
            elif stuck:
                connection.refuse(f"its request stopped arriving in the middle, {silent:.0f} s ago")
            elif idle:
                connection.close()
        self.make_room()
        if self._connections:
            self._sweeper = self.loop.call_later(_SWEEP_S if starved or self._held_back else 15.0, self._sweep)

    # ---- sending -------------------------------------------------------------------------------------------------

    def send_soon(self, connection: Connection) -> None:
        """Send a connection's responses at the end of this turn of the loop, all that are ready by then at once."""
        if not self._unsent:
            self.loop.call_soon(self._send_all)
        self._unsent.append(connection)

    def _send_all(self) -> None:
        unsent, self._unsent = self._unsent, []
        for connection in unsent:
            connection.send()

    # ---- ending --------------------------------------------------------------------------------------------------

    def stop_listening(self) -> None:
        """Take no new connection and no new request."""
        self.draining = True
        if self._listener is not None:
            self.loop.remove_reader(self._listener.fileno())
            self._listener.close()
            self._listener = None
        for connection in self._connections.values():
            connection.pause()

    async def close(self, grace_s: float) -> None:
        """Send what is ready, for at most so long, and close every connection: that is how clients are told."""
        self.stop_listening()
        deadline = self.now() + grace_s
        # Sockets drain one by one and nothing announces the last, hence the polling.
        while self.now() < deadline and any(  # noqa: ASYNC110
            connection.out_bytes for connection in self._connections.values()
        ):
            await asyncio.sleep(0.01)
        for connection in list(self._connections.values()):
            connection.close()
        if self._sweeper is not None:
            self._sweeper.cancel()


def listening_socket(host: str, port: int) -> socket.socket:
    """A bound socket; raise `Unavailable` with the cure when the address is taken or not of this machine."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setblocking(False)
        sock.bind((host, port))
    except OSError as problem:
        sock.close()
        if problem.errno == errno.EADDRINUSE:
            raise Unavailable(
                f"{host}:{port} is already in use by another program. Stop that one, or listen on another port."
            ) from problem
        raise Unavailable(f"cannot listen on {host}:{port}: {problem.strerror or problem}") from problem
    return sock
