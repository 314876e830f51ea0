"""Delegation tokens: created, renewed, described and expired by their owners, and used to authenticate."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from typing import Any

import pytest
from fixtures.kafka_tools import ToolRunner
from fixtures.secured import PASSWORD, USER, Secured, authenticate
from fixtures.wire import Wire

from penstock.cli.kafka.client_config import Security
from penstock.wire.api_keys import ApiKey
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages.create_delegation_token import CreatableRenewers, CreateDelegationTokenRequest
from penstock.wire.messages.describe_delegation_token import (
    DescribeDelegationTokenOwner,
    DescribeDelegationTokenRequest,
)
from penstock.wire.messages.expire_delegation_token import ExpireDelegationTokenRequest
from penstock.wire.messages.metadata import MetadataRequest
from penstock.wire.messages.renew_delegation_token import RenewDelegationTokenRequest

pytestmark = [
    pytest.mark.differs("the reference is not started with these listeners"),
    pytest.mark.timeout(1200),  # Includes downloading Java tools with cold caches.
]
DAY_MS = 86_400_000
KEY = "the key of this test's tokens"


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    settings = {"connections.max.reauth.ms": str(DAY_MS)}
    secured = Secured(tmp_path_factory.mktemp("tokens"), settings, token_key=KEY)
    secured.add_user("bob", "of bob")
    secured.server.start()
    yield secured
    assert secured.server.stop() == 0
    log = secured.server.log_tail(limit=10**9)
    assert KEY not in log
    assert "Traceback" not in log


def connect(
    secured: Secured, user: str = USER, password: str = PASSWORD, *, is_token: bool = False
) -> tuple[Wire, Any]:
    """A connection and the last answer of its authentication."""
    wire = secured.wire("SASL_PLAINTEXT")
    security = Security(mechanism="SCRAM-SHA-256", user=user, password=password, is_token_auth=is_token)
    return wire, authenticate(wire, security)


@pytest.fixture
def alice(secured: Secured) -> Iterator[Wire]:
    wire, answer = connect(secured)
    assert answer.error_code == 0
    with wire:
        yield wire


@pytest.fixture
def bob(secured: Secured) -> Iterator[Wire]:
    wire, answer = connect(secured, "bob", "of bob")
    assert answer.error_code == 0
    with wire:
        yield wire


def create(
    wire: Wire, *renewers: str, version: int = 3, lifetime_ms: int = -1, owner: str = "", kind: str = "User"
) -> Any:
    request = CreateDelegationTokenRequest(
        owner_principal_type="User" if owner else "", owner_principal_name=owner,
        renewers=[CreatableRenewers(principal_type=kind, principal_name=name) for name in renewers],
        max_lifetime_ms=lifetime_ms,
    )  # fmt: skip
    return wire.call(ApiKey.CREATE_DELEGATION_TOKEN, version, request)


def renew(wire: Wire, hmac: bytes, period_ms: int = -1) -> Any:
    return wire.call(
        ApiKey.RENEW_DELEGATION_TOKEN, 2, RenewDelegationTokenRequest(hmac=hmac, renew_period_ms=period_ms)
    )


def expire(wire: Wire, hmac: bytes, period_ms: int = -1) -> Any:
    request = ExpireDelegationTokenRequest(hmac=hmac, expiry_time_period_ms=period_ms)
    return wire.call(ApiKey.EXPIRE_DELEGATION_TOKEN, 2, request)


def described(wire: Wire, *owners: str) -> dict[str, Any]:
    wanted = [DescribeDelegationTokenOwner(principal_type="User", principal_name=owner) for owner in owners]
    answer = wire.call(ApiKey.DESCRIBE_DELEGATION_TOKEN, 3, DescribeDelegationTokenRequest(owners=wanted or None))
    assert answer.error_code == 0
    return {token.token_id: token for token in answer.tokens}


def secret_of(token: Any) -> str:
    return base64.b64encode(bytes(token.hmac)).decode()


def log_in(secured: Secured, token: Any) -> tuple[Wire, Any]:
    return connect(secured, token.token_id, secret_of(token), is_token=True)


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_token_is_a_way_in(secured: Secured, alice: Wire, version: int) -> None:
    made = create(alice, "bob", version=version)
    assert (made.error_code, made.principal_type, made.principal_name) == (0, "User", USER)
    assert made.expiry_timestamp_ms - made.issue_timestamp_ms == DAY_MS
    assert made.max_timestamp_ms - made.issue_timestamp_ms == 7 * DAY_MS
    wire, answer = log_in(secured, made)
    with wire:
        assert answer.error_code == 0
        assert 0 < answer.session_lifetime_ms <= DAY_MS
        assert wire.call(ApiKey.METADATA, 12, MetadataRequest(topics=[])).brokers
        # A token is not a way to more tokens.
        not_allowed = ErrorCode.DELEGATION_TOKEN_REQUEST_NOT_ALLOWED
        assert create(wire).error_code == not_allowed
        assert renew(wire, bytes(made.hmac)).error_code == not_allowed
        assert expire(wire, bytes(made.hmac)).error_code == not_allowed


def test_a_token_that_prolongs_a_session_is_no_way_to_more_tokens(secured: Secured, alice: Wire) -> None:
    """Else whoever was removed would go on for ever, by a new token before the last one's end."""
    made = create(alice)
    by_token = Security(mechanism="SCRAM-SHA-256", user=made.token_id, password=secret_of(made), is_token_auth=True)
    assert authenticate(alice, by_token).error_code == 0
    assert create(alice).error_code == ErrorCode.DELEGATION_TOKEN_REQUEST_NOT_ALLOWED
    wire, answer = log_in(secured, made)
    with wire:
        assert answer.error_code == 0
        by_password = Security(mechanism="SCRAM-SHA-256", user=USER, password=PASSWORD)
        assert authenticate(wire, by_password).error_code == 0
        assert create(wire).error_code == 0, "as in Kafka, the newest proof counts"


