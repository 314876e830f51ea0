"""Invariant 5: a committed group offset survives."""

from __future__ import annotations

from collections.abc import Sequence

from simulation.history import OffsetCommit, Outcome


def check_committed(commits: Sequence[OffsetCommit], found: int) -> None:
    """One committer's commits, in its order, and what the group has in the end.

    It is the last one acknowledged, or one whose outcome is not known: that one may have been applied late.
    """
    last = max(
        (number for number, commit in enumerate(commits) if commit.outcome is Outcome.ACKNOWLEDGED), default=-1
    )  # fmt: skip
    possible = {-1 if last < 0 else commits[last].offset}
    possible |= {commit.offset for commit in commits if commit.outcome is Outcome.UNKNOWN}
    assert found in possible, f"the group is at {found}, {sorted(possible)[-5:]} is possible"
    acknowledged_last = last == len(commits) - 1 and last >= 0
    unknown = any(commit.outcome is Outcome.UNKNOWN for commit in commits)
    assert not acknowledged_last or unknown or found == commits[last].offset, "a committed offset was lost"
