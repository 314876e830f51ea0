"""Partitions and batches for tests of the log's core, without database, agent or network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fixtures.clocks import START_MS

from penstock.log.batches import Accepted, inspect
from penstock.log.model import Partition, Span, Topic, TopicConfig
from penstock.log.reader import Reader
from penstock.log.segments import SegmentBuilder, SegmentRef
from penstock.storage.arena import Arena
from penstock.storage.memory import MemoryObjectStore, MemoryWal
from penstock.wire.records import PREFIX, Record, build_batch, parse_header

NOW_MS = START_MS


def new_topic(name: str = "orders", *, partitions: int = 1, first_id: int = 1, **config: object) -> Topic:
    """A topic and its empty partitions."""
    topic = Topic(
        cluster_id=1, topic_id=name.encode().ljust(16, b"\0")[:16], name=name, replication_factor=1, created_ms=NOW_MS,
        overrides={}, config=TopicConfig(**config),
    )  # fmt: skip
    topic.partitions.extend(
        Partition(partition_id=first_id + index, topic=topic, index=index) for index in range(partitions)
    )
    return topic


def batch(*values: bytes, at: Sequence[int] | None = None, key: bytes | None = None, **options) -> bytes:
    """A record batch."""
    times = [NOW_MS] * len(values) if at is None else at
    return build_batch(
        [Record(number, times[number], key, value) for number, value in enumerate(values)], **options
    )  # fmt: skip


def accepted(data: bytes) -> Accepted:
    """A batch as the writer gets it."""
    verdict = inspect(memoryview(data), TopicConfig(), NOW_MS, version=9, transactional=False)
    assert isinstance(verdict, Accepted), verdict
    return verdict


class ShelvedSegments:
    """Segments in lists, as the index finds them in the database."""

    def __init__(self) -> None:
        self.refs: dict[int, list[SegmentRef]] = {}

    def cached(self, partition: Partition, offset: int) -> SegmentRef | None:
        found = (ref for ref in self.refs.get(partition.partition_id, ()) if ref.last_offset >= offset)
        ref = next(found, None)
        return None if ref is None or ref.base_offset > offset else ref

    async def lookup(self, partition: Partition, offset: int) -> SegmentRef | None:
        return next((ref for ref in self.refs.get(partition.partition_id, ()) if ref.last_offset >= offset), None)

    def following(self, partition: Partition, last_offset: int) -> Iterator[SegmentRef]:
        for ref in self.refs.get(partition.partition_id, ()):
            if ref.base_offset == last_offset + 1:
                yield ref
                last_offset = ref.last_offset

    async def with_timestamp(self, partition: Partition, offset: int, timestamp: int) -> SegmentRef | None:
        found = (ref for ref in self.refs.get(partition.partition_id, ()) if ref.last_offset >= offset)
        return next((ref for ref in found if ref.max_timestamp >= timestamp), None)

    async def with_highest_timestamp(self, partition: Partition, base_offset: int) -> SegmentRef | None:
        found = [ref for ref in self.refs.get(partition.partition_id, ()) if ref.base_offset >= base_offset]
        return max(found, key=lambda ref: ref.max_timestamp, default=None)


class ShelvedLog:
    """One partition's log, laid out by hand over segments, WAL objects and memory."""

    def __init__(self, partition: Partition, *, cold_bytes: int = 1 << 20, pinned_max_bytes: int = 64 << 20) -> None:
        self.partition = partition
        self.segments, self.objects, self.wal = ShelvedSegments(), MemoryObjectStore(), MemoryWal(1 << 30)
        self.reader = Reader(
            segments=self.segments, wal=self.wal, objects=self.objects, executor=None, arena=Arena(cold_bytes),
            pinned_max_bytes=pinned_max_bytes,
        )  # fmt: skip
        self.batches: list[bytes] = []
        """What is stored, with offsets."""

    def placed(self, data: bytes) -> bytes:
        """A batch at the end of the log."""
        partition, header = self.partition, parse_header(data)
        changed = PREFIX.pack(partition.next_offset, header.length, 0) + data[16:]
        partition.next_offset += header.last_offset_delta + 1
        return changed

    def add_segment(self, *batches: bytes, skip: int = 0) -> SegmentRef:
        """Batches in a segment of its own, after `skip` offsets that key compaction took away."""
        partition = self.partition
        partition.next_offset += skip
        stored = [self.placed(data) for data in batches]
        builder = SegmentBuilder(parse_header(stored[0]).base_offset)
        for data in stored:
            header = parse_header(data)
            builder.add(header.base_offset, len(data), header.max_timestamp)
            builder.cover(header.last_offset, header.record_count, header.base_timestamp)
        key = f"aa/{len(self.segments.refs.get(partition.partition_id, ())):032x}"
        ref = builder.finish(
            partition_id=partition.partition_id, object_id=key.encode()[:16], object_key=key, byte_offset=10
        )
        self.objects.put(key, [b"\xff" * 10, *stored, b"\xff" * 10])
        self.segments.refs.setdefault(partition.partition_id, []).append(ref)
        partition.segmented_to = partition.next_offset
        self.batches += stored
        return ref

    def add_commit(self, *batches: bytes, in_memory: bool) -> Span:
        """Batches of one commit, in the WAL and perhaps in memory."""
        partition, base = self.partition, self.partition.next_offset
        stored = [self.placed(data) for data in batches]
        body = b"".join(batches)
        location = self.wal.append((b"\xee" * 7 + body,))
        times = [parse_header(data).max_timestamp for data in stored]
        span = Span(
            base, partition.next_offset - 1, len(self.batches), location, 7, len(body), max(times), len(batches),
            memoryview(bytearray(b"".join(stored))) if in_memory else None,
        )  # fmt: skip
        partition.spans.append(span)
        self.batches += stored
        return span
