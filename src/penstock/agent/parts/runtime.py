"""What every part of an agent is built with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from penstock.agent.checks import checked_settings, memory_bounds, token_rules
from penstock.agent.listeners import Listener, listeners_of
from penstock.agent.tuning import Tuning
from penstock.base.clock import Clock
from penstock.base.dataclasses import dataclass
from penstock.base.memory import MemoryBounds
from penstock.base.options import UpOptions
from penstock.base.randomness import Randomness
from penstock.base.settings import BrokerSettings
from penstock.base.threads import OnThread, on_thread_of

if TYPE_CHECKING:
    from penstock.identity import tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """What the agent was started with, its clock and its randomness, and what is closed when it stops."""

    options: UpOptions
    tuning: Tuning
    clock: Clock
    randomness: Randomness
    settings: BrokerSettings
    memory: MemoryBounds
    listeners: Sequence[Listener]
    token_rules: tokens.TokenRules | None
    """How delegation tokens are made, if there are any."""
    closing: AsyncExitStack
    """Closed from its end: a part is closed before those that it was built from."""
    is_ready: Callable[[], bool]
    """Whether everything has started."""

    @classmethod
    def of(
        cls, options: UpOptions, tuning: Tuning, clock: Clock, randomness: Randomness, is_ready: Callable[[], bool]
    ) -> Runtime:
        """Raises `InvalidRequest`, with the cure, when the options are wrong in themselves."""
        settings = checked_settings(options)
        return cls(
            options=options, tuning=tuning, clock=clock, randomness=randomness, settings=settings,
            memory=memory_bounds(options, settings), listeners=listeners_of(options),
            token_rules=token_rules(options, settings), closing=AsyncExitStack(), is_ready=is_ready,
        )  # fmt: skip

    def executor(self, name: str, threads: int = 1) -> ThreadPoolExecutor:
        """Threads that finish what they were given before the agent has stopped."""
        executor = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self.closing.callback(executor.shutdown)
        return executor

    def thread(self, name: str) -> OnThread:
        """A thread for work that clients can make long, one piece after the other, so that nobody else waits for it.
        A stop does not wait for it either."""
        executor = ThreadPoolExecutor(1, thread_name_prefix=name)
        self.closing.callback(executor.shutdown, wait=False, cancel_futures=True)
        return on_thread_of(executor)
