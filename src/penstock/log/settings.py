"""Broker-wide Kafka settings: set at start with `--set NAME=VALUE`, some of them also by dynamic configuration.

One table, `SETTINGS` in setting_table.py, has every name with its type, default and meaning; the reference page is
generated from it. A `BrokerSettings` is what one virtual cluster sees: the defaults, then what the process was started
with, then dynamic values, cluster-wide or of this broker. It is immutable; `LiveSettings` has the current one of each
cluster.

Settings that are synonyms of topic keys (`log.retention.ms`, `message.max.bytes`) are the defaults of topics, and
reach the log through `topic_configs.resolve`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import cast

from penstock.base.dataclasses import dataclass, field
from penstock.base.errors import InvalidRequest
from penstock.log.config_values import ConfigKey, ConfigSource, ConfigValue
from penstock.log.config_values import unknown as unknown_name
from penstock.log.setting_table import DYNAMIC, SETTINGS

_OF_EVERY_KIND = ("session.timeout.ms", "heartbeat.interval.ms", "assignment.interval.ms")
_BOUNDED: Mapping[str, tuple[str, ...]] = {
    "consumer": _OF_EVERY_KIND,
    "share": (*_OF_EVERY_KIND, "record.lock.duration.ms", "delivery.count.limit", "partition.max.record.locks"),
    "streams": _OF_EVERY_KIND,
}
"""By kind of group, the settings `group.KIND.NAME` bounded by `group.KIND.min.NAME` and `group.KIND.max.NAME`."""


@dataclass(frozen=True, slots=True)
class SettingValue:
    """One value of a setting, and its source."""

    text: str
    source: ConfigSource


def check_static(name: str, text: str) -> None:
    """Raise `InvalidRequest` unless the process may be started with this value."""
    key(name).parse(text)


def check_dynamic(name: str, text: str | None) -> None:
    """Raise `InvalidRequest` unless the setting may be altered to this value at run time."""
    if name in SETTINGS and name not in DYNAMIC:
        raise InvalidRequest(f"Cannot update these configs dynamically: [{name}]")
    key(name).parse(text)


def key(name: str) -> ConfigKey:
    """The setting of that name; raise `InvalidRequest`, suggesting the most similar one, if there is none."""
    found = SETTINGS.get(name)
    if found is None:
        raise unknown_name(name, SETTINGS)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerSettings:
    """The settings one virtual cluster sees: three layers over the defaults, the last one wins."""

    static: Mapping[str, str] = field(default_factory=dict)
    """Set at start."""
    cluster_wide: Mapping[str, str] = field(default_factory=dict)
    """Altered for all brokers of the cluster."""
    this_broker: Mapping[str, str] = field(default_factory=dict)
    """Altered for this broker."""
    values: Mapping[str, ConfigValue] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        values = {name: setting.parse(self.text(name)) for name, setting in SETTINGS.items()}
        object.__setattr__(self, "values", MappingProxyType(values))

    @classmethod
    def started_with(cls, texts: Mapping[str, str]) -> BrokerSettings:
        """The settings of a process; raise `InvalidRequest` for an unknown name or a value that Kafka would refuse."""
        for name, text in texts.items():
            check_static(name, text)
        settings = cls(static=MappingProxyType(dict(texts)))
        settings._consistent()
        return settings

    def check_altered(self, names: Collection[str]) -> None:
        """Raise `InvalidRequest` if one of these settings, just altered, is out of bounds."""
        for kind, bounded in _BOUNDED.items():
            for name in bounded:
                if f"group.{kind}.{name}" in names:
                    self._check_bounds(kind, name)

    def _check_bounds(self, kind: str, name: str) -> None:
        least, value, most = (self.whole(f"group.{kind}.{limit}{name}") for limit in ("min.", "", "max."))
        if not least <= value <= most:
            raise InvalidRequest(
                f"group.{kind}.{name} must be between group.{kind}.min.{name} and group.{kind}.max.{name}"
            )

    def _consistent(self, *, is_altered: bool = False) -> None:
        """Raise `InvalidRequest` for a contradiction. Altered values are clamped to the current bounds."""
        if self.group_min_session_timeout_ms > self.group_max_session_timeout_ms:
            raise InvalidRequest("group.min.session.timeout.ms must not exceed group.max.session.timeout.ms")
        for kind, bounded in _BOUNDED.items():
            for name in bounded:
                if not (is_altered and f"group.{kind}.{name}" in DYNAMIC):
                    self._check_bounds(kind, name)
            heartbeat, session = f"group.{kind}.heartbeat.interval.ms", f"group.{kind}.session.timeout.ms"
            if self.whole(heartbeat) >= self.whole(session):
                raise InvalidRequest(f"{heartbeat} must be less than {session}")
        if self.whole("group.share.max.share.sessions") < self.whole("group.share.max.size"):
            raise InvalidRequest("group.share.max.share.sessions must not be less than group.share.max.size")
        if self.whole("group.streams.num.standby.replicas") > self.whole("group.streams.max.standby.replicas"):
            raise InvalidRequest(
                "group.streams.num.standby.replicas must not exceed group.streams.max.standby.replicas"
            )
        if self.whole("log.cleaner.min.compaction.lag.ms") > self.whole("log.cleaner.max.compaction.lag.ms"):
            raise InvalidRequest("log.cleaner.min.compaction.lag.ms must not exceed log.cleaner.max.compaction.lag.ms")

    def given(self, name: str) -> list[SettingValue]:
        """Every value the setting has, the effective one first, its default last."""
        layers = (
            (self.this_broker, ConfigSource.DYNAMIC_BROKER),
            (self.cluster_wide, ConfigSource.DYNAMIC_DEFAULT_BROKER),
            (self.static, ConfigSource.STATIC_BROKER),
        )
        found = [SettingValue(layer[name], source) for layer, source in layers if name in layer]
        default = SETTINGS[name].default
        if default is not None:
            found.append(SettingValue(default, ConfigSource.DEFAULT))
        return found

    def text(self, name: str) -> str | None:
        """The effective text, or None for an unset setting without default."""
        for layer in (self.this_broker, self.cluster_wide, self.static):
            if name in layer:
                return layer[name]
        return SETTINGS[name].default

    def whole(self, name: str) -> int:
        """The value of a whole-number setting that has a default."""
        return cast(int, self.values[name])

    def words(self, name: str) -> tuple[str, ...]:
        """The words of a list."""
        return cast("tuple[str, ...]", self.values[name])

    def fraction(self, name: str) -> float:
        """The value of a numeric setting, whole or not."""
        return cast(float, self.values[name])

    def flag(self, name: str) -> bool:
        """The value of a boolean setting."""
        return cast(bool, self.values[name])

    @property
    def num_partitions(self) -> int:
        """Partitions of a topic whose creator leaves the number open."""
        return self.whole("num.partitions")

    @property
    def default_replication_factor(self) -> int:
        """Replication factor of a topic whose creator leaves it open."""
        return self.whole("default.replication.factor")

    @property
    def auto_create_topics(self) -> bool:
        """Whether requests for unknown topics may create them."""
        return self.flag("auto.create.topics.enable")

    @property
    def delete_topics(self) -> bool:
        """Whether topics may be deleted."""
        return self.flag("delete.topic.enable")

    @property
    def group_initial_rebalance_delay_ms(self) -> int:
        """How long a new group waits for more members."""
        return self.whole("group.initial.rebalance.delay.ms")

    @property
    def group_min_session_timeout_ms(self) -> int:
        """The shortest session time-out that a member may use."""
        return self.whole("group.min.session.timeout.ms")

    @property
    def group_max_session_timeout_ms(self) -> int:
        """The longest session time-out that a member may use."""
        return self.whole("group.max.session.timeout.ms")

    @property
    def group_max_size(self) -> int:
        """How many members a group may have."""
        return self.whole("group.max.size")

    @property
    def offsets_retention_ms(self) -> int:
        """How long offsets of an empty group are kept."""
        return self.whole("offsets.retention.minutes") * 60_000

    @property
    def offsets_check_interval_ms(self) -> int:
        """How often committed offsets are checked for expiry."""
        return self.whole("offsets.retention.check.interval.ms")

    @property
    def offset_metadata_max_bytes(self) -> int:
        """The largest metadata string of a committed offset."""
        return self.whole("offset.metadata.max.bytes")

    @property
    def transaction_max_timeout_ms(self) -> int:
        """The longest transaction time-out that a producer may use."""
        return self.whole("transaction.max.timeout.ms")

    @property
    def transactional_id_expiration_ms(self) -> int:
        """How long an unused transactional id is kept."""
        return self.whole("transactional.id.expiration.ms")

    @property
    def abort_timed_out_interval_ms(self) -> int:
        """How often timed-out transactions are looked for."""
        return self.whole("transaction.abort.timed.out.transaction.cleanup.interval.ms")

    @property
    def remove_expired_ids_interval_ms(self) -> int:
        """How often expired transactional ids are looked for."""
        return self.whole("transaction.remove.expired.transaction.cleanup.interval.ms")

    @property
    def producer_id_expiration_ms(self) -> int:
        """How long the state of an idle idempotent producer is kept."""
        return self.whole("producer.id.expiration.ms")

    @property
    def socket_request_max_bytes(self) -> int:
        """The largest request."""
        return self.whole("socket.request.max.bytes")

    @property
    def fetch_max_bytes(self) -> int:
        """The most that one fetch response contains, beyond its first batch."""
        return self.whole("fetch.max.bytes")

    @property
    def fetch_session_slots(self) -> int:
        """How many incremental fetch sessions are kept."""
        return self.whole("max.incremental.fetch.session.cache.slots")

    @property
    def connections_max_idle_ms(self) -> int:
        """After how long an idle connection is closed; negative: never."""
        return self.whole("connections.max.idle.ms")

    @property
    def max_connections(self) -> int:
        """How many connections may be open at once."""
        return self.whole("max.connections")

    @property
    def max_connections_per_ip(self) -> int:
        """How many connections one address may have open at once."""
        return self.whole("max.connections.per.ip")

    @property
    def retention_check_interval_ms(self) -> int:
        """How often retention looks for what has expired."""
        return self.whole("log.retention.check.interval.ms")

    @property
    def cleaner_backoff_ms(self) -> int:
        """How long key compaction pauses when it found nothing to do."""
        return self.whole("log.cleaner.backoff.ms")

    @property
    def max_request_partitions(self) -> int:
        """How many partitions one DescribeTopicPartitions answer holds at most."""
        return self.whole("max.request.partition.size.limit")


class LiveSettings:
    """The current settings of every virtual cluster. Replaced when dynamic configuration changes."""

    __slots__ = ("_clusters", "start")

    def __init__(self, start: BrokerSettings | None = None) -> None:
        self.start = start if start is not None else BrokerSettings()
        """Set at start; clusters without dynamic settings see exactly this."""
        self._clusters: dict[int, BrokerSettings] = {}

    def of(self, cluster_id: int) -> BrokerSettings:
        """The settings of a virtual cluster."""
        return self._clusters.get(cluster_id, self.start)

    def preview(
        self, cluster_id: int, *, cluster_wide: Mapping[str, str] | None = None,
        this_broker: Mapping[str, str] | None = None,
    ) -> BrokerSettings:  # fmt: skip
        """What a cluster would see with other dynamic settings; raise `InvalidRequest` for a contradiction."""
        now = self.of(cluster_id)
        settings = BrokerSettings(
            static=self.start.static,
            cluster_wide=now.cluster_wide if cluster_wide is None else MappingProxyType(dict(cluster_wide)),
            this_broker=now.this_broker if this_broker is None else MappingProxyType(dict(this_broker)),
        )
        settings._consistent(is_altered=True)
        return settings

    def forget(self, cluster_id: int) -> None:
        """Drop the settings of a deleted cluster."""
        self._clusters.pop(cluster_id, None)

    def replace(self, cluster_id: int, settings: BrokerSettings) -> None:
        """Put a cluster's new settings in force."""
        self._clusters[cluster_id] = settings
