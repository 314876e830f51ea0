"""What virtual clusters used, counted where it becomes part of the log.

Bytes and records are counted when commits are folded into segments, in the very transaction that moves the WAL floor
past them: a commit is counted exactly once, whatever is retried and whoever crashes. What is still in the WAL is not
counted yet; it will be. A row holds what was used within one stretch of time, `BUCKET_MS` long.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import NamedTuple

from penstock.metadata.database import Script

BUCKET_MS = 3_600_000


class Metric(IntEnum):
    """What is counted. The numbers are stored."""

    BYTES_IN = 1
    RECORDS_IN = 2


class UsageKey(NamedTuple):
    """One counter."""

    cluster_id: int
    bucket_ms: int
    metric: Metric


def bucket_of(time_ms: int) -> int:
    """The beginning of the stretch of time that a moment belongs to."""
    return time_ms - time_ms % BUCKET_MS


def add_usage(shard_id: int, used: Mapping[UsageKey, int]) -> Script[None]:
    """Count. Sorted, so that agents that count for the same clusters do not wait for each other in a ring."""
    for key, value in sorted(used.items()):
        yield (
            "INSERT INTO usage (cluster_id, bucket_ms, metric, shard_id, value) VALUES ($1, $2, $3, $4, $5)"
            " ON CONFLICT (cluster_id, bucket_ms, metric, shard_id) DO UPDATE SET value = usage.value + excluded.value",
            (key.cluster_id, key.bucket_ms, int(key.metric), shard_id, value),
        )
