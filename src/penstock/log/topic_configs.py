"""The configuration of topics: Kafka's keys, their defaults, and the broker settings that are their synonyms.

All 37 keys of Kafka 4.4 are accepted, validated and shown, because tools read them back and compare. Those with
`acted_on=False` describe files, replicas and tiers that do not exist here: they are stored as given. A topic's value is
its own override, else the broker-wide synonym, else Kafka's default. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import cast

from penstock.base.config_values import LONG_MAX, ConfigKey, ConfigType, ConfigValue, table, unknown_config
from penstock.base.dataclasses import dataclass
from penstock.base.errors import InvalidRequest
from penstock.base.settings import BrokerSettings
from penstock.log.model import TopicConfig
from penstock.log.settings import gzip_level

HOUR_MS = 3_600_000
MINUTE_MS = 60_000
DAY_MS = 24 * HOUR_MS
NEVER = str(LONG_MAX)

CODECS = ("uncompressed", "gzip", "snappy", "lz4", "zstd")
"""Values of `compression.type` by codec id; `producer` stores batches as sent."""

_THROTTLE = r"\d+:\d+"


def _throttled_replicas(value: ConfigValue) -> str | None:
    replicas = cast("tuple[str, ...]", value)
    if replicas == ("*",) or all(re.fullmatch(_THROTTLE, replica) for replica in replicas):
        return None
    return "Must be * or a list of partition:broker pairs"


def _no_tiers(value: ConfigValue) -> str | None:
    return "Tiered storage is not configured: the log lives in an object store already" if value else None


def _key(
    name: str, kind: ConfigType, default: str, doc: str, *, minimum: float | None = None, acted_on: bool = True
) -> ConfigKey:
    return ConfigKey(name=name, type=kind, default=default, doc=doc, minimum=minimum, acted_on=acted_on)


def _replicas_key(side: str) -> ConfigKey:
    return ConfigKey(
        name=f"{side}.replication.throttled.replicas", type=ConfigType.LIST, default="", check=_throttled_replicas,
        doc=f"Replicas whose replication is throttled on the {side}; kept only, nothing is replicated.",
        acted_on=False,
    )  # fmt: skip


_RETENTION = (
    ConfigKey(
        name="cleanup.policy", type=ConfigType.LIST, default="delete", choices=("compact", "delete"),
        doc="How old records leave the topic: `delete` by age and size, `compact` once a newer record has their key,"
        " both, or neither when empty.",
    ),
    _key(
        "retention.ms", ConfigType.LONG, str(7 * DAY_MS), minimum=-1,
        doc="How long records are kept under the delete policy, by their timestamps; -1 keeps them for ever.",
    ),
    _key(
        "retention.bytes", ConfigType.LONG, "-1",
        doc="How many bytes a partition keeps under the delete policy before its oldest leave; -1 sets no limit.",
    ),
    _key(
        "delete.retention.ms", ConfigType.LONG, str(DAY_MS), minimum=0,
        doc="How long a tombstone stays readable in a compacted topic after compaction first met it.",
    ),
    _key(
        "min.compaction.lag.ms", ConfigType.LONG, "0", minimum=0,
        doc="How long a record stays out of key compaction after it was written.",
    ),
    _key(
        "max.compaction.lag.ms", ConfigType.LONG, NEVER, minimum=1,
        doc="After how long a record is due for key compaction whatever the dirty ratio.",
    ),
    ConfigKey(
        name="min.cleanable.dirty.ratio", type=ConfigType.DOUBLE, default="0.5", minimum=0, maximum=1,
        doc="Which share of a compacted partition must be new before it is compacted again.",
    ),
    _key(
        "segment.bytes", ConfigType.INT, "1073741824", minimum=1_048_576,
        doc="The size of the files that retention and compaction work in; here an upper bound of a segment.",
    ),
    _key(
        "segment.ms", ConfigType.LONG, str(7 * DAY_MS), minimum=1,
        doc="After how long a segment counts as closed, so that retention and compaction may take it.",
    ),
)  # fmt: skip

_WRITING = (
    _key(
        "max.message.bytes", ConfigType.INT, "1048588", minimum=0,
        doc="The largest record batch a producer may send, after compression.",
    ),
    ConfigKey(
        name="message.timestamp.type", type=ConfigType.STRING, default="CreateTime",
        choices=("CreateTime", "LogAppendTime"),
        doc="Whose time records carry: their producer's (CreateTime) or that of their append (LogAppendTime).",
    ),
    _key(
        "message.timestamp.before.max.ms", ConfigType.LONG, NEVER, minimum=0,
        doc="How far a record's timestamp may lie in the past before the record is refused.",
    ),
    _key(
        "message.timestamp.after.max.ms", ConfigType.LONG, str(HOUR_MS), minimum=0,
        doc="How far a record's timestamp may lie in the future before the record is refused.",
    ),
    ConfigKey(
        name="compression.type", type=ConfigType.STRING, default="producer", choices=(*CODECS, "producer"),
        doc="How batches are stored: compressed by this codec, `uncompressed`, or as the producer sent them.",
    ),
    ConfigKey(
        name="compression.gzip.level", type=ConfigType.INT, default="-1", minimum=-1, maximum=9, check=gzip_level,
        doc="The gzip level when compression.type is gzip; -1 is the codec's own default.",
    ),
    ConfigKey(
        name="compression.lz4.level", type=ConfigType.INT, default="9", minimum=1, maximum=17,
        doc="The lz4 level when compression.type is lz4.",
    ),
    ConfigKey(
        name="compression.zstd.level", type=ConfigType.INT, default="3", minimum=-131_072, maximum=22,
        doc="The zstd level when compression.type is zstd.",
    ),
    _key(
        "errors.deadletterqueue.group.enable", ConfigType.BOOLEAN, "false",
        doc="Whether share groups may name the topic as their dead letter queue.",
    ),
)  # fmt: skip

_KEPT_ONLY = (
    ConfigKey(
        name="max.decompressed.message.bytes", type=ConfigType.INT, default="2147483639", minimum=1,
        maximum=2_147_483_639, acted_on=False,
        doc="How large a batch may become when it is decompressed on the server; kept only.",
    ),
    _key(
        "min.insync.replicas", ConfigType.INT, "1", minimum=1, acted_on=False,
        doc="How many replicas must have a record before acks=all is answered; kept only, an acknowledged record is"
        " always durable.",
    ),
    _key(
        "unclean.leader.election.enable", ConfigType.BOOLEAN, "false", acted_on=False,
        doc="Whether a replica that misses records may lead; kept only, there is one copy of the truth.",
    ),
    _key(
        "file.delete.delay.ms", ConfigType.LONG, "60000", minimum=0, acted_on=False,
        doc="How long a removed file stays on disk; kept only, removed objects have a grace period of their own.",
    ),
    _key(
        "flush.messages", ConfigType.LONG, NEVER, minimum=1, acted_on=False,
        doc="After how many records the log is synced; kept only, every acknowledgement follows a sync.",
    ),
    _key(
        "flush.ms", ConfigType.LONG, NEVER, minimum=0, acted_on=False,
        doc="After how long the log is synced; kept only, every acknowledgement follows a sync.",
    ),
    _replicas_key("follower"),
    _replicas_key("leader"),
    _key(
        "index.interval.bytes", ConfigType.INT, "4096", minimum=0, acted_on=False,
        doc="How often the offset index of a file gets an entry; kept only.",
    ),
    _key(
        "segment.index.bytes", ConfigType.INT, "10485760", minimum=4, acted_on=False,
        doc="How large the offset index of a file may grow; kept only.",
    ),
    _key(
        "segment.jitter.ms", ConfigType.LONG, "0", minimum=0, acted_on=False,
        doc="By how much the closing of files is spread in time; kept only.",
    ),
    _key(
        "preallocate", ConfigType.BOOLEAN, "false", acted_on=False,
        doc="Whether files are allocated in full when created; kept only.",
    ),
    ConfigKey(
        name="remote.storage.enable", type=ConfigType.BOOLEAN, default="false", check=_no_tiers, acted_on=False,
        doc="Whether old segments move to a second tier; refused when true, there is only one tier.",
    ),
    _key(
        "remote.log.copy.disable", ConfigType.BOOLEAN, "false", acted_on=False,
        doc="Whether copying to the second tier is stopped; kept only.",
    ),
    _key(
        "remote.log.delete.on.disable", ConfigType.BOOLEAN, "false", acted_on=False,
        doc="Whether switching the second tier off removes what is there; kept only.",
    ),
    _key(
        "remote.copy.lag.ms", ConfigType.LONG, "0", minimum=-1, acted_on=False,
        doc="After how long a closed file is copied to the second tier; kept only.",
    ),
    _key(
        "remote.copy.lag.bytes", ConfigType.LONG, "-1", minimum=-1, acted_on=False,
        doc="After how many more bytes a closed file is copied to the second tier; kept only.",
    ),
    _key(
        "local.retention.ms", ConfigType.LONG, "-2", minimum=-2, acted_on=False,
        doc="How long the first tier keeps what the second has; kept only.",
    ),
    _key(
        "local.retention.bytes", ConfigType.LONG, "-2", minimum=-2, acted_on=False,
        doc="How many bytes the first tier keeps of what the second has; kept only.",
    ),
)  # fmt: skip

TOPIC_KEYS: Mapping[str, ConfigKey] = dict(sorted(table((*_RETENTION, *_WRITING, *_KEPT_ONLY)).items()))


@dataclass(frozen=True, slots=True)
class BrokerSynonym:
    """A broker-wide setting that is the default of a topic key."""

    setting: str
    factor: int = 1
    """Factor from its unit to the topic key's."""


