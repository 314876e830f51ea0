"""`penstock` with a log whose files, tail and backlog are small, so that what is rare happens many times a second."""

from __future__ import annotations

import sys
from functools import partial

from penstock.__main__ import main as command_line
from penstock.agent import main
from penstock.agent.tuning import Tuning
from penstock.log.upkeep.wal_backlog import CompactionPolicy

KIB = 1024
TUNING = Tuning(
    slab_bytes=1024 * KIB,
    tail_bytes=512 * KIB,
    tail_chunk_bytes=128 * KIB,
    compaction=CompactionPolicy(
        start_bytes=256 * KIB, start_rows=100, max_age_ms=1_000, sparse_ages=1, pass_bytes=512 * KIB, pass_rows=64
    ),
)

if __name__ == "__main__":
    main.run = partial(main.run, tuning=TUNING)  # type: ignore[assignment]  # What `up` calls.
    sys.exit(command_line())
