"""A group goes up to the consumer protocol and down again while its members, static ones among them, are restarted one
after the other, crash and resume it, and the agent dies: nobody shares a partition, offsets and epochs only go on, and
in the end everything is somebody's."""

from __future__ import annotations

import asyncio

from simulation.clients import Admin
from simulation.faults import SOME
from simulation.heartbeat_groups import PARTITIONS
from simulation.migrating import go_up_and_down, set_sessions
from simulation.scenarios import kill_now_and_then
from simulation.seeds import simulate
from simulation.world import WRONG_DRIFT, WRONG_MS, World


@simulate(
    seeds=12,
    reach=(
        "the group went up", "the group went down", "killed", "connection cut", "database: after", "clock set back",
        "gave something back", "a classic member gave something back", "a classic member was behind",
        "a member asked where to go on", "a zombie committed or tried to",
    ),
)  # fmt: skip
async def test_a_group_goes_up_and_down(world: World) -> None:
    world.skew_ms, world.drift = WRONG_MS, WRONG_DRIFT
    set_sessions(world)
    await world.open()
    topic_id = await Admin(world, "admin").create_topic("orders", partitions=PARTITIONS)
    world.faults = SOME
    stop = asyncio.Event()
    await go_up_and_down(world, topic_id, kill_now_and_then(world, stop, every_s=3), stop)
