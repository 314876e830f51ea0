"""The handlers of all APIs, over the parts of an agent; each is made by the first request that it answers."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from penstock.agent import handler_modules as answering
from penstock.agent.apis import Handlers
from penstock.base.config_values import ConfigResource
from penstock.base.context import RequestContext
from penstock.base.later import made_late
from penstock.clusters.limits import LimitKey
from penstock.log.brokers import SingleBroker
from penstock.transactions.settings import TransactionSettings

if TYPE_CHECKING:
    from penstock.agent.agent import Agent
    from penstock.log.admin.config_kinds import ConfigKind


def handlers_of(agent: Agent) -> Handlers:
    """What answers whatever an agent is asked, but for producing and fetching."""
    access, registry, topics, brokers = agent.access, agent.registry, agent.topics, agent.brokers
    groups, share_groups = agent.coordinators.groups, agent.coordinators.share_groups
    agent.log.writer.producer_limit = agent.clusters.limit(LimitKey.PRODUCER_IDS)
    topic_handlers = made_late(lambda: answering.topics.TopicHandlers(topics, brokers, agent.limits.throttles))
    return Handlers(
        cluster=made_late(partial(_cluster, agent)),
        topics=topic_handlers,
        configs=made_late(lambda: answering.configs.ConfigHandlers(topics, brokers, config_kinds())),
        replicas=made_late(lambda: answering.replicas.ReplicaHandlers(registry, brokers)),
        producers=made_late(lambda: answering.producers.ProducerHandlers(registry)),
        virtual_clusters=made_late(partial(_virtual_clusters, agent)),
        cluster_keys=made_late(partial(_cluster_keys, agent)),
        quotas=made_late(lambda: answering.quotas.QuotaHandlers(agent.limits.quotas)),
        telemetry=agent.telemetry,
        acls=made_late(
            lambda: answering.acls.AclHandlers(access.acls if access.authorizer is not None else None)
        ),
        offsets=made_late(lambda: answering.offsets.OffsetHandlers(topics, agent.log.timestamps.offset_for_timestamp)),
        identities=made_late(
            lambda: answering.identities.IdentityHandlers(access.identities, may_change=access.may_change_proofs)
        ),
        accounts=made_late(
            lambda: answering.accounts.AccountHandlers(access.identities, may_change=access.may_change_proofs)
        ),
        tokens=made_late(partial(_tokens, agent)),
        groups=made_late(lambda: answering.groups.GroupHandlers(groups, OneCoordinator(brokers))),
        group_offsets=made_late(lambda: answering.group_offsets.OffsetHandlers(groups, registry)),
        consumer_groups=made_late(partial(_consumer_groups, agent)),
        streams_groups=made_late(partial(_streams_groups, agent, topic_handlers)),
        share_groups=made_late(lambda: answering.share_groups.ShareGroupHandlers(share_groups, registry)),
        share=made_late(partial(_share, agent)),
        transactions=made_late(partial(_transactions, agent)),
        transaction_offsets=made_late(
            lambda: answering.transaction_offsets.TransactionOffsetHandlers(agent.transactions, groups, registry)
        ),
    )  # fmt: skip


def config_kinds() -> Mapping[ConfigResource, ConfigKind]:
    """What has configuration beside topics and brokers."""
    return {
        ConfigResource.GROUP: answering.group_configs.CONFIG_KIND,
        ConfigResource.CLIENT_METRICS: answering.client_metrics_configs.CONFIG_KIND,
    }


def _cluster(agent: Agent) -> answering.cluster.ClusterHandlers:
    made = answering.cluster.ClusterHandlers(agent.topics, agent.brokers, agent.limits.throttles)
    if agent.audit is not None:
        made.on_created = partial(agent.audit.on_topic_created, because="auto.create.topics.enable")
    return made


def _virtual_clusters(agent: Agent) -> answering.virtual_clusters.VirtualClusterHandlers:
    registry, groups = agent.registry, agent.coordinators.groups

    async def usage_of(cluster_id: int) -> Mapping[str, float]:
        return {
            LimitKey.CONNECTIONS: agent.limits.tenancy.counts[cluster_id],
            LimitKey.PARTITIONS: registry.partition_total(cluster_id),
            LimitKey.GROUPS: groups.count(cluster_id),
            LimitKey.PRODUCER_IDS: registry.producer_total(cluster_id),
        }

    return answering.virtual_clusters.VirtualClusterHandlers(
        agent.clusters, is_admin=agent.access.administers_platform, usage=usage_of
    )


def _cluster_keys(agent: Agent) -> answering.cluster_keys.ClusterKeyHandlers:
    return answering.cluster_keys.ClusterKeyHandlers(
        agent.keys,
        lambda: {cluster.name: cluster.cluster_id for cluster in agent.clusters.all()},
        is_admin=agent.access.administers_platform,
    )


def _tokens(agent: Agent) -> answering.tokens.TokenHandlers:
    return answering.tokens.TokenHandlers(
        database=agent.stores.database,
        rules=agent.runtime.token_rules,
        clock=agent.runtime.clock,
        randomness=agent.runtime.randomness,
        may_change=agent.access.may_change_proofs,
        is_guarded=agent.access.authorizer is not None,
    )


def _consumer_groups(agent: Agent) -> answering.consumer_groups.ConsumerGroupHandlers:
    made = answering.consumer_groups.ConsumerGroupHandlers(agent.coordinators.groups, agent.registry)
    made.authorizer = agent.access.authorizer
    return made


def _streams_groups(
    agent: Agent, topic_handlers: answering.topics.TopicHandlers
) -> answering.streams_groups.StreamsGroupHandlers:
    internal_topics = answering.internal_topics.InternalTopics(topic_handlers)
    if agent.audit is not None:
        internal_topics.on_created = partial(agent.audit.on_topic_created, because="streams group")
    made = answering.streams_groups.StreamsGroupHandlers(agent.coordinators.groups, internal_topics)
    made.authorizer = agent.access.authorizer
    return made


def _share(agent: Agent) -> answering.share.ShareHandlers:
    """The APIs by which share groups read."""
    coordinators, registry, settings = agent.coordinators, agent.log.registry, agent.runtime.settings
    groups, partitions, configs = coordinators.share_groups, coordinators.share_partitions, coordinators.share_configs
    sessions = answering.share_sessions.ShareSessions(settings.whole("group.share.max.share.sessions"))
    fetch = answering.share_fetch.ShareFetchHandler(
        registry=registry, partitions=partitions, sessions=sessions, configs=configs, groups=groups,
        max_bytes=settings.whole("fetch.max.bytes"),
    )  # fmt: skip
    fetch.authorizer = agent.access.authorizer
    made = answering.share.ShareHandlers(
        registry=registry, groups=groups, partitions=partitions, sessions=sessions, configs=configs, fetch=fetch
    )
    agent.server.on_closed = made.on_connection_closed  # Before, there are no sessions.
    return made


def _transactions(agent: Agent) -> answering.transactions.TransactionHandlers:
    made = answering.transactions.TransactionHandlers(
        agent.transactions, agent.registry, agent.producer_ids, TransactionSettings.of(agent.runtime.settings)
    )
    made.producer_limit = agent.clusters.limit(LimitKey.PRODUCER_IDS)
    return made


class OneCoordinator:
    """The only agent coordinates everything."""

    def __init__(self, brokers: SingleBroker) -> None:
        self._brokers = brokers

    def coordinator(self, context: RequestContext, key_type: int, key: str) -> answering.groups.Endpoint:
        """This agent."""
        (broker,) = self._brokers.alive(context)
        return answering.groups.Endpoint(broker.node_id, broker.host, broker.port)
