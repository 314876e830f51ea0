"""An ordinary client that goes on while others misbehave, and the memory of the process they misbehave towards."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from fixtures.server import Server
from fixtures.waiting import eventually
from fixtures.wire import Wire, batch

MIB = 1024 * 1024
TOPIC = "canary"
SLOW_S = 2.5
"""How long a produce and a fetch of a well-behaved client may take together."""
HICCUPS = 2
"""So many of them may take `HICCUP_S`: the machine of the tests may have other things to do, and one disk."""
HICCUP_S = 10.0


class Canary(threading.Thread):
    """Produces a record and fetches it, over and over; keeps the times."""

    def __init__(self, server: Server) -> None:
        super().__init__(daemon=True)
        self.times_s: list[float] = []
        self.problem: BaseException | None = None
        self._stopping = threading.Event()
        self._wire = Wire(server.bootstrap)

    def run(self) -> None:
        try:
            with self._wire as wire:
                while not self._stopping.wait(0.005):
                    began = time.monotonic()
                    answer = wire.produce(TOPIC, batch(b"sings"))
                    assert answer.error_code == 0, answer.error_code
                    data = wire.fetch(TOPIC, answer.base_offset)
                    assert data.error_code == 0, data.error_code
                    assert len(data.records) > 61
                    self.times_s.append(time.monotonic() - began)
        except BaseException as problem:
            self.problem = problem

    def goes_on(self, rounds: int) -> None:
        """Wait until it was served so many times more."""
        goal = len(self.times_s) + rounds
        eventually(lambda: len(self.times_s) >= goal or not self.is_alive(), within_s=60, what="being served")

    def stop(self) -> None:
        """End it; raises what went wrong."""
        self._stopping.set()
        self.join(timeout=30)
        if self.problem is not None:
            raise self.problem


@contextmanager
def healthy(server: Server, *, grows_mib: float) -> Iterator[Canary]:
    """Whatever happens in this block: another client is served, memory grows by no more than this at any time."""
    with Wire(server.bootstrap) as wire:
        if wire.metadata([TOPIC]).topics[0].error_code:
            wire.create_topic(TOPIC)
    canary, memory = Canary(server), Memory(server)
    canary.start()
    memory.start()
    try:
        yield canary
        canary.goes_on(5)
    finally:
        grown_mib = memory.stop()
        canary.stop()
    assert server.running, server.log_tail()
    assert grown_mib <= grows_mib, f"memory grew by {grown_mib:.0f} MiB"
    assert canary.times_s, "nothing was served at all"
    worst = sorted(canary.times_s, reverse=True)
    shown = ", ".join(f"{time_s:.2f}" for time_s in worst[:5])
    assert worst[0] < HICCUP_S, f"another client waited {shown} s"
    assert all(time_s < SLOW_S for time_s in worst[HICCUPS:]), f"another client waited {shown} s"
    assert "Traceback" not in server.log_tail(limit=1_000_000), server.log_tail()


class Memory(threading.Thread):
    """Watches the process's resident memory."""

    def __init__(self, server: Server) -> None:
        super().__init__(daemon=True)
        self._process = server.process
        self._before = self._peak = self._process.memory_info().rss
        self._stopping = threading.Event()

    def run(self) -> None:
        while not self._stopping.wait(0.02):
            self._peak = max(self._peak, self._process.memory_info().rss)

    def stop(self) -> float:
        """By how many MiB it grew at its highest."""
        self._stopping.set()
        self.join()
        self._peak = max(self._peak, self._process.memory_info().rss)
        return (self._peak - self._before) / MIB
