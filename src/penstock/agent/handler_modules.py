"""The modules that answer Kafka's APIs. Each is imported, with the messages it speaks, by the first request for it: few
programs use more than a tenth of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.base.lazy import lazy_import

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
    accounts = lazy_import("penstock.identity.account_handlers")
    acls = lazy_import("penstock.authorization.handlers")
    client_metrics_configs = lazy_import("penstock.telemetry.configs")
    cluster = lazy_import("penstock.log.admin.cluster")
    cluster_keys = lazy_import("penstock.keys.handlers")
    configs = lazy_import("penstock.log.admin.configs")
    consumer_groups = lazy_import("penstock.groups.consumer.handlers")
    group_configs = lazy_import("penstock.groups.config_kind")
    group_offsets = lazy_import("penstock.groups.offset_handlers")
    groups = lazy_import("penstock.groups.handlers")
    identities = lazy_import("penstock.identity.handlers")
    internal_topics = lazy_import("penstock.groups.streams.internal_topics")
    offsets = lazy_import("penstock.log.offsets_api")
    producers = lazy_import("penstock.log.admin.producers")
    quotas = lazy_import("penstock.quotas.handlers")
    replicas = lazy_import("penstock.log.admin.replicas")
    share = lazy_import("penstock.share.handlers")
    share_fetch = lazy_import("penstock.share.fetch")
    share_groups = lazy_import("penstock.groups.share.handlers")
    share_sessions = lazy_import("penstock.share.sessions")
    streams_groups = lazy_import("penstock.groups.streams.handlers")
    telemetry = lazy_import("penstock.telemetry.handlers")
    tokens = lazy_import("penstock.identity.token_handlers")
    topics = lazy_import("penstock.log.admin.topics")
    transaction_offsets = lazy_import("penstock.transactions.offset_handlers")
    transactions = lazy_import("penstock.transactions.handlers")
    virtual_clusters = lazy_import("penstock.clusters.handlers")

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
