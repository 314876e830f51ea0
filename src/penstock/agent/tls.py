"""TLS on a listener: the context and its certificates, the handshake, and a socket's surface over it.

A connection reads and writes a `TlsStream` as it does a socket, so the plain path knows nothing of TLS. OpenSSL
decrypts into the connection's own memory and encrypts out of it; the only copies are the cipher's. It sends at most
one record per call, 16 KiB, so small buffers are joined up to that size and large ones are left alone.

Certificates are looked at again when somebody connects, at most once a second: files that have changed are taken for
new connections, those that exist keep what they have, and files that cannot be used are complained about while the
former ones stay in use. No timer and no signal is needed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import ssl
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from penstock.agent.authorities import Authorities
from penstock.base.clock import Clock
from penstock.base.errors import InvalidRequest
from penstock.base.options import TlsOptions
from penstock.identity.cluster_selection import cluster_of_certificate, select_cluster
from penstock.identity.distinguished_name import distinguished_name, unmistakable_name
from penstock.identity.failures import Denied
from penstock.identity.model import ANONYMOUS_IDENTITY, NO_CLUSTER_ID, Identity, user
from penstock.identity.principal_mapping import mapped, parse_rules
from penstock.wire.primitives import Buffer

RECORD_BYTES = 16 * 1024
HANDSHAKE_S = 15.0
STEPS_AT_ONCE = 16
"""Steps of handshakes in one turn of the loop."""
_RELOAD_S = 1.0
_CLIENT_AUTH = {"none": ssl.CERT_NONE, "requested": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}
_NO_CERTIFICATE = "PEER_DID_NOT_RETURN_A_CERTIFICATE"
_WOULD_BLOCK = (ssl.SSLWantReadError, ssl.SSLWantWriteError)
_log = logging.getLogger(__name__)


class ServerTls:
    """What a listener shows of itself, and whom it sees in clients' certificates."""

    def __init__(
        self, options: TlsOptions, clock: Clock, *, domain: str | None = None,
        cluster_named: Callable[[str], int | None] = lambda name: None,
    ) -> None:  # fmt: skip
        self._options, self._clock = options, clock
        self._suffix, self._cluster_named = None if domain is None else f".{domain.lower()}", cluster_named
        self._asked: WeakKeyDictionary[ssl.SSLObject | ssl.SSLSocket, str] = WeakKeyDictionary()
        """Which server name each client has asked for."""
        self._rules = parse_rules(options.principal_mapping_rules)
        self._cluster_rules = None
        if options.cluster_mapping_rules is not None:
            self._cluster_rules = parse_rules(options.cluster_mapping_rules, "cluster mapping rules")
        self._seen = self._stamps()
        self._authorities: WeakKeyDictionary[ssl.SSLContext, Authorities] = WeakKeyDictionary()
        """By the context that a client was met with: other files may have come since."""
        self._context = self._read()
        self._looked_s = clock.monotonic()

    def _read(self) -> ssl.SSLContext:
        context = context_of(self._options)
        self._authorities[context] = Authorities(self._options.cluster_ca, self._options.client_ca)
        return context

    def wrap(self, sock: socket.socket) -> ssl.SSLSocket:
        """A socket whose handshake has yet to be made."""
        self._look_again()
        if self._suffix is not None:
            self._context.sni_callback = self._note
        return self._context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)

    def _note(self, sock: ssl.SSLObject | ssl.SSLSocket, name: str | None, context: ssl.SSLContext) -> None:
        if name is not None:
            self._asked[sock] = name.lower()

    def place_of(self, sock: ssl.SSLSocket) -> Identity:
        """Where a client wants to prove who it is: in the virtual cluster that its server name says, if it says one.
        One that does not exist is nowhere, where nobody can prove anything."""
        name = self._asked.get(sock, "")
        if self._suffix is None or not name.endswith(self._suffix):
            return ANONYMOUS_IDENTITY
        cluster_id = self._cluster_named(name.removesuffix(self._suffix))
        return Identity(cluster_id=NO_CLUSTER_ID if cluster_id is None else cluster_id, is_bound=True, server_name=name)

    def identity_of(self, sock: ssl.SSLSocket) -> Identity:
        """Whom the client's certificate names, in the virtual cluster that it opens; nobody if there is none. Raises
        `Denied` if no rule knows the name, or the server name asks for another cluster."""
        certificate, place = sock.getpeercert(), self.place_of(sock)
        asked = {place.cluster_id} if place.is_bound else set[int]()
        if not certificate:
            if asked:
                raise Denied("it requests a cluster and has no certificate")
            return ANONYMOUS_IDENTITY
        principal = user(mapped(self._rules, distinguished_name(certificate["subject"])))
        cluster_id = self._opened_by(sock, certificate["subject"])
        if select_cluster({cluster_id}, asked) is None:
            raise Denied(f"its certificate does not open the cluster of the server name {place.server_name!r}")
        return Identity(principal=principal, cluster_id=cluster_id, server_name=place.server_name)

    def _opened_by(self, sock: ssl.SSLSocket, subject: Any) -> int:
        """The cluster that a client's authority stands for; else the one that its name says. Raises `Denied`."""
        name = self._authorities[sock.context].cluster_of(sock)
        if name is not None:
            cluster_id = self._cluster_named(name)
            if cluster_id is None:
                raise Denied(f"the authority of its certificate belongs to a cluster {name!r}, which does not exist")
            return cluster_id
        if self._cluster_rules is None:
            return ANONYMOUS_IDENTITY.cluster_id
        return cluster_of_certificate(self._cluster_rules, unmistakable_name(subject), self._cluster_named)

    def _look_again(self) -> None:
        now = self._clock.monotonic()
        if now - self._looked_s < _RELOAD_S:
            return
        self._looked_s = now
        stamps = self._stamps()
        if stamps == self._seen:
            return
        self._seen = stamps
        try:
            self._context = self._read()
        except (InvalidRequest, OSError, ValueError) as problem:
            # What cannot be looked at at all, for whatever reason, must not cost whoever connects just then either.
            _log.error("the former certificate stays in use: %s", problem)
        else:
            _log.info("the certificate in %s was read again", self._options.certificate)

    def _stamps(self) -> tuple[tuple[int, int, int] | None, ...]:
        options = self._options
        files = (options.certificate, options.key, options.key_password_file, *client_authorities(options))
        return tuple(map(_stamp, files))


