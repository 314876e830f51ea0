"""Configuration of groups as clients change it and are shown it. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from penstock.base.config_values import ConfigKey, ConfigSource, ConfigValue, unknown_config
from penstock.base.errors import InvalidRequest
from penstock.base.settings import BrokerSettings
from penstock.groups.configs import CONFIGURABLE_KINDS, DEAD_LETTER_TOPIC, GROUP_KEYS, STREAMS_ASSIGNORS, limits_of
from penstock.log.admin.config_entries import Entry, Synonym, given, own_or
from penstock.log.admin.config_kinds import ConfigKind
from penstock.log.refusals import Refused
from penstock.wire.error_codes import ErrorCode

_OWN_NAME_ONLY = frozenset(
    {
        "share.auto.offset.reset", "share.isolation.level", "share.renew.acknowledge.enable",
        "errors.deadletterqueue.topic.name", "errors.deadletterqueue.copy.record.enable",
    }
)  # fmt: skip
"""Keys of groups whose default does not come from a broker setting of Kafka."""


def check_group(overrides: Mapping[str, str], settings: BrokerSettings) -> None:
    """Raise `Refused` unless a group may have these overrides, within the bounds that the broker sets."""
    for name, text in overrides.items():
        key = GROUP_KEYS.get(name)
        try:
            if key is None:
                raise unknown_config(name, GROUP_KEYS)
            _check_limits(name, key.parse(text), settings)
            tags = [tag.strip() for tag in text.split(",")] if name == "streams.rack.aware.assignment.tags" else []
            if len(set(tags)) < len(tags):
                raise InvalidRequest(f"{name} must not contain duplicate tag keys.")
        except InvalidRequest as error:
            raise Refused(ErrorCode.INVALID_CONFIG, str(error)) from error
    for kind in CONFIGURABLE_KINDS:
        beat, session = f"{kind}.heartbeat.interval.ms", f"{kind}.session.timeout.ms"
        values = [int(overrides.get(name) or settings.whole(f"group.{name}")) for name in (beat, session)]
        if (beat in overrides or session in overrides) and values[0] >= values[1]:
            raise Refused(ErrorCode.INVALID_CONFIG, f"{session} must be greater than {beat}")
    if overrides.get(DEAD_LETTER_TOPIC, "").strip().startswith("__"):
        raise Refused(ErrorCode.INVALID_CONFIG, f"{DEAD_LETTER_TOPIC}: DLQ topic name must not start with '__'")


def _check_limits(name: str, value: ConfigValue, settings: BrokerSettings) -> None:
    least, most = limits_of(name)
    if name == "streams.assignor.name" and value not in STREAMS_ASSIGNORS:
        raise InvalidRequest(
            f"{name} '{value}' is not a registered task assignor. Registered assignors are: {list(STREAMS_ASSIGNORS)}."
        )
    if not isinstance(value, int) or most not in settings.table.keys:
        return
    if least in settings.table.keys and value < settings.whole(least):
        raise InvalidRequest(f"{name} must be greater than or equal to {least}")
    if value > settings.whole(most):
        raise InvalidRequest(f"{name} must be less than or equal to {most}")


def group_entries(overrides: Mapping[str, str], settings: BrokerSettings) -> list[Entry]:
    """All keys of a group; a key without a value of the group's own has the broker's, and its source."""
    return [
        own_or(_behind(key, settings), key, overrides, ConfigSource.GROUP, default=_default(key, settings))
        for key in GROUP_KEYS.values()
        if key.listed or key.name in overrides
    ]


def _default(key: ConfigKey, settings: BrokerSettings) -> str | None:
    name = f"group.{key.name}"
    return settings.text(name) if name in settings.table.keys else key.default


def _behind(key: ConfigKey, settings: BrokerSettings) -> tuple[Synonym, ...]:
    """The values of the broker setting that is the default of a group's key."""
    name = f"group.{key.name}"
    if name in settings.table.keys:
        return given((name,), name, settings)
    if key.name == "streams.assignor.name":
        name = "group.streams.assignors"
    return (Synonym(key.name if key.name in _OWN_NAME_ONLY else name, key.default, ConfigSource.DEFAULT),)


CONFIG_KIND = ConfigKind(keys=GROUP_KEYS, check=check_group, entries=group_entries)
