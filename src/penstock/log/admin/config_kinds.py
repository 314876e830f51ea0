"""Kinds of resources whose configuration other features know: groups, client metrics subscriptions."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from penstock.base.config_values import ConfigKey
from penstock.base.dataclasses import dataclass
from penstock.base.settings import BrokerSettings
from penstock.log.admin.config_entries import Entry


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigKind:
    """What a feature says of the configuration of its resources."""

    keys: Mapping[str, ConfigKey]
    check: Callable[[Mapping[str, str], BrokerSettings], None]
    """Raises `Refused` unless a resource may have these overrides."""
    entries: Callable[[Mapping[str, str], BrokerSettings], list[Entry]]
    """All keys of a resource with these overrides."""
