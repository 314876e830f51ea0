"""The server side of SASL: a connection is served only after its client has authenticated.

Before that, a client may ask for the API versions, choose a mechanism, and exchange tokens of that mechanism: wrapped
in SaslAuthenticate or, after a SaslHandshake of version 0, unwrapped. Any other request closes the connection, as in
Kafka. Requests of an authenticated connection go to the dispatcher directly. Only a session with a limited lifetime
(KIP-368) is checked on each request; its client may re-authenticate, with the same principal and mechanism.

A failed attempt is answered after a delay, and then the connection is closed. Attempts that can be guesses are queued
(`identity/guess_limits.py`); one that is not evaluated in time is closed without an answer. The log names the address
and the claimed principal, never a token.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable
from math import inf
from typing import Any

from penstock.agent.cluster_connections import ClusterConnections
from penstock.agent.connection import SIZE, Connection, RequestHandler, Slot
from penstock.agent.sasl_session import SaslSession, SaslStage
from penstock.base.clock import Clock
from penstock.base.dataclasses import dataclass, replace
from penstock.base.errors import PlatformError
from penstock.identity.attempts import Attempt, AttemptListener
from penstock.identity.authenticator import Authenticator, SaslExchange, SaslStep
from penstock.identity.failures import Denied, InvalidCredentials
from penstock.identity.guess_limits import AttemptOutcome, GuessLimiter
from penstock.identity.model import Identity
from penstock.identity.penalties import Penalties
from penstock.wire import codec
from penstock.wire.api_keys import ApiKey
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages.sasl_authenticate import SaslAuthenticateResponse
from penstock.wire.messages.sasl_handshake import SaslHandshakeResponse
from penstock.wire.primitives import Buffer, Malformed

HANDSHAKE_VERSIONS = range(2)
AUTHENTICATE_VERSIONS = range(3)
WRAPPED_SINCE = 1
"""From this version of SaslHandshake on, messages are wrapped in SaslAuthenticate."""
AUTHENTICATION_S = 30.0
"""How long a client may take to authenticate."""
REAUTHENTICATION_PAUSE_S = 1.0
MAX_VERSION_REQUESTS = 4
MAX_ID_CHARS = 64
"""Ids of API keys and tokens are not longer. The ids that clients send may be of any length."""
GONE = "Authentication failed: Invalid username or password"
"""The answer while a virtual cluster is being deleted: the same as after it was deleted."""
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class SaslStats:
    """Authentication attempts by their outcome."""

    succeeded: int = 0
    failed: int = 0
    throttled: int = 0
    """Attempts that were not evaluated."""
    reauthenticated: int = 0
    expired: int = 0


class SaslServer:
    """Authenticates the connections of listeners that ask for it."""

    def __init__(
        self, *, authenticator: Authenticator, dispatch: RequestHandler, clock: Clock, penalties: Penalties,
        guesses: GuessLimiter, max_receive_bytes: int, max_session_ms: int, cluster_connections: ClusterConnections,
    ) -> None:  # fmt: skip
        self._authenticator, self._dispatch, self._clock = authenticator, dispatch, clock
        self._penalties, self._guesses, self._cluster_connections = penalties, guesses, cluster_connections
        self._max_receive_bytes, self._max_session_ms = max_receive_bytes, max_session_ms
        self.stats = SaslStats()
        self.listener: AttemptListener | None = None

    def admit(self, connection: Connection) -> None:
        """A new connection: have it authenticate, if its listener requires that."""
        if connection.listener.uses_sasl:
            identity = connection.identity
            connection.sasl = SaslSession(cluster_id=identity.cluster_id, is_bound=identity.is_bound)
            connection.answer = self._on_unauthenticated
            connection.max_frame_bytes = self._max_receive_bytes
            connection.authenticate_by = self._clock.monotonic() + AUTHENTICATION_S

    # ---- requests ------------------------------------------------------------------------------------------------

    def _on_unauthenticated(self, connection: Connection, frame: bytes | memoryview) -> None:
        """Handle a frame before authentication. Raises `Malformed` to close the connection."""
        session = connection.sasl
        assert session is not None
        if session.stage is SaslStage.TOKEN and not session.is_wrapped:
            self._begin_step(connection, session, bytes(frame), _RawTokens())
            return
        header = codec.read_request_header(frame, 0)
        key, version = header.api_key, header.api_version
        if session.stage is SaslStage.TOKEN:
            if key != ApiKey.SASL_AUTHENTICATE or version not in AUTHENTICATE_VERSIONS:
                raise Malformed(f"API {key} v{version} is asked for in the middle of authentication")
            request = codec.read_request(key, version, frame, header.body)
            wrapping = _WrappedTokens(version, header.correlation_id)
            self._begin_step(connection, session, bytes(request.auth_bytes), wrapping)
        elif key == ApiKey.API_VERSIONS and self._may_ask_versions(session):
            session.version_requests += 1
            self._dispatch(connection, frame)
        elif key == ApiKey.SASL_HANDSHAKE and version in HANDSHAKE_VERSIONS:
            request = codec.read_request(key, version, frame, header.body)
            self._shake_hands(connection, session, version, header.correlation_id, str(request.mechanism))
        else:
            raise Malformed(f"API {key} v{version} is asked for before authentication")

    def _may_ask_versions(self, session: SaslSession) -> bool:
        return session.version_requests < MAX_VERSION_REQUESTS and not session.reauthenticates

    def _on_expiring(self, connection: Connection, frame: bytes | memoryview) -> None:
        """Handle a frame of a session with a limited lifetime."""
        session = connection.sasl
        assert session is not None
        now = self._clock.monotonic()
        if int.from_bytes(frame[:2]) == ApiKey.SASL_HANDSHAKE and self._may_reauthenticate(session, now):
            session.stage, session.reauthenticates, session.reauthenticated_s = SaslStage.HANDSHAKE, True, now
            connection.repeated_produce = None
            connection.answer = self._on_unauthenticated
            connection.authenticate_by = now + AUTHENTICATION_S
            self._on_unauthenticated(connection, frame)
        elif session.ends_s is not None and now > session.ends_s:
            self.stats.expired += 1
            raise Malformed("its session has ended, and it did not authenticate again")
        else:
            self._dispatch(connection, frame)

    def _may_reauthenticate(self, session: SaslSession, now: float) -> bool:
        return session.reauthenticated_s is None or now - session.reauthenticated_s >= REAUTHENTICATION_PAUSE_S

    def _shake_hands(
        self, connection: Connection, session: SaslSession, version: int, correlation_id: int, mechanism: str
    ) -> None:
        offered = connection.listener.mechanisms
        response = SaslHandshakeResponse(mechanisms=list(offered))
        session.is_wrapped = session.is_wrapped or version >= WRAPPED_SINCE
        if mechanism not in offered:
            response.error_code = ErrorCode.UNSUPPORTED_SASL_MECHANISM
            answer = codec.encode_response(ApiKey.SASL_HANDSHAKE, version, correlation_id, response)
            slot = connection.open_slot(ApiKey.SASL_HANDSHAKE)
            session.mechanism = ""
            self._report(connection, session, message="The mechanism is not offered.")
            session.looked_s = self._clock.monotonic()
            why = f"mechanism {mechanism[:64]!r} is not offered"
            self._run(connection, self._fail(connection, session, slot, answer, why))
            return
        if session.reauthenticates and mechanism != session.mechanism:
            session.doomed = (
                f"SASL mechanism '{mechanism}' requested by client is not supported for re-authentication of mechanism"
                f" '{session.mechanism}'"
            )
        else:
            session.mechanism = mechanism
            session.exchange = self._authenticator.begin(
                mechanism, session.cluster_id, is_bound=session.is_bound, listener=connection.listener.name
            )
        session.stage = SaslStage.TOKEN
        answer = codec.encode_response(ApiKey.SASL_HANDSHAKE, version, correlation_id, response)
        connection.fill(connection.open_slot(ApiKey.SASL_HANDSHAKE), answer)

    # ---- proofs --------------------------------------------------------------------------------------------------

    def _begin_step(self, connection: Connection, session: SaslSession, token: bytes, wrapping: Wrapping) -> None:
        slot = connection.open_slot(ApiKey.SASL_AUTHENTICATE)
        self._run(connection, self._step(connection, session, slot, token, wrapping))

    def _run(self, connection: Connection, work: Any) -> None:
        connection.hold()
        connection.task = connection.spawn(work)

    async def _step(
        self, connection: Connection, session: SaslSession, slot: Slot, token: bytes, wrapping: Wrapping
    ) -> None:  # fmt: skip
        session.looked_s = self._clock.monotonic()
        try:
            step = await self._evaluate(connection, session, token)
            if session.exchange is not None and session.exchange.failure is not None:
                # The client sends one more message before it is told, or disconnects: report it now.
                self._report(connection, session, message=session.exchange.failure)
                await self._penalize(connection, session)
        except Denied as denied:
            answer, why = wrapping.failure(self._error_message(session, denied)), f"{session.mechanism}: {denied}"
            if session.exchange is not None and session.exchange.failure is not None:
                self._reject(connection, slot, answer, why)
            else:
                self._report(connection, session, message=str(denied))
                await self._fail(connection, session, slot, answer, why)
        except PlatformError as problem:
            # The client tries again on another connection: nothing was found out about its credentials.
            self.stats.throttled += 1
            connection.refuse(f"its authentication was not looked at: {problem}")
        except Exception:  # noqa: BLE001  # a bug of ours must cost one connection, never the process
            _log.exception("authentication failed")
            connection.close()
        else:
            if step.identity is not None and not session.reauthenticates and not connection.closed:
                refusal = self._cluster_connections.refusal(step.identity.cluster_id)
                if refusal is not None:
                    self._report(connection, session, step.identity)
                    connection.pause()
                    await asyncio.sleep(self._cluster_connections.reject_delay_s())
                    connection.refuse(refusal)
            if not connection.closed:
                lifetime_ms = 0 if step.identity is None else self._authenticated(connection, session, step.identity)
                connection.fill(slot, wrapping.success(step.token, lifetime_ms))
                connection.release()

    async def _evaluate(self, connection: Connection, session: SaslSession, token: bytes) -> SaslStep:
        """Evaluate a client's token, in its turn. Raises `Denied` if authentication fails."""
        if session.doomed is not None:
            raise Denied(session.doomed)
        assert session.exchange is not None
        guess = session.exchange.guess(token)
        if guess is None:
            step = await self._prove(session, session.exchange, token)
            assert step is not None  # Only a guess can turn out to be two.
            return step
        session.subject = guess.subject
        permit, outcome = await self._guesses.acquire(connection.host, guess), AttemptOutcome.FAILED
        try:
            session.looked_s = self._clock.monotonic()
            step = await self._prove(session, session.exchange, token)
            if step is None:
                step = await self._evaluate(connection, session, token)  # It counts as two attempts.
            if step.identity is not None:
                outcome = AttemptOutcome.SUCCEEDED
            return step
        except PlatformError as problem:
            if not isinstance(problem, Denied):
                outcome = AttemptOutcome.NOT_CHECKED
            raise
        finally:
            self._guesses.release(permit, outcome)

    async def _prove(self, session: SaslSession, exchange: SaslExchange, token: bytes) -> SaslStep | None:
        step = await exchange.step(token)
        if step is not None and step.identity is not None:
            _check_same(session, step.identity)
            if not self._cluster_connections.is_open(step.identity.cluster_id):
                raise Denied(GONE)
        return step

    def _error_message(self, session: SaslSession, denied: Denied) -> str:
        if isinstance(denied, InvalidCredentials):
            what = "re-authentication" if session.reauthenticates else "authentication"
            return (
                f"Authentication failed during {what} due to invalid credentials with SASL mechanism"
                f" {session.mechanism}"
            )
        return str(denied)

    def _authenticated(self, connection: Connection, session: SaslSession, identity: Identity) -> int:
        """The client has authenticated; the lifetime of its session in ms, 0 if it is not limited."""
        self._penalties.succeeded(connection.host, session.subject)
        self._report(connection, session, identity)
        if session.reauthenticates:
            self.stats.reauthenticated += 1
        else:
            self.stats.succeeded += 1
        whose = identity
        if session.reauthenticates:
            # It stays in the cluster it has entered since. But a session renewed by a delegation token may not create
            # further ones.
            whose = replace(
                connection.identity, token_authenticated=identity.token_authenticated,
                credential_id=identity.credential_id,
            )  # fmt: skip
        connection.belongs_to(whose)
        session.stage, session.exchange = SaslStage.DONE, None
        session.reauthenticates, session.proven = False, identity
        lifetime_ms = self._lifetime_ms(identity)
        if lifetime_ms is None:
            connection.answer = self._dispatch
            return 0
        session.ends_s = self._clock.monotonic() + lifetime_ms / 1000
        connection.answer = self._on_expiring
        return lifetime_ms

    def _lifetime_ms(self, identity: Identity) -> int | None:
        limits = []
        if self._max_session_ms > 0:
            limits.append(self._max_session_ms)
        if identity.expires_ms is not None:
            limits.append(max(0, identity.expires_ms - self._clock.now_ms()))
        return min(limits) if limits else None

    def _report(
        self, connection: Connection, session: SaslSession, identity: Identity | None = None, *, message: str = ""
    ) -> None:
        if self.listener is None:
            return
        protocol, exchange = connection.listener.protocol, session.exchange
        self.listener.on_attempt(
            Attempt(
                mechanism=f"{protocol}/{session.mechanism}" if session.mechanism else protocol,
                client_host=connection.host, connection_id=connection.connection_id,
                cluster_id=session.cluster_id, identity=identity, message=message,
                claimed=None if exchange is None else exchange.claimed,
                is_unknown=exchange is not None and exchange.is_unknown,
            )
        )  # fmt: skip

    def credentials_in_use(self, connections: Iterable[Connection]) -> set[str]:
        """API keys and tokens that connections have authenticated with, or are authenticating with."""
        found = set[str]()
        for connection in connections:
            if connection.sasl is not None:
                found.update(one for one in _credentials_of(connection.sasl) if len(one) <= MAX_ID_CHARS)
        return found

    def revoke(self, connections: Iterable[Connection], credential_ids: Collection[str], asked_by: int) -> None:
        """API keys or tokens were deleted: close the connections that authenticated with them. The one that asked for
        the deletion is answered first."""
        for connection in connections:
            session = connection.sasl
            if session is None or _credentials_of(session).isdisjoint(credential_ids) or session.ends_s == -inf:
                continue
            if connection.connection_id == asked_by:
                session.ends_s = -inf
                connection.answer = self._on_expiring
            else:
                connection.refuse("what it came in by was deleted")

    # ---- failures ------------------------------------------------------------------------------------------------

    async def _fail(
        self, connection: Connection, session: SaslSession, slot: Slot, answer: list[Buffer] | None, why: str
    ) -> None:
        """Answer a failed attempt, after a delay."""
        await self._penalize(connection, session)
        self._reject(connection, slot, answer, why)

    async def _penalize(self, connection: Connection, session: SaslSession) -> None:
        """Count a failure and delay its answer: longer with each failure of the same client."""
        self.stats.failed += 1
        spent_s = self._clock.monotonic() - session.looked_s
        wait_s = self._penalties.failed(connection.host, session.subject, spent_s=spent_s)
        connection.pause()
        await asyncio.sleep(wait_s)

    def _reject(self, connection: Connection, slot: Slot, answer: list[Buffer] | None, why: str) -> None:
        if answer is not None and not connection.closed:
            connection.fill(slot, answer)
            connection.send()
        connection.refuse(f"it is not authenticated: {why}")


