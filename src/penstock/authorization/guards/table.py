"""The guard of every API, and how handlers are wrapped in them. An API that is missing here cannot be served."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from types import MappingProxyType
from typing import Any

from penstock.authorization.authorizer import Authorizer
from penstock.authorization.guards import (
    accounts,
    cluster,
    configs,
    group_offsets,
    groups,
    offsets,
    share_groups,
    streams_groups,
    tokens,
    topics,
    transactions,
)
from penstock.authorization.guards.access import Guard, Handler, RequestAccess, TopicDirectory
from penstock.base.context import RequestContext
from penstock.base.dataclasses import dataclass
from penstock.base.settings import BrokerSettings
from penstock.wire.api_keys import ApiKey

Handle = Callable[[RequestContext, Any], Coroutine[Any, Any, Any]]


async def _pass_through(access: RequestAccess, request: Any, handle: Handler) -> Any:
    return await handle(request)


UNRESTRICTED = frozenset(
    {
        ApiKey.API_VERSIONS,
        ApiKey.SASL_HANDSHAKE,
        ApiKey.SASL_AUTHENTICATE,
        ApiKey.GET_TELEMETRY_SUBSCRIPTIONS,
        ApiKey.PUSH_TELEMETRY,
        # Decided by the owner and renewers of the token: in the handlers.
        ApiKey.RENEW_DELEGATION_TOKEN,
        ApiKey.EXPIRE_DELEGATION_TOKEN,
    }
)
"""APIs that need no permission in Kafka."""

PLATFORM_ADMIN_ONLY = frozenset(
    {
        ApiKey.ENTER_CLUSTER,
        ApiKey.CREATE_VIRTUAL_CLUSTER,
        ApiKey.ALTER_VIRTUAL_CLUSTER,
        ApiKey.DELETE_VIRTUAL_CLUSTER,
        ApiKey.DESCRIBE_ENVIRONMENTS,
        ApiKey.ALTER_ENVIRONMENTS,
        ApiKey.DESCRIBE_CLUSTER_KEYS,
        ApiKey.ALTER_CLUSTER_KEYS,
    }
)
"""APIs for platform administrators only. ACLs cannot grant them: the handlers check."""

SELF_AUTHORIZING = frozenset({ApiKey.PRODUCE, ApiKey.FETCH})
"""APIs whose handlers call the authorizer themselves."""

GUARDS: Mapping[int, Guard] = MappingProxyType(
    {
        **dict.fromkeys(UNRESTRICTED | PLATFORM_ADMIN_ONLY, _pass_through),
        ApiKey.LIST_OFFSETS: offsets.list_offsets,
        ApiKey.METADATA: topics.metadata,
        ApiKey.OFFSET_COMMIT: group_offsets.offset_commit,
        ApiKey.OFFSET_FETCH: group_offsets.offset_fetch,
        ApiKey.FIND_COORDINATOR: groups.find_coordinator,
        ApiKey.JOIN_GROUP: groups.join_group,
        ApiKey.HEARTBEAT: groups.heartbeat,
        ApiKey.LEAVE_GROUP: groups.leave_group,
        ApiKey.SYNC_GROUP: groups.sync_group,
        ApiKey.DESCRIBE_GROUPS: groups.describe,
        ApiKey.LIST_GROUPS: groups.list_groups,
        ApiKey.CREATE_TOPICS: topics.create_topics,
        ApiKey.DELETE_TOPICS: topics.delete_topics,
        ApiKey.DELETE_RECORDS: offsets.delete_records,
        ApiKey.INIT_PRODUCER_ID: transactions.init_producer_id,
        ApiKey.OFFSET_FOR_LEADER_EPOCH: offsets.offset_for_leader_epoch,
        ApiKey.ADD_PARTITIONS_TO_TXN: transactions.add_partitions,
        ApiKey.ADD_OFFSETS_TO_TXN: transactions.add_offsets,
        ApiKey.END_TXN: transactions.end_txn,
        ApiKey.WRITE_TXN_MARKERS: transactions.write_markers,
        ApiKey.TXN_OFFSET_COMMIT: transactions.txn_offset_commit,
        ApiKey.DESCRIBE_ACLS: cluster.describe_acls,
        ApiKey.CREATE_ACLS: cluster.create_acls,
        ApiKey.DELETE_ACLS: cluster.delete_acls,
        ApiKey.DESCRIBE_CONFIGS: configs.describe_configs,
        ApiKey.ALTER_CONFIGS: configs.alter_configs,
        ApiKey.ALTER_REPLICA_LOG_DIRS: cluster.alter_replica_log_dirs,
        ApiKey.DESCRIBE_LOG_DIRS: cluster.describe_log_dirs,
        ApiKey.CREATE_PARTITIONS: topics.create_partitions,
        ApiKey.CREATE_DELEGATION_TOKEN: tokens.create_delegation_token,
        ApiKey.DESCRIBE_DELEGATION_TOKEN: tokens.describe_delegation_token,
        ApiKey.DELETE_GROUPS: groups.delete,
        ApiKey.ELECT_LEADERS: cluster.elect_leaders,
        ApiKey.INCREMENTAL_ALTER_CONFIGS: configs.incremental_alter_configs,
        ApiKey.ALTER_PARTITION_REASSIGNMENTS: cluster.alter_partition_reassignments,
        ApiKey.LIST_PARTITION_REASSIGNMENTS: cluster.list_partition_reassignments,
        ApiKey.OFFSET_DELETE: group_offsets.offset_delete,
        ApiKey.DESCRIBE_CLIENT_QUOTAS: cluster.describe_client_quotas,
        ApiKey.ALTER_CLIENT_QUOTAS: cluster.alter_client_quotas,
        ApiKey.DESCRIBE_USER_SCRAM_CREDENTIALS: cluster.describe_user_scram_credentials,
        ApiKey.ALTER_USER_SCRAM_CREDENTIALS: cluster.alter_user_scram_credentials,
        ApiKey.DESCRIBE_QUORUM: cluster.describe_quorum,
        ApiKey.UPDATE_FEATURES: cluster.update_features_guard,
        ApiKey.DESCRIBE_CLUSTER: cluster.describe_cluster,
        ApiKey.DESCRIBE_PRODUCERS: topics.describe_producers,
        ApiKey.UNREGISTER_BROKER: cluster.unregister_broker_guard,
        ApiKey.DESCRIBE_TRANSACTIONS: transactions.describe_transactions,
        ApiKey.LIST_TRANSACTIONS: transactions.list_transactions,
        ApiKey.CONSUMER_GROUP_HEARTBEAT: groups.consumer_heartbeat,
        ApiKey.CONSUMER_GROUP_DESCRIBE: groups.consumer_describe,
        ApiKey.LIST_CONFIG_RESOURCES: cluster.list_resources,
        ApiKey.DESCRIBE_TOPIC_PARTITIONS: topics.describe_topic_partitions,
        ApiKey.SHARE_GROUP_HEARTBEAT: share_groups.heartbeat,
        ApiKey.SHARE_GROUP_DESCRIBE: share_groups.describe,
        ApiKey.SHARE_FETCH: share_groups.fetch,
        ApiKey.SHARE_ACKNOWLEDGE: share_groups.acknowledge,
        ApiKey.ADD_RAFT_VOTER: cluster.add_voter,
        ApiKey.REMOVE_RAFT_VOTER: cluster.remove_voter,
        ApiKey.INITIALIZE_SHARE_GROUP_STATE: cluster.initialize_state,
        ApiKey.READ_SHARE_GROUP_STATE: cluster.read_state,
        ApiKey.WRITE_SHARE_GROUP_STATE: cluster.write_state,
        ApiKey.DELETE_SHARE_GROUP_STATE: cluster.delete_state,
        ApiKey.READ_SHARE_GROUP_STATE_SUMMARY: cluster.read_state_summary,
        ApiKey.STREAMS_GROUP_HEARTBEAT: streams_groups.heartbeat,
        ApiKey.STREAMS_GROUP_DESCRIBE: streams_groups.describe,
        ApiKey.DESCRIBE_SHARE_GROUP_OFFSETS: share_groups.describe_offsets,
        ApiKey.ALTER_SHARE_GROUP_OFFSETS: share_groups.alter_offsets,
        ApiKey.DELETE_SHARE_GROUP_OFFSETS: share_groups.delete_offsets,
        ApiKey.STREAMS_GROUP_TOPOLOGY_DESCRIPTION_UPDATE: streams_groups.update_topology_description,
        ApiKey.UNREGISTER_CONTROLLER: cluster.unregister_controller_guard,
        ApiKey.DESCRIBE_SERVICE_ACCOUNTS: accounts.describe_service_accounts,
        ApiKey.ALTER_SERVICE_ACCOUNTS: accounts.alter_service_accounts,
        ApiKey.CREATE_API_KEY: accounts.create_api_key,
        ApiKey.DELETE_API_KEYS: accounts.delete_api_keys,
        ApiKey.DESCRIBE_VIRTUAL_CLUSTERS: accounts.describe_virtual_clusters,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Guards:
    """Wraps handlers in their guards."""

    authorizer: Authorizer
    topics: TopicDirectory
    settings: Callable[[int], BrokerSettings]
    """The current settings of a virtual cluster."""

    def guarded(self, api_key: int, handle: Handle) -> Handle:
        """A handler behind the guard of its API."""
        guard = GUARDS[api_key]
        authorizer, topics_of, settings = self.authorizer, self.topics, self.settings

        async def answer(context: RequestContext, request: Any) -> Any:
            access = RequestAccess(
                authorizer=authorizer, topics=topics_of, settings=settings(context.cluster_id), context=context,
                api_key=api_key,
            )  # fmt: skip
            return await guard(access, request, lambda changed: handle(context, changed))

        return answer
