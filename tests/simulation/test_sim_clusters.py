"""A virtual cluster is deleted, and the keys of another one erased, while everything fails and the agent dies again and
again: both go to the end by themselves, nothing is left, and whoever stays has lost nothing."""

from __future__ import annotations

import asyncio

from fixtures.cluster_remains import ranges_of, rows_of
from fixtures.key_services import FakeKeyService
from simulation.clients import Admin, Committer
from simulation.faults import SOME
from simulation.history import Outcome, PartitionKey
from simulation.links import ConnectionLost
from simulation.scenarios import EAGER, check_log, kill_now_and_then, produce_idempotently, read_logs, settle
from simulation.seeds import simulate
from simulation.tenants import ONLY_ROWS, Seen, Tenant, only_rows
from simulation.world import World

from penstock.base.acls import Acl, Operation, Permission, ResourceType
from penstock.base.context import DEFAULT_CLUSTER_ID
from penstock.keys.handlers import Action
from penstock.keys.model import KeyState
from penstock.wire.api_keys import ApiKey
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages.alter_cluster_keys import AlterClusterKeysRequest
from penstock.wire.messages.create_virtual_cluster import CreateVirtualClusterRequest
from penstock.wire.messages.delete_virtual_cluster import DeleteVirtualClusterRequest

RULE = Acl(
    resource_type=ResourceType.TOPIC, resource_name="t", principal="User:bob", host="*", operation=Operation.READ,
    permission=Permission.ALLOW,
)  # fmt: skip
HALF_DONE = frozenset({"topic", "txn", "group_", "cluster_keys"})
"""Tables that say how far a deletion has come."""


class PlatformAdmin(Admin):
    """Makes clusters and deletes them, and asks again until it is told that it was done."""

    async def make(self, name: str) -> int:
        """A new cluster, encrypted; its id."""
        await self._ask(ApiKey.CREATE_VIRTUAL_CLUSTER, CreateVirtualClusterRequest(name=name, environment="default"))
        await self._ask(ApiKey.ALTER_CLUSTER_KEYS, AlterClusterKeysRequest(name=name, action=Action.ENCRYPT))
        assert self.world.agent is not None
        found = self.world.agent.clusters.id_of(name)
        assert found is not None
        return found

    async def delete(self, name: str) -> None:
        """From the first answer on, it goes."""
        await self._ask(
            ApiKey.DELETE_VIRTUAL_CLUSTER, DeleteVirtualClusterRequest(name=name),
            ErrorCode.RESOURCE_NOT_FOUND, ErrorCode.POLICY_VIOLATION,
        )  # fmt: skip

    async def erase(self, name: str) -> None:
        """From the first answer on, nobody reads it."""
        await self._ask(ApiKey.ALTER_CLUSTER_KEYS, AlterClusterKeysRequest(name=name, action=Action.ERASE))

    async def _ask(self, key: ApiKey, request: object, *done: ErrorCode) -> None:
        async def attempt() -> bool | None:
            return True if (await self.call(key, 0, request)).error_code in (ErrorCode.NONE, *done) else None

        await self.world.eventually(attempt, key.name)


@simulate(
    seeds=40,
    reach=(
        "killed", "database: after", "database: crash before", "database: crash after", "keys: before", "keys: after",
        "went on after a start", "died half-way", "a tenant was cut off",
    ),
)  # fmt: skip
async def test_deleted_clusters_go_to_the_end(world: World) -> None:
    world.upkeep, world.key_service, world.has_tenants = EAGER, FakeKeyService(), True
    await world.open()
    admin = PlatformAdmin(world, "admin")
    partition = PartitionKey(await admin.create_topic("orders"), 0)
    goes, erased = await admin.make("goes"), await admin.make("erased")
    tenants = [Tenant(world, f"tenant-{number}", goes) for number in range(2)]
    for tenant in (tenants[0], Tenant(world, "other", erased)):
        await tenant.have_some_of_everything()
    for cluster_id in (DEFAULT_CLUSTER_ID, goes):
        await world.database.transaction(lambda cluster_id=cluster_id: only_rows(cluster_id))  # type: ignore[misc]
        assert world.agent is not None
        await world.agent.acls.create(cluster_id, [RULE])
    seen = Seen(world.database, goes)
    masters = master_keys(world, goes, erased)
    world.faults = SOME
    stop, gone = asyncio.Event(), asyncio.Event()
    committer = Committer(world, "group", "orders", partition)
    async with asyncio.TaskGroup() as background:
        background.create_task(kill_now_and_then(world, stop, every_s=0.25))
        background.create_task(watch(world, goes, stop))
        background.create_task(commit(world, committer, stop))
        for tenant in tenants:
            background.create_task(tenant.work(gone))
        async with asyncio.TaskGroup() as work:
            work.create_task(produce_idempotently(world, "orders", partition, "idem", 15, pause_s=0.15))
            await asyncio.sleep(world.workload.uniform(0.1, 0.6))
            work.create_task(admin.delete("goes"))
            work.create_task(PlatformAdmin(world, "another-admin").erase("erased"))
        stop.set()
        await world.heal()
        await world.eventually(lambda: is_gone(world, goes), "the cluster being gone")
        gone.set()
    await check_gone(world, seen, erased, masters)
    check_log(world, await read_logs(world, "orders", [partition]))
    await check_kept(world, committer)
    assert await admin.make("goes") not in (goes, erased), "its id is given to another"


