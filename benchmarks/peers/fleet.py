"""The servers of a benchmark: started when first asked for, warmed up, kept, ended together.

Those that a row compares run side by side and idle while it is not their turn: a JVM that was restarted for
each run would be measured cold. What an idle one burns is counted among the others' CPU.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from benchmarks.model import Variant
from benchmarks.processes import free_port

from .server import Peer, Place, Server


class Fleet:
    """Servers by variant. `warm` is run once on each that was started to be kept."""

    def __init__(self, peers: Mapping[Variant, Peer], directory: Path, warm: Callable[[Server], None]) -> None:
        self._peers, self._directory, self.warm = peers, directory, warm
        self._kept: dict[Variant, Server] = {}
        self._fresh: list[Server] = []
        self._number = 0

    def install(self, variants: set[Variant]) -> None:
        for variant in sorted(variants, key=lambda each: each.value):
            self._peers[variant].install()

    def server(self, variant: Variant) -> Server:
        """The warm server of a variant."""
        server = self._kept.get(variant)
        if server is None:
            server = self._start(self._place(variant))
            self._kept[variant] = server
            server.await_ready()
            self.warm(server)
        return server

    def kept(self) -> list[Server]:
        """Servers that stand by for their turn."""
        return list(self._kept.values())

    def keep_only(self, variants: set[Variant]) -> None:
        """End the servers a row does not need, with their data."""
        for variant in set(self._kept) - variants:
            self.discard(variant)

    def discard(self, variant: Variant) -> None:
        """End the kept server of a variant, if there is one, with its data."""
        server = self._kept.pop(variant, None)
        if server is not None:
            self._discard(server)

    @contextmanager
    def fresh(self, variant: Variant) -> Iterator[Server]:
        """A server of its own in an empty directory, not awaited and not warm, gone afterwards."""
        server = self._start(self._place(variant))
        self._fresh.append(server)
        try:
            yield server
        finally:
            self._fresh.remove(server)
            self._discard(server)

    def restart(self, server: Server, *, kill: bool) -> None:
        """End a server, politely or not, and start it on the same data; not awaited."""
        if kill:
            server.child.kill()
        else:
            server.child.stop()
        again = self._start(server.place)
        # The same object goes on, so that whoever holds it ends the new process and not the old.
        server.child, server.started_ns, server.answers = again.child, again.started_ns, again.answers

    def close(self) -> None:
        for server in [*self._kept.values(), *self._fresh]:
            self._discard(server)
        self._kept, self._fresh = {}, []

    def _place(self, variant: Variant) -> Place:
        self._number += 1
        directory = self._directory / f"{self._number:03d}-{variant.value}"
        return Place(variant=variant, directory=directory, port=free_port(), side_port=free_port())

    def _start(self, place: Place) -> Server:
        return self._peers[place.variant].start(place)

    @staticmethod
    def _discard(server: Server) -> None:
        server.child.stop()
        shutil.rmtree(server.place.directory, ignore_errors=True)
