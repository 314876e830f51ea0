"""Invariant 3: batches of an idempotent producer are there once and in order."""

from __future__ import annotations

from collections.abc import Iterable

from simulation.logs import StoredLog


def check_idempotence(logs: Iterable[StoredLog]) -> None:
    """Sequences of each producer, epoch by epoch, follow each other in the log."""
    for log in logs:
        following: dict[tuple[int, int], int] = {}
        for batch in log.batches:
            header = batch.header
            if header.producer_id < 0 or header.is_control:
                continue
            expected = following.get((header.producer_id, header.producer_epoch))
            if expected is None:
                # Where the beginning was trimmed, a producer may be met in its middle.
                expected = 0 if log.log_start == 0 else header.base_sequence
            assert header.base_sequence == expected, (
                f"producer {header.producer_id}: sequence {header.base_sequence} where {expected} belongs"
            )
            following[header.producer_id, header.producer_epoch] = header.base_sequence + header.last_offset_delta + 1
