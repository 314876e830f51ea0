"""Reconciliation of a streams group member's tasks with its target. Pure.

As in consumer groups (`groups.reconcile`), tasks are revoked before they are assigned: a task is active at one member
at a time. In addition, members of one process share a disk, so a member waits until its process has released a task in
any role; and a member that has a task in one role and shall have it in another switches without revoking it, because
the state stays where it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from penstock.base.dataclasses import dataclass, replace
from penstock.groups.reconcile import Reconciliation
from penstock.groups.streams.model import StreamsMember
from penstock.groups.streams.tasks import NONE_HELD, HeldTasks, Task, Tasks


@dataclass(frozen=True, slots=True)
class Others:
    """What the other members have or have not revoked yet."""

    active: frozenset[Task]
    active_here: frozenset[Task]
    """Tasks of other members in the same process."""
    standby_here: frozenset[Task]
    warmup_here: frozenset[Task]


def others_of(member: StreamsMember, members: Iterable[StreamsMember]) -> Others:
    """What the others have."""
    active: set[Task] = set()
    active_here: set[Task] = set()
    standby_here: set[Task] = set()
    warmup_here: set[Task] = set()
    for other in members:
        if other.member_id == member.member_id:
            continue
        for held in (other.assigned, other.revoking):
            active.update(held.active)
            if other.process_id == member.process_id:
                active_here.update(held.active)
                standby_here |= held.standby
                warmup_here |= held.warmup
    return Others(frozenset(active), frozenset(active_here), frozenset(standby_here), frozenset(warmup_here))


def reconciled(
    member: StreamsMember, target: Tasks, target_epoch: int, owned: Tasks | None, members: Mapping[str, StreamsMember]
) -> StreamsMember:
    """The member after its next step; the same object if there is none.

    `owned` is what the member reports, None if it reports nothing: then it is taken to have everything.
    """
    epoch = member.epoch
    match member.state:
        case Reconciliation.STABLE if member.epoch == target_epoch:
            return member
        case Reconciliation.UNREVOKED:
            if not _has_released(owned, member.revoking):
                return member
            epoch += 1
    step = _step(member, target, others_of(member, members.values()))
    revoking = _revoking(member, target, step)
    if revoking and not _has_released(owned, revoking):
        kept = _promoted_later(member, target, step, granted=frozenset())
        return _moved(member, epoch, Reconciliation.UNREVOKED, kept, revoking)
    kept = _promoted_later(member, target, step, granted=step.coming.active)
    active = {**kept.active, **dict.fromkeys(sorted(step.coming.active), target_epoch)}
    assigned = HeldTasks(active, kept.standby | step.coming.standby, kept.warmup | step.coming.warmup)
    state = Reconciliation.UNRELEASED if step.is_waiting else Reconciliation.STABLE
    return _moved(member, target_epoch, state, assigned, NONE_HELD)


@dataclass(frozen=True, slots=True)
class _Step:
    kept: HeldTasks
    coming: Tasks
    is_waiting: bool
    """Whether part of the target is not available yet."""


def _step(member: StreamsMember, target: Tasks, others: Others) -> _Step:
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
    kept = HeldTasks(
        {task: epoch for task, epoch in has.active.items() if task in target.active},
        (has.standby & target.standby) | now_standby,
        (has.warmup & target.warmup) | now_warmup,
    )
    return _Step(
        kept=kept,
        coming=Tasks(free_active, free_standby - now_standby, free_warmup - now_warmup),
        is_waiting=(free_active, free_standby, free_warmup) != (active, standby, warmup),
    )


def _revoking(member: StreamsMember, target: Tasks, step: _Step) -> HeldTasks:
    """Tasks to revoke: not those that only change their role."""
    has = member.assigned
    return HeldTasks(
        {task: epoch for task, epoch in has.active.items() if task not in target.active},
        has.standby - target.standby - step.kept.warmup - target.active,
        has.warmup - target.warmup - step.kept.standby - target.active,
    )


def _promoted_later(member: StreamsMember, target: Tasks, step: _Step, *, granted: frozenset[Task]) -> HeldTasks:
    """Tasks that are kept, with standbys that become active later."""
    waiting = target.active - granted - step.kept.active.keys()
    return HeldTasks(
        step.kept.active,
        (step.kept.standby | (member.assigned.standby & waiting)) - granted,
        (step.kept.warmup | (member.assigned.warmup & waiting)) - granted,
    )


def _has_released(owned: Tasks | None, revoking: HeldTasks) -> bool:
    return owned is not None and not owned.overlaps(revoking)


def _moved(
    member: StreamsMember, epoch: int, state: Reconciliation, assigned: HeldTasks, revoking: HeldTasks
) -> StreamsMember:
    moved = replace(member, epoch=epoch, state=state, assigned=assigned, revoking=revoking)
    return moved if epoch == member.epoch else replace(moved, previous_epoch=member.epoch)
