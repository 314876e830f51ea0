"""Configuration as DescribeConfigs shows it: every key of a resource, its value, and where that comes from. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from penstock.base.dataclasses import dataclass, replace
from penstock.log import topic_configs
from penstock.log.brokers import Broker
from penstock.log.config_values import ConfigKey, ConfigSource, ConfigType
from penstock.log.other_configs import CLIENT_METRICS_KEYS, GROUP_KEYS
from penstock.log.setting_table import DYNAMIC, SETTINGS
from penstock.log.settings import BrokerSettings


@dataclass(frozen=True, slots=True)
class Synonym:
    """One source of a value, and the value it has there."""

    name: str
    value: str | None
    source: ConfigSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One key of a resource."""

    name: str
    value: str | None
    source: ConfigSource
    type: ConfigType
    synonyms: tuple[Synonym, ...] = ()
    """In order of precedence: the first one is the source of the value."""
    read_only: bool = False
    sensitive: bool = False
    doc: str | None = None


_OF_THE_DEPLOYMENT = frozenset({"super.users"})
"""Settings whose values tenants must not see."""

_UNITS = {
    name: tuple(synonym.setting for synonym in synonyms)
    for synonyms in topic_configs.SYNONYMS.values()
    for name in (synonym.setting for synonym in synonyms)
}
"""For each setting, those for the same thing in other units, itself included."""

_OWN_NAME_ONLY = frozenset(
    {
        "share.auto.offset.reset", "share.isolation.level", "share.renew.acknowledge.enable",
        "errors.deadletterqueue.topic.name", "errors.deadletterqueue.copy.record.enable",
    }
)  # fmt: skip
"""Keys of groups whose default does not come from a broker setting of Kafka."""


def topic_entries(overrides: Mapping[str, str], settings: BrokerSettings) -> list[Entry]:
    """All keys of a topic with these overrides."""
    return [_topic_entry(key, overrides, settings) for key in topic_configs.TOPIC_KEYS.values()]


def new_topic_entries(overrides: Mapping[str, str], settings: BrokerSettings) -> list[Entry]:
    """The same for a topic being created, where a default in another unit counts as set, as in Kafka."""
    return [
        replace(entry, source=_first_source(entry.name, settings)) if entry.source is ConfigSource.DEFAULT else entry
        for entry in topic_entries(overrides, settings)
    ]


def _first_source(name: str, settings: BrokerSettings) -> ConfigSource:
    synonyms = topic_configs.SYNONYMS.get(name, ())
    sources = [value.source for synonym in synonyms for value in settings.given(synonym.setting)]
    return min(sources, default=ConfigSource.DEFAULT)


def _topic_entry(key: ConfigKey, overrides: Mapping[str, str], settings: BrokerSettings) -> Entry:
    names = [synonym.setting for synonym in topic_configs.SYNONYMS.get(key.name, ())]
    synonyms = _given(names, names[0], settings) if names else ()
    if key.name in overrides:
        synonyms = (Synonym(key.name, overrides[key.name], ConfigSource.TOPIC), *synonyms)
    return Entry(
        name=key.name,
        value=overrides.get(key.name, topic_configs.broker_default(key.name, settings)),
        source=synonyms[0].source if synonyms else ConfigSource.DEFAULT,
        type=key.type,
        synonyms=synonyms,
        doc=key.doc,
    )


def _given(names: Sequence[str], asked: str, settings: BrokerSettings) -> tuple[Synonym, ...]:
    """The values of settings for the same thing in different units: any that was set comes before any default.

    Kafka leaves out whatever precedes the first value under the requested name.
    """
    found = [Synonym(name, value.text, value.source) for name in names for value in settings.given(name)]
    found.sort(key=lambda synonym: synonym.source)
    return tuple(itertools.dropwhile(lambda synonym: synonym.name != asked, found))


