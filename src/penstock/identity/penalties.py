"""What a failed attempt costs: time, the more of it the more often an address has failed of late.

Kafka makes every failure wait as long (`connection.failed.authentication.delay.ms`). Here the first few do; then the
wait doubles. It is spent on a timer that holds up one connection only. How many addresses are remembered is bounded,
and so is how many failures of one address may wait at once: beyond that they are not answered at all.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from penstock.base.clock import Clock

FREE_FAILURES = 5
LONGEST_DELAY_S = 10.0
FORGOTTEN_AFTER_S = 60.0
MAX_HOSTS = 10_000
MAX_WAITING_PER_HOST = 100


@dataclass(slots=True)
class _Record:
    failures: int = 0
    waiting: int = 0
    last_s: float = 0.0


class Penalties:
    """Failures by address."""

    def __init__(self, clock: Clock, delay_s: float) -> None:
        self._clock, self._delay_s = clock, delay_s
        self._hosts: OrderedDict[str, _Record] = OrderedDict()

    def begin(self, host: str) -> float | None:
        """An attempt failed: how long its answer has to wait, or None to give none. Ends with `end`."""
        now = self._clock.monotonic()
        record = self._hosts.get(host)
        if record is None or (now - record.last_s > FORGOTTEN_AFTER_S and not record.waiting):
            record = self._hosts[host] = _Record()
        self._hosts.move_to_end(host)
        self._forget_some()
        record.failures += 1
        record.last_s = now
        record.waiting += 1
        if record.waiting > MAX_WAITING_PER_HOST:
            return None
        excess = min(max(0, record.failures - FREE_FAILURES), 20)
        return min(self._delay_s * 2.0**excess, max(LONGEST_DELAY_S, self._delay_s))

    def end(self, host: str) -> None:
        """The wait that `begin` asked for is over, or was given up."""
        record = self._hosts.get(host)
        if record is not None and record.waiting:
            record.waiting -= 1

    def succeeded(self, host: str) -> None:
        """Somebody at this address has proven who they are."""
        record = self._hosts.get(host)
        if record is not None and not record.waiting:
            del self._hosts[host]

    def _forget_some(self) -> None:
        while len(self._hosts) > MAX_HOSTS:
            self._hosts.popitem(last=False)
