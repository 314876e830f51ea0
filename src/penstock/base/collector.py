"""Tuning of Python's garbage collector: disabled during start-up, and afterwards never run over all objects.

The collector stops the process while it traverses objects, a few hundred nanoseconds each: 20 ms and more with the
objects of some thousand partitions. Only reference cycles need it; nearly everything here is freed by reference counts.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

COLLECT_EVERY = 5_000
"""Objects per collection: 1 to 2 ms, rarely 6."""
_NEVER = 10**6
_LOOK_EVERY = 100
_FULL_AFTER = 500_000
"""The least growth of frozen objects since the last full collection that causes another one."""


class FrozenSurvivors:
    """Freezes the objects that survive a collection, so that each is traversed once. A callback for `gc.callbacks`.

    A cycle that becomes garbage after it was frozen is freed by the next full collection, which runs when there are
    twice as many objects as after the last one, and pauses the process for as long as it takes.
    """

    def __init__(self, soon: Callable[[Callable[[], object]], object]) -> None:
        self._soon = soon
        """Schedules a call after the running collection."""
        self._collections = 0
        self._kept = 0

    def begin(self) -> None:
        """Freeze all existing objects, and collect often."""
        gc.freeze()
        self._kept = gc.get_freeze_count()
        gc.set_threshold(COLLECT_EVERY, _NEVER, _NEVER)
        gc.callbacks.append(self)

    def __call__(self, phase: str, info: dict[str, Any]) -> None:
        """A collection begins or ends."""
        if phase != "stop":
            return
        gc.freeze()
        self._collections += 1
        # Counting is not free either.
        if self._collections % _LOOK_EVERY == 0 and gc.get_freeze_count() > 2 * self._kept + _FULL_AFTER:
            self._soon(self.collect_all)

    def collect_all(self) -> None:
        """Run a full collection."""
        gc.unfreeze()
        gc.collect()  # Which freezes what survives.
        self._kept = gc.get_freeze_count()


@contextmanager
def without_collector() -> Iterator[None]:
    """Disable the collector for a block that creates many objects that stay: traversing them again and again takes
    longer than creating them. Afterwards they are in the oldest generation, as if they had survived collections."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            if gc.get_freeze_count() == 0:  # Otherwise objects that were frozen before would be unfrozen.
                gc.freeze()
                gc.unfreeze()
            gc.enable()
