"""Tokens and client certificates: which virtual cluster their authority lets them into, or none."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fixtures.raw_client import ConnectionClosed
from fixtures.secured import Secured
from fixtures.tenants import Tenant, log_in
from fixtures.token_issuer import AUDIENCE, TokenIssuer, answers_of_bearer
from fixtures.waiting import eventually
from fixtures.wire import batch

from penstock.wire.api_keys import ApiKey as K
from penstock.wire.messages.create_virtual_cluster import CreateVirtualClusterRequest
from penstock.wire.messages.delete_virtual_cluster import DeleteVirtualClusterRequest
from penstock.wire.messages.enter_cluster import EnterClusterRequest

pytestmark = pytest.mark.differs("the reference is not started with these listeners")
RULES = r"RULE:^CN=operator,.*$/platform/,RULE:^CN=guest$/default/,RULE:^.*,O=([^,]+)$/$1/"
SUFFIX = "kafka.test"


@pytest.fixture(scope="module")
def issuer() -> Iterator[TokenIssuer]:
    issuer = TokenIssuer()
    yield issuer
    issuer.close()


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory, issuer: TokenIssuer) -> Iterator[Secured]:
    settings = {"super.users": "User:alice", "connection.failed.authentication.delay.ms": "0"}
    secured = Secured(
        tmp_path_factory.mktemp("logins"), settings, cluster_rules=RULES, authorities=("beta", "nobody"),
        issuer=issuer.url, audience=AUDIENCE, cluster_claim="clusters", clusters=["*", "default"],
    )  # fmt: skip
    secured.server.start()
    yield secured
    assert secured.server.stop() == 0
    assert "Traceback" not in secured.server.log_tail(limit=10**9)


@pytest.fixture(scope="module")
def clusters(secured: Secured) -> dict[str, str]:
    """The ids, by which a client is told where it is, of some clusters."""
    with log_in(secured) as admin:
        ids = {}
        for name in ("acme", "beta"):
            made = admin.call(
                K.CREATE_VIRTUAL_CLUSTER, 0, CreateVirtualClusterRequest(name=name, environment="default")
            )
            assert made.error_code == 0, made.error_message
        for name in ("acme", "beta", "platform", "default"):
            assert admin.call(K.ENTER_CLUSTER, 0, EnterClusterRequest(name=name)).error_code == 0
            ids[name] = str(admin.metadata([]).cluster_id)
    return ids


# ---- tokens ---------------------------------------------------------------------------------------------------------

LET_IN = [(0, b"")]
NO_TOKEN = [(0, b'{"status":"invalid_token"}'), (58, b"")]
"""RFC 7628: the failure is described, acknowledged, and only then told. So is that of a token that is none."""


def by_token(
    secured: Secured, token: str, cluster: str | None = None, server_name: str | None = None
) -> tuple[list[Any], str | None]:
    """What a token's holder is answered, and in which cluster they are then."""
    wire = secured.wire("SASL_SSL") if server_name is None else secured.named("SASL_SSL", server_name)
    with wire:
        answers = answers_of_bearer(wire, token, cluster)
        return answers, str(wire.metadata([]).cluster_id) if answers == LET_IN else None


def test_what_a_wrong_token_is_answered(secured: Secured, issuer: TokenIssuer) -> None:
    assert by_token(secured, issuer.token(aud="other", clusters="acme")) == (NO_TOKEN, None)


@pytest.mark.parametrize(
    ("claim", "extension", "server_name", "expected"),
    [
        ("acme", None, None, "acme"),
        ("acme", "acme", None, "acme"),
        ("acme", None, "acme", "acme"),
        ("acme", "acme", "acme", "acme"),
        (["acme", "beta"], "beta", None, "beta"),
        (["acme", "beta"], None, "beta", "beta"),
        (["acme", "nobody"], None, None, "acme"),
        ("default", None, None, "default"),
        # Nobody is where their token does not say, whatever they ask for, be there a cluster of that name or not.
        ("acme", "beta", None, None),
        ("acme", "nobody", None, None),
        ("acme", "default", None, None),
        ("acme", "platform", None, None),
        ("acme", None, "beta", None),
        ("acme", None, "nobody", None),
        ("acme", "acme", "beta", None),
        (["acme", "beta"], "beta", "acme", None),
        (["acme", "beta"], None, None, None),
        ("nobody", None, None, None),
        ("nobody", "nobody", "nobody", None),
        ("platform", None, None, None),
        ("platform", "platform", None, None),
        (["acme", "platform"], "platform", None, None),
        (None, None, None, None),
        (None, "acme", None, None),
        (None, "default", None, None),
        (None, None, "acme", None),
    ],
)
def test_where_a_token_puts_its_holder(
    secured: Secured, issuer: TokenIssuer, clusters: dict[str, str], claim: Any, extension: str | None,
    server_name: str | None, expected: str | None,
) -> None:  # fmt: skip
    token = issuer.token(**({} if claim is None else {"clusters": claim}))
    answers, found = by_token(secured, token, extension, None if server_name is None else f"{server_name}.{SUFFIX}")
    assert (answers, found) == ((LET_IN, clusters[expected]) if expected is not None else (NO_TOKEN, None))


def test_a_session_that_is_prolonged_stays_in_its_cluster(
    secured: Secured, issuer: TokenIssuer, clusters: dict[str, str]
) -> None:
    both = issuer.token(clusters=["acme", "beta"])
    with secured.wire("SASL_SSL") as wire:
        assert answers_of_bearer(wire, both, "acme") == LET_IN
        assert answers_of_bearer(wire, issuer.token(clusters="acme")) == LET_IN
        assert wire.metadata([]).cluster_id == clusters["acme"]
        time.sleep(1.1)  # Nobody authenticates again all the time.
        assert answers_of_bearer(wire, both, "beta") == [(58, b"")]
        assert wire.is_closed_by_broker()


