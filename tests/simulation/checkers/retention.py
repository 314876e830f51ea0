"""Retention takes what is too old, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from simulation.checkers.appends import acknowledged_of
from simulation.guards import SKEW_MS
from simulation.history import Append, Fetched, PartitionKey

from penstock.wire.error_codes import ErrorCode


def check_retention(
    appends: Sequence[Append], fetches: Sequence[Fetched], partition: PartitionKey, *,
    time_ms: Callable[[float], int], retention_ms: int,
) -> None:  # fmt: skip
    """Whenever a consumer was told where the log starts, nothing younger than the retention was gone."""
    acknowledged = acknowledged_of(appends, partition)
    for fetched in fetches:
        if fetched.partition != partition or fetched.error is not ErrorCode.NONE:
            continue
        young_ms = time_ms(fetched.answered_at) - retention_ms + SKEW_MS
        for append in acknowledged:
            assert append.timestamp < young_ms or append.base_offset >= fetched.log_start, (
                f"the log starts at {fetched.log_start}, and the batch at {append.base_offset} is still young"
            )
