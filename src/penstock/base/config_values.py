"""Configuration keys and values: types, ranges and error messages, for every kind of Kafka configuration.

Kafka carries configuration as text. A `ConfigKey` says how one key's text is parsed, which texts are invalid and what
the key means; topics, brokers, groups and client metrics are tables of such keys. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from enum import IntEnum
from typing import TYPE_CHECKING

from penstock.base.dataclasses import dataclass
from penstock.base.errors import InvalidRequest
from penstock.base.lazy import lazy_import

if TYPE_CHECKING:
    import difflib
else:  # Slow to import, and rarely needed.
    difflib = lazy_import("difflib")

INT_MAX = 2**31 - 1
LONG_MAX = 2**63 - 1

ConfigValue = bool | str | int | float | tuple[str, ...] | None


class ConfigType(IntEnum):
    """Kafka's configuration types, by their numbers in DescribeConfigs."""

    UNKNOWN = 0
    BOOLEAN = 1
    STRING = 2
    INT = 3
    SHORT = 4
    LONG = 5
    DOUBLE = 6
    LIST = 7
    CLASS = 8
    PASSWORD = 9


BOOLEAN, DOUBLE, INT, LIST, LONG, STRING = (
    ConfigType.BOOLEAN, ConfigType.DOUBLE, ConfigType.INT, ConfigType.LIST, ConfigType.LONG, ConfigType.STRING,
)  # fmt: skip


class ConfigSource(IntEnum):
    """Where a value comes from, by Kafka's numbers in DescribeConfigs."""

    UNKNOWN = 0
    TOPIC = 1
    DYNAMIC_BROKER = 2
    DYNAMIC_DEFAULT_BROKER = 3
    STATIC_BROKER = 4
    DEFAULT = 5
    BROKER_LOGGER = 6
    CLIENT_METRICS = 7
    GROUP = 8


class ConfigResource(IntEnum):
    """The kinds of resources that have a configuration, by Kafka's numbers."""

    UNKNOWN = 0
    TOPIC = 2
    BROKER = 4
    BROKER_LOGGER = 8
    CLIENT_METRICS = 16
    GROUP = 32


_LIMITS = {ConfigType.SHORT: 2**15, ConfigType.INT: 2**31, ConfigType.LONG: 2**63}


class UnparsableValue(InvalidRequest):
    """A text is no value of its key's type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigKey:
    """One key: its name, type, default and meaning."""

    name: str
    type: ConfigType
    default: str | None
    doc: str
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    """The allowed words of a STRING or a LIST; empty: any."""
    check: Callable[[ConfigValue], str | None] | None = None
    """A check beyond `minimum`, `maximum` and `choices`: what is wrong with a value, or None."""
    acted_on: bool = True
    """False for a key that is stored and shown because tools set it, but has no effect here."""
    listed: bool = True
    """False for a key that is internal in Kafka: it is shown only where it was set."""
    dynamic: bool = False
    """Whether a broker-wide setting can be altered at run time. Most are fixed at start, as in Kafka."""

    def parse(self, text: str | None) -> ConfigValue:
        """Parse a text; raise `InvalidRequest` where Kafka would refuse it."""
        if text is None:
            if self.default is None:
                return None
            raise InvalidRequest(f"Invalid value null for configuration {self.name}")
        value = self._typed(text)
        complaint = self._complaint(value)
        if complaint is not None:
            raise InvalidRequest(f"Invalid value {text} for configuration {self.name}: {complaint}")
        return value

    def _typed(self, text: str) -> ConfigValue:
        text = text.strip()
        match self.type:
            case ConfigType.BOOLEAN:
                if text.lower() not in ("true", "false"):
                    raise self._unparsable(text, "Expected value to be either true or false")
                return text.lower() == "true"
            case ConfigType.INT | ConfigType.LONG | ConfigType.SHORT:
                return self._integer(text)
            case ConfigType.DOUBLE:
                try:
                    return float(text)
                except ValueError:
                    raise self._unparsable(text, "Not a number of type DOUBLE") from None
            case ConfigType.LIST:
                # Kafka ignores repeated words since KIP-1161.
                return tuple(dict.fromkeys(part.strip() for part in text.split(","))) if text else ()
            case _:
                return text

    def _integer(self, text: str) -> int:
        limit = _LIMITS[self.type]
        # int() would also accept underscores and digits of other scripts.
        if text.isascii() and text.lstrip("+-").isdecimal():
            try:
                value = int(text)
            except ValueError:
                pass
            else:
                if -limit <= value < limit:
                    return value
        raise self._unparsable(text, f"Not a number of type {self.type.name}")

    def _unparsable(self, text: str, complaint: str) -> UnparsableValue:
        return UnparsableValue(f"Invalid value {text} for configuration {self.name}: {complaint}")

    def _complaint(self, value: ConfigValue) -> str | None:
        if isinstance(value, float) and math.isnan(value):
            return "Value must be a number"
        if isinstance(value, int | float) and not isinstance(value, bool):
            if self.minimum is not None and value < self.minimum:
                return f"Value must be at least {self.minimum}"
            if self.maximum is not None and value > self.maximum:
                return f"Value must be no more than {self.maximum}"
        if isinstance(value, tuple) and "" in value:
            return "Values must not be empty"
        if self.choices:
            words = value if isinstance(value, tuple) else (value,)
            if any(word not in self.choices for word in words):
                return f"String must be one of: {', '.join(self.choices)}"
        return None if self.check is None else self.check(value)


def table(keys: Iterable[ConfigKey]) -> dict[str, ConfigKey]:
    """Keys by name, in the given order."""
    return {key.name: key for key in keys}


def unknown_config(name: str, known: Iterable[str]) -> InvalidRequest:
    """The error for an unknown name, suggesting the most similar known one."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    hint = f"; did you mean {near[0]}?" if near else ""
    return InvalidRequest(f"Unknown configuration {name}{hint}")
