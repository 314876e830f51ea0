"""Every Kafka API this agent answers, with its versions. ApiVersions, the reference and the tests read this table.

What is not in the table is not advertised, and a request for it closes the connection, as in Kafka;
`penstock.agent.unserved` says why it is not there.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any

from penstock.agent import handler_modules
from penstock.agent.api_versions import ApiVersionsHandler, features_of
from penstock.agent.features import FeatureHandlers
from penstock.base.context import RequestContext
from penstock.base.dataclasses import dataclass, field, replace
from penstock.base.lazy import lazy_import
from penstock.wire.api_keys import ApiKey

if TYPE_CHECKING:
    from penstock.audit.service import AuditLog
    from penstock.authorization.guards import table as guard_table
else:
    guard_table = lazy_import("penstock.authorization.guards.table")

Handle = Callable[[RequestContext, Any], Coroutine[Any, Any, Any]]
Begin = Callable[[RequestContext, Any, Callable[[Any], None]], None]


@dataclass(frozen=True, slots=True)
class Api:
    """One API: the versions served, and who answers. Produce and Fetch are answered by the dispatcher."""

    versions: range
    handle: Handle | None = None
    advertised_from: int | None = None
    """The lowest version in ApiVersions where it is not the lowest that is served (KAFKA-18659)."""
    begin: Begin | None = None
    """The same as `handle` where nobody has to be asked first: the answer is given to a callback, and is to be sent at
    once. None is given where `handle` has to be called after all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Handlers:
    """Those who answer."""

    cluster: handler_modules.cluster.ClusterHandlers
    topics: handler_modules.topics.TopicHandlers
    configs: handler_modules.configs.ConfigHandlers
    replicas: handler_modules.replicas.ReplicaHandlers
    producers: handler_modules.producers.ProducerHandlers
    offsets: handler_modules.offsets.LogOffsetHandlers
    groups: handler_modules.groups.GroupHandlers
    group_offsets: handler_modules.group_offsets.OffsetHandlers
    consumer_groups: handler_modules.consumer_groups.ConsumerGroupHandlers
    transactions: handler_modules.transactions.TransactionHandlers
    transaction_offsets: handler_modules.transaction_offsets.TransactionOffsetHandlers
    identities: handler_modules.identities.IdentityHandlers | None = None
    accounts: handler_modules.accounts.AccountHandlers | None = None
    tokens: handler_modules.tokens.TokenHandlers | None = None
    """None where there is nobody to be told apart, as in the simulation; both or neither."""
    virtual_clusters: handler_modules.virtual_clusters.VirtualClusterHandlers | None = None
    """None where there is only one."""
    cluster_keys: handler_modules.cluster_keys.ClusterKeyHandlers | None = None
    """None where nothing can be encrypted."""
    quotas: handler_modules.quotas.QuotaHandlers | None = None
    telemetry: handler_modules.telemetry.TelemetryHandlers | None = None
    """None where metrics of clients have nowhere to go: clients are not asked for any, as in Kafka."""
    acls: handler_modules.acls.AclHandlers = field(default_factory=lambda: handler_modules.acls.AclHandlers(None))
    streams_groups: handler_modules.streams_groups.StreamsGroupHandlers | None = None
    share_groups: handler_modules.share_groups.ShareGroupHandlers | None = None
    share: handler_modules.share.ShareHandlers | None = None
    """None where share groups are not served; both or neither."""


def _up_to(newest: int, *, oldest: int = 0) -> range:
    return range(oldest, newest + 1)


