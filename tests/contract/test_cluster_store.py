"""The SQL of virtual clusters and environments, on every database; and the service over it."""

from __future__ import annotations

from typing import Any

import pytest
from fixtures.clocks import ManualClock

from penstock.agent.change_poller import ChangePoller
from penstock.base.clock import SystemClock
from penstock.base.errors import Unavailable
from penstock.base.randomness import SeededRandomness
from penstock.clusters import store
from penstock.clusters.failures import AlreadyExists, Forbidden, NotFound
from penstock.clusters.model import Environment
from penstock.clusters.removal import RETRY_S, ROWS, ROWS_AT_ONCE, SETTLE_S, ClusterRemoval, ClusterRows, remove_rows
from penstock.clusters.service import Clusters


async def twice(database: Any, script: Any) -> Any:
    """A script's first answer, when a lost commit has it run again."""
    first = await database.transaction(script)
    assert await database.transaction(script) == first
    return first


async def test_two_clusters_are_always_there(database: Any) -> None:
    await twice(database, lambda: store.create_permanent("platform-id", "default-id", 1, 7))
    await database.transaction(lambda: store.create_permanent("another", "another", 1, 8))
    stored = await database.read(store.load)
    assert [(found.cluster_id, found.name, found.kafka_id, found.created_ms) for found in stored.clusters] == [
        (0, "platform", "platform-id", 7), (1, "default", "default-id", 7),
    ]  # fmt: skip
    assert stored.environments == [Environment(name="default", created_ms=7)]


async def test_clusters_come_change_and_go(database: Any) -> None:
    await database.transaction(lambda: store.create_permanent("p", "d", 1, 7))
    made = await twice(
        database, lambda: store.create("acme", "id-a", "default", "ours", {"partitions": 9.0}, shard_id=1, now_ms=8)
    )
    other = await twice(database, lambda: store.create("zeta", "id-z", "default", "", {}, shard_id=1, now_ms=8))
    assert 1 < made < other
    taken = store.create("acme", "id-b", "default", "", {}, shard_id=1, now_ms=9)
    assert await database.transaction(lambda: taken) is None
    nowhere = store.create("new", "id-n", "nowhere", "", {}, shard_id=1, now_ms=9)
    assert await database.transaction(lambda: nowhere) is None
    await twice(database, lambda: store.alter(made, None, {"partitions": 10.0, "groups": 3.0}))
    await twice(database, lambda: store.alter(made, "theirs", {"partitions": None}))
    await twice(database, lambda: store.begin_deletion(other, 11))
    await database.transaction(lambda: store.begin_deletion(other, 12))
    acme, zeta = (await database.read(store.load)).clusters[2:]
    assert (acme.description, acme.limits, acme.deleted_ms) == ("theirs", {"groups": 3.0}, None)
    assert zeta.deleted_ms == 11
    await twice(database, lambda: store.delete(other))
    await twice(database, lambda: store.delete(made))  # It is not going, and stays.
    assert [found.name for found in (await database.read(store.load)).clusters] == ["platform", "default", "acme"]
    again = store.create("zeta", "id-2", "default", "", {}, shard_id=1, now_ms=13)
    assert await database.transaction(lambda: again) > other


async def test_an_environment_with_clusters_stays(database: Any) -> None:
    assert await database.transaction(lambda: store.create_environment(Environment(name="prod", created_ms=1)))
    assert not await database.transaction(lambda: store.create_environment(Environment(name="prod", created_ms=2)))
    script = store.create("acme", "id", "prod", "", {}, shard_id=1, now_ms=3)
    cluster_id = await database.transaction(lambda: script)
    assert await twice(database, lambda: store.delete_environment("prod")) is False
    await database.transaction(lambda: store.begin_deletion(cluster_id, 4))
    await database.transaction(lambda: store.delete(cluster_id))
    assert await twice(database, lambda: store.delete_environment("prod")) is True


async def test_the_service_finds_after_a_start_what_it_was_told(database: Any) -> None:
    clusters = await opened(database, "one")
    await clusters.create_environment("prod")
    made = await clusters.create("acme", "prod", "ours", {"partitions": 5.0})
    await clusters.alter("acme", None, {"partitions": 6.0})
    with pytest.raises(AlreadyExists):
        await clusters.create("acme", "prod")
    with pytest.raises(NotFound):
        await clusters.alter("nobody", "", {})
    with pytest.raises(Forbidden):
        await clusters.delete_environment("prod")
    again = await opened(database, "two")
    assert again.all() == clusters.all()
    assert again.environments() == clusters.environments()
    assert again.kafka_id(made.cluster_id) == made.kafka_id
    assert again.limits(made.cluster_id) == {"partitions": 6.0}
    assert again.by_name("acme") == again.by_id(made.cluster_id)
    assert again.kafka_id(1) == "the-default"


async def opened(database: Any, seed: str) -> Clusters:
    clusters = Clusters(database=database, clock=SystemClock(), randomness=SeededRandomness(seed))
    await clusters.open("the-default")
    return clusters


@pytest.mark.parametrize("rows", ROWS, ids=[rows.table for rows in ROWS])
async def test_rows_of_a_cluster_go_so_many_at_a_time(database: Any, rows: ClusterRows) -> None:
    assert await twice(database, lambda: remove_rows(7, rows)) == 0


