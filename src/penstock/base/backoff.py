"""Exponential backoff with jitter: each wait before another attempt is about twice as long, up to a limit.

The jitter spreads the retries of callers that failed at the same time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from penstock.base.errors import OutcomeUnknown, PlatformError, Unavailable
from penstock.base.randomness import Randomness

T = TypeVar("T")
FIRST_S, LONGEST_S = 0.02, 1.0


class Backoff:
    """The waits between attempts."""

    def __init__(
        self, randomness: Randomness, first_s: float = FIRST_S, longest_s: float = LONGEST_S, growth: float = 2.0
    ) -> None:
        self._randomness, self._next_s, self._longest_s, self._growth = randomness, first_s, longest_s, growth

    async def wait(self) -> None:
        """Wait before the next attempt. The next wait is longer."""
        wait_s = self._next_s
        self._next_s = min(self._growth * wait_s, self._longest_s)
        await asyncio.sleep(wait_s * self._randomness.uniform(0.5, 1.5))


async def retry_until_answered(
    attempt: Callable[[], Awaitable[T]],
    backoff: Backoff,
    on_failure: Callable[[PlatformError], None] = lambda problem: None,
) -> T:
    """Retry until an attempt succeeds. Only for idempotent work that the caller cannot continue without."""
    while True:
        try:
            return await attempt()
        except (Unavailable, OutcomeUnknown) as problem:
            on_failure(problem)
            await backoff.wait()
