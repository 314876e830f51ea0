"""Groups commit offsets and rebalance while the agent dies: what was acknowledged is what the group finds again, and
each partition has one owner."""

from __future__ import annotations

import asyncio

from simulation.checkers.group_offsets import check_committed
from simulation.checkers.memberships import check_fenced, check_last, check_owners
from simulation.clients import Admin, Committer
from simulation.faults import SOME
from simulation.history import Outcome, PartitionKey
from simulation.links import ConnectionLost
from simulation.members import GroupMember
from simulation.scenarios import kill_now_and_then, produce_plainly
from simulation.seeds import simulate
from simulation.world import World

GROUPS, COMMITS = 4, 15
MEMBERS, MEMBER_PARTITIONS = 3, 4


async def commit_and_look(world: World, committer: Committer) -> None:
    """Commit rising offsets; what is read in between is at least what was acknowledged last."""
    acknowledged = -1
    for offset in range(1, COMMITS + 1):
        commit = await committer.commit(offset)
        if commit.outcome is Outcome.ACKNOWLEDGED:
            acknowledged = offset
        if world.workload.random() < 0.3:
            try:
                found = await committer.fetch()
            except ConnectionLost:
                continue
            mine = [commit for commit in world.history.commits if commit.group_id == committer.group_id]
            if found is not None:
                check_committed(mine, found)
                world.marks.reach("looked up between commits")
        await asyncio.sleep(world.workload.uniform(0, 0.1))
    assert acknowledged >= 0, "not one commit was acknowledged"


@simulate(
    reach=("killed", "database: after", "database: crash after", "looked up between commits", "connection cut")
)  # fmt: skip
async def test_committed_offsets_survive(world: World) -> None:
    await world.open()
    topic_id = await Admin(world, "admin").create_topic("orders", partitions=1)
    partition = PartitionKey(topic_id, 0)
    committers = [Committer(world, f"group-{number}", "orders", partition) for number in range(GROUPS)]
    world.faults = SOME
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as background:
        background.create_task(kill_now_and_then(world, stop, every_s=0.5))
        async with asyncio.TaskGroup() as work:
            work.create_task(produce_plainly(world, "orders", partition, "plain", 5))
            for committer in committers:
                work.create_task(commit_and_look(world, committer))
        stop.set()
    await world.heal()
    for committer in committers:
        found = await world.eventually(committer.fetch, "the offset being read")
        check_committed([commit for commit in world.history.commits if commit.group_id == committer.group_id], found)


@simulate(
    seeds=100,
    reach=(
        "killed", "database: after", "connection cut", "told to join again", "left", "given up for dead",
        "zombie refused",
    ),
)  # fmt: skip
async def test_members_of_a_generation_own_different_partitions(world: World) -> None:
    """A classic group whose members freeze, leave and come back while the coordinator dies."""
    await world.open()
    topic_id = await Admin(world, "admin").create_topic("orders", partitions=MEMBER_PARTITIONS)
    members = [GroupMember(world, f"member-{n}", "group", "orders", MEMBER_PARTITIONS) for n in range(MEMBERS)]
    world.faults = SOME
    stop, ended = asyncio.Event(), asyncio.Event()
    async with asyncio.TaskGroup() as everything:
        killing = everything.create_task(kill_now_and_then(world, ended, every_s=3.0))
        for member in members:
            everything.create_task(member.run(stop))
        await asyncio.sleep(world.workload.uniform(20, 40))
        ended.set()
        await killing
        await world.heal()
        await world.eventually(lambda: all_own(members), "all partitions having an owner")
        stop.set()
    history = world.history
    check_owners(history.ownerships)
    check_fenced(history.group_commits)
    found = {}
    for index in range(MEMBER_PARTITIONS):
        looking = Committer(world, "group", "orders", PartitionKey(topic_id, index))
        found[index] = await world.eventually(looking.fetch, "the offset being read")
    check_last(history.group_commits, found)


async def all_own(members: list[GroupMember]) -> bool | None:
    """Whether one generation has all members, and they everything."""
    if any(member.owned is None for member in members) or len({member.generation for member in members}) > 1:
        return None
    owned = sorted(partition for member in members for partition in member.owned or ())
    return True if owned == list(range(MEMBER_PARTITIONS)) else None
