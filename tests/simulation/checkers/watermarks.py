"""Invariants 1 and 2: high watermarks and log starts never go back, and cover what is acknowledged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from simulation.checkers.appends import acknowledged_of
from simulation.history import Append, Fetched, PartitionKey

from penstock.wire.error_codes import ErrorCode


def check_watermarks(fetches: Sequence[Fetched], appends: Sequence[Append]) -> None:
    """Look at everything that consumers were told."""
    for partition in sorted({fetched.partition for fetched in fetches}):
        told = [
            fetched
            for fetched in fetches
            if fetched.partition == partition and fetched.error is ErrorCode.NONE
        ]  # fmt: skip
        check_rises(told, lambda fetched: fetched.high_watermark, "the high watermark")
        check_rises(told, lambda fetched: fetched.log_start, "the log start")
        _check_covers(told, acknowledged_of(appends, partition), partition)


def check_rises(told: Sequence[Fetched], what: Callable[[Fetched], int], name: str) -> None:
    """Who asks after somebody was answered is told no less."""
    by_answer = sorted(told, key=lambda fetched: fetched.answered_at)
    settled, floor = 0, -1
    for fetched in sorted(told, key=lambda fetched: fetched.invoked_at):
        while by_answer[settled].answered_at < fetched.invoked_at:
            floor, settled = max(floor, what(by_answer[settled])), settled + 1
        assert what(fetched) >= floor, f"{name} went back from {floor} to {what(fetched)}"


def _check_covers(told: Iterable[Fetched], acknowledged: Sequence[Append], partition: PartitionKey) -> None:
    """Who asks after a batch was acknowledged can read it."""
    by_answer = sorted(acknowledged, key=lambda append: append.answered_at)
    settled, floor = 0, -1
    for fetched in sorted(told, key=lambda fetched: fetched.invoked_at):
        while settled < len(by_answer) and by_answer[settled].answered_at < fetched.invoked_at:
            append = by_answer[settled]
            floor, settled = max(floor, append.base_offset + len(append.values)), settled + 1
        assert fetched.high_watermark >= floor, (
            f"the high watermark of {partition.index} is {fetched.high_watermark} when {floor} was acknowledged"
        )
