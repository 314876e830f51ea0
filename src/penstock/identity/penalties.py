"""Delays of failed authentications, growing with repeated failures from the same network.

Kafka delays every failure equally (`connection.failed.authentication.delay.ms`). Here the first few are; then the delay
doubles. It is a timer that holds one connection only, and it counts from the start of the check, in whole delays, so
that the response time does not reveal how long a credential took to check, which differs between users.

That slows down repetition; how much may be tried, on many connections and with many names, is bounded by
`guess_limits`. A success resets failures of the same subject from the same network only: knowing one password does not
speed up guessing others. Memory is bounded.
"""

from __future__ import annotations

from collections import OrderedDict

from penstock.base.clock import Clock
from penstock.base.dataclasses import dataclass
from penstock.identity.networks import network_of

FREE_FAILURES = 5
LONGEST_DELAY_S = 10.0
FORGOTTEN_AFTER_S = 60.0
MAX_RECORDS = 10_000


@dataclass(slots=True)
class _Record:
    failures: int = 0
    last_s: float = 0.0


class Penalties:
    """Failures by network, and by network and claimed identity."""

    def __init__(self, clock: Clock, delay_s: float) -> None:
        self._clock, self._delay_s = clock, delay_s
        self._records: OrderedDict[tuple[str, bytes], _Record] = OrderedDict()

    def failed(self, host: str, subject: bytes, *, spent_s: float = 0.0) -> float:
        """An attempt failed after `spent_s`: how long to delay the response."""
        now, key = self._clock.monotonic(), (network_of(host), subject)
        record = self._records.get(key)
        if record is None or now - record.last_s > FORGOTTEN_AFTER_S:
            record = self._records[key] = _Record()
        self._records.move_to_end(key)
        if len(self._records) > MAX_RECORDS:
            self._records.popitem(last=False)
        record.failures += 1
        record.last_s = now
        delay_s = self._delay_of(record)
        return delay_s - spent_s % delay_s if delay_s else 0.0

    def _delay_of(self, record: _Record) -> float:
        excess = min(max(0, record.failures - FREE_FAILURES), 20)
        return min(self._delay_s * 2.0**excess, max(LONGEST_DELAY_S, self._delay_s))

    def succeeded(self, host: str, subject: bytes) -> None:
        """An attempt succeeded."""
        self._records.pop((network_of(host), subject), None)