class _RawTokens:
    """Tokens without a Kafka header, each preceded by its size."""

    def success(self, token: bytes, lifetime_ms: int) -> list[Buffer]:
        return [SIZE.pack(len(token)), token] if token else [SIZE.pack(0)]

    def failure(self, reason: str) -> list[Buffer] | None:
        return None


@dataclass(frozen=True, slots=True)
class _WrappedTokens:
    """Tokens in SaslAuthenticate."""

    version: int
    correlation_id: int

    def success(self, token: bytes, lifetime_ms: int) -> list[Buffer]:
        response = SaslAuthenticateResponse(auth_bytes=token, session_lifetime_ms=lifetime_ms)
        return self._encoded(response)

    def failure(self, reason: str) -> list[Buffer]:
        code = ErrorCode.SASL_AUTHENTICATION_FAILED
        return self._encoded(SaslAuthenticateResponse(error_code=code, error_message=reason))

    def _encoded(self, response: SaslAuthenticateResponse) -> list[Buffer]:
        return codec.encode_response(ApiKey.SASL_AUTHENTICATE, self.version, self.correlation_id, response)


Wrapping = _RawTokens | _WrappedTokens


def _credentials_of(session: SaslSession) -> set[str]:
    """The API key or token that a connection has authenticated with, and the one it is authenticating with."""
    found = set[str]()
    if session.exchange is not None and session.exchange.credential_id is not None:
        found.add(session.exchange.credential_id)
    if session.proven is not None and session.proven.credential_id is not None:
        found.add(session.proven.credential_id)
    return found


def _check_same(session: SaslSession, now: Identity) -> None:
    before = session.proven
    if not session.reauthenticates or before is None:
        return
    if before.principal == now.principal and before.cluster_id != now.cluster_id:
        raise Denied("Cannot change clusters during re-authentication")
    if before.principal != now.principal:
        raise Denied(
            f"Cannot change principals during re-authentication from {_kafka_text(before)}: {_kafka_text(now)}"
        )


def _kafka_text(identity: Identity) -> str:
    return identity.principal.replace(":", ".", 1)
