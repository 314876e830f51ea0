"""Configuration of groups: Kafka's keys, and the broker's settings that bound their values. Pure. How it is checked and
shown: `config_kind.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from penstock.base.config_values import ConfigKey, ConfigType, ConfigValue, table
from penstock.base.settings import BrokerSettings

CONFIGURABLE_KINDS = ("consumer", "share", "streams")
"""Groups that have configuration."""
STREAMS_ASSIGNORS = ("sticky",)
DEAD_LETTER_TOPIC = "errors.deadletterqueue.topic.name"
_DURATION = r"by_duration:P(?=[\dT])(\d+D)?(T(?=\d)(\d+H)?(\d+M)?(\d+(\.\d+)?S)?)?"


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


def limits_of(name: str) -> tuple[str, str]:
    """The broker settings that bound a key of groups, if there are any."""
    kind, _, rest = name.partition(".")
    return f"group.{kind}.min.{rest}", f"group.{kind}.max.{rest.removeprefix('num.')}"


Bounds = Mapping[str, tuple[int, int]]
"""Keys of groups, with the effective minimum and maximum of each."""


def bounds_of(kind: str, settings: BrokerSettings) -> Bounds:
    """The bounds that the broker sets for the keys of a kind of group."""
    bounds, keys = {}, settings.table.keys
    for name in GROUP_KEYS:
        least, most = limits_of(name)
        if name.startswith(f"{kind}.") and most in keys:
            bounds[name] = settings.whole(least) if least in keys else 0, settings.whole(most)
    return bounds


def assignment_interval_ms(kind: str, settings: BrokerSettings) -> int:
    """The minimum interval between two assignments of a group; a dynamic setting is clamped to the bounds."""
    least, most = limits_of(f"{kind}.assignment.interval.ms")
    value = settings.whole(f"group.{kind}.assignment.interval.ms")
    return min(max(value, settings.whole(least)), settings.whole(most))


def int_config(overrides: Mapping[str, str], name: str, otherwise: int, bounds: Bounds) -> int:
    """A number of the group's configuration, clamped to today's bounds: it may have been set when they were wider."""
    text = overrides.get(name)
    if text is None:
        return otherwise
    value = int(text)
    least, most = bounds.get(name, (value, value))
    return min(max(value, least), most)
