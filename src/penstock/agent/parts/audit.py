"""The audit log of an agent, where there is one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.agent.tuning import NODE_ID
from penstock.audit.service import QUEUE_MAX, AuditLog
from penstock.audit.settings import AuditSettings
from penstock.audit.topic import TopicAppender
from penstock.base.context import PLATFORM_CLUSTER_ID

if TYPE_CHECKING:
    from penstock.agent.agent import Agent


def open_audit(agent: Agent) -> AuditLog:
    """Tell of what happens from now on."""
    runtime = agent.runtime
    settings = AuditSettings.of(runtime.settings)
    appender = TopicAppender(
        topics=agent.topics, writer=agent.log.writer, clock=runtime.clock, cluster_id=PLATFORM_CLUSTER_ID,
        retention_ms=settings.retention_ms,
    )  # fmt: skip

    def name_of_cluster(cluster_id: int) -> str:
        """What a virtual cluster is called where Kafka calls clusters something, also when it has just gone."""
        cluster = agent.clusters.by_id(cluster_id)
        return str(cluster_id) if cluster is None else cluster.kafka_id

    queue_max = runtime.tuning.audit_queue
    audit = AuditLog(
        policy=settings.policy, appender=appender, names=name_of_cluster, home_cluster_id=PLATFORM_CLUSTER_ID,
        correlation_id=lambda of: agent.server.correlation_id(of), clock=runtime.clock, randomness=runtime.randomness,
        agent=str(NODE_ID), queue_max=QUEUE_MAX if queue_max is None else queue_max,
    )  # fmt: skip

    async def finish() -> None:
        await audit.close()
        await agent.log.drain()

    runtime.closing.push_async_callback(finish)  # When there are no more requests that it could hear of.
    if agent.access.authorizer is not None:
        agent.access.authorizer.listener = audit
    return audit
