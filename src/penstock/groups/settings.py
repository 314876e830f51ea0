"""Settings of groups, under Kafka's names and with its defaults unless stated otherwise."""

from __future__ import annotations

from collections.abc import Mapping

from penstock.base.dataclasses import dataclass, field, replace
from penstock.groups.share.model import ShareGroupSettings
from penstock.groups.streams.model import StreamsGroupSettings
from penstock.log.other_configs import Bounds, assignment_interval_ms, bounds_of, whole_of
from penstock.log.settings import BrokerSettings, LiveSettings


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
            return whole_of(overrides, f"consumer.{name}", otherwise, self.bounds)

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
            min_session_timeout_ms=broker.group_min_session_timeout_ms,
            max_session_timeout_ms=broker.group_max_session_timeout_ms,
            max_size=broker.group_max_size,
            initial_rebalance_delay_ms=broker.group_initial_rebalance_delay_ms,
            offset_metadata_max_size=broker.offset_metadata_max_bytes,
            offsets_retention_ms=broker.offsets_retention_ms,
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
