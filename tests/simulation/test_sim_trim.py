"""Records are removed and topics deleted, while others produce and consume and the agent dies."""

from __future__ import annotations

import asyncio

from simulation.checkers.trims import check_trims
from simulation.clients import Admin
from simulation.faults import SOME
from simulation.history import Outcome, PartitionKey
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


async def trim_now_and_then(world: World, admin: Admin, topic: str, partition: PartitionKey, times: int) -> None:
    """DeleteRecords up to an offset that exists, or up to the end."""
    for _ in range(times):
        await asyncio.sleep(world.workload.uniform(0, 0.1))
        acknowledged = [append for append in world.history.acknowledged if append.partition == partition]
        known_end = max((append.base_offset for append in acknowledged), default=0)
        offset = -1 if world.workload.random() < 0.1 else world.workload.randint(0, known_end)
        trim = await admin.delete_records(topic, partition, offset)
        world.marks.reach(f"trim {trim.outcome.value}")


async def create_and_delete(world: World, admin: Admin, times: int) -> None:
    """A topic of the same name comes and goes, with a producer that does not know."""
    for number in range(times):
        topic_id = await admin.create_topic("passing", partitions=1)
        partition = PartitionKey(topic_id, 0)
        async with asyncio.TaskGroup() as work:
            work.create_task(produce_plainly(world, "passing", partition, f"passing-{number}", 5))
            await asyncio.sleep(world.workload.uniform(0, 0.05))
            await admin.delete_topic("passing")
            world.marks.reach("topic deleted")


@simulate(reach=("killed", "trim acknowledged", "trim unknown", "topic deleted", "database: after"))
async def test_trimmed_records_stay_gone(world: World) -> None:
    world.upkeep = EAGER
    await world.open()
    admin = Admin(world, "admin")
    kept = PartitionKey(await admin.create_topic("orders", partitions=1), 0)
    world.faults = SOME
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as background:
        background.create_task(kill_now_and_then(world, stop, every_s=0.4))
        background.create_task(follow(world, "orders", kept, "consumer", stop))
        async with asyncio.TaskGroup() as work:
            work.create_task(produce_idempotently(world, "orders", kept, "idem", 20))
            work.create_task(produce_plainly(world, "orders", kept, "plain", 15))
            work.create_task(trim_now_and_then(world, Admin(world, "trimmer"), "orders", kept, 6))
            work.create_task(create_and_delete(world, Admin(world, "deleter"), 2))
        stop.set()
    await world.heal()
    (log,) = await read_logs(world, "orders", [kept])
    check_log(world, [log])
    check_trims(world.history.trims, world.history.fetches, log)
    await settle(world)
    (log,) = await read_logs(world, "orders", [kept])
    check_log(world, [log])
    check_trims(world.history.trims, world.history.fetches, log)
    agent = world.agent
    assert agent is not None
    assert agent.registry.by_name(1, "passing") is None, "a deleted topic is back"
    refused = [trim for trim in world.history.trims if trim.outcome is Outcome.REFUSED]
    assert all(trim.low_watermark == -1 for trim in refused)
