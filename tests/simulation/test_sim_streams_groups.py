"""Members of a streams group come, go and lose their connections while the agent dies: the topics they need are made,
no task is active at two of them, and no offset goes back."""

from __future__ import annotations

from simulation.heartbeat_groups import REACH, come_and_go
from simulation.seeds import simulate
from simulation.streams_members import StreamsMember
from simulation.world import World


@simulate(seeds=25, reach=REACH)
async def test_nobody_shares_a_task(world: World) -> None:
    await come_and_go(world, StreamsMember)
