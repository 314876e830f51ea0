"""Configuration as DescribeConfigs shows it: every key of a resource, its value, and where that comes from. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from penstock.base.config_values import ConfigKey, ConfigSource, ConfigType
from penstock.base.dataclasses import dataclass, replace
from penstock.base.settings import BrokerSettings
from penstock.log import topic_configs
from penstock.log.brokers import Broker


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
    synonyms = given(names, names[0], settings) if names else ()
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


def given(names: Sequence[str], asked: str, settings: BrokerSettings) -> tuple[Synonym, ...]:
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
    for key in settings.table.keys.values():
        values = given(_UNITS.get(key.name, (key.name,)), key.name, settings)
        entries.append(
            Entry(
                name=key.name, value=settings.text(key.name), type=key.type, doc=key.doc, synonyms=values,
                source=values[0].source if values else ConfigSource.DEFAULT, read_only=not key.dynamic,
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
    source, keys = ConfigSource.DYNAMIC_DEFAULT_BROKER, settings.table.keys
    return [
        Entry(
            name=name, value=text, source=source, type=keys[name].type, doc=keys[name].doc,
            synonyms=(Synonym(name, text, source),),
        )
        for name, text in sorted(settings.cluster_wide.items())
    ]  # fmt: skip


def own_or(
    behind: tuple[Synonym, ...], key: ConfigKey, overrides: Mapping[str, str], own: ConfigSource, *, default: str | None
) -> Entry:
    """A key of a resource that is no topic; `behind`: what its default comes from."""
    synonyms = (Synonym(key.name, overrides[key.name], own), *behind) if key.name in overrides else behind
    return Entry(
        name=key.name,
        value=overrides.get(key.name, default),
        source=synonyms[0].source if synonyms else ConfigSource.DEFAULT,
        type=key.type,
        synonyms=synonyms,
        doc=key.doc,
    )
