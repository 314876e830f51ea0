"""Produce, consume, crash, recover: the log under faults, seed by seed."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from simulation.clients import Admin
from simulation.faults import SOME, Faults
from simulation.history import PartitionKey
from simulation.scenarios import (
    check_log,
    follow,
    kill_now_and_then,
    produce_idempotently,
    produce_plainly,
    read_logs,
)
from simulation.seeds import simulate
from simulation.world import World


async def produce_under_faults(
    world: World, faults: Faults = SOME, *, dies_every_s: float = 0.3, timeout_ms: int = 20_000
) -> None:
    """Producers and consumers of two partitions, while everything fails and the agent dies again and again."""
    await world.open()
    topic_id = await Admin(world, "admin").create_topic("orders", partitions=2)
    partitions = [PartitionKey(topic_id, 0), PartitionKey(topic_id, 1)]
    world.faults = faults
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as readers:
        readers.create_task(kill_now_and_then(world, stop, every_s=dies_every_s))
        for number, partition in enumerate(partitions):
            readers.create_task(follow(world, "orders", partition, f"consumer-{number}", stop))
        async with asyncio.TaskGroup() as writers:
            for number in range(2):
                partition = partitions[number]
                told = {"timeout_ms": timeout_ms}
                writers.create_task(produce_plainly(world, "orders", partition, f"plain-{number}", 12, **told))
                writers.create_task(produce_idempotently(world, "orders", partition, f"idem-{number}", 18, **told))
            writers.create_task(produce_idempotently(world, "orders", partitions[0], "idem-2", 18, **told))
        stop.set()
    await world.heal()
    check_log(world, await read_logs(world, "orders", partitions))


@simulate(
    reach=(
        "killed", "connection cut", "stall", "database: before", "database: after", "database: crash before",
        "database: crash after", "wal: before", "wal: after", "wal: crash before", "wal: crash after",
        "wal: read failed", "batches behind a failed one refused",
    )
)  # fmt: skip
async def test_acknowledged_records_survive(world: World) -> None:
    await produce_under_faults(world)


@simulate(reach=("killed", "database: after"))
async def test_acknowledged_records_survive_inline_commits(world: World) -> None:
    world.inline = True
    await produce_under_faults(world)


@simulate(
    seeds=60,
    reach=("killed", "stall", "told before it was known", "wal: crash after", "batches behind a failed one refused"),
)
async def test_producers_that_wait_no_longer_lose_and_double_nothing(world: World) -> None:
    """Told that time is up while a disk is stuck, they send it again, and it is decided after what is under way."""
    await produce_under_faults(world, replace(SOME, stall=0.4), dies_every_s=1.2, timeout_ms=100)
