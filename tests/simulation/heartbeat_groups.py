"""What happens to groups whose members send heartbeats (KIP-848 and KIP-1071), whichever kind they are of."""

from __future__ import annotations

import asyncio

from simulation.checkers.memberships import check_last, check_never_back
from simulation.checkers.uses import check_complete, check_uses
from simulation.clients import Admin, Committer
from simulation.faults import SOME
from simulation.heartbeating import Member, Use
from simulation.history import PartitionKey
from simulation.scenarios import kill_now_and_then
from simulation.world import WRONG_DRIFT, WRONG_MS, World

MEMBERS, PARTITIONS, LEAVES = 4, 6, 5
REACH = (
    "killed", "connection cut", "gave something back", "database: after", "clock set back",
    "a zombie committed or tried to",
)  # fmt: skip


async def leave_now_and_then(
    world: World, member: Member, stop: asyncio.Event, zombies: asyncio.TaskGroup, *, times: int = LEAVES,
    most_s: float = 12.0,
) -> None:  # fmt: skip
    """Live, and now and then leave, or just stop, and come back as a new member."""
    await asyncio.sleep(world.workload.uniform(0, 2))
    for _ in range(times):
        gone = asyncio.Event()
        life = asyncio.get_running_loop().create_task(member.live(gone))
        await asyncio.sleep(world.workload.uniform(2, most_s))
        gone.set()
        await life
        how = world.workload.random()
        if how < 0.6:
            await member.leave()
        elif how < 0.8:
            zombies.create_task(member.abandon().commit_late(world.workload.uniform(1, 60)))
        check_uses(member.uses)
    member.stays = True
    await member.live(stop)


async def all_in_use(members: list[Member]) -> bool | None:
    """Whether nobody leaves any more and each partition is used: whoever went without a word keeps what it had."""
    using = {partition for member in members for partition in member.using}
    return True if all(member.stays for member in members) and len(using) == PARTITIONS else None


async def check_group(world: World, uses: list[Use], lookers: list[Committer]) -> None:
    """What must hold when everything has settled."""
    found = {one.partition.index: await world.eventually(one.fetch, "the offset being read") for one in lookers}
    check_uses(uses)
    check_complete(uses, PARTITIONS)
    check_never_back(world.history.looks, world.history.group_commits)
    check_last(world.history.group_commits, found)


async def come_and_go(world: World, kind: type[Member]) -> None:
    """Members of a kind come, go and lose their connections while the agent dies."""
    world.skew_ms, world.drift = WRONG_MS, WRONG_DRIFT
    await world.open()
    topic_id = await Admin(world, "admin").create_topic("orders", partitions=PARTITIONS)
    uses: list[Use] = []
    members = [kind(world, f"member-{number}", "group", "orders", uses) for number in range(MEMBERS)]
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
        await world.eventually(lambda: all_in_use(members), "everything being used")
        settled.set()
    await check_group(world, uses, lookers)
