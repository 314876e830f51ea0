"""Reconciliation of a member's current assignment with its target assignment (KIP-848): revoke first, then assign.
Pure.

The assignor gives each member a *target*, and the member moves towards it with its heartbeats:

    stable ──► unrevoked: has partitions that are not in its target, and was told to revoke them;
               stays in its epoch until it confirms that
           ──► unreleased: has nothing to revoke and is in the epoch of its target, but some of its partitions
               have not been revoked by others yet
           ──► stable: has its target

So no partition is ever assigned to a member before its last owner has revoked it, or was removed from the group.
Consumer groups use all of this; other protocols may use less.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import IntEnum

from penstock.base.dataclasses import dataclass, field
from penstock.groups.partitions import PartitionEpochs, Partitions, overlaps


class MemberState(IntEnum):
    """How far a member is from its target assignment. Kafka's names: STABLE, UNREVOKED_PARTITIONS (of streams groups:
    UNREVOKED_TASKS), UNRELEASED_PARTITIONS."""

    STABLE = 1
    UNREVOKED = 2
    UNRELEASED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class CurrentAssignment:
    """The partitions of a member, and its epoch."""

    epoch: int
    state: MemberState
    assigned: PartitionEpochs
    pending_revocation: PartitionEpochs = field(default_factory=dict)
    """What it was told to revoke, and has not confirmed yet."""


def reconciled(
    current: CurrentAssignment,
    *,
    target: Partitions,
    target_epoch: int,
    is_subscribed: Callable[[bytes], bool],
    is_free: Callable[[bytes, int], bool],
    owned: Partitions | None,
    subscription_changed: bool = False,
) -> CurrentAssignment:
    """The next step of a member; the same assignment if there is none.

    `owned` is what the member reports, None if it reports nothing: then it is taken to have everything. `is_free` tells
    whether no other member has a partition. Topics that are not subscribed any more are revoked at once, even while the
    next target is still to be computed.
    """
    match current.state:
        case MemberState.STABLE if current.epoch == target_epoch:
            return _without_unsubscribed(current, is_subscribed, owned) if subscription_changed else current
        case MemberState.UNREVOKED if owned is None or overlaps(owned, current.pending_revocation):
            return _without_unsubscribed(current, is_subscribed, owned) if subscription_changed else current
    return _next_assignment(current, target, target_epoch, is_subscribed, is_free, owned)


def _next_assignment(
    current: CurrentAssignment,
    target: Partitions,
    target_epoch: int,
    is_subscribed: Callable[[bytes], bool],
    is_free: Callable[[bytes, int], bool],
    owned: Partitions | None,
) -> CurrentAssignment:
    kept: dict[bytes, Mapping[int, int]] = {}
    pending_revocation: dict[bytes, Mapping[int, int]] = {}
    newly_assigned: dict[bytes, list[int]] = {}
    unreleased = False
    for topic_id in {**target, **current.assigned}:
        wanted = target.get(topic_id, frozenset()) if is_subscribed(topic_id) else frozenset[int]()
        has = current.assigned.get(topic_id, {})
        _put_unless_empty(
            kept, topic_id, has if wanted >= has.keys() else {p: e for p, e in has.items() if p in wanted}
        )
        _put_unless_empty(pending_revocation, topic_id, {p: epoch for p, epoch in has.items() if p not in wanted})
        missing = wanted - has.keys()
        free = [partition for partition in missing if is_free(topic_id, partition)]
        unreleased = unreleased or len(free) < len(missing)
        if free:
            newly_assigned[topic_id] = free
    if pending_revocation and (owned is None or overlaps(owned, pending_revocation)):
        return CurrentAssignment(
            epoch=current.epoch, state=MemberState.UNREVOKED, assigned=kept, pending_revocation=pending_revocation
        )
    for topic_id, partitions in newly_assigned.items():
        kept[topic_id] = {**kept.get(topic_id, {}), **dict.fromkeys(partitions, target_epoch)}
    state = MemberState.UNRELEASED if unreleased else MemberState.STABLE
    return CurrentAssignment(epoch=target_epoch, state=state, assigned=kept)


def _without_unsubscribed(
    current: CurrentAssignment, is_subscribed: Callable[[bytes], bool], owned: Partitions | None
) -> CurrentAssignment:
    gone = {topic_id: partitions for topic_id, partitions in current.assigned.items() if not is_subscribed(topic_id)}
    if not gone:
        return current
    kept = {topic_id: partitions for topic_id, partitions in current.assigned.items() if topic_id not in gone}
    pending_revocation = {
        topic_id: {**current.pending_revocation.get(topic_id, {}), **gone.get(topic_id, {})}
        for topic_id in {**current.pending_revocation, **gone}
    }
    if owned is None or overlaps(owned, pending_revocation):
        return CurrentAssignment(
            epoch=current.epoch, state=MemberState.UNREVOKED, assigned=kept, pending_revocation=pending_revocation
        )
    return CurrentAssignment(
        epoch=current.epoch, state=current.state, assigned=kept, pending_revocation=current.pending_revocation
    )


def _put_unless_empty(into: dict[bytes, Mapping[int, int]], topic_id: bytes, partitions: Mapping[int, int]) -> None:
    if partitions:
        into[topic_id] = partitions
