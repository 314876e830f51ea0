"""DescribeConfigs, AlterConfigs, IncrementalAlterConfigs: code by code."""

from __future__ import annotations

import logging

import pytest
from admin_world import World, ask

from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages import alter_configs, incremental_alter_configs
from penstock.wire.messages.describe_configs import DescribeConfigsRequest, DescribeConfigsResource
from penstock.wire.messages.list_config_resources import ListConfigResourcesRequest

TOPIC, BROKER, LOGGER, CLIENT_METRICS, GROUP = 2, 4, 8, 16, 32
SET, DELETE, APPEND, SUBTRACT = 0, 1, 2, 3


async def describe(world: World, kind: int, name: str, keys: list[str] | None = None, version: int = 4, **options):
    resource = DescribeConfigsResource(resource_type=kind, resource_name=name, configuration_keys=keys)
    request = DescribeConfigsRequest(resources=[resource], **options)
    (result,) = (await ask(world.config_api.describe_configs, request, version)).results
    assert (result.resource_type, result.resource_name) == (kind, name)
    return result


async def values(world: World, kind: int, name: str) -> dict[str, str | None]:
    return {entry.name: entry.value for entry in (await describe(world, kind, name)).configs}


async def edit(world: World, kind: int, name: str, *changes: tuple[str, int, str | None], validate_only: bool = False):
    configs = [
        incremental_alter_configs.AlterableConfig(name=key, config_operation=operation, value=value)
        for key, operation, value in changes
    ]
    resource = incremental_alter_configs.AlterConfigsResource(resource_type=kind, resource_name=name, configs=configs)
    request = incremental_alter_configs.IncrementalAlterConfigsRequest(
        resources=[resource], validate_only=validate_only
    )
    (response,) = (await ask(world.config_api.incremental_alter_configs, request, 1)).responses
    return response.error_code


async def replace(world: World, kind: int, name: str, *changes: tuple[str, str | None], version: int = 2):
    configs = [alter_configs.AlterableConfig(name=key, value=value) for key, value in changes]
    resource = alter_configs.AlterConfigsResource(resource_type=kind, resource_name=name, configs=configs)
    request = alter_configs.AlterConfigsRequest(resources=[resource])
    (response,) = (await ask(world.config_api.alter_configs, request, version)).responses
    return response.error_code


@pytest.mark.parametrize("version", range(1, 5))
async def test_describe_a_topic_in_every_version(version: int) -> None:
    world = World()
    await world.topic("orders", overrides={"retention.ms": "5"})
    options = {"include_synonyms": True, "include_documentation": True}
    result = await describe(world, TOPIC, "orders", version=version, **options)
    assert (result.error_code, len(result.configs)) == (0, 37)
    entry = next(e for e in result.configs if e.name == "retention.ms")
    assert (entry.value, entry.config_source, entry.read_only, entry.is_sensitive) == ("5", 1, False, False)
    assert [(s.name, s.value, s.source) for s in entry.synonyms] == [
        ("retention.ms", "5", 1),
    ]  # fmt: skip
    if version >= 3:
        assert entry.config_type == 5
        assert entry.documentation
    plain = await describe(world, TOPIC, "orders", version=version)
    assert all(not e.synonyms and not e.documentation for e in plain.configs)


async def test_the_source_of_a_topics_value_is_where_it_was_set() -> None:
    world = World(log_segment_bytes="2000000")
    await world.topic("orders")

    async def source(name: str) -> tuple[str | None, int, list[tuple[str, str | None, int]]]:
        (entry,) = (await describe(world, TOPIC, "orders", [name], include_synonyms=True)).configs
        return entry.value, entry.config_source, [(s.name, s.value, s.source) for s in entry.synonyms]

    assert await source("segment.bytes") == (
        "2000000", 4, [("log.segment.bytes", "2000000", 4), ("log.segment.bytes", "1073741824", 5)],
    )  # fmt: skip
    assert await edit(world, BROKER, "", ("log.segment.bytes", SET, "3000000")) == 0
    assert (await source("segment.bytes"))[:2] == ("3000000", 3)
    assert await edit(world, BROKER, "1", ("log.segment.bytes", SET, "4000000")) == 0
    assert (await source("segment.bytes"))[:2] == ("4000000", 2)
    assert await edit(world, TOPIC, "orders", ("segment.bytes", SET, "5000000")) == 0
    assert [s[2] for s in (await source("segment.bytes"))[2]] == [1, 2, 3, 4, 5]
    assert (await source("leader.replication.throttled.replicas"))[1:] == (5, [])


