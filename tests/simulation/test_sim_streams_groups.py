"""Members of a streams group come, go and lose their connections while the agent dies: the topics they need are made,
no task is active at two of them, and no offset goes back."""

from __future__ import annotations

import asyncio

from simulation.clients import Admin, Committer
from simulation.faults import SOME
from simulation.heartbeating import Use
from simulation.history import PartitionKey
from simulation.scenarios import kill_now_and_then
from simulation.seeds import simulate
from simulation.streams_members import StreamsMember
from simulation.world import WRONG_DRIFT, WRONG_MS, World
from test_sim_consumer_groups import MEMBERS, PARTITIONS, all_in_use, check_group, leave_now_and_then


@simulate(
    seeds=25,
    reach=(
        "killed", "connection cut", "gave something back", "database: after", "clock set back",
        "a zombie committed or tried to",
    )
)  # fmt: skip
async def test_nobody_shares_a_task(world: World) -> None:
    world.skew_ms, world.drift = WRONG_MS, WRONG_DRIFT
    await world.open()
    topic_id = await Admin(world, "admin").create_topic("orders", partitions=PARTITIONS)
    uses: list[Use] = []
    members = [StreamsMember(world, f"member-{number}", "group", "orders", uses) for number in range(MEMBERS)]
    lookers = [Committer(world, "group", "orders", PartitionKey(topic_id, index)) for index in range(PARTITIONS)]
    world.faults = SOME
    stop, settled = asyncio.Event(), asyncio.Event()
    async with asyncio.TaskGroup() as work:
        work.create_task(kill_now_and_then(world, stop, every_s=3))
        work.create_task(world.workload.choice(lookers).look_on(stop))
        for member in members:
            work.create_task(leave_now_and_then(world, member, settled, work))
        await asyncio.sleep(40)
        stop.set()
        await asyncio.sleep(1)
        await world.heal()
        await world.eventually(lambda: all_in_use(members), "all tasks being active")
        settled.set()
    await check_group(world, uses, lookers)
