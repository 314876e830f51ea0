"""Sizes of an agent that nobody has to choose, and who it is while there is one."""

from __future__ import annotations

from penstock.audit.service import QUEUE_MAX
from penstock.base.dataclasses import dataclass
from penstock.log.upkeep.wal_backlog import CompactionPolicy
from penstock.storage.slabs import SLAB_BYTES

NODE_ID = 1
SHARD_ID = 1
TAIL_BYTES = 96 * 1024 * 1024
"""Memory for recent batches."""
TAIL_CHUNK_BYTES = 16 * 1024 * 1024
"""Several full flushes: with two or fewer to a chunk, half of it may stay empty."""
COLD_BYTES = 32 * 1024 * 1024
"""Memory for batches read from files."""
MEMORY_WAL_MAX_BYTES = 1024 * 1024 * 1024
COLD_THREADS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """Sizes of the log. Tests make them small, so that what is rare happens often."""

    slab_bytes: int = SLAB_BYTES
    tail_bytes: int = TAIL_BYTES
    tail_chunk_bytes: int = TAIL_CHUNK_BYTES
    compaction: CompactionPolicy = CompactionPolicy()
    audit_queue: int = QUEUE_MAX
