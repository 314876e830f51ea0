"""Penstock as a person starts it: one command, settings as shipped."""

from __future__ import annotations

import sys
import urllib.error
import urllib.request
from pathlib import Path

from benchmarks.processes import BenchmarkError, Child

from .server import Place, Server


class Penstock:
    """`penstock up` of the environment this harness runs in, at one durability."""

    def __init__(self, durability: str) -> None:
        self._durability = durability
        self._command = Path(sys.executable).with_name("penstock")

    def install(self) -> None:
        if not self._command.exists():
            raise BenchmarkError(f"{self._command} is not there: run `make install` first")

    def start(self, place: Place) -> Server:
        place.directory.mkdir(parents=True, exist_ok=True)
        side = f"127.0.0.1:{place.side_port}"
        log = place.directory / "log"
        options = {
            "--data-dir": str(place.directory / "data"),
            "--kafka": place.address,
            "--http": side,
            "--durability": self._durability,
        }
        command = [str(self._command), "up", *(part for option in options.items() for part in option)]
        child = Child(command, log=log)
        return Server(place=place, child=child, started_ns=child.started_ns, answers=lambda: _is_ready(side))


def _is_ready(side: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{side}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