def _synonyms() -> dict[str, tuple[BrokerSynonym, ...]]:
    same = (
        "compression.type", "compression.gzip.level", "compression.lz4.level", "compression.zstd.level",
        "max.decompressed.message.bytes", "min.insync.replicas", "unclean.leader.election.enable",
    )  # fmt: skip
    with_prefix = (
        "cleanup.policy", "index.interval.bytes", "local.retention.bytes", "local.retention.ms",
        "message.timestamp.after.max.ms", "message.timestamp.before.max.ms", "message.timestamp.type", "preallocate",
        "remote.copy.lag.bytes", "remote.copy.lag.ms", "retention.bytes", "segment.bytes",
    )  # fmt: skip
    return {
        **{name: (BrokerSynonym(name),) for name in same},
        **{name: (BrokerSynonym(f"log.{name}"),) for name in with_prefix},
        "delete.retention.ms": (BrokerSynonym("log.cleaner.delete.retention.ms"),),
        "max.compaction.lag.ms": (BrokerSynonym("log.cleaner.max.compaction.lag.ms"),),
        "min.compaction.lag.ms": (BrokerSynonym("log.cleaner.min.compaction.lag.ms"),),
        "min.cleanable.dirty.ratio": (BrokerSynonym("log.cleaner.min.cleanable.ratio"),),
        "file.delete.delay.ms": (BrokerSynonym("log.segment.delete.delay.ms"),),
        "flush.messages": (BrokerSynonym("log.flush.interval.messages"),),
        "flush.ms": (BrokerSynonym("log.flush.interval.ms"),),
        "max.message.bytes": (BrokerSynonym("message.max.bytes"),),
        "segment.index.bytes": (BrokerSynonym("log.index.size.max.bytes"),),
        "retention.ms": (
            BrokerSynonym("log.retention.ms"), BrokerSynonym("log.retention.minutes", MINUTE_MS),
            BrokerSynonym("log.retention.hours", HOUR_MS),
        ),
        "segment.ms": (BrokerSynonym("log.roll.ms"), BrokerSynonym("log.roll.hours", HOUR_MS)),
        "segment.jitter.ms": (BrokerSynonym("log.roll.jitter.ms"), BrokerSynonym("log.roll.jitter.hours", HOUR_MS)),
    }  # fmt: skip