def _stamp(path: Path | None) -> tuple[int, int, int] | None:
    if path is None:
        return None
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


def context_of(options: TlsOptions) -> ssl.SSLContext:
    """A context with these files. Raises `InvalidRequest` with the file that is at fault; never shows what is in it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Tickets would be unasked-for bytes after the handshake, and Kafka's clients resume nothing with them.
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
    context.num_tickets = 0
    for path in (options.certificate, options.key, *client_authorities(options)):
        if path is not None and not path.is_file():
            raise InvalidRequest(f"{path}, which the settings of TLS name, is not a file")
    try:
        context.load_cert_chain(options.certificate, options.key, lambda: _password(options))
    except OSError as problem:
        key = options.key or options.certificate
        raise InvalidRequest(
            f"the certificate in {options.certificate} with the key in {key} cannot be used: {_cause(problem)}"
        ) from problem
    context.verify_mode = _CLIENT_AUTH[options.client_auth]
    for path in client_authorities(options):
        try:
            context.load_verify_locations(path)
        except OSError as problem:
            raise InvalidRequest(f"the authorities in {path} cannot be read: {_cause(problem)}") from problem
    return context


def client_authorities(options: TlsOptions) -> tuple[Path, ...]:
    """The files of authorities whose client certificates are accepted."""
    own = () if options.client_ca is None else (options.client_ca,)
    return (*own, *(path for _, path in options.cluster_ca))


def _password(options: TlsOptions) -> str:
    path = options.key_password_file
    if path is None:
        raise InvalidRequest(f"the key in {options.key or options.certificate} is encrypted: add key-password-file")
    try:
        return path.read_text("utf-8").splitlines()[0]
    except (OSError, UnicodeDecodeError, IndexError) as problem:
        raise InvalidRequest(f"no password can be read in {path}") from problem


def _cause(problem: OSError) -> str:
    reason = getattr(problem, "reason", None) or problem.strerror or "it is not PEM"
    return str(reason).replace("_", " ").lower()


def _in_records(buffers: Iterable[Buffer]) -> Iterator[Buffer]:
    """The same bytes in pieces that fill records: small buffers joined, large ones as they are."""
    small, size = list[Buffer](), 0
    for buffer in buffers:
        rest = memoryview(buffer)
        if size or len(rest) < RECORD_BYTES:
            taken = rest[: RECORD_BYTES - size]
            small.append(taken)
            size += len(taken)
            if size == RECORD_BYTES:
                yield b"".join(small)
                small, size = [], 0
            rest = rest[len(taken) :]
        whole = len(rest) - len(rest) % RECORD_BYTES
        if whole:
            yield rest[:whole]
        if whole < len(rest):
            small, size = [rest[whole:]], len(rest) - whole
    if small:
        yield b"".join(small)


class HandshakeQueue:
    """Lets so many handshakes go on in one turn of the loop, and the others in the next ones: a step computes for a
    millisecond, and whoever connects needs no credentials for that."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._left, self._is_scheduled = STEPS_AT_ONCE, False
        self._waiting: deque[Callable[[], None]] = deque()

    def run(self, step: Callable[[], None]) -> None:
        """Have a step done, now or soon."""
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._next_turn)
        if self._left:
            self._left -= 1
            step()
        else:
            self._waiting.append(step)

    def _next_turn(self) -> None:
        self._left, self._is_scheduled = STEPS_AT_ONCE, False
        for _ in range(min(STEPS_AT_ONCE, len(self._waiting))):
            self.run(self._waiting.popleft())