@pytest.mark.parametrize(
    ("kind", "name", "code"),
    [
        (TOPIC, "nowhere", 3),
        (TOPIC, "bad name", 17),
        (TOPIC, "", 17),
        (BROKER, "2", 42),
        (BROKER, "one", 42),
        (LOGGER, "", 42),
        (LOGGER, "2", 42),
        (GROUP, "", 42),
        (GROUP, "never-seen", 0),
        (CLIENT_METRICS, "", 42),
        (CLIENT_METRICS, "sub", 0),
        (0, "x", 42),
        (1, "x", 42),
        (64, "x", 42),
        (-1, "x", 42),
    ],
)
async def test_describing_what_is_not_there(kind: int, name: str, code: int) -> None:
    result = await describe(World(), kind, name)
    assert result.error_code == code
    assert (not result.error_message) == (code == 0)
    assert bool(result.configs) == (code == 0)


async def test_a_default_in_another_unit_is_shown_once_the_asked_unit_was_set() -> None:
    world = World(log_retention_hours="24")
    await world.topic("orders")

    async def shown(kind: int, name: str, key: str) -> tuple[str | None, int, list[tuple[str, int]]]:
        (entry,) = (await describe(world, kind, name, [key], include_synonyms=True)).configs
        return entry.value, entry.config_source, [(s.name, s.source) for s in entry.synonyms]

    hours = [("log.retention.hours", 4), ("log.retention.hours", 5)]
    assert await shown(TOPIC, "orders", "retention.ms") == ("86400000", 5, [])
    assert await shown(BROKER, "1", "log.retention.ms") == (None, 5, [])
    assert await shown(BROKER, "1", "log.retention.hours") == ("24", 4, hours)
    await edit(world, BROKER, "", ("log.retention.ms", SET, "5"))
    assert await shown(TOPIC, "orders", "retention.ms") == ("5", 3, [("log.retention.ms", 3), *hours])
    assert await shown(BROKER, "1", "log.retention.ms") == ("5", 3, [("log.retention.ms", 3), *hours])


async def test_a_group_shows_which_broker_settings_its_defaults_have() -> None:
    entries = {e.name: e for e in (await describe(World(), GROUP, "g", include_synonyms=True)).configs}
    assert [s.name for s in entries["consumer.session.timeout.ms"].synonyms] == ["group.consumer.session.timeout.ms"]
    assert [s.name for s in entries["share.isolation.level"].synonyms] == ["share.isolation.level"]
    assert "streams.num.warmup.replicas" not in entries, "shown only where it was set"
    assert (entries["streams.assignor.name"].value, entries["streams.assignor.name"].synonyms[0].name) == (
        "sticky", "group.streams.assignors",
    )  # fmt: skip


async def test_a_group_shows_where_its_broker_was_told_what_counts() -> None:
    world = World(group_consumer_session_timeout_ms="50000")

    async def shown(key: str) -> tuple[str | None, int, list[tuple[str, str | None, int]]]:
        (entry,) = (await describe(world, GROUP, "g", [key], include_synonyms=True)).configs
        return entry.value, entry.config_source, [(s.name, s.value, s.source) for s in entry.synonyms]

    broker = "group.consumer.session.timeout.ms"
    told = [(broker, "50000", 4), (broker, "45000", 5)]
    assert await shown("consumer.session.timeout.ms") == ("50000", 4, told)
    await edit(world, BROKER, "", ("group.consumer.assignment.interval.ms", SET, "900"))
    altered = [("group.consumer.assignment.interval.ms", text, source) for text, source in (("900", 3), ("1000", 5))]
    assert await shown("consumer.assignment.interval.ms") == ("900", 3, altered)
    await edit(world, GROUP, "g", ("consumer.session.timeout.ms", SET, "46000"))
    own = ("consumer.session.timeout.ms", "46000", 8)
    assert await shown("consumer.session.timeout.ms") == ("46000", 8, [own, *told])