def test_what_is_no_token(secured: Secured, alice: Wire) -> None:
    made = create(alice)
    secret = secret_of(made)
    for name, password, is_token in (
        (made.token_id, secret, False), (made.token_id, "x", True), ("nothing", secret, True), (USER, PASSWORD, True),
    ):  # fmt: skip
        wire, answer = connect(secured, name, password, is_token=is_token)
        with wire:
            assert answer.error_code == ErrorCode.SASL_AUTHENTICATION_FAILED


def test_who_is_shown_a_token_and_may_renew_it(secured: Secured, alice: Wire, bob: Wire) -> None:
    shared, own = create(alice, "bob", lifetime_ms=3_600_000), create(alice)
    assert shared.max_timestamp_ms - shared.issue_timestamp_ms == 3_600_000
    assert shared.expiry_timestamp_ms == shared.max_timestamp_ms
    seen = described(alice)
    assert {shared.token_id, own.token_id} <= set(seen)
    token = seen[shared.token_id]
    assert bytes(token.hmac) == bytes(shared.hmac)
    assert [renewer.principal_name for renewer in token.renewers] == ["bob"]
    assert own.token_id not in described(bob)
    assert shared.token_id in described(bob)
    assert shared.token_id in described(bob, USER)
    assert shared.token_id in described(bob, "bob")
    assert described(bob, "carol") == {}
    renewed = renew(bob, bytes(shared.hmac), 60_000)
    assert renewed.error_code == 0
    assert renewed.expiry_timestamp_ms < shared.expiry_timestamp_ms
    assert renew(bob, bytes(own.hmac)).error_code == ErrorCode.DELEGATION_TOKEN_OWNER_MISMATCH
    assert expire(bob, bytes(own.hmac)).error_code == ErrorCode.DELEGATION_TOKEN_OWNER_MISMATCH
    assert renew(alice, b"no such secret").error_code == ErrorCode.DELEGATION_TOKEN_NOT_FOUND


