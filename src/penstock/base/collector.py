"""Pausing Python's garbage collector while many objects are made that stay."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


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
