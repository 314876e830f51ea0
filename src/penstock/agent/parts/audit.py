"""The audit log of an agent, where there is one."""

from __future__ import annotations

from collections.abc import Callable

from penstock.agent.parts.access import AccessControl
from penstock.agent.parts.log import Log
from penstock.agent.parts.runtime import Runtime
from penstock.agent.tuning import NODE_ID
from penstock.audit.service import QUEUE_MAX, AuditLog
from penstock.audit.settings import AuditSettings
from penstock.audit.topic import TopicAppender
from penstock.base.context import PLATFORM_CLUSTER_ID
from penstock.clusters.service import Clusters
from penstock.log.topics import Topics


def open_audit(
    runtime: Runtime, clusters: Clusters, topics: Topics, log: Log, access: AccessControl,
    correlation_id: Callable[[int], int | None],
) -> AuditLog:  # fmt: skip
    """Tell of what happens from now on. `correlation_id` says which request a connection is at."""
    settings = AuditSettings.of(runtime.settings)
    appender = TopicAppender(
        topics=topics, writer=log.writer, clock=runtime.clock, cluster_id=PLATFORM_CLUSTER_ID,
        retention_ms=settings.retention_ms,
    )  # fmt: skip

    def name_of_cluster(cluster_id: int) -> str:
        """What a virtual cluster is called where Kafka calls clusters something, also when it has just gone."""
        cluster = clusters.by_id(cluster_id)
        return str(cluster_id) if cluster is None else cluster.kafka_id

    queue_max = runtime.tuning.audit_queue
    audit = AuditLog(
        policy=settings.policy, appender=appender, names=name_of_cluster, home_cluster_id=PLATFORM_CLUSTER_ID,
        correlation_id=correlation_id, clock=runtime.clock, randomness=runtime.randomness,
        agent=str(NODE_ID), queue_max=QUEUE_MAX if queue_max is None else queue_max,
    )  # fmt: skip

    async def finish() -> None:
        await audit.close()
        await log.drain()

    runtime.closing.push_async_callback(finish)  # When there are no more requests that it could hear of.
    if access.authorizer is not None:
        access.authorizer.listener = audit
    return audit