def broker_entries(broker: Broker, settings: BrokerSettings) -> list[Entry]:
    """All settings of one broker."""
    entries = [
        _fact("broker.id", str(broker.node_id), ConfigType.INT, "The broker's id."),
        _fact("broker.rack", broker.rack, ConfigType.STRING, "The zone the broker is in."),
        _fact("node.id", str(broker.node_id), ConfigType.INT, "The broker's id, by its newer name."),
    ]
    for key in SETTINGS.values():
        given = _given(_UNITS.get(key.name, (key.name,)), key.name, settings)
        entries.append(
            Entry(
                name=key.name, value=settings.text(key.name), type=key.type, doc=key.doc, synonyms=given,
                source=given[0].source if given else ConfigSource.DEFAULT, read_only=key.name not in DYNAMIC,
            )
        )  # fmt: skip
    return sorted(entries, key=lambda entry: entry.name)


def without_secrets(entries: Sequence[Entry]) -> list[Entry]:
    """The same for a tenant, without the values that only operators of the deployment may see."""
    return [
        replace(entry, value=None, synonyms=(), sensitive=True) if entry.name in _OF_THE_DEPLOYMENT else entry
        for entry in entries
    ]


def _fact(name: str, value: str | None, kind: ConfigType, doc: str) -> Entry:
    source = ConfigSource.DEFAULT if value is None else ConfigSource.STATIC_BROKER
    synonyms = (Synonym(name, value, source),) if value is not None else ()
    return Entry(name=name, value=value, source=source, type=kind, synonyms=synonyms, read_only=True, doc=doc)


def cluster_wide_entries(settings: BrokerSettings) -> list[Entry]:
    """The dynamic settings of all brokers and nothing else, as Kafka answers for the default broker resource."""
    source = ConfigSource.DYNAMIC_DEFAULT_BROKER
    return [
        Entry(
            name=name, value=text, source=source, type=SETTINGS[name].type, doc=SETTINGS[name].doc,
            synonyms=(Synonym(name, text, source),),
        )
        for name, text in sorted(settings.cluster_wide.items())
    ]  # fmt: skip


def group_entries(overrides: Mapping[str, str], settings: BrokerSettings) -> list[Entry]:
    """All keys of a group; a key without a value of the group's own has the broker's, and its source."""
    return [
        _own_or(_behind(key, settings), key, overrides, ConfigSource.GROUP, default=_default(key, settings))
        for key in GROUP_KEYS.values()
        if key.listed or key.name in overrides
    ]


def _default(key: ConfigKey, settings: BrokerSettings) -> str | None:
    name = f"group.{key.name}"
    return settings.text(name) if name in SETTINGS else key.default


def _behind(key: ConfigKey, settings: BrokerSettings) -> tuple[Synonym, ...]:
    """The values of the broker setting that is the default of a group's key."""
    name = f"group.{key.name}"
    if name in SETTINGS:
        return _given((name,), name, settings)
    if key.name == "streams.assignor.name":
        name = "group.streams.assignors"
    return (Synonym(key.name if key.name in _OWN_NAME_ONLY else name, key.default, ConfigSource.DEFAULT),)


def client_metrics_entries(overrides: Mapping[str, str]) -> list[Entry]:
    """All keys of a client metrics subscription."""
    return [
        _own_or((), key, overrides, ConfigSource.CLIENT_METRICS, default=key.default)
        for key in CLIENT_METRICS_KEYS.values()
    ]


def _own_or(
    behind: tuple[Synonym, ...], key: ConfigKey, overrides: Mapping[str, str], own: ConfigSource, *, default: str | None
) -> Entry:
    synonyms = (Synonym(key.name, overrides[key.name], own), *behind) if key.name in overrides else behind
    return Entry(
        name=key.name,
        value=overrides.get(key.name, default),
        source=synonyms[0].source if synonyms else ConfigSource.DEFAULT,
        type=key.type,
        synonyms=synonyms,
        doc=key.doc,
    )
