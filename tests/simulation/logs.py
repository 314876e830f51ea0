"""What a partition holds when all is over, read from its start to its end as a consumer would."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from simulation.clients import Consumer
from simulation.history import Fetched, PartitionKey
from simulation.places import Place
from simulation.world import World

from penstock.wire.error_codes import ErrorCode
from penstock.wire.records import BatchHeader, Record, iter_batches, iter_records


@dataclass(frozen=True, slots=True)
class StoredBatch:
    """One batch as it was fetched."""

    header: BatchHeader
    data: bytes

    @property
    def records(self) -> list[Record]:
        """Its records, with their offsets. A marker has none that anybody sent."""
        return [] if self.header.is_control else list(iter_records(self.data))


@dataclass(slots=True)
class StoredLog:
    """One partition's log."""

    partition: PartitionKey
    log_start: int
    high_watermark: int
    batches: list[StoredBatch] = field(default_factory=list)


def batches_of(records: bytes) -> Iterator[StoredBatch]:
    """The whole batches of fetched bytes."""
    for position, header in iter_batches(records):
        yield StoredBatch(header, records[position : position + header.size_bytes])


async def read_log(
    world: World, topic: str, partition: PartitionKey, *, max_bytes: int = 64 * 1024, place: Place | None = None
) -> StoredLog:
    """Read everything there is; nothing may go wrong any more."""
    consumer = Consumer(world, "reader", topic, partition, place=place)

    async def first() -> Fetched | None:
        fetched = await consumer.fetch()
        if fetched.error is ErrorCode.OFFSET_OUT_OF_RANGE and world.agent is not None:
            topics = world.agent.registry.by_id(1, partition.topic_id)
            assert topics is not None
            consumer.position = topics.partitions[partition.index].log_start
            return None
        return None if fetched.error is ErrorCode.KAFKA_STORAGE_ERROR else fetched

    while True:
        fetched = await world.eventually(first, "the first fetch")
        log = StoredLog(partition, fetched.log_start, fetched.high_watermark)
        if await _read_on(consumer, log, max_bytes):
            return log
        # Retention overtook the reader.


async def _read_on(consumer: Consumer, log: StoredLog, max_bytes: int) -> bool:
    """Read up to the high watermark; False if the log's start went by meanwhile."""
    while consumer.position < log.high_watermark:
        fetched = await consumer.fetch(max_bytes=max_bytes)
        if fetched.error is ErrorCode.OFFSET_OUT_OF_RANGE:
            return False
        assert fetched.error is ErrorCode.NONE, f"reading at {consumer.position}: {fetched.error!r}"
        found = list(batches_of(fetched.records))
        if not found:
            # What key compaction took from the end of the log.
            assert fetched.records == b"", "less than a batch was returned"
            break
        log.batches += found
        consumer.position = found[-1].header.last_offset + 1
    return True
