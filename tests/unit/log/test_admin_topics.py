"""CreateTopics, CreatePartitions, DeleteTopics: code by code."""

from __future__ import annotations

import pytest
from admin_world import World, ask

from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages.create_partitions import (
    CreatePartitionsAssignment,
    CreatePartitionsRequest,
    CreatePartitionsTopic,
)
from penstock.wire.messages.create_topics import (
    CreatableReplicaAssignment,
    CreatableTopic,
    CreatableTopicConfig,
    CreateTopicsRequest,
)
from penstock.wire.messages.delete_topics import DeleteTopicsRequest, DeleteTopicState


def wanted(name: str = "t", partitions: int = 1, factor: int = 1, **options) -> CreatableTopic:
    configs = [CreatableTopicConfig(name=key, value=value) for key, value in options.pop("configs", {}).items()]
    assignments = [
        CreatableReplicaAssignment(partition_index=index, broker_ids=brokers)
        for index, brokers in options.pop("assignments", [])
    ]
    return CreatableTopic(
        name=name, num_partitions=partitions, replication_factor=factor, configs=configs, assignments=assignments
    )


async def create(world: World, *topics: CreatableTopic, version: int = 7, validate_only: bool = False):
    request = CreateTopicsRequest(topics=list(topics), validate_only=validate_only)
    return (await ask(world.topic_api.create_topics, request, version)).topics


@pytest.mark.parametrize("version", range(2, 8))
async def test_create_topics_in_every_version(version: int) -> None:
    world = World()
    (result,) = await create(world, wanted("orders", 3, 1, configs={"retention.ms": "5"}), version=version)
    topic = world.registry.by_name(1, "orders")
    assert topic is not None
    assert (result.name, result.error_code, result.error_message) == ("orders", 0, None)
    assert len(topic.partitions) == 3
    if version >= 5:
        assert (result.num_partitions, result.replication_factor) == (3, 1)
        assert len(result.configs) == 37
        assert [c.name for c in result.configs] == sorted(c.name for c in result.configs)
        sources = {c.name: (c.value, c.config_source) for c in result.configs}
        assert sources["retention.ms"] == ("5", 1)
        assert sources["segment.bytes"] == ("1073741824", 5)
    if version >= 7:
        assert result.topic_id == topic.topic_id


@pytest.mark.parametrize(
    ("topic", "code"),
    [
        (wanted("new", 1, 3), 0),  # Any replication factor is taken: nothing is replicated by us.
        (wanted("new", -1, -1), 0),
        (wanted("new", 1, 0), 38),
        (wanted("new", 1, -2), 38),
        (wanted("new", 0, 1), 37),
        (wanted("new", -2, 1), 37),
        (wanted("taken"), 36),
        (wanted("bad name"), 17),
        (wanted(""), 17),
        (wanted("x" * 250), 17),
        (wanted("col.lision"), 17),
        (wanted("new", configs={"retention.ms": "soon"}), 40),
        (wanted("new", configs={"no.such.key": "1"}), 40),
        (wanted("new", configs={"retention.ms": None}), 40),
        (wanted("new", 10_001), 44),
        (wanted("new", -1, -1, assignments=[(0, [1]), (1, [1])]), 0),
        (wanted("new", -1, 1, assignments=[(0, [1])]), 42),
        (wanted("new", 1, -1, assignments=[(0, [1])]), 42),
        (wanted("new", -1, -1, assignments=[(0, [1]), (1, [9])]), 39),
        (wanted("new", -1, -1, assignments=[(0, [1, 1])]), 39),
        (wanted("new", -1, -1, assignments=[(0, [])]), 39),
        (wanted("new", -1, -1, assignments=[(0, [1]), (2, [1])]), 39),
        (wanted("new", -1, -1, assignments=[(0, [1]), (0, [1])]), 39),
        (wanted("__cluster_metadata"), 42),
    ],
)
async def test_create_topics_answers(topic: CreatableTopic, code: int) -> None:
    world = World()
    await world.topic("taken")
    await world.topic("col_lision")
    (result,) = await create(world, topic)
    assert result.error_code == code, result.error_message
    assert (world.registry.by_name(1, "new") is not None) == (code == 0)
    if code:
        assert (result.num_partitions, result.replication_factor, result.topic_id) == (-1, -1, bytes(16))
        assert result.error_message


async def test_create_topics_refuses_a_name_given_twice_and_makes_the_others() -> None:
    world = World()
    results = await create(world, wanted("a"), wanted("twice"), wanted("twice"))
    assert [(r.name, r.error_code) for r in results] == [("a", 0), ("twice", ErrorCode.INVALID_REQUEST)]
    assert world.heard.created == ["a"]


async def test_create_topics_leaves_open_numbers_to_the_settings_and_echoes_the_replication_factor() -> None:
    world = World(num_partitions="6", default_replication_factor="3")
    (result,) = await create(world, wanted("open", -1, -1))
    assert (result.num_partitions, result.replication_factor) == (6, 3)
    (result,) = await create(world, wanted("asked", 2, 5))
    assert (result.num_partitions, result.replication_factor) == (2, 5)
    assert (await world.restarted()).registry.by_name(1, "asked").replication_factor == 5


async def test_create_topics_can_only_look() -> None:
    world = World()
    await world.topic("taken")
    results = await create(world, wanted("new", 2), wanted("taken"), wanted("bad", 0), validate_only=True)
    assert [r.error_code for r in results] == [0, 36, 37]
    assert world.heard.created == ["taken"]


