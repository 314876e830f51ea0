"""Certificates that are written one file after the other, while somebody connects."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from fixtures.clocks import ManualClock

from penstock.agent.tls import ServerTls
from penstock.base.options import TlsOptions
from penstock.testing.certificates import Authority


class World:
    """A listener's files, whose key is encrypted."""

    def __init__(self, directory: Path) -> None:
        self.authority, self.clock = Authority(directory), ManualClock()
        self.password = directory / "password"
        self.certificate, self.key = self.authority.server()
        self.encrypt("old")
        self.password.write_text("old")
        options = TlsOptions(certificate=self.certificate, key=self.key, key_password_file=self.password)
        self.tls = ServerTls(options, self.clock)
        self.contexts: list[ssl.SSLContext] = []

    def encrypt(self, password: str) -> None:
        key = serialization.load_pem_private_key(self.key.read_bytes(), None)
        encryption = serialization.BestAvailableEncryption(password.encode())
        self.key.write_bytes(
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
        )

    def connect(self) -> int:
        """Somebody connects, a while later; how often certificates were read again by then."""
        self.clock.time_ms += 2000
        theirs, ours = socket.socketpair()
        with theirs, self.tls.wrap(ours) as wrapped:
            if wrapped.context not in self.contexts:
                self.contexts.append(wrapped.context)
            return len(self.contexts) - 1


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_the_password_of_a_key_may_come_last(world: World, caplog: pytest.LogCaptureFixture) -> None:
    assert world.connect() == 0
    world.authority.server()
    world.encrypt("new")
    assert world.connect() == 0
    assert "the former certificate stays in use" in caplog.text
    world.password.write_text("new")
    assert world.connect() == 1


def test_files_that_cannot_be_looked_at_cost_nobody_their_connection(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    assert world.connect() == 0
    world.certificate.unlink()
    world.certificate.symlink_to("x" * 300)  # Longer than a name may be, which `is_file` does not take for an answer.
    assert world.connect() == 0
    assert "the former certificate stays in use" in caplog.text
    world.certificate.unlink()
    world.authority.server()
    assert world.connect() == 1