async def test_values_are_looked_at_before_whether_there_is_the_topic() -> None:
    world = World()
    assert await edit(world, TOPIC, "nowhere", ("nobody.knows", SET, "x")) == 40
    assert await edit(world, TOPIC, "nowhere", ("retention.ms", SET, "1")) == 3
    assert await edit(world, TOPIC, "", ("retention.ms", SET, "1")) == 42


async def test_a_list_does_not_get_nothing_appended() -> None:
    world = World()
    await world.topic("orders")
    assert await edit(world, TOPIC, "orders", ("cleanup.policy", 2, "")) == 40
    assert await edit(world, TOPIC, "orders", ("cleanup.policy", 3, "")) == 0


async def test_a_broker_shows_its_settings_and_what_can_be_changed() -> None:
    world = World(num_partitions="3")
    entries = {e.name: e for e in (await describe(world, BROKER, "1", include_synonyms=True)).configs}
    assert (entries["num.partitions"].value, entries["num.partitions"].config_source) == ("3", 4)
    assert entries["num.partitions"].read_only
    assert not entries["log.retention.ms"].read_only
    assert (entries["log.retention.ms"].value, entries["log.retention.hours"].value) == (None, "168")
    assert (entries["delete.topic.enable"].value, entries["auto.create.topics.enable"].value) == ("true", "true")
    assert (entries["node.id"].value, entries["broker.id"].value) == ("1", "1")
    assert (await describe(world, BROKER, "")).configs == []
    await edit(world, BROKER, "", ("log.retention.ms", SET, "5"))
    (entry,) = (await describe(world, BROKER, "")).configs
    assert (entry.name, entry.value, entry.config_source) == ("log.retention.ms", "5", 3)


async def test_only_the_keys_asked_for_are_shown() -> None:
    world = World()
    await world.topic("orders")
    result = await describe(world, TOPIC, "orders", ["retention.ms", "nonsense"])
    assert [e.name for e in result.configs] == ["retention.ms"]
    assert len((await describe(world, TOPIC, "orders", [])).configs) == 37


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ([("retention.ms", SET, "5")], 0),
        ([("retention.ms", DELETE, None)], 0),
        ([("retention.ms", APPEND, "5")], 40),
        ([("retention.ms", SUBTRACT, "5")], 40),
        ([("no.such.key", SET, "5")], 40),
        ([("no.such.key", APPEND, "5")], 40),
        ([("no.such.key", DELETE, None)], 0),
        ([("retention.ms", SET, "soon")], 40),
        ([("retention.ms", SET, None)], 42),
        ([("cleanup.policy", APPEND, None)], 42),
        ([("retention.ms", SET, "5"), ("retention.ms", SET, "6")], 42),
        ([("retention.ms", 4, "5")], 42),
        ([("retention.ms", -1, "5")], 42),
        ([("cleanup.policy", APPEND, "nonsense")], 40),
        ([("min.compaction.lag.ms", SET, "5"), ("max.compaction.lag.ms", SET, "4")], 40),
    ],
)
async def test_incremental_answers_for_a_topic(changes: list[tuple[str, int, str | None]], code: int) -> None:
    world = World()
    topic = await world.topic("orders")
    assert await edit(world, TOPIC, "orders", *changes, validate_only=True) == code
    assert topic.overrides == {}
    assert await edit(world, TOPIC, "orders", *changes) == code
    expected = {name: value for name, operation, value in changes if code == 0 and operation == SET}
    assert topic.overrides == expected
    assert (await world.restarted()).registry.by_name(1, "orders").overrides == expected


async def test_lists_are_appended_to_and_taken_from_starting_with_the_default() -> None:
    world = World()
    topic = await world.topic("orders")
    for operation, words, expected in (
        (APPEND, "compact", "delete,compact"),
        (APPEND, "compact,delete", "delete,compact"),
        (SUBTRACT, "delete", "compact"),
        (SUBTRACT, "delete,compact", ""),
        (APPEND, "delete", "delete"),
    ):
        assert await edit(world, TOPIC, "orders", ("cleanup.policy", operation, words)) == 0
        assert topic.overrides == {"cleanup.policy": expected}
    assert await edit(world, TOPIC, "orders", ("cleanup.policy", DELETE, None)) == 0
    assert topic.overrides == {}
    assert topic.config.delete


