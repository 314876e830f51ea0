"""What one agent changes of access takes effect on another one of the same database, on connections that it has."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fixtures.postgres import PostgresServer
from fixtures.raw_client import ConnectionClosed
from fixtures.secured import Secured, authenticate
from fixtures.tenants import Tenant, api_key, log_in
from fixtures.waiting import eventually
from fixtures.wire import Wire

from penstock.cli.kafka.client_config import Security
from penstock.wire.api_keys import ApiKey as K
from penstock.wire.messages.alter_service_accounts import AlterServiceAccountsRequest
from penstock.wire.messages.create_delegation_token import CreateDelegationTokenRequest
from penstock.wire.messages.delete_api_keys import DeleteApiKeysRequest
from penstock.wire.messages.delete_virtual_cluster import DeleteVirtualClusterRequest
from penstock.wire.messages.enter_cluster import EnterClusterRequest

KEEP_EPOCH = (
    "CREATE FUNCTION keep_epoch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.epoch := OLD.epoch; RETURN NEW; END'",
    "CREATE TRIGGER keep_epoch BEFORE UPDATE ON shard FOR EACH ROW EXECUTE FUNCTION keep_epoch()",
)
SETTINGS = {"super.users": "User:alice", "connection.failed.authentication.delay.ms": "0"}


@pytest.fixture
def agents(
    tmp_path: Path, postgres_dsn: str, running_postgres: Callable[[], PostgresServer]
) -> Iterator[tuple[Secured, Secured]]:
    environment = {"PENSTOCK_METADATA": postgres_dsn}
    here = Secured(tmp_path / "here", SETTINGS, token_key="k" * 32, environment=environment)
    here.server.start()
    # A start begins a new epoch of the log, and whoever has an older one ends. Agents that share a log will share that.
    for statement in KEEP_EPOCH:
        asyncio.run(running_postgres().run(statement))
    there = Secured(tmp_path / "there", SETTINGS, token_key="k" * 32, environment=environment, like=here)
    there.server.start()
    yield here, there
    for agent in (here, there):
        assert agent.server.running, agent.server.log_tail()
        agent.server.kill()
        assert "Traceback" not in agent.server.log_tail(limit=10**7)


def is_closed(wire: Wire) -> bool:
    try:
        wire.metadata([])
    except (ConnectionClosed, OSError):
        return True
    return False


def by_token(agent: Secured, made: Any) -> Wire:
    """A connection that a delegation token opens."""
    secret = base64.b64encode(bytes(made.hmac)).decode()
    security = Security(
        protocol="SASL_PLAINTEXT", mechanism="SCRAM-SHA-256", user=made.token_id, password=secret, is_token_auth=True
    )
    wire = agent.wire("SASL_PLAINTEXT")
    assert authenticate(wire, security).error_code == 0
    return wire


def knows(agent: Secured, name: str) -> bool:
    """Whether an agent has heard of a cluster."""
    with log_in(agent) as admin:
        return bool(admin.call(K.ENTER_CLUSTER, 0, EnterClusterRequest(name=name)).error_code == 0)


def test_every_agent_closes_connections_of_removed_keys_accounts_and_clusters(
    agents: tuple[Secured, Secured],
) -> None:
    here, there = agents
    with log_in(here) as admin:
        alone, account = api_key(admin, "alone"), api_key(admin, "account")
    with log_in(here, *account) as wire:
        token = wire.call(K.CREATE_DELEGATION_TOKEN, 3, CreateDelegationTokenRequest(renewers=[]))
        assert token.error_code == 0
    tenant = Tenant(here, "acme")
    eventually(lambda: knows(there, "acme"), what="the other agent hearing of the cluster")
    wires = {
        "key": log_in(there, *alone), "account": log_in(there, *account), "token": by_token(there, token),
        "tenant": log_in(there, *tenant.key), "user": log_in(there),
    }  # fmt: skip

    def closed() -> set[str]:
        return {name for name, wire in wires.items() if is_closed(wire)}

    assert closed() == set()
    with log_in(here) as admin:
        (key,) = admin.call(K.DELETE_API_KEYS, 0, DeleteApiKeysRequest(key_ids=[alone[0]])).results
        assert key.error_code == 0
        eventually(lambda: closed() == {"key"}, what="the end of the connection by a removed key")
        request = AlterServiceAccountsRequest(deletions=["account"])
        (removed,) = admin.call(K.ALTER_SERVICE_ACCOUNTS, 0, request).results
        assert removed.error_code == 0
        eventually(lambda: closed() == {"key", "account", "token"}, what="the end of those of a removed account")
        admin.call(K.DELETE_VIRTUAL_CLUSTER, 0, DeleteVirtualClusterRequest(name="acme"))
        eventually(lambda: closed() == set(wires) - {"user"}, what="the end of those in a removed cluster")
    for wire in wires.values():
        wire.close()
