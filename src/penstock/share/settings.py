"""The effective settings of a share group: its own configuration, else the broker's, within the broker's bounds."""

from __future__ import annotations

import re
from collections.abc import Mapping

from penstock.base.config_values import BOOLEAN, INT, STRING, ConfigResource
from penstock.base.dataclasses import dataclass
from penstock.base.errors import InvalidRequest
from penstock.base.settings import BrokerSettings, declare, setting
from penstock.groups.settings import group_setting
from penstock.groups.share.service import ConfigOverrides
from penstock.share.model import Limits

_DURATION = (
    r"by_duration:P(?:(?P<days>\d+)D)?(?:T(?:(?P<hours>\d+)H)?(?:(?P<minutes>\d+)M)?(?:(?P<seconds>\d+(?:\.\d+)?)S)?)?"
)
_READ_COMMITTED = "read_committed"
MAX_KNOWN = 10_000
"""How many groups' settings are cached."""


def _check(settings: BrokerSettings) -> None:
    if settings.whole("group.share.max.share.sessions") < settings.whole("group.share.max.size"):
        raise InvalidRequest("group.share.max.share.sessions must not be less than group.share.max.size")


SETTINGS = declare(
    group_setting(
        "group.share.record.lock.duration.ms", 30_000, (1_000, 3_600_000), 15_000, 60_000,
        doc="How long a record is locked for the member of a share group that acquired it.",
    ),
    group_setting(
        "group.share.delivery.count.limit", 5, (2, 25), 2, 10,
        doc="How often a share group delivers a record before it gives it up.",
    ),
    group_setting(
        "group.share.partition.max.record.locks", 2_000, (100, 10_000), 100, 4_000,
        doc="How many records of a partition may be in flight in a share group.",
    ),
    setting(
        "group.share.max.share.sessions", INT, "2000", at_least=1,
        doc="The most share sessions at a time.",
    ),
    setting(
        "errors.deadletterqueue.topic.name.prefix", STRING, "dlq.", dynamic=True,
        doc="The prefix that names of share groups' dead letter queues must have. Empty: any name will do.",
    ),
    setting(
        "errors.deadletterqueue.auto.create.topics.enable", BOOLEAN, "false", dynamic=True,
        doc="Whether a dead letter queue that a share group names is created if it does not exist.",
    ),
    check=_check,
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareConfig:
    """The settings of one share group."""

    limits: Limits = Limits()
    read_committed: bool = False
    """`share.isolation.level`"""
    starts_earliest: bool = False
    """`share.auto.offset.reset` is `earliest`."""
    starts_before_ms: int | None = None
    """The duration of `share.auto.offset.reset=by_duration:...`."""
    dead_letter_topic: str = ""
    """`errors.deadletterqueue.topic.name`; empty: no dead letters are written."""
    copies_records: bool = False
    """`errors.deadletterqueue.copy.record.enable`"""


class ShareConfigs:
    """The settings of every share group, resolved once after each change."""

    def __init__(self, configs: ConfigOverrides, broker: BrokerSettings) -> None:
        self._configs, self._broker = configs, broker
        self._known: dict[tuple[int, str], tuple[Mapping[str, str], ShareConfig]] = {}
        self._default = share_config({}, broker)

    def of(self, cluster_id: int, group_id: str) -> ShareConfig:
        """The settings of a group, whether it exists or not."""
        overrides = self._configs.overrides(cluster_id, ConfigResource.GROUP, group_id)
        if not overrides:
            return self._default
        known = self._known.get((cluster_id, group_id))
        if known is None or known[0] is not overrides:
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()  # Most are of groups that are not used any more.
            # Overrides are replaced when they change, so the same object means unchanged settings.
            known = self._known[cluster_id, group_id] = overrides, share_config(overrides, self._broker)
        return known[1]


def share_config(overrides: Mapping[str, str], broker: BrokerSettings) -> ShareConfig:
    """The settings of a group with these overrides."""

    def number(name: str) -> int:
        value = int(overrides[f"share.{name}"]) if f"share.{name}" in overrides else broker.whole(f"group.share.{name}")
        return min(max(value, broker.whole(f"group.share.min.{name}")), broker.whole(f"group.share.max.{name}"))

    reset = overrides.get("share.auto.offset.reset", "latest")
    queue = overrides.get("errors.deadletterqueue.topic.name", "").strip()
    return ShareConfig(
        limits=Limits(
            max_deliveries=number("delivery.count.limit"),
            lock_ms=number("record.lock.duration.ms"),
            max_locks=number("partition.max.record.locks"),
            renewable=overrides.get("share.renew.acknowledge.enable", "true").lower() == "true",
            dead_letters=bool(queue),
        ),
        read_committed=overrides.get("share.isolation.level") == _READ_COMMITTED,
        starts_earliest=reset == "earliest",
        starts_before_ms=duration_ms(reset),
        dead_letter_topic=queue,
        copies_records=overrides.get("errors.deadletterqueue.copy.record.enable", "false").strip().lower() == "true",
    )


def duration_ms(reset: str) -> int | None:
    """The duration in milliseconds, if the reset policy is one."""
    found = re.fullmatch(_DURATION, reset)
    if found is None:
        return None
    days, hours, minutes, seconds = (float(found[part] or 0) for part in ("days", "hours", "minutes", "seconds"))
    return int((((days * 24 + hours) * 60 + minutes) * 60 + seconds) * 1000)