class Handshake:
    """A connection that is not established yet. It ends by itself if the client takes too long."""

    def __init__(
        self, sock: ssl.SSLSocket, loop: asyncio.AbstractEventLoop, queue: HandshakeQueue,
        done: Callable[[Handshake, str | None], None],
    ) -> None:  # fmt: skip
        self.sock = sock
        self._loop, self._queue, self._done = loop, queue, done
        self._is_queued = self._has_ended = False
        self._fd = sock.fileno()
        self._writing = False
        self.is_denied = False
        """Whether it ended because of the client's certificate, or because there was none."""
        self._timer = loop.call_later(HANDSHAKE_S, self.end, "the handshake takes too long")
        loop.add_reader(self._fd, self._go_on)

    def _go_on(self) -> None:
        if not self._is_queued:
            self._is_queued = True
            self._queue.run(self._step)

    def _step(self) -> None:
        self._is_queued = False
        if self._has_ended:
            return
        try:
            self.sock.do_handshake()
        except ssl.SSLWantReadError:
            self._wait_writable(False)
        except ssl.SSLWantWriteError:
            self._wait_writable(True)
        except ssl.SSLCertVerificationError as problem:
            self.is_denied = True
            self.end(f"its certificate is refused: {problem.verify_message}")
        except OSError as problem:
            self.is_denied = isinstance(problem, ssl.SSLError) and problem.reason == _NO_CERTIFICATE
            self.end(_cause(problem))
        else:
            self.end(None)

    def _wait_writable(self, wanted: bool) -> None:
        if wanted and not self._writing:
            self._loop.add_writer(self._fd, self._go_on)
        elif self._writing and not wanted:
            self._loop.remove_writer(self._fd)
        self._writing = wanted

    def end(self, problem: str | None) -> None:
        """Let go of the socket, which is closed if there was a problem."""
        self._has_ended = True
        self._timer.cancel()
        self._loop.remove_reader(self._fd)
        self._wait_writable(False)
        if problem is not None:
            self.sock.close()
        self._done(self, problem)


class TlsStream:
    """An established TLS connection, as a socket."""

    __slots__ = ("_sock", "pending")

    def __init__(self, sock: ssl.SSLSocket) -> None:
        self._sock = sock
        self.pending: Callable[[], int] = sock.pending
        """How many bytes are decrypted that nobody has taken. The file descriptor does not tell of them."""

    def fileno(self) -> int:
        """Its file descriptor."""
        return self._sock.fileno()

    def recv_into(self, room: memoryview, /) -> int:
        """Receive what is there, as far as it fits; 0 at the end."""
        read, size, filled = self._sock.recv_into, len(room), 0
        try:
            while filled < size:
                count = read(room[filled:] if filled else room)
                if not count:
                    break
                filled += count
        except _WOULD_BLOCK:
            if not filled:
                raise BlockingIOError from None
        return filled

    def send(self, data: Buffer, /) -> int:
        """Send as much as can be; how much that was."""
        write, size = self._sock.send, len(data)
        if size <= RECORD_BYTES:
            try:
                return write(data)
            except _WOULD_BLOCK:
                raise BlockingIOError from None
        view, sent = memoryview(data), 0
        try:
            while sent < size:
                # What OpenSSL could not send it keeps, and wants to be given again: the connection does.
                sent += write(view[sent : sent + RECORD_BYTES])
        except _WOULD_BLOCK:
            if not sent:
                raise BlockingIOError from None
        return sent

    def sendmsg(self, buffers: list[Buffer], /) -> int:
        """Send as much of the buffers as can be; how much that was."""
        sent = 0
        for piece in _in_records(buffers):
            try:
                count = self.send(piece)
            except BlockingIOError:
                if not sent:
                    raise
                break
            sent += count
            if count < len(piece):
                break
        return sent

    def close(self) -> None:
        """Say goodbye if that is possible at once, and hang up."""
        with contextlib.suppress(OSError, ValueError):
            self._sock.unwrap()
        self._sock.close()
