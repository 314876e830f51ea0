"""Two agents on one database: producers change agents in the middle, and the log is one all the same."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from fixtures.key_services import FakeKeyService
from simulation.checkers.appends import check_appends
from simulation.checkers.fetches import check_fetches
from simulation.checkers.group_offsets import check_committed
from simulation.checkers.idempotence import check_idempotence
from simulation.checkers.offsets import check_commits_dense, check_dense, check_never_reused
from simulation.checkers.watermarks import check_rises
from simulation.clients import Admin, Committer
from simulation.faults import SOME
from simulation.history import PartitionKey
from simulation.logs import StoredLog, read_log
from simulation.scenarios import follow, kill_now_and_then, produce_idempotently, produce_plainly
from simulation.seeds import simulate
from simulation.world import World

from penstock.wire.error_codes import ErrorCode


@simulate(
    reach=(
        "killed", "connection cut", "database: before", "database: after", "database: crash after",
        "decided under the lock", "answer looked up",
    )
)  # fmt: skip
async def test_two_agents_make_one_log(world: World) -> None:
    await commit_from_two_agents(world)


@simulate(seeds=20, reach=("killed", "database: after", "decided under the lock"))
async def test_two_agents_seal_one_log(world: World) -> None:
    """Batches are left out of ranges that are sealed already, and others get other offsets than they have inside."""
    world.key_service = FakeKeyService()
    await commit_from_two_agents(world)


async def commit_from_two_agents(world: World) -> None:
    """Producers that change agents in the middle."""
    world.is_shared = True
    await world.open()
    topic_id = await Admin(world, "admin").create_topic("orders", partitions=2)
    partitions = [PartitionKey(topic_id, 0), PartitionKey(topic_id, 1)]
    await world.add_agent()
    world.faults = replace(SOME, cut=0.02)
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as background:
        background.create_task(kill_now_and_then(world, stop, every_s=0.3))
        for place in world.places:
            name = f"consumer-{place.number}"
            background.create_task(follow(world, "orders", partitions[0], name, stop, place=place))
        async with asyncio.TaskGroup() as work:
            for number, partition in enumerate(partitions):
                work.create_task(produce_plainly(world, "orders", partition, f"plain-{number}", 8))
                work.create_task(produce_idempotently(world, "orders", partition, f"idem-{number}", 10))
            work.create_task(produce_idempotently(world, "orders", partitions[0], "idem-2", 12))
        stop.set()
    await world.heal()
    await world.eventually(lambda: all_know(world), "agents hearing of each other's last commits")
    for place in world.places:
        logs = [await read_log(world, "orders", partition, place=place) for partition in partitions]
        check_shared_log(world, logs)
        assert place.agent is not None
        stats = place.agent.commit_path.stats
        if stats.slow:
            world.marks.reach("decided under the lock")
        if stats.settled:
            world.marks.reach("answer looked up")


@simulate(reach=("killed", "database: after", "the one before was still alive", "it was told that it is fenced"))
async def test_an_agent_that_was_replaced_changes_nothing(world: World) -> None:
    """A new process takes the database over while the old one is cut off, but alive, and has commits under way."""
    world.is_shared = True
    await world.open()
    topic_id = await Admin(world, "admin").create_topic("orders", partitions=1)
    partition = PartitionKey(topic_id, 0)
    committer = Committer(world, "group", "orders", partition)
    world.faults = SOME
    async with asyncio.TaskGroup() as work:
        for number in range(2):
            work.create_task(produce_plainly(world, "orders", partition, f"plain-{number}", 15))
            work.create_task(produce_idempotently(world, "orders", partition, f"idem-{number}", 20))
        work.create_task(commit_offsets(world, committer, 15))
        await asyncio.sleep(world.workload.uniform(0.02, 0.3))
        old = await world.take_over()
        last_seq = len(world.witness.commits(world.database))
        world.marks.reach("the one before was still alive" if old.agent is not None else "the one before had died")
        await asyncio.sleep(world.workload.uniform(0, 0.2))
        for link in old.links:
            link.lose()
        await world.crash()
    await world.heal()
    commits = world.witness.commits(world.database)
    late = [commit.seq for commit in commits[last_seq:] if commit.agent_id == old.number and commit.entries]
    assert not late, f"the agent that was replaced made commits {late}"
    check_shared_log(world, [await read_log(world, "orders", partition)])
    found = await world.eventually(committer.fetch, "the offset being read")
    check_committed(world.history.commits, found)
    if old.agent is not None and old.agent.writer.stats.failures:
        world.marks.reach("it was told that it is fenced")


async def commit_offsets(world: World, committer: Committer, count: int) -> None:
    """Commit rising offsets."""
    for offset in range(1, count + 1):
        await committer.commit(offset)
        await asyncio.sleep(world.workload.uniform(0, 0.03))


async def all_know(world: World) -> bool | None:
    """Whether every agent has applied the last commit."""
    last = len(world.witness.commits(world.database))
    return True if all(place.agent and place.agent.follower.seq == last for place in world.places) else None


def check_shared_log(world: World, logs: list[StoredLog]) -> None:
    """What must hold of a log that several agents append to. Each agent's own view never goes back."""
    history, commits = world.history, world.witness.commits(world.database)
    check_commits_dense(commits)
    check_dense(logs)
    check_appends(history.appends, logs)
    check_never_reused(history.fetches, logs)
    check_idempotence(logs)
    check_fetches(history.fetches)
    for place in world.places:
        told = [one for one in history.fetches if one.place == place.number and one.error is ErrorCode.NONE]
        for partition in {one.partition for one in told}:
            mine = [one for one in told if one.partition == partition]
            check_rises(mine, lambda one: one.high_watermark, f"the high watermark at agent {place.number}")
    world.guards.check()
