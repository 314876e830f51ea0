"""The modules that answer Kafka's APIs. Each is imported, with the messages it speaks, by the first request for it: few
programs use more than a tenth of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.base.later import later

if TYPE_CHECKING:
    from penstock.authorization import handlers as acls
    from penstock.clusters import handlers as virtual_clusters
    from penstock.groups import config_kind as group_configs
    from penstock.groups import handlers as groups
    from penstock.groups import offset_handlers as group_offsets
    from penstock.groups.consumer import handlers as consumer_groups
    from penstock.groups.share import handlers as share_groups
    from penstock.groups.streams import handlers as streams_groups
    from penstock.groups.streams import internal_topics
    from penstock.identity import account_handlers as accounts
    from penstock.identity import handlers as identities
    from penstock.identity import token_handlers as tokens
    from penstock.keys import handlers as cluster_keys
    from penstock.log import offsets_api as offsets
    from penstock.log.admin import cluster, configs, producers, replicas, topics
    from penstock.quotas import handlers as quotas
    from penstock.share import fetch as share_fetch
    from penstock.share import handlers as share
    from penstock.share import sessions as share_sessions
    from penstock.telemetry import configs as client_metrics_configs
    from penstock.telemetry import handlers as telemetry
    from penstock.transactions import handlers as transactions
    from penstock.transactions import offset_handlers as transaction_offsets
else:
    accounts = later("penstock.identity.account_handlers")
    acls = later("penstock.authorization.handlers")
    client_metrics_configs = later("penstock.telemetry.configs")
    cluster = later("penstock.log.admin.cluster")
    cluster_keys = later("penstock.keys.handlers")
    configs = later("penstock.log.admin.configs")
    consumer_groups = later("penstock.groups.consumer.handlers")
    group_configs = later("penstock.groups.config_kind")
    group_offsets = later("penstock.groups.offset_handlers")
    groups = later("penstock.groups.handlers")
    identities = later("penstock.identity.handlers")
    internal_topics = later("penstock.groups.streams.internal_topics")
    offsets = later("penstock.log.offsets_api")
    producers = later("penstock.log.admin.producers")
    quotas = later("penstock.quotas.handlers")
    replicas = later("penstock.log.admin.replicas")
    share = later("penstock.share.handlers")
    share_fetch = later("penstock.share.fetch")
    share_groups = later("penstock.groups.share.handlers")
    share_sessions = later("penstock.share.sessions")
    streams_groups = later("penstock.groups.streams.handlers")
    telemetry = later("penstock.telemetry.handlers")
    tokens = later("penstock.identity.token_handlers")
    topics = later("penstock.log.admin.topics")
    transaction_offsets = later("penstock.transactions.offset_handlers")
    transactions = later("penstock.transactions.handlers")
    virtual_clusters = later("penstock.clusters.handlers")

__all__ = [
    "accounts",
    "acls",
    "client_metrics_configs",
    "cluster",
    "cluster_keys",
    "configs",
    "consumer_groups",
    "group_configs",
    "group_offsets",
    "groups",
    "identities",
    "internal_topics",
    "offsets",
    "producers",
    "quotas",
    "replicas",
    "share",
    "share_fetch",
    "share_groups",
    "share_sessions",
    "streams_groups",
    "telemetry",
    "tokens",
    "topics",
    "transaction_offsets",
    "transactions",
    "virtual_clusters",
]
