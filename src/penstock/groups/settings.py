"""Settings of groups, under Kafka's names and with its defaults where not said otherwise."""

from __future__ import annotations

from collections.abc import Mapping

from penstock.base.dataclasses import dataclass, field, replace
from penstock.groups.share.model import ShareGroupSettings
from penstock.groups.streams.model import StreamsGroupSettings
from penstock.log.other_configs import Bounds, assignment_interval_ms, bounds_of, whole_of
from penstock.log.settings import BrokerSettings, LiveSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerSettings:
    """What consumer groups go by. A group may have its own session time-out and intervals."""

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
    """Of what groups have of their own."""

    @property
    def upgrades(self) -> bool:
        """Whether a classic group becomes a consumer group when a member joins it by the consumer protocol."""
        return self.migration_policy in ("bidirectional", "upgrade")

    @property
    def downgrades(self) -> bool:
        """Whether a consumer group becomes a classic group when the last member of the consumer protocol is gone."""
        return self.migration_policy in ("bidirectional", "downgrade")

    def of_group(self, overrides: Mapping[str, str]) -> ConsumerSettings:
        """The same for a group with configuration of its own."""
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
        """What the settings of a broker say."""
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
    """Plain values; see the documentation of each."""

    min_session_timeout_ms: int = 6_000
    """`group.min.session.timeout.ms`"""
    max_session_timeout_ms: int = 1_800_000
    """`group.max.session.timeout.ms`"""
    max_size: int = 2_147_483_647
    """`group.max.size`"""
    initial_rebalance_delay_ms: int = 0
    """`group.initial.rebalance.delay.ms`; Kafka's default is 3000. 0 waits only as long as members keep arriving."""
    new_member_join_timeout_ms: int = 300_000
    """How long a member that does not know its id yet may stay in a join without being heard of."""
    offset_metadata_max_size: int = 4_096
    """`offset.metadata.max.bytes`"""
    offsets_retention_ms: int = 7 * 24 * 3_600_000
    """`offsets.retention.minutes`, in ms"""
    join_quiet_ms: int = 20
    """With a delay of 0: how long the first join waits for more."""
    join_quiet_max_ms: int = 250
    """With a delay of 0: the longest pause between arrivals that is waited for."""
    join_window_max_ms: int = 3_000
    """With a delay of 0: the longest that a first generation is held up by arriving members."""
    consumer: ConsumerSettings = field(default_factory=ConsumerSettings)

    share: ShareGroupSettings = field(default_factory=ShareGroupSettings)

    streams: StreamsGroupSettings = field(default_factory=StreamsGroupSettings)

    @classmethod
    def of(cls, broker: BrokerSettings) -> GroupSettings:
        """What the settings of a broker say about groups."""
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
    """The same in every virtual cluster, as altered there: the intervals between two assignments."""

    def __init__(self, live: LiveSettings, start: GroupSettings) -> None:
        self._live, self._start = live, start
        self._known: dict[int, tuple[BrokerSettings, GroupSettings]] = {}

    def of(self, cluster_id: int) -> GroupSettings:
        """What groups of a virtual cluster go by now."""
        broker = self._live.of(cluster_id)
        if broker is self._live.start:
            self._known.pop(cluster_id, None)
            return self._start
        known = self._known.get(cluster_id)
        if known is None or known[0] is not broker:
            # Settings are replaced when they are altered, so the same object means the same settings.
            known = self._known[cluster_id] = broker, GroupSettings.of(broker)
        return known[1]