def master_keys(world: World, *cluster_ids: int) -> list[str]:
    """Those that protect clusters now."""
    marks = ", ".join("?" * len(cluster_ids))
    query = f"SELECT master_key_id FROM cluster_keys WHERE cluster_id IN ({marks})"
    found = [str(row[0]) for row in world.database._connection.execute(query, cluster_ids)]
    assert len(found) == len(cluster_ids)
    return found


async def watch(world: World, cluster_id: int, stop: asyncio.Event) -> None:
    """Say that there was something to see: an agent that found a cluster half deleted when it started."""
    last = None
    while not stop.is_set():
        await asyncio.sleep(0.01)
        agent = world.agent
        if agent is None or agent is last:
            continue
        last = agent
        cluster = agent.clusters.by_id(cluster_id)
        if cluster is not None and cluster.deleted_ms is not None:
            world.marks.reach("went on after a start")
            left = rows_of(world.database._connection, cluster_id, ())
            if 0 < len(HALF_DONE & left.keys()) < len(HALF_DONE):
                world.marks.reach("died half-way")


async def commit(world: World, committer: Committer, stop: asyncio.Event) -> None:
    """A group of whoever stays goes on."""
    offset = 0
    while not stop.is_set():
        await asyncio.sleep(world.workload.uniform(0, 0.2))
        offset += 1
        await committer.commit(offset)


async def is_gone(world: World, cluster_id: int) -> bool | None:
    agent = world.agent
    return True if agent is not None and agent.clusters.by_id(cluster_id) is None else None


async def check_gone(world: World, seen: Seen, erased: int, masters: list[str]) -> None:
    """Nothing is left of one cluster, in rows, the log, objects, keys or memory; nothing opens the other."""

    async def is_erased() -> bool | None:
        keys = None if world.agent is None else world.agent.keys.clusters.get(erased)
        return True if keys is not None and keys.state is KeyState.ERASED else None

    await world.eventually(is_erased, "the keys being erased")
    await settle(world)
    connection, partition_ids = world.database._connection, seen.partition_ids
    assert rows_of(connection, seen.cluster_id, partition_ids) == {}
    assert ranges_of(connection, partition_ids) == []
    assert connection.execute("SELECT COUNT(*) FROM data_key WHERE cluster_id = ?", (erased,)).fetchone() == (0,)
    assert world.key_service is not None
    assert [world.key_service.keys[master] for master in masters] == [None] * len(masters)
    agent = world.agent
    assert agent is not None
    assert agent.registry.all(seen.cluster_id) == []
    assert agent.keys.clusters.keys() == {DEFAULT_CLUSTER_ID, erased}
    assert not [key for key in agent.keys.stored.values() if key.cluster_id in (seen.cluster_id, erased)]
    try:
        await Tenant(world, "late", seen.cluster_id).write(0)
    except ConnectionLost:
        return
    raise AssertionError("a cluster that is gone is served")


async def check_kept(world: World, committer: Committer) -> None:
    """Whoever stays has what was acknowledged, and every row."""
    acknowledged = [one.offset for one in world.history.commits if one.outcome is Outcome.ACKNOWLEDGED]
    found = await world.eventually(committer.fetch, "the committed offset")
    assert acknowledged
    assert found >= acknowledged[-1]
    kept = rows_of(world.database._connection, DEFAULT_CLUSTER_ID, ())
    assert {"topic", "partition", "group_", "group_offset", "acl", "cluster_keys", "data_key"} <= kept.keys()
    tables = {sql.split(" ")[2] for sql in ONLY_ROWS}
    assert {table: kept.get(table) for table in tables} == dict.fromkeys(tables, 1)
