"""Settings of topics and of their log. Those named like a topic key's synonym (`log.retention.ms`, `message.max.bytes`)
are the defaults of topics and reach the log through `topic_configs.resolve`.
"""

from __future__ import annotations

from functools import partial

from penstock.base.config_values import (
    BOOLEAN,
    DOUBLE,
    INT,
    LIST,
    LONG,
    LONG_MAX,
    STRING,
    ConfigKey,
    ConfigType,
    ConfigValue,
)
from penstock.base.errors import InvalidRequest
from penstock.base.settings import BrokerSettings, declare, setting

NEVER = str(LONG_MAX)
CODECS = ("uncompressed", "gzip", "snappy", "lz4", "zstd", "producer")
_default = partial(setting, dynamic=True)
"""Defaults of topics can be altered while the cluster runs, but for those in another unit, as in Kafka."""


def gzip_level(value: ConfigValue) -> str | None:
    """What is wrong with a gzip level, or None."""
    return "Value must be between 1 and 9 or equal to -1" if value == 0 else None


def _kept(
    name: str, kind: ConfigType, default: str | None, key: str, *, at_least: float | None = None,
    at_most: float | None = None, dynamic: bool = True,
) -> ConfigKey:  # fmt: skip
    doc = f"Default of {key} for topics; stored and reported only."
    return setting(name, kind, default, doc, at_least=at_least, at_most=at_most, acted_on=False, dynamic=dynamic)


def _check(settings: BrokerSettings) -> None:
    if settings.whole("log.cleaner.min.compaction.lag.ms") > settings.whole("log.cleaner.max.compaction.lag.ms"):
        raise InvalidRequest("log.cleaner.min.compaction.lag.ms must not exceed log.cleaner.max.compaction.lag.ms")


