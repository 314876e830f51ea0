"""Look-ups by time over random logs, against a naive model that decodes everything."""

from __future__ import annotations

import asyncio
import random
from struct import pack_into

import pytest
from crc32c import crc32c
from log_parts import NOW_MS, ShelvedLog, batch, new_topic

from penstock.log.markers import marker
from penstock.log.model import Partition
from penstock.log.timestamps import Timestamps
from penstock.wire.compression import Compression
from penstock.wire.records import TimestampType, iter_records, parse_header

Times = list[tuple[int, int]]
"""Offset and timestamp of records."""


def times_of(log: ShelvedLog) -> Times:
    """Every record that can be read."""
    return [
        (record.offset, record.timestamp)
        for data in log.batches
        for record in iter_records(data)
        if record.offset >= log.partition.log_start
    ]


def first_since(times: Times, timestamp: int) -> tuple[int, int] | None:
    """The lowest offset that is not older."""
    return next((found for found in times if found[1] >= timestamp), None)


def first_of_highest(times: Times) -> tuple[int, int] | None:
    """The first record with the highest timestamp."""
    highest = max((time for _, time in times), default=-1)
    return None if highest < 0 else first_since(times, highest)


def random_log(draw: random.Random) -> ShelvedLog:
    """Times that go up and down, equal ones, records without; over segments, the WAL and memory."""
    log = ShelvedLog(new_topic().partitions[0])

    def some() -> list[bytes]:
        batches = []
        for _ in range(draw.randint(1, 3)):
            count = draw.randint(1, 4)
            times = [draw.choice((-1, *range(NOW_MS, NOW_MS + 12))) for _ in range(count)]
            kind = draw.choice((TimestampType.CREATE_TIME, TimestampType.CREATE_TIME, TimestampType.LOG_APPEND_TIME))
            options = {"compression": draw.choice(list(Compression)), "timestamp_type": kind}
            size = draw.choice((1, 1, 30_000))
            batches.append(batch(*[b"v" * size] * count, at=times, **options))
        return batches

    for _ in range(draw.randint(0, 4)):
        log.add_segment(*some(), skip=draw.choice((0, 0, 2)))
    in_memory = draw.randint(0, 3)
    for number in range(draw.randint(0, 3)):
        log.add_commit(*some(), in_memory=number >= in_memory)
    if draw.random() < 0.4:
        log.partition.log_start = draw.randint(0, log.partition.next_offset)
    return log


@pytest.mark.parametrize("seed", range(150))
async def test_against_a_naive_model(seed: int) -> None:
    log = random_log(random.Random(seed))
    timestamps, times = Timestamps(log.reader, log.segments), times_of(log)
    for timestamp in (0, *range(NOW_MS - 1, NOW_MS + 14)):
        found = await timestamps.offset_for_timestamp(log.partition, timestamp, max_only=False)
        assert found == first_since(times, timestamp), timestamp - NOW_MS
    assert await timestamps.offset_for_timestamp(log.partition, 0, max_only=True) == first_of_highest(times)


async def test_an_empty_log() -> None:
    log = ShelvedLog(new_topic().partitions[0])
    timestamps = Timestamps(log.reader, log.segments)
    assert await timestamps.offset_for_timestamp(log.partition, 0, max_only=False) is None
    assert await timestamps.offset_for_timestamp(log.partition, 0, max_only=True) is None


async def test_a_large_segment_is_not_read_from_its_start() -> None:
    log = ShelvedLog(new_topic().partitions[0])
    log.add_segment(*[batch(b"v" * 30_000, at=[NOW_MS + number]) for number in range(60)])
    reads: list[int] = []
    read_into = log.objects.read_into

    def counted(key: str, start: int, buffer: memoryview) -> int:
        reads.append(start)
        return read_into(key, start, buffer)

    log.objects.read_into = counted  # type: ignore[method-assign]
    timestamps = Timestamps(log.reader, log.segments)
    assert await timestamps.offset_for_timestamp(log.partition, NOW_MS + 50, max_only=False) == (50, NOW_MS + 50)
    assert min(reads) > 40 * 30_000


