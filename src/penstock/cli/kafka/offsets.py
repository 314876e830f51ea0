"""Offsets of partitions: first, next, and by time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from penstock.base.dataclasses import dataclass
from penstock.cli.kafka.client import Client, TopicPartition, by_topic
from penstock.cli.kafka.failures import check
from penstock.cli.text_formats.positions import Position, Since, place
from penstock.wire.api_keys import ApiKey
from penstock.wire.messages.list_offsets import (
    ListOffsetsPartition,
    ListOffsetsRequest,
    ListOffsetsResponse,
    ListOffsetsTopic,
)

LATEST, EARLIEST = -1, -2


@dataclass(frozen=True, slots=True)
class OffsetRange:
    """A partition keeps the offsets [start, end)."""

    start: int
    end: int

    @property
    def records(self) -> int:
        """Offsets between both; fewer records where a topic is compacted or has transactions."""
        return self.end - self.start


def list_offsets(
    client: Client, timestamps: Mapping[TopicPartition, int], *, committed: bool = False
) -> dict[TopicPartition, int]:
    """The offset that answers each timestamp; -1 where no record is that young."""
    return client.retry(lambda: _list_offsets(client, timestamps, committed=committed))


def _list_offsets(
    client: Client, timestamps: Mapping[TopicPartition, int], *, committed: bool
) -> dict[TopicPartition, int]:
    cluster = client.metadata({where.topic for where in timestamps})
    found: dict[TopicPartition, int] = {}
    for node_id, partitions in cluster.by_leader(timestamps).items():
        request = ListOffsetsRequest(
            replica_id=-1,
            isolation_level=int(committed),
            topics=[
                ListOffsetsTopic(
                    name=topic,
                    partitions=[
                        ListOffsetsPartition(partition_index=where.partition, timestamp=timestamps[where])
                        for where in wanted
                    ],
                )
                for topic, wanted in by_topic(partitions).items()
            ],
            timeout_ms=int(client.timeout_s * 1_000),
        )
        response = client.node(node_id).call(ApiKey.LIST_OFFSETS, request, ListOffsetsResponse)
        for topic in response.topics:
            for partition in topic.partitions:
                where = TopicPartition(topic.name, partition.partition_index)
                check(partition.error_code, f"partition {where}")
                found[where] = partition.offset
    return found


def offset_ranges(
    client: Client, partitions: Iterable[TopicPartition], *, committed: bool = False
) -> dict[TopicPartition, OffsetRange]:
    """What each partition keeps."""
    wanted = list(partitions)
    if not wanted:
        return {}
    # The end first: an end older than the start would make a partition look smaller than empty.
    ends = list_offsets(client, dict.fromkeys(wanted, LATEST), committed=committed)
    starts = list_offsets(client, dict.fromkeys(wanted, EARLIEST), committed=committed)
    return {where: OffsetRange(min(starts[where], ends[where]), ends[where]) for where in wanted}


def resolve(
    client: Client, position: Position, known: Mapping[TopicPartition, OffsetRange]
) -> dict[TopicPartition, int]:
    """The offset a position means in each partition."""
    since: Mapping[TopicPartition, int] = {}
    if isinstance(position, Since) and known:
        since = list_offsets(client, dict.fromkeys(known, position.timestamp_ms))
    return {
        where: place(
            position, start=extent.start, end=extent.end, since=None if since.get(where, -1) < 0 else since[where]
        )
        for where, extent in known.items()
    }