SYNONYMS: Mapping[str, tuple[BrokerSynonym, ...]] = _synonyms()
"""For each topic key the settings that give its default, in order of precedence."""


def broker_default(name: str, settings: BrokerSettings) -> str:
    """A topic key's text where the topic has no override."""
    for synonym in SYNONYMS.get(name, ()):
        text = settings.text(synonym.setting)
        if text is not None:
            return text if synonym.factor == 1 else scaled(int(text), synonym.factor)
    return TOPIC_KEYS[name].default or ""


def scaled(value: int, factor: int) -> str:
    """A setting's value in a topic key's unit. A negative one means `no limit` in any unit."""
    return str(value * factor if value >= 0 else -1)


def check(overrides: Mapping[str, str | None], settings: BrokerSettings) -> None:
    """Raise `InvalidRequest` unless a topic may have these overrides."""
    values: dict[str, ConfigValue] = {}
    for name, text in overrides.items():
        key = TOPIC_KEYS.get(name)
        if key is None:
            raise unknown_config(name, TOPIC_KEYS)
        values[name] = key.parse(text)
    lags = {}
    for name in ("min.compaction.lag.ms", "max.compaction.lag.ms"):
        text = overrides.get(name)
        lags[name] = int(broker_default(name, settings) if text is None else text)
    if lags["min.compaction.lag.ms"] > lags["max.compaction.lag.ms"]:
        raise InvalidRequest("min.compaction.lag.ms must not exceed max.compaction.lag.ms")


