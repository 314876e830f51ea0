"""Python's garbage collector: not while many objects are made that stay, and never over all objects there are.

The collector stops everything for as long as it looks at objects, a few hundred nanoseconds each: 20 ms and more with
the objects of some thousand partitions. Only cycles need it; nearly everything here is freed by its reference count.
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
"""How many objects more than after the last full collection have to be frozen for another one, at least."""


class FrozenSurvivors:
    """Freezes what survives a collection, so that each object is looked at once. Goes into `gc.callbacks`.

    A cycle that becomes garbage after it was frozen stays until there are twice as many objects as after the last full
    collection. That one is as long as it has to be.
    """

    def __init__(self, soon: Callable[[Callable[[], object]], object]) -> None:
        self._soon = soon
        """Calls back once the collection that is running has ended."""
        self._collections = 0
        self._kept = 0

    def begin(self) -> None:
        """Freeze what there is, and collect often."""
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
        # Counting takes a while, too.
        if self._collections % _LOOK_EVERY == 0 and gc.get_freeze_count() > 2 * self._kept + _FULL_AFTER:
            self._soon(self.collect_all)

    def collect_all(self) -> None:
        """Look at everything once."""
        gc.unfreeze()
        gc.collect()  # Which freezes what survives.
        self._kept = gc.get_freeze_count()


@contextmanager
def without_collector() -> Iterator[None]:
    """Do not look for garbage meanwhile: everything that is made stays, and searching it again and again takes longer
    than making it. Afterwards the objects are in the oldest generation, as if they had been searched."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            if gc.get_freeze_count() == 0:  # Or what somebody has frozen would thaw.
                gc.freeze()
                gc.unfreeze()
            gc.enable()
