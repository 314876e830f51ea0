"""Clients that have not proven who they are, and do it wrong: malformed SASL, half handshakes, spoilt records of TLS.

Each gets an answer or an end, nobody gets through, and others are served meanwhile.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import count
from random import Random
from struct import pack

import pytest
from canary import MIB, healthy
from fixtures.raw_client import request_bytes
from fixtures.secured import PASSWORD, USER, Secured
from fixtures.waiting import eventually
from hostile_frames import nonsense, spoilt, valid
from test_fuzz_frames import MORE

from penstock.wire.api_keys import ApiKey
from penstock.wire.messages.api_versions import ApiVersionsRequest
from penstock.wire.messages.metadata import MetadataRequest
from penstock.wire.messages.sasl_authenticate import SaslAuthenticateRequest
from penstock.wire.messages.sasl_handshake import SaslHandshakeRequest

END_S = 40
"""Longer than anybody may take to log in."""
AT_ONCE = 8
HALVES = 150
_addresses = count()
INSIDE = request_bytes(ApiKey.METADATA, 12, MetadataRequest(topics=[]), 0x7E57)
"""What is for those who are known."""
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER", "", "plain", "SCRAM-SHA-256-PLUS", "x" * 300)
TOKENS = (
    b"", b"\0", b"\0\0", b"\0\0\0\0", f"\0{USER}\0".encode(), f"\0{USER}\0wrong".encode(), b"\0\xff\xfe\0\xff",
    f"{USER}\0bob\0{PASSWORD}".encode(), b"a" * 70_000, b"n,,n=alice,r=", b"n,,n=,r=x", b"n,,r=x,n=alice",
    b"y,,n=alice,r=abc", b"p=tls-unique,,n=alice,r=abc", b"n,a=bob,n=alice,r=abc", b"n,,m=x,n=alice,r=abc",
    b"n,,n==41,r=abc", b"n,,n=alice,r=abc,tokenauth=maybe", b"c=biws,r=abc,p=AAAA", b"c=biws,r=abc",
    b"n,,\x01auth=Bearer x\x01\x01", b"n,,\x01auth=\x01\x01", b"\x01", b"n,,\x01" + b"k=v\x01" * 5_000 + b"\x01",
)  # fmt: skip


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """A broker with a listener for each protocol."""
    made = Secured(tmp_path_factory.mktemp("gate"), {"connection.failed.authentication.delay.ms": "10"})
    made.server.start()
    try:
        yield made
        assert made.server.running, made.server.log_tail()
    finally:
        code = made.server.stop()
    assert code == 0, made.server.log_tail()


def connect(secured: Secured, protocol: str) -> socket.socket:
    """From another address each time, because an address that fails again and again is made to wait."""
    number, (host, port) = next(_addresses), secured.at(protocol).split(":")
    source = f"127.{1 + number // 60_000}.{1 + number // 250 % 240}.{1 + number % 250}"
    return socket.create_connection((host, int(port)), timeout=END_S, source_address=(source, 0))


def ask(secured: Secured, protocol: str, pieces: Sequence[bytes]) -> None:
    """Send something, then a request that only somebody known may make: it is not answered, and there is an end."""
    with connect(secured, protocol) as client:
        heard = bytearray()
        with contextlib.suppress(ConnectionError):
            for piece in pieces:
                client.sendall(piece)
            client.sendall(INSIDE)
            with contextlib.suppress(OSError):  # ENOTCONN, where the server has hung up already.
                client.shutdown(socket.SHUT_WR)
            while piece := client.recv(MIB):
                heard += piece
        assert b"\x00\x00\x7e\x57" not in heard, f"somebody got in: {[piece[:100] for piece in pieces]}"


def ask_all(secured: Secured, protocol: str, wanted: Sequence[Sequence[bytes]]) -> None:
    """Several at once."""
    with ThreadPoolExecutor(AT_ONCE) as threads:
        for done in [threads.submit(ask, secured, protocol, pieces) for pieces in wanted]:
            done.result()


def handshake(mechanism: str, version: int) -> bytes:
    return request_bytes(ApiKey.SASL_HANDSHAKE, version, SaslHandshakeRequest(mechanism=mechanism), 1)


def authenticate(token: bytes, version: int = 2) -> bytes:
    return request_bytes(ApiKey.SASL_AUTHENTICATE, version, SaslAuthenticateRequest(auth_bytes=token), 2)


def sasl_of_every_kind(random: Random) -> Iterator[list[bytes]]:
    versions = request_bytes(
        ApiKey.API_VERSIONS, 3, ApiVersionsRequest(client_software_name="f", client_software_version="1"), 0
    )
    for mechanism in MECHANISMS[:4]:
        for token in TOKENS:
            yield [handshake(mechanism, 1), authenticate(token, random.choice((0, 1, 2)))]
            # Version 0: tokens come without a request around them.
            yield [handshake(mechanism, 0), pack(">i", len(token)) + token]
    for mechanism in MECHANISMS:
        yield [handshake(mechanism, random.choice((0, 1))), authenticate(b"\0a\0b"), authenticate(b"again")]
    yield [authenticate(b"\0a\0b")]
    yield [versions] * 100
    yield [handshake("PLAIN", 1)] * 50
    for size in (-1, 0, 2**31 - 1, 100 * MIB, 600_000):
        yield [handshake("PLAIN", 0), pack(">i", size) + b"\0a\0b"]
        yield [pack(">i", size) + bytes(10)]
    for _ in range(60 * MORE):
        key = random.choice((ApiKey.SASL_HANDSHAKE, ApiKey.SASL_AUTHENTICATE, ApiKey.API_VERSIONS))
        version = random.randint(0, 1)
        yield [handshake("PLAIN", 1), spoilt(valid(key, version, random), random)]
        yield [valid(random.choice((ApiKey.PRODUCE, ApiKey.FETCH, ApiKey.CREATE_TOPICS)), 7, random)]
        yield [nonsense(random)]


def test_sasl_that_is_none(secured: Secured) -> None:
    with healthy(secured.server, grows_mib=60):
        ask_all(secured, "SASL_PLAINTEXT", list(sasl_of_every_kind(Random("sasl"))))


def client_hello(secured: Secured) -> bytes:
    outgoing = ssl.MemoryBIO()
    client = secured.context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def records_of_every_kind(hello: bytes, random: Random) -> Iterator[list[bytes]]:
    for kind in (0, 20, 21, 22, 23, 24, 255):
        for size in (0, 1, 16_384, 16_385, 65_535):
            yield [bytes((kind, 3, 1)) + pack(">H", size) + random.randbytes(min(size, 20_000))]
    yield [hello, bytes.fromhex("15030100020100"), hello]
    yield [bytes.fromhex("1503010002022f")] * 100
    yield [b"\x80\x2e\x01\x00\x02" + random.randbytes(60)]
    for _ in range(200 * MORE):
        damaged = bytearray(hello)
        for _ in range(random.choice((1, 1, 3, 20))):
            damaged[random.randrange(len(damaged))] ^= 1 << random.randrange(8)
        yield [bytes(damaged[: random.choice((len(damaged), random.randrange(1, len(damaged))))])]
        yield [nonsense(random)]


@pytest.mark.parametrize("protocol", ["SSL", "SASL_SSL"])
def test_tls_that_is_none(secured: Secured, protocol: str) -> None:
    hello = client_hello(secured)
    with healthy(secured.server, grows_mib=60):
        ask_all(secured, protocol, list(records_of_every_kind(hello, Random(protocol))))


def test_records_that_are_spoilt_after_the_handshake(secured: Secured) -> None:
    random = Random("records")

    def spoil(number: int) -> None:
        with connect(secured, "SASL_SSL") as raw:
            client = secured.context().wrap_socket(raw, server_hostname="localhost")
            client.sendall(handshake("PLAIN", 1))
            assert client.recv(100)
            plain = socket.socket(fileno=client.detach())
            plain.settimeout(END_S)
            with plain:
                try:
                    plain.sendall(b"\x17\x03\x03" + pack(">H", size_of[number]) + noise[number])
                    plain.shutdown(socket.SHUT_WR)
                    while plain.recv(MIB):
                        pass
                except TimeoutError:
                    raise
                except OSError:
                    return  # The other side has ended it already.

    many = 100 * MORE
    noise = [random.randbytes(random.choice((0, 1, 30, 16_000))) for _ in range(many)]
    size_of = [random.choice((len(data), 0, 20_000)) for data in noise]
    with healthy(secured.server, grows_mib=60), ThreadPoolExecutor(AT_ONCE) as threads:
        list(threads.map(spoil, range(many)))


@pytest.mark.parametrize("protocol", ["SSL", "SASL_PLAINTEXT", "SASL_SSL"])
def test_half_handshakes_cost_others_nothing(secured: Secured, protocol: str) -> None:
    """While they wait for their other half, everybody else logs in and is served."""
    hello, files = client_hello(secured), secured.server.process.num_fds()
    half = handshake("SCRAM-SHA-256", 1) + authenticate(b"n,,n=alice,r=abc")[:-3]
    with healthy(secured.server, grows_mib=100) as canary, ExitStack() as clients:
        for _ in range(HALVES):
            client = clients.enter_context(connect(secured, protocol))
            client.sendall(half if protocol == "SASL_PLAINTEXT" else hello[: len(hello) // 2])
        canary.goes_on(10)
        assert secured.server.process.num_fds() >= files + HALVES, "they are waited for"
        with secured.wire("SASL_SSL") as known:
            known.call(ApiKey.SASL_HANDSHAKE, 1, SaslHandshakeRequest(mechanism="PLAIN"))
            token = f"\0{USER}\0{PASSWORD}".encode()
            assert known.call(ApiKey.SASL_AUTHENTICATE, 2, SaslAuthenticateRequest(auth_bytes=token)).error_code == 0
            assert known.metadata([]).brokers
    eventually(lambda: secured.server.process.num_fds() < files + 30, within_s=30, what="ended ones being let go of")
