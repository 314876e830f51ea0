"""The task assignor `sticky`, like Kafka 4.4's. Pure and deterministic.

Members keep their active tasks as long as none has more than its share; then members with a copy of the task's state
are preferred, and the rest goes to the process with the lowest load per member. Standbys likewise, and never two copies
of a task in one process. Client tags are accepted but have no effect; there are no warm-up tasks.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence

from penstock.base.dataclasses import dataclass, field
from penstock.groups.streams.tasks import Task, Tasks


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignee:
    """What the assignor knows of a member."""

    member_id: str
    process_id: str
    active: frozenset[Task] = frozenset()
    standby: frozenset[Task] = frozenset()
    changelog_offsets: Mapping[Task, int] = field(default_factory=dict)
    """Changelog offsets of the task state on its disk."""


@dataclass(slots=True)
class _Quota:
    """The share of each member that has room: an equal part of what is left, rounded up."""

    tasks: int
    members: int

    @property
    def each(self) -> int:
        return -(-self.tasks // self.members) if self.members else 0

    def count_assigned(self, count: int) -> None:
        """A member has so many tasks now."""
        if count == self.each:
            self.members -= 1
            self.tasks -= count


@dataclass(slots=True)
class _Process:
    """A process with its members' loads."""

    process_id: str
    loads: dict[str, int] = field(default_factory=dict)
    tasks: set[Task] = field(default_factory=set)
    count: int = 0

    @property
    def load(self) -> float:
        return self.count / len(self.loads)

    def least_loaded_member(self) -> str:
        return min(self.loads, key=lambda member_id: (self.loads[member_id], member_id))


class _AssignmentBuilder:
    """An assignment under construction."""

    def __init__(self, members: Sequence[Assignee], active_count: int, total_count: int) -> None:
        self.members = {member.member_id: member for member in members}
        self.active: dict[str, set[Task]] = {member_id: set() for member_id in self.members}
        self.standby: dict[str, set[Task]] = {member_id: set() for member_id in self.members}
        self.processes: dict[str, _Process] = {}
        for member in members:
            process = self.processes.setdefault(member.process_id, _Process(member.process_id))
            process.loads[member.member_id] = 0
        self.active_quota = _Quota(active_count, len(members))
        self.quota = _Quota(total_count, len(members))

    def process(self, member_id: str) -> _Process:
        return self.processes[self.members[member_id].process_id]

    def load(self, member_id: str) -> int:
        return self.process(member_id).loads[member_id]

    def assign(self, member_id: str, task: Task, *, is_active: bool) -> None:
        process = self.process(member_id)
        (self.active if is_active else self.standby)[member_id].add(task)
        process.tasks.add(task)
        process.count += 1
        process.loads[member_id] += 1
        if is_active:
            self.active_quota.count_assigned(process.loads[member_id])
        self.quota.count_assigned(process.loads[member_id])

    def least_loaded(self, candidates: Iterable[str], *, without: Task | None = None) -> str | None:
        """Of members in order of preference, the first that no later one beats in both loads."""
        best: str | None = None
        for member_id in candidates:
            if without is not None and without in self.process(member_id).tasks:
                continue
            if best is None or (
                self.process(member_id).load < self.process(best).load and self.load(member_id) < self.load(best)
            ):
                best = member_id
        return best

    def process_heap(self) -> list[tuple[float, str]]:
        heap = [(process.load, process.process_id) for process in self.processes.values()]
        heapq.heapify(heap)
        return heap


def assign_tasks(
    members: Iterable[Assignee], task_counts: Mapping[str, int], stateful: frozenset[str], standby_count: int
) -> dict[str, Tasks]:
    """The tasks of each member. `task_counts` and `stateful` are about subtopologies."""
    ordered = sorted(members, key=lambda member: member.member_id)
    tasks = [Task(part, index) for part in sorted(task_counts) for index in range(task_counts[part])]
    stateful_tasks = [task for task in tasks if task.subtopology_id in stateful] if standby_count else []
    builder = _AssignmentBuilder(ordered, len(tasks), len(tasks) + standby_count * len(stateful_tasks))
    previously_active = {task: member.member_id for member in ordered for task in member.active}
    members_with_state = _members_with_state(ordered)
    if ordered:
        _assign_active(builder, tasks, previously_active, members_with_state)
        _assign_standby(builder, stateful_tasks, standby_count, previously_active, members_with_state)
    return {
        member_id: Tasks(frozenset(builder.active[member_id]), frozenset(builder.standby[member_id]))
        for member_id in builder.members
    }


