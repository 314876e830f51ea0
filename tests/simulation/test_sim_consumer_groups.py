"""Members of a consumer group come, go and lose their connections while the agent dies: nobody shares a partition."""

from __future__ import annotations

import asyncio

from simulation.checkers.uses import check_complete, check_uses
from simulation.clients import Admin
from simulation.faults import SOME
from simulation.heartbeating import Member, Use
from simulation.scenarios import kill_now_and_then
from simulation.seeds import simulate
from simulation.world import World

MEMBERS, PARTITIONS, LEAVES = 4, 6, 5


async def leave_now_and_then(world: World, member: Member, stop: asyncio.Event) -> None:
    """Live, and now and then leave and come back as somebody else."""
    await asyncio.sleep(world.workload.uniform(0, 2))
    for _ in range(LEAVES):
        gone = asyncio.Event()
        life = asyncio.get_running_loop().create_task(member.live(gone))
        await asyncio.sleep(world.workload.uniform(2, 12))
        gone.set()
        await life
        if world.workload.random() < 0.7:
            await member.leave()
        check_uses(member.uses)
    await member.live(stop)


@simulate(reach=("killed", "connection cut", "gave something back", "database: after"))
async def test_nobody_shares_a_partition(world: World) -> None:
    await world.open()
    await Admin(world, "admin").create_topic("orders", partitions=PARTITIONS)
    uses: list[Use] = []
    members = [Member(world, f"member-{number}", "group", "orders", uses) for number in range(MEMBERS)]
    world.faults = SOME
    stop, settled = asyncio.Event(), asyncio.Event()
    async with asyncio.TaskGroup() as work:
        work.create_task(kill_now_and_then(world, stop, every_s=3))
        for member in members:
            work.create_task(leave_now_and_then(world, member, settled))
        await asyncio.sleep(40)
        stop.set()
        # Whoever went without a word keeps what it had until its session is over.
        await asyncio.sleep(1)
        await world.heal()
        await asyncio.sleep(150)
        settled.set()
    check_uses(uses)
    check_complete(uses, PARTITIONS)
