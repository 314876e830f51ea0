"""The rules for topic names. Pure."""

from __future__ import annotations

import re

from penstock.log.refusals import Refused
from penstock.wire.error_codes import ErrorCode

MAX_LENGTH = 249
INTERNAL = frozenset({"__consumer_offsets", "__transaction_state", "__share_group_state"})
"""Kafka's internal topics. Their content is in the database here, so they are never auto-created."""

_LEGAL = re.compile(r"[a-zA-Z0-9._-]+")


def check(name: str) -> None:
    """Raise `Refused` unless Kafka would accept this name."""
    complaint = _complaint(name)
    if complaint is not None:
        raise Refused(ErrorCode.INVALID_TOPIC_EXCEPTION, f"Topic name is invalid: {complaint}")


def is_legal(name: str) -> bool:
    """Whether Kafka would accept this name."""
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
    """The name in metrics, which two topics must not share: they show dots as underscores, so `a.b` and `a_b`
    collide."""
    return name.replace(".", "_")
