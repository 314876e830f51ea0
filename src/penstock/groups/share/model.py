"""Share groups: frozen state, requests to the rules, and their results.

Several members may read one partition, so nothing has to be revoked: a member has its target as soon as it gets it.
The epoch of a group increases with every change that requires a new assignment; the *target* has the epoch that it was
computed for, and a member that of the target it got.

Everything here is durable except the time-outs. `topics` are those that members subscribe to and that exist; it is kept
when the group is empty, because it says which partitions the group knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

from penstock.base.dataclasses import dataclass, field, replace
from penstock.base.settings import BrokerSettings
from penstock.groups.configs import Bounds, assignment_interval_ms, bounds_of, int_config
from penstock.groups.partitions import Partitions
from penstock.wire.error_codes import ErrorCode

KIND = "share"


class KnownTopic(NamedTuple):
    """A topic that the group reads, or has read."""

    first_count: int
    """How many partitions it had when the group first saw it. Later ones are read from their beginning, whatever the
    group's reset policy says, so that no records are missed."""
    partition_count: int
    """How many it had when partitions were last assigned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareMember:
    """A member of a share group."""

    kind: ClassVar[str] = KIND

    member_id: str
    rack_id: str | None = None
    client_id: str = ""
    client_host: str = ""
    topics: frozenset[str] = frozenset()
    epoch: int = 0
    previous_epoch: int = -1
    """The epoch before, which the member may still be in if a response was lost."""
    assigned: Partitions = field(default_factory=dict)
    target: Partitions = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareGroup:
    """A share group."""

    kind: ClassVar[str] = KIND

    epoch: int = 0
    target_epoch: int = 0
    assigned_ms: int = 0
    """When the target was computed; 0: the next one may be computed at once."""
    members: Mapping[str, ShareMember] = field(default_factory=dict)
    topics: Mapping[bytes, KnownTopic] = field(default_factory=dict)
    empty_since_ms: int | None = None

    @property
    def protocol_type(self) -> str:
        """The protocol type in ListGroups."""
        return KIND

    @property
    def shown_state(self) -> str:
        """The state as clients see it."""
        return "Stable" if self.members else "Empty"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareHeartbeat:
    """ShareGroupHeartbeat. None: unchanged."""

    member_id: str
    epoch: int
    rack_id: str | None = None
    topics: frozenset[str] | None = None
    client_id: str = ""
    client_host: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareHeartbeatResult:
    """The response to a heartbeat."""

    error: ErrorCode = ErrorCode.NONE
    message: str | None = None
    member_id: str | None = None
    epoch: int = 0
    interval_ms: int = 0
    assigned: Partitions | None = None
    """None: unchanged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareGroupSettings:
    """Settings of share group membership."""

    session_timeout_ms: int = 45_000
    """`share.session.timeout.ms`"""
    heartbeat_interval_ms: int = 5_000
    """`share.heartbeat.interval.ms`"""
    assignment_interval_ms: int = 1_000
    """`share.assignment.interval.ms`"""
    max_size: int = 200
    """`group.share.max.size`"""
    bounds: Bounds = field(default_factory=dict, compare=False)
    """Bounds of values that groups set themselves."""

    def of_group(self, overrides: Mapping[str, str]) -> ShareGroupSettings:
        """The same for a group with overrides."""
        if not any(key.startswith(f"{KIND}.") for key in overrides):
            return self

        def number(name: str, otherwise: int) -> int:
            return int_config(overrides, f"{KIND}.{name}", otherwise, self.bounds)

        return replace(
            self,
            session_timeout_ms=number("session.timeout.ms", self.session_timeout_ms),
            heartbeat_interval_ms=number("heartbeat.interval.ms", self.heartbeat_interval_ms),
            assignment_interval_ms=number("assignment.interval.ms", self.assignment_interval_ms),
        )

    @classmethod
    def of(cls, broker: BrokerSettings) -> ShareGroupSettings:
        """From the settings of a broker."""
        return cls(
            session_timeout_ms=broker.whole("group.share.session.timeout.ms"),
            heartbeat_interval_ms=broker.whole("group.share.heartbeat.interval.ms"),
            assignment_interval_ms=assignment_interval_ms(KIND, broker),
            max_size=broker.whole("group.share.max.size"),
            bounds=bounds_of(KIND, broker),
        )
