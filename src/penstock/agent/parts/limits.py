"""Limits: of users, clients and addresses, and of virtual clusters."""

from __future__ import annotations

from penstock.agent.cluster_connections import ClusterConnections
from penstock.agent.parts.runtime import Runtime
from penstock.agent.parts.stores import Stores
from penstock.base.dataclasses import dataclass
from penstock.clusters.service import Clusters
from penstock.quotas.service import Quotas
from penstock.quotas.settings import QuotaSettings
from penstock.quotas.throttles import Throttles
from penstock.share.dead_letters import DeadLetters


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientLimits:
    """How much clients may do."""

    quotas: Quotas
    """Which limits there are for users, clients and addresses."""
    throttles: Throttles
    """What of that, and of the limits of virtual clusters, has been used."""
    cluster_connections: ClusterConnections
    """How many connections virtual clusters have."""


async def open_limits(runtime: Runtime, stores: Stores, clusters: Clusters, dead_letters: DeadLetters) -> ClientLimits:
    """Load what is limited."""
    throttles = Throttles(clock=runtime.clock, settings=QuotaSettings.of(runtime.settings))
    quotas = Quotas(database=stores.database, throttles=throttles)
    await quotas.load()
    dead_letters.charge = throttles.on_internal_write
    runtime.closing.push_async_callback(quotas.close)
    for cluster in clusters.all():
        throttles.set_cluster_limits(cluster.cluster_id, cluster.limits)
    cluster_connections = ClusterConnections(
        limits=clusters.limits, cluster_limits=throttles.cluster_limits, is_open=clusters.is_open, clock=runtime.clock
    )
    return ClientLimits(quotas=quotas, throttles=throttles, cluster_connections=cluster_connections)