@pytest.mark.parametrize(
    ("kind", "name", "change", "code"),
    [
        (TOPIC, "nowhere", ("retention.ms", SET, "5"), 3),
        (TOPIC, "", ("retention.ms", SET, "5"), 42),
        (BROKER, "", ("log.retention.ms", SET, "5"), 0),
        (BROKER, "1", ("log.retention.ms", SET, "5"), 0),
        (BROKER, "2", ("log.retention.ms", SET, "5"), 42),
        (BROKER, "", ("group.consumer.assignment.interval.ms", SET, "900"), 0),
        (BROKER, "1", ("group.share.assignment.interval.ms", SET, "20000"), 42),
        (BROKER, "", ("group.streams.assignment.interval.ms", SET, "20000"), 42),
        (BROKER, "", ("group.streams.assignment.interval.ms", SET, "-1"), 42),
        (BROKER, "", ("num.partitions", SET, "5"), 42),
        (BROKER, "", ("log.retention.ms", SET, "soon"), 42),
        (BROKER, "", ("log.cleaner.max.compaction.lag.ms", SET, "0"), 42),
        (BROKER, "", ("no.such.setting", SET, "5"), 40),
        (BROKER, "", ("log.retention.ms", APPEND, "5"), 40),
        (BROKER, "", ("log.cleanup.policy", APPEND, "compact"), 0),
        (GROUP, "g", ("consumer.session.timeout.ms", SET, "50000"), 0),
        (GROUP, "g", ("share.auto.offset.reset", SET, "by_duration:PT1H"), 0),
        (GROUP, "g", ("share.auto.offset.reset", SET, "by_duration:P"), 40),
        (GROUP, "g", ("no.such.key", SET, "5"), 40),
        (GROUP, "g", ("consumer.session.timeout.ms", SET, "0"), 40),
        (GROUP, "", ("consumer.session.timeout.ms", SET, "5"), 42),
        (GROUP, "g", ("streams.rack.aware.assignment.tags", APPEND, "zone"), 40),
        (GROUP, "g", ("streams.num.warmup.replicas", SET, "20"), 0),
        (GROUP, "g", ("streams.num.warmup.replicas", SET, "21"), 40),
        (GROUP, "g", ("streams.task.offset.interval.ms", SET, "15000"), 0),
        (GROUP, "g", ("streams.task.offset.interval.ms", SET, "14999"), 40),
        (GROUP, "g", ("consumer.assignor.offload.enable", SET, "false"), 0),
        (CLIENT_METRICS, "s", ("interval.ms", SET, "1000"), 0),
        (CLIENT_METRICS, "s", ("interval.ms", SET, "99"), 42),
        (CLIENT_METRICS, "s", ("interval.ms", SET, "soon"), 40),
        (CLIENT_METRICS, "s", ("metrics", APPEND, "org.apache"), 40),
        (CLIENT_METRICS, "s", ("match", SUBTRACT, "client_id=a"), 40),
        (CLIENT_METRICS, "s", ("no.such.key", SET, "5"), 42),
        (CLIENT_METRICS, "s", ("match", SET, "client_id=app.*"), 0),
        (CLIENT_METRICS, "s", ("match", SET, "client_id=("), 40),
        (CLIENT_METRICS, "s", ("match", SET, "shoe_size=9"), 40),
        (CLIENT_METRICS, "", ("interval.ms", SET, "1000"), 42),
        (0, "x", ("a", SET, "b"), 42),
        (3, "x", ("a", SET, "b"), 42),
    ],
)
async def test_incremental_answers_by_resource(kind: int, name: str, change: tuple[str, int, str], code: int) -> None:
    world = World()
    assert await edit(world, kind, name, change, validate_only=True) == code
    assert world.database.rows("SELECT * FROM config") == []
    assert await edit(world, kind, name, change) == code
    if code == 0 and change[1] == SET:
        assert (await values(await world.restarted(), kind, name))[change[0]] == change[2]


