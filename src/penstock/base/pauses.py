"""Waiting before something is tried again: each time about twice as long, up to a limit.

How long exactly is left to chance, so that those who failed together do not come back together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from penstock.base.errors import OutcomeUnknown, PlatformError, Unavailable
from penstock.base.randomness import Randomness

T = TypeVar("T")
FIRST_S, LONGEST_S = 0.02, 1.0


class Pauses:
    """The pauses between the attempts of one undertaking."""

    def __init__(
        self, randomness: Randomness, first_s: float = FIRST_S, longest_s: float = LONGEST_S, growth: float = 2.0
    ) -> None:
        self._randomness, self._next_s, self._longest_s, self._growth = randomness, first_s, longest_s, growth

    async def take(self) -> None:
        """Wait. The next pause is longer."""
        pause_s = self._next_s
        self._next_s = min(self._growth * pause_s, self._longest_s)
        await asyncio.sleep(pause_s * self._randomness.uniform(0.5, 1.5))


async def until_answered(
    attempt: Callable[[], Awaitable[T]],
    pauses: Pauses,
    complain: Callable[[PlatformError], None] = lambda problem: None,
) -> T:
    """Try until there is an answer. For what can be done twice, by whoever cannot go on without it."""
    while True:
        try:
            return await attempt()
        except (Unavailable, OutcomeUnknown) as problem:
            complain(problem)
            await pauses.take()
