"""Settings of groups, under Kafka's names and with its defaults unless stated otherwise."""

from __future__ import annotations

from collections.abc import Mapping

from penstock.base.config_values import INT, INT_MAX, LIST, LONG, STRING, ConfigValue
from penstock.base.dataclasses import dataclass, field, replace
from penstock.base.errors import InvalidRequest
from penstock.base.settings import BoundedSetting, BrokerSettings, LiveSettings, declare, setting
from penstock.groups.configs import CONFIGURABLE_KINDS, Bounds, assignment_interval_ms, bounds_of, int_config
from penstock.groups.share.model import ShareGroupSettings
from penstock.groups.streams.model import StreamsGroupSettings

_POLICIES = ("bidirectional", "upgrade", "downgrade", "disabled")


def group_setting(
    name: str, default: int, allowed: tuple[int, int], least: int, most: int, *, doc: str, dynamic: bool = False
) -> BoundedSetting:
    """A setting that groups may have their own value of, and what they may set it to."""
    kind, _, rest = name.removeprefix("group.").partition(".")
    low, high = allowed
    return BoundedSetting(
        value=setting(name, INT, str(default), doc, at_least=low, at_most=high, dynamic=dynamic),
        least=setting(
            f"group.{kind}.min.{rest}", INT, str(least), f"The lowest {kind}.{rest} that a group may have.",
            at_least=low, at_most=high,
        ),
        most=setting(
            f"group.{kind}.max.{rest}", INT, str(most), f"The highest {kind}.{rest} that a group may have.",
            at_least=low, at_most=high,
        ),
    )  # fmt: skip


def _not_empty(value: ConfigValue) -> str | None:
    return None if value else "There must be at least one"


def _migration_policy(value: ConfigValue) -> str | None:
    return (
        None if str(value).lower() in _POLICIES else f"String must be one of (case insensitive): {', '.join(_POLICIES)}"
    )


def _check(settings: BrokerSettings) -> None:
    if settings.whole("group.min.session.timeout.ms") > settings.whole("group.max.session.timeout.ms"):
        raise InvalidRequest("group.min.session.timeout.ms must not exceed group.max.session.timeout.ms")
    for kind in CONFIGURABLE_KINDS:
        heartbeat, session = f"group.{kind}.heartbeat.interval.ms", f"group.{kind}.session.timeout.ms"
        if settings.whole(heartbeat) >= settings.whole(session):
            raise InvalidRequest(f"{heartbeat} must be less than {session}")
    if settings.whole("group.streams.num.standby.replicas") > settings.whole("group.streams.max.standby.replicas"):
        raise InvalidRequest("group.streams.num.standby.replicas must not exceed group.streams.max.standby.replicas")


