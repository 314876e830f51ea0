"""Kafka's sampled rates and its token bucket. Pure; the time is an argument.

A `Rate` is Kafka's sampled rate: amounts in samples of one window each, the oldest of which are dropped. With the
default eleven samples of a second it is the average over the last ten to eleven seconds: a burst of ten seconds' worth
passes, and after that the average is enforced. A `TokenBucket` (KIP-599) holds what all windows together allow and
refills continuously, so that one large change does not have to age out before the next.

A meter that was idle for all its windows equals a new one, so dropping it changes nothing.
"""

from __future__ import annotations

from collections import deque
from math import inf

from penstock.base.dataclasses import dataclass

MAX_THROTTLE_MS = 15 * 60 * 1000
"""The longest throttle time, however small a limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleWindows:
    """Number and length of the windows."""

    samples: int = 11
    window_ms: int = 1000

    @property
    def total_ms(self) -> int:
        """The length of all windows together."""
        return self.samples * self.window_ms

    @property
    def completed_ms(self) -> int:
        """The shortest time that amounts are averaged over: all windows but the current one."""
        return (self.samples - 1) * self.window_ms


class Rate:
    """Amounts over a sliding window, with millisecond resolution."""

    __slots__ = ("_completed_total", "_sample_began_ms", "_samples", "_windows", "last_ms", "sample_ends_ms", "total")

    def __init__(self, windows: SampleWindows) -> None:
        self._windows = windows
        self._samples: deque[tuple[int, int, float]] = deque()
        """Completed samples: start, time of the last amount, total; oldest first."""
        self._completed_total = 0.0
        """Their total."""
        self._sample_began_ms = 0
        self.sample_ends_ms = 0
        """When the current sample ends; 0 if there is none."""
        self.last_ms = 0.0
        """When the last amount was added to it."""
        self.total = 0.0
        """The total of all samples. The oldest may be due to be dropped, so the true total is this or less."""

    def record(self, amount: float, now_ms: float) -> None:
        """Add an amount, or take one back. Within a sample that is two assignments, which is what the compiled
        twins of `throttles.py` do."""
        if now_ms >= self.sample_ends_ms:
            self._begin_sample(int(now_ms))
        self.last_ms = now_ms
        self.total += amount

    def _begin_sample(self, now_ms: int) -> None:
        """Begin a sample."""
        self._drop_old_samples(now_ms)
        if self.sample_ends_ms:
            self._samples.append((self._sample_began_ms, int(self.last_ms), self.total - self._completed_total))
            self._completed_total = self.total
        self._sample_began_ms, self.sample_ends_ms = now_ms, now_ms + self._windows.window_ms

    def safe_total(self, limit: float) -> float:
        """A total that is within the limit whenever its amounts were added: up to it, no average has to be computed."""
        return limit * self._windows.completed_ms / 1000

    def excess_ms(self, limit: float, now_ms: float) -> int:
        """How long nothing may be added until the average is at the limit (units per second); 0 if it is now."""
        at_ms = int(now_ms)
        self._drop_old_samples(at_ms)
        if not self.sample_ends_ms:
            return 0
        excess = self.total - limit * self._span_ms(at_ms) / 1000
        return 0 if excess <= 0 else _time_ms(excess, limit)

    def is_idle(self, now_ms: float) -> bool:
        """Whether it equals a new one."""
        self._drop_old_samples(int(now_ms))
        return not self.sample_ends_ms

    def _drop_old_samples(self, now_ms: int) -> None:
        samples, total_ms = self._samples, self._windows.total_ms
        while samples and now_ms - samples[0][1] >= total_ms:
            amount = samples.popleft()[2]
            self._completed_total -= amount
            self.total -= amount
        if not samples:
            self._completed_total = 0.0  # Clear rounding errors.
            if now_ms - int(self.last_ms) >= total_ms:
                self.total, self.sample_ends_ms = 0.0, 0

    def _span_ms(self, now_ms: int) -> int:
        """The time that the total is divided by: as if the windows before the first sample had been empty."""
        window_ms = self._windows.window_ms
        elapsed_ms = now_ms - (self._samples[0][0] if self._samples else self._sample_began_ms)
        missing = self._windows.samples - 1 - elapsed_ms // window_ms
        return max(elapsed_ms + max(missing, 0) * window_ms, 1)


class TokenBucket:
    """Credits that are refilled at the rate of a limit."""

    __slots__ = ("_at_ms", "_tokens", "_windows")

    def __init__(self, windows: SampleWindows) -> None:
        self._windows = windows
        self._tokens = 0.0
        self._at_ms: int | None = None

    def record(self, amount: float, limit: float, now_ms: int) -> None:
        """Take credits, even more than there are."""
        self._refill(limit, now_ms)
        self._tokens = min(self._tokens - amount, self._burst(limit))

    def charge(self, amount: float, limit: float, now_ms: int) -> int:
        """Take credits; how long until none are owed."""
        self.record(amount, limit, now_ms)
        return 0 if self._tokens >= 0 else self.excess_ms(limit, now_ms)

    def excess_ms(self, limit: float, now_ms: int) -> int:
        """How long until no credits are owed; 0 if none are."""
        self._refill(limit, now_ms)
        return 0 if self._tokens >= 0 else _time_ms(-self._tokens, limit)

    def is_idle(self, now_ms: int) -> bool:
        """Whether it equals a new one: full."""
        # Debts take longer than all windows to be refilled.
        return self._at_ms is None or (self._tokens >= 0 and now_ms - self._at_ms >= self._windows.total_ms)

    def _refill(self, limit: float, now_ms: int) -> None:
        burst = self._burst(limit)
        if self._at_ms is None or burst == inf:  # Without a limit it refills at once.
            self._tokens = burst
        else:
            self._tokens = min(self._tokens + limit * (now_ms - self._at_ms) / 1000, burst)
        self._at_ms = now_ms

    def _burst(self, limit: float) -> float:
        return limit * self._windows.total_ms / 1000


def _time_ms(amount: float, limit: float) -> int:
    """How long an amount takes to be made up for; bounded, because a tiny limit would overflow."""
    return round(min(amount / limit * 1000, MAX_THROTTLE_MS))