async def test_create_topics_tells_clients_to_try_again_while_the_database_is_away() -> None:
    world = World()
    world.database.down = True
    (result,) = await create(world, wanted("new"))
    assert result.error_code == ErrorCode.NOT_CONTROLLER


async def grow(world: World, *topics: CreatePartitionsTopic, version: int = 3, validate_only: bool = False):
    request = CreatePartitionsRequest(topics=list(topics), validate_only=validate_only)
    response = await ask(world.topic_api.create_partitions, request, version)
    return [(result.name, result.error_code) for result in response.results]


def to(name: str, count: int, *assignments: list[int]) -> CreatePartitionsTopic:
    given = [CreatePartitionsAssignment(broker_ids=ids) for ids in assignments] if assignments else None
    return CreatePartitionsTopic(name=name, count=count, assignments=given)


@pytest.mark.parametrize("version", range(4))
async def test_create_partitions_in_every_version(version: int) -> None:
    world = World()
    topic = await world.topic("orders", 2)
    assert await grow(world, to("orders", 4), version=version) == [("orders", 0)]
    assert [p.index for p in topic.partitions] == [0, 1, 2, 3]
    assert world.registry.partition(topic.partitions[3].partition_id) is topic.partitions[3]


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (to("orders", 2), 37),
        (to("orders", 1), 37),
        (to("orders", -1), 37),
        (to("nowhere", 3), 3),
        (to("orders", 3, [1]), 0),
        (to("orders", 3, [1], [1]), 39),
        (to("orders", 3, [9]), 39),
        (to("orders", 20_000), 44),
    ],
)
async def test_create_partitions_answers(request_: CreatePartitionsTopic, code: int) -> None:
    world = World()
    topic = await world.topic("orders", 2)
    assert await grow(world, request_, validate_only=True) == [(request_.name, code)]
    assert len(topic.partitions) == 2
    assert await grow(world, request_) == [(request_.name, code)]
    assert len(topic.partitions) == (3 if code == 0 else 2)


async def test_create_partitions_refuses_a_name_given_twice() -> None:
    world = World()
    await world.topic("orders")
    assert await grow(world, to("orders", 2), to("orders", 3)) == [("orders", 42)]


@pytest.mark.parametrize("version", range(1, 7))
async def test_delete_topics_by_name_in_every_version(version: int) -> None:
    world = World()
    await world.topic("orders")
    if version < 6:
        request = DeleteTopicsRequest(topic_names=["orders", "nowhere"])
    else:
        request = DeleteTopicsRequest(topics=[DeleteTopicState(name="orders"), DeleteTopicState(name="nowhere")])
    response = await ask(world.topic_api.delete_topics, request, version)
    assert sorted((r.name, r.error_code) for r in response.responses) == [("nowhere", 3), ("orders", 0)]
    assert world.registry.all(1) == []


async def test_delete_topics_by_id() -> None:
    world = World()
    topic = await world.topic("orders")
    stranger = b"\x07" * 16
    states = [
        DeleteTopicState(topic_id=topic.topic_id),
        DeleteTopicState(topic_id=stranger),
        DeleteTopicState(),
        DeleteTopicState(name="orders", topic_id=topic.topic_id),
    ]
    response = await ask(world.topic_api.delete_topics, DeleteTopicsRequest(topics=states[1:]), 6)
    assert [(r.name, r.error_code) for r in response.responses] == [(None, 100), (None, 42), ("orders", 42)]
    response = await ask(world.topic_api.delete_topics, DeleteTopicsRequest(topics=states[:1]), 6)
    assert [(r.name, r.topic_id, r.error_code) for r in response.responses] == [("orders", topic.topic_id, 0)]


async def test_delete_topics_refuses_repetition_and_what_is_switched_off() -> None:
    world = World()
    await world.topic("orders")
    request = DeleteTopicsRequest(topic_names=["orders", "orders"])
    response = await ask(world.topic_api.delete_topics, request, 5)
    assert {r.error_code for r in response.responses} == {42}
    closed = World(delete_topic_enable="false")
    await closed.topic("orders")
    for version, code in ((1, 42), (2, 42), (3, 73), (5, 73)):
        response = await ask(closed.topic_api.delete_topics, DeleteTopicsRequest(topic_names=["orders"]), version)
        assert [r.error_code for r in response.responses] == [code]
    assert closed.registry.by_name(1, "orders") is not None


@pytest.mark.parametrize("validate_only", [False, True])
async def test_a_request_for_too_many_partitions_makes_none(validate_only: bool) -> None:
    """As in Kafka, where it is looked at before anything else: each topic is answered with dozens of values."""
    world = World()
    names = [wanted(f"t{number}", 5_000) for number in range(2)]
    more = [*names, wanted("t3", -1, -1)]
    results = await create(world, *more, validate_only=validate_only)
    assert [result.error_code for result in results] == [ErrorCode.POLICY_VIOLATION] * 3
    assert world.registry.names(1) == []
    assert [result.error_code for result in await create(world, *names, validate_only=True)] == [0, 0]


async def test_a_request_adds_only_so_many_partitions() -> None:
    world = World()
    for name in ("a", "b"):
        await world.topic(name)
    topics = [CreatePartitionsTopic(name=name, count=6_000, assignments=None) for name in ("a", "b")]
    answer = await ask(world.topic_api.create_partitions, CreatePartitionsRequest(topics=topics), 3)
    assert [result.error_code for result in answer.results] == [0, ErrorCode.POLICY_VIOLATION]
    assert world.registry.partition_total(1) == 6_001
