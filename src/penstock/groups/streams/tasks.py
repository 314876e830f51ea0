"""Tasks of a topology, and who has which. Pure, immutable.

A task computes one partition of a subtopology: *active*, or as a *standby* that keeps a copy of the state, or as a
*warm-up* that catches up with it. A process may run several members, and has the state of a task on its disk once: so
members of one process never have the same task twice, in whatever role.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from penstock.base.dataclasses import dataclass, field


class Task(NamedTuple):
    """One task."""

    subtopology_id: str
    partition: int


@dataclass(frozen=True, slots=True)
class Tasks:
    """Tasks that a member is to have, or says it has."""

    active: frozenset[Task] = frozenset()
    standby: frozenset[Task] = frozenset()
    warmup: frozenset[Task] = frozenset()

    def overlaps(self, held: HeldTasks) -> bool:
        """Whether any of these is held, in the same role."""
        return not (
            self.active.isdisjoint(held.active)
            and self.standby.isdisjoint(held.standby)
            and self.warmup.isdisjoint(held.warmup)
        )

    def is_part_of(self, held: HeldTasks) -> bool:
        """Whether all of these are held, in the same roles."""
        return self.active <= held.active.keys() and self.standby <= held.standby and self.warmup <= held.warmup


@dataclass(frozen=True, slots=True)
class HeldTasks:
    """Tasks that a member has."""

    active: Mapping[Task, int] = field(default_factory=dict)
    """With the epoch in which the member got each."""
    standby: frozenset[Task] = frozenset()
    warmup: frozenset[Task] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.active or self.standby or self.warmup)


NO_TASKS = Tasks()
NONE_HELD = HeldTasks()


def by_subtopology(tasks: Iterable[Task]) -> dict[str, list[int]]:
    """Partitions in order, by subtopology in order."""
    found: dict[str, list[int]] = {}
    for task in sorted(tasks):
        found.setdefault(task.subtopology_id, []).append(task.partition)
    return found
