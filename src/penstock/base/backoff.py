"""Exponential backoff with jitter: each wait before another attempt is about twice as long, up to a limit.

The jitter keeps those who failed together from coming back together.
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
    """The waits between the attempts at one thing."""

    def __init__(
        self, randomness: Randomness, first_s: float = FIRST_S, longest_s: float = LONGEST_S, growth: float = 2.0
    ) -> None:
        self._randomness, self._next_s, self._longest_s, self._growth = randomness, first_s, longest_s, growth

    async def wait(self) -> None:
        """Wait before the next attempt. The next wait is longer."""
        wait_s = self._next_s
        self._next_s = min(self._growth * wait_s, self._longest_s)
        await asyncio.sleep(wait_s * self._randomness.uniform(0.5, 1.5))


async def until_answered(
    attempt: Callable[[], Awaitable[T]],
    backoff: Backoff,
    complain: Callable[[PlatformError], None] = lambda problem: None,
) -> T:
    """Try until there is an answer. Only for what may be done twice, by whoever cannot go on without it."""
    while True:
        try:
            return await attempt()
        except (Unavailable, OutcomeUnknown) as problem:
            complain(problem)
            await backoff.wait()