async def test_a_resource_named_twice_is_refused() -> None:
    world = World()
    await world.topic("orders")
    resource = incremental_alter_configs.AlterConfigsResource(resource_type=TOPIC, resource_name="orders")
    request = incremental_alter_configs.IncrementalAlterConfigsRequest(resources=[resource, resource])
    response = await ask(world.config_api.incremental_alter_configs, request, 0)
    assert [r.error_code for r in response.responses] == [42, 42]
    old = alter_configs.AlterConfigsResource(resource_type=TOPIC, resource_name="orders")
    response = await ask(world.config_api.alter_configs, alter_configs.AlterConfigsRequest(resources=[old, old]), 0)
    assert [r.error_code for r in response.responses] == [42, 42]


@pytest.mark.parametrize("version", range(3))
async def test_alter_configs_replaces_everything(version: int) -> None:
    world = World()
    topic = await world.topic("orders", overrides={"retention.ms": "5", "segment.ms": "6"})
    assert await replace(world, TOPIC, "orders", ("retention.bytes", "7"), version=version) == 0
    assert topic.overrides == {"retention.bytes": "7"}
    assert topic.config.retention_ms == 604_800_000
    assert await replace(world, TOPIC, "orders", version=version) == 0
    assert topic.overrides == {}


@pytest.mark.parametrize(
    ("kind", "name", "changes", "code"),
    [
        (TOPIC, "nowhere", [("retention.ms", "5")], 3),
        (TOPIC, "orders", [("retention.ms", None)], 42),
        (TOPIC, "orders", [("retention.ms", "5"), ("retention.ms", "5")], 42),
        (TOPIC, "orders", [("no.such.key", "5")], 40),
        (TOPIC, "orders", [("retention.ms", "soon")], 40),
        (BROKER, "1", [("num.partitions", "5")], 42),
        (BROKER, "", [("log.retention.ms", "5")], 0),
        (LOGGER, "1", [("root", "INFO")], 42),
    ],
)
async def test_alter_configs_answers(kind: int, name: str, changes: list, code: int) -> None:
    world = World()
    topic = await world.topic("orders", overrides={"segment.ms": "6"})
    assert await replace(world, kind, name, *changes) == code
    assert topic.overrides == {"segment.ms": "6"}


async def test_a_database_that_is_away_is_told_as_a_code_to_retry() -> None:
    world = World()
    await world.topic("orders")
    world.database.down = True
    assert await edit(world, TOPIC, "orders", ("retention.ms", SET, "5")) == ErrorCode.NOT_CONTROLLER


@pytest.fixture
def noisy():
    logger = logging.getLogger("penstock.test.noisy")
    yield logger
    logger.setLevel(logging.NOTSET)


async def test_log_levels_are_shown_and_changed(noisy: logging.Logger) -> None:
    world = World()
    noisy.setLevel(logging.WARNING)
    shown = {e.name: (e.value, e.config_source) for e in (await describe(world, LOGGER, "1")).configs}
    assert shown["penstock.test.noisy"] == ("WARN", 6)
    assert "root" in shown
    assert await edit(world, LOGGER, "1", (noisy.name, SET, "DEBUG"), validate_only=True) == 0
    assert noisy.level == logging.WARNING
    assert await edit(world, LOGGER, "1", (noisy.name, SET, "DEBUG")) == 0
    assert noisy.level == logging.DEBUG
    assert await edit(world, LOGGER, "1", (noisy.name, DELETE, None)) == 0
    assert noisy.level == logging.NOTSET


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (("no.such.logger", SET, "DEBUG"), 40),
        (("root", SET, "LOUD"), 40),
        (("root", DELETE, None), 42),
        (("root", APPEND, "DEBUG"), 42),
    ],
)
async def test_log_levels_that_cannot_be(change: tuple[str, int, str | None], code: int) -> None:
    assert await edit(World(), LOGGER, "1", change) == code


# ---- what there is --------------------------------------------------------------------------------------------------


async def listed(world: World, version: int, *kinds: int) -> list[tuple[int, str]] | int:
    request = ListConfigResourcesRequest(resource_types=list(kinds))
    response = await ask(world.config_api.list_config_resources, request, version)
    found = [(resource.resource_type, resource.resource_name) for resource in response.config_resources]
    return response.error_code or found