def _transaction_apis(handlers: Handlers) -> dict[int, Api]:
    transactions, offsets = handlers.transactions, handlers.transaction_offsets
    return {
        ApiKey.INIT_PRODUCER_ID: Api(_up_to(5), transactions.init_producer_id),
        ApiKey.ADD_PARTITIONS_TO_TXN: Api(_up_to(5), transactions.add_partitions),
        ApiKey.ADD_OFFSETS_TO_TXN: Api(_up_to(4), transactions.add_offsets),
        ApiKey.END_TXN: Api(_up_to(5), transactions.end_txn, begin=transactions.begin_end_txn),
        ApiKey.WRITE_TXN_MARKERS: Api(_up_to(2, oldest=1), transactions.write_markers),
        ApiKey.TXN_OFFSET_COMMIT: Api(_up_to(6), offsets.txn_offset_commit),
        ApiKey.DESCRIBE_TRANSACTIONS: Api(_up_to(0), transactions.describe_transactions),
        ApiKey.LIST_TRANSACTIONS: Api(_up_to(2), transactions.list_transactions),
    }


def _share_apis(handlers: Handlers) -> dict[int, Api]:
    groups, share = handlers.share_groups, handlers.share
    if groups is None or share is None:
        return {}
    return {
        ApiKey.SHARE_GROUP_HEARTBEAT: Api(_up_to(1, oldest=1), groups.heartbeat),
        ApiKey.SHARE_GROUP_DESCRIBE: Api(_up_to(1, oldest=1), groups.describe),
        ApiKey.SHARE_FETCH: Api(_up_to(2, oldest=1), share.share_fetch),
        ApiKey.SHARE_ACKNOWLEDGE: Api(_up_to(2, oldest=1), share.share_acknowledge),
        ApiKey.DESCRIBE_SHARE_GROUP_OFFSETS: Api(_up_to(1), share.describe_offsets),
        ApiKey.ALTER_SHARE_GROUP_OFFSETS: Api(_up_to(0), share.alter_offsets),
        ApiKey.DELETE_SHARE_GROUP_OFFSETS: Api(_up_to(0), share.delete_offsets),
    }


def _streams_apis(handlers: Handlers) -> dict[int, Api]:
    groups = handlers.streams_groups
    if groups is None:
        return {}
    return {
        ApiKey.STREAMS_GROUP_HEARTBEAT: Api(_up_to(1), groups.heartbeat),
        ApiKey.STREAMS_GROUP_DESCRIBE: Api(_up_to(1), groups.describe),
    }


def _quota_apis(handlers: Handlers) -> dict[int, Api]:
    quotas = handlers.quotas
    if quotas is None:
        return {}
    return {
        ApiKey.DESCRIBE_CLIENT_QUOTAS: Api(_up_to(1), quotas.describe_client_quotas),
        ApiKey.ALTER_CLIENT_QUOTAS: Api(_up_to(1), quotas.alter_client_quotas),
    }


def _identity_apis(handlers: Handlers) -> dict[int, Api]:
    """`sasl.py` speaks SASL; what comes here of it comes from somebody who is authenticated, or need not be."""
    identities, accounts, tokens = handlers.identities, handlers.accounts, handlers.tokens
    if identities is None or accounts is None or tokens is None:
        return {}
    return {
        ApiKey.SASL_HANDSHAKE: Api(_up_to(1), identities.sasl_handshake),
        ApiKey.SASL_AUTHENTICATE: Api(_up_to(2), identities.sasl_authenticate),
        ApiKey.DESCRIBE_USER_SCRAM_CREDENTIALS: Api(_up_to(0), identities.describe_scram),
        ApiKey.ALTER_USER_SCRAM_CREDENTIALS: Api(_up_to(0), identities.alter_scram),
        ApiKey.CREATE_DELEGATION_TOKEN: Api(_up_to(3, oldest=1), tokens.create),
        ApiKey.RENEW_DELEGATION_TOKEN: Api(_up_to(2, oldest=1), tokens.renew),
        ApiKey.EXPIRE_DELEGATION_TOKEN: Api(_up_to(2, oldest=1), tokens.expire),
        ApiKey.DESCRIBE_DELEGATION_TOKEN: Api(_up_to(3, oldest=1), tokens.describe),
        ApiKey.DESCRIBE_SERVICE_ACCOUNTS: Api(_up_to(0), accounts.describe_accounts),
        ApiKey.ALTER_SERVICE_ACCOUNTS: Api(_up_to(0), accounts.alter_accounts),
        ApiKey.CREATE_API_KEY: Api(_up_to(0), accounts.create_key),
        ApiKey.DELETE_API_KEYS: Api(_up_to(0), accounts.delete_keys),
    }


