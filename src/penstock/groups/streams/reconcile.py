"""Reconciliation of a streams group member's tasks with its target. Pure.

As in consumer groups (`groups.reconcile`), tasks are revoked before they are assigned: a task is active at one member
at a time. In addition, members of one process share a disk, so a member waits until its process has released a task in
any role; and a member that has a task in one role and shall have it in another switches without revoking it, because
the state stays where it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from penstock.base.dataclasses import dataclass, replace
from penstock.groups.reconcile import MemberState
from penstock.groups.streams.model import StreamsMember
from penstock.groups.streams.tasks import NO_TASKS_WITH_EPOCHS, Task, Tasks, TasksWithEpochs


@dataclass(frozen=True, slots=True)
class TasksOfOthers:
    """What the other members have or have not revoked yet."""

    active: frozenset[Task]
    active_here: frozenset[Task]
    """Tasks of other members in the same process."""
    standby_here: frozenset[Task]
    warmup_here: frozenset[Task]


def tasks_of_others(member: StreamsMember, members: Iterable[StreamsMember]) -> TasksOfOthers:
    """What the others have."""
    active: set[Task] = set()
    active_here: set[Task] = set()
    standby_here: set[Task] = set()
    warmup_here: set[Task] = set()
    for other in members:
        if other.member_id == member.member_id:
            continue
        for held in (other.assigned, other.pending_revocation):
            active.update(held.active)
            if other.process_id == member.process_id:
                active_here.update(held.active)
                standby_here |= held.standby
                warmup_here |= held.warmup
    return TasksOfOthers(frozenset(active), frozenset(active_here), frozenset(standby_here), frozenset(warmup_here))


def reconciled(
    member: StreamsMember, target: Tasks, target_epoch: int, owned: Tasks | None, members: Mapping[str, StreamsMember]
) -> StreamsMember:
    """The member after its next step; the same object if there is none.

    `owned` is what the member reports, None if it reports nothing: then it is taken to have everything.
    """
    epoch = member.epoch
    match member.state:
        case MemberState.STABLE if member.epoch == target_epoch:
            return member
        case MemberState.UNREVOKED:
            if not _has_released(owned, member.pending_revocation):
                return member
            epoch += 1
    next_assignment = _next_assignment(member, target, tasks_of_others(member, members.values()))
    pending_revocation = _revoking(member, target, next_assignment)
    if pending_revocation and not _has_released(owned, pending_revocation):
        kept = _promoted_later(member, target, next_assignment, granted=frozenset())
        return _moved(member, epoch, MemberState.UNREVOKED, kept, pending_revocation)
    kept = _promoted_later(member, target, next_assignment, granted=next_assignment.newly_assigned.active)
    active = {**kept.active, **dict.fromkeys(sorted(next_assignment.newly_assigned.active), target_epoch)}
    assigned = TasksWithEpochs(
        active,
        kept.standby | next_assignment.newly_assigned.standby,
        kept.warmup | next_assignment.newly_assigned.warmup,
    )
    state = MemberState.UNRELEASED if next_assignment.is_waiting else MemberState.STABLE
    return _moved(member, target_epoch, state, assigned, NO_TASKS_WITH_EPOCHS)


@dataclass(frozen=True, slots=True)
class _NextAssignment:
    kept: TasksWithEpochs
    newly_assigned: Tasks
    is_waiting: bool
    """Whether part of the target is not available yet."""


def _next_assignment(member: StreamsMember, target: Tasks, others: TasksOfOthers) -> _NextAssignment:
    has = member.assigned
    # Tasks that nobody else holds. A standby may be where the member itself has been active; a warm-up may not.
    active = target.active - has.active.keys()
    free_active = active - others.active - others.standby_here - others.warmup_here
    standby = target.standby - has.standby
    free_standby = standby - others.active_here - others.standby_here - others.warmup_here
    warmup = target.warmup - has.warmup
    free_warmup = warmup - others.active_here - has.active.keys() - others.standby_here - others.warmup_here
    # Role changes without revoking: from active to standby, between standby and warm-up.
    now_standby = free_standby & (has.active.keys() | has.warmup)
    now_warmup = free_warmup & has.standby
    kept = TasksWithEpochs(
        {task: epoch for task, epoch in has.active.items() if task in target.active},
        (has.standby & target.standby) | now_standby,
        (has.warmup & target.warmup) | now_warmup,
    )
    return _NextAssignment(
        kept=kept,
        newly_assigned=Tasks(free_active, free_standby - now_standby, free_warmup - now_warmup),
        is_waiting=(free_active, free_standby, free_warmup) != (active, standby, warmup),
    )


def _revoking(member: StreamsMember, target: Tasks, next_assignment: _NextAssignment) -> TasksWithEpochs:
    """Tasks to revoke: not those that only change their role."""
    has = member.assigned
    return TasksWithEpochs(
        {task: epoch for task, epoch in has.active.items() if task not in target.active},
        has.standby - target.standby - next_assignment.kept.warmup - target.active,
        has.warmup - target.warmup - next_assignment.kept.standby - target.active,
    )


def _promoted_later(
    member: StreamsMember, target: Tasks, next_assignment: _NextAssignment, *, granted: frozenset[Task]
) -> TasksWithEpochs:
    """Tasks that are kept, with standbys that become active later."""
    waiting = target.active - granted - next_assignment.kept.active.keys()
    return TasksWithEpochs(
        next_assignment.kept.active,
        (next_assignment.kept.standby | (member.assigned.standby & waiting)) - granted,
        (next_assignment.kept.warmup | (member.assigned.warmup & waiting)) - granted,
    )


def _has_released(owned: Tasks | None, pending_revocation: TasksWithEpochs) -> bool:
    return owned is not None and not owned.overlaps(pending_revocation)


def _moved(
    member: StreamsMember,
    epoch: int,
    state: MemberState,
    assigned: TasksWithEpochs,
    pending_revocation: TasksWithEpochs,
) -> StreamsMember:
    moved = replace(member, epoch=epoch, state=state, assigned=assigned, pending_revocation=pending_revocation)
    return moved if epoch == member.epoch else replace(moved, previous_epoch=member.epoch)
