"""How the client meets brokers of other ages, and things that are no broker."""

from __future__ import annotations

import contextlib
import errno
import socket
import ssl
import threading
from collections.abc import Callable, Iterator

import pytest

from penstock.base.clock import SystemClock
from penstock.cli.kafka import failures
from penstock.cli.kafka.client import Client
from penstock.cli.kafka.connection import Connection
from penstock.cli.kafka.failures import BrokerError, ConnectionLost, Unreachable, Unsupported
from penstock.cli.text_formats.addresses import Address
from penstock.wire import codec
from penstock.wire.api_keys import ApiKey
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages.api_versions import ApiVersion, ApiVersionsResponse
from penstock.wire.messages.metadata import MetadataRequest, MetadataResponse, MetadataResponseBroker

Answer = Callable[[codec.RequestHeader], list[bytes] | None]

SPOKEN = [
    ApiVersion(api_key=ApiKey.API_VERSIONS, min_version=0, max_version=3),
    ApiVersion(api_key=ApiKey.METADATA, min_version=0, max_version=9),
    ApiVersion(api_key=ApiKey.FETCH, min_version=0, max_version=2),
]


@contextlib.contextmanager
def broker(answer: Answer) -> Iterator[Address]:
    """A real socket whose other side answers by rule; None hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_serve, args=(listener, answer), daemon=True)
        thread.start()
        yield Address("127.0.0.1", listener.getsockname()[1])


def _serve(listener: socket.socket, answer: Answer) -> None:
    with contextlib.suppress(OSError):
        while True:
            peer, _ = listener.accept()
            with peer, contextlib.suppress(OSError), peer.makefile("rb") as stream:
                while size := stream.read(4):
                    header = codec.read_request_header(stream.read(int.from_bytes(size, "big")), 0)
                    frame = answer(header)
                    if frame is None:
                        break
                    peer.sendall(b"".join(frame))


def connect(address: Address, timeout_s: float = 5.0) -> Connection:
    return Connection(address, client_id="test", clock=SystemClock(), timeout_s=timeout_s)


def versions(header: codec.RequestHeader, version: int, error_code: int = 0) -> list[bytes]:
    message = ApiVersionsResponse(error_code=error_code, api_keys=SPOKEN)
    return codec.encode_response(ApiKey.API_VERSIONS, version, header.correlation_id, message)


def told_of(host: str, port: int) -> Answer:
    """A cluster of one broker, which is at that address."""

    def answer(header: codec.RequestHeader) -> list[bytes]:
        if header.api_key == ApiKey.API_VERSIONS:
            return versions(header, header.api_version)
        message = MetadataResponse(brokers=[MetadataResponseBroker(node_id=7, host=host, port=port)], controller_id=7)
        return codec.encode_response(ApiKey.METADATA, header.api_version, header.correlation_id, message)

    return answer


def test_an_older_broker_answers_in_version_0_and_is_asked_again() -> None:
    asked: list[int] = []

    def answer(header: codec.RequestHeader) -> list[bytes]:
        asked.append(header.api_version)
        unsupported = ErrorCode.UNSUPPORTED_VERSION if header.api_version else 0
        return versions(header, 0, unsupported)

    with broker(answer) as address:
        connection = connect(address)
    assert asked == [4, 0]
    assert connection.version_of(ApiKey.METADATA) == 9


def test_a_much_older_broker_hangs_up_and_is_asked_again() -> None:
    asked: list[int] = []

    def answer(header: codec.RequestHeader) -> list[bytes] | None:
        asked.append(header.api_version)
        return versions(header, 0) if header.api_version == 0 else None

    with broker(answer) as address:
        connect(address)
    assert asked == [4, 0]


def test_versions_without_overlap_are_named() -> None:
    with broker(lambda header: versions(header, header.api_version)) as address:
        connection = connect(address)
    with pytest.raises(Unsupported, match=r"FETCH 0 to 2, this program 4 to 12: one of the two is too old"):
        connection.version_of(ApiKey.FETCH)
    with pytest.raises(Unsupported, match="does not offer DELETE_GROUPS"):
        connection.version_of(ApiKey.DELETE_GROUPS)
    assert connection.offers(ApiKey.FETCH)


def test_who_speaks_something_else_is_told_apart() -> None:
    with broker(lambda header: None) as address, pytest.raises(ConnectionLost, match="Is it a Kafka broker"):
        connect(address)


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", r"is an HTTP server, not a Kafka broker\. Check the port"),
        (b"\x15\x03\x03\x00\x02\x02\x46", r"requires TLS\. Add to --client-config FILE: security\.protocol=SSL"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", r"is not a Kafka broker\. Check the port"),
        (b"\xff\xff\xff\xff", r"is not a Kafka broker\. Check the port"),
    ],
)
def test_other_protocols_are_named_at_once(answer: bytes, complaint: str) -> None:
    with broker(lambda header: [answer]) as address, Client([address]) as client:
        refused = pytest.raises(Unreachable, match=f"^{address} {complaint}")
        with refused:
            client.retry(client.any_node)


def test_silence_ends_with_the_timeout() -> None:
    with (
        broker(lambda header: []) as address,
        pytest.raises(ConnectionLost, match=r"no answer in time\. Is it a Kafka"),
    ):
        connect(address, timeout_s=0.1)


def test_who_has_answered_is_a_broker() -> None:
    def answer(header: codec.RequestHeader) -> list[bytes] | None:
        return versions(header, header.api_version) if header.api_key == ApiKey.API_VERSIONS else []

    with broker(answer) as address:
        connection = connect(address, timeout_s=0.1)
        with pytest.raises(ConnectionLost, match=r"^lost .*: no answer in time$"):
            connection.call(ApiKey.METADATA, MetadataRequest(), MetadataResponse)


def test_an_address_the_cluster_tells_and_nobody_has_is_explained() -> None:
    nobody = told_of("127.0.0.1", 1)
    with broker(nobody) as address, Client([address]) as client, pytest.raises(Unreachable, match="--advertise"):
        client.node(7)


def test_a_broker_that_answers_nothing_is_not_asked_for_long() -> None:
    def refuses(header: codec.RequestHeader) -> list[bytes] | None:
        asked.append(header.api_key)
        return versions(header, header.api_version) if header.api_key == ApiKey.API_VERSIONS else None

    asked: list[int] = []
    with broker(refuses) as address, Client([address]) as client:
        refused = pytest.raises(ConnectionLost, match="requires credentials, add them to --client-config FILE")
        with refused:
            client.retry(lambda: client.metadata([]))
    assert asked.count(ApiKey.METADATA) == 2, "one of them may have met a broker that was just stopping"


def test_the_bootstrap_connection_serves_the_broker_it_leads_to() -> None:
    told: list[Answer] = []
    with broker(lambda header: told[0](header)) as address:
        told.append(told_of(*address))
        for bootstrap in (address, Address("localhost", address.port)):
            with Client([bootstrap]) as client:
                assert client.controller() is client.node(7) is client.any_node()


def test_a_broker_elsewhere_has_a_connection_of_its_own_which_then_serves_for_everything() -> None:
    other = broker(lambda header: versions(header, header.api_version))
    with other as there, broker(told_of(*there)) as address, Client([address]) as client:
        assert client.any_node().address == address
        assert client.node(7).address == there
        client.close()
        assert client.node(7) is client.any_node()
        assert client.any_node().address == there


def test_an_error_of_a_broker_costs_no_connection_and_a_lost_one_costs_all() -> None:
    failures_left: list[Exception] = [BrokerError(ErrorCode.NOT_COORDINATOR, "group 'g'"), ConnectionLost("lost")]
    used: list[Connection] = []
    with broker(lambda header: versions(header, header.api_version)) as address, Client([address]) as client:

        def attempt() -> None:
            used.append(client.any_node())
            if failures_left:
                raise failures_left.pop(0)

        client.retry(attempt)
    first, second, third = used
    assert first is second is not third


def not_verified(code: int) -> OSError:
    error = ssl.SSLCertVerificationError()
    error.verify_code = code
    return error


@pytest.mark.parametrize(
    ("error", "host", "hint"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), "127.0.0.1", "Try: penstock up"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), "kafka.example.com", "--bootstrap"),
        (socket.gaierror(), "localhost", "--bootstrap"),
        (not_verified(62), "127.0.0.1", "Connect to one of the names"),
        (not_verified(19), "127.0.0.1", "ssl.ca.location"),
        (not_verified(10), "127.0.0.1", "Renew the certificate of the server"),
        (not_verified(9), "127.0.0.1", "Check this machine's clock"),
        (ssl.SSLError(), "127.0.0.1", "security.protocol"),
    ],
)
def test_what_to_do_depends_on_what_is_wrong(error: OSError, host: str, hint: str) -> None:
    assert hint in failures.hint(error, host)


def test_one_hint_is_enough() -> None:
    with broker(lambda header: None) as address, Client([address]) as client:
        with pytest.raises(Unreachable) as refused:
            client.any_node()
        assert str(refused.value).endswith("credentials, add --client-config FILE")


def test_the_next_bootstrap_address_is_tried() -> None:
    nobody = Address("127.0.0.1", 1)
    with broker(lambda header: versions(header, header.api_version)) as address, Client([nobody, address]) as client:
        assert client.any_node().address == address
    client = Client([nobody, Address("no.such.host.invalid", 1)])
    with pytest.raises(Unreachable, match=r"refused; .*cannot be resolved\. Is it running\? Try: penstock up"):
        client.any_node()


def test_what_may_pass_is_tried_again_until_the_deadline() -> None:
    attempts: list[int] = []

    def passes() -> str:
        attempts.append(1)
        if len(attempts) < 3:
            raise BrokerError(ErrorCode.NOT_COORDINATOR, "group 'g'")
        return "done"

    def stays() -> None:
        raise BrokerError(ErrorCode.COORDINATOR_NOT_AVAILABLE, "group 'g'")

    def is_final() -> None:
        attempts.append(1)
        raise BrokerError(ErrorCode.INVALID_CONFIG, "topic 't'", "Unknown key")

    assert Client([], timeout_s=5).retry(passes) == "done"
    with pytest.raises(BrokerError, match="has no coordinator now"):
        Client([], timeout_s=0.1).retry(stays)
    attempts.clear()
    with pytest.raises(BrokerError, match="topic 't': Unknown key"):
        Client([], timeout_s=5).retry(is_final)
    assert len(attempts) == 1


@pytest.mark.parametrize(
    ("code", "detail", "sentence"),
    [
        (3, None, "topic 't' does not exist. See: penstock topic list"),
        (3, "This server does not host it.", "topic 't' does not exist. See: penstock topic list"),
        (37, "has 4 already", "topic 't' has 4 already"),
        (44, "too many", "topic 't': too many"),
        (-1, None, "topic 't': the broker answered UNKNOWN_SERVER_ERROR"),
        (9999, None, "topic 't': the broker answered error 9999"),
        (
            ErrorCode.CLUSTER_AUTHORIZATION_FAILED,
            "Cluster authorization failed.",
            "topic 't': you are not allowed to do this on the cluster. An administrator can grant it:"
            " penstock role grant, or penstock acl allow",
        ),
        (ErrorCode.CLUSTER_AUTHORIZATION_FAILED, "That is for others.", "topic 't': That is for others."),
    ],
)
def test_error_codes_become_sentences(code: int, detail: str | None, sentence: str) -> None:
    assert str(BrokerError(code, "topic 't'", detail)) == sentence
