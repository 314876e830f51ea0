"""Configuration of groups and of client metrics subscriptions: Kafka's keys and their valid values. Pure.

Patterns that select clients are RE2 regular expressions, which match in linear time: users who may define subscriptions
must not be able to block an agent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, cast

from penstock.base.errors import InvalidRequest
from penstock.base.later import later
from penstock.log.config_values import ConfigKey, ConfigType, ConfigValue, Unreadable, table, unknown
from penstock.log.refusals import Refused
from penstock.log.setting_table import SETTINGS
from penstock.log.settings import BrokerSettings
from penstock.wire.error_codes import ErrorCode

if TYPE_CHECKING:
    import re2  # type: ignore[import-untyped]
else:
    re2 = later("re2")

_PATTERN_MAX_BYTES = 1 << 18
"""Bounds the memory of a compiled pattern."""
MATCHES_MAX = 20
"""The most patterns of a subscription. There are six client attributes to match."""
MATCHED_MAX_CHARS = 512
"""Longer values match nothing: clients choose them, and matching time grows with pattern and value."""
_DURATION = r"by_duration:P(?=[\dT])(\d+D)?(T(?=\d)(\d+H)?(\d+M)?(\d+(\.\d+)?S)?)?"
_MATCHABLE = frozenset(
    {
        "client_id", "client_instance_id", "client_software_name", "client_software_version", "client_source_address",
        "client_source_port",
    }
)  # fmt: skip

STREAMS_ASSIGNORS = ("sticky",)
DEAD_LETTER_TOPIC = "errors.deadletterqueue.topic.name"


def _offset_reset(value: ConfigValue) -> str | None:
    if value in ("latest", "earliest") or re.fullmatch(_DURATION, str(value)):
        return None
    return "Must be latest, earliest or by_duration:PnDTnHnMnS"


def _number(name: str, default: int, minimum: int, doc: str) -> ConfigKey:
    return ConfigKey(name=name, type=ConfigType.INT, default=str(default), minimum=minimum, doc=doc)


def _offloading(kind: str) -> ConfigKey:
    return ConfigKey(
        name=f"{kind}.assignor.offload.enable", type=ConfigType.BOOLEAN, default="true", acted_on=False, listed=False,
        doc=f"Whether a thread of its own computes assignments of a {kind} group.",
    )  # fmt: skip


GROUP_KEYS: Mapping[str, ConfigKey] = table(
    sorted(
        (
            _number("consumer.session.timeout.ms", 45_000, 1, "Session time-out of a consumer group's members."),
            _number("consumer.heartbeat.interval.ms", 5_000, 1, "Heartbeat interval of a consumer group's members."),
            _number("consumer.assignment.interval.ms", 1_000, 0, "Least time between two consumer assignments."),
            _number("share.session.timeout.ms", 45_000, 1, "Session time-out of a share group's members."),
            _number("share.heartbeat.interval.ms", 5_000, 1, "Heartbeat interval of a share group's members."),
            _number("share.record.lock.duration.ms", 30_000, 1_000, "How long a share group's record stays acquired."),
            _number("share.delivery.count.limit", 5, 2, "How often a share group's record is delivered at most."),
            _number("share.partition.max.record.locks", 2_000, 100, "How many records of a partition may be acquired."),
            _number("share.assignment.interval.ms", 1_000, 0, "Least time between two share assignments."),
            _number("streams.session.timeout.ms", 45_000, 1, "Session time-out of a streams group's members."),
            _number("streams.heartbeat.interval.ms", 5_000, 1, "Heartbeat interval of a streams group's members."),
            _number("streams.num.standby.replicas", 0, 0, "Standby tasks per task of a streams group."),
            _number("streams.initial.rebalance.delay.ms", 3_000, 0, "How long a new streams group waits for members."),
            _number("streams.assignment.interval.ms", 1_000, 0, "Least time between two streams assignments."),
            ConfigKey(
                name="streams.rack.aware.assignment.tags", type=ConfigType.LIST, default="",
                doc="Client tags that members of a streams group must have.",
            ),
            ConfigKey(
                name="streams.assignor.name", type=ConfigType.STRING, default="sticky",
                doc="The assignor of a streams group.",
            ),
            ConfigKey(
                name="share.auto.offset.reset", type=ConfigType.STRING, default="latest", check=_offset_reset,
                doc="Where a share group starts in a partition it reads for the first time.",
            ),
            ConfigKey(
                name="share.isolation.level", type=ConfigType.STRING, default="read_uncommitted",
                choices=("read_committed", "read_uncommitted"), doc="Which records a share group is shown.",
            ),
            ConfigKey(
                name="share.renew.acknowledge.enable", type=ConfigType.BOOLEAN, default="true",
                doc="Whether a share group's members may prolong the acquisition of a record.",
            ),
            ConfigKey(
                name=DEAD_LETTER_TOPIC, type=ConfigType.STRING, default="",
                doc="The topic that is told of records that a share group gave up.",
            ),
            ConfigKey(
                name="errors.deadletterqueue.copy.record.enable", type=ConfigType.BOOLEAN, default="false",
                doc="Whether the dead letter queue gets the record's data as well.",
            ),
            # Kafka 4.4 tells members the settings of warm-up tasks, but assigns none.
            ConfigKey(
                name="streams.task.offset.interval.ms", type=ConfigType.INT, default="60000", minimum=15_000,
                listed=False, doc="How often a streams group's members tell how far the state of their tasks is.",
            ),
            ConfigKey(
                name="streams.acceptable.recovery.lag", type=ConfigType.LONG, default="10000", minimum=0, listed=False,
                doc="How far behind the state of a task may be at whoever is given it.",
            ),
            ConfigKey(
                name="streams.num.warmup.replicas", type=ConfigType.INT, default="2", minimum=0, maximum=20,
                acted_on=False, listed=False, doc="Warm-up tasks of a streams group.",
            ),
            _offloading("consumer"), _offloading("share"), _offloading("streams"),
        ),
        key=lambda key: key.name,
    )
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


def check_group(overrides: Mapping[str, str], settings: BrokerSettings) -> None:
    """Raise `Refused` unless a group may have these overrides, within the bounds that the broker sets."""
    for name, text in overrides.items():
        key = GROUP_KEYS.get(name)
        try:
            if key is None:
                raise unknown(name, GROUP_KEYS)
            _check_limits(name, key.parse(text), settings)
            tags = [tag.strip() for tag in text.split(",")] if name == "streams.rack.aware.assignment.tags" else []
            if len(set(tags)) < len(tags):
                raise InvalidRequest(f"{name} must not contain duplicate tag keys.")
        except InvalidRequest as error:
            raise Refused(ErrorCode.INVALID_CONFIG, str(error)) from error
    for kind in ("consumer", "share", "streams"):
        beat, session = f"{kind}.heartbeat.interval.ms", f"{kind}.session.timeout.ms"
        values = [int(overrides.get(name) or settings.whole(f"group.{name}")) for name in (beat, session)]
        if (beat in overrides or session in overrides) and values[0] >= values[1]:
            raise Refused(ErrorCode.INVALID_CONFIG, f"{session} must be greater than {beat}")
    if overrides.get(DEAD_LETTER_TOPIC, "").strip().startswith("__"):
        raise Refused(ErrorCode.INVALID_CONFIG, f"{DEAD_LETTER_TOPIC}: DLQ topic name must not start with '__'")


def _limits(name: str) -> tuple[str, str]:
    """The broker settings that bound a key of groups, if there are any."""
    kind, _, rest = name.partition(".")
    return f"group.{kind}.min.{rest}", f"group.{kind}.max.{rest.removeprefix('num.')}"


Bounds = Mapping[str, tuple[int, int]]
"""Keys of groups, with the effective minimum and maximum of each."""


def bounds_of(kind: str, settings: BrokerSettings) -> Bounds:
    """The bounds that the broker sets for the keys of a kind of group."""
    bounds = {}
    for name in GROUP_KEYS:
        least, most = _limits(name)
        if name.startswith(f"{kind}.") and most in SETTINGS:
            bounds[name] = settings.whole(least) if least in SETTINGS else 0, settings.whole(most)
    return bounds


def assignment_interval_ms(kind: str, settings: BrokerSettings) -> int:
    """The minimum interval between two assignments of a group; a dynamic setting is clamped to the bounds."""
    least, most = _limits(f"{kind}.assignment.interval.ms")
    value = settings.whole(f"group.{kind}.assignment.interval.ms")
    return min(max(value, settings.whole(least)), settings.whole(most))


def whole_of(overrides: Mapping[str, str], name: str, otherwise: int, bounds: Bounds) -> int:
    """A number of the group's configuration, clamped to today's bounds: it may have been set when they were wider."""
    text = overrides.get(name)
    if text is None:
        return otherwise
    value = int(text)
    least, most = bounds.get(name, (value, value))
    return min(max(value, least), most)


def _check_limits(name: str, value: ConfigValue, settings: BrokerSettings) -> None:
    least, most = _limits(name)
    if name == "streams.assignor.name" and value not in STREAMS_ASSIGNORS:
        raise InvalidRequest(
            f"{name} '{value}' is not a registered task assignor. Registered assignors are: {list(STREAMS_ASSIGNORS)}."
        )
    if not isinstance(value, int) or most not in SETTINGS:
        return
    if least in SETTINGS and value < settings.whole(least):
        raise InvalidRequest(f"{name} must be greater than or equal to {least}")
    if value > settings.whole(most):
        raise InvalidRequest(f"{name} must be less than or equal to {most}")


def check_client_metrics(overrides: Mapping[str, str]) -> None:
    """Raise `Refused` unless a client metrics subscription may have these overrides."""
    for name, text in overrides.items():
        key = CLIENT_METRICS_KEYS.get(name)
        try:
            if key is None:
                raise unknown(name, CLIENT_METRICS_KEYS)
            value = key.parse(text)
        except InvalidRequest as error:
            # Kafka checks the bounds of the interval apart from the other values, with another code.
            of_request = key is None or (key.maximum is not None and not isinstance(error, Unreadable))
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
