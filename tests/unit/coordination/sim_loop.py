"""An event loop with virtual time and seeded scheduling: every interleaving is reproducible by its seed."""

from __future__ import annotations

import asyncio
import heapq
import random
from asyncio import events
from collections.abc import Coroutine
from typing import Any


class SimLoop(asyncio.AbstractEventLoop):
    """Only timers and callbacks; sockets, threads and signals raise, so nothing escapes the simulation."""

    def __init__(self, seed: int) -> None:
        self._pick = random.Random(f"{seed}:schedule")
        self._now, self._sequence = 0.0, 0
        self._ready: list[asyncio.Handle] = []
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self.errors: list[dict[str, Any]] = []

    def time(self) -> float:
        return self._now

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coroutine: Coroutine[Any, Any, Any], *, name: str | None = None, context: Any = None) -> Any:
        return asyncio.Task(coroutine, loop=self, name=name, context=context)

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:
        self._sequence += 1
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._timers, (when, self._sequence, timer))
        return timer

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.errors.append(context)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Cancelled timers are skipped when their time comes."""

    def pending_timers(self) -> int:
        return sum(not timer.cancelled() for _, _, timer in self._timers)

    def run(self, main: Coroutine[Any, Any, Any]) -> Any:
        events._set_running_loop(self)
        try:
            task = self.create_task(main)
            while not task.done():
                self._step()
            assert not self.errors, self.errors
            return task.result()
        finally:
            events._set_running_loop(None)

    def _step(self) -> None:
        if not self._ready:
            self._advance()
        handle = self._ready.pop(self._pick.randrange(len(self._ready)))
        if not handle.cancelled():
            handle._run()

    def _advance(self) -> None:
        if not self._timers:
            raise RuntimeError("no task can ever run again")
        self._now = max(self._now, self._timers[0][0])
        while self._timers and self._timers[0][0] <= self._now:
            self._ready.append(heapq.heappop(self._timers)[2])
