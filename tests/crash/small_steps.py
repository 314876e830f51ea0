"""`small_log` in which a deleted virtual cluster goes in small steps, so that crashes meet many of them."""

from __future__ import annotations

import sys
from functools import partial

from small_log import TUNING

from penstock.__main__ import main as command_line
from penstock.agent import main, removal_steps
from penstock.clusters import removal
from penstock.log.upkeep.chores import Upkeep

GRACE_MS = 1_000

if __name__ == "__main__":
    removal_steps.AT_ONCE, removal.ROWS_AT_ONCE = 3, 2
    assert Upkeep.__init__.__kwdefaults__ is not None
    Upkeep.__init__.__kwdefaults__["grace_ms"] = GRACE_MS  # Dead objects are gone soon.
    main.run = partial(main.run, tuning=TUNING)  # type: ignore[assignment]  # What `up` calls.
    sys.exit(command_line())
