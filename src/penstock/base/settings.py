"""Broker-wide Kafka settings: set at start with `--set NAME=VALUE`, some of them also by dynamic configuration.

Each feature declares its settings, with their types, defaults and meanings, as `SETTINGS` in its `settings.py`;
`agent/settings.py` joins them into the one table in which names are looked up; the reference page is generated from it.

A `BrokerSettings` is what one virtual cluster sees: the defaults, then what the process was started with, then dynamic
values, cluster-wide or of this broker. It is immutable; `LiveSettings` has the current one of each cluster.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import NamedTuple, cast

from penstock.base.config_values import ConfigKey, ConfigSource, ConfigType, ConfigValue, table, unknown_config
from penstock.base.dataclasses import dataclass, field
from penstock.base.errors import InvalidRequest


def setting(
    name: str, kind: ConfigType, default: str | None, doc: str, *, at_least: float | None = None,
    at_most: float | None = None, choices: tuple[str, ...] = (), acted_on: bool = True, dynamic: bool = False,
    check: Callable[[ConfigValue], str | None] | None = None,
) -> ConfigKey:  # fmt: skip
    """A row of a table."""
    return ConfigKey(
        name=name, type=kind, default=default, doc=doc, minimum=at_least, maximum=at_most, choices=choices,
        acted_on=acted_on, dynamic=dynamic, check=check,
    )  # fmt: skip


class BoundedSetting(NamedTuple):
    """A setting that lies between two others."""

    value: ConfigKey
    least: ConfigKey
    most: ConfigKey


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingTable:
    """The settings of one feature, or of all of them."""

    keys: Mapping[str, ConfigKey]
    """By name, in order."""
    bounded: tuple[BoundedSetting, ...] = ()
    checks: tuple[Callable[[BrokerSettings], None], ...] = ()
    """Each raises `InvalidRequest` for values that contradict each other."""

    def key(self, name: str) -> ConfigKey:
        """The setting of that name; raise `InvalidRequest`, suggesting the most similar one, if there is none."""
        found = self.keys.get(name)
        if found is None:
            raise unknown_config(name, self.keys)
        return found

    def check_dynamic(self, name: str, text: str | None) -> None:
        """Raise `InvalidRequest` unless the setting may be altered to this value at run time."""
        key = self.key(name)
        if not key.dynamic:
            raise InvalidRequest(f"Cannot update these configs dynamically: [{name}]")
        key.parse(text)

    def started_with(self, texts: Mapping[str, str]) -> BrokerSettings:
        """The settings of a process; raise `InvalidRequest` for an unknown name or a value that Kafka would refuse."""
        for name, text in texts.items():
            self.key(name).parse(text)
        settings = BrokerSettings(table=self, static=MappingProxyType(dict(texts)))
        settings.check()
        return settings


def declare(*rows: ConfigKey | BoundedSetting, check: Callable[[BrokerSettings], None] | None = None) -> SettingTable:
    """The settings of a feature, and what must be true of their values together."""
    keys: list[ConfigKey] = []
    for row in rows:
        keys += row if isinstance(row, BoundedSetting) else (row,)
    return SettingTable(
        keys=table(keys), bounded=tuple(row for row in rows if isinstance(row, BoundedSetting)),
        checks=() if check is None else (check,),
    )  # fmt: skip


def joined(*tables: SettingTable) -> SettingTable:
    """The settings of several features."""
    keys = sorted((key for part in tables for key in part.keys.values()), key=lambda key: key.name)
    return SettingTable(
        keys=table(keys), bounded=tuple(row for part in tables for row in part.bounded),
        checks=tuple(check for part in tables for check in part.checks),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class SettingValue:
    """One value of a setting, and its source."""

    text: str
    source: ConfigSource


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerSettings:
    """The settings one virtual cluster sees: three layers over the defaults, the last one wins."""

    table: SettingTable
    static: Mapping[str, str] = field(default_factory=dict)
    """Set at start."""
    cluster_wide: Mapping[str, str] = field(default_factory=dict)
    """Altered for all brokers of the cluster."""
    this_broker: Mapping[str, str] = field(default_factory=dict)
    """Altered for this broker."""
    values: Mapping[str, ConfigValue] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        values = {name: key.parse(self.text(name)) for name, key in self.table.keys.items()}
        object.__setattr__(self, "values", MappingProxyType(values))

    def check(self, *, is_altered: bool = False) -> None:
        """Raise `InvalidRequest` for a contradiction. Altered values are clamped to the current bounds."""
        for bounded in self.table.bounded:
            if not (is_altered and bounded.value.dynamic):
                self._check_bounds(bounded)
        for check in self.table.checks:
            check(self)

    def check_altered(self, names: Collection[str]) -> None:
        """Raise `InvalidRequest` if one of these settings, just altered, is out of bounds."""
        for bounded in self.table.bounded:
            if bounded.value.name in names:
                self._check_bounds(bounded)

    def _check_bounds(self, bounded: BoundedSetting) -> None:
        value, least, most = (key.name for key in bounded)
        if not self.whole(least) <= self.whole(value) <= self.whole(most):
            raise InvalidRequest(f"{value} must be between {least} and {most}")

    def given(self, name: str) -> list[SettingValue]:
        """Every value the setting has, the effective one first, its default last."""
        layers = (
            (self.this_broker, ConfigSource.DYNAMIC_BROKER),
            (self.cluster_wide, ConfigSource.DYNAMIC_DEFAULT_BROKER),
            (self.static, ConfigSource.STATIC_BROKER),
        )
        found = [SettingValue(layer[name], source) for layer, source in layers if name in layer]
        default = self.table.keys[name].default
        if default is not None:
            found.append(SettingValue(default, ConfigSource.DEFAULT))
        return found

    def text(self, name: str) -> str | None:
        """The effective text, or None for an unset setting without default."""
        for layer in (self.this_broker, self.cluster_wide, self.static):
            if name in layer:
                return layer[name]
        return self.table.keys[name].default

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


class LiveSettings:
    """The current settings of every virtual cluster. Replaced when dynamic configuration changes."""

    __slots__ = ("_clusters", "start")

    def __init__(self, start: BrokerSettings) -> None:
        self.start = start
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
            table=self.start.table,
            static=self.start.static,
            cluster_wide=now.cluster_wide if cluster_wide is None else MappingProxyType(dict(cluster_wide)),
            this_broker=now.this_broker if this_broker is None else MappingProxyType(dict(this_broker)),
        )
        settings.check(is_altered=True)
        return settings

    def forget(self, cluster_id: int) -> None:
        """Drop the settings of a deleted cluster."""
        self._clusters.pop(cluster_id, None)

    def replace(self, cluster_id: int, settings: BrokerSettings) -> None:
        """Put a cluster's new settings in force."""
        self._clusters[cluster_id] = settings
