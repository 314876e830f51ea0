"""A running server, and what a peer must know to start one."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from benchmarks.model import Variant
from benchmarks.processes import BenchmarkError, Child, tail_of

READY_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where one server lives: kept over its restarts."""

    variant: Variant
    directory: Path
    port: int
    side_port: int

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


@dataclass(slots=True, kw_only=True)
class Server:
    """One process serving one place. `started_ns` is when the first command for it was given."""

    place: Place
    child: Child
    started_ns: int
    answers: Callable[[], bool]
    authority: Path | None = None
    """Whose certificate it has, where it is reached by TLS."""

    @property
    def pid(self) -> int:
        return self.child.pid

    @property
    def address(self) -> str:
        return self.place.address

    def await_ready(self) -> None:
        """Wait until it serves; raise with the end of its log if it ends or takes too long."""
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not self.answers():
            if not self.child.running:
                raise BenchmarkError(f"{self.place.variant.title} ended:\n{tail_of(self.child.log)}")
            if time.monotonic() > deadline:
                raise BenchmarkError(f"{self.place.variant.title} was not ready in {READY_TIMEOUT_S:.0f} s")
            time.sleep(0.02)


class Peer(Protocol):
    """A product that can be installed and started."""

    def install(self) -> None:
        """Make everything a start needs; quick when that was done before."""

    def start(self, place: Place) -> Server:
        """Start in a fresh or a used directory, without waiting until it serves."""
