"""`penstock topic describe`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from penstock.cli.completion import complete_topics
from penstock.cli.options import asks_cluster
from penstock.cli.output import Column, Details, Json, Result, Row, Section, number
from penstock.cli.text_formats.quantities import count_text, size_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from penstock.cli.kafka.client import Client, Topic, TopicPartition
    from penstock.cli.kafka.configs import Config
    from penstock.cli.kafka.offsets import OffsetRange

PARTITION_COLUMNS = [
    number("partition"),
    number("start_offset", "start"),
    number("end_offset", "end"),
    number("records", show=count_text),
    number("size_bytes", "size", size_text),
    number("leader"),
    Column("replicas", wraps=True),
    Column("in_sync", wraps=True),
]
CONFIG_COLUMNS = [
    Column("name", "setting"), Column("value", wraps=True), Column("default", wraps=True), Column("source", "from"),
]  # fmt: skip


@click.command(
    epilog="JSON: {name, id, internal, records, size_bytes, partitions: [{partition, start_offset, end_offset, "
    "records, size_bytes, leader, leader_epoch, replicas, in_sync}], configs: [{name, value, default, source}]}. "
    "size_bytes is null where a broker does not tell."
)
@click.argument("name", metavar="TOPIC", shell_complete=complete_topics)
@click.option("-a", "--all-configs", is_flag=True, help="Also show settings that are at their default.")
@asks_cluster
def describe(client: Client, name: str, all_configs: bool) -> Result:
    """Show a topic's partitions, offsets, size and settings.

    The number of records is derived from offsets: a compacted topic, or one with transactions, has fewer.

    \b
    penstock topic describe orders
    penstock topic describe orders --all-configs -o json
    """
    from penstock.cli.kafka.client import TopicPartition
    from penstock.cli.kafka.configs import topic_configs
    from penstock.cli.kafka.offsets import offset_ranges
    from penstock.cli.kafka.topics import sizes

    cluster = client.retry(lambda: client.metadata([name]))
    topic = cluster.topic(name)
    wheres = [TopicPartition(name, partition) for partition in topic.partitions]
    kept = offset_ranges(client, wheres)
    taken = sizes(client, cluster, wheres)
    configs = [config for config in topic_configs(client, name).values() if all_configs or config.is_own]
    partitions = [_partition(topic, where, kept[where], taken) for where in wheres]
    document: dict[str, Json] = {
        "name": name,
        "id": topic.topic_id,
        "internal": topic.internal,
        "records": sum(extent.records for extent in kept.values()),
        "size_bytes": sum(taken.values()) if len(taken) == len(wheres) else None,
        "partitions": partitions,
        "configs": [_config(config) for config in configs],
    }
    return Details(
        document=document,
        fields=[
            Column("name", "topic"),
            Column("id"),
            Column("records", show=count_text),
            Column("size_bytes", "size", size_text),
        ],
        sections=[
            Section(key="partitions", title="", columns=PARTITION_COLUMNS),
            Section(key="configs", title="", columns=CONFIG_COLUMNS, empty="All settings have their defaults."),
        ],
    )


def _partition(topic: Topic, where: TopicPartition, kept: OffsetRange, taken: Mapping[TopicPartition, int]) -> Row:
    partition = topic.partitions[where.partition]
    return {
        "partition": where.partition,
        "start_offset": kept.start,
        "end_offset": kept.end,
        "records": kept.records,
        "size_bytes": taken.get(where),
        "leader": partition.leader,
        "leader_epoch": partition.leader_epoch,
        "replicas": list(partition.replicas),
        "in_sync": list(partition.in_sync),
    }


def _config(config: Config) -> Row:
    return {"name": config.name, "value": config.value, "default": config.otherwise, "source": config.source}