def _cluster_apis(handlers: Handlers) -> dict[int, Api]:
    clusters = handlers.virtual_clusters
    if clusters is None:
        return {}
    return {
        ApiKey.ENTER_CLUSTER: Api(_up_to(0), clusters.enter),
        ApiKey.DESCRIBE_VIRTUAL_CLUSTERS: Api(_up_to(0), clusters.describe),
        ApiKey.CREATE_VIRTUAL_CLUSTER: Api(_up_to(0), clusters.create),
        ApiKey.ALTER_VIRTUAL_CLUSTER: Api(_up_to(0), clusters.alter),
        ApiKey.DELETE_VIRTUAL_CLUSTER: Api(_up_to(0), clusters.delete),
        ApiKey.DESCRIBE_ENVIRONMENTS: Api(_up_to(0), clusters.describe_environments),
        ApiKey.ALTER_ENVIRONMENTS: Api(_up_to(0), clusters.alter_environments),
    }


def _key_apis(handlers: Handlers) -> dict[int, Api]:
    keys = handlers.cluster_keys
    if keys is None:
        return {}
    return {
        ApiKey.DESCRIBE_CLUSTER_KEYS: Api(_up_to(0), keys.describe),
        ApiKey.ALTER_CLUSTER_KEYS: Api(_up_to(0), keys.alter),
    }


def _telemetry_apis(handlers: Handlers) -> dict[int, Api]:
    telemetry = handlers.telemetry
    if telemetry is None:
        return {}
    return {
        ApiKey.GET_TELEMETRY_SUBSCRIPTIONS: Api(_up_to(0), telemetry.get_telemetry_subscriptions),
        ApiKey.PUSH_TELEMETRY: Api(_up_to(0), telemetry.push_telemetry),
    }


