"""Guessing passwords on many connections at once is no cheaper than on one, and keeps nobody else out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import pytest
from fixtures.raw_client import ConnectionClosed
from fixtures.token_issuer import AUDIENCE, TokenIssuer
from fixtures.wire import Wire

from penstock.agent.agent import Agent
from penstock.base.context import DEFAULT_CLUSTER_ID
from penstock.base.errors import Unavailable
from penstock.base.options import ListenerOptions, OAuthOptions, UpOptions
from penstock.identity import guess_limits
from penstock.identity.attempts import Attempt
from penstock.identity.guess_limits import FailureLimit
from penstock.wire.api_keys import ApiKey
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages.sasl_authenticate import SaslAuthenticateRequest, SaslAuthenticateResponse
from penstock.wire.messages.sasl_handshake import SaslHandshakeRequest

FEW, EVERY_S, PATIENCE_S = 3, 0.5, 1.2
MANY = 12
LIKE_A_KEY = "PK" + "A" * 16


@pytest.fixture(scope="module")
def issuer() -> Iterator[TokenIssuer]:
    issuer = TokenIssuer()
    yield issuer
    issuer.close()


class Told:
    """Hears of attempts."""

    def __init__(self, agent: Agent) -> None:
        self.attempts: list[Attempt] = []
        agent.sasl.listener = self

    def on_attempt(self, attempt: Attempt) -> None:
        self.attempts.append(attempt)


@pytest.fixture
async def agent(monkeypatch: pytest.MonkeyPatch, issuer: TokenIssuer) -> AsyncIterator[Agent]:
    monkeypatch.setattr(guess_limits, "NETWORK_LIMIT", FailureLimit(burst=FEW, per_s=1 / EVERY_S))
    monkeypatch.setattr(guess_limits, "MAX_WAIT_S", PATIENCE_S)
    listener = ListenerOptions(protocol="SASL_PLAINTEXT", host="127.0.0.1", port=0)
    agent = Agent(
        UpOptions(
            data_dir=None, listeners=(listener,), settings={"connection.failed.authentication.delay.ms": "20"},
            oauth=OAuthOptions(issuer=issuer.url, audience=AUDIENCE),
        )
    )  # fmt: skip
    await agent.start()
    for name in ("alice", "bob"):
        await agent.access.identities.set_password(DEFAULT_CLUSTER_ID, name, "right")
    yield agent
    await agent.stop()


def begin(agent: Agent, token: bytes, mechanism: str = "PLAIN") -> Wire:
    """A connection that has sent its proof and waits."""
    wire = Wire(f"127.0.0.1:{agent.kafka_port}")
    assert wire.call(ApiKey.SASL_HANDSHAKE, 1, SaslHandshakeRequest(mechanism=mechanism)).error_code == 0
    wire.send(ApiKey.SASL_AUTHENTICATE, 2, SaslAuthenticateRequest(auth_bytes=token))
    return wire


def plain(password: str, name: str = "alice") -> bytes:
    return f"\0{name}\0{password}".encode()


def answer(wire: Wire) -> SaslAuthenticateResponse:
    response: SaslAuthenticateResponse = wire.receive(ApiKey.SASL_AUTHENTICATE, 2)
    return response


async def guess(agent: Agent, token: bytes = plain("wrong"), mechanism: str = "PLAIN") -> None:
    """Guess wrong, and hang up as soon as that has been found out."""
    failed = agent.sasl.stats.failed
    wire = await asyncio.to_thread(begin, agent, token, mechanism)
    async with asyncio.timeout(10):
        while agent.sasl.stats.failed == failed:
            await asyncio.sleep(0.01)
    wire.close()


async def comes_in(agent: Agent, name: str) -> float:
    """How long it takes to come in with the right password, again and again if need be, as clients do."""
    began = time.monotonic()
    while True:
        wire = await asyncio.to_thread(begin, agent, plain("right", name))
        with wire:
            try:
                assert (await asyncio.to_thread(answer, wire)).error_code == ErrorCode.NONE
            except ConnectionClosed:
                continue
            return time.monotonic() - began


async def test_hanging_up_makes_no_guess_cheaper(agent: Agent) -> None:
    for _ in range(FEW):
        await guess(agent)
    began = time.monotonic()
    for _ in range(2):
        await guess(agent)
    assert time.monotonic() - began >= EVERY_S


async def test_guesses_on_many_connections_wait_for_each_other(agent: Agent) -> None:
    began = time.monotonic()
    wires = [await asyncio.to_thread(begin, agent, plain("wrong", f"name {number}")) for number in range(MANY)]
    told = list[int]()
    for wire in wires:
        with wire:
            try:
                told.append((await asyncio.to_thread(answer, wire)).error_code)
            except ConnectionClosed:
                continue  # Nobody has looked at it, and so nobody says that it is wrong.
    assert set(told) == {ErrorCode.SASL_AUTHENTICATION_FAILED}
    assert FEW <= len(told) <= FEW + (time.monotonic() - began) / EVERY_S + 1
    assert len(told) == agent.sasl.stats.failed
    assert agent.sasl.stats.throttled == MANY - len(told) > 0


async def test_nobody_is_kept_out_by_who_guesses_at_the_same_address(agent: Agent) -> None:
    await comes_in(agent, "bob")
    wires = [await asyncio.to_thread(begin, agent, plain("wrong", f"name {number}")) for number in range(MANY)]
    assert await comes_in(agent, "bob") < EVERY_S
    assert await comes_in(agent, "alice") < 10
    for wire in wires:
        wire.close()


async def test_who_has_a_password_guesses_others_no_faster(agent: Agent) -> None:
    for _ in range(FEW):
        await guess(agent)
        await comes_in(agent, "bob")
    began = time.monotonic()
    for _ in range(2):
        await guess(agent)
        await comes_in(agent, "bob")
    assert time.monotonic() - began >= EVERY_S


@pytest.mark.parametrize("names", [(LIKE_A_KEY,), ("alice", "alice@default")])
async def test_a_user_is_guessed_at_a_bounded_number_of_times_whatever_it_is_called(
    agent: Agent, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...]
) -> None:
    monkeypatch.setattr(guess_limits, "NETWORK_LIMIT", FailureLimit(burst=1000, per_s=1000.0))
    monkeypatch.setattr(guess_limits, "NAME_LIMIT", FailureLimit(burst=FEW, per_s=0.001))
    await agent.access.identities.set_password(DEFAULT_CLUSTER_ID, names[0], "right")
    for number in range(FEW):
        await guess(agent, plain("wrong", names[number % len(names)]))
    for name in names:
        with await asyncio.to_thread(begin, agent, plain("right", name)) as wire, pytest.raises(ConnectionClosed):
            await asyncio.to_thread(answer, wire)
    assert await comes_in(agent, "bob") < PATIENCE_S
    assert (agent.sasl.stats.failed, agent.sasl.stats.throttled) == (FEW, len(names))


async def test_a_bad_token_costs_also_whom_it_is_not_told(agent: Agent) -> None:
    """A client is told of it in two steps (RFC 7628); whoever knows that hangs up before the second."""
    told = Told(agent)
    for number in range(FEW):
        await guess(agent, f"n,,\x01auth=Bearer x.y.{number}\x01\x01".encode(), "OAUTHBEARER")
    assert [attempt.mechanism for attempt in told.attempts] == ["SASL_PLAINTEXT/OAUTHBEARER"] * FEW
    assert all(attempt.message and attempt.identity is None for attempt in told.attempts)
    token = b"n,,\x01auth=Bearer x.y.z\x01\x01"
    with await asyncio.to_thread(begin, agent, token, "OAUTHBEARER") as wire:
        assert bytes((await asyncio.to_thread(answer, wire)).auth_bytes) == b'{"status":"invalid_token"}'
        wire.send(ApiKey.SASL_AUTHENTICATE, 2, SaslAuthenticateRequest(auth_bytes=b"\x01"))
        last = await asyncio.to_thread(answer, wire)
        assert last.error_code == ErrorCode.SASL_AUTHENTICATION_FAILED
    assert (len(told.attempts), agent.sasl.stats.failed) == (FEW + 1, FEW + 1)
    assert agent.sasl.stats.throttled == 0


async def test_tokens_keep_nobody_waiting(agent: Agent) -> None:
    """Nobody guesses what is signed: bad ones cost whoever has them, and are no reason to look at others later."""
    bad = [f"n,,\x01auth=Bearer x.y.{number}\x01\x01".encode() for number in range(2 * FEW)]
    wires = [await asyncio.to_thread(begin, agent, token, "OAUTHBEARER") for token in bad]
    assert await comes_in(agent, "alice") < EVERY_S
    for wire in wires:
        wire.close()
    assert agent.sasl.stats.throttled == 0


async def test_who_comes_by_ipv4_to_a_listener_of_ipv6_has_an_ipv4_address() -> None:
    """As in Java, and so for ACLs and quotas too."""
    listener = ListenerOptions(protocol="SASL_PLAINTEXT", host="::", port=0, mechanisms=("SCRAM-SHA-512",))
    agent = Agent(UpOptions(data_dir=None, listeners=(listener,)))
    try:
        await agent.start()
    except (Unavailable, OSError):
        pytest.skip("this machine has no IPv6")
    try:
        told = Told(agent)
        with await asyncio.to_thread(Wire, f"127.0.0.1:{agent.kafka_port}") as wire:
            asked = SaslHandshakeRequest(mechanism="GSSAPI")
            assert (await asyncio.to_thread(wire.call, ApiKey.SASL_HANDSHAKE, 1, asked)).error_code
        assert [attempt.client_host for attempt in told.attempts] == ["127.0.0.1"]
    finally:
        await agent.stop()
