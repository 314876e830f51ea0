"""`penstock cluster`: virtual clusters, and what the one we are in consists of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from penstock.cli.lazy import Lazy, LazyGroup
from penstock.cli.options import asks_cluster
from penstock.cli.output import Column, Details, Json, Result, Section, number
from penstock.cli.text_formats.quantities import count_text
from penstock.cli.virtual_cluster import LIMIT_COLUMNS, limit_rows

if TYPE_CHECKING:
    from penstock.cli.kafka.client import Client


@click.group(
    cls=LazyGroup,
    sections={
        "Commands": {
            "info": Lazy("cluster:info", "Show a cluster's id, brokers, features and limits."),
            "list": Lazy("virtual_cluster:list_clusters", "List virtual clusters."),
            "create": Lazy("virtual_cluster:create", "Create a virtual cluster."),
            "describe": Lazy(
                "virtual_cluster:describe", "Show a virtual cluster, its limits and what it uses of them."
            ),
            "alter": Lazy("virtual_cluster:alter", "Change a virtual cluster's description and limits."),
            "delete": Lazy("virtual_cluster:delete", "Delete virtual clusters with everything in them."),
        },
        "Encryption at rest": {
            "keys": Lazy("cluster_keys:keys", "List encrypted clusters and the state of their keys."),
            "encrypt": Lazy("cluster_keys:encrypt", "Encrypt what a cluster stores from now on."),
            "rotate-key": Lazy("cluster_keys:rotate_key", "Switch a cluster to a new data key."),
            "erase": Lazy("cluster_keys:erase", "Make all encrypted data of a cluster unreadable, for good."),
        },
    },
)
def cluster() -> None:
    """Virtual clusters: one for each tenant.

    Platform administrators run any command in one of them with --cluster NAME.
    """


@click.command(
    epilog="JSON: {id, controller, topics, partitions, brokers: [{id, host, port, rack, controller}], "
    "features: [{name, level}], limits: [{limit, value, used}]}."
)
@asks_cluster
def info(client: Client) -> Result:
    """Show a cluster's id, brokers, features and limits."""
    from penstock.cli.kafka.virtual_clusters import current_cluster

    seen = client.retry(lambda: client.metadata(None))
    features = client.any_node().features
    document: dict[str, Json] = {
        "id": seen.cluster_id,
        "controller": seen.controller_id,
        "topics": len(seen.topics),
        "partitions": sum(len(topic.partitions) for topic in seen.topics.values()),
        "brokers": [
            {
                "id": broker.node_id,
                "host": broker.address.host,
                "port": broker.address.port,
                "rack": broker.rack,
                "controller": broker.node_id == seen.controller_id,
            }
            for broker in sorted(seen.brokers.values(), key=lambda broker: broker.node_id)
        ],
        "features": [
            {"name": feature.name, "level": feature.max_version_level}
            for feature in sorted(features.finalized_features, key=lambda feature: feature.name)
        ],
    }
    found = current_cluster(client)
    document["limits"] = [] if found is None else limit_rows(found)
    brokers = [number("id", "broker"), Column("host"), number("port"), Column("rack"), Column("controller")]
    return Details(
        document=document,
        fields=[
            Column("id", "cluster"),
            Column("topics", show=count_text),
            Column("partitions", show=count_text),
        ],
        sections=[
            Section(key="brokers", title="", columns=brokers),
            Section(key="features", title="", columns=[Column("name", "feature"), number("level")]),
            Section(key="limits", title="", columns=LIMIT_COLUMNS),
        ],
    )