def apis(handlers: Handlers) -> Mapping[int, Api]:
    """The table."""
    cluster, topics, configs, replicas = handlers.cluster, handlers.topics, handlers.configs, handlers.replicas
    groups, group_offsets = handlers.groups, handlers.group_offsets
    table: dict[int, Api] = {}
    table |= (
        _transaction_apis(handlers)
        | _quota_apis(handlers)
        | _telemetry_apis(handlers)
        | _share_apis(handlers)
        | _streams_apis(handlers)
        | _identity_apis(handlers)
        | _cluster_apis(handlers)
        | _key_apis(handlers)
        | {
            ApiKey.PRODUCE: Api(_up_to(13, oldest=3), advertised_from=0),
            ApiKey.FETCH: Api(_up_to(18, oldest=4)),
            ApiKey.LIST_OFFSETS: Api(_up_to(11, oldest=1), handlers.offsets.list_offsets),
            ApiKey.METADATA: Api(_up_to(13), cluster.metadata),
            ApiKey.OFFSET_COMMIT: Api(_up_to(10, oldest=2), group_offsets.offset_commit),
            ApiKey.OFFSET_FETCH: Api(_up_to(10, oldest=1), group_offsets.offset_fetch),
            ApiKey.FIND_COORDINATOR: Api(_up_to(6), groups.find_coordinator),
            ApiKey.JOIN_GROUP: Api(_up_to(9), groups.join_group),
            ApiKey.HEARTBEAT: Api(_up_to(4), groups.heartbeat),
            ApiKey.LEAVE_GROUP: Api(_up_to(5), groups.leave_group),
            ApiKey.SYNC_GROUP: Api(_up_to(5), groups.sync_group),
            ApiKey.DESCRIBE_GROUPS: Api(_up_to(6), groups.describe_groups),
            ApiKey.LIST_GROUPS: Api(_up_to(5), groups.list_groups),
            ApiKey.CREATE_TOPICS: Api(_up_to(7, oldest=2), topics.create_topics),
            ApiKey.DELETE_TOPICS: Api(_up_to(6, oldest=1), topics.delete_topics),
            ApiKey.DELETE_RECORDS: Api(_up_to(2), handlers.offsets.delete_records),
            ApiKey.OFFSET_FOR_LEADER_EPOCH: Api(_up_to(4, oldest=2), handlers.offsets.offset_for_leader_epoch),
            ApiKey.DESCRIBE_ACLS: Api(_up_to(3, oldest=1), handlers.acls.describe_acls),
            ApiKey.CREATE_ACLS: Api(_up_to(3, oldest=1), handlers.acls.create_acls),
            ApiKey.DELETE_ACLS: Api(_up_to(3, oldest=1), handlers.acls.delete_acls),
            ApiKey.DESCRIBE_CONFIGS: Api(_up_to(4, oldest=1), configs.describe_configs),
            ApiKey.ALTER_CONFIGS: Api(_up_to(2), configs.alter_configs),
            ApiKey.ALTER_REPLICA_LOG_DIRS: Api(_up_to(2, oldest=1), replicas.alter_replica_log_dirs),
            ApiKey.DESCRIBE_LOG_DIRS: Api(_up_to(5, oldest=1), replicas.describe_log_dirs),
            ApiKey.CREATE_PARTITIONS: Api(_up_to(3), topics.create_partitions),
            ApiKey.DELETE_GROUPS: Api(_up_to(3), groups.delete_groups),
            ApiKey.ELECT_LEADERS: Api(_up_to(2), replicas.elect_leaders),
            ApiKey.INCREMENTAL_ALTER_CONFIGS: Api(_up_to(1), configs.incremental_alter_configs),
            ApiKey.ALTER_PARTITION_REASSIGNMENTS: Api(_up_to(1), replicas.alter_partition_reassignments),
            ApiKey.LIST_PARTITION_REASSIGNMENTS: Api(_up_to(0), replicas.list_partition_reassignments),
            ApiKey.OFFSET_DELETE: Api(_up_to(0), group_offsets.offset_delete),
            ApiKey.DESCRIBE_QUORUM: Api(_up_to(2), replicas.describe_quorum),
            ApiKey.UPDATE_FEATURES: Api(_up_to(2), FeatureHandlers(lambda: features_of(table)).update_features),
            ApiKey.DESCRIBE_CLUSTER: Api(_up_to(2), cluster.describe_cluster),
            ApiKey.DESCRIBE_PRODUCERS: Api(_up_to(0), handlers.producers.describe_producers),
            ApiKey.CONSUMER_GROUP_HEARTBEAT: Api(_up_to(1), handlers.consumer_groups.heartbeat),
            ApiKey.CONSUMER_GROUP_DESCRIBE: Api(_up_to(1), handlers.consumer_groups.describe),
            ApiKey.LIST_CONFIG_RESOURCES: Api(_up_to(1), configs.list_config_resources),
            ApiKey.DESCRIBE_TOPIC_PARTITIONS: Api(_up_to(0), cluster.describe_topic_partitions),
        }
    )
    table[ApiKey.API_VERSIONS] = Api(_up_to(5), ApiVersionsHandler(table, cluster.kafka_cluster_id).api_versions)
    return table


def guarded(table: Mapping[int, Api], guards: guard_table.Guards) -> Mapping[int, Api]:
    """The same table for callers who are not trusted. Produce and Fetch see to themselves."""
    return {
        key: api
        if key in guard_table.SELF_AUTHORIZING or api.handle is None
        else replace(api, handle=guards.guarded(key, api.handle), begin=None)
        for key, api in table.items()
    }


def audited(table: Mapping[int, Api], audit: AuditLog) -> Mapping[int, Api]:
    """The same table, whose changes are told in the audit log."""
    return {key: _audited(key, api, audit) for key, api in table.items()}


def _audited(key: int, api: Api, audit: AuditLog) -> Api:
    if api.handle is None:
        return api
    handle = audit.audited(key, api.handle)
    return api if handle is api.handle else replace(api, handle=handle, begin=None)