def test_a_token_ends(secured: Secured, alice: Wire) -> None:
    made = create(alice)
    assert expire(alice, bytes(made.hmac), 60_000).error_code == 0
    assert log_in(secured, made)[1].error_code == 0
    assert expire(alice, bytes(made.hmac), 0).error_code == 0
    assert log_in(secured, made)[1].error_code == ErrorCode.SASL_AUTHENTICATION_FAILED
    assert renew(alice, bytes(made.hmac)).error_code == ErrorCode.DELEGATION_TOKEN_EXPIRED
    assert made.token_id not in described(alice)
    other = create(alice)
    assert expire(alice, bytes(other.hmac)).error_code == 0
    assert renew(alice, bytes(other.hmac)).error_code == ErrorCode.DELEGATION_TOKEN_NOT_FOUND


def test_tokens_that_are_not_made(secured: Secured, alice: Wire) -> None:
    assert create(alice, owner="bob").error_code == ErrorCode.DELEGATION_TOKEN_AUTHORIZATION_FAILED
    assert create(alice, owner=USER).error_code == 0
    assert create(alice, "x", kind="Group").error_code == ErrorCode.INVALID_PRINCIPAL_TYPE
    assert create(alice, "").error_code == 0
    assert create(alice, "x" * 2_000, "y" * 2_000, "z" * 2_000).error_code == ErrorCode.INVALID_REQUEST
    with Wire(secured.plaintext) as wire:
        assert create(wire).error_code == ErrorCode.DELEGATION_TOKEN_REQUEST_NOT_ALLOWED


def test_without_a_key_there_are_none(tmp_path_factory: pytest.TempPathFactory) -> None:
    secured = Secured(tmp_path_factory.mktemp("no-tokens"))
    secured.server.start()
    wire, _ = connect(secured)
    with wire:
        disabled = ErrorCode.DELEGATION_TOKEN_AUTH_DISABLED
        assert create(wire).error_code == disabled
        assert renew(wire, b"x").error_code == disabled
        assert expire(wire, b"x").error_code == disabled
        request = DescribeDelegationTokenRequest(owners=None)
        assert wire.call(ApiKey.DESCRIBE_DELEGATION_TOKEN, 3, request).error_code == disabled
    assert secured.server.stop() == 0


def test_kafkas_own_tool(secured: Secured, tools: ToolRunner) -> None:
    admin = str(secured.properties("SASL_SSL", "SCRAM-SHA-512"))
    where = ("--bootstrap-server", secured.at("SASL_SSL"), "--command-config")

    tokens = "org.apache.kafka.tools.DelegationTokenCommand"
    made = tools.run(
        tokens, "--create", "--max-life-time-period", "-1", "--renewer-principal", "User:bob", *where, admin
    )
    found = re.search(rf"^(\S+)\s+(\S+)\s+User:{USER}", made, re.MULTILINE)
    assert found is not None, made
    token_id, hmac = found.groups()
    module = "org.apache.kafka.common.security.scram.ScramLoginModule"
    login = f'{module} required username="{token_id}" password="{hmac}" tokenauth="true";'
    holder = str(secured.properties("SASL_SSL", "SCRAM-SHA-512", sasl_jaas_config=login))
    tools.run("org.apache.kafka.tools.TopicCommand", "--list", *where, holder)
    assert token_id in tools.run(tokens, "--describe", "--owner-principal", f"User:{USER}", *where, admin)
    tools.run(tokens, "--renew", "--renew-time-period", "-1", "--hmac", hmac, *where, admin)
    tools.run(tokens, "--expire", "--expiry-time-period", "-1", "--hmac", hmac, *where, admin)
    assert token_id not in tools.run(tokens, "--describe", "--owner-principal", f"User:{USER}", *where, admin)