def test_a_token_of_a_cluster_that_goes_opens_nothing(secured: Secured, issuer: TokenIssuer) -> None:
    tenant = Tenant(secured, "goes")
    token, certificate = issuer.token(clusters="goes"), secured.authority.client("app", organization="goes")
    assert by_token(secured, token) == (LET_IN, tenant.kafka_id)
    with secured.wire("SASL_SSL") as wire, secured.wire("SSL", *certificate) as other, log_in(secured) as admin:
        assert answers_of_bearer(wire, token) == LET_IN
        assert other.metadata([]).cluster_id == tenant.kafka_id
        answer = admin.call(K.DELETE_VIRTUAL_CLUSTER, 0, DeleteVirtualClusterRequest(name="goes"))
        assert answer.error_code == 0, answer.error_message
        assert by_token(secured, token) == (NO_TOKEN, None)
        assert by_token(secured, token, "goes", f"goes.{SUFFIX}") == (NO_TOKEN, None)
        assert by_certificate(secured, certificate) is None
        assert wire.is_closed_by_broker()
        eventually(other.is_closed_by_broker, what="the end of its connections")


def test_librdkafka_says_by_an_extension_where_it_wants_to_be(
    secured: Secured, issuer: TokenIssuer, clusters: dict[str, str]
) -> None:
    from confluent_kafka import Producer

    def producer(extensions: dict[str, str]) -> Producer:
        token = issuer.token(clusters=["acme", "beta"])
        return Producer(
            {
                "bootstrap.servers": secured.at("SASL_SSL"), "security.protocol": "SASL_SSL",
                "sasl.mechanism": "OAUTHBEARER", "ssl.ca.location": str(secured.authority.ca),
                "oauth_cb": lambda _: (token, time.time() + 600, "alice", extensions),
            }
        )  # fmt: skip

    sending = producer({"logicalCluster": "beta"})
    sending.produce("by-extension", b"one")
    assert sending.flush(30) == 0
    with secured.wire("SASL_SSL") as wire:
        assert answers_of_bearer(wire, issuer.token(clusters="beta")) == LET_IN
        assert [bytes(record.value or b"") for record in wire.fetch_records("by-extension")] == [b"one"]


# ---- certificates ---------------------------------------------------------------------------------------------------


def by_certificate(secured: Secured, certificate: tuple[Path, Path], server_name: str | None = None) -> str | None:
    """The cluster that a certificate's holder gets into; None if they are turned away after the handshake."""
    name = "localhost" if server_name is None else server_name
    with secured.named("SSL", name, *certificate) as wire:
        try:
            found = wire.metadata([])
        except (ssl.SSLError, ConnectionError, ConnectionClosed):
            return None
        # They come back by the name that said where they are.
        assert found.brokers[0].host == ("127.0.0.1" if server_name is None else server_name)
        return str(found.cluster_id)


@pytest.mark.parametrize(
    ("name", "organization", "server_name", "expected"),
    [
        ("app", "acme", None, "acme"),
        ("app", "acme", "acme", "acme"),
        ("app", "beta", None, "beta"),
        ("operator", "acme", None, "platform"),
        ("guest", None, None, "default"),
        ("guest", None, "default", "default"),
        ("app", "acme", "beta", None),
        ("app", "acme", "nobody", None),
        ("app", "acme", "default", None),
        ("app", "nobody", None, None),
        ("app", "nobody", "nobody", None),
        ("app", "default", None, None),
        ("app", "platform", None, None),
        ("app", "platform", "platform", None),
        ("app", None, None, None),
        # What somebody is called is no attribute.
        ("app,O=acme", "beta", None, "beta"),
        ("app,O=acme", None, None, None),
    ],
)
def test_where_a_certificate_puts_its_holder(
    secured: Secured, clusters: dict[str, str], name: str, organization: str | None, server_name: str | None,
    expected: str | None,
) -> None:  # fmt: skip
    certificate = secured.authority.client(name, organization=organization)
    asked = None if server_name is None else f"{server_name}.{SUFFIX}"
    found = by_certificate(secured, certificate, asked)
    assert found == (None if expected is None else clusters[expected])


@pytest.mark.parametrize(
    ("authority", "server_name", "expected"),
    [
        ("beta", None, "beta"),
        ("beta", "beta", "beta"),
        ("beta", "acme", None),
        ("beta", "nobody", None),
        ("nobody", None, None),
        ("nobody", "nobody", None),
    ],
)
def test_a_cluster_s_own_authority_vouches_for_that_cluster_whatever_it_writes(
    secured: Secured, clusters: dict[str, str], authority: str, server_name: str | None, expected: str | None
) -> None:
    asked = None if server_name is None else f"{server_name}.{SUFFIX}"
    for name, organization in (("app", "acme"), ("operator", "acme"), ("guest", None)):
        certificate = secured.authorities[authority].client(name, organization=organization)
        found = by_certificate(secured, certificate, asked)
        assert found == (None if expected is None else clusters[expected])


def test_tenants_by_certificate_do_not_meet(secured: Secured, clusters: dict[str, str]) -> None:
    acme, beta = (secured.authority.client(f"app-of-{name}", organization=name) for name in ("acme", "beta"))
    with secured.wire("SSL", *acme) as one:
        topic_id = one.create_topic("by-certificate")
        assert one.produce("by-certificate", batch(b"theirs")).error_code == 0
    with secured.wire("SSL", *beta) as other:
        assert other.metadata(["by-certificate"]).topics[0].error_code == 3
        assert other.create_topic("by-certificate") != topic_id
        assert other.fetch_records("by-certificate") == []
