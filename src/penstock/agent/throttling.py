"""How limits are enforced on a connection: it is told how long to wait, and is not read from meanwhile.

Request time is the time of the event loop's thread: what a request waits for in a database or on a disk costs nobody
else anything.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from types import coroutine
from typing import Any, TypeVar

from penstock.agent.connection import Connection
from penstock.base.clock import Clock
from penstock.quotas.throttles import ClientMeters
from penstock.wire.primitives import Message

T = TypeVar("T")


class Stopwatch:
    """Measures one request. Runs from the beginning."""

    __slots__ = ("_clock", "_since_s", "_spent_s", "client")

    def __init__(self, client: ClientMeters, clock: Clock) -> None:
        self.client = client
        self._clock = clock
        self._spent_s = 0.0
        self._since_s: float | None = clock.monotonic()

    def pause(self) -> None:
        """Others run now."""
        if self._since_s is not None:
            self._spent_s += self._clock.monotonic() - self._since_s
            self._since_s = None

    def go_on(self) -> None:
        """The request runs again."""
        self._since_s = self._clock.monotonic()

    def spent_s(self) -> float:
        """How long it ran, up to now."""
        running_s = 0.0 if self._since_s is None else self._clock.monotonic() - self._since_s
        return self._spent_s + running_s


@coroutine
def timed(work: Coroutine[Any, Any, T], stopwatch: Stopwatch) -> Generator[Any, Any, T]:
    """Run work, and the stopwatch with it, but not while it waits."""
    resume: Callable[[], Any] = lambda: work.send(None)  # noqa: E731
    try:
        while True:
            stopwatch.go_on()
            try:
                awaited = resume()
            except StopIteration as end:
                result: T = end.value
                return result
            finally:
                stopwatch.pause()
            try:
                value = yield awaited
            except GeneratorExit:
                raise
            except BaseException as thrown:  # noqa: BLE001  # a cancellation, most likely: the work's own matter
                problem = thrown
                resume = lambda: work.throw(problem)  # noqa: E731, B023
            else:
                resume = lambda: work.send(value)  # noqa: E731, B023
    finally:
        work.close()


def record_bytes(response: Any) -> int:
    """How many bytes of records a ShareFetch is answered with."""
    found = (partition.records for topic in response.responses for partition in topic.partitions)
    return sum(sum(map(len, records)) if isinstance(records, list) else len(records or b"") for records in found)


def throttle(connection: Connection, response: Message, throttle_ms: int) -> None:
    """Make a client wait for as long as this request, or what its handler says, requires; and let it know."""
    known_ms = getattr(response, "throttle_time_ms", None)
    if known_ms is not None:
        if throttle_ms > known_ms:
            response.throttle_time_ms = throttle_ms  # type: ignore[attr-defined]  # most messages have it
        else:
            throttle_ms = known_ms
    if throttle_ms:
        connection.mute(throttle_ms)
