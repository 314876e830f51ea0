"""Retention takes what is too old, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from simulation.guards import SKEW_MS
from simulation.history import Append, Outcome
from simulation.logs import StoredLog


def check_retention(appends: Sequence[Append], log: StoredLog, *, now_ms: int, retention_ms: int) -> None:
    """Nothing younger than the topic's retention is gone."""
    for append in appends:
        if append.partition != log.partition or append.outcome is not Outcome.ACKNOWLEDGED:
            continue
        young = append.timestamp > now_ms - retention_ms + SKEW_MS
        assert not young or append.base_offset >= log.log_start, (
            f"the batch at {append.base_offset} is {now_ms - append.timestamp} ms old and gone"
        )
