"""A key service that may be far away, or away: each call has a time-out and a few attempts.

What has failed fails at once for a moment, so that nobody waits for an answer that others have just waited for in vain.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from penstock.base.backoff import Backoff
from penstock.base.clock import Clock
from penstock.base.errors import Unavailable
from penstock.base.randomness import Randomness
from penstock.keys.port import KeyService

T = TypeVar("T")

TIMEOUT_S = 3.0
ATTEMPTS = 3
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 30.0
_QUIET_S = 1.0
"""After a failure the service is not asked again for this long: whoever reads gets the failure at once."""


class RetryingKeyService:
    """The same service, with time-outs and retries."""

    def __init__(self, service: KeyService, *, clock: Clock, randomness: Randomness, timeout_s: float) -> None:
        self._service, self._clock, self._randomness, self._timeout_s = service, clock, randomness, timeout_s
        self._quiet_until: dict[str, float] = {}
        """By master key, until when nobody asks."""

    async def create(self) -> str:
        """Create a master key."""
        return await self._ask("", self._service.create)

    async def wrap(self, master_key_id: str, secret: bytes, context: bytes) -> bytes:
        """Encrypt a data key."""
        return await self._ask(master_key_id, lambda: self._service.wrap(master_key_id, secret, context))

    async def unwrap(self, master_key_id: str, wrapped: bytes, context: bytes) -> bytes:
        """Decrypt it."""
        return await self._ask(master_key_id, lambda: self._service.unwrap(master_key_id, wrapped, context))

    async def destroy(self, master_key_id: str) -> None:
        """Destroy a master key."""
        await self._ask(master_key_id, lambda: self._service.destroy(master_key_id))

    async def _ask(self, master_key_id: str, work: Callable[[], Awaitable[T]]) -> T:
        if self._clock.monotonic() < self._quiet_until.get(master_key_id, 0.0):
            raise Unavailable("the key service did not answer a moment ago")
        backoff, problem = Backoff(self._randomness, _FIRST_PAUSE_S, _LONGEST_PAUSE_S, growth=4.0), "no time"
        for attempt in range(ATTEMPTS):
            if attempt:
                await backoff.wait()
            try:
                async with asyncio.timeout(self._timeout_s):
                    answer = await work()
            except Unavailable as failure:
                problem = str(failure)
            except TimeoutError:
                problem = f"no answer in {self._timeout_s:g} s"
            else:
                self._quiet_until.pop(master_key_id, None)
                return answer
        self._quiet_until[master_key_id] = self._clock.monotonic() + _QUIET_S
        raise Unavailable(f"the key service does not do what it is asked: {problem}")
