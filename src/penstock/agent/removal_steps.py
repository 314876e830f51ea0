"""How a deleted virtual cluster is removed: in steps, one for each part of an agent that has some of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from penstock.authorization.service import AclService
from penstock.clusters.removal import RemovalStep
from penstock.groups.service import GroupService
from penstock.keys.service import DataKeys
from penstock.log.topics import Topics
from penstock.transactions.service import TransactionService

AT_ONCE = 50
"""Topics, groups, or transactional ids of one step."""


class Limits(Protocol):
    """What is kept in memory of how much a virtual cluster may do."""

    def forget(self, cluster_id: int) -> None:
        """Forget all of it."""


def removal_steps(
    *, close_connections: Callable[[int], object], transactions: TransactionService, topics: Topics,
    groups: GroupService, acls: AclService, limits: Limits, keys: DataKeys,
) -> Sequence[RemovalStep]:  # fmt: skip
    """What is asked of them, in order, once the agent has started."""

    async def connections(cluster_id: int) -> bool:
        close_connections(cluster_id)
        return True

    async def transactional_ids(cluster_id: int) -> bool:
        return await transactions.remove(cluster_id, AT_ONCE)

    async def some_topics(cluster_id: int) -> bool:
        going = topics.registry.all(cluster_id)[:AT_ONCE]
        await topics.delete(cluster_id, going)
        return not going

    async def some_groups(cluster_id: int) -> bool:
        going = (await groups.list_groups(cluster_id))[:AT_ONCE]
        for group in going:
            await groups.remove((cluster_id, group.group_id))
        return not going

    async def rules(cluster_id: int) -> bool:
        if not await acls.remove_some(cluster_id):
            return False
        limits.forget(cluster_id)
        topics.forget_cluster(cluster_id)
        topics.registry.forget_cluster(cluster_id)
        return True

    async def data_keys(cluster_id: int) -> bool:
        await keys.remove(cluster_id)
        return True

    return connections, transactional_ids, some_topics, some_groups, rules, data_keys