async def test_only_rows_of_that_cluster_go(database: Any) -> None:
    def script() -> Any:
        for cluster_id in (7, 8):
            for number in range(ROWS_AT_ONCE + 1):
                yield (
                    "INSERT INTO config (cluster_id, kind, name, key, value) VALUES ($1, 2, $2, 'k', 'v')",
                    (cluster_id, f"t{number}"),
                )

    await database.transaction(script)
    (rows,) = (rows for rows in ROWS if rows.table == "config")
    assert [await database.transaction(lambda: remove_rows(7, rows)) for _ in range(3)] == [ROWS_AT_ONCE, 1, 0]
    left = await database.statement("SELECT COUNT(*) FROM config WHERE cluster_id = 8")
    assert int(left[0][0]) == ROWS_AT_ONCE + 1


async def test_a_cluster_that_goes_is_found_again_after_a_start(database: Any) -> None:
    clusters = await opened(database, "one")
    made = await clusters.create("acme", "default")
    await clusters.begin_deletion("acme")
    assert not clusters.is_open(made.cluster_id)
    with pytest.raises(Forbidden):
        await clusters.begin_deletion("default")
    again = await opened(database, "two")
    removed: list[int] = []

    async def step(cluster_id: int) -> bool:
        removed.append(cluster_id)
        if len(removed) < 3:
            raise Unavailable("somebody is still there")
        return True

    ready, clock = False, ManualClock()
    chore = ClusterRemoval(again, database, [step], is_ready=lambda: ready, clock=clock)
    assert await chore.run() == RETRY_S
    assert removed == [], "not before everything has started"
    ready = True
    for tries in (1, 2):
        assert [await chore.run() for _ in range(3)] == [0, RETRY_S, RETRY_S]
        assert len(removed) == tries, "what has to wait is not tried at once"
        clock.time_ms += int(RETRY_S * 1000)
    assert [await chore.run() for _ in range(2)] == [0, SETTLE_S]
    assert again.by_id(made.cluster_id) is not None
    clock.time_ms += int(SETTLE_S * 1000)
    assert [await chore.run() for _ in range(2)] == [0, None]
    assert again.by_id(made.cluster_id) is None
    assert (await opened(database, "three")).by_name("acme") is None


async def test_what_was_under_way_when_a_cluster_was_let_go_goes_too(database: Any) -> None:
    """A cluster is forgotten when nothing was left of it twice in a row, some time apart."""
    clusters = await opened(database, "one")
    await clusters.create("acme", "default")
    await clusters.begin_deletion("acme")
    left = [True, False, True, False, False, True, False, False]
    clock = ManualClock()

    async def step(cluster_id: int) -> bool:
        return not left.pop(0)

    chore = ClusterRemoval(clusters, database, [step], is_ready=lambda: True, clock=clock, settle_s=3)
    while clusters.by_name("acme") or clusters.deleting():
        wait_s = await chore.run()
        assert wait_s in (0, 3)
        clock.time_ms += int(wait_s * 1000)
    assert left == [True, False, False]


async def test_clusters_that_go_take_turns_and_none_waits_for_another(database: Any) -> None:
    clusters = await opened(database, "one")
    names = {(await clusters.create(name, "default")).cluster_id: name for name in ("big", "stuck", "small")}
    for name in names.values():
        await clusters.begin_deletion(name)
    steps: list[str] = []

    async def step(cluster_id: int) -> bool:
        name = names[cluster_id]
        steps.append(name)
        if name == "stuck":
            raise Unavailable("somebody is still there")
        return steps.count(name) >= {"big": 4, "small": 2}[name]

    chore = ClusterRemoval(clusters, database, [step], is_ready=lambda: True, clock=ManualClock(), settle_s=0)
    assert [await chore.run() for _ in range(10)] == [*[0] * 9, RETRY_S]
    assert steps == ["big", "stuck", "small", "big", "small", "big", "small", "big", "big"]
    assert [cluster.name for cluster in clusters.deleting()] == ["stuck"]


async def test_clusters_of_other_agents_are_followed_without_a_write(database: Any) -> None:
    one, two = await opened(database, "one"), await opened(database, "two")
    changed: list[str] = []
    two.on_change = lambda cluster: changed.append(cluster.name)
    poller = ChangePoller(database, {"clusters": two.refresh})
    await poller.poll()
    await one.create_environment("prod")
    acme = await one.create("acme", "prod", "", {"groups": 3.0})
    await poller.poll()
    assert (two.all(), two.environments()) == (one.all(), one.environments())
    await one.alter("acme", "theirs", {"groups": None})
    await poller.poll()
    assert (two.limits(acme.cluster_id), changed) == ({}, ["acme", "acme"])
    await one.begin_deletion("acme")
    await poller.poll()
    assert not two.is_open(acme.cluster_id)
    assert two.deleting() == one.deleting()
    await one.forget(one.deleting()[0])
    again = await one.create("acme", "prod")
    await poller.poll()
    assert two.by_name("acme") == again
    await two.forget(two.deleting()[0])
    assert (two.by_name("acme"), two.deleting()) == (again, []), "the new one stays"
    await one.begin_deletion("acme")
    await one.forget(one.deleting()[0])
    await one.delete_environment("prod")
    await poller.poll()
    assert two.environments() == one.environments()
    assert [cluster.cluster_id for cluster in two.deleting()] == [again.cluster_id], "what it has of it here is to go"
    counters = "SELECT name, value FROM counter ORDER BY name"
    before = await database.statement(counters)
    changed.clear()
    await poller.poll()
    assert changed == []
    assert await database.statement(counters) == before
