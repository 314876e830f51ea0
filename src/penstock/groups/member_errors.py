"""Refusals of members of consumer and streams groups, in Kafka's words. Pure."""

from __future__ import annotations

from penstock.log.refusals import Refused
from penstock.wire.error_codes import ErrorCode


def unknown_member(member_id: str) -> Refused:
    """No member has this id."""
    return Refused(ErrorCode.UNKNOWN_MEMBER_ID, f"Member {member_id} is not a member of the group.")


def unknown_instance(instance_id: str) -> Refused:
    """No member has this group instance id."""
    return Refused(ErrorCode.UNKNOWN_MEMBER_ID, f"Instance id {instance_id} is unknown.")


def fenced_instance(member_id: str, instance_id: str, owner_id: str) -> Refused:
    """Another member has taken over the group instance id."""
    return Refused(
        ErrorCode.FENCED_INSTANCE_ID,
        f"Static member {member_id} with instance id {instance_id} was fenced by member {owner_id}.",
    )


def unreleased_instance(member_id: str, instance_id: str, owner_id: str) -> Refused:
    """Another member has the group instance id and has not left."""
    return Refused(
        ErrorCode.UNRELEASED_INSTANCE_ID,
        f"Static member {member_id} with instance id {instance_id} cannot join the group because the instance id is"
        f" owned by {owner_id} member.",
    )


def fenced_epoch(kind: str, requested: int, current: int) -> Refused:
    """The member is not in the epoch that it names."""
    relation = "greater" if requested > current else "smaller"
    return Refused(
        ErrorCode.FENCED_MEMBER_EPOCH,
        f"The {kind} group member has a {relation} member epoch ({requested}) than the one known by the group"
        f" coordinator ({current}). The member must abandon all its partitions and rejoin.",
    )
