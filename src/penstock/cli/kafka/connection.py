"""One connection to one broker: versions agreed on first, then requests answered in order.

The first request on a connection is ApiVersions. A broker that does not know our version of it answers in version 0
with error 35; one older than that hangs up, and is asked again in version 0 on a second connection.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections import deque
from typing import TypeVar

from penstock.base.clock import Clock
from penstock.base.errors import PlatformError
from penstock.base.randomness import SystemRandomness, uuid_text
from penstock.cli.kafka.client_config import PLAINTEXT, Security
from penstock.cli.kafka.failures import (
    AuthenticationFailed,
    ConnectionLost,
    RequestRefused,
    Unreachable,
    Unsupported,
    check,
    hint,
    reason,
)
from penstock.cli.kafka.sasl import messages
from penstock.cli.text_formats.addresses import Address
from penstock.version import __version__
from penstock.wire import codec
from penstock.wire.api_keys import ApiKey
from penstock.wire.error_codes import ErrorCode
from penstock.wire.frames import SIZE_BYTES, frame_size
from penstock.wire.messages.api_versions import ApiVersionsRequest, ApiVersionsResponse
from penstock.wire.messages.enter_cluster import EnterClusterRequest, EnterClusterResponse
from penstock.wire.messages.sasl_authenticate import SaslAuthenticateRequest, SaslAuthenticateResponse
from penstock.wire.messages.sasl_handshake import SaslHandshakeRequest, SaslHandshakeResponse

Answer = TypeVar("Answer", bound=codec.Message)

# From these versions on, topics are named by ids; we speak of names. ApiVersions 5 wants to know a node's identity.
NEWEST = {
    ApiKey.PRODUCE: 12,
    ApiKey.FETCH: 12,
    ApiKey.OFFSET_COMMIT: 9,
    ApiKey.OFFSET_FETCH: 9,
    ApiKey.API_VERSIONS: 4,
}
_CONNECT_S = 5.0
_FIRST_ANSWER_BYTES = 1024 * 1024
"""What the answer to ApiVersions takes at most."""
_OTHER_PROTOCOLS = {
    b"HTTP": ("is an HTTP server, not a Kafka broker", "Check the port: --bootstrap HOST:PORT"),
    b"\x15\x03": ("requires TLS", "Add to --client-config FILE: security.protocol=SSL, or SASL_SSL with a user"),
}
"""How answers begin that are not Kafka's: what that says of whoever gives them, and what to do about it."""


