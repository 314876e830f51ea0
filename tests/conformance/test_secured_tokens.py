"""OAUTHBEARER: on the wire, and by the clients that speak it, unmodified."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fixtures import programs
from fixtures.raw_client import ConnectionClosed
from fixtures.secured import Secured
from fixtures.token_issuer import AUDIENCE, TokenIssuer
from fixtures.waiting import eventually
from fixtures.wire import Wire

from penstock.wire.api_keys import ApiKey
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages.metadata import MetadataRequest
from penstock.wire.messages.sasl_authenticate import SaslAuthenticateRequest
from penstock.wire.messages.sasl_handshake import SaslHandshakeRequest

pytestmark = [
    pytest.mark.differs("the reference is not started with these listeners"),
    pytest.mark.timeout(1200),  # Includes downloading Java clients with cold caches.
]
EVERYTHING = MetadataRequest(topics=[])
TOKEN_S, REFRESH_S = 6, 2


@pytest.fixture(scope="module")
def issuer() -> Iterator[TokenIssuer]:
    issuer = TokenIssuer()
    yield issuer
    issuer.close()


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory, issuer: TokenIssuer) -> Iterator[Secured]:
    secured = Secured(tmp_path_factory.mktemp("tokens"), issuer=issuer.url, audience=AUDIENCE)
    secured.server.start()
    yield secured
    assert secured.server.stop() == 0
    assert "Traceback" not in secured.server.log_tail(limit=10**9)


def show(wire: Wire, token: str, authorization_id: str = "") -> Any:
    shaken = wire.call(ApiKey.SASL_HANDSHAKE, 1, SaslHandshakeRequest(mechanism="OAUTHBEARER"))
    assert shaken.error_code == 0
    who = f"a={authorization_id}" if authorization_id else ""
    message = f"n,{who},\x01auth=Bearer {token}\x01\x01".encode()
    return wire.call(ApiKey.SASL_AUTHENTICATE, 2, SaslAuthenticateRequest(auth_bytes=message))


def test_a_session_ends_with_its_token(secured: Secured, issuer: TokenIssuer) -> None:
    with secured.wire("SASL_SSL") as wire:
        answer = show(wire, issuer.token(lifetime_s=3), "alice")
        assert (answer.error_code, bytes(answer.auth_bytes)) == (0, b"")
        assert 1000 < answer.session_lifetime_ms <= 3000
        assert wire.call(ApiKey.METADATA, 12, EVERYTHING).brokers
        time.sleep(answer.session_lifetime_ms / 1000 + 0.2)
        with pytest.raises(ConnectionClosed):
            wire.call(ApiKey.METADATA, 12, EVERYTHING)


def test_a_session_is_prolonged_by_a_token_of_the_same_principal(secured: Secured, issuer: TokenIssuer) -> None:
    with secured.wire("SASL_SSL") as wire:
        show(wire, issuer.token(lifetime_s=3))
        answer = show(wire, issuer.token())
        assert answer.session_lifetime_ms > 3_000_000
        time.sleep(1.1)
        refused = show(wire, issuer.token("bob"))
        assert refused.error_code == ErrorCode.SASL_AUTHENTICATION_FAILED
        assert wire.is_closed_by_broker()


def test_a_token_that_is_refused(secured: Secured, issuer: TokenIssuer) -> None:
    """RFC 7628: the failure is described first, acknowledged by the client, and only then told."""
    for token in ("x.y.z", issuer.token(aud="other"), issuer.token(lifetime_s=-100)):
        with secured.wire("SASL_PLAINTEXT") as wire:
            answer = show(wire, token)
            assert (answer.error_code, bytes(answer.auth_bytes)) == (0, b'{"status":"invalid_token"}')
            last = wire.call(ApiKey.SASL_AUTHENTICATE, 2, SaslAuthenticateRequest(auth_bytes=b"\x01"))
            assert last.error_code == ErrorCode.SASL_AUTHENTICATION_FAILED
            assert last.error_message == '{"status":"invalid_token"}'
            assert wire.is_closed_by_broker()
    with secured.wire("SASL_PLAINTEXT") as wire:
        assert show(wire, issuer.token(), "bob").error_code == ErrorCode.SASL_AUTHENTICATION_FAILED
    with secured.wire("SASL_PLAINTEXT") as wire:
        shaken = wire.call(ApiKey.SASL_HANDSHAKE, 1, SaslHandshakeRequest(mechanism="OAUTHBEARER"))
        assert shaken.error_code == 0
        answer = wire.call(ApiKey.SASL_AUTHENTICATE, 2, SaslAuthenticateRequest(auth_bytes=b"nonsense"))
        assert answer.error_code == ErrorCode.SASL_AUTHENTICATION_FAILED


def test_librdkafka(secured: Secured, issuer: TokenIssuer, fresh_name: Callable[..., str]) -> None:
    from confluent_kafka import Consumer, Producer

    config = {
        "bootstrap.servers": secured.at("SASL_SSL"), "security.protocol": "SASL_SSL", "sasl.mechanism": "OAUTHBEARER",
        "ssl.ca.location": str(secured.authority.ca),
        "oauth_cb": lambda _: (issuer.token(lifetime_s=20), time.time() + 20),
    }  # fmt: skip
    topic = fresh_name()
    producer = Producer(config)
    producer.produce(topic, b"one")
    assert producer.flush(30) == 0
    consumer = Consumer({**config, "group.id": topic, "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    message = consumer.poll(30)
    assert message is not None
    assert message.value() == b"one"
    consumer.close()


def test_librdkafka_stays_connected_for_longer_than_its_tokens_are_good(
    secured: Secured, issuer: TokenIssuer, fresh_name: Callable[..., str]
) -> None:
    from confluent_kafka import KafkaError, Producer

    problems, tokens, offsets = list[KafkaError](), list[str](), list[int]()

    def refresh(_: str) -> tuple[str, float]:
        tokens.append(issuer.token(lifetime_s=TOKEN_S))
        # It looks for old tokens once a second, later than it uses them for such short lives. A token that ends within
        # the second that has to pass between two renewals costs the connection, as in Kafka.
        return tokens[-1], int(time.time()) + REFRESH_S

    def say(word: bytes) -> None:
        producer.produce(topic, word, on_delivery=lambda _, delivered: offsets.append(delivered.offset()))
        assert producer.flush(30) == 0

    def renewed() -> int:
        producer.poll(0)  # Tokens are refreshed here.
        return counted(secured)[1]

    logins, renewals = counted(secured)
    producer = Producer(
        {
            "bootstrap.servers": secured.at("SASL_SSL"), "security.protocol": "SASL_SSL",
            "sasl.mechanism": "OAUTHBEARER", "ssl.ca.location": str(secured.authority.ca),
            "oauth_cb": refresh, "error_cb": problems.append,
        }
    )  # fmt: skip
    topic = fresh_name()
    say(b"at first")
    connections = counted(secured)[0] - logins
    for lifetime in range(1, 4):
        target = renewals + lifetime * connections
        eventually(lambda target=target: renewed() >= target, what="all connections authenticating again")
        say(b"still there")
    assert counted(secured)[0] == logins + connections, "nothing had to connect again"
    assert offsets == [0, 1, 2, 3]
    assert len(tokens) >= 4
    assert problems == []


def counted(secured: Secured) -> tuple[int, int]:
    """How many times clients have logged in, and have authenticated again."""
    page = secured.server.http_text("/metrics")
    found = dict(re.findall(r"^penstock_(authentications|reauthentications)_total (\d+)", page, re.MULTILINE))
    return int(found["authentications"]), int(found["reauthentications"])


async def test_aiokafka(secured: Secured, issuer: TokenIssuer, fresh_name: Callable[..., str]) -> None:
    from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
    from aiokafka.abc import AbstractTokenProvider

    class Provider(AbstractTokenProvider):
        async def token(self) -> str:
            return issuer.token()

    config: dict[str, Any] = {
        "bootstrap_servers": secured.at("SASL_SSL"), "security_protocol": "SASL_SSL", "sasl_mechanism": "OAUTHBEARER",
        "ssl_context": secured.context(), "sasl_oauth_token_provider": Provider(),
    }  # fmt: skip
    topic = fresh_name()
    async with AIOKafkaProducer(**config) as producer:
        await producer.send_and_wait(topic, b"one")
    async with AIOKafkaConsumer(topic, **config, auto_offset_reset="earliest") as consumer:
        assert (await consumer.getone()).value == b"one"


def test_kafka_python(secured: Secured, issuer: TokenIssuer, fresh_name: Callable[..., str]) -> None:
    from kafka import KafkaProducer
    from kafka.net.sasl.oauth import AbstractTokenProvider

    class Provider(AbstractTokenProvider):
        def token(self) -> str:
            return issuer.token()

    producer = KafkaProducer(
        bootstrap_servers=secured.at("SASL_SSL"), security_protocol="SASL_SSL", sasl_mechanism="OAUTHBEARER",
        ssl_cafile=str(secured.authority.ca), sasl_oauth_token_provider=Provider(),
    )  # fmt: skip
    assert producer.send(fresh_name(), b"one").get(30).offset == 0
    producer.close()


def test_java(secured: Secured, issuer: TokenIssuer, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(issuer.token())
    handler = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginCallbackHandler"
    properties = secured.properties(
        "SASL_SSL", "OAUTHBEARER", sasl_login_callback_handler_class=handler,
        sasl_oauthbearer_token_endpoint_url=token.as_uri(),
        sasl_jaas_config="org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required;",
    )  # fmt: skip
    command = programs.kafka_tool(
        "org.apache.kafka.tools.TopicCommand", "--list", "--bootstrap-server", secured.at("SASL_SSL"),
        "--command-config", str(properties),
    )  # fmt: skip
    command.insert(1, f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={token.as_uri()}")
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_command_line(secured: Secured, issuer: TokenIssuer) -> None:
    from click.testing import CliRunner

    from penstock.cli.main import cli

    file = secured.properties("SASL_SSL", sasl_mechanism="OAUTHBEARER")
    words = ["topic", "list", "-b", secured.at("SASL_SSL"), "--client-config", str(file)]
    done = CliRunner(env={"PENSTOCK_TOKEN": issuer.token()}).invoke(cli, words)
    assert done.exit_code == 0, done.output
    done = CliRunner(env={"PENSTOCK_TOKEN": issuer.token(aud="x")}).invoke(cli, words)
    assert done.exit_code == 1
    assert "refuses the token" in done.output


def test_a_rotated_key_is_found(secured: Secured, issuer: TokenIssuer) -> None:
    """Last, because tokens of the former key are no good afterwards."""
    issuer.rotate()
    deadline = time.monotonic() + 30
    while True:
        with secured.wire("SASL_PLAINTEXT") as wire:
            if not bytes(show(wire, issuer.token()).auth_bytes):
                return
        assert time.monotonic() < deadline
        time.sleep(0.5)
