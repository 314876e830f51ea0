"""The SQL of topics on every implementation of the metadata port."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from fixtures.unusual_names import UNUSUAL_NAMES

from penstock.base.config_values import ConfigResource
from penstock.log import topic_store
from penstock.log.topic_store import StoredTopics, TopicRow

CLUSTER, SHARD = 1, 1


def row(name: str, partitions: int = 1, number: int = 1, **overrides: str) -> TopicRow:
    return TopicRow(
        topic_id=bytes([number]) * 16, name=name, partition_count=partitions, replication_factor=3,
        overrides={key.replace("_", "."): value for key, value in overrides.items()}, created_ms=1_700_000_000_000,
    )  # fmt: skip


async def create(database, *rows: TopicRow, cluster_id: int = CLUSTER) -> list[int | None]:
    return await database.transaction(lambda: topic_store.create(cluster_id, SHARD, rows))


async def load(database) -> StoredTopics:
    return await database.read(topic_store.load)


def partition_ids(stored: StoredTopics, topic_id: bytes) -> list[int]:
    return [facts[1] for facts in stored.partitions if bytes(facts[0]) == topic_id]


def plain(rows: Sequence[Sequence[object]]) -> list[tuple[object, ...]]:
    return [tuple(bytes(value) if isinstance(value, memoryview) else value for value in each) for each in rows]


async def test_what_is_created_is_loaded(database) -> None:
    orders, state = row("orders", 3), row("state", 1, 2, cleanup_policy="compact", retention_ms="5")
    first, second = await create(database, orders, state)
    stored = await load(database)
    assert sorted(plain(stored.topics)) == [
        (1, orders.topic_id, "orders", 3, 1_700_000_000_000),
        (1, state.topic_id, "state", 3, 1_700_000_000_000),
    ]
    assert partition_ids(stored, orders.topic_id) == [first, first + 1, first + 2]
    assert partition_ids(stored, state.topic_id) == [second]
    assert [tuple(facts[2:]) for facts in stored.partitions if facts[1] == first] == [(0, 0, 0, 0, 0, 0)]
    assert sorted(plain(stored.configs)) == [
        (1, 2, "state", "cleanup.policy", "compact"),
        (1, 2, "state", "retention.ms", "5"),
    ]


async def test_a_taken_name_is_refused_and_an_own_topic_is_recognised(database) -> None:
    (first,) = await create(database, row("orders", 2))
    assert await create(database, row("orders", 2, number=2), row("other", 1, 3)) == [None, first + 2]
    assert await create(database, row("orders", 2)) == [first]
    (elsewhere,) = await create(database, row("orders", 2, number=4), cluster_id=2)
    assert elsewhere == first + 3


async def test_agents_that_create_at_the_same_time_share_no_partition_id(database) -> None:
    firsts = await asyncio.gather(*(create(database, row(f"t{n}", 5, n)) for n in range(1, 13)))
    ids = [partition_id for facts in (await load(database)).partitions for partition_id in [facts[1]]]
    assert len(ids) == len(set(ids)) == 60
    assert sorted(first for (first,) in firsts) == list(range(min(ids), min(ids) + 60, 5))


async def test_agents_that_create_the_same_topic_make_one(database) -> None:
    answers = await asyncio.gather(*(create(database, row("same", 2, n)) for n in range(1, 9)))
    assert len([first for (first,) in answers if first is not None]) == 1
    assert len((await load(database)).partitions) == 2


async def test_partitions_are_added_once(database) -> None:
    orders = row("orders", 2)
    (first,) = await create(database, orders)
    await create(database, row("other", 1, 2))

    def grow(count: int):
        return database.transaction(lambda: topic_store.add_partitions(CLUSTER, SHARD, orders.topic_id, count))

    assert await grow(4) == [(0, first), (1, first + 1), (2, first + 3), (3, first + 4)]
    assert len(await grow(4)) == len(await grow(3)) == 4
    unknown = b"\xff" * 16
    assert await database.transaction(lambda: topic_store.add_partitions(CLUSTER, SHARD, unknown, 4)) is None


async def test_deletion_takes_everything_and_notes_the_partitions_once(database) -> None:
    orders, other = row("orders", 2, retention_ms="5"), row("other", 1, 2, retention_ms="6")
    await create(database, orders, other)
    ids = partition_ids(await load(database), orders.topic_id)
    for _ in range(2):
        await database.transaction(lambda: topic_store.delete(CLUSTER, [(orders.topic_id, "orders")], 7))
    stored = await load(database)
    assert [each[2] for each in stored.topics] == ["other"]
    assert plain(stored.configs) == [(1, 2, "other", "retention.ms", "6")]
    assert len(stored.partitions) == 1

    def noted():
        rows = yield "SELECT partition_id, deleted_ms FROM topic_deletion ORDER BY partition_id", ()
        return rows

    assert plain(await database.read(noted)) == [(ids[0], 7), (ids[1], 7)]


async def test_another_clusters_topics_cannot_be_deleted(database) -> None:
    orders = row("orders", 2)
    await create(database, orders)
    await database.transaction(lambda: topic_store.delete(2, [(orders.topic_id, "orders")], 7))
    assert len((await load(database)).partitions) == 2


async def test_what_has_a_configuration_has_any_name(database) -> None:
    async def alter(name: str, after: dict[str, str]) -> object:
        return await database.transaction(
            lambda: topic_store.alter_configs(CLUSTER, ConfigResource.GROUP, name, lambda before: {**before, **after})
        )

    for number, name in enumerate(UNUSUAL_NAMES.values()):
        await alter(name, {"a": str(number)})
    for number, name in enumerate(UNUSUAL_NAMES.values()):
        assert await alter(name, {"b": "a NUL \0"}) == {"a": str(number), "b": "a NUL \0"}
    stored = {(name, key): value for _, _, name, key, value in (await load(database)).configs}
    expected = {(name, "a"): str(number) for number, name in enumerate(UNUSUAL_NAMES.values())}
    assert stored == expected | {(name, "b"): "a NUL \0" for name in UNUSUAL_NAMES.values()}


async def test_configuration_is_changed_from_what_is_stored(database) -> None:
    def alter(change, name: str = "s"):
        return database.transaction(lambda: topic_store.alter_configs(CLUSTER, ConfigResource.GROUP, name, change))

    assert await alter(lambda before: {"a": "1"}) == {"a": "1"}
    assert await alter(lambda before: {**before, "b": "2"}) == {"a": "1", "b": "2"}
    assert await alter(lambda before: {"b": before["b"]}) == {"b": "2"}
    await alter(lambda before: {"c": "3"}, "other")
    assert sorted(plain((await load(database)).configs)) == [(1, 32, "other", "c", "3"), (1, 32, "s", "b", "2")]


async def test_log_starts_only_go_forward(database) -> None:
    (first,) = await create(database, row("orders", 2))

    async def starts(*marks: tuple[int, int], cluster_id: int = CLUSTER) -> list[int]:
        await database.transaction(lambda: topic_store.trim(cluster_id, marks))
        return [facts[4] for facts in (await load(database)).partitions]

    assert await starts((first, 5), (first + 1, 7)) == [5, 7]
    assert await starts((first, 3), (first + 1, 2**40)) == [5, 2**40]
    assert await starts((first, 9), cluster_id=2) == [5, 2**40]


async def test_producer_ids_are_given_once(database) -> None:
    firsts = await asyncio.gather(
        *(database.transaction(lambda: topic_store.take_producer_ids(1000)) for _ in range(8))
    )
    start = min(firsts)
    assert sorted(firsts) == [start + 1000 * number for number in range(8)]