class Connection:
    """A connected socket and what its other end speaks."""

    def __init__(
        self, address: Address, *, client_id: str, clock: Clock, timeout_s: float, security: Security = PLAINTEXT,
        cluster: str | None = None,
    ) -> None:  # fmt: skip
        self.address = address
        self._security = security
        self._client_id, self._clock, self._timeout_s = client_id, clock, timeout_s
        self._correlation_id = 0
        self._waiting: deque[tuple[ApiKey, int, int]] = deque()
        self._has_negotiated = self._has_answered = False
        self._socket = self._connect()
        self.features: ApiVersionsResponse = self._negotiate()
        self._has_negotiated = True
        self._ranges = {api.api_key: (api.min_version, api.max_version) for api in self.features.api_keys}
        if security.uses_sasl:
            self._log_in()
        if cluster is not None:
            answer = self.call(ApiKey.ENTER_CLUSTER, EnterClusterRequest(name=cluster), EnterClusterResponse)
            check(answer.error_code, "--cluster", answer.error_message)

    def version_of(self, api_key: ApiKey) -> int:
        """The newest version both sides speak."""
        ours = codec.versions(api_key)
        newest = min(NEWEST.get(api_key, ours.stop - 1), ours.stop - 1)
        if api_key not in self._ranges:
            raise Unsupported(f"{self.address} does not offer {api_key.name}; this command needs it")
        oldest_theirs, newest_theirs = self._ranges[api_key]
        version = min(newest, newest_theirs)
        if version < max(ours.start, oldest_theirs):
            raise Unsupported(
                f"{self.address} speaks {api_key.name} {oldest_theirs} to {newest_theirs}, "
                f"this program {ours.start} to {newest}: one of the two is too old"
            )
        return version

    def is_to(self, address: Address) -> bool:
        """Whether a connection to this address would be one to the same broker.

        Names are not resolved: with TLS, one address may serve several brokers by the name that the client asks for.
        """
        return address in (self.address, self._peer)

    def offers(self, api_key: ApiKey) -> bool:
        """Whether the broker answers an API at all."""
        return api_key in self._ranges

    def call(self, api_key: ApiKey, request: codec.Message, answer: type[Answer], *, wait_s: float = 0.0) -> Answer:
        """Send a request and wait for its answer; `wait_s` is what the broker was allowed to wait itself."""
        self.send(api_key, request)
        return self.receive(answer, wait_s=wait_s)

    def send(self, api_key: ApiKey, request: codec.Message, *, answered: bool = True) -> None:
        """Send a request; answers come in the same order."""
        self._send(api_key, self.version_of(api_key), request, answered=answered)

    def receive(self, answer: type[Answer], *, wait_s: float = 0.0) -> Answer:
        """The answer to the oldest request that waits for one."""
        message = self._receive(self._timeout_s + wait_s)
        self._has_answered = True
        assert isinstance(message, answer), f"expected {answer.__name__}, got {type(message).__name__}"
        return message

    def close(self) -> None:
        """Close the socket."""
        with contextlib.suppress(OSError):
            self._socket.close()

    def _connect(self) -> socket.socket:
        try:
            made = socket.create_connection(self.address, timeout=min(_CONNECT_S, self._timeout_s))
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._peer = Address(*made.getpeername()[:2])
            if self._security.uses_tls:
                made = self._security.context().wrap_socket(made, server_hostname=self.address.host)
        except OSError as error:
            problem = f"cannot reach {self.address}: {reason(error)}"
            raise Unreachable(problem, hint(error, self.address.host)) from error
        return made

    def _log_in(self) -> None:
        """Prove who we are. The password itself only travels where the configuration says PLAIN."""
        mechanism = self._security.mechanism
        shaken = self.call(ApiKey.SASL_HANDSHAKE, SaslHandshakeRequest(mechanism=mechanism), SaslHandshakeResponse)
        if shaken.error_code == ErrorCode.ILLEGAL_SASL_STATE:
            raise AuthenticationFailed(f"{self.address} asks for no credentials there: leave security.protocol out")
        if shaken.error_code:
            offered = ", ".join(shaken.mechanisms) or "none"
            raise AuthenticationFailed(f"{self.address} does not offer {mechanism}; it offers {offered}")
        exchange = messages(self._security, uuid_text(SystemRandomness().token(24)))
        token = next(exchange)
        while True:
            request = SaslAuthenticateRequest(auth_bytes=token)
            answer = self.call(ApiKey.SASL_AUTHENTICATE, request, SaslAuthenticateResponse)
            if answer.error_code:
                raise AuthenticationFailed(self._refusal(mechanism, answer.error_message or ""))
            try:
                token = exchange.send(bytes(answer.auth_bytes))
            except StopIteration:
                return

    def _refusal(self, mechanism: str, message: str) -> str:
        if not self._security.user:
            return f"{self.address} refuses the token: {message or 'it is not accepted'}"
        if not message or "credentials" in message or "username or password" in message:
            message = f"the user name or the password is wrong ({mechanism})"
        return f"{self.address} refuses {self._security.user}: {message}"

    def _negotiate(self) -> ApiVersionsResponse:
        try:
            features = self._ask_versions(NEWEST[ApiKey.API_VERSIONS])
        except ConnectionLost:
            self.close()
            self._waiting.clear()
            self._socket = self._connect()
            features = self._ask_versions(0)
        if features.error_code == ErrorCode.UNSUPPORTED_VERSION:
            features = self._ask_versions(0)
        check(features.error_code, str(self.address))
        return features

    def _ask_versions(self, version: int) -> ApiVersionsResponse:
        request = ApiVersionsRequest(client_software_name="penstock", client_software_version=__version__)
        self._send(ApiKey.API_VERSIONS, version, request)
        message = self._receive(min(_CONNECT_S, self._timeout_s))
        assert isinstance(message, ApiVersionsResponse)
        return message

    def _send(self, api_key: ApiKey, version: int, request: codec.Message, *, answered: bool = True) -> None:
        self._correlation_id += 1
        frame = codec.encode_request(api_key, version, self._correlation_id, self._client_id, request)
        try:
            self._socket.settimeout(self._timeout_s)
            for piece in frame:
                self._socket.sendall(piece)
        except ssl.SSLEOFError as error:
            raise self._lost(self._alert() or error) from error
        except OSError as error:
            raise self._lost(error) from error
        if answered:
            self._waiting.append((api_key, version, self._correlation_id))

    def _alert(self) -> OSError | None:
        """Why a server has ended TLS: what it said before is still to be read."""
        try:
            self._socket.recv(1)
        except OSError as error:
            return error
        return None

    def _receive(self, timeout_s: float) -> codec.Message:
        api_key, version, expected = self._waiting.popleft()
        deadline = self._clock.monotonic() + timeout_s
        body = self._read(self._size_of(self._read(SIZE_BYTES, deadline)), deadline)
        correlation_id, position = codec.read_response_header(api_key, version, body, 0)
        if correlation_id != expected:
            raise ConnectionLost(f"{self.address} answered out of order; it may not be a Kafka broker")
        code = int.from_bytes(body[position : position + 2], "big")
        if api_key == ApiKey.API_VERSIONS and code == ErrorCode.UNSUPPORTED_VERSION:
            version = 0  # KIP-511: this one answer is always written in version 0.
        try:
            message: codec.Message = codec.read_response(api_key, version, body, position)
        except codec.Malformed as error:
            raise ConnectionLost(f"{self.address} does not speak Kafka as we know it: {error}") from error
        return message

    def _size_of(self, start: memoryview) -> int:
        """The size of the answer that begins like this, in bytes. Raises `Unreachable` if that is not Kafka's."""
        if self._has_negotiated:
            return frame_size(start, 0, max_bytes=2**31 - 1)
        for prefix, (what, to_do) in _OTHER_PROTOCOLS.items():
            if bytes(start).startswith(prefix):
                raise Unreachable(f"{self.address} {what}", to_do)
        try:
            return frame_size(start, 0, max_bytes=_FIRST_ANSWER_BYTES)
        except codec.Malformed as error:
            raise Unreachable(
                f"{self.address} is not a Kafka broker", "Check the port: --bootstrap HOST:PORT"
            ) from error

    def _read(self, size: int, deadline: float) -> memoryview:
        buffer = memoryview(bytearray(size))
        filled = 0
        while filled < size:
            try:
                self._socket.settimeout(max(0.001, deadline - self._clock.monotonic()))
                count = self._socket.recv_into(buffer[filled:])
            except OSError as error:
                raise self._lost(error) from error
            if count == 0:
                raise self._closed()
            filled += count
        return buffer

    def _closed(self) -> ConnectionLost:
        if self._has_negotiated and not self._has_answered and not self._security.uses_sasl:
            protocols = "SASL_SSL" if self._security.uses_tls else "SASL_PLAINTEXT, or SASL_SSL"
            return RequestRefused(
                f"{self.address} closed the connection without an answer. If it requires credentials, add them to"
                f" --client-config FILE, with security.protocol={protocols}"
            )
        return ConnectionLost(f"{self.address} closed the connection. {self._suspicion()}")

    def _suspicion(self) -> str:
        if self._security.uses_sasl or self._security.uses_tls:
            return f"Is it a listener of protocol {self._security.protocol}?"
        return "Is it a Kafka broker? If it requires TLS or credentials, add --client-config FILE"

    def _lost(self, error: OSError) -> PlatformError:
        if isinstance(error, ssl.SSLError) and not self._has_negotiated:
            # In TLS 1.3 a server may refuse after the handshake.
            return Unreachable(f"cannot use {self.address}: {reason(error)}", hint(error, self.address.host))
        is_closed = isinstance(error, ConnectionResetError | BrokenPipeError)
        if is_closed and self._has_negotiated and not self._has_answered:
            return self._closed()
        problem = f"lost {self.address}: {reason(error)}"
        # Who has never answered may be something else; who has may come back.
        return ConnectionLost(problem if self._has_negotiated else f"{problem}. {self._suspicion()}")
