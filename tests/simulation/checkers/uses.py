"""No partition is used by two members of a group at a time."""

from __future__ import annotations

from collections.abc import Iterable

from simulation.heartbeating import Partition, Use


def check_uses(uses: Iterable[Use]) -> None:
    """Uses of a partition come one after the other."""
    last: dict[Partition, Use] = {}
    for use in sorted(uses, key=lambda use: (use.since, use.until)):
        before = last.get(use.partition)
        if before is not None:
            assert before.until <= use.since, f"{use} while {before}"
        last[use.partition] = use


def check_complete(uses: Iterable[Use], count: int) -> None:
    """All partitions are used by somebody now."""
    used = sorted(use.partition[1] for use in uses if use.until == float("inf"))
    assert used == list(range(count)), f"used are {used}"
