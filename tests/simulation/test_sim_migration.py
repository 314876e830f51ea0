"""A group goes up to the consumer protocol and down again while its members, static ones among them, are restarted one
after the other, crash and haunt it, and the agent dies: nobody shares a partition, offsets and epochs only go on, and
in the end everything is somebody's."""

from __future__ import annotations

import asyncio

from simulation.checkers.epochs import check_epochs
from simulation.clients import Admin, Committer
from simulation.faults import SOME
from simulation.heartbeat_groups import PARTITIONS, all_in_use, check_group
from simulation.history import PartitionKey
from simulation.migrating import SESSION_MS, Course, Migrant
from simulation.scenarios import kill_now_and_then
from simulation.seeds import simulate
from simulation.world import WRONG_DRIFT, WRONG_MS, World

MIGRANTS = 3
CRASHES = 0.15
COURSES = 4


@simulate(
    seeds=40,
    reach=(
        "the group went up", "the group went down", "killed", "connection cut", "database: after", "clock set back",
        "gave something back", "a classic member gave something back", "a classic member was behind",
        "a member asked where to go on", "a zombie committed or tried to",
    ),
)  # fmt: skip
async def test_a_group_goes_up_and_down(world: World) -> None:
    world.skew_ms, world.drift = WRONG_MS, WRONG_DRIFT
    for limit in ("min.", ""):
        world.settings[f"group.consumer.{limit}session.timeout.ms"] = str(SESSION_MS)
        world.settings[f"group.consumer.{limit}heartbeat.interval.ms"] = "1000"
    await world.open()
    topic_id = await Admin(world, "admin").create_topic("orders", partitions=PARTITIONS)
    course = Course(world, "group", "orders", topic_id, PARTITIONS, is_upward=world.workload.random() < 0.5)
    # One is static and never crashes as a modern member, so that the group is never without members.
    anchor = Migrant("anchor", course, "anchor")
    others = [Migrant(f"migrant-{n}", course, "static" if n == 0 else None) for n in range(MIGRANTS)]
    lookers = [Committer(world, "group", "orders", PartitionKey(topic_id, index)) for index in range(PARTITIONS)]
    world.faults = SOME
    stop, settled = asyncio.Event(), asyncio.Event()
    async with asyncio.TaskGroup() as work:
        work.create_task(kill_now_and_then(world, stop, every_s=3))
        work.create_task(world.workload.choice(lookers).look_on(stop))
        work.create_task(anchor.live(stop, settled, work, crashes=0.0))
        for migrant in others:
            work.create_task(migrant.live(stop, settled, work, crashes=CRASHES))
        for _ in range(COURSES):
            await asyncio.sleep(world.workload.uniform(8, 16))
            course.is_upward = not course.is_upward
        stop.set()
        await asyncio.sleep(1)
        await world.heal()
        await world.eventually(lambda: all_in_use([anchor, *others]), "everything being used")
        settled.set()
    await check_group(world, course.uses, lookers)
    check_epochs(course.told)
