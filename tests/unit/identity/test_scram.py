"""SCRAM: the exchange of the RFC, every way to fail, and nothing that tells who exists."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.cli.kafka import sasl
from penstock.cli.kafka.client_config import Security
from penstock.identity.failures import Denied, InvalidCredentials
from penstock.identity.scram import (
    Credential,
    Mechanism,
    ServerExchange,
    credential_of,
    decoy,
    has_password,
    read_client_first,
    salted_password,
)

SALT = b"sixteen bytes..."
FEW = 16


def credential(mechanism: Mechanism, password: str, *, salt: bytes = SALT, iterations: int = FEW) -> Credential:
    return credential_of(
        mechanism, salted_password(mechanism, password.encode(), salt, iterations), salt, iterations
    )  # fmt: skip


def test_the_example_of_rfc_7677() -> None:
    mechanism = Mechanism.SCRAM_SHA_256
    salt = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
    known = credential(mechanism, "pencil", salt=salt, iterations=4096)
    first = read_client_first(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO")
    exchange = ServerExchange(first, known, "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0")
    assert exchange.challenge == (
        b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    )
    final = (
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    )
    assert exchange.finish(final) == b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


@pytest.mark.parametrize("mechanism", Mechanism)
@pytest.mark.parametrize(("name", "password"), [("alice", "x"), ("a,b=c", "pass,word=1"), ("u", "pässwörd")])
def test_our_client_and_our_server_agree(mechanism: Mechanism, name: str, password: str) -> None:
    security = Security(mechanism=mechanism.sasl_name, user=name, password=password)
    client = sasl.messages(security, "clientnonce")
    first = read_client_first(next(client))
    assert first.name == name
    exchange = ServerExchange(first, credential(mechanism, password, iterations=sasl.MIN_ITERATIONS), "servernonce")
    proof = exchange.finish(client.send(exchange.challenge))
    with pytest.raises(StopIteration):
        client.send(proof)


def test_a_server_that_does_not_know_the_password_is_found_out() -> None:
    security = Security(mechanism="SCRAM-SHA-256", user="alice", password="right")
    client = sasl.messages(security, "clientnonce")
    known = credential(Mechanism.SCRAM_SHA_256, "other", iterations=sasl.MIN_ITERATIONS)
    exchange = ServerExchange(read_client_first(next(client)), known, "n")
    client.send(exchange.challenge)
    with pytest.raises(sasl.AuthenticationFailed):
        client.send(b"v=" + base64.b64encode(bytes(32)))


@pytest.mark.parametrize("iterations", ["1", "4095", "1000001", "9" * 5000])
def test_a_server_that_makes_a_proof_too_cheap_or_too_dear_gets_none(iterations: str) -> None:
    client = sasl.messages(Security(mechanism="SCRAM-SHA-256", user="alice", password="right"), "clientnonce")
    next(client)
    with pytest.raises(sasl.AuthenticationFailed):
        client.send(f"r=clientnonceserver,s={base64.b64encode(SALT).decode()},i={iterations}".encode())


@given(st.text(min_size=1), st.text(min_size=1))
def test_only_the_password_itself_is_the_password(password: str, other: str) -> None:
    known = credential(Mechanism.SCRAM_SHA_512, password)
    given = other.encode("utf-8", "surrogatepass")
    assert has_password(known, given) == (given == password.encode("utf-8", "surrogatepass"))


def _attempt(final: str, *, first: str = "n,,n=alice,r=abc", password: str = "right") -> bytes:
    """A final message with a right proof over whatever is in it."""
    mechanism = Mechanism.SCRAM_SHA_256
    known = credential(mechanism, password)
    opening = read_client_first(first.encode())
    exchange = ServerExchange(opening, known, "def")
    salted = salted_password(mechanism, b"right", SALT, FEW)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    text = f"{opening.bare},{exchange.challenge.decode()},{final}".encode()
    signature = hmac.digest(hashlib.sha256(client_key).digest(), text, "sha256")
    proof = base64.b64encode(bytes(a ^ b for a, b in zip(client_key, signature, strict=True))).decode()
    return exchange.finish(f"{final},p={proof}".encode())


def test_what_a_proof_has_to_cover() -> None:
    assert _attempt("c=biws,r=abcdef").startswith(b"v=")
    assert _attempt("c=biws,r=abcdef,e=extension").startswith(b"v=")
    for final in ("c=biws,r=abcde", "c=biws,r=abcdefg", "c=biws,r=other", "c=eSws,r=abcdef", "r=abcdef", "c=biws"):
        with pytest.raises(InvalidCredentials):
            _attempt(final)
    with pytest.raises(InvalidCredentials):
        _attempt("c=biws,r=abcdef", password="another")


@pytest.mark.parametrize("name", ["alice", "a=2Cb", "=3D=2C=3D2C"])
def test_a_client_may_say_who_it_wants_to_be_as_long_as_it_is_itself(name: str) -> None:
    first = f"n,a={name},n={name},r=abc"
    for header in (f"n,a={name},", "n,,"):
        channel = base64.b64encode(header.encode()).decode()
        assert _attempt(f"c={channel},r=abcdef", first=first).startswith(b"v=")
    other = base64.b64encode(b"n,a=other,").decode()
    with pytest.raises(InvalidCredentials):
        _attempt(f"c={other},r=abcdef", first=first)


@pytest.mark.parametrize("proof", ["", "AAAA", "=", "A", "é", base64.b64encode(bytes(32)).decode()])
def test_a_proof_that_is_none(proof: str) -> None:
    exchange = ServerExchange(
        read_client_first(b"n,,n=alice,r=abc"), credential(Mechanism.SCRAM_SHA_256, "right"), "def"
    )
    with pytest.raises(InvalidCredentials):
        exchange.finish(f"c=biws,r=abcdef,p={proof}".encode())


@pytest.mark.parametrize(
    "message",
    [b"", b"n,,", b"n,,n=alice", b"n,,r=abc", b"y,,n=alice,r=abc", b"p=tls-unique,,n=alice,r=abc", b"n,,n=,r=abc",
     b"n,,n=a=b,r=abc", b"n,,n=alice,r=", b"n,,n=alice,r=a b", b"\xff", b"n,,n=alice,r=abc,1=2", b"n" * 100_000],
)  # fmt: skip
def test_a_first_message_that_is_none(message: bytes) -> None:
    with pytest.raises(InvalidCredentials):
        read_client_first(message)


def test_first_messages() -> None:
    first = read_client_first(b"n,a=alice,n=alice,r=abc,tokenauth=true")
    assert (first.name, first.authorization_id, first.is_token) == ("alice", "alice", True)
    assert first.bare == "n=alice,r=abc,tokenauth=true"
    assert not read_client_first(b"n,,n=alice,r=abc,tokenauth=false").is_token
    assert read_client_first(b"n,,n=a=2Cb=3Dc,r=abc").name == "a,b=c"
    assert read_client_first(b"n,,n==3D2C,r=abc").name == "=2C", "an escaped equals sign does not begin another escape"


def test_nobody_acts_for_another() -> None:
    first = read_client_first(b"n,a=bob,n=alice,r=abc")
    with pytest.raises(Denied, match="authorization id"):
        ServerExchange(first, credential(Mechanism.SCRAM_SHA_256, "right"), "def")


def test_who_does_not_exist_is_always_the_same_nobody() -> None:
    secret = bytes(32)
    one = decoy(Mechanism.SCRAM_SHA_256, "ghost", secret)
    assert one == decoy(Mechanism.SCRAM_SHA_256, "ghost", secret)
    assert one.salt != decoy(Mechanism.SCRAM_SHA_256, "other", secret).salt
    assert one.salt != decoy(Mechanism.SCRAM_SHA_256, "ghost", b"x" * 32).salt
    assert len(one.stored_key) == 32
    assert len(decoy(Mechanism.SCRAM_SHA_512, "ghost", secret).stored_key) == 64


def test_who_does_not_exist_could_have_been_made_by_our_tools_or_by_kafkas() -> None:
    ghosts = [decoy(Mechanism.SCRAM_SHA_512, f"ghost-{number}", bytes(32)) for number in range(200)]
    ours = [ghost for ghost in ghosts if len(ghost.salt) == 16]
    kafkas = [ghost for ghost in ghosts if 24 <= len(ghost.salt) <= 26 and ghost.salt.decode().isalnum()]
    assert len(ours) + len(kafkas) == 200
    assert min(len(ours), len(kafkas)) > 50
    assert {ghost.iterations for ghost in ours} == {8192}
    assert {ghost.iterations for ghost in kafkas} == {4096}


def test_nothing_secret_is_shown() -> None:
    shown = repr(credential(Mechanism.SCRAM_SHA_256, "right"))
    assert "salt" not in shown
    assert "key" not in shown
