"""A certificate for a server on loopback, signed by itself, so that it is its own authority."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import run

TIMEOUT_S = 60.0
DAYS = "30"


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """Files (PEM): the certificate, and its private key followed by it."""

    path: Path
    with_key: Path


def make_certificate(directory: Path) -> Certificate:
    """Make one for 127.0.0.1, unless it is there already."""
    made = Certificate(path=directory / "server.pem", with_key=directory / "server-with-key.pem")
    if made.with_key.exists():
        return made
    key = directory / "server.key"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", DAYS, "-subj", "/CN=localhost"]
    names = ["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    files = ["-keyout", str(key), "-out", str(made.path)]
    run([*command, *names, *files], log=directory / "openssl.log", timeout_s=TIMEOUT_S)
    made.with_key.touch(mode=0o600)
    made.with_key.write_text(key.read_text() + made.path.read_text())
    return made
