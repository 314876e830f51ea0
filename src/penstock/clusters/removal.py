"""What a deleted virtual cluster held goes, a bounded step at a time.

That a cluster goes is durable before anything of it is touched, and its row goes last: a start after a crash at any
instant finds what is left and goes on. Whatever keeps something in memory removes its own, by the steps it is given
here; what is only in rows is removed by them, so many at a time.

What was under way when it was let go may leave something behind where nothing was left before, and so may other agents
until they have heard of it. So a cluster is looked at once more, a while after nothing was found.
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
AGAIN_S = 2.0
"""When a step is looked at again that has to wait: for the key service, say."""
SETTLE_S = 0.5
"""How long after nothing is left of a cluster that is looked at again, where there is no other agent."""
_log = logging.getLogger(__name__)

Step = Callable[[int], Awaitable[bool]]
"""Removes some of what a cluster has; whether none is left. Raises a `PlatformError` when there is some, and it could
remove nothing now: then it has to wait."""


class Rows(NamedTuple):
    """Rows of a cluster that nobody keeps in memory."""

    table: str
    key: str


ROWS = (
    Rows("txn_offset", "producer_id, group_id, topic_id, partition_index"),
    Rows("group_offset", "group_id, topic_id, partition_index"),
    Rows("group_member", "group_id, member_id"),
    Rows("group_", "group_id"),
    Rows("share_partition", "group_id, topic_id, partition_index"),
    Rows("scram_credential", "user_name, mechanism"),
    Rows("api_key", "key_id"),
    Rows("service_account", "name"),
    Rows("delegation_token", "token_id"),
    Rows("revoked_token", "token_id"),
    Rows("quota", "entity, key"),
    Rows("config", "kind, name, key"),
)


def remove_rows(cluster_id: int, rows: Rows) -> Script[int]:
    """Remove some rows of a cluster; how many."""
    gone = yield (
        f"DELETE FROM {rows.table} WHERE cluster_id = $1 AND ({rows.key}) IN"
        f" (SELECT {rows.key} FROM {rows.table} WHERE cluster_id = $1 LIMIT {ROWS_AT_ONCE}) RETURNING 1",
        (cluster_id,),
    )
    return len(gone)


class Removal:
    """The chore. It rests while no cluster goes."""

    name = "cluster removal"

    def __init__(
        self, clusters: Clusters, database: Database, steps: Sequence[Step], *, is_ready: Callable[[], bool],
        clock: Clock, settle_s: float = SETTLE_S,
    ) -> None:  # fmt: skip
        self._clusters, self._database, self._steps, self._clock = clusters, database, steps, clock
        self._settle_s = settle_s
        self._is_ready = is_ready
        """Whether everything has started that keeps something of clusters."""
        self._last = -1
        """The cluster that had a turn last."""
        self._not_before: dict[int, float] = {}
        """Until when clusters wait."""
        self._empty: set[int] = set()
        """Clusters of which nothing was left when they were looked at last."""

    @property
    def backlog(self) -> int:
        """How many clusters are going."""
        return len(self._clusters.going())

    async def run(self) -> float | None:
        """One step of one cluster. They take turns, but for those that wait."""
        going = self._clusters.going()
        if going and not self._is_ready():
            return AGAIN_S
        now = self._clock.monotonic()
        self._not_before = {
            cluster.cluster_id: until for cluster in going if (until := self._until(cluster)) > now
        }  # fmt: skip
        waiting = self._not_before
        able = [cluster for cluster in going if cluster.cluster_id not in waiting]
        if not able:
            return min(waiting.values()) - now if waiting else None
        cluster = min(able, key=lambda one: (one.cluster_id <= self._last, one.cluster_id))
        self._last = cluster.cluster_id
        try:
            await self._step(cluster)
        except PlatformError as problem:
            _log.info("cluster %s cannot be removed yet: %s", cluster.name, problem)
            waiting[cluster.cluster_id] = now + AGAIN_S
        return 0

    def _until(self, cluster: Cluster) -> float:
        return self._not_before.get(cluster.cluster_id, 0.0)

    async def _step(self, cluster: Cluster) -> None:
        """Remove something, as there always is until the cluster itself is removed."""
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
