"""Members of a consumer group come, go and lose their connections while the agent dies: nobody shares a partition, and
no offset goes back."""

from __future__ import annotations

from simulation.heartbeat_groups import REACH, come_and_go
from simulation.heartbeating import Member
from simulation.seeds import simulate
from simulation.world import World


@simulate(seeds=100, reach=REACH)
async def test_nobody_shares_a_partition(world: World) -> None:
    await come_and_go(world, Member)
