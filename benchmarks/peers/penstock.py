"""Penstock as a person starts it: one command, settings as shipped."""

from __future__ import annotations

import secrets
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

from benchmarks.processes import BenchmarkError, Child, free_port, run

from .certificate import make_certificate
from .server import Place, Server

AUTHORIZER = "org.apache.kafka.metadata.authorizer.StandardAuthorizer"
COMMAND_TIMEOUT_S = 60.0
PACKAGE = Path(__file__).resolve().parents[2] / "src" / "penstock"
QUOTAS = ("producer_byte_rate=100GiB", "consumer_byte_rate=100GiB", "request_percentage=100000")
"""More than anybody reaches, and counted all the same."""


class Penstock:
    """`penstock up` of the environment this harness runs in, at one durability.

    `guarded`: every request is held against ACLs and quotas, which allow everything. `tls`: clients connect by TLS.
    `tenants`: others connect with credentials, beside those who need none; `sasl` says where, and `root`, whose
    `password` is in a file, may make clusters for them.
    """

    def __init__(self, durability: str, *, guarded: bool = False, tls: bool = False, tenants: bool = False) -> None:
        self._durability, self._guarded, self._tls, self._tenants = durability, guarded, tls, tenants
        self._command = Path(sys.executable).with_name("penstock")

    def install(self) -> None:
        if not self._command.exists():
            raise BenchmarkError(f"{self._command} is not there: run `make install` first")
        # As that does. Python would do it at the first start, unless it is told to write no bytecode.
        subprocess.run([sys.executable, "-m", "compileall", "-q", str(PACKAGE)], check=True)

    def start(self, place: Place) -> Server:
        place.directory.mkdir(parents=True, exist_ok=True)
        side = f"127.0.0.1:{place.side_port}"
        log = place.directory / "log"
        data, authority = place.directory / "data", None
        options = {"--data-dir": str(data), "--http": side, "--durability": self._durability}
        if self._tls:
            certificate = make_certificate(place.directory)
            authority = certificate.path
            options |= {"--listener": f"SSL://{place.address}", "--tls-cert": str(certificate.with_key)}
        else:
            options["--kafka"] = place.address
        if self._guarded:
            self._grant(place, data)
            options["--set"] = f"authorizer.class.name={AUTHORIZER}"
        command = [str(self._command), "up", *(part for option in options.items() for part in option)]
        if self._tenants:
            sasl = self._sasl(place, data)
            command += ["--listener", f"SASL_PLAINTEXT://{sasl}", "--set", "super.users=User:root"]
            command += ["--set", "authorizer.class.name=none"]
        child = Child(command, log=log)
        return Server(
            place=place, child=child, started_ns=child.started_ns, authority=authority,
            answers=lambda: _is_ready(side) and (not self._guarded or self._has_quotas(place)),
        )  # fmt: skip

    def _sasl(self, place: Place, data: Path) -> str:
        """Where tenants connect; it stays over a restart, as the user does who administers the platform."""
        where = place.directory / "sasl"
        if not where.exists():
            password = secrets.token_hex(16)
            (place.directory / "password").write_text(password)
            command = [str(self._command), "user", "create", "root", "--data-dir", str(data)]
            subprocess.run(command, input=password + "\n", text=True, check=True, capture_output=True)
            where.write_text(f"127.0.0.1:{free_port()}")
        return where.read_text()

    def _grant(self, place: Place, data: Path) -> None:
        """Rules for who does not say who it is; they stay over a restart."""
        if not data.exists():
            command = [str(self._command), "role", "grant", "admin", "ANONYMOUS", "--data-dir", str(data)]
            run(command, log=place.directory / "grant.log", timeout_s=COMMAND_TIMEOUT_S)

    def _has_quotas(self, place: Place) -> bool:
        command = [str(self._command), "quota", "set", "--default-client-id", "-b", place.address, *QUOTAS]
        run(command, log=place.directory / "quotas.log", timeout_s=COMMAND_TIMEOUT_S)
        return True


def _is_ready(side: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{side}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
