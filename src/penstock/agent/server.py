"""The Kafka listeners: accept connections, and close those that exceed a limit.

What connections share is in `shared_io.py`. A connection is closed if it holds memory that others need and makes no
progress (a request that arrives too slowly, a response that is not read), if it does not authenticate in time, and if
it is idle for too long.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from math import inf
from typing import NamedTuple

from penstock.agent.cluster_connections import ClusterConnections
from penstock.agent.connection import Connection, RequestHandler
from penstock.agent.listeners import Listener, listening_socket
from penstock.agent.shared_io import SharedIo
from penstock.agent.streams import Stream
from penstock.agent.tls import Handshake, HandshakeQueue, ServerTls, TlsStream
from penstock.agent.turns import newcomers_of
from penstock.identity.attempts import Attempt, AttemptListener
from penstock.identity.failures import Denied
from penstock.identity.model import ANONYMOUS_IDENTITY, Identity
from penstock.identity.networks import host_of

SLOW_BYTES_PER_S = 128 * 1024
SLOW_S = 2.0
"""If others wait for memory, a connection whose large request arrives more slowly than this, for so long, is closed."""
STALL_S = 5.0
"""How long a client may leave responses unread when these hold memory that others need."""
HARD_STALL_S = 1.0
"""The same when unread responses hold twice as much."""
RESERVED_FILES = 256
"""File descriptors reserved for data: clients, authenticated or not, must not be able to keep it from being written."""
THROTTLED_MAX = 1024
"""How many connections beyond the connection rate of their address are kept open until they are closed."""
_SWEEP_S = 1.0
_IDLE_SWEEP_S = 15.0
_ACCEPT_BATCH = 8
"""Connections accepted in one turn, so that many new connections do not delay requests of others."""
_log = logging.getLogger(__name__)


class _Listening(NamedTuple):
    listener: Listener
    sock: socket.socket
    tls: ServerTls | None


class Server:
    """Listening sockets and their connections."""

    def __init__(
        self,
        *,
        shared: SharedIo,
        dispatch: RequestHandler,
        admit: Callable[[Connection], None] | None = None,
        cluster_connections: ClusterConnections | None = None,
        throttled_ms: Callable[[str], int] = lambda address: 0,
        pinned_bytes: Callable[[], int] = lambda: 0,
        max_connections: int = 2**31 - 1,
        max_connections_per_host: int = 2**31 - 1,
        idle_s: float = 600.0,
        on_closed: Iterable[Callable[[int], None]] = (),
    ) -> None:
        self.shared, self.loop, self._now = shared, shared.loop, shared.now
        shared.on_shortage = self._sweep_soon
        self._newcomers = newcomers_of(self.loop)
        self._dispatch = dispatch
        self._admit, self._cluster_connections = admit, cluster_connections
        self._throttled_ms = throttled_ms
        """How long an address must wait before it may connect."""
        self._throttled: dict[socket.socket, asyncio.TimerHandle] = {}
        """Connections beyond the connection rate of their address, until they are closed."""
        self._pinned_bytes = pinned_bytes
        possible = connections_possible(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        self._max_connections, self._max_per_host = min(max_connections, possible), max_connections_per_host
        self._idle_s = idle_s if idle_s >= 0 else inf
        self._connections: dict[int, Connection] = {}
        self._per_host: dict[str, int] = {}
        self._listening: dict[int, _Listening] = {}
        """By file descriptor."""
        self._handshakes: set[Handshake] = set()
        self._handshake_queue = HandshakeQueue(self.loop)
        self._last_id = self.accepted = 0
        self._sweeper: asyncio.TimerHandle | None = None
        self._sweeps_soon = False
        self._on_closed = on_closed
        """Called with the id of every connection that ended."""
        self.listener: AttemptListener | None = None
        """Is told of authentication by client certificates."""

    @property
    def connections(self) -> list[Connection]:
        """Open connections, without those in a TLS handshake."""
        return list(self._connections.values())

    @property
    def connection_count(self) -> int:
        """Open connections."""
        return len(self._connections) + len(self._handshakes)

    @property
    def unread_bytes(self) -> int:
        """Bytes of responses that clients do not read."""
        return sum(one.out_bytes for one in self._connections.values() if one.stalled_since is not None)

    @property
    def _open_files(self) -> int:
        """File descriptors of all connections, the throttled ones included."""
        return self.connection_count + len(self._throttled)

    # ---- listening -----------------------------------------------------------------------------------------------

    def listen(self, listener: Listener, tls: ServerTls | None = None) -> int:
        """Take the address and start accepting; the port, which was chosen by the system if 0 was asked for."""
        sock = listening_socket(listener.host, listener.port)
        sock.listen(1024)
        self._listening[sock.fileno()] = _Listening(listener, sock, tls)
        self._newcomers.add(sock.fileno())
        self.loop.add_reader(sock.fileno(), self._on_connection, self._listening[sock.fileno()])
        return int(sock.getsockname()[1])

    def _on_connection(self, listening: _Listening) -> None:
        for _ in range(_ACCEPT_BATCH):
            try:
                sock, address = listening.sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as problem:
                # Out of file descriptors, most likely: connections that end make room; do not spin meanwhile.
                self.shared.warnings.warn("a connection could not be accepted: %s", problem)
                self._pause_accepting()
                return
            self._accept(sock, host_of(str(address[0])), listening.listener, listening.tls, int(address[1]))

    def _accept(
        self, sock: socket.socket, host: str, listener: Listener, tls: ServerTls | None = None, port: int = 0
    ) -> None:
        if self._open_files >= self._max_connections or self._per_host.get(host, 0) >= self._max_per_host:
            self.shared.warnings.warn("a connection from %s is refused: there are as many as there may be", host)
            sock.close()
            return
        throttled_ms = self._throttled_ms(host)
        if throttled_ms:
            self._close_later(sock, throttled_ms)
            return
        sock.setblocking(False)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.accepted += 1
        self._per_host[host] = self._per_host.get(host, 0) + 1
        if tls is None:
            self._connect(sock, host, listener, ANONYMOUS_IDENTITY, port)
        else:
            self._shake_hands(sock, host, listener, tls, port)

    def _connect(self, sock: Stream, host: str, listener: Listener, identity: Identity, port: int) -> None:
        self._last_id += 1
        connection = Connection(
            self.shared, self, self._dispatch, sock, host=host, connection_id=self._last_id, listener=listener,
            identity=identity,
        )  # fmt: skip
        connection.port = port
        self._connections[connection.connection_id] = connection
        if listener.uses_sasl:
            self._newcomers.add(connection.fd)
        if self._admit is not None:
            self._admit(connection)
        if self._sweeper is None:
            self._sweep_in(_IDLE_SWEEP_S)
        if self._cluster_connections is not None and not listener.uses_sasl:
            refusal = self._cluster_connections.refusal(identity.cluster_id)
            if refusal is not None:
                connection.pause()
                self.loop.call_later(self._cluster_connections.reject_delay_s(), connection.refuse, refusal)
                return
            self.count(connection, identity.cluster_id)

    def count(self, connection: Connection, cluster_id: int) -> None:
        """A connection is in a virtual cluster from now on."""
        self._newcomers.discard(connection.fd)
        if self._cluster_connections is not None and connection.counted_in != cluster_id and not connection.closed:
            self._stop_counting(connection)
            connection.counted_in = cluster_id
            self._cluster_connections.enter(cluster_id)

    def _stop_counting(self, connection: Connection) -> None:
        if self._cluster_connections is not None and connection.counted_in is not None:
            self._cluster_connections.leave(connection.counted_in)
            connection.counted_in = None

    def close_cluster(self, cluster_id: int) -> int:
        """Close every connection of a virtual cluster; how many there were."""
        inside = [connection for connection in self.connections if connection.identity.cluster_id == cluster_id]
        for connection in inside:
            connection.close()
        return len(inside)

    def _shake_hands(self, sock: socket.socket, host: str, listener: Listener, tls: ServerTls, port: int) -> None:
        def done(handshake: Handshake, problem: str | None) -> None:
            self._handshakes.discard(handshake)
            if problem is None:
                try:
                    identity = (tls.place_of if listener.uses_sasl else tls.identity_of)(handshake.sock)
                except Exception as why:  # noqa: BLE001  # a bug of ours must cost one connection, and nobody's count
                    problem = str(why)
                    if not isinstance(why, Denied):
                        problem = "what its certificate says cannot be made sense of"
                        _log.debug("a handshake with %s", host, exc_info=True)
                    handshake.is_denied = True
                    handshake.sock.close()
                else:
                    self._connect(TlsStream(handshake.sock), host, listener, identity, port)
                    if identity is not ANONYMOUS_IDENTITY and not listener.uses_sasl:
                        self._report(host, listener, self._last_id, identity)
                    return
            if handshake.is_denied:
                self._report(host, listener, message=problem)
            self._forget_host(host)
            self.shared.warnings.warn("a connection from %s does not get to speak TLS: %s", host, problem)

        try:
            wrapped = tls.wrap(sock)
        except OSError:  # The client has gone already.
            sock.close()
            self._forget_host(host)
            return
        self._handshakes.add(Handshake(wrapped, self.loop, self._handshake_queue, done))

    def _report(
        self, host: str, listener: Listener, connection_id: int = 0, identity: Identity | None = None, *,
        message: str = "",
    ) -> None:  # fmt: skip
        if self.listener is not None:
            self.listener.on_attempt(
                Attempt(
                    mechanism=listener.protocol, client_host=host, connection_id=connection_id, identity=identity,
                    message=message,
                )
            )  # fmt: skip

    def correlation_id(self, connection_id: int) -> int | None:
        """The correlation id of the request that a connection is processing."""
        connection = self._connections.get(connection_id)
        return None if connection is None else connection.correlation_id

    def _close_later(self, sock: socket.socket, after_ms: int) -> None:
        """Close a throttled connection, but not at once: its client would reconnect at once. As in Kafka."""
        if len(self._throttled) >= THROTTLED_MAX:
            sock.close()
            return
        self._throttled[sock] = self.loop.call_later(after_ms / 1000, self._close_throttled, sock)

    def _close_throttled(self, sock: socket.socket) -> None:
        del self._throttled[sock]
        sock.close()

    def _pause_accepting(self) -> None:
        for number in self._listening:
            self.loop.remove_reader(number)
        self.loop.call_later(0.2, self._resume_accepting)

    def _resume_accepting(self) -> None:
        for number, listening in self._listening.items():
            self.loop.add_reader(number, self._on_connection, listening)

    def forget(self, connection: Connection) -> None:
        """A connection ended."""
        if self._connections.pop(connection.connection_id, None) is None:
            return
        self._newcomers.discard(connection.fd)
        self._stop_counting(connection)
        for hear in self._on_closed:
            hear(connection.connection_id)
        self.shared.forget(connection.connection_id)
        self._forget_host(connection.host)

    def _forget_host(self, host: str) -> None:
        left = self._per_host[host] - 1
        if left:
            self._per_host[host] = left
        else:
            del self._per_host[host]

    # ---- sweeping ------------------------------------------------------------------------------------------------

    def _sweep_soon(self) -> None:
        """Memory is short, or a client does not read: check all connections soon."""
        if not self._sweeps_soon and self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeps_soon = True
            self._sweep_in(_SWEEP_S)

    def _sweep_in(self, delay_s: float) -> None:
        self._sweeper = self.loop.call_later(delay_s, self._sweep)

    def _sweep(self) -> None:
        """Close connections that hold memory others need, do not authenticate in time, or are idle for too long."""
        self._sweeper = None
        now, shared = self._now(), self.shared
        shared.trim_memory()
        starved = shared.partial_bytes > shared.memory.huge_partial_bytes
        unread_s = self._unread_timeout_s()
        for connection in self.connections:
            stalled = connection.stalled_since
            silent = now - connection.last_active
            if connection.authenticate_by is not None and now > connection.authenticate_by:
                connection.refuse("it has not authenticated in time")
            elif stalled is not None and now - stalled > unread_s:
                connection.refuse("it does not read its responses")
            elif starved and connection.receives_slower(SLOW_BYTES_PER_S, SLOW_S):
                connection.refuse("its request comes too slowly while others wait for memory")
            elif silent > self._idle_s and (connection.frame_bytes or not connection.waiting_responses):
                connection.close()
        shared.make_room()
        if self._connections:
            self._sweeps_soon = bool(
                shared.holds_any_back or any(connection.stalled_since for connection in self._connections.values())
            )
            self._sweep_in(_SWEEP_S if self._sweeps_soon else _IDLE_SWEEP_S)
        else:
            self._sweeps_soon = False

    def _unread_timeout_s(self) -> float:
        """How long a client may leave its responses unread: the more memory these hold, the shorter.

        While memory is not short, that is as long as a connection may be idle: Java's consumers read nothing between
        two polls.
        """
        memory = self.shared.memory
        excess = max(self.unread_bytes / memory.unread_bytes, self._pinned_bytes() / memory.pinned_bytes)
        if excess > 2:
            return HARD_STALL_S
        return STALL_S if excess > 1 else self._idle_s

    # ---- ending --------------------------------------------------------------------------------------------------

    def stop_listening(self) -> None:
        """Accept no new connection and no new request."""
        self.shared.draining = True
        for number, listening in self._listening.items():
            self.loop.remove_reader(number)
            with suppress(OSError):  # A process that was forked off meanwhile has the same socket open.
                listening.sock.shutdown(socket.SHUT_RDWR)
            self._newcomers.discard(number)
            listening.sock.close()
        self._listening.clear()
        for handshake in list(self._handshakes):
            handshake.end("the broker stops")
        for connection in self._connections.values():
            connection.pause()

    async def close(self, grace_s: float) -> None:
        """Send the responses that are ready, for at most so long, and close every connection."""
        self.stop_listening()
        deadline = self._now() + grace_s
        # Sockets drain one by one and nothing announces the last, hence the polling.
        while self._now() < deadline and any(  # noqa: ASYNC110
            connection.out_bytes for connection in self._connections.values()
        ):
            await asyncio.sleep(0.01)
        for connection in self.connections:
            connection.close()
        for sock, timer in self._throttled.items():
            timer.cancel()
            sock.close()
        self._throttled.clear()
        if self._sweeper is not None:
            self._sweeper.cancel()


def connections_possible(max_files: int) -> int:
    """How many connections leave enough file descriptors for the rest; `max_files` is negative without a limit."""
    return 2**31 - 1 if max_files < 0 else max(max_files - RESERVED_FILES, max_files // 2)
