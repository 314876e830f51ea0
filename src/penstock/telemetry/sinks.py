"""Destinations of client metrics: an OTLP receiver, or this agent's own `/metrics` page.

Neither can delay clients. Metrics that a receiver does not take in time are dropped and counted, and so are those for
which the page has no room. Virtual clusters share the page fairly: a client may pretend to be any number of clients.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import partial
from typing import NamedTuple, Protocol

from penstock.base.clock import Clock
from penstock.base.log_throttle import LogThrottle
from penstock.clusters.sharing import FairCapacity
from penstock.telemetry.otlp import points, with_labels
from penstock.wire.primitives import Buffer

WAITING_MAX_BYTES = 16 * 1024 * 1024
POST_MAX_BYTES = 4 * 1024 * 1024
SERIES_MAX = 10_000
SERIES_MAX_PER_CLIENT = 1_000
SERIES_MAX_CHARS = 2048
"""The longest name and labels of a series: clients choose them, and the page keeps them in memory."""
COMPLAIN_EVERY_S = 60.0
_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9_]|^(?=[0-9])|^$")
_log = logging.getLogger(__name__)


ClientKey = tuple[int, bytes]
"""A client: virtual cluster and client instance id."""
Apply = Callable[[], None]
"""Hands parsed metrics to their destination."""


class Sink(Protocol):
    """A destination of client metrics."""

    deltas: bool
    """Whether clients should push counters with delta temporality."""
    dropped: int
    """Number of pushes that were dropped, completely or in part."""

    def read(self, client: ClientKey, labels: Mapping[str, str], payload: Buffer, expires_s: float) -> Apply:
        """Parse metrics of a client, which expire after `expires_s`; raises `Malformed`. That takes a third of a second
        per megabyte, so it runs on a worker thread and changes no state; the returned function does, on the event
        loop."""


class OtlpForwarder:
    """Sends metrics to an OTLP receiver, in batches. Its task runs only while metrics are queued."""

    deltas = True

    def __init__(self, post: Callable[[bytes], Awaitable[None]], clock: Clock) -> None:
        self._post, self._clock = post, clock
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._task: asyncio.Task[None] | None = None
        self._log_throttle = LogThrottle(clock, COMPLAIN_EVERY_S)
        self.dropped = 0

    def read(self, client: ClientKey, labels: Mapping[str, str], payload: Buffer, expires_s: float) -> Apply:
        """Parse and label metrics for sending."""
        return partial(self._take, with_labels(payload, labels))

    def _take(self, ready: bytes) -> None:
        if self._waiting_bytes + len(ready) > WAITING_MAX_BYTES:
            self.dropped += 1
            return
        self._waiting.append(ready)
        self._waiting_bytes += len(ready)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._send_all())

    async def _send_all(self) -> None:
        while self._waiting:
            pieces = [self._waiting.popleft()]
            size = len(pieces[0])
            while self._waiting and size + len(self._waiting[0]) <= POST_MAX_BYTES:
                pieces.append(self._waiting.popleft())
                size += len(pieces[-1])
            try:
                await self._post(b"".join(pieces))  # Concatenated messages are one message with all their resources.
            except OSError as problem:
                self.dropped += len(pieces)
                self._complain(problem)
            finally:
                self._waiting_bytes -= size

    def _complain(self, problem: OSError) -> None:
        if self._log_throttle.is_due():
            _log.warning("client metrics could not be sent to the OTLP receiver: %s", problem)

    async def close(self) -> None:
        """Drop what was not sent."""
        self._waiting.clear()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


def _plain(name: str) -> str:
    """A valid Prometheus name."""
    plain = _NOT_IN_NAMES.sub("_", name)
    return f"x{plain}" if plain.startswith("__") else plain  # Reserved by Prometheus.


class Series(NamedTuple):
    """One sample on the page."""

    name: str
    is_sum: bool
    labels: Mapping[str, str]
    value: float


class MetricsPage:
    """The latest samples of clients, until they expire."""

    deltas = False

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._clients: OrderedDict[ClientKey, tuple[float, list[Series], bool]] = OrderedDict()
        """By client: when its samples expire, the samples, and whether they are all of its last push."""
        self._capacity = FairCapacity[ClientKey](SERIES_MAX, SERIES_MAX)
        self.dropped = 0

    def read(self, client: ClientKey, labels: Mapping[str, str], payload: Buffer, expires_s: float) -> Apply:
        """Parse samples that replace the client's previous ones."""
        found: dict[tuple[str, tuple[tuple[str, str], ...]], Series] = {}
        dropped = 0
        for point in points(payload):
            if len(found) >= SERIES_MAX_PER_CLIENT:
                dropped += 1
                continue
            size = len(point.name) + sum(len(name) + len(text) for name, text in (*point.attributes, *labels.items()))
            if size > SERIES_MAX_CHARS:
                dropped += 1
                continue
            own = {_plain(name): text for name, text in point.attributes}
            name = _plain(point.name)
            found[name, point.attributes] = Series(name, point.is_sum, {**own, **labels}, point.value)
        return partial(self._take, client, list(found.values()), dropped, expires_s)

    def _take(self, client: ClientKey, found: list[Series], dropped: int, expires_s: float) -> None:
        self._forget(client)
        self._forget_old()
        series, cluster_id = found, client[0]
        if not self._capacity.may_have(cluster_id, 1, len(found)):
            series = found[: self._capacity.free_parts]
        is_whole = not dropped and len(series) == len(found)
        self.dropped += not is_whole
        if not series:  # Clients without samples are not kept: nothing else would bound their number.
            return
        while (evicted := self._capacity.next_eviction(cluster_id, 1, len(series))) is not None:
            self.dropped += self._forget(evicted)
        self._clients[client] = self._clock.monotonic() + expires_s, series, is_whole
        self._capacity.add(cluster_id, client, len(series))

    def series(self) -> Iterator[Series]:
        """Every sample that has not expired."""
        self._forget_old()
        for _, series, _ in self._clients.values():
            yield from series

    def _forget(self, client: ClientKey) -> bool:
        """Drop the samples of a client; whether all of its last push was shown."""
        known = self._clients.pop(client, None)
        if known is None:
            return False
        self._capacity.remove(client[0], client)
        return known[2]

    def _forget_old(self) -> None:
        now_s = self._clock.monotonic()
        for client in [client for client, (until_s, _, _) in self._clients.items() if until_s <= now_s]:
            self._forget(client)
