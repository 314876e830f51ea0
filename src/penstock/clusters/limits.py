"""Limits of virtual clusters: their names, valid values and changes. Pure.

Limits are set by platform administrators and apply to a cluster as a whole, in addition to the quotas that the cluster
sets for its own users and clients. Like quotas, rates and connections are counted by each agent for itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import StrEnum

from penstock.base.dataclasses import dataclass
from penstock.base.errors import InvalidRequest

Limits = Mapping[str, float]
"""Limits by key; a missing key means no limit."""


class LimitKey(StrEnum):
    """The keys of limits."""

    BYTES_IN_RATE = "bytes_in_rate"
    BYTES_OUT_RATE = "bytes_out_rate"
    REQUEST_RATE = "request_rate"
    CONNECTION_RATE = "connection_rate"
    CONNECTIONS = "connections"
    PARTITIONS = "partitions"
    GROUPS = "groups"
    PRODUCER_IDS = "producer_ids"


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitRule:
    """The valid values of a limit."""

    doc: str
    minimum: int = 0
    maximum: int = 2**53
    """The largest integer that a double represents exactly."""


RULES: Mapping[str, LimitRule] = {
    LimitKey.BYTES_IN_RATE: LimitRule(minimum=1, doc="Bytes of requests a second."),
    LimitKey.BYTES_OUT_RATE: LimitRule(minimum=1, doc="Bytes fetched a second."),
    LimitKey.REQUEST_RATE: LimitRule(minimum=1, doc="Requests a second."),
    LimitKey.CONNECTION_RATE: LimitRule(minimum=1, doc="Connections made a second."),
    LimitKey.CONNECTIONS: LimitRule(doc="Connections at the same time."),
    LimitKey.PARTITIONS: LimitRule(doc="Partitions of all its topics together."),
    LimitKey.GROUPS: LimitRule(doc="Groups of every kind."),
    LimitKey.PRODUCER_IDS: LimitRule(
        doc="Producer ids known to its partitions or owned by transactional ids; beyond it, no new ones are allocated."
    ),
}
"""The rules of all limits."""


def changed_limits(limits: Limits, changes: Mapping[str, float | None]) -> Limits:
    """The limits after changes; None removes a limit. Raises `InvalidRequest`."""
    after = dict(limits)
    for key, value in changes.items():
        rule = RULES.get(key)
        if rule is None:
            raise InvalidRequest(f"there is no limit {key[:80]!r}; there are {', '.join(RULES)}")
        if value is None:
            after.pop(key, None)
            continue
        if not math.isfinite(value) or not rule.minimum <= value <= rule.maximum or value != int(value):
            raise InvalidRequest(f"{key} is a whole number from {rule.minimum} to {rule.maximum}")
        after[key] = value
    return after
