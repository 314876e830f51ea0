"""The handlers of all APIs, over the parts of an agent."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from penstock.agent.apis import Handlers
from penstock.agent.parts.coordinators import OneCoordinator, share_handlers
from penstock.authorization.handlers import AclHandlers
from penstock.clusters.handlers import VirtualClusterHandlers
from penstock.clusters.limits import LimitKey
from penstock.groups.consumer.handlers import ConsumerGroupHandlers
from penstock.groups.handlers import GroupHandlers
from penstock.groups.offset_handlers import OffsetHandlers as GroupOffsetHandlers
from penstock.groups.share.handlers import ShareGroupHandlers
from penstock.groups.streams.handlers import StreamsGroupHandlers
from penstock.groups.streams.internal_topics import InternalTopics
from penstock.identity.account_handlers import AccountHandlers
from penstock.identity.handlers import IdentityHandlers
from penstock.identity.token_handlers import TokenHandlers
from penstock.keys.handlers import ClusterKeyHandlers
from penstock.log.admin.cluster import ClusterHandlers
from penstock.log.admin.configs import ConfigHandlers
from penstock.log.admin.producers import ProducerHandlers
from penstock.log.admin.replicas import ReplicaHandlers
from penstock.log.admin.topics import TopicHandlers
from penstock.log.offsets_api import OffsetHandlers
from penstock.quotas.handlers import QuotaHandlers
from penstock.transactions.handlers import TransactionHandlers
from penstock.transactions.offset_handlers import TransactionOffsetHandlers

if TYPE_CHECKING:
    from penstock.agent.agent import Agent


def handlers_of(agent: Agent) -> Handlers:
    """What answers whatever an agent is asked, but for producing and fetching."""
    access, registry, topics, brokers = agent.access, agent.registry, agent.topics, agent.brokers
    groups, share_groups = agent.coordinators.groups, agent.coordinators.share_groups
    topic_handlers = TopicHandlers(topics, brokers, agent.throttles)
    consumer_groups = ConsumerGroupHandlers(groups, registry)
    internal_topics = InternalTopics(topic_handlers)
    streams_groups = StreamsGroupHandlers(groups, internal_topics)
    consumer_groups.authorizer = streams_groups.authorizer = access.authorizer
    transactions = TransactionHandlers(agent.transactions, registry, agent.producer_ids, agent.settings)
    transactions.producer_limit = agent.log.writer.producer_limit = agent.clusters.limit(LimitKey.PRODUCER_IDS)
    cluster = ClusterHandlers(topics, brokers, agent.throttles)
    if agent.audit is not None:
        cluster.on_created = partial(agent.audit.on_topic_made, because="auto.create.topics.enable")
        internal_topics.on_created = partial(agent.audit.on_topic_made, because="streams group")
    return Handlers(
        cluster=cluster,
        topics=topic_handlers,
        configs=ConfigHandlers(topics, brokers),
        replicas=ReplicaHandlers(registry, brokers),
        producers=ProducerHandlers(registry),
        virtual_clusters=_virtual_clusters(agent),
        cluster_keys=ClusterKeyHandlers(
            agent.keys,
            lambda: {cluster.name: cluster.cluster_id for cluster in agent.clusters.all()},
            is_admin=access.administers_platform,
        ),
        quotas=QuotaHandlers(agent.quotas),
        telemetry=agent.telemetry,
        acls=AclHandlers(access.acls if access.authorizer is not None else None),
        offsets=OffsetHandlers(topics, agent.log.timestamps.offset_for_timestamp),
        identities=IdentityHandlers(access.identities, may_change=access.may_change_proofs),
        accounts=AccountHandlers(access.identities, may_change=access.may_change_proofs),
        tokens=TokenHandlers(
            database=agent.stores.database,
            rules=agent.token_rules,
            clock=agent.clock,
            randomness=agent.randomness,
            may_change=access.may_change_proofs,
            is_guarded=access.authorizer is not None,
        ),
        groups=GroupHandlers(groups, OneCoordinator(brokers)),
        group_offsets=GroupOffsetHandlers(groups, registry),
        consumer_groups=consumer_groups,
        streams_groups=streams_groups,
        share_groups=ShareGroupHandlers(share_groups, registry),
        share=share_handlers(agent.coordinators, agent.log, agent.settings, access.authorizer),
        transactions=transactions,
        transaction_offsets=TransactionOffsetHandlers(agent.transactions, groups, registry),
    )


def _virtual_clusters(agent: Agent) -> VirtualClusterHandlers:
    registry, groups = agent.registry, agent.coordinators.groups

    async def usage_of(cluster_id: int) -> Mapping[str, float]:
        return {
            LimitKey.CONNECTIONS: agent.tenancy.counts[cluster_id],
            LimitKey.PARTITIONS: registry.partition_total(cluster_id),
            LimitKey.GROUPS: groups.count(cluster_id),
            LimitKey.PRODUCER_IDS: registry.producer_total(cluster_id),
        }

    return VirtualClusterHandlers(agent.clusters, is_admin=agent.access.administers_platform, usage=usage_of)
