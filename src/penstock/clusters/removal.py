"""The chore that deletes the contents of deleted virtual clusters, in bounded steps.

The deletion of a cluster is durable before any of its contents are removed, and the row of the cluster is removed last:
after a crash at any point the next start continues. Parts of the agent that cache something of clusters remove it in
the steps passed in here; what exists only in the database is deleted here, a number of rows at a time.

Requests that were in flight when the deletion began may add something after a step found nothing, and so may other
agents until they notice the deletion. So every cluster is processed once more, some time after nothing was found.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import NamedTuple

from penstock.base.clock import Clock
from penstock.base.errors import PlatformError
from penstock.clusters.model import Cluster
from penstock.clusters.service import Clusters
from penstock.metadata.database import Database, Script

ROWS_AT_ONCE = 500
RETRY_S = 2.0
"""Delay before a step that failed is retried: the key service may be unavailable, for example."""
SETTLE_S = 0.5
"""Delay before an empty cluster is processed once more, if there is no other agent."""
_log = logging.getLogger(__name__)

RemovalStep = Callable[[int], Awaitable[bool]]
"""Removes some of the contents of a cluster; whether none are left. Raises a `PlatformError` if it could not remove any
now; then it is retried."""


class ClusterRows(NamedTuple):
    """A table with rows of clusters that no part of the agent caches, and its key."""

    table: str
    key: str


ROWS = (
    ClusterRows("txn_offset", "producer_id, group_id, topic_id, partition_index"),
    ClusterRows("group_offset", "group_id, topic_id, partition_index"),
    ClusterRows("group_member", "group_id, member_id"),
    ClusterRows("group_", "group_id"),
    ClusterRows("share_partition", "group_id, topic_id, partition_index"),
    ClusterRows("scram_credential", "user_name, mechanism"),
    ClusterRows("api_key", "key_id"),
    ClusterRows("service_account", "name"),
    ClusterRows("delegation_token", "token_id"),
    ClusterRows("revoked_token", "token_id"),
    ClusterRows("quota", "entity, key"),
    ClusterRows("config", "kind, name, key"),
)


def remove_rows(cluster_id: int, rows: ClusterRows) -> Script[int]:
    """Delete some rows of a cluster; returns their number."""
    gone = yield (
        f"DELETE FROM {rows.table} WHERE cluster_id = $1 AND ({rows.key}) IN"
        f" (SELECT {rows.key} FROM {rows.table} WHERE cluster_id = $1 LIMIT {ROWS_AT_ONCE}) RETURNING 1",
        (cluster_id,),
    )
    return len(gone)


class ClusterRemoval:
    """The chore. It is not scheduled while no cluster is being deleted."""

    name = "cluster removal"

    def __init__(
        self, clusters: Clusters, database: Database, steps: Sequence[RemovalStep], *, is_ready: Callable[[], bool],
        clock: Clock, settle_s: float = SETTLE_S,
    ) -> None:  # fmt: skip
        self._clusters, self._database, self._steps, self._clock = clusters, database, steps, clock
        self._settle_s = settle_s
        self._is_ready = is_ready
        """Whether the parts of the agent have started that the steps use."""
        self._last = -1
        """The cluster of the last step."""
        self._not_before: dict[int, float] = {}
        """The times before which clusters are not processed, by cluster."""
        self._empty: set[int] = set()
        """Clusters that were found empty once."""

    @property
    def backlog(self) -> int:
        """Number of clusters being deleted."""
        return len(self._clusters.deleting())

    async def run(self) -> float | None:
        """One step of one cluster, round robin among those that need not wait."""
        deleting = self._clusters.deleting()
        if deleting and not self._is_ready():
            return RETRY_S
        now = self._clock.monotonic()
        self._not_before = {
            cluster.cluster_id: until for cluster in deleting if (until := self._until(cluster)) > now
        }  # fmt: skip
        waiting = self._not_before
        able = [cluster for cluster in deleting if cluster.cluster_id not in waiting]
        if not able:
            return min(waiting.values()) - now if waiting else None
        cluster = min(able, key=lambda one: (one.cluster_id <= self._last, one.cluster_id))
        self._last = cluster.cluster_id
        try:
            await self._step(cluster)
        except PlatformError as problem:
            _log.info("cluster %s cannot be removed yet: %s", cluster.name, problem)
            waiting[cluster.cluster_id] = now + RETRY_S
        return 0

    def _until(self, cluster: Cluster) -> float:
        return self._not_before.get(cluster.cluster_id, 0.0)

    async def _step(self, cluster: Cluster) -> None:
        """Remove some contents; if the cluster was found empty for the second time, the cluster itself."""
        was_empty = cluster.cluster_id in self._empty
        self._empty.discard(cluster.cluster_id)
        for step in self._steps:
            if not await step(cluster.cluster_id):
                return
        for rows in ROWS:
            if await self._database.transaction(partial(remove_rows, cluster.cluster_id, rows), background=True):
                return
        if was_empty:
            await self._clusters.forget(cluster)
        else:
            self._empty.add(cluster.cluster_id)
            self._not_before[cluster.cluster_id] = self._clock.monotonic() + self._settle_s
