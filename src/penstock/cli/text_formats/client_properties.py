"""Files that say how to connect, for this program and for Kafka's own clients."""

from __future__ import annotations

import os
import re
from pathlib import Path

from penstock.base.dataclasses import dataclass, field

_MODULES = {"PLAIN": "plain.PlainLoginModule", "SCRAM-SHA-512": "scram.ScramLoginModule"}
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----\s[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----")
_WITHOUT_AUTHORITY = (
    "# If the server's certificate is signed by an authority of your own, name its file here:",
    "# ssl.truststore.type=PEM",
    "# ssl.truststore.location=/path/to/ca.pem",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """How one principal connects."""

    mechanism: str
    name: str
    secret: str = field(repr=False)
    protocol: str = "SASL_SSL"
    bootstrap: str = ""
    """Where to connect; empty if that is not known."""
    authorities: str = ""
    """Certificates (PEM) that the server's certificate is checked with; empty for those of the system."""


def complaint_about(target: Path) -> str | None:
    """Why a file cannot be made. To be asked before there is a secret that could go nowhere else."""
    if target.exists():
        return f"{target} exists already: choose another file, or remove it"
    folder = target.absolute().parent
    if not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
        return f"nothing can be written to {folder}: choose another file"
    return None


def certificates_in(text: str) -> list[str]:
    """The certificates of a PEM file, without what is written between them."""
    return _CERTIFICATE.findall(text)


def login_lines(login: Login) -> list[str]:
    """The lines of a `client.properties`. It refers to no other file, so it can be copied to where it is needed."""
    quoted = login.name.replace("\\", "\\\\").replace('"', '\\"')
    lines = [f"bootstrap.servers={login.bootstrap}"] if login.bootstrap else []
    lines += [
        f"security.protocol={login.protocol}",
        f"sasl.mechanism={login.mechanism}",
        f"sasl.jaas.config=org.apache.kafka.common.security.{_MODULES[login.mechanism]} required"
        f' username="{quoted}" password="{login.secret}";',
    ]
    certificates = certificates_in(login.authorities)
    if certificates:
        # One line, as Java reads it: `\n` is a line feed, and a backslash at the end continues the line.
        folded = "\\n\\\n".join(line for certificate in certificates for line in certificate.splitlines())
        lines += ["ssl.truststore.type=PEM", f"ssl.truststore.certificates=\\\n{folded}"]
    elif login.protocol == "SASL_SSL":
        lines += _WITHOUT_AUTHORITY
    return lines


def write_login(target: Path, login: Login) -> None:
    """Write a `client.properties` that only its owner can read, from its first byte on."""
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write("\n".join(login_lines(login)) + "\n")
