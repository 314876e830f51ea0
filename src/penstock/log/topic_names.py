"""Which names a topic may have. Pure."""

from __future__ import annotations

import re

from penstock.log.refusals import Refused
from penstock.wire.error_codes import ErrorCode

MAX_LENGTH = 249
INTERNAL = frozenset({"__consumer_offsets", "__transaction_state", "__share_group_state"})
"""Kafka's own topics. What they would hold is in the database here: they are not made on being asked for."""

_LEGAL = re.compile(r"[a-zA-Z0-9._-]+")


def check(name: str) -> None:
    """Raise `Refused` unless Kafka would take this name."""
    complaint = _complaint(name)
    if complaint is not None:
        raise Refused(ErrorCode.INVALID_TOPIC_EXCEPTION, f"Topic name is invalid: {complaint}")


def is_legal(name: str) -> bool:
    """Whether Kafka would take this name."""
    return _complaint(name) is None


def _complaint(name: str) -> str | None:
    if not name:
        return "the empty string is not allowed"
    if name in (".", ".."):
        return "it cannot be . or .."
    if len(name) > MAX_LENGTH:
        return f"it has {len(name)} characters and may have {MAX_LENGTH}"
    if not _LEGAL.fullmatch(name):
        return "it may hold ASCII letters, digits, dots, underscores and hyphens only"
    return None


def metric_name(name: str) -> str:
    """What two names must not share: metrics show dots as underscores, so `a.b` and `a_b` collide."""
    return name.replace(".", "_")
