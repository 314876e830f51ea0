"""Where clients' metrics go: to a receiver that speaks OTLP, or onto this agent's own page of metrics.

Neither can hold anybody up. What a receiver does not take in time is dropped and counted, and so is what there is no
room for on the page, which virtual clusters share fairly: a client may say that it is any number of clients.
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
from penstock.base.complaints import Seldom
from penstock.clusters.sharing import FairCapacity
from penstock.telemetry.otlp import labelled, points
from penstock.wire.primitives import Buffer

WAITING_MAX_BYTES = 16 * 1024 * 1024
POST_MAX_BYTES = 4 * 1024 * 1024
SERIES_MAX = 10_000
SERIES_MAX_PER_CLIENT = 1_000
SERIES_MAX_CHARS = 2048
"""Of a number's name and labels together. Clients choose them, and the page keeps them."""
COMPLAIN_EVERY_S = 60.0
_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9_]|^(?=[0-9])|^$")
_log = logging.getLogger(__name__)


ClientKey = tuple[int, bytes]
"""A client: its virtual cluster, and the id it goes by there."""
Taken = Callable[[], None]
"""Takes metrics that have been read."""


class Sink(Protocol):
    """Takes metrics of clients."""

    deltas: bool
    """Whether counters should come as what was added since the last push."""
    dropped: int
    """How many pushes were not handed on, or not completely."""

    def read(self, client: ClientKey, labels: Mapping[str, str], payload: Buffer, expires_s: float) -> Taken:
        """Metrics of a client, which are old after so long; raise `Malformed` if they are none. It takes a third of a
        second for each megabyte, so it is done on a worker thread, and changes nothing: that what it returns does, on
        the loop."""


class OtlpForwarder:
    """Sends metrics on, as many as there are at once. Runs only while there are any."""

    deltas = True

    def __init__(self, post: Callable[[bytes], Awaitable[None]], clock: Clock) -> None:
        self._post, self._clock = post, clock
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._task: asyncio.Task[None] | None = None
        self._complaints = Seldom(clock, COMPLAIN_EVERY_S)
        self.dropped = 0

    def read(self, client: ClientKey, labels: Mapping[str, str], payload: Buffer, expires_s: float) -> Taken:
        """Metrics to be sent."""
        return partial(self._take, labelled(payload, labels))

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
                await self._post(b"".join(pieces))  # Lists of resources, one after the other, are one list.
            except OSError as problem:
                self.dropped += len(pieces)
                self._complain(problem)
            finally:
                self._waiting_bytes -= size

    def _complain(self, problem: OSError) -> None:
        if self._complaints.is_due():
            _log.warning("metrics of clients could not be sent on: %s", problem)

    async def close(self) -> None:
        """Give up what was not sent."""
        self._waiting.clear()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


def _plain(name: str) -> str:
    """A name as Prometheus allows it."""
    plain = _NOT_IN_NAMES.sub("_", name)
    return f"x{plain}" if plain.startswith("__") else plain  # Names like that are Prometheus' own.


class Series(NamedTuple):
    """One number on the page."""

    name: str
    is_sum: bool
    labels: Mapping[str, str]
    value: float


class MetricsPage:
    """The latest numbers of clients, until they are old."""

    deltas = False

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._clients: OrderedDict[ClientKey, tuple[float, list[Series], bool]] = OrderedDict()
        """When a client's numbers are old, the numbers, and whether these are all of its last push."""
        self._capacity = FairCapacity[ClientKey](SERIES_MAX, SERIES_MAX)
        self.dropped = 0

    def read(self, client: ClientKey, labels: Mapping[str, str], payload: Buffer, expires_s: float) -> Taken:
        """Numbers in place of the client's last ones."""
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
        if not series:  # Who has none there is not remembered: nothing else bounds how many they are.
            return
        while (evicted := self._capacity.next_eviction(cluster_id, 1, len(series))) is not None:
            self.dropped += self._forget(evicted)
        self._clients[client] = self._clock.monotonic() + expires_s, series, is_whole
        self._capacity.add(cluster_id, client, len(series))

    def series(self) -> Iterator[Series]:
        """Every number that is not old."""
        self._forget_old()
        for _, series, _ in self._clients.values():
            yield from series

    def _forget(self, client: ClientKey) -> bool:
        """Show nothing of a client any more; whether all of its last push was shown."""
        known = self._clients.pop(client, None)
        if known is None:
            return False
        self._capacity.remove(client[0], client)
        return known[2]

    def _forget_old(self) -> None:
        now_s = self._clock.monotonic()
        for client in [client for client, (until_s, _, _) in self._clients.items() if until_s <= now_s]:
            self._forget(client)
