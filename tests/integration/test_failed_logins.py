"""Guessing passwords on many connections at once is no cheaper than on one, and keeps nobody else out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from fixtures.raw_client import ConnectionClosed
from fixtures.wire import Wire

from penstock.agent.agent import Agent
from penstock.base.context import DEFAULT_CLUSTER_ID
from penstock.base.options import ListenerOptions, UpOptions
from penstock.identity import penalties
from penstock.wire.api_keys import ApiKey
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages.sasl_authenticate import SaslAuthenticateRequest, SaslAuthenticateResponse
from penstock.wire.messages.sasl_handshake import SaslHandshakeRequest

FEW, PATIENCE_S, DELAY_S = 3, 0.4, 1.5


@pytest.fixture
async def agent(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Agent]:
    monkeypatch.setattr(penalties, "MAX_WAITING_PER_HOST", FEW)
    monkeypatch.setattr(penalties, "PATIENCE_S", PATIENCE_S)
    listener = ListenerOptions(protocol="SASL_PLAINTEXT", host="127.0.0.1", port=0)
    settings = {"connection.failed.authentication.delay.ms": str(int(DELAY_S * 1000))}
    agent = Agent(UpOptions(data_dir=None, listeners=(listener,), settings=settings))
    await agent.start()
    await agent.access.identities.set_password(DEFAULT_CLUSTER_ID, "alice", "right")
    yield agent
    await agent.stop()


def begin(agent: Agent, password: str) -> Wire:
    """A connection that has sent its proof and waits."""
    wire = Wire(f"127.0.0.1:{agent.kafka_port}")
    assert wire.call(ApiKey.SASL_HANDSHAKE, 1, SaslHandshakeRequest(mechanism="PLAIN")).error_code == 0
    wire.send(ApiKey.SASL_AUTHENTICATE, 2, SaslAuthenticateRequest(auth_bytes=b"\0alice\0" + password.encode()))
    return wire


def answer(wire: Wire) -> SaslAuthenticateResponse:
    response: SaslAuthenticateResponse = wire.receive(ApiKey.SASL_AUTHENTICATE, 2)
    return response


async def guess(agent: Agent) -> None:
    """Guess wrong, and hang up as soon as that has been found out."""
    failed = agent.gate.stats.failed
    wire = await asyncio.to_thread(begin, agent, "wrong")
    async with asyncio.timeout(10):
        while agent.gate.stats.failed == failed:
            await asyncio.sleep(0.01)
    wire.close()


async def test_hanging_up_makes_no_guess_cheaper(agent: Agent) -> None:
    for _ in range(FEW):
        await guess(agent)
    began = time.monotonic()
    await guess(agent)
    assert time.monotonic() - began >= PATIENCE_S


async def test_nobody_is_kept_out_by_who_guesses_at_the_same_address(agent: Agent) -> None:
    for _ in range(FEW):
        await guess(agent)
    began = time.monotonic()
    wire = await asyncio.to_thread(begin, agent, "right")
    with wire:
        assert (await asyncio.to_thread(answer, wire)).error_code == ErrorCode.NONE
    assert PATIENCE_S <= time.monotonic() - began < DELAY_S


async def test_who_fails_beyond_the_bound_is_answered_like_others(agent: Agent) -> None:
    wires = [await asyncio.to_thread(begin, agent, "wrong") for _ in range(FEW + 2)]
    began = time.monotonic()
    answers = await asyncio.gather(*(asyncio.to_thread(answer, wire) for wire in wires))
    assert {one.error_code for one in answers} == {ErrorCode.SASL_AUTHENTICATION_FAILED}
    assert time.monotonic() - began >= DELAY_S / 2
    for wire in wires:
        with wire, pytest.raises(ConnectionClosed):
            wire.receive_frame()
