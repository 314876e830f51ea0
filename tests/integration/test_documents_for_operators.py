"""What the how-tos tell operators to type about TLS, users, tenants and encryption, typed in order: with a broker that
asks for credentials, started as it is said. Only addresses and paths are others."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from fixtures.documents import ROOT, blocks
from fixtures.waiting import eventually, free_ports

from penstock.testing.certificates import Authority

HOW_TO = ROOT / "docs" / "how-to"
ASKING = re.compile(r"penstock ((user|api-key|service-account) delete|cluster (delete|erase)|acl remove|quota unset) ")
"""Commands to which somebody at a terminal would say yes."""
ELSEWHERE = re.compile(r"penstock up |.* --data-dir |.* -f\b")
"""Commands that start another broker, need one that is stopped, or end with Ctrl-C only."""
SET_UP = f'penstock() {{ {shlex.quote(sys.executable)} -m penstock "$@"; }}\n'


def commands(name: str) -> list[str]:
    """The commands of a how-to, in order."""
    text, found = (HOW_TO / f"{name}.md").read_text(), list[str]()
    for language in ("sh", "console"):
        for block in blocks(text, language):
            found += (line.removeprefix("$ ").strip() for line in block.replace("\\\n", "").splitlines())
    return [line for line in found if line and not line.startswith("kafka-")]


class Terminal:
    """A directory in which commands are typed, and the broker that one of them starts."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        kafka, self._http = free_ports(2)
        authority = Authority(directory / "authority")
        certificate, key = authority.server()
        for file, name in ((certificate, "server.pem"), (key, "server.key"), (authority.ca, "ca.pem")):
            (directory / name).write_bytes(file.read_bytes())
        self._elsewhere = {
            "/var/lib/penstock": str(directory / "data"), "/etc/penstock/": f"{directory}/",
            "kafka.example.com:9093": f"localhost:{kafka}", "0.0.0.0:9093": f"127.0.0.1:{kafka}",
        }  # fmt: skip
        self._environment = {
            **os.environ, "PENSTOCK_BOOTSTRAP": f"localhost:{kafka}", "PENSTOCK_CLIENT_CONFIG": "admin.properties",
        }  # fmt: skip
        self._broker: subprocess.Popen[bytes] | None = None

    def type(self, command: str) -> str:
        """Type a command, which must not fail; what it printed."""
        code, printed = self.attempt(command)
        assert code == 0, f"{command}: exit code {code}\n{printed}"
        return printed

    def attempt(self, command: str) -> tuple[int, str]:
        """Type a command; its exit code, and what it printed."""
        if ASKING.match(command):
            command += " --yes"
        environment = {**self._environment}
        if "--data-dir" in command:  # Before there is a broker, or beside it.
            del environment["PENSTOCK_CLIENT_CONFIG"], environment["PENSTOCK_BOOTSTRAP"]
        done = subprocess.run(
            ["bash", "-c", SET_UP + self._here(command)], cwd=self._directory, env=environment, input="a password\n",
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    def start(self, command: str) -> None:
        """Start the broker as it is said, as the one that `admin` is an administrator of."""
        more = f" --http 127.0.0.1:{self._http} --set super.users=User:admin"
        words = shlex.split(self._here(command.removeprefix("penstock ") + more))
        with (self._directory / "broker.log").open("wb") as log:
            self._broker = subprocess.Popen(
                [sys.executable, "-m", "penstock", *words], cwd=self._directory, stdout=log, stderr=log
            )
        eventually(self._is_ready, within_s=60, what="the broker")

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._http}/readyz", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _here(self, command: str) -> str:
        for there, here in self._elsewhere.items():
            command = command.replace(there, here)
        return command

    def close(self) -> None:
        """Stop the broker."""
        if self._broker is not None:
            self._broker.send_signal(signal.SIGTERM)
            assert self._broker.wait(60) == 0, (self._directory / "broker.log").read_text()


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    terminal = Terminal(tmp_path)
    yield terminal
    terminal.close()


def test_securing_tenants_and_encryption(terminal: Terminal) -> None:
    for command in commands("secure"):
        if command.startswith("penstock up "):
            terminal.start(command)
        elif command.startswith("penstock user password NAME"):
            continue
        elif command.startswith("penstock api-key delete"):
            (account,) = json.loads(terminal.type("penstock api-key list -o json"))
            terminal.type(f"penstock api-key delete {account['key']}")
        else:
            terminal.type(command)

    tenants = [command for command in commands("tenants") if not command.startswith("penstock up ")]
    deletion = "penstock cluster delete acme"
    assert deletion in tenants
    for command in [command for command in tenants if command != deletion]:
        terminal.type(command)
    assert "orders" in terminal.type("penstock topic list --client-config acme.properties")
    terminal.type(deletion)

    for name in ("authorize", "limit-clients", "audit"):
        lines = [line for line in commands(name) if line.startswith("penstock ")]
        typed = [command for command in lines if not ELSEWHERE.match(command)]
        assert typed
        for command in typed:
            terminal.type(command)

    encryption = [command for command in commands("encrypt") if not command.startswith("penstock up ")]
    again = encryption.pop(0)
    assert again == "penstock cluster create acme --encrypt"
    eventually(lambda: terminal.attempt(again)[0] == 0, what="the name being free again")
    for command in encryption:
        terminal.type(command)
    states = {one["cluster"]: one["state"] for one in json.loads(terminal.type("penstock cluster keys -o json"))}
    assert states == {"default": "on", "acme": "erased"}
