"""How a deleted virtual cluster is removed: in steps, one for each part of an agent that has some of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from penstock.agent.following import FOLLOW_S
from penstock.clusters.removal import SETTLE_S, ClusterRemoval, RemovalStep

if TYPE_CHECKING:
    from penstock.agent.agent import Agent

AT_ONCE = 50
"""Topics, groups, or transactional ids of one step."""


def removal_of(agent: Agent) -> ClusterRemoval:
    """The chore."""
    return ClusterRemoval(
        agent.clusters, agent.stores.database, removal_steps(agent), is_ready=agent.runtime.is_ready,
        clock=agent.runtime.clock, settle_s=SETTLE_S if agent.log.commit_path.is_alone else 2 * FOLLOW_S,
    )  # fmt: skip


def removal_steps(agent: Agent) -> Sequence[RemovalStep]:
    """What is asked of the parts of an agent, in order, once it has started."""

    async def connections(cluster_id: int) -> bool:
        agent.server.close_cluster(cluster_id)
        return True

    async def transactions(cluster_id: int) -> bool:
        return await agent.transactions.remove(cluster_id, AT_ONCE)

    async def topics(cluster_id: int) -> bool:
        going = agent.registry.all(cluster_id)[:AT_ONCE]
        await agent.topics.delete(cluster_id, going)
        return not going

    async def groups(cluster_id: int) -> bool:
        going = (await agent.coordinators.groups.list_groups(cluster_id))[:AT_ONCE]
        for group in going:
            await agent.coordinators.groups.remove((cluster_id, group.group_id))
        return not going

    async def rules(cluster_id: int) -> bool:
        if not await agent.access.acls.remove_some(cluster_id):
            return False
        agent.limits.quotas.forget(cluster_id)
        agent.topics.forget_cluster(cluster_id)
        agent.registry.forget_cluster(cluster_id)
        return True

    async def keys(cluster_id: int) -> bool:
        await agent.keys.remove(cluster_id)
        return True

    return connections, transactions, topics, groups, rules, keys
