"""Topic keys and broker settings: the values Kafka 4.4 takes and refuses, and what is resolved from them."""

from __future__ import annotations

import pytest

from penstock.agent.settings import SETTINGS
from penstock.base.config_values import ConfigType
from penstock.base.errors import InvalidRequest
from penstock.base.settings import LiveSettings
from penstock.groups.config_kind import check_group
from penstock.log.model import TopicConfig
from penstock.log.refusals import Refused
from penstock.log.topic_configs import SYNONYMS, TOPIC_KEYS, broker_default, check, resolve

PLAIN = SETTINGS.started_with({})

# Observed on Apache Kafka 4.4's LogConfig.
ACCEPTED = [
    ("cleanup.policy", ""),
    ("cleanup.policy", "delete,delete"),
    ("cleanup.policy", " compact , delete "),
    ("compression.gzip.level", "-1"),
    ("compression.zstd.level", "0"),
    ("retention.ms", " 5 "),
    ("retention.ms", "+5"),
    ("retention.ms", "-1"),
    ("retention.bytes", "-7"),
    ("preallocate", "TRUE"),
    ("leader.replication.throttled.replicas", "*"),
    ("leader.replication.throttled.replicas", "0:1,1:2"),
    ("leader.replication.throttled.replicas", ""),
    ("local.retention.ms", "100"),
    ("min.cleanable.dirty.ratio", "1"),
]
REFUSED = [
    ("cleanup.policy", "Compact"),
    ("cleanup.policy", "compact,"),
    ("compression.gzip.level", "0"),
    ("compression.gzip.level", "10"),
    ("compression.zstd.level", "-131073"),
    ("compression.type", "none"),
    ("compression.type", "GZIP"),
    ("retention.ms", "-2"),
    ("retention.ms", "1e3"),
    ("retention.ms", "1_000"),
    ("retention.ms", "٣"),
    ("retention.ms", "+-3"),
    ("retention.ms", ""),
    ("retention.ms", "9223372036854775808"),
    ("min.cleanable.dirty.ratio", "1.1"),
    ("min.cleanable.dirty.ratio", "much"),
    ("preallocate", "yes"),
    ("unclean.leader.election.enable", ""),
    ("segment.bytes", "1048575"),
    ("segment.bytes", "4294967296"),
    ("message.timestamp.type", "createtime"),
    ("leader.replication.throttled.replicas", "0-1"),
    ("leader.replication.throttled.replicas", "*,0:1"),
    ("max.compaction.lag.ms", "0"),
    ("min.compaction.lag.ms", "-1"),
    ("remote.copy.lag.ms", "-2"),
    ("remote.storage.enable", "true"),
    ("no.such.key", "1"),
]


@pytest.mark.parametrize(("name", "text"), ACCEPTED)
def test_what_kafka_takes_is_taken(name: str, text: str) -> None:
    check({name: text}, PLAIN)
    resolve({name: text}, PLAIN)


@pytest.mark.parametrize(("name", "text"), REFUSED)
def test_what_kafka_refuses_is_refused(name: str, text: str) -> None:
    with pytest.raises(InvalidRequest, match=name.replace(".", r"\.")):
        check({name: text}, PLAIN)


def test_there_are_the_37_keys_of_kafka_and_every_one_has_a_sentence() -> None:
    assert len(TOPIC_KEYS) == 37
    for key in (*TOPIC_KEYS.values(), *SETTINGS.keys.values()):
        assert key.doc.endswith("."), key.name
        if key.default is not None:
            key.parse(key.default)
    assert len(SETTINGS.keys) <= 150


def test_every_synonym_is_a_setting_with_the_same_default_and_type() -> None:
    for name, synonyms in SYNONYMS.items():
        for synonym in synonyms:
            assert synonym.setting in SETTINGS.keys
            assert SETTINGS.keys[synonym.setting].type in (TOPIC_KEYS[name].type, ConfigType.INT), name
        assert broker_default(name, PLAIN) == TOPIC_KEYS[name].default


def test_a_topic_without_overrides_has_kafkas_defaults() -> None:
    assert resolve({}, PLAIN) == TopicConfig()


def test_overrides_count_more_than_settings_and_settings_more_than_defaults() -> None:
    settings = SETTINGS.started_with({"log.retention.hours": "2", "message.max.bytes": "9"})
    config = resolve({"max.message.bytes": "7", "cleanup.policy": "compact,delete"}, settings)
    assert (config.retention_ms, config.max_message_bytes) == (7_200_000, 7)
    assert config.compact
    assert config.delete
    neither = resolve({"cleanup.policy": ""}, settings)
    assert not neither.compact
    assert not neither.delete


