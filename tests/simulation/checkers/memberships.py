"""Invariant 5: a partition has one owner in a generation, former generations commit nothing, offsets do not go back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from simulation.history import GroupCommit, OffsetLook, Outcome, Ownership


def check_owners(ownerships: Sequence[Ownership]) -> None:
    """Whatever members were told of one generation fits together, and generations are never used twice."""
    owners: dict[tuple[str, int], dict[int, str]] = {}
    told: dict[tuple[str, int, str], tuple[int, ...]] = {}
    for one in ownerships:
        generation = (one.group_id, one.generation)
        before = told.setdefault((*generation, one.member_id), one.partitions)
        assert before == one.partitions, f"{one.member_id} was told {before} and {one.partitions} in {generation}"
        for partition in one.partitions:
            owner = owners.setdefault(generation, {}).setdefault(partition, one.member_id)
            assert owner == one.member_id, f"partition {partition} has two owners in generation {generation}"


def check_fenced(commits: Sequence[GroupCommit]) -> None:
    """Once a generation has committed, none before it is acknowledged anything that it asks for afterwards."""
    acknowledged = [commit for commit in commits if commit.outcome is Outcome.ACKNOWLEDGED]
    for commit in acknowledged:
        newer = [
            other
            for other in acknowledged
            if other.group_id == commit.group_id
            and other.generation > commit.generation
            and other.answered_at < commit.invoked_at
        ]
        assert not newer, f"generation {commit.generation} committed after {newer[0].generation} had"


def check_last(commits: Sequence[GroupCommit], found: Mapping[int, int]) -> None:
    """Each partition has the last offset that was acknowledged for it, or a later one whose outcome is not known."""
    for partition, offset in found.items():
        mine = [commit for commit in commits if partition in commit.partitions]
        known = [commit.offset for commit in mine if commit.outcome is Outcome.ACKNOWLEDGED]
        possible = {max(known, default=-1)}
        possible |= {commit.offset for commit in mine if commit.outcome is Outcome.UNKNOWN}
        assert offset in possible, f"partition {partition} is at {offset}, {sorted(possible)[-3:]} is possible"
        assert offset >= max(known, default=-1), f"partition {partition} went back to {offset}"


def check_never_back(looks: Sequence[OffsetLook], commits: Sequence[GroupCommit]) -> None:
    """Whoever looks at an offset finds at least what was acknowledged, and at least what was seen, before it asked."""
    known: dict[int, list[tuple[float, int]]] = {}
    for commit in commits:
        if commit.outcome is Outcome.ACKNOWLEDGED:
            for partition in commit.partitions:
                known.setdefault(partition, []).append((commit.answered_at, commit.offset))
    for look in looks:
        known.setdefault(look.partition, []).append((look.answered_at, look.offset))
    for look in looks:
        least = max((offset for since, offset in known[look.partition] if since < look.invoked_at), default=-1)
        assert look.offset >= least, f"partition {look.partition} went back from {least} to {look.offset}"