SETTINGS = declare(
    setting(
        "group.initial.rebalance.delay.ms", INT, "0", at_least=0,
        doc="How long a new classic group waits for more members before its first rebalance ends. Apache Kafka waits"
        " 3000.",
    ),
    setting(
        "group.min.session.timeout.ms", INT, "6000", at_least=1,
        doc="The shortest session time-out a member of a classic group may ask for.",
    ),
    setting(
        "group.max.session.timeout.ms", INT, "1800000", at_least=1,
        doc="The longest session time-out a member of a classic group may ask for.",
    ),
    setting("group.max.size", INT, str(INT_MAX), "How many members a classic group may have.", at_least=1),
    setting(
        "offsets.retention.minutes", INT, "10080", at_least=1,
        doc="How long the offsets of a group without members are kept.",
    ),
    setting(
        "offsets.retention.check.interval.ms", LONG, "600000", at_least=1,
        doc="How often offsets are checked for expiry.",
    ),
    setting(
        "offset.metadata.max.bytes", INT, "4096", at_least=0,
        doc="The longest metadata that a client may store with a committed offset.",
    ),
    group_setting(
        "group.consumer.session.timeout.ms", 45_000, (1, INT_MAX), 45_000, 60_000,
        doc="How long a member of a consumer group may be silent before it is removed from the group.",
    ),
    group_setting(
        "group.consumer.heartbeat.interval.ms", 5_000, (1, INT_MAX), 5_000, 15_000,
        doc="How often members of a consumer group send heartbeats while nothing changes; more often while it"
        " rebalances.",
    ),
    group_setting(
        "group.consumer.assignment.interval.ms", 1_000, (0, INT_MAX), 0, 15_000, dynamic=True,
        doc="The shortest time between two assignments of a consumer group.",
    ),
    setting("group.consumer.max.size", INT, str(INT_MAX), "How many members a consumer group may have.", at_least=1),
    setting(
        "group.consumer.assignors", LIST, "uniform,range", choices=("uniform", "range"), check=_not_empty,
        doc="The assignors that members of consumer groups may choose; the first is the default.",
    ),
    setting(
        "group.consumer.migration.policy", STRING, "bidirectional", check=_migration_policy,
        doc="Which live migrations of groups are allowed: classic to consumer (upgrade), consumer to classic"
        " (downgrade), both (bidirectional), or none (disabled).",
    ),
    setting(
        "group.consumer.regex.refresh.interval.ms", INT, "600000", at_least=10_000,
        doc="How often the regular expressions of consumer groups are evaluated again although no topic has changed.",
    ),
    group_setting(
        "group.share.session.timeout.ms", 45_000, (1, INT_MAX), 45_000, 60_000,
        doc="How long a member of a share group may be silent before it is removed from the group.",
    ),
    group_setting(
        "group.share.heartbeat.interval.ms", 5_000, (1, INT_MAX), 5_000, 15_000,
        doc="How often members of a share group send heartbeats while nothing changes.",
    ),
    group_setting(
        "group.share.assignment.interval.ms", 1_000, (0, INT_MAX), 0, 15_000, dynamic=True,
        doc="The shortest time between two assignments of a share group.",
    ),
    setting("group.share.max.size", INT, "200", "How many members a share group may have.", at_least=1, at_most=1_000),
    group_setting(
        "group.streams.session.timeout.ms", 45_000, (1, INT_MAX), 45_000, 60_000,
        doc="How long a member of a streams group may be silent before it is removed from the group.",
    ),
    group_setting(
        "group.streams.heartbeat.interval.ms", 5_000, (1, INT_MAX), 5_000, 15_000,
        doc="How often members of a streams group send heartbeats while nothing changes; more often while it"
        " rebalances.",
    ),
    group_setting(
        "group.streams.assignment.interval.ms", 1_000, (0, INT_MAX), 0, 15_000, dynamic=True,
        doc="The shortest time between two assignments of a streams group.",
    ),
    setting(
        "group.streams.initial.rebalance.delay.ms", INT, "3000", at_least=0,
        doc="How long a streams group that had no members waits for more of them before it assigns tasks.",
    ),
    setting(
        "group.streams.num.standby.replicas", INT, "0", at_least=0,
        doc="How many standby replicas a streams group keeps of each task's state.",
    ),
    setting(
        "group.streams.max.standby.replicas", INT, "2", at_least=0,
        doc="The highest streams.num.standby.replicas that a group may have.",
    ),
    setting(
        "group.streams.rack.aware.assignment.tags", LIST, "",
        doc="The client tags that members of streams groups must have; members without them are warned.",
    ),
    setting("group.streams.max.size", INT, str(INT_MAX), "How many members a streams group may have.", at_least=1),
    check=_check,
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerSettings:
    """Settings of consumer groups. A group may have its own session time-out and intervals."""

    session_timeout_ms: int = 45_000
    """`group.consumer.session.timeout.ms`"""
    heartbeat_interval_ms: int = 5_000
    """`group.consumer.heartbeat.interval.ms`"""
    assignment_interval_ms: int = 1_000
    """`group.consumer.assignment.interval.ms`"""
    max_size: int = 2_147_483_647
    """`group.consumer.max.size`"""
    assignors: tuple[str, ...] = ("uniform", "range")
    """`group.consumer.assignors`, the first of which is the default."""
    migration_policy: str = "bidirectional"
    """`group.consumer.migration.policy`"""
    regex_refresh_interval_ms: int = 600_000
    """`group.consumer.regex.refresh.interval.ms`"""
    bounds: Bounds = field(default_factory=dict, compare=False)
    """Bounds of values that groups set themselves."""

    @property
    def upgrades(self) -> bool:
        """Whether a classic group is upgraded when a member joins it with the consumer protocol."""
        return self.migration_policy in ("bidirectional", "upgrade")

    @property
    def downgrades(self) -> bool:
        """Whether a consumer group is downgraded when its last member with the consumer protocol is gone."""
        return self.migration_policy in ("bidirectional", "downgrade")

    def of_group(self, overrides: Mapping[str, str]) -> ConsumerSettings:
        """The same for a group with overrides."""
        if not any(key.startswith("consumer.") for key in overrides):
            return self

        def number(name: str, otherwise: int) -> int:
            return int_config(overrides, f"consumer.{name}", otherwise, self.bounds)

        return replace(
            self,
            session_timeout_ms=number("session.timeout.ms", self.session_timeout_ms),
            heartbeat_interval_ms=number("heartbeat.interval.ms", self.heartbeat_interval_ms),
            assignment_interval_ms=number("assignment.interval.ms", self.assignment_interval_ms),
        )

    @classmethod
    def of(cls, broker: BrokerSettings) -> ConsumerSettings:
        """From the settings of a broker."""
        return cls(
            session_timeout_ms=broker.whole("group.consumer.session.timeout.ms"),
            heartbeat_interval_ms=broker.whole("group.consumer.heartbeat.interval.ms"),
            assignment_interval_ms=assignment_interval_ms("consumer", broker),
            max_size=broker.whole("group.consumer.max.size"),
            assignors=broker.words("group.consumer.assignors"),
            migration_policy=(broker.text("group.consumer.migration.policy") or "").lower(),
            regex_refresh_interval_ms=broker.whole("group.consumer.regex.refresh.interval.ms"),
            bounds=bounds_of("consumer", broker),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSettings:
    """Settings of classic groups, and of offsets."""

    min_session_timeout_ms: int = 6_000
    """`group.min.session.timeout.ms`"""
    max_session_timeout_ms: int = 1_800_000
    """`group.max.session.timeout.ms`"""
    max_size: int = 2_147_483_647
    """`group.max.size`"""
    initial_rebalance_delay_ms: int = 0
    """`group.initial.rebalance.delay.ms`; Kafka's default is 3000. With 0 it waits only while members keep arriving."""
    new_member_join_timeout_ms: int = 300_000
    """How long a member without an id may stay in a join without sending anything."""
    offset_metadata_max_size: int = 4_096
    """`offset.metadata.max.bytes`"""
    offsets_retention_ms: int = 7 * 24 * 3_600_000
    """`offsets.retention.minutes`, in ms"""
    offsets_check_interval_ms: int = 600_000
    """`offsets.retention.check.interval.ms`"""
    join_quiet_ms: int = 20
    """With a delay of 0: how long the first join waits for more."""
    join_quiet_max_ms: int = 250
    """With a delay of 0: the longest gap between arrivals that is waited for."""
    join_window_max_ms: int = 3_000
    """With a delay of 0: the longest time that an initial rebalance is delayed by arriving members."""
    consumer: ConsumerSettings = field(default_factory=ConsumerSettings)

    share: ShareGroupSettings = field(default_factory=ShareGroupSettings)

    streams: StreamsGroupSettings = field(default_factory=StreamsGroupSettings)

    @classmethod
    def of(cls, broker: BrokerSettings) -> GroupSettings:
        """From the settings of a broker."""
        return cls(
            min_session_timeout_ms=broker.whole("group.min.session.timeout.ms"),
            max_session_timeout_ms=broker.whole("group.max.session.timeout.ms"),
            max_size=broker.whole("group.max.size"),
            initial_rebalance_delay_ms=broker.whole("group.initial.rebalance.delay.ms"),
            offset_metadata_max_size=broker.whole("offset.metadata.max.bytes"),
            offsets_retention_ms=broker.whole("offsets.retention.minutes") * 60_000,
            offsets_check_interval_ms=broker.whole("offsets.retention.check.interval.ms"),
            share=ShareGroupSettings.of(broker),
            streams=StreamsGroupSettings.of(broker),
            consumer=ConsumerSettings.of(broker),
        )


class LiveGroupSettings:
    """The current settings of each virtual cluster: the process's, with dynamically altered assignment intervals."""

    def __init__(self, live: LiveSettings, start: GroupSettings) -> None:
        self._live, self._start = live, start
        self._known: dict[int, tuple[BrokerSettings, GroupSettings]] = {}

    def of(self, cluster_id: int) -> GroupSettings:
        """The current settings of a virtual cluster's groups."""
        broker = self._live.of(cluster_id)
        if broker is self._live.start:
            self._known.pop(cluster_id, None)
            return self._start
        known = self._known.get(cluster_id)
        if known is None or known[0] is not broker:
            # Settings are replaced when they are altered, so the same object means unchanged settings.
            known = self._known[cluster_id] = broker, GroupSettings.of(broker)
        return known[1]
