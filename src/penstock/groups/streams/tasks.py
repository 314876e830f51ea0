"""Tasks of a topology, and their assignment. Pure, immutable.

A task processes one partition of a subtopology: *active*, or as a *standby* that keeps a copy of the state, or as a
*warm-up* that catches up. A process may run several members, and stores the state of a task once: so members of one
process never have the same task twice, in whatever role.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from penstock.base.dataclasses import dataclass, field


class Task(NamedTuple):
    """One task."""

    subtopology_id: str
    partition: int


@dataclass(frozen=True, slots=True)
class Tasks:
    """Tasks of a target, or as reported by a member."""

    active: frozenset[Task] = frozenset()
    standby: frozenset[Task] = frozenset()
    warmup: frozenset[Task] = frozenset()

    def overlaps(self, assigned: TasksWithEpochs) -> bool:
        """Whether any of these is held, in the same role."""
        return not (
            self.active.isdisjoint(assigned.active)
            and self.standby.isdisjoint(assigned.standby)
            and self.warmup.isdisjoint(assigned.warmup)
        )

    def is_subset_of(self, assigned: TasksWithEpochs) -> bool:
        """Whether all of these are held, in the same roles."""
        return (
            self.active <= assigned.active.keys()
            and self.standby <= assigned.standby
            and self.warmup <= assigned.warmup
        )

    def is_all_of(self, assigned: TasksWithEpochs) -> bool:
        """Whether these are held, in the same roles, and nothing else."""
        return (
            self.active == assigned.active.keys()
            and self.standby == assigned.standby
            and self.warmup == assigned.warmup
        )


@dataclass(frozen=True, slots=True)
class TasksWithEpochs:
    """Tasks that a member has."""

    active: Mapping[Task, int] = field(default_factory=dict)
    """With the epoch in which the member got each."""
    standby: frozenset[Task] = frozenset()
    warmup: frozenset[Task] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.active or self.standby or self.warmup)


class TaskRanges:
    """Ranges of partitions by subtopology, as named by a request. Whether all of them exist can be checked without
    looking at each: a request may name a hundred thousand."""

    __slots__ = ("_bounds",)

    def __init__(self) -> None:
        self._bounds: dict[str, tuple[int, int] | None] = {}

    def add(self, subtopology_id: str, partitions: Sequence[int]) -> None:
        """Add partitions."""
        before = self._bounds.setdefault(subtopology_id, None)
        if partitions:
            lowest, highest = before or (partitions[0], partitions[0])
            self._bounds[subtopology_id] = min(lowest, min(partitions)), max(highest, max(partitions))

    def first_unknown(self, counts: Mapping[str, int]) -> tuple[str, int | None] | None:
        """The first unknown subtopology, or one with a partition that does not exist; None if all exist."""
        for subtopology_id, bounds in self._bounds.items():
            count = counts.get(subtopology_id)
            if count is None:
                return subtopology_id, None
            if bounds is not None and not 0 <= bounds[0] <= bounds[1] < count:
                return subtopology_id, bounds[0] if bounds[0] < 0 else bounds[1]
        return None


NO_TASKS = Tasks()
NO_TASKS_WITH_EPOCHS = TasksWithEpochs()


def by_subtopology(tasks: Iterable[Task]) -> dict[str, list[int]]:
    """Partitions in order, by subtopology in order."""
    found: dict[str, list[int]] = {}
    for task in sorted(tasks):
        found.setdefault(task.subtopology_id, []).append(task.partition)
    return found
