"""The handlers of all APIs, over the backend; each is made by the first request that it answers."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from penstock.agent import handler_modules
from penstock.agent.apis import Handlers
from penstock.agent.parts.backend import Backend
from penstock.base.config_values import ConfigResource
from penstock.base.context import RequestContext
from penstock.base.lazy import lazy_object
from penstock.clusters.limits import LimitKey
from penstock.log.brokers import SingleBroker
from penstock.transactions.settings import TransactionSettings

if TYPE_CHECKING:
    from penstock.log.admin.config_kinds import ConfigKind


def handlers_of(backend: Backend) -> Handlers:
    """What answers whatever an agent is asked, but for producing and fetching."""
    access, registry, topics, brokers = backend.access, backend.log.registry, backend.topics, backend.brokers
    groups, share_groups = backend.coordinators.groups, backend.coordinators.share_groups
    transactions = backend.transactions
    backend.log.writer.producer_limit = backend.clusters.limit(LimitKey.PRODUCER_IDS)
    topic_handlers = lazy_object(
        lambda: handler_modules.topics.TopicHandlers(topics, brokers, backend.limits.throttles)
    )
    return Handlers(
        cluster=lazy_object(partial(_cluster, backend)),
        topics=topic_handlers,
        configs=lazy_object(lambda: handler_modules.configs.ConfigHandlers(topics, brokers, config_kinds())),
        replicas=lazy_object(lambda: handler_modules.replicas.ReplicaHandlers(registry, brokers)),
        producers=lazy_object(lambda: handler_modules.producers.ProducerHandlers(registry)),
        virtual_clusters=lazy_object(partial(_virtual_clusters, backend)),
        cluster_keys=lazy_object(partial(_cluster_keys, backend)),
        quotas=lazy_object(lambda: handler_modules.quotas.QuotaHandlers(backend.limits.quotas)),
        telemetry=backend.telemetry,
        acls=lazy_object(
            lambda: handler_modules.acls.AclHandlers(access.acls if access.authorizer is not None else None)
        ),
        offsets=lazy_object(
            lambda: handler_modules.offsets.LogOffsetHandlers(topics, backend.log.timestamps.offset_for_timestamp)
        ),
        identities=lazy_object(
            lambda: handler_modules.identities.IdentityHandlers(access.identities, may_change=access.may_change_proofs)
        ),
        accounts=lazy_object(
            lambda: handler_modules.accounts.AccountHandlers(access.identities, may_change=access.may_change_proofs)
        ),
        tokens=lazy_object(partial(_tokens, backend)),
        groups=lazy_object(lambda: handler_modules.groups.GroupHandlers(groups, SingleCoordinator(brokers))),
        group_offsets=lazy_object(lambda: handler_modules.group_offsets.OffsetHandlers(groups, registry)),
        consumer_groups=lazy_object(partial(_consumer_groups, backend)),
        streams_groups=lazy_object(partial(_streams_groups, backend, topic_handlers)),
        share_groups=lazy_object(lambda: handler_modules.share_groups.ShareGroupHandlers(share_groups, registry)),
        share=lazy_object(partial(_share, backend)),
        transactions=lazy_object(partial(_transactions, backend)),
        transaction_offsets=lazy_object(
            lambda: handler_modules.transaction_offsets.TransactionOffsetHandlers(transactions, groups, registry)
        ),
    )  # fmt: skip


def config_kinds() -> Mapping[ConfigResource, ConfigKind]:
    """What has configuration beside topics and brokers."""
    return {
        ConfigResource.GROUP: handler_modules.group_configs.CONFIG_KIND,
        ConfigResource.CLIENT_METRICS: handler_modules.client_metrics_configs.CONFIG_KIND,
    }


def _cluster(backend: Backend) -> handler_modules.cluster.ClusterHandlers:
    made = handler_modules.cluster.ClusterHandlers(backend.topics, backend.brokers, backend.limits.throttles)
    if backend.audit is not None:
        made.on_created = partial(backend.audit.on_topic_created, because="auto.create.topics.enable")
    return made


def _virtual_clusters(backend: Backend) -> handler_modules.virtual_clusters.VirtualClusterHandlers:
    registry, groups = backend.log.registry, backend.coordinators.groups

    async def usage_of(cluster_id: int) -> Mapping[str, float]:
        return {
            LimitKey.CONNECTIONS: backend.limits.cluster_connections.counts[cluster_id],
            LimitKey.PARTITIONS: registry.partition_total(cluster_id),
            LimitKey.GROUPS: groups.count(cluster_id),
            LimitKey.PRODUCER_IDS: registry.producer_total(cluster_id),
        }

    return handler_modules.virtual_clusters.VirtualClusterHandlers(
        backend.clusters, is_admin=backend.access.administers_platform, usage=usage_of
    )


def _cluster_keys(backend: Backend) -> handler_modules.cluster_keys.ClusterKeyHandlers:
    return handler_modules.cluster_keys.ClusterKeyHandlers(
        backend.keys,
        lambda: {cluster.name: cluster.cluster_id for cluster in backend.clusters.all()},
        is_admin=backend.access.administers_platform,
    )


def _tokens(backend: Backend) -> handler_modules.tokens.TokenHandlers:
    return handler_modules.tokens.TokenHandlers(
        database=backend.stores.database,
        rules=backend.runtime.token_rules,
        clock=backend.runtime.clock,
        randomness=backend.runtime.randomness,
        may_change=backend.access.may_change_proofs,
        is_guarded=backend.access.authorizer is not None,
    )


def _consumer_groups(backend: Backend) -> handler_modules.consumer_groups.ConsumerGroupHandlers:
    made = handler_modules.consumer_groups.ConsumerGroupHandlers(backend.coordinators.groups, backend.log.registry)
    made.authorizer = backend.access.authorizer
    return made


def _streams_groups(
    backend: Backend, topic_handlers: handler_modules.topics.TopicHandlers
) -> handler_modules.streams_groups.StreamsGroupHandlers:
    internal_topics = handler_modules.internal_topics.InternalTopics(topic_handlers)
    if backend.audit is not None:
        internal_topics.on_created = partial(backend.audit.on_topic_created, because="streams group")
    made = handler_modules.streams_groups.StreamsGroupHandlers(backend.coordinators.groups, internal_topics)
    made.authorizer = backend.access.authorizer
    return made


def _share(backend: Backend) -> handler_modules.share.ShareHandlers:
    """The APIs by which share groups read."""
    coordinators, registry, settings = backend.coordinators, backend.log.registry, backend.runtime.settings
    groups, partitions, configs = coordinators.share_groups, coordinators.share_partitions, coordinators.share_configs
    sessions = handler_modules.share_sessions.ShareSessions(settings.whole("group.share.max.share.sessions"))
    fetch = handler_modules.share_fetch.ShareFetchHandler(
        registry=registry, partitions=partitions, sessions=sessions, configs=configs, groups=groups,
        max_bytes=settings.whole("fetch.max.bytes"),
    )  # fmt: skip
    fetch.authorizer = backend.access.authorizer
    made = handler_modules.share.ShareHandlers(
        registry=registry, groups=groups, partitions=partitions, sessions=sessions, configs=configs, fetch=fetch
    )
    backend.on_closed.append(made.on_connection_closed)  # Before, there are no sessions.
    return made


def _transactions(backend: Backend) -> handler_modules.transactions.TransactionHandlers:
    made = handler_modules.transactions.TransactionHandlers(
        backend.transactions, backend.log.registry, backend.producer_ids,
        TransactionSettings.of(backend.runtime.settings),
    )  # fmt: skip
    made.producer_limit = backend.clusters.limit(LimitKey.PRODUCER_IDS)
    return made


class SingleCoordinator:
    """The only agent coordinates everything."""

    def __init__(self, brokers: SingleBroker) -> None:
        self._brokers = brokers

    def coordinator(
        self, context: RequestContext, key_type: int, key: str
    ) -> handler_modules.groups.CoordinatorEndpoint:
        """This backend."""
        (broker,) = self._brokers.alive(context)
        return handler_modules.groups.CoordinatorEndpoint(broker.node_id, broker.host, broker.port)
