"""What a failed attempt costs: time, the more of it the more often an address has failed of late.

Kafka makes every failure wait as long (`connection.failed.authentication.delay.ms`). Here the first few do; then the
wait doubles. It is spent on a timer that holds up one connection only, and it counts from when the attempt began to be
looked at, in whole delays: how long a proof takes to be checked, which differs between users, is not to be seen in it.

Guessing on many connections at once does not get around that. A failure counts for as long as it was to wait, also when
its client hangs up sooner; and while as many count as one address may have, everybody who comes from there waits before
anything is looked at. Nobody is locked out by what others do behind the same address: it only takes longer. How many
addresses are remembered is bounded.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field

from penstock.base.clock import Clock

FREE_FAILURES = 5
LONGEST_DELAY_S = 10.0
FORGOTTEN_AFTER_S = 60.0
MAX_HOSTS = 10_000
MAX_WAITING_PER_HOST = 100
PATIENCE_S = 5.0
"""How long an attempt waits at most before it is looked at. Clients give up an authentication of several messages
after 30 seconds or more."""


@dataclass(slots=True)
class _Record:
    failures: int = 0
    last_s: float = 0.0
    waiting: deque[float] = field(default_factory=deque)
    """Until when failures wait, the first ones first: later ones do not wait shorter."""

    def waits(self, now: float) -> int:
        """How many failures wait now."""
        while self.waiting and self.waiting[0] <= now:
            self.waiting.popleft()
        return len(self.waiting)


class Penalties:
    """Failures by address."""

    def __init__(self, clock: Clock, delay_s: float) -> None:
        self._clock, self._delay_s = clock, delay_s
        self._hosts: OrderedDict[str, _Record] = OrderedDict()

    def before(self, host: str) -> float:
        """How long an attempt waits before it is looked at."""
        record = self._hosts.get(host)
        if record is None or record.waits(self._clock.monotonic()) < MAX_WAITING_PER_HOST:
            return 0.0
        return min(PATIENCE_S, self._delay_of(record))

    def failed(self, host: str, *, spent_s: float = 0.0) -> float:
        """An attempt failed that took so long until now: how long its answer has to wait still."""
        now = self._clock.monotonic()
        record = self._hosts.get(host)
        if record is None or (now - record.last_s > FORGOTTEN_AFTER_S and not record.waits(now)):
            record = self._hosts[host] = _Record()
        self._hosts.move_to_end(host)
        if len(self._hosts) > MAX_HOSTS:
            self._hosts.popitem(last=False)
        record.failures += 1
        record.last_s = now
        delay_s = self._delay_of(record)
        if not delay_s:
            return 0.0
        wait_s = delay_s - spent_s % delay_s
        if record.waits(now) < MAX_WAITING_PER_HOST:
            record.waiting.append(now + wait_s)
        return wait_s

    def _delay_of(self, record: _Record) -> float:
        excess = min(max(0, record.failures - FREE_FAILURES), 20)
        return min(self._delay_s * 2.0**excess, max(LONGEST_DELAY_S, self._delay_s))

    def succeeded(self, host: str) -> None:
        """Somebody at this address has proven who they are."""
        record = self._hosts.get(host)
        if record is not None and not record.waits(self._clock.monotonic()):
            del self._hosts[host]
