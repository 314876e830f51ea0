"""Removing deleted virtual clusters, piece by piece."""

from __future__ import annotations

from penstock.agent.change_poller import POLL_INTERVAL_S
from penstock.agent.parts.backend import Backend
from penstock.agent.removal_steps import removal_steps
from penstock.agent.server import Server
from penstock.clusters.removal import SETTLE_S, ClusterRemoval


def removal_of(backend: Backend, server: Server) -> ClusterRemoval:
    """The chore."""
    runtime = backend.runtime
    steps = removal_steps(
        close_connections=server.close_cluster, transactions=backend.transactions, topics=backend.topics,
        groups=backend.coordinators.groups, acls=backend.access.acls, limits=backend.limits.quotas, keys=backend.keys,
    )  # fmt: skip
    return ClusterRemoval(
        backend.clusters, backend.stores.database, steps, is_ready=runtime.is_ready, clock=runtime.clock,
        settle_s=SETTLE_S if backend.log.commit_path.is_alone else 2 * POLL_INTERVAL_S,
    )  # fmt: skip