SETTINGS = declare(
    setting("num.partitions", INT, "1", "How many partitions a topic gets by default.", at_least=1),
    setting(
        "default.replication.factor", INT, "1", at_least=1,
        doc="The replication factor that topics report by default; nothing is replicated.",
    ),
    setting(
        "auto.create.topics.enable", BOOLEAN, "true",
        doc="Whether a topic is created when a client asks for one that does not exist.",
    ),
    setting("delete.topic.enable", BOOLEAN, "true", "Whether topics may be deleted."),
    setting(
        "max.request.partition.size.limit", INT, "2000", at_least=1,
        doc="The most partitions in one DescribeTopicPartitions response.",
    ),
    setting(
        "producer.id.expiration.ms", INT, "86400000", at_least=1, dynamic=True,
        doc="How long a partition remembers an idempotent producer that no longer writes.",
    ),
    setting("fetch.max.bytes", INT, "57671680", "The most bytes in one fetch response.", at_least=1024),
    setting(
        "max.incremental.fetch.session.cache.slots", INT, "1000", at_least=0,
        doc="The most incremental fetch sessions at a time.",
    ),
    setting(
        "log.retention.check.interval.ms", LONG, "300000", at_least=1,
        doc="How often retention looks for records to delete.",
    ),
    setting(
        "log.cleaner.backoff.ms", LONG, "15000", at_least=0,
        doc="How long key compaction pauses when there is nothing to do.",
    ),
    setting("log.cleaner.enable", BOOLEAN, "true", "Whether compacted topics are compacted."),
    setting(
        "log.cleaner.dedupe.buffer.size", LONG, "134217728", at_least=1_048_576,
        doc="How much memory key compaction may use for the keys of one pass, at 48 bytes a key, or 200 without the "
        "compiled twin.",
    ),
    # Defaults of topics.
    _default(
        "log.cleanup.policy", LIST, "delete", choices=("compact", "delete"),
        doc="Default of cleanup.policy for topics.",
    ),
    _default(
        "log.retention.ms", LONG, None, at_least=-1,
        doc="Default of retention.ms for topics; if unset, log.retention.minutes or hours applies.",
    ),
    setting(
        "log.retention.minutes", INT, None, at_least=-1,
        doc="Default retention of topics in minutes; if unset, log.retention.hours applies.",
    ),
    setting("log.retention.hours", INT, "168", "Default retention of topics in hours; -1: for ever.", at_least=-1),
    _default("log.retention.bytes", LONG, "-1", "Default of retention.bytes for topics."),
    _default("log.segment.bytes", INT, "1073741824", "Default of segment.bytes for topics.", at_least=1_048_576),
    _default(
        "log.roll.ms", LONG, None, at_least=1,
        doc="Default of segment.ms for topics; if unset, log.roll.hours applies.",
    ),
    setting("log.roll.hours", INT, "168", "Default of segment.ms for topics, in hours.", at_least=1),
    _default("message.max.bytes", INT, "1048588", "Default of max.message.bytes for topics.", at_least=0),
    _default(
        "log.message.timestamp.type", STRING, "CreateTime", choices=("CreateTime", "LogAppendTime"),
        doc="Default of message.timestamp.type for topics.",
    ),
    _default(
        "log.message.timestamp.before.max.ms", LONG, NEVER, at_least=0,
        doc="Default of message.timestamp.before.max.ms for topics.",
    ),
    _default(
        "log.message.timestamp.after.max.ms", LONG, "3600000", at_least=0,
        doc="Default of message.timestamp.after.max.ms for topics.",
    ),
    _default("compression.type", STRING, "producer", choices=CODECS, doc="Default of compression.type for topics."),
    _default(
        "compression.gzip.level", INT, "-1", "Default of compression.gzip.level.", at_least=-1, at_most=9,
        check=gzip_level,
    ),
    _default("compression.lz4.level", INT, "9", "Default of compression.lz4.level.", at_least=1, at_most=17),
    _default(
        "compression.zstd.level", INT, "3", "Default of compression.zstd.level.", at_least=-131_072, at_most=22
    ),
    _default(
        "log.cleaner.delete.retention.ms", LONG, "86400000", at_least=0,
        doc="Default of delete.retention.ms for topics.",
    ),
    _default(
        "log.cleaner.min.compaction.lag.ms", LONG, "0", at_least=0,
        doc="Default of min.compaction.lag.ms for topics.",
    ),
    _default(
        "log.cleaner.max.compaction.lag.ms", LONG, NEVER, at_least=1,
        doc="Default of max.compaction.lag.ms for topics.",
    ),
    _default(
        "log.cleaner.min.cleanable.ratio", DOUBLE, "0.5", at_least=0, at_most=1,
        doc="Default of min.cleanable.dirty.ratio for topics.",
    ),
    # Kept and reported because tools set them.
    _kept("min.insync.replicas", INT, "1", "min.insync.replicas", at_least=1),
    _kept("unclean.leader.election.enable", BOOLEAN, "false", "unclean.leader.election.enable"),
    _kept("log.preallocate", BOOLEAN, "false", "preallocate"),
    _kept("log.index.interval.bytes", INT, "4096", "index.interval.bytes", at_least=0),
    _kept("log.index.size.max.bytes", INT, "10485760", "segment.index.bytes", at_least=4),
    _kept("log.roll.jitter.ms", LONG, None, "segment.jitter.ms", at_least=0),
    _kept("log.roll.jitter.hours", INT, "0", "segment.jitter.ms", at_least=0, dynamic=False),
    _kept("log.segment.delete.delay.ms", LONG, "60000", "file.delete.delay.ms", at_least=0),
    _kept("log.flush.interval.messages", LONG, NEVER, "flush.messages", at_least=1),
    _kept("log.flush.interval.ms", LONG, None, "flush.ms", at_least=0),
    _kept("log.local.retention.ms", LONG, "-2", "local.retention.ms", at_least=-2),
    _kept("log.local.retention.bytes", LONG, "-2", "local.retention.bytes", at_least=-2),
    _kept("log.remote.copy.lag.ms", LONG, "0", "remote.copy.lag.ms", at_least=-1),
    _kept("log.remote.copy.lag.bytes", LONG, "-1", "remote.copy.lag.bytes", at_least=-1),
    _kept(
        "max.decompressed.message.bytes", INT, "2147483639", "max.decompressed.message.bytes", at_least=1,
        at_most=2_147_483_639,
    ),
    check=_check,
)  # fmt: skip
