"""The log moves from the write-ahead log into segments, small segments into larger ones, while everything fails."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

from fixtures.key_services import FakeKeyService
from simulation.clients import Admin
from simulation.faults import SOME
from simulation.history import PartitionKey
from simulation.scenarios import (
    EAGER,
    check_log,
    follow,
    kill_now_and_then,
    produce_idempotently,
    produce_plainly,
    read_logs,
    settle,
)
from simulation.seeds import simulate
from simulation.world import World

from penstock.base.context import DEFAULT_CLUSTER_ID
from penstock.log import writer
from penstock.log.upkeep import adoption, wal_plan
from penstock.storage.memory import MemoryWal


@simulate(
    reach=(
        "killed", "connection cut", "database: after", "objects: before", "objects: after", "objects: crash before",
        "objects: crash after", "objects: read failed", "wal: read failed", "compacted", "merged",
    )
)  # fmt: skip
async def test_compaction_loses_nothing(world: World) -> None:
    world.upkeep = EAGER
    await compact_under_faults(world)


@simulate(
    seeds=60,
    reach=("killed", "database: after", "objects: after", "objects: before", "adopted"),
)  # fmt: skip
async def test_adopted_objects_lose_nothing(world: World) -> None:
    """Stretches of a kilobyte are long here, so that much of the log becomes objects as it is."""
    world.upkeep = replace(EAGER, adopted_bytes=2_000)
    kept = writer.LONG_BYTES, adoption.LONG_SHARE
    writer.LONG_BYTES = wal_plan.LONG_BYTES = 1_000
    adoption.LONG_SHARE = 0.4
    try:
        await compact_under_faults(world)
    finally:
        writer.LONG_BYTES, adoption.LONG_SHARE = kept
        wal_plan.LONG_BYTES = writer.LONG_BYTES


@simulate(seeds=40, reach=("killed", "objects: after", "compacted", "rotated", "keys away"))
async def test_sealed_logs_lose_nothing(world: World) -> None:
    """The cluster is encrypted, its keys change, and the key service is not always there."""
    world.upkeep, world.key_service = EAGER, FakeKeyService()
    await compact_under_faults(world, change_keys)


async def change_keys(world: World, stop: asyncio.Event) -> None:
    """New keys of both kinds, and times without a key service."""
    service, source = world.key_service, world.source
    assert service is not None
    while not stop.is_set():
        await asyncio.sleep(source.between(0.05, 0.5))
        service.is_down = source.between(0, 1) < 0.3
        if service.is_down:
            world.marks.reach("keys away")
        agent = world.agent
        if agent is None or stop.is_set():
            continue
        change = agent.keys.rotate if source.between(0, 1) < 0.7 else agent.keys.rewrap
        task = world.loop.create_task(change(DEFAULT_CLUSTER_ID), context=agent.host.context.copy())
        await asyncio.wait((task,), timeout=2)  # It never ends if its agent dies.
        if task.done() and task.exception() is None:
            world.marks.reach("rotated")
    service.is_down = False


async def nothing(world: World, stop: asyncio.Event) -> None:
    """Nobody changes anything meanwhile."""


async def compact_under_faults(
    world: World, meanwhile: Callable[[World, asyncio.Event], Coroutine[Any, Any, None]] = nothing
) -> None:
    """Producers and readers of two partitions, while the log moves into segments."""
    world.wal_store = MemoryWal(400 * 1024)
    await world.open()
    topic_id = await Admin(world, "admin").create_topic("orders", partitions=2)
    partitions = [PartitionKey(topic_id, 0), PartitionKey(topic_id, 1)]
    world.faults = SOME
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as background:
        background.create_task(kill_now_and_then(world, stop, every_s=0.6))
        background.create_task(meanwhile(world, stop))
        for number, partition in enumerate(partitions):
            background.create_task(follow(world, "orders", partition, f"consumer-{number}", stop))
        async with asyncio.TaskGroup() as work:
            for number, partition in enumerate(partitions):
                work.create_task(produce_plainly(world, "orders", partition, f"plain-{number}", 12))
                work.create_task(produce_idempotently(world, "orders", partition, f"idem-{number}", 15))
        stop.set()
    await world.heal()
    check_log(world, await read_logs(world, "orders", partitions))
    await settle(world)
    assert world.agent is not None
    check_log(world, await read_logs(world, "orders", partitions))
    if world.database._connection.execute("SELECT COUNT(*) FROM segment").fetchone()[0]:
        world.marks.reach("compacted")
    if world.database._connection.execute("SELECT MAX(generation) FROM segment").fetchone()[0]:
        world.marks.reach("merged")
