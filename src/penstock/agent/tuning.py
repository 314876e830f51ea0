"""Sizes of an agent that nobody has to choose, and who it is while there is one."""

from __future__ import annotations

from penstock.base.dataclasses import dataclass
from penstock.log.upkeep.wal_backlog import CompactionPolicy

NODE_ID = 1
SHARD_ID = 1
MEMORY_WAL_MAX_BYTES = 1024 * 1024 * 1024
COLD_THREADS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """Sizes of the log. Tests make them small, so that what is rare happens often. None: as each part has it."""

    slab_bytes: int | None = None
    tail_bytes: int | None = None
    """None for its part of `memory.max.bytes`."""
    tail_chunk_bytes: int | None = None
    compaction: CompactionPolicy = CompactionPolicy()
    audit_queue: int | None = None