@pytest.mark.parametrize("max_only", [False, True])
async def test_a_search_does_not_wait_for_memory_that_it_holds_itself(max_only: bool) -> None:
    """Whose batches are so large, or who is one of so many, that what was searched takes all memory for reads."""
    log = ShelvedLog(new_topic().partitions[0], cold_bytes=64 * 1024, pinned_max_bytes=0)
    times = (NOW_MS + 9, NOW_MS + 1), (NOW_MS + 2, NOW_MS + 3), (NOW_MS + 9, NOW_MS)
    log.add_segment(*[batch(b"v" * 300_000, b"w", at=at) for at in times])
    log.partition.log_start = 1
    timestamps = Timestamps(log.reader, log.segments)
    looking = timestamps.offset_for_timestamp(log.partition, NOW_MS + 9, max_only=max_only)
    assert await asyncio.wait_for(looking, 5) == (4, NOW_MS + 9)


async def test_a_batch_that_cannot_be_decoded_is_one_record() -> None:
    """Such batches are stored as they came; a search must not fail for ever because of one."""
    log = ShelvedLog(new_topic().partitions[0])
    broken = bytearray(batch(b"one", b"two", at=[NOW_MS, NOW_MS + 5], compression=Compression.GZIP))
    pack_into(">q", broken, 70, -1)
    pack_into(">I", broken, 17, crc32c(bytes(broken[21:])))
    log.add_commit(bytes(broken), in_memory=True)
    log.add_commit(batch(b"three", at=[NOW_MS + 9]), in_memory=True)
    timestamps = Timestamps(log.reader, log.segments)
    assert parse_header(broken).max_timestamp == NOW_MS + 5
    assert await timestamps.offset_for_timestamp(log.partition, NOW_MS, max_only=False) == (1, NOW_MS + 5)
    assert await timestamps.offset_for_timestamp(log.partition, NOW_MS + 6, max_only=False) == (2, NOW_MS + 9)
    assert await timestamps.offset_for_timestamp(log.partition, 0, max_only=True) == (2, NOW_MS + 9)


@pytest.mark.parametrize("in_memory", [True, False])
async def test_the_end_of_a_transaction_is_a_record_too(in_memory: bool) -> None:
    """As in Kafka: it is mostly the newest one, and whoever asks for the newest one would get none without it."""
    log = ShelvedLog(new_topic().partitions[0])
    log.add_commit(batch(b"one", at=[NOW_MS]), in_memory=in_memory)
    end = marker(producer_id=7, epoch=0, commit=True, coordinator_epoch=0, now_ms=NOW_MS + 5)
    log.add_commit(bytes(end.data), in_memory=in_memory)
    timestamps = Timestamps(log.reader, log.segments)
    assert await timestamps.offset_for_timestamp(log.partition, 0, max_only=True) == (1, NOW_MS + 5)
    assert await timestamps.offset_for_timestamp(log.partition, NOW_MS + 1, max_only=False) == (1, NOW_MS + 5)
    assert await timestamps.offset_for_timestamp(log.partition, NOW_MS + 6, max_only=False) is None


@pytest.mark.parametrize("look", ["with_timestamp", "with_highest_timestamp", "lookup"])
async def test_what_becomes_a_segment_meanwhile_is_found(look: str) -> None:
    log = ShelvedLog(new_topic().partitions[0])
    data = batch(b"one", b"two", at=[NOW_MS, NOW_MS + 5])
    log.add_commit(data, in_memory=False)
    found_before = getattr(log.segments, look)

    async def overtaken(partition: Partition, *args: int) -> object:
        found = await found_before(partition, *args)
        if partition.spans:
            partition.spans.clear()
            partition.next_offset = 0
            log.add_segment(data)
        return found

    setattr(log.segments, look, overtaken)
    timestamps = Timestamps(log.reader, log.segments)
    if look == "with_timestamp":
        assert await timestamps.offset_for_timestamp(log.partition, NOW_MS + 1, max_only=False) == (1, NOW_MS + 5)
    else:
        assert await timestamps.offset_for_timestamp(log.partition, 0, max_only=True) == (1, NOW_MS + 5)
