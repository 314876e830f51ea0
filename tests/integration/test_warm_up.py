"""Once an agent has warmed up, no request has it import anything on the event loop."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from fixtures.raw_client import ConnectionClosed
from fixtures.token_issuer import TokenIssuer, answers_of_bearer
from fixtures.wire import Wire
from fuzz.wide_requests import GROUP, MEMBER, WIDE, Maker, more_of

from penstock.authorization.settings import STANDARD_AUTHORIZER
from penstock.wire import codec
from penstock.wire.api_keys import ApiKey as K
from penstock.wire.messages.api_versions import ApiVersionsRequest
from penstock.wire.messages.consumer_group_heartbeat import ConsumerGroupHeartbeatRequest

SERVING = """
import asyncio, json, pathlib, sys, threading
from penstock.agent import warm_up
from penstock.agent.agent import Agent
from penstock.base.options import ListenerOptions, OAuthOptions, UpOptions

class Imports:
    def __init__(self):
        self.names, self.thread = [], threading.get_ident()

    def find_spec(self, name, path=None, target=None):
        if threading.get_ident() == self.thread:
            self.names.append(name)

async def main(directory, settings, warm, issuer):
    oauth = OAuthOptions(issuer=issuer, audience="kafka") if issuer else None
    listener = ListenerOptions(port=0, protocol="SASL_PLAINTEXT" if issuer else "PLAINTEXT")
    options = UpOptions(data_dir=pathlib.Path(directory), listeners=(listener,), settings=settings, oauth=oauth)
    agent = Agent(options)
    await agent.start()
    if warm:
        warm_up.WAIT_S = warm_up.PAUSE_S = 0
        await warm_up.warm_up(agent.requests.dispatcher.table)
    imports = Imports()
    sys.meta_path.insert(0, imports)
    print(agent.kafka_port, flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    print(*imports.names, flush=True)
    await agent.stop()

asyncio.run(main(sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3]), sys.argv[4]))
"""
GUARDED = {
    "authorizer.class.name": STANDARD_AUTHORIZER, "allow.everyone.if.no.acl.found": "true", "audit.enable": "true"
}  # fmt: skip


class Serving:
    """An agent in a process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self._process = process
        self.bootstrap = f"127.0.0.1:{int(process.stdout.readline())}"

    def imported(self) -> list[str]:
        """What requests had it import on the event loop; it stops."""
        return self._process.communicate("\n", timeout=30)[0].split()


@contextmanager
def serving(directory: Path, settings: Mapping[str, str], *, warm: bool, issuer: str = "") -> Iterator[Serving]:
    command = [sys.executable, "-c", SERVING, str(directory), json.dumps(settings), json.dumps(warm), issuer]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Serving(process)
        finally:
            process.kill()


@pytest.mark.parametrize("settings", [{}, GUARDED], ids=["open", "guarded"])
def test_no_request_imports_anything_on_the_event_loop(tmp_path: Path, settings: Mapping[str, str]) -> None:
    with serving(tmp_path, settings, warm=True) as agent:
        with Wire(agent.bootstrap) as wire:
            served = {
                one.api_key: range(max(one.min_version, codec.versions(one.api_key).start), one.max_version + 1)
                for one in wire.call(K.API_VERSIONS, 0, ApiVersionsRequest()).api_keys
            }
            topic_id = wire.create_topic(WIDE)
            joins = ConsumerGroupHeartbeatRequest(
                group_id=GROUP, member_id=MEMBER, rebalance_timeout_ms=60_000, subscribed_topic_names=[WIDE],
                subscribed_topic_regex="w.*", topic_partitions=[],
            )  # fmt: skip
            epoch = wire.call(K.CONSUMER_GROUP_HEARTBEAT, 1, joins).member_epoch
        asked, makes = 0, Maker(topic_id, epoch)
        for wide in more_of(served):
            with Wire(agent.bootstrap) as wire:
                try:
                    wire.send_bytes(makes.frame(wide, 1))
                    wire.receive_frame()
                    asked += 1
                except ConnectionClosed:
                    assert wide.key in (K.SASL_HANDSHAKE, K.SASL_AUTHENTICATE), wide
        assert asked > 2 * len(served)
        assert agent.imported() == []


def test_no_token_imports_anything_on_the_event_loop(tmp_path: Path) -> None:
    issuer = TokenIssuer()
    try:
        with serving(tmp_path, {}, warm=True, issuer=issuer.url) as agent:
            for token, error in ((issuer.token(), 0), (issuer.token(aud="others"), 58)):
                with Wire(agent.bootstrap) as wire:
                    assert answers_of_bearer(wire, token)[-1][0] == error
            assert agent.imported() == []
    finally:
        issuer.close()


def test_it_is_noticed_if_one_does(tmp_path: Path) -> None:
    with serving(tmp_path, {}, warm=False) as agent:
        with Wire(agent.bootstrap) as wire:
            wire.create_topic(WIDE)
        assert "penstock.log.admin.topics" in agent.imported()
