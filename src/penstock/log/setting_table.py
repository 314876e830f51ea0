"""The table of broker-wide settings: names, types, defaults, meanings. `penstock.log.settings` uses it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from penstock.authorization.changes import parse_super_users
from penstock.authorization.settings import STANDARD_AUTHORIZER
from penstock.base.errors import InvalidRequest
from penstock.base.memory import DEFAULT_BYTES, LEAST_BYTES
from penstock.log.config_values import INT_MAX, LONG_MAX, ConfigKey, ConfigType, ConfigValue, table

BOOLEAN, DOUBLE, INT, LIST, LONG, STRING = (
    ConfigType.BOOLEAN, ConfigType.DOUBLE, ConfigType.INT, ConfigType.LIST, ConfigType.LONG, ConfigType.STRING,
)  # fmt: skip
NEVER = str(LONG_MAX)
CODECS = ("uncompressed", "gzip", "snappy", "lz4", "zstd", "producer")


def gzip_level(value: ConfigValue) -> str | None:
    """What is wrong with a gzip level, or None."""
    return "Value must be between 1 and 9 or equal to -1" if value == 0 else None


def _setting(
    name: str, kind: ConfigType, default: str | None, doc: str, *, at_least: float | None = None,
    at_most: float | None = None, choices: tuple[str, ...] = (), acted_on: bool = True,
    check: Callable[[ConfigValue], str | None] | None = None,
) -> ConfigKey:  # fmt: skip
    return ConfigKey(
        name=name, type=kind, default=default, doc=doc, minimum=at_least, maximum=at_most, choices=choices,
        acted_on=acted_on, check=check,
    )  # fmt: skip


def _range_of(
    name: str, default: int, bounds: tuple[int, int], least: int, most: int, *, doc: str
) -> tuple[ConfigKey, ...]:
    """A setting that groups may override, and the two that bound the override."""
    low, high = bounds
    kind, _, rest = name.removeprefix("group.").partition(".")
    return (
        _setting(name, INT, str(default), doc, at_least=low, at_most=high),
        _setting(
            f"group.{kind}.min.{rest}", INT, str(least), f"The lowest {kind}.{rest} that a group may have.",
            at_least=low, at_most=high,
        ),
        _setting(
            f"group.{kind}.max.{rest}", INT, str(most), f"The highest {kind}.{rest} that a group may have.",
            at_least=low, at_most=high,
        ),
    )  # fmt: skip


def _not_empty(value: ConfigValue) -> str | None:
    return None if value else "There must be at least one"


_POLICIES = ("bidirectional", "upgrade", "downgrade", "disabled")


def _migration_policy(value: ConfigValue) -> str | None:
    return (
        None if str(value).lower() in _POLICIES else f"String must be one of (case insensitive): {', '.join(_POLICIES)}"
    )


_TOPICS = (
    _setting("num.partitions", INT, "1", "How many partitions a topic gets by default.", at_least=1),
    _setting(
        "default.replication.factor", INT, "1", at_least=1,
        doc="The replication factor that topics report by default; nothing is replicated.",
    ),
    _setting(
        "auto.create.topics.enable", BOOLEAN, "true",
        doc="Whether a topic is created when a client asks for one that does not exist.",
    ),
    _setting("delete.topic.enable", BOOLEAN, "true", "Whether topics may be deleted."),
    _setting(
        "max.request.partition.size.limit", INT, "2000", at_least=1,
        doc="The most partitions in one DescribeTopicPartitions response.",
    ),
)  # fmt: skip

_DEAD_LETTERS = (
    _setting(
        "errors.deadletterqueue.topic.name.prefix", STRING, "dlq.",
        doc="The prefix that names of share groups' dead letter queues must have. Empty: any name will do.",
    ),
    _setting(
        "errors.deadletterqueue.auto.create.topics.enable", BOOLEAN, "false",
        doc="Whether a dead letter queue that a share group names is created if it does not exist.",
    ),
)  # fmt: skip

_GROUPS = (
    _setting(
        "group.initial.rebalance.delay.ms", INT, "0", at_least=0,
        doc="How long a new classic group waits for more members before its first rebalance ends. Apache Kafka waits"
        " 3000.",
    ),
    _setting(
        "group.min.session.timeout.ms", INT, "6000", at_least=1,
        doc="The shortest session time-out a member of a classic group may ask for.",
    ),
    _setting(
        "group.max.session.timeout.ms", INT, "1800000", at_least=1,
        doc="The longest session time-out a member of a classic group may ask for.",
    ),
    _setting("group.max.size", INT, str(INT_MAX), "How many members a classic group may have.", at_least=1),
    *_range_of(
        "group.share.session.timeout.ms", 45_000, (1, INT_MAX), 45_000, 60_000,
        doc="How long a member of a share group may be silent before it is removed from the group.",
    ),
    *_range_of(
        "group.share.heartbeat.interval.ms", 5_000, (1, INT_MAX), 5_000, 15_000,
        doc="How often members of a share group send heartbeats while nothing changes.",
    ),
    *_range_of(
        "group.share.assignment.interval.ms", 1_000, (0, INT_MAX), 0, 15_000,
        doc="The shortest time between two assignments of a share group.",
    ),
    *_range_of(
        "group.share.record.lock.duration.ms", 30_000, (1_000, 3_600_000), 15_000, 60_000,
        doc="How long a record is locked for the member of a share group that acquired it.",
    ),
    *_range_of(
        "group.share.delivery.count.limit", 5, (2, 25), 2, 10,
        doc="How often a share group delivers a record before it gives it up.",
    ),
    *_range_of(
        "group.share.partition.max.record.locks", 2_000, (100, 10_000), 100, 4_000,
        doc="How many records of a partition may be in flight in a share group.",
    ),
    _setting("group.share.max.size", INT, "200", "How many members a share group may have.", at_least=1, at_most=1_000),
    _setting(
        "group.share.max.share.sessions", INT, "2000", at_least=1,
        doc="The most share sessions at a time.",
    ),
    *_DEAD_LETTERS,
    *_range_of(
        "group.consumer.session.timeout.ms", 45_000, (1, INT_MAX), 45_000, 60_000,
        doc="How long a member of a consumer group may be silent before it is removed from the group.",
    ),
    *_range_of(
        "group.consumer.heartbeat.interval.ms", 5_000, (1, INT_MAX), 5_000, 15_000,
        doc="How often members of a consumer group send heartbeats while nothing changes; more often while it"
        " rebalances.",
    ),
    *_range_of(
        "group.consumer.assignment.interval.ms", 1_000, (0, INT_MAX), 0, 15_000,
        doc="The shortest time between two assignments of a consumer group.",
    ),
    _setting("group.consumer.max.size", INT, str(INT_MAX), "How many members a consumer group may have.", at_least=1),
    _setting(
        "group.consumer.assignors", LIST, "uniform,range", choices=("uniform", "range"), check=_not_empty,
        doc="The assignors that members of consumer groups may choose; the first is the default.",
    ),
    _setting(
        "group.consumer.migration.policy", STRING, "bidirectional", check=_migration_policy,
        doc="Which live migrations of groups are allowed: classic to consumer (upgrade), consumer to classic"
        " (downgrade), both (bidirectional), or none (disabled).",
    ),
    _setting(
        "group.consumer.regex.refresh.interval.ms", INT, "600000", at_least=10_000,
        doc="How often the regular expressions of consumer groups are evaluated again although no topic has changed.",
    ),
    *_range_of(
        "group.streams.session.timeout.ms", 45_000, (1, INT_MAX), 45_000, 60_000,
        doc="How long a member of a streams group may be silent before it is removed from the group.",
    ),
    *_range_of(
        "group.streams.heartbeat.interval.ms", 5_000, (1, INT_MAX), 5_000, 15_000,
        doc="How often members of a streams group send heartbeats while nothing changes; more often while it"
        " rebalances.",
    ),
    *_range_of(
        "group.streams.assignment.interval.ms", 1_000, (0, INT_MAX), 0, 15_000,
        doc="The shortest time between two assignments of a streams group.",
    ),
    _setting(
        "group.streams.initial.rebalance.delay.ms", INT, "3000", at_least=0,
        doc="How long a streams group that had no members waits for more of them before it assigns tasks.",
    ),
    _setting(
        "group.streams.num.standby.replicas", INT, "0", at_least=0,
        doc="How many standby replicas a streams group keeps of each task's state.",
    ),
    _setting(
        "group.streams.max.standby.replicas", INT, "2", at_least=0,
        doc="The highest streams.num.standby.replicas that a group may have.",
    ),
    _setting(
        "group.streams.rack.aware.assignment.tags", LIST, "",
        doc="The client tags that members of streams groups must have; members without them are warned.",
    ),
    _setting("group.streams.max.size", INT, str(INT_MAX), "How many members a streams group may have.", at_least=1),
    _setting(
        "offsets.retention.minutes", INT, "10080", at_least=1,
        doc="How long the offsets of a group without members are kept.",
    ),
    _setting(
        "offsets.retention.check.interval.ms", LONG, "600000", at_least=1,
        doc="How often offsets are checked for expiry.",
    ),
    _setting(
        "offset.metadata.max.bytes", INT, "4096", at_least=0,
        doc="The longest metadata that a client may store with a committed offset.",
    ),
)  # fmt: skip

_LIMITS = (
    _setting(
        "producer.id.expiration.ms", INT, "86400000", at_least=1,
        doc="How long a partition remembers an idempotent producer that no longer writes.",
    ),
    _setting(
        "transaction.max.timeout.ms", INT, "900000", at_least=1,
        doc="The longest transaction time-out that a producer may ask for.",
    ),
    _setting(
        "transactional.id.expiration.ms", INT, "604800000", at_least=1,
        doc="How long an unused transactional id is remembered.",
    ),
    _setting(
        "memory.max.bytes", LONG, str(DEFAULT_BYTES), at_least=LEAST_BYTES,
        doc="How much memory clients can make an agent hold in total.",
    ),
    _setting(
        "slow.request.log.ms", INT, "1000", at_least=-1,
        doc="A request that takes as many milliseconds is named in the log, every ten seconds at most; -1: never.",
    ),
    _setting(
        "socket.request.max.bytes", INT, "104857600", at_least=1,
        doc="The largest request; a longer one closes its connection.",
    ),
    _setting("fetch.max.bytes", INT, "57671680", "The most bytes in one fetch response.", at_least=1024),
    _setting(
        "max.incremental.fetch.session.cache.slots", INT, "1000", at_least=0,
        doc="The most incremental fetch sessions at a time.",
    ),
    _setting("max.connections", INT, str(INT_MAX), "The most connections at a time.", at_least=0),
    _setting(
        "max.connections.per.ip", INT, str(INT_MAX), at_least=0,
        doc="The most connections from one address at a time.",
    ),
    _setting(
        "connections.max.idle.ms", LONG, "600000",
        doc="How long a connection may be idle before it is closed; negative: for ever.",
    ),
    _setting(
        "connections.max.reauth.ms", LONG, "0", at_least=0,
        doc="How long a SASL session lasts before its client has to authenticate again (KIP-368); 0: for ever.",
    ),
    _setting(
        "connection.failed.authentication.delay.ms", INT, "100", at_least=0,
        doc="How long a failed authentication waits for its response; longer while attempts from one network keep"
        " failing. With 0 there is no delay and no limit on failed attempts.",
    ),
    _setting(
        "delegation.token.max.lifetime.ms", LONG, "604800000", at_least=1,
        doc="How long a delegation token can be kept alive by renewing it.",
    ),
    _setting(
        "delegation.token.expiry.time.ms", LONG, "86400000", at_least=1,
        doc="How long a delegation token lasts unless it is renewed.",
    ),
    _setting(
        "sasl.server.max.receive.size", INT, "524288", at_least=1024,
        doc="The largest request before a connection has authenticated.",
    ),
)  # fmt: skip

_TELEMETRY = (
    _setting(
        "telemetry.max.bytes", INT, "1048576", at_least=1,
        doc="The largest push of client metrics, as compressed by the client.",
    ),
)  # fmt: skip

_QUOTAS = (
    _setting("quota.window.num", INT, "11", "How many samples client quotas are averaged over.", at_least=1),
    _setting("quota.window.size.seconds", INT, "1", "How long each sample of client quotas is.", at_least=1),
    _setting(
        "controller.quota.window.num", INT, "11", at_least=1,
        doc="How many samples' worth of topic changes a controller mutation quota allows in one burst.",
    ),
    _setting(
        "controller.quota.window.size.seconds", INT, "1", at_least=1,
        doc="How long each sample of controller mutation quotas is.",
    ),
)  # fmt: skip

_BACKGROUND = (
    _setting(
        "transaction.abort.timed.out.transaction.cleanup.interval.ms", INT, "10000", at_least=1,
        doc="How often transactions are checked for time-out.",
    ),
    _setting(
        "transaction.remove.expired.transaction.cleanup.interval.ms", INT, "3600000", at_least=1,
        doc="How often transactional ids are checked for expiry.",
    ),
    _setting(
        "log.retention.check.interval.ms", LONG, "300000", at_least=1,
        doc="How often retention looks for records to delete.",
    ),
    _setting(
        "log.cleaner.backoff.ms", LONG, "15000", at_least=0,
        doc="How long key compaction pauses when there is nothing to do.",
    ),
    _setting("log.cleaner.enable", BOOLEAN, "true", "Whether compacted topics are compacted."),
    _setting(
        "log.cleaner.dedupe.buffer.size", LONG, "134217728", at_least=1_048_576,
        doc="How much memory key compaction may use for the keys of one pass, at about 200 bytes a key.",
    ),
)  # fmt: skip

_TOPIC_DEFAULTS = (
    _setting(
        "log.cleanup.policy", LIST, "delete", choices=("compact", "delete"),
        doc="Default of cleanup.policy for topics.",
    ),
    _setting(
        "log.retention.ms", LONG, None, at_least=-1,
        doc="Default of retention.ms for topics; if unset, log.retention.minutes or hours applies.",
    ),
    _setting(
        "log.retention.minutes", INT, None, at_least=-1,
        doc="Default retention of topics in minutes; if unset, log.retention.hours applies.",
    ),
    _setting("log.retention.hours", INT, "168", "Default retention of topics in hours; -1: for ever.", at_least=-1),
    _setting("log.retention.bytes", LONG, "-1", "Default of retention.bytes for topics."),
    _setting("log.segment.bytes", INT, "1073741824", "Default of segment.bytes for topics.", at_least=1_048_576),
    _setting(
        "log.roll.ms", LONG, None, at_least=1,
        doc="Default of segment.ms for topics; if unset, log.roll.hours applies.",
    ),
    _setting("log.roll.hours", INT, "168", "Default of segment.ms for topics, in hours.", at_least=1),
    _setting("message.max.bytes", INT, "1048588", "Default of max.message.bytes for topics.", at_least=0),
    _setting(
        "log.message.timestamp.type", STRING, "CreateTime", choices=("CreateTime", "LogAppendTime"),
        doc="Default of message.timestamp.type for topics.",
    ),
    _setting(
        "log.message.timestamp.before.max.ms", LONG, NEVER, at_least=0,
        doc="Default of message.timestamp.before.max.ms for topics.",
    ),
    _setting(
        "log.message.timestamp.after.max.ms", LONG, "3600000", at_least=0,
        doc="Default of message.timestamp.after.max.ms for topics.",
    ),
    _setting("compression.type", STRING, "producer", choices=CODECS, doc="Default of compression.type for topics."),
    ConfigKey(
        name="compression.gzip.level", type=INT, default="-1", doc="Default of compression.gzip.level.", minimum=-1,
        maximum=9, check=gzip_level,
    ),
    _setting("compression.lz4.level", INT, "9", "Default of compression.lz4.level.", at_least=1, at_most=17),
    _setting(
        "compression.zstd.level", INT, "3", "Default of compression.zstd.level.", at_least=-131_072, at_most=22
    ),
    _setting(
        "log.cleaner.delete.retention.ms", LONG, "86400000", at_least=0,
        doc="Default of delete.retention.ms for topics.",
    ),
    _setting(
        "log.cleaner.min.compaction.lag.ms", LONG, "0", at_least=0,
        doc="Default of min.compaction.lag.ms for topics.",
    ),
    _setting(
        "log.cleaner.max.compaction.lag.ms", LONG, NEVER, at_least=1,
        doc="Default of max.compaction.lag.ms for topics.",
    ),
    _setting(
        "log.cleaner.min.cleanable.ratio", DOUBLE, "0.5", at_least=0, at_most=1,
        doc="Default of min.cleanable.dirty.ratio for topics.",
    ),
)  # fmt: skip


def _kept(
    name: str, kind: ConfigType, default: str | None, key: str, *, at_least: float | None = None,
    at_most: float | None = None,
) -> ConfigKey:  # fmt: skip
    doc = f"Default of {key} for topics; stored and reported only."
    return _setting(name, kind, default, doc, at_least=at_least, at_most=at_most, acted_on=False)


def _principals(value: ConfigValue) -> str | None:
    """What is wrong with `super.users`, or None."""
    try:
        parse_super_users(str(value))
    except InvalidRequest as problem:
        return str(problem)
    return None


_ACCESS = (
    _setting(
        "authorizer.class.name", STRING, "", choices=("", "none", STANDARD_AUTHORIZER),
        doc=f"Whether ACLs decide what clients may do. {STANDARD_AUTHORIZER}: they do. none: whoever can connect"
        " may do everything. Empty: they do if any listener asks for credentials.",
    ),
    ConfigKey(
        name="super.users", type=STRING, default="", check=_principals,
        doc="Who may do everything, whatever ACLs say: principals of the default virtual cluster, separated by"
        " semicolons, such as User:alice;User:bob.",
    ),
    _setting(
        "allow.everyone.if.no.acl.found", BOOLEAN, "false",
        "Whether a resource that no ACL covers is open to everybody rather than to super users only.",
    ),
)  # fmt: skip


def _audited(value: ConfigValue) -> str | None:
    words = value if isinstance(value, tuple) else ()
    if not words:
        return "There must be at least one"
    return "none and all stand alone" if len(words) > 1 and {"none", "all"}.intersection(words) else None


_AUDIT = (
    _setting(
        "audit.enable", STRING, "", choices=("", "true", "false"),
        doc="Whether authentications, authorization decisions and administrative changes are written to the audit"
        " log. Empty: they are if any listener asks for credentials.",
    ),
    _setting(
        "audit.allowed", LIST, "none", check=_audited,
        choices=(
            "none", "sampled", "all", "management", "produce", "consume", "heartbeat", "interbroker", "describe",
        ),
        doc="Which decisions that allow something are logged; denials always are. Classes of requests, all, or none;"
        " sampled, alone or with classes, logs only a sample of these.",
    ),
    _setting(
        "audit.allowed.sample.ratio", DOUBLE, "0.01", at_least=0, at_most=1,
        doc="The share of decisions that is logged where audit.allowed says sampled.",
    ),
    _setting(
        "audit.retention.ms", LONG, "604800000", at_least=-1,
        doc="retention.ms of the audit log's topic when it is created; -1: for ever.",
    ),
)  # fmt: skip

_KEPT_ONLY = (
    _kept("min.insync.replicas", INT, "1", "min.insync.replicas", at_least=1),
    _kept("unclean.leader.election.enable", BOOLEAN, "false", "unclean.leader.election.enable"),
    _kept("log.preallocate", BOOLEAN, "false", "preallocate"),
    _kept("log.index.interval.bytes", INT, "4096", "index.interval.bytes", at_least=0),
    _kept("log.index.size.max.bytes", INT, "10485760", "segment.index.bytes", at_least=4),
    _kept("log.roll.jitter.ms", LONG, None, "segment.jitter.ms", at_least=0),
    _kept("log.roll.jitter.hours", INT, "0", "segment.jitter.ms", at_least=0),
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
)  # fmt: skip

SETTINGS: Mapping[str, ConfigKey] = dict(
    sorted(
        table(
            (
                *_TOPICS,
                *_GROUPS,
                *_LIMITS,
                *_TELEMETRY,
                *_QUOTAS,
                *_ACCESS,
                *_AUDIT,
                *_BACKGROUND,
                *_TOPIC_DEFAULTS,
                *_KEPT_ONLY,
            )
        ).items()
    )
)
"""Every broker-wide setting by name."""

FOREIGN_STATIC = frozenset(
    {
        "broker.id", "broker.rack", "controller.listener.names",
        "controller.quorum.bootstrap.servers", "controller.quorum.voters", "inter.broker.listener.name", "log.dir",
        "log.dirs", "metadata.log.dir", "node.id", "offsets.topic.num.partitions", "offsets.topic.replication.factor",
        "process.roles", "queued.max.requests", "security.inter.broker.protocol", "socket.receive.buffer.bytes",
        "socket.send.buffer.bytes", "transaction.state.log.num.partitions",
        "transaction.state.log.replication.factor",
    }
)  # fmt: skip
"""Settings of Apache Kafka that it does not change at run time either, and that have no meaning here."""

_FIXED_TOPIC_DEFAULTS = {
    "log.retention.minutes", "log.retention.hours", "log.roll.hours", "log.roll.jitter.hours",
}  # fmt: skip
DYNAMIC: frozenset[str] = frozenset(
    {key.name for key in (*_TOPIC_DEFAULTS, *_KEPT_ONLY, *_DEAD_LETTERS)} - _FIXED_TOPIC_DEFAULTS
    | {"producer.id.expiration.ms"}
    | {f"group.{kind}.assignment.interval.ms" for kind in ("consumer", "share", "streams")}
)
"""Settings that can be altered while the cluster runs. The rest is fixed at start, as most of it is in Kafka."""
