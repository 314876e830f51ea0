"""Reconciliation of a member's assignment with its target (KIP-848): revoke first, then assign. Pure.

A member has a *target*, and moves towards it with its heartbeats:

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
from penstock.groups.partitions import Assigned, Partitions, overlaps


class Reconciliation(IntEnum):
    """The states of reconciliation."""

    STABLE = 1
    UNREVOKED = 2
    UNRELEASED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdings:
    """What a member has, and its epoch."""

    epoch: int
    state: Reconciliation
    assigned: Assigned
    revoking: Assigned = field(default_factory=dict)
    """What it was told to revoke, and has not confirmed."""


def reconciled(
    held: Holdings,
    *,
    target: Partitions,
    target_epoch: int,
    is_subscribed: Callable[[bytes], bool],
    is_free: Callable[[bytes, int], bool],
    owned: Partitions | None,
    subscription_changed: bool = False,
) -> Holdings:
    """The next step of a member; the same holdings if there is none.

    `owned` is what the member reports, None if it reports nothing: then it is taken to have everything. `is_free` tells
    whether no other member has a partition. Topics that are not subscribed any more are revoked at once, even while the
    next target is still to be computed.
    """
    match held.state:
        case Reconciliation.STABLE if held.epoch == target_epoch:
            return _without_unsubscribed(held, is_subscribed, owned) if subscription_changed else held
        case Reconciliation.UNREVOKED if owned is None or overlaps(owned, held.revoking):
            return _without_unsubscribed(held, is_subscribed, owned) if subscription_changed else held
    return _towards(held, target, target_epoch, is_subscribed, is_free, owned)


def _towards(
    held: Holdings,
    target: Partitions,
    target_epoch: int,
    is_subscribed: Callable[[bytes], bool],
    is_free: Callable[[bytes, int], bool],
    owned: Partitions | None,
) -> Holdings:
    kept: dict[bytes, Mapping[int, int]] = {}
    revoking: dict[bytes, Mapping[int, int]] = {}
    coming: dict[bytes, list[int]] = {}
    unreleased = False
    for topic_id in {**target, **held.assigned}:
        wanted = target.get(topic_id, frozenset()) if is_subscribed(topic_id) else frozenset[int]()
        has = held.assigned.get(topic_id, {})
        _put(kept, topic_id, has if wanted >= has.keys() else {p: e for p, e in has.items() if p in wanted})
        _put(revoking, topic_id, {p: epoch for p, epoch in has.items() if p not in wanted})
        missing = wanted - has.keys()
        free = [partition for partition in missing if is_free(topic_id, partition)]
        unreleased = unreleased or len(free) < len(missing)
        if free:
            coming[topic_id] = free
    if revoking and (owned is None or overlaps(owned, revoking)):
        return Holdings(epoch=held.epoch, state=Reconciliation.UNREVOKED, assigned=kept, revoking=revoking)
    for topic_id, partitions in coming.items():
        kept[topic_id] = {**kept.get(topic_id, {}), **dict.fromkeys(partitions, target_epoch)}
    state = Reconciliation.UNRELEASED if unreleased else Reconciliation.STABLE
    return Holdings(epoch=target_epoch, state=state, assigned=kept)


def _without_unsubscribed(held: Holdings, is_subscribed: Callable[[bytes], bool], owned: Partitions | None) -> Holdings:
    gone = {topic_id: partitions for topic_id, partitions in held.assigned.items() if not is_subscribed(topic_id)}
    if not gone:
        return held
    kept = {topic_id: partitions for topic_id, partitions in held.assigned.items() if topic_id not in gone}
    revoking = {
        topic_id: {**held.revoking.get(topic_id, {}), **gone.get(topic_id, {})}
        for topic_id in {**held.revoking, **gone}
    }
    if owned is None or overlaps(owned, revoking):
        return Holdings(epoch=held.epoch, state=Reconciliation.UNREVOKED, assigned=kept, revoking=revoking)
    return Holdings(epoch=held.epoch, state=held.state, assigned=kept, revoking=held.revoking)


def _put(into: dict[bytes, Mapping[int, int]], topic_id: bytes, partitions: Mapping[int, int]) -> None:
    if partitions:
        into[topic_id] = partitions
