"""`penstock cluster`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from penstock.cli.lazy import Lazy, LazyGroup
from penstock.cli.options import asks_cluster
from penstock.cli.output import Column, Details, Json, Result, Section, number
from penstock.cli.texts.quantities import count_text

if TYPE_CHECKING:
    from penstock.cli.kafka.client import Client


@click.group(
    cls=LazyGroup,
    sections={"Commands": {"info": Lazy("cluster:info", "Show a cluster's id, brokers and features.")}},
)
def cluster() -> None:
    """What a cluster consists of."""


@click.command(
    epilog="JSON: {id, controller, topics, partitions, brokers: [{id, host, port, rack, controller}], "
    "features: [{name, level}]}."
)
@asks_cluster
def info(client: Client) -> Result:
    """Show a cluster's id, brokers and features."""
    seen = client.settled(lambda: client.metadata(None))
    features = client.anyone().features
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
        ],
    )