def resolve(overrides: Mapping[str, str], settings: BrokerSettings) -> TopicConfig:
    """The settings that the log acts on, for a topic with these overrides, which were validated when stored."""
    values: dict[str, ConfigValue] = {
        name: key.parse(overrides[name] if name in overrides else broker_default(name, settings))
        for name, key in TOPIC_KEYS.items()
        if key.acted_on
    }
    policy = cast("tuple[str, ...]", values["cleanup.policy"])
    codec, level = _compression(values)
    return TopicConfig(
        delete="delete" in policy,
        compact="compact" in policy,
        retention_ms=_whole(values, "retention.ms"),
        retention_bytes=_whole(values, "retention.bytes"),
        max_message_bytes=_whole(values, "max.message.bytes"),
        log_append_time=values["message.timestamp.type"] == "LogAppendTime",
        timestamp_before_max_ms=_whole(values, "message.timestamp.before.max.ms"),
        timestamp_after_max_ms=_whole(values, "message.timestamp.after.max.ms"),
        compression=codec,
        compression_level=level,
        min_compaction_lag_ms=_whole(values, "min.compaction.lag.ms"),
        max_compaction_lag_ms=_whole(values, "max.compaction.lag.ms"),
        delete_retention_ms=_whole(values, "delete.retention.ms"),
        min_cleanable_dirty_ratio=cast(float, values["min.cleanable.dirty.ratio"]),
        segment_bytes=_whole(values, "segment.bytes"),
        segment_ms=_whole(values, "segment.ms"),
        takes_dead_letters=cast(bool, values["errors.deadletterqueue.group.enable"]),
    )


def _compression(values: Mapping[str, ConfigValue]) -> tuple[int, int | None]:
    name = cast(str, values["compression.type"])
    if name == "producer":
        return -1, None
    level = values.get(f"compression.{name}.level")
    return CODECS.index(name), None if level == -1 else cast("int | None", level)


def _whole(values: Mapping[str, ConfigValue], name: str) -> int:
    return cast(int, values[name])