@pytest.mark.parametrize(
    ("texts", "retention_ms"),
    [
        ({"log.retention.hours": "1", "log.retention.minutes": "1", "log.retention.ms": "1"}, 1),
        ({"log.retention.hours": "1", "log.retention.minutes": "1"}, 60_000),
        ({"log.retention.hours": "1"}, 3_600_000),
        ({"log.retention.hours": "-1"}, -1),
        ({}, 604_800_000),
    ],
)
def test_the_finest_unit_of_retention_counts(texts: dict[str, str], retention_ms: int) -> None:
    assert resolve({}, SETTINGS.started_with(texts)).retention_ms == retention_ms


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"compression.type": "producer"}, (-1, None)),
        ({"compression.type": "uncompressed"}, (0, None)),
        ({"compression.type": "gzip"}, (1, None)),
        ({"compression.type": "gzip", "compression.gzip.level": "9"}, (1, 9)),
        ({"compression.type": "snappy"}, (2, None)),
        ({"compression.type": "lz4"}, (3, 9)),
        ({"compression.type": "zstd", "compression.zstd.level": "-5"}, (4, -5)),
    ],
)
def test_compression_is_a_codec_and_a_level(overrides: dict[str, str], expected: tuple[int, int | None]) -> None:
    config = resolve(overrides, PLAIN)
    assert (config.compression, config.compression_level) == expected


def test_compaction_lags_must_not_cross_even_through_a_default() -> None:
    with pytest.raises(InvalidRequest):
        check({"min.compaction.lag.ms": "5", "max.compaction.lag.ms": "4"}, PLAIN)
    settings = SETTINGS.started_with({"log.cleaner.max.compaction.lag.ms": "4"})
    with pytest.raises(InvalidRequest):
        check({"min.compaction.lag.ms": "5"}, settings)


def test_an_unknown_setting_names_the_nearest() -> None:
    with pytest.raises(InvalidRequest, match=r"num\.partition; did you mean num\.partitions\?"):
        SETTINGS.started_with({"num.partition": "3"})
    with pytest.raises(InvalidRequest, match=r"Unknown configuration zzz$"):
        SETTINGS.started_with({"zzz": "3"})


@pytest.mark.parametrize(
    "texts",
    [
        {"num.partitions": "0"},
        {"num.partitions": "many"},
        {"auto.create.topics.enable": "maybe"},
        {"group.min.session.timeout.ms": "10", "group.max.session.timeout.ms": "9"},
        {"log.cleaner.min.compaction.lag.ms": "10", "log.cleaner.max.compaction.lag.ms": "9"},
        {"compression.gzip.level": "0"},
        {"group.streams.num.standby.replicas": "3"},
    ],
)
def test_settings_that_cannot_be_are_refused(texts: dict[str, str]) -> None:
    with pytest.raises(InvalidRequest):
        SETTINGS.started_with(texts)


def test_only_dynamic_settings_can_be_altered_while_running() -> None:
    SETTINGS.check_dynamic("log.retention.ms", "5")
    with pytest.raises(InvalidRequest, match="dynamically"):
        SETTINGS.check_dynamic("num.partitions", "5")
    with pytest.raises(InvalidRequest, match="Unknown"):
        SETTINGS.check_dynamic("no.such.setting", "5")


def test_dynamic_settings_belong_to_one_virtual_cluster() -> None:
    live = LiveSettings(SETTINGS.started_with({"num.partitions": "4"}))
    live.replace(2, live.preview(2, cluster_wide={"log.retention.ms": "5"}))
    live.replace(2, live.preview(2, this_broker={"log.retention.ms": "6"}))
    assert live.of(1).text("log.retention.ms") is None
    assert [value.text for value in live.of(2).given("log.retention.ms")] == ["6", "5"]
    assert live.of(2).whole("num.partitions") == 4


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        ({"consumer.session.timeout.ms": "50000"}, None),
        ({"consumer.session.timeout.ms": "44999"}, "greater than or equal to group.consumer.min.session.timeout.ms"),
        ({"consumer.session.timeout.ms": "60001"}, "less than or equal to group.consumer.max.session.timeout.ms"),
        ({"consumer.heartbeat.interval.ms": "4999"}, "group.consumer.min.heartbeat.interval.ms"),
        ({"consumer.assignment.interval.ms": "0"}, None),
        ({"share.session.timeout.ms": "1"}, "group.share.min.session.timeout.ms"),
        ({"share.auto.offset.reset": "earliest"}, None),
    ],
)
def test_groups_are_configured_within_the_limits_of_the_broker(
    overrides: dict[str, str], complaint: str | None
) -> None:
    if complaint is None:
        check_group(overrides, SETTINGS.started_with({}))
        return
    with pytest.raises(Refused, match=complaint):
        check_group(overrides, SETTINGS.started_with({}))


def test_heartbeats_of_a_group_come_before_its_sessions_end() -> None:
    limits = {"group.consumer.min.session.timeout.ms": "1", "group.consumer.session.timeout.ms": "45000"}
    with pytest.raises(Refused, match="must be greater than"):
        check_group({"consumer.session.timeout.ms": "5000"}, SETTINGS.started_with(limits))