async def test_resources_of_every_type_are_listed() -> None:
    world = World()
    await world.topic("orders")
    for kind, name, key in ((GROUP, "g2", "share.session.timeout.ms"), (GROUP, "g1", "share.session.timeout.ms")):
        await edit(world, kind, name, (key, SET, "50000"))
    await edit(world, CLIENT_METRICS, "sub", ("interval.ms", SET, "1000"))
    await edit(world, CLIENT_METRICS, "gone", ("interval.ms", SET, "1000"))
    await edit(world, CLIENT_METRICS, "gone", ("interval.ms", DELETE, None))
    assert await listed(world, 0) == [(CLIENT_METRICS, "sub")]
    assert await listed(world, 1, GROUP, CLIENT_METRICS) == [(GROUP, "g1"), (GROUP, "g2"), (CLIENT_METRICS, "sub")]
    assert sorted(await listed(world, 1)) == [
        (TOPIC, "orders"), (BROKER, "1"), (LOGGER, "1"), (CLIENT_METRICS, "sub"), (GROUP, "g1"), (GROUP, "g2"),
    ]  # fmt: skip
    assert await listed(await world.restarted(), 0) == [(CLIENT_METRICS, "sub")]


@pytest.mark.parametrize("kind", [0, 3, 64, -1])
async def test_there_are_no_resources_of_other_types(kind: int) -> None:
    assert await listed(World(), 1, TOPIC, kind) == ErrorCode.UNSUPPORTED_VERSION


async def test_an_answer_has_room_for_so_many_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request may name the same resource a hundred thousand times."""
    monkeypatch.setattr("penstock.log.admin.configs.DESCRIBED_MAX", 50)
    world = World()
    await world.topic("orders")
    resources = [DescribeConfigsResource(resource_type=TOPIC, resource_name="orders") for _ in range(4)]
    results = (await ask(world.config_api.describe_configs, DescribeConfigsRequest(resources=resources), 4)).results
    assert [result.error_code for result in results] == [0, 0, ErrorCode.POLICY_VIOLATION, ErrorCode.POLICY_VIOLATION]
    assert [bool(result.configs) for result in results] == [True, True, False, False]


async def test_only_so_many_groups_are_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever may configure groups chooses their names."""
    monkeypatch.setattr("penstock.log.topics.MAX_CONFIGURED_OF_OTHERS", 2)
    world, setting = World(), ("consumer.session.timeout.ms", SET, "50000")
    assert [await edit(world, GROUP, name, setting) for name in ("a", "b", "c", "a")] == [0, 0, 44, 0]
    restarted = await world.restarted()
    assert await edit(restarted, GROUP, "c", setting) == 44
    assert await edit(restarted, GROUP, "a", ("consumer.session.timeout.ms", DELETE, None)) == 0
    assert await edit(restarted, GROUP, "c", setting) == 0
    assert restarted.topics.configured(1, GROUP) == ["b", "c"]
    assert restarted.topics.configured(2, GROUP) == []


async def test_only_so_many_subscriptions_to_metrics_of_clients() -> None:
    """Each client is compared with all of them."""
    world = World()
    codes = [await edit(world, CLIENT_METRICS, f"s{number}", ("metrics", SET, "*")) for number in range(101)]
    assert codes == [0] * 100 + [44]
    patterns = ",".join(f"client_id=a{number}" for number in range(21))
    assert await edit(world, CLIENT_METRICS, "s1", ("match", SET, patterns)) == 40


async def test_a_list_grows_no_longer_than_a_string_and_costs_no_more() -> None:
    """What is appended is compared with what is there: with thousands of words each time."""
    world, key = World(), "follower.replication.throttled.replicas"
    await world.topic("orders")
    many = [",".join(f"{first}:{number}" for number in range(2_000)) for first in range(9)]
    codes = [await edit(world, TOPIC, "orders", (key, APPEND, words)) for words in many]
    assert codes == [0, 0, 40, 40, 40, 40, 40, 40, 40]
    assert len((await values(world, TOPIC, "orders"))[key].split(",")) == 4_000
    assert await edit(world, TOPIC, "orders", (key, SUBTRACT, many[0])) == 0
    assert (await values(world, TOPIC, "orders"))[key] == many[1]