def _members_with_state(members: Iterable[Assignee]) -> dict[Task, list[str]]:
    """Members with a task's state, the best first: standbys, and among equals the most up to date."""
    found: dict[Task, list[tuple[int, int, str]]] = {}
    for member in members:
        for task in {*member.standby, *member.changelog_offsets}:
            rank = 0 if task in member.standby else 1
            found.setdefault(task, []).append((rank, -member.changelog_offsets.get(task, 0), member.member_id))
    return {task: [member_id for _, _, member_id in sorted(ranked)] for task, ranked in found.items()}


def _assign_active(
    builder: _AssignmentBuilder,
    tasks: Iterable[Task],
    previously_active: Mapping[Task, str],
    members_with_state: Mapping[Task, Sequence[str]],
) -> None:
    left = sorted(tasks, key=_by_partition)
    for was_active in (True, False):
        rest = []
        for task in left:
            member_id = (
                previously_active.get(task) if was_active else builder.least_loaded(members_with_state.get(task, ()))
            )
            if member_id is not None and builder.load(member_id) < builder.active_quota.each:
                builder.assign(member_id, task, is_active=True)
            else:
                rest.append(task)
        left = rest
    heap = builder.process_heap()
    for task in sorted(left):
        _, process_id = heapq.heappop(heap)
        process = builder.processes[process_id]
        builder.assign(process.least_loaded_member(), task, is_active=True)
        heapq.heappush(heap, (process.load, process_id))


def _assign_standby(
    builder: _AssignmentBuilder,
    tasks: Iterable[Task],
    count: int,
    previously_active: Mapping[Task, str],
    members_with_state: Mapping[Task, Sequence[str]],
) -> None:
    left: list[tuple[Task, int]] = []
    for task in sorted(tasks, key=_by_partition, reverse=True):
        for number in range(count):
            member_id = _member_for_standby(builder, task, previously_active, members_with_state)
            if member_id is None:
                left.append((task, count - number))
                break
            builder.assign(member_id, task, is_active=False)
    heap = builder.process_heap()
    for task, wanted in sorted(left, reverse=True):
        for _ in range(wanted):
            if not _assign_to_least_loaded_process(builder, heap, task):
                break


def _member_for_standby(
    builder: _AssignmentBuilder,
    task: Task,
    previously_active: Mapping[Task, str],
    members_with_state: Mapping[Task, Sequence[str]],
) -> str | None:
    """The member to get a standby because it has the state, and has room."""
    before = previously_active.get(task)
    if before is not None and task not in builder.process(before).tasks and builder.load(before) < builder.quota.each:
        return before
    member_with_state = builder.least_loaded(members_with_state.get(task, ()), without=task)
    return (
        member_with_state
        if member_with_state is not None and builder.load(member_with_state) < builder.quota.each
        else None
    )


def _assign_to_least_loaded_process(builder: _AssignmentBuilder, heap: list[tuple[float, str]], task: Task) -> bool:
    """Give a standby to the process with the lowest load that does not have the task."""
    passed = []
    is_assigned = False
    while heap and not is_assigned:
        _, process_id = heapq.heappop(heap)
        process = builder.processes[process_id]
        if task not in process.tasks:
            builder.assign(process.least_loaded_member(), task, is_active=False)
            is_assigned = True
        passed.append(process)
    for process in passed:
        heapq.heappush(heap, (process.load, process.process_id))
    return is_assigned


def _by_partition(task: Task) -> tuple[int, str]:
    return task.partition, task.subtopology_id
