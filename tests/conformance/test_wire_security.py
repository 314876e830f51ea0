"""TLS and SASL on the wire: who is authenticated, what may be sent before that, and how failures end."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import ssl
import time
import warnings
from collections.abc import Iterator
from struct import pack
from typing import Any

import pytest
from fixtures.raw_client import ConnectionClosed
from fixtures.secured import PASSWORD, USER, Secured
from fixtures.waiting import eventually
from fixtures.wire import Wire, batch

from penstock.cli.kafka import sasl
from penstock.cli.kafka.client_config import Security
from penstock.wire.api_keys import ApiKey
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages.alter_user_scram_credentials import (
    AlterUserScramCredentialsRequest,
    ScramCredentialDeletion,
    ScramCredentialUpsertion,
)
from penstock.wire.messages.api_versions import ApiVersionsRequest
from penstock.wire.messages.describe_user_scram_credentials import DescribeUserScramCredentialsRequest, UserName
from penstock.wire.messages.metadata import MetadataRequest
from penstock.wire.messages.sasl_authenticate import SaslAuthenticateRequest
from penstock.wire.messages.sasl_handshake import SaslHandshakeRequest

pytestmark = pytest.mark.differs("the reference is not started with these listeners")
VERSIONS = ApiVersionsRequest(client_software_name="raw", client_software_version="1")
EVERYTHING = MetadataRequest(topics=[])


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    secured = Secured(tmp_path_factory.mktemp("secured"))
    secured.server.start()
    yield secured
    assert secured.server.stop() == 0
    log = secured.server.log_tail(limit=10**9)
    assert "Traceback" not in log
    assert PASSWORD not in log


def shake(wire: Wire, mechanism: str, version: int = 1) -> Any:
    return wire.call(ApiKey.SASL_HANDSHAKE, version, SaslHandshakeRequest(mechanism=mechanism))


def prove(wire: Wire, token: bytes, version: int = 2) -> Any:
    return wire.call(ApiKey.SASL_AUTHENTICATE, version, SaslAuthenticateRequest(auth_bytes=token))


def plain(user: str = USER, password: str = PASSWORD, authorization_id: str = "") -> bytes:
    return "\0".join((authorization_id, user, password)).encode()


def log_in(wire: Wire, mechanism: str, user: str = USER, password: str = PASSWORD) -> Any:
    """The last answer of a whole exchange."""
    assert shake(wire, mechanism).error_code == 0
    exchange = sasl.messages(Security(mechanism=mechanism, user=user, password=password), "abcdefgh")
    token = next(exchange)
    while True:
        answer = prove(wire, token)
        if answer.error_code:
            return answer
        try:
            token = exchange.send(bytes(answer.auth_bytes))
        except StopIteration:
            return answer


# ---- who is let in -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["SASL_PLAINTEXT", "SASL_SSL"])
@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_every_mechanism_lets_in_who_knows_the_password(secured: Secured, protocol: str, mechanism: str) -> None:
    with secured.wire(protocol) as wire:
        assert wire.call(ApiKey.API_VERSIONS, 4, VERSIONS).error_code == 0
        answer = log_in(wire, mechanism)
        assert (answer.error_code, answer.session_lifetime_ms) == (0, 0)
        (broker,) = wire.call(ApiKey.METADATA, 12, EVERYTHING).brokers
        assert f"{broker.host}:{broker.port}" == secured.at(protocol)


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
@pytest.mark.parametrize(
    ("user", "password"), [(USER, "wrong"), ("nobody", PASSWORD), ("", PASSWORD + "x"), (USER, "")]
)
def test_a_wrong_credential_is_told_so_after_a_while(
    secured: Secured, mechanism: str, user: str, password: str
) -> None:
    if mechanism != "PLAIN" and not user:
        pytest.skip("SCRAM has no message without a name")
    with secured.wire("SASL_PLAINTEXT") as wire:
        assert shake(wire, mechanism).error_code == 0
        began = time.monotonic()
        if mechanism == "PLAIN":
            answer = prove(wire, plain(user, password))
        else:
            exchange = sasl.messages(Security(mechanism=mechanism, user=user, password=password), "abcdefgh")
            challenge = prove(wire, next(exchange))
            assert challenge.error_code == 0
            answer = prove(wire, exchange.send(bytes(challenge.auth_bytes)))
        assert time.monotonic() - began >= 0.1
        assert answer.error_code == ErrorCode.SASL_AUTHENTICATION_FAILED
        assert "Authentication failed" in answer.error_message
        assert wire.is_closed_by_broker()


def test_who_does_not_exist_is_answered_like_who_does(secured: Secured) -> None:
    """The same steps, the same words, and a challenge that does not change."""
    challenges = []
    for user in (USER, "nobody", "nobody"):
        with secured.wire("SASL_PLAINTEXT") as wire:
            shake(wire, "SCRAM-SHA-512")
            answer = prove(wire, f"n,,n={user},r=abc".encode())
            assert answer.error_code == 0
            nonce, salt, iterations = bytes(answer.auth_bytes).decode().split(",")
            assert nonce.startswith("r=abc")
            assert len(base64.b64decode(salt[2:])) in (16, 24, 25, 26)
            challenges.append((salt, iterations))
    assert challenges[1] == challenges[2]


def test_raw_tokens_after_a_handshake_of_version_0(secured: Secured) -> None:
    for token, frames in ((plain(), 1), (plain(password="wrong"), 0)):
        with secured.wire("SASL_PLAINTEXT") as wire:
            assert shake(wire, "PLAIN", 0).error_code == 0
            wire.send_bytes(pack(">i", len(token)) + token)
            if frames:
                assert wire.receive_frame() == b""
                assert wire.call(ApiKey.METADATA, 12, EVERYTHING).brokers
            else:
                assert wire.is_closed_by_broker()


def test_raw_tokens_of_scram(secured: Secured) -> None:
    with secured.wire("SASL_SSL") as wire:
        shake(wire, "SCRAM-SHA-256", 0)
        exchange = sasl.messages(Security(mechanism="SCRAM-SHA-256", user=USER, password=PASSWORD), "abcdefgh")
        token = next(exchange)
        for _ in range(2):
            wire.send_bytes(pack(">i", len(token)) + token)
            try:
                token = exchange.send(wire.receive_frame())
            except StopIteration:
                break
        assert wire.call(ApiKey.METADATA, 12, EVERYTHING).brokers


# ---- what is asked before that -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key", [ApiKey.METADATA, ApiKey.PRODUCE, ApiKey.FETCH, ApiKey.SASL_AUTHENTICATE, ApiKey.LIST_GROUPS]
)
def test_nothing_is_served_before_authentication(secured: Secured, key: ApiKey) -> None:
    for steps in range(3):
        with secured.wire("SASL_PLAINTEXT") as wire:
            if steps:
                assert wire.call(ApiKey.API_VERSIONS, 4, VERSIONS).error_code == 0
            if steps == 2:
                assert shake(wire, "PLAIN").error_code == 0
                if key == ApiKey.SASL_AUTHENTICATE:
                    continue
            head = key.to_bytes(2) + (0).to_bytes(2) + (1).to_bytes(4) + b"\xff\xff"
            wire.send_bytes(pack(">i", len(head) + 64) + head + bytes(64))
            assert wire.is_closed_by_broker()


def test_requests_sent_along_with_the_proof_wait_for_it(secured: Secured) -> None:
    with secured.wire("SASL_PLAINTEXT") as wire:
        shake(wire, "PLAIN")
        sent = wire.send(ApiKey.SASL_AUTHENTICATE, 2, SaslAuthenticateRequest(auth_bytes=plain()))
        behind = wire.send(ApiKey.METADATA, 12, EVERYTHING)
        assert wire.receive(ApiKey.SASL_AUTHENTICATE, 2, sent).error_code == 0
        assert wire.receive(ApiKey.METADATA, 12, behind).brokers
    with secured.wire("SASL_PLAINTEXT") as wire:
        shake(wire, "PLAIN")
        sent = wire.send(ApiKey.SASL_AUTHENTICATE, 2, SaslAuthenticateRequest(auth_bytes=plain(password="wrong")))
        wire.send(ApiKey.METADATA, 12, EVERYTHING)
        assert wire.receive(ApiKey.SASL_AUTHENTICATE, 2, sent).error_code == ErrorCode.SASL_AUTHENTICATION_FAILED
        assert wire.is_closed_by_broker()


def test_mechanisms_that_are_not_offered(secured: Secured) -> None:
    for mechanism in ("GSSAPI", "OAUTHBEARER", "", "plain"):
        with secured.wire("SASL_PLAINTEXT") as wire:
            answer = shake(wire, mechanism)
            assert answer.error_code == ErrorCode.UNSUPPORTED_SASL_MECHANISM
            assert answer.mechanisms == ["SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"]
            assert wire.is_closed_by_broker()


def test_sasl_where_it_is_not_asked_for(secured: Secured) -> None:
    with Wire(secured.plaintext) as wire:
        assert shake(wire, "PLAIN").error_code == ErrorCode.ILLEGAL_SASL_STATE
        assert prove(wire, plain()).error_code == ErrorCode.ILLEGAL_SASL_STATE
        assert wire.call(ApiKey.METADATA, 12, EVERYTHING).brokers
    with secured.wire("SASL_PLAINTEXT") as wire:
        log_in(wire, "PLAIN")
        assert shake(wire, "PLAIN").error_code == ErrorCode.ILLEGAL_SASL_STATE
        assert prove(wire, plain()).error_code == ErrorCode.ILLEGAL_SASL_STATE
        assert wire.call(ApiKey.METADATA, 12, EVERYTHING).brokers


def test_who_has_proven_nothing_gets_no_memory(secured: Secured) -> None:
    with secured.wire("SASL_PLAINTEXT") as wire:
        wire.send_bytes(pack(">i", 524_289))
        assert wire.is_closed_by_broker()
    with secured.wire("SASL_PLAINTEXT") as wire:
        log_in(wire, "PLAIN")
        topic = "large-after-login"
        wire.create_topic(topic)
        wire.produce(topic, batch(b"x" * 900_000))


@pytest.mark.parametrize("token", [b"", b"\0", b"\xff" * 100, b"n,,n=a,r=b", plain("a" * 100_000), b"\0alice\0a\0b"])
@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512"])
def test_tokens_that_are_none(secured: Secured, mechanism: str, token: bytes) -> None:
    with secured.wire("SASL_PLAINTEXT") as wire:
        shake(wire, mechanism)
        answer = prove(wire, token)
        if mechanism == "SCRAM-SHA-512" and token.startswith(b"n,,"):
            answer = prove(wire, b"c=biws,r=x,p=AAAA")
        assert answer.error_code == ErrorCode.SASL_AUTHENTICATION_FAILED
        assert wire.is_closed_by_broker()


# ---- TLS ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("size", [1, 16 * 1024, 900_000])
def test_records_of_every_size_over_tls(secured: Secured, version: ssl.TLSVersion, size: int) -> None:
    context = secured.context()
    context.minimum_version = context.maximum_version = version
    topic = f"tls-{version.name}-{size}"
    with Wire(secured.at("SASL_SSL"), tls=context) as wire:
        assert isinstance(wire.socket, ssl.SSLSocket)
        assert (wire.socket.version() or "").replace(".", "_") == version.name
        log_in(wire, "PLAIN")
        wire.create_topic(topic)
        for number in range(5):
            wire.produce(topic, batch(bytes([number]) * size))
        for number in range(5):
            found = wire.fetch_records(topic, offset=number)
            assert bytes(found[0].value or b"") == bytes([number]) * size


def test_old_tls_is_refused(secured: Secured) -> None:
    context = secured.context()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1_1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        Wire(secured.at("SASL_SSL"), tls=context)


def test_pipelined_requests_over_tls(secured: Secured) -> None:
    """Many requests in one record, one request in many records: the descriptor tells of neither."""
    with secured.wire("SASL_SSL") as wire:
        log_in(wire, "PLAIN")
        wire.create_topic("pipelined")
        sent = [wire.send_produce("pipelined", batch(b"%d" % number)) for number in range(500)]
        for version, correlation_id in sent:
            response = wire.receive(ApiKey.PRODUCE, version, correlation_id)
            assert response.responses[0].partition_responses[0].error_code == 0
        numbers = [int(bytes(record.value or b"")) for record in wire.fetch_records("pipelined")]
        assert numbers == list(range(500))
        one = wire.send(ApiKey.METADATA, 12, EVERYTHING)
        assert wire.receive(ApiKey.METADATA, 12, one).brokers


def test_client_certificates(secured: Secured) -> None:
    certificate = secured.authority.client("carol", unit="Robots")
    with secured.wire("SSL", *certificate) as wire:
        (broker,) = wire.call(ApiKey.METADATA, 12, EVERYTHING).brokers
        assert f"{broker.host}:{broker.port}" == secured.at("SSL")
    with pytest.raises((ssl.SSLError, ConnectionError, ConnectionClosed)), secured.wire("SSL") as wire:
        wire.call(ApiKey.METADATA, 12, EVERYTHING)


def test_a_client_certificate_of_somebody_else(secured: Secured, tmp_path_factory: pytest.TempPathFactory) -> None:
    from penstock.testing.certificates import Authority

    stranger = Authority(tmp_path_factory.mktemp("stranger"), "Other Authority").client("carol")
    with pytest.raises((ssl.SSLError, ConnectionError, ConnectionClosed)), secured.wire("SSL", *stranger) as wire:
        wire.call(ApiKey.METADATA, 12, EVERYTHING)


def test_what_is_no_tls(tmp_path: Any) -> None:
    secured = Secured(tmp_path)  # Of its own: one that has complained much in this minute leaves some complaints out.
    secured.server.start()
    try:
        host, _, port = secured.at("SASL_SSL").partition(":")
        for data in (
            b"\0\0\0\x10", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff", b"\x16\x03\x01\0\x05\x01\0\0\1\0",
        ):  # fmt: skip
            # It may have hung up before we do.
            with socket.create_connection((host, int(port)), timeout=20) as sock, contextlib.suppress(OSError):
                sock.sendall(data)
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(1000):
                    pass
        eventually(lambda: "does not get to speak TLS" in secured.server.log_tail(), what="a complaint")
    finally:
        assert secured.server.stop() == 0


def test_a_silent_client_holds_up_nobody(secured: Secured) -> None:
    host, _, port = secured.at("SASL_SSL").partition(":")
    silent = [socket.create_connection((host, int(port))) for _ in range(50)]
    with secured.wire("SASL_SSL") as wire:
        assert log_in(wire, "SCRAM-SHA-512").error_code == 0
    for sock in silent:
        sock.close()


def test_a_new_certificate_is_taken_without_dropping_connections(tmp_path: Any) -> None:
    secured = Secured(tmp_path)
    secured.server.start()
    try:
        with secured.wire("SASL_SSL") as old:
            log_in(old, "PLAIN")
            before = old.socket.getpeercert()
            secured.authority.server()  # The same files.
            time.sleep(1.1)  # They are looked at once a second.

            def serial() -> Any:
                with secured.wire("SASL_SSL") as wire:
                    return wire.socket.getpeercert()["serialNumber"]

            eventually(lambda: serial() != before["serialNumber"], what="the new certificate")
            assert old.call(ApiKey.METADATA, 12, EVERYTHING).brokers
            secured.certificate.write_text("broken")
            time.sleep(1.1)
            taken = serial()
            assert taken == serial()
            assert "the former certificate stays in use" in secured.server.log_tail()
            assert old.call(ApiKey.METADATA, 12, EVERYTHING).brokers
    finally:
        assert secured.server.stop() == 0


# ---- sessions ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def short_sessions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    secured = Secured(tmp_path_factory.mktemp("sessions"), {"connections.max.reauth.ms": "1500"})
    secured.add_user("bob", "the other one")
    secured.server.start()
    yield secured
    assert secured.server.stop() == 0


def test_a_session_ends_unless_it_is_prolonged(short_sessions: Secured) -> None:
    with short_sessions.wire("SASL_PLAINTEXT") as prolonged, short_sessions.wire("SASL_PLAINTEXT") as left:
        assert log_in(left, "PLAIN").session_lifetime_ms == 1500
        assert log_in(prolonged, "SCRAM-SHA-256").session_lifetime_ms == 1500
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline:
            assert prolonged.call(ApiKey.METADATA, 12, EVERYTHING).brokers
            time.sleep(1.1)
            assert log_in(prolonged, "SCRAM-SHA-256").session_lifetime_ms == 1500
        assert prolonged.call(ApiKey.METADATA, 12, EVERYTHING).brokers
        with pytest.raises(ConnectionClosed):
            left.call(ApiKey.METADATA, 12, EVERYTHING)


def test_a_session_that_has_ended_can_be_prolonged_still(short_sessions: Secured) -> None:
    with short_sessions.wire("SASL_PLAINTEXT") as wire:
        log_in(wire, "PLAIN")
        time.sleep(1.7)
        assert log_in(wire, "PLAIN").error_code == 0
        assert wire.call(ApiKey.METADATA, 12, EVERYTHING).brokers


def test_a_session_is_prolonged_by_the_same_mechanism_and_principal(short_sessions: Secured) -> None:
    with short_sessions.wire("SASL_PLAINTEXT") as wire:
        log_in(wire, "PLAIN")
        assert shake(wire, "SCRAM-SHA-256").error_code == 0
        answer = prove(wire, b"n,,n=alice,r=abc")
        assert answer.error_code == ErrorCode.SASL_AUTHENTICATION_FAILED
        assert "not supported for re-authentication of mechanism 'PLAIN'" in answer.error_message
        assert wire.is_closed_by_broker()
    with short_sessions.wire("SASL_PLAINTEXT") as wire:
        log_in(wire, "PLAIN")
        answer = log_in(wire, "PLAIN", "bob", "the other one")
        assert answer.error_code == ErrorCode.SASL_AUTHENTICATION_FAILED
        assert answer.error_message == "Cannot change principals during re-authentication from User.alice: User.bob"
        assert wire.is_closed_by_broker()


def test_a_session_is_not_prolonged_all_the_time(short_sessions: Secured) -> None:
    with short_sessions.wire("SASL_PLAINTEXT") as wire:
        log_in(wire, "PLAIN")
        assert log_in(wire, "PLAIN").error_code == 0
        assert shake(wire, "PLAIN").error_code == ErrorCode.ILLEGAL_SASL_STATE
        assert wire.call(ApiKey.METADATA, 12, EVERYTHING).brokers


# ---- credentials -------------------------------------------------------------------------------------------------


def alter(wire: Wire, *, put: Any = (), forget: Any = ()) -> dict[str, tuple[int, str | None]]:
    request = AlterUserScramCredentialsRequest(
        deletions=[ScramCredentialDeletion(name=name, mechanism=mechanism) for name, mechanism in forget],
        upsertions=[
            ScramCredentialUpsertion(
                name=name, mechanism=mechanism, iterations=iterations, salt=b"salt" * 4, salted_password=bytes(32)
            )
            for name, mechanism, iterations in put
        ],
    )
    response = wire.call(ApiKey.ALTER_USER_SCRAM_CREDENTIALS, 0, request)
    return {result.user: (result.error_code, result.error_message) for result in response.results}


def describe(wire: Wire, *names: str) -> dict[str, Any]:
    request = DescribeUserScramCredentialsRequest(users=[UserName(name=name) for name in names] or None)
    response = wire.call(ApiKey.DESCRIBE_USER_SCRAM_CREDENTIALS, 0, request)
    assert response.error_code == 0
    return {
        result.user: result.error_code or [(info.mechanism, info.iterations) for info in result.credential_infos]
        for result in response.results
    }


def test_credentials_are_described_and_altered(secured: Secured) -> None:
    with Wire(secured.plaintext) as wire:
        assert describe(wire)[USER] == [(1, 8192), (2, 8192)]
        assert alter(wire, put=[("dora", 1, 4096), ("emil", 2, 16384)]) == {"dora": (0, None), "emil": (0, None)}
        assert describe(wire, "dora", "emil") == {"dora": [(1, 4096)], "emil": [(2, 16384)]}
        assert alter(wire, forget=[("dora", 1)]) == {"dora": (0, None)}
        assert describe(wire, "dora", "emil", "emil") == {
            "dora": ErrorCode.RESOURCE_NOT_FOUND, "emil": ErrorCode.DUPLICATE_RESOURCE,
        }  # fmt: skip
        assert alter(wire, forget=[("emil", 2)])["emil"] == (0, None)


def test_credentials_that_are_refused(secured: Secured) -> None:
    with Wire(secured.plaintext) as wire:
        unacceptable = ErrorCode.UNACCEPTABLE_CREDENTIAL
        assert alter(
            wire, put=[("few", 1, 4095), ("many", 1, 16385), ("", 1, 4096), ("odd", 3, 4096), ("fine", 1, 4096)]
        ) == {
            "few": (unacceptable, "Too few iterations"),
            "many": (unacceptable, "Too many iterations"),
            "": (unacceptable, "Username must not be empty"),
            "odd": (ErrorCode.UNSUPPORTED_SASL_MECHANISM, "Unknown SCRAM mechanism"),
            "fine": (0, None),
        }
        missing = ErrorCode.RESOURCE_NOT_FOUND, "Attempt to delete a user credential that does not exist"
        assert alter(wire, forget=[("ghost", 1), ("fine", 2)]) == {"ghost": missing, "fine": missing}
        twice = (ErrorCode.DUPLICATE_RESOURCE, "A user credential cannot be altered twice in the same request")
        assert alter(wire, forget=[("fine", 1)], put=[("fine", 1, 4096), ("other", 1, 4096)]) == {
            "fine": twice, "other": (0, None),
        }  # fmt: skip
        assert describe(wire, "few", "odd") == dict.fromkeys(("few", "odd"), ErrorCode.RESOURCE_NOT_FOUND)
        assert alter(wire, forget=[("fine", 1), ("other", 1)]) == {"fine": (0, None), "other": (0, None)}


def test_nothing_of_a_credential_is_ever_shown(secured: Secured) -> None:
    with Wire(secured.plaintext) as wire:
        found = json.dumps(describe(wire))
    assert "salt" not in found
    assert secured.server.http_text("/metrics").find(PASSWORD) < 0
