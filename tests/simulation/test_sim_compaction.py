"""The log moves from the write-ahead log into segments, small segments into larger ones, while everything fails."""

from __future__ import annotations

import asyncio
from dataclasses import replace

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


async def compact_under_faults(world: World) -> None:
    """Producers and readers of two partitions, while the log moves into segments."""
    world.wal_store = MemoryWal(400 * 1024)
    await world.open()
    topic_id = await Admin(world, "admin").create_topic("orders", partitions=2)
    partitions = [PartitionKey(topic_id, 0), PartitionKey(topic_id, 1)]
    world.faults = SOME
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as background:
        background.create_task(kill_now_and_then(world, stop, every_s=0.6))
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
