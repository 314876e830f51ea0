"""Groups commit offsets and rebalance while the agent dies: what was acknowledged is what the group finds again, and
each partition has one owner."""

from __future__ import annotations

import asyncio

from simulation.checkers.group_offsets import check_committed
from simulation.checkers.memberships import check_fenced, check_last, check_never_back, check_owners
from simulation.clients import Admin, Committer
from simulation.faults import SOME
from simulation.history import Outcome, PartitionKey
from simulation.links import ConnectionLost
from simulation.members import GroupMember
from simulation.scenarios import kill_now_and_then, produce_plainly
from simulation.seeds import simulate
from simulation.world import WRONG_DRIFT, WRONG_MS, World

GROUPS, COMMITS = 4, 15
MEMBERS, MEMBER_PARTITIONS = 3, 4
SOUGHT = 7
"""An offset that no member commits."""
LONG_SESSION_MS = 15_000
"""Longer than a coordinator is ever away, and than clocks make it seem."""


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
    world.skew_ms, world.drift = WRONG_MS, WRONG_DRIFT
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
        "zombie refused", "clock set back", "clock set forward",
    ),
)  # fmt: skip
async def test_members_of_a_generation_own_different_partitions(world: World) -> None:
    """A classic group whose members freeze, leave and come back while the coordinator dies and its clock is wrong."""
    world.skew_ms, world.drift = WRONG_MS, WRONG_DRIFT
    await world.open()
    topic_id = await Admin(world, "admin").create_topic("orders", partitions=MEMBER_PARTITIONS)
    partitions = [PartitionKey(topic_id, index) for index in range(MEMBER_PARTITIONS)]
    lookers = [Committer(world, "group", "orders", partition) for partition in partitions]
    members = [GroupMember(world, f"member-{n}", "group", "orders", MEMBER_PARTITIONS) for n in range(MEMBERS)]
    world.faults = SOME
    stop, ended = asyncio.Event(), asyncio.Event()
    async with asyncio.TaskGroup() as everything:
        killing = everything.create_task(kill_now_and_then(world, ended, every_s=3.0))
        for member in members:
            everything.create_task(member.run(stop))
        everything.create_task(world.workload.choice(lookers).look_on(stop))
        await asyncio.sleep(world.workload.uniform(20, 40))
        ended.set()
        await killing
        await world.heal()
        await world.eventually(lambda: all_own(members), "all partitions having an owner")
        stop.set()
    await check_classic(world, lookers)
    await check_seek(world, members, lookers[0])


async def check_classic(world: World, lookers: list[Committer]) -> None:
    """What must hold of a classic group once its members have stopped."""
    history = world.history
    found = {one.partition.index: await world.eventually(one.fetch, "the offset being read") for one in lookers}
    check_owners(history.ownerships)
    check_fenced(history.group_commits)
    check_never_back(history.looks, history.group_commits)
    check_last(history.group_commits, found)


async def check_seek(world: World, members: list[GroupMember], seeker: Committer) -> None:
    """Only when all members are gone somebody else may move an offset, and then it may go back, and stays there."""

    async def seek() -> bool | None:
        return True if (await seeker.commit(SOUGHT)).outcome is Outcome.ACKNOWLEDGED else None

    for member in members:
        await member.leave()
    await world.eventually(seek, "the offset being moved")
    await world.crash()
    assert await world.eventually(seeker.fetch, "the offset being read") == SOUGHT


@simulate(
    seeds=40,
    reach=("killed", "killed while it wrote", "connection cut", "database: after", "clock set back", "another one left")
)  # fmt: skip
async def test_members_keep_their_generation_over_restarts(world: World) -> None:
    """The coordinator dies again and again, always for less than a session: nobody has to join again, or is another."""
    world.skew_ms, world.drift = WRONG_MS, WRONG_DRIFT
    await world.open()
    topic_id = await Admin(world, "admin").create_topic("orders", partitions=MEMBER_PARTITIONS)
    members = [GroupMember(world, f"member-{n}", "group", "orders", MEMBER_PARTITIONS) for n in range(MEMBERS)]
    for member in members:
        member.freezes = member.leaves = 0.0
        member.session_ms, member.pause_s = LONG_SESSION_MS, 2.0
    # The coordinator has others to write for.
    restless = GroupMember(world, "restless", "another group", "orders", MEMBER_PARTITIONS)
    restless.leaves, restless.pause_s = 0.3, 1.0
    stop, ended = asyncio.Event(), asyncio.Event()
    async with asyncio.TaskGroup() as everything:
        for member in members:
            everything.create_task(member.run(stop))
        await world.eventually(lambda: all_own(members), "all partitions having an owner")
        joined = [(member.member_id, member.generation) for member in members]
        everything.create_task(restless.run(stop))
        world.faults = SOME
        killing = everything.create_task(kill_now_and_then(world, ended, every_s=2.0))
        await asyncio.sleep(world.workload.uniform(10, 20))
        ended.set()
        await killing
        await world.heal()
        # Time enough for a session that was forgotten to run out, and for whoever was forgotten to be told so.
        await asyncio.sleep(1.5 * LONG_SESSION_MS / 1000)
        outsider = Committer(world, "group", "orders", PartitionKey(topic_id, 0))
        refused = await outsider.commit(SOUGHT)
        assert refused.outcome is not Outcome.ACKNOWLEDGED, "an offset was moved under the members of a group"
        stop.set()
    assert [(member.member_id, member.generation) for member in members] == joined, "somebody had to join again"
    if world.marks.counts["left"]:
        world.marks.reach("another one left")
    mine = [commit for commit in world.history.group_commits if commit.group_id == "group"]
    if any(commit.outcome is Outcome.UNKNOWN for commit in mine):
        world.marks.reach("killed while it wrote")
    lookers = [Committer(world, "group", "orders", PartitionKey(topic_id, n)) for n in range(MEMBER_PARTITIONS)]
    found = {one.partition.index: await world.eventually(one.fetch, "the offset being read") for one in lookers}
    check_owners(world.history.ownerships)
    check_last(mine, found)


async def all_own(members: list[GroupMember]) -> bool | None:
    """Whether one generation has all members, and they everything."""
    if any(member.owned is None for member in members) or len({member.generation for member in members}) > 1:
        return None
    owned = sorted(partition for member in members for partition in member.owned or ())
    return True if owned == list(range(MEMBER_PARTITIONS)) else None
