"""Metering: bytes and records that virtual clusters have produced, counted when commits are folded into segments.

Counting is part of the transaction that moves the WAL floor past the commits: each commit is counted exactly once,
over retries and crashes. What is still only in the WAL is not counted yet. A row is one interval of `BUCKET_MS`.
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
    """The start of the interval that a time belongs to."""
    return time_ms - time_ms % BUCKET_MS


def add_usage(shard_id: int, used: Mapping[UsageKey, int]) -> Script[None]:
    """Add to the counters, sorted, so that agents that count for the same clusters cannot deadlock."""
    for key, value in sorted(used.items()):
        yield (
            "INSERT INTO usage (cluster_id, bucket_ms, metric, shard_id, value) VALUES ($1, $2, $3, $4, $5)"
            " ON CONFLICT (cluster_id, bucket_ms, metric, shard_id) DO UPDATE SET value = usage.value + excluded.value",
            (key.cluster_id, key.bucket_ms, int(key.metric), shard_id, value),
        )
