"""Keeping Python's garbage collector away where much is made that stays."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collector() -> Iterator[None]:
    """All that is made stays. Looking for garbage among it, again and again, takes longer than making it. Afterwards it
    belongs to the oldest generation, as if that had been done."""
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
