"""Configuration of client metrics subscriptions: Kafka's keys and their valid values. Pure.

Patterns that select clients are RE2 regular expressions, which match in linear time: users who may define subscriptions
must not be able to block an agent.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, cast

from penstock.base.config_values import ConfigKey, ConfigSource, ConfigType, UnparsableValue, table, unknown_config
from penstock.base.errors import InvalidRequest
from penstock.base.lazy import lazy_import
from penstock.base.settings import BrokerSettings
from penstock.log.admin.config_entries import Entry, own_or
from penstock.log.admin.config_kinds import ConfigKind
from penstock.log.refusals import Refused
from penstock.wire.error_codes import ErrorCode

if TYPE_CHECKING:
    import re2  # type: ignore[import-untyped]
else:
    re2 = lazy_import("re2")

_PATTERN_MAX_BYTES = 1 << 18
"""Bounds the memory of a compiled pattern."""
MATCHES_MAX = 20
"""The most patterns of a subscription. There are six client attributes to match."""
MATCHED_MAX_CHARS = 512
"""Longer values match nothing: clients choose them, and matching time grows with pattern and value."""
_MATCHABLE = frozenset(
    {
        "client_id", "client_instance_id", "client_software_name", "client_software_version", "client_source_address",
        "client_source_port",
    }
)  # fmt: skip

CLIENT_METRICS_KEYS: Mapping[str, ConfigKey] = table(
    (
        ConfigKey(
            name="interval.ms", type=ConfigType.INT, default="300000", minimum=100, maximum=3_600_000,
            doc="How often clients push metrics.",
        ),
        ConfigKey(
            name="match", type=ConfigType.LIST, default="", doc="Which clients push, as property=pattern pairs."
        ),
        ConfigKey(
            name="metrics", type=ConfigType.LIST, default="", doc="Prefixes of the metrics to push; * for all."
        ),
    )
)  # fmt: skip


def check_client_metrics(overrides: Mapping[str, str], settings: BrokerSettings) -> None:
    """Raise `Refused` unless a client metrics subscription may have these overrides."""
    for name, text in overrides.items():
        key = CLIENT_METRICS_KEYS.get(name)
        try:
            if key is None:
                raise unknown_config(name, CLIENT_METRICS_KEYS)
            value = key.parse(text)
        except InvalidRequest as error:
            # Kafka checks the bounds of the interval apart from the other values, with another code.
            of_request = key is None or (key.maximum is not None and not isinstance(error, UnparsableValue))
            code = ErrorCode.INVALID_REQUEST if of_request else ErrorCode.INVALID_CONFIG
            raise Refused(code, str(error)) from error
        if name == "match":
            _check_match(cast("tuple[str, ...]", value))


def _check_match(pairs: tuple[str, ...]) -> None:
    if len(pairs) > MATCHES_MAX:
        raise Refused(ErrorCode.INVALID_CONFIG, f"A subscription may have {MATCHES_MAX} client matching patterns")
    for pair in pairs:
        name, separator, pattern = pair.partition("=")
        complaint = None
        if not separator or name.strip() not in _MATCHABLE:
            complaint = f"Illegal client matching pattern: {pair}"
        else:
            try:
                _compiled(pattern.strip())
            except re2.error:
                complaint = f"Illegal client matching pattern: {pair}"
        if complaint is not None:
            raise Refused(ErrorCode.INVALID_CONFIG, complaint)


def client_matches(pattern: str, value: str) -> bool:
    """Whether a pattern of a subscription matches a client attribute as a whole."""
    if len(value) > MATCHED_MAX_CHARS:
        return False
    try:
        return _compiled(pattern).fullmatch(value) is not None
    except re2.error:  # Stored by an earlier release, which accepted it.
        return False


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re2._Regexp:
    options = re2.Options()
    options.max_mem = _PATTERN_MAX_BYTES
    options.log_errors = False
    return re2.compile(pattern, options)


def client_metrics_entries(overrides: Mapping[str, str], settings: BrokerSettings) -> list[Entry]:
    """All keys of a client metrics subscription."""
    return [
        own_or((), key, overrides, ConfigSource.CLIENT_METRICS, default=key.default)
        for key in CLIENT_METRICS_KEYS.values()
    ]


CONFIG_KIND = ConfigKind(keys=CLIENT_METRICS_KEYS, check=check_client_metrics, entries=client_metrics_entries)
