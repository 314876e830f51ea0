"""Who vouches for a client: the authority its chain ends at, also when a TLS session is taken up again."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.agent import authorities
from penstock.agent.authorities import Authorities, verified_chain
from penstock.agent.tls import context_of
from penstock.base.errors import InvalidRequest
from penstock.base.options import TlsOptions
from penstock.identity.failures import Denied
from penstock.testing.certificates import Authority


class World:
    """A server that accepts clients of three authorities, which are all called alike."""

    def __init__(self, directory: Path) -> None:
        self.own, self.acme, self.beta = (Authority(directory / name) for name in ("own", "acme", "beta"))
        self.below = Authority(directory / "below", "Below Own", below=self.own)
        self.beside = Authority(directory / "beside", "Below Own", below=self.own)
        certificate, key = self.own.server()
        self.files = (("acme", self.acme.ca), ("beta", self.beta.ca), ("gamma", self.below.ca))
        options = TlsOptions(
            certificate=certificate, key=key, client_ca=self.own.ca, client_auth="required", cluster_ca=self.files
        )
        self.context = context_of(options)
        self.authorities = Authorities(self.files, self.own.ca)

    def client(self, authority: Authority, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2) -> ssl.SSLContext:
        """TLS of a client that this authority vouches for."""
        context = ssl.create_default_context(cafile=self.own.ca)
        context.load_cert_chain(*authority.client("app"))
        context.check_hostname, context.maximum_version = False, version
        return context

    def met(
        self, client: ssl.SSLContext, session: ssl.SSLSession | None = None,
        ask: Callable[[ssl.SSLSocket], Any] | None = None,
    ) -> tuple[Any, ssl.SSLSession | None]:  # fmt: skip
        """What is found out about a client that connects, and its session."""
        theirs, ours = socket.socketpair()
        found = []

        def serve() -> None:
            with self.context.wrap_socket(ours, server_side=True) as sock:
                try:
                    found.append((ask or self.authorities.cluster_of)(sock))
                except Denied as denied:
                    found.append(denied)
                sock.sendall(b"x")
                sock.recv(1)
                sock.unwrap()

        thread = threading.Thread(target=serve)
        thread.start()
        with client.wrap_socket(theirs, server_hostname="localhost", session=session) as sock:
            sock.recv(1)
            taken = sock.session
            sock.sendall(b"y")
            sock.unwrap()
        thread.join()
        return found[0], taken


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("authorities")


@pytest.fixture
def world(directory: Path) -> Iterator[World]:
    return World(directory)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_the_authority_that_a_chain_ends_at(world: World, version: ssl.TLSVersion) -> None:
    for authority, expected in ((world.acme, "acme"), (world.beta, "beta"), (world.own, None)):
        assert world.met(world.client(authority, version))[0] == expected
        chain, _ = world.met(world.client(authority, version), ask=verified_chain)
        assert len(chain) == 2
        assert chain[-1] == ssl.PEM_cert_to_DER_cert(authority.ca.read_text())


def test_an_authority_below_one_that_is_shared(world: World) -> None:
    assert world.met(world.client(world.below))[0] == "gamma"
    # It has the name of the other one and the same root, and sends what it is verified by along with it.
    certificate, key = world.beside.client("app")
    certificate.write_bytes(certificate.read_bytes() + world.beside.ca.read_bytes())
    beside = world.client(world.own)
    beside.load_cert_chain(certificate, key)
    assert world.met(beside)[0] is None


def test_an_authority_with_several_certificates(world: World) -> None:
    """Whoever has its key chooses by which of them their client is verified."""
    certificate, key = world.below.client("app")
    certificate.write_bytes(certificate.read_bytes() + world.below.certified("again", world.own).read_bytes())
    below = world.client(world.own)
    below.load_cert_chain(certificate, key)
    assert world.met(below)[0] == "gamma"
    with pytest.raises(InvalidRequest, match="belongs to two clusters, gamma and acme"):
        Authorities([("gamma", world.below.ca), ("acme", world.below.certified("once more", world.own))], None)


def test_a_session_that_is_taken_up_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    acme, own = world.client(world.acme), world.client(world.own)
    _, session = world.met(acme)
    _, of_own = world.met(own)
    for _ in range(2):
        (chain, found), _ = world.met(
            acme, session, lambda sock: (verified_chain(sock), world.authorities.cluster_of(sock))
        )
        assert (chain, found) == ([], "acme"), "nothing is verified again, and it is still known"
    assert world.met(own, of_own)[0] is None
    monkeypatch.setattr(authorities, "MAX_REMEMBERED", 1)
    assert world.met(world.client(world.beta))[0] == "beta"
    assert isinstance(world.met(acme, session)[0], Denied), "who is forgotten is let in nowhere"


def test_an_authority_that_would_stand_for_two_clusters(world: World, tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(world.acme.ca.read_bytes() + world.beta.ca.read_bytes())
    Authorities([("acme", both), ("acme", world.acme.ca)], None)
    with pytest.raises(InvalidRequest, match="belongs to two clusters, acme and beta"):
        Authorities([("acme", both), ("beta", world.beta.ca)], None)
    with pytest.raises(InvalidRequest, match="cannot be read"):
        Authorities([("acme", tmp_path / "none.pem")], None)


def test_an_authority_of_which_nothing_is_known_lets_in_nobody(world: World) -> None:
    """It is trusted, and stands neither for a cluster nor for none: whoever changed the files meant something else."""
    world.authorities = Authorities(world.files[:1], world.own.ca)
    assert isinstance(world.met(world.client(world.beta))[0], Denied)
    assert world.met(world.client(world.acme))[0] == "acme"
    world.authorities = Authorities(world.files[:1], None)
    assert isinstance(world.met(world.client(world.own))[0], Denied)
    assert world.met(world.client(world.acme))[0] == "acme"
