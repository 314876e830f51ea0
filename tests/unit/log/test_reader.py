"""The read path over every layout: segments with gaps, WAL objects, memory, and the borders between them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from functools import partial

import pytest
from log_parts import ShelvedLog, batch, new_topic

from penstock.base.errors import CorruptData, InvalidRequest, Unavailable
from penstock.log.reader import COLD_READ_BYTES, MAX_COLD_READS, give_offsets
from penstock.wire.records import parse_header


def empty_log() -> ShelvedLog:
    return ShelvedLog(new_topic().partitions[0])


def of_size(size: int, records: int = 1) -> bytes:
    """A batch of about that many bytes."""
    return batch(*[b"v" * max(1, size // records)] * records)


def batches_from(log: ShelvedLog, offset: int) -> list[bytes]:
    """What a reader from that offset on gets in the end."""
    return [data for data in log.batches if parse_header(data).last_offset >= offset]


def joined(views: Sequence[memoryview] | None) -> bytes:
    return b"".join(bytes(view) for view in views or ())


async def read_everything(log: ShelvedLog, offset: int, max_bytes: int) -> list[bytes]:
    """Read on from an offset to the end of the log."""
    found: list[bytes] = []
    while offset < log.partition.next_offset:
        data = joined(await log.reader.read_batches(log.partition, offset, max_bytes))
        if not data:
            return found
        position = 0
        while position < len(data):
            header = parse_header(data, position)
            found.append(data[position : position + header.size_bytes])
            position += header.size_bytes
        offset = parse_header(found[-1]).last_offset + 1
    return found


@pytest.mark.parametrize("seed", range(40))
async def test_every_offset_of_a_random_layout(seed: int) -> None:
    draw = random.Random(seed)

    def some() -> list[bytes]:
        return [of_size(draw.choice((10, 200, 5_000)), draw.randint(1, 4)) for _ in range(draw.randint(1, 4))]

    log = empty_log()
    for _ in range(draw.randint(0, 3)):
        log.add_segment(*some(), skip=draw.choice((0, 0, 3)))
    in_memory = draw.randint(0, 4)
    for number in range(4):
        log.add_commit(*some(), in_memory=number >= in_memory)
    for offset in range(log.partition.next_offset):
        expected = batches_from(log, offset)
        for max_bytes in (1, 300, 4_000, 1 << 20):
            first = joined(await log.reader.read_batches(log.partition, offset, max_bytes))
            assert first, f"nothing at {offset}"
            assert joined(expected).startswith(first)
            assert len(first) <= max(max_bytes, len(expected[0]))
            count = next(n for n in range(len(expected) + 1) if len(joined(expected[:n])) == len(first))
            assert count >= 1, "only whole batches"
        assert await read_everything(log, offset, 700) == expected


async def test_nothing_is_read_at_the_end() -> None:
    log = empty_log()
    assert await log.reader.read_batches(log.partition, 0, 1000) == []
    log.add_commit(of_size(10), in_memory=False)
    assert await log.reader.read_batches(log.partition, 1, 1000) == []


# ---- memory --------------------------------------------------------------------------------------------------


def test_the_tail_says_when_it_does_not_know() -> None:
    log = empty_log()
    partition = log.partition
    assert log.reader.tail(partition, 0, 1000, at_least_one=True) is None
    log.add_commit(of_size(10), in_memory=False)
    log.add_commit(of_size(10), of_size(20), in_memory=True)
    assert log.reader.tail(partition, 0, 1000, at_least_one=True) is None
    assert joined(log.reader.tail(partition, 1, 1000, at_least_one=True)) == joined(log.batches[1:])
    assert log.reader.tail_reads == 1
    assert joined(log.reader.tail(partition, 2, 1000, at_least_one=True)) == log.batches[2]
    assert log.reader.tail_reads == 2


def test_the_first_batch_comes_whole_when_it_must() -> None:
    log = empty_log()
    log.add_commit(of_size(500), of_size(10), in_memory=True)
    assert joined(log.reader.tail(log.partition, 0, 1, at_least_one=True)) == log.batches[0]
    assert log.reader.tail(log.partition, 0, 1, at_least_one=False) == []
    assert joined(log.reader.tail(log.partition, 1, 1, at_least_one=True)) == log.batches[1]


def test_memory_is_read_as_far_as_it_is_in_a_row() -> None:
    log = empty_log()
    for in_memory in (True, True, False, True):
        log.add_commit(of_size(10), in_memory=in_memory)
    assert joined(log.reader.tail(log.partition, 0, 1000, at_least_one=True)) == joined(log.batches[:2])


async def test_records_kept_in_memory_only_are_read_where_segments_have_a_gap() -> None:
    """Key compaction has removed them from the segments already; the reader must come past them, or read them."""
    log = empty_log()
    span = log.add_commit(of_size(10), of_size(10), in_memory=True)
    span.location = None
    log.batches.clear()
    log.add_segment(of_size(10))
    log.partition.spans[0].base_offset += 1
    data = joined(await log.reader.read_batches(log.partition, 0, 1000))
    assert data, "a consumer at 0 would never get any further"


async def test_a_span_that_is_nowhere_any_more_is_crossed() -> None:
    log = empty_log()
    lost = log.add_commit(of_size(10), of_size(10), in_memory=False)
    kept = log.add_commit(of_size(10), in_memory=True)
    lost.location = None
    assert joined(await log.reader.read_batches(log.partition, 0, 1000)) == bytes(kept.view or b"")


# ---- memory --------------------------------------------------------------------------------------------------


async def test_who_gives_up_waits_neither_for_memory_nor_behind_those_who_wait_for_it() -> None:
    log = ShelvedLog(new_topic().partitions[0], cold_bytes=64 * 1024, pinned_max_bytes=0)
    log.add_commit(of_size(100_000), in_memory=False)
    held = await log.reader.read_batches(log.partition, 0, 1)
    waiting = [asyncio.ensure_future(log.reader.read_batches(log.partition, 0, 1)) for _ in range(MAX_COLD_READS)]
    await asyncio.sleep(0)
    given_up = log.reader.read_batches(log.partition, 0, 1, gives_up=lambda: True)
    assert await asyncio.wait_for(given_up, 5) == []
    assert not any(one.done() for one in waiting)
    held.clear()
    done, pending = await asyncio.wait(waiting, timeout=5, return_when=asyncio.FIRST_COMPLETED)
    assert done, "there is memory again"
    for one in pending:
        one.cancel()


# ---- what is at hand -----------------------------------------------------------------------------------------


async def test_memory_and_what_the_store_has_at_once_are_at_hand() -> None:
    log = empty_log()
    log.add_segment(*[of_size(10, records=2)] * 3, skip=2)
    log.add_commit(of_size(10), in_memory=False)
    log.add_commit(of_size(10), in_memory=True)
    at_hand = partial(log.reader.at_hand, log.partition)
    assert joined(at_hand(5, 1)) == joined(log.batches[1:3]), "whole batches, from the one with the offset on"
    assert at_hand(0, 1000) is None, "there is a gap: the segment does not cover the offset"
    assert at_hand(8, 1000) is None, "it is in the write-ahead log"
    assert joined(at_hand(9, 1000)) == log.batches[4]
    assert log.reader.cold_reads == 1


@pytest.mark.parametrize("cached_bytes", [0, 1, 70, 100, 10_000])
async def test_a_segment_that_is_cached_in_part_is_read_as_far_as_it_is(
    cached_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = empty_log()
    log.add_segment(*[of_size(10)] * 3)
    size, read = len(log.batches[0]), log.objects.read_cached

    def read_cached(key: str, start: int, buffer: memoryview) -> int:
        return min(read(key, start, buffer), cached_bytes)

    monkeypatch.setattr(log.objects, "read_cached", read_cached)
    found = log.reader.at_hand(log.partition, 0, 1000)
    whole = min(cached_bytes // size, 3)
    assert joined(found) == joined(log.batches[:whole])
    assert (found is None) == (whole == 0)


async def test_little_is_copied_in_one_turn() -> None:
    log = empty_log()
    log.add_segment(*[of_size(COLD_READ_BYTES // 2)] * 9)
    at_hand = partial(log.reader.at_hand, log.partition, max_bytes=1000)
    assert [at_hand(offset) is not None for offset in (0, 2, 4, 6)] == [True, True, True, False]
    await asyncio.sleep(0)
    assert at_hand(6) is not None


async def test_what_needs_waiting_for_is_not_at_hand() -> None:
    log = ShelvedLog(new_topic().partitions[0], cold_bytes=1 << 20, pinned_max_bytes=-1)
    log.add_segment(of_size(10))
    assert log.reader.at_hand(log.partition, 0, 1000) is None, "there is no memory"
    log = empty_log()
    log.add_segment(of_size(COLD_READ_BYTES), of_size(10))
    assert log.reader.at_hand(log.partition, 0, 1000) is None, "more than is read at once"
    assert joined(log.reader.at_hand(log.partition, 1, 1000)) == log.batches[1]


# ---- what goes wrong -----------------------------------------------------------------------------------------


async def test_a_store_that_fails_is_said_to() -> None:
    log = empty_log()
    log.add_segment(of_size(10))

    def fail(key: str, start: int, buffer: memoryview) -> int:
        raise Unavailable("the store is away")

    log.objects.read_into = fail  # type: ignore[method-assign]
    with pytest.raises(Unavailable, match="away"):
        await log.reader.read_batches(log.partition, 0, 1000)


async def test_what_was_compacted_meanwhile_is_looked_for_again() -> None:
    log = empty_log()
    data = of_size(10)
    log.add_commit(data, in_memory=False)
    read = log.wal.read

    def moved(location, start, end):
        log.partition.spans.clear()
        log.partition.next_offset = 0
        log.batches.clear()
        log.add_segment(data)
        log.wal.read = read  # type: ignore[method-assign]
        raise InvalidRequest("the log has no such object")

    log.wal.read = moved  # type: ignore[method-assign]
    assert joined(await log.reader.read_batches(log.partition, 0, 1000)) == log.batches[0]


async def test_what_keeps_moving_is_given_up() -> None:
    log = empty_log()
    log.add_commit(of_size(10), in_memory=False)
    log.wal.release([log.partition.spans[0].location])
    with pytest.raises(Unavailable, match="keeps moving"):
        await log.reader.read_batches(log.partition, 0, 1000)


async def test_a_segment_shorter_than_its_row_is_damage() -> None:
    log = empty_log()
    ref = log.add_segment(of_size(100), of_size(100))
    log.objects.put(ref.object_key, [bytes(20)])
    with pytest.raises(CorruptData):
        await log.reader.read_batches(log.partition, 0, 1000)


@pytest.mark.parametrize("length", [0, 48, -1, 2**31 - 1])
async def test_a_length_that_leads_nowhere_is_damage(length: int) -> None:
    log = empty_log()
    span = log.add_commit(of_size(100), of_size(100), in_memory=False)
    assert span.location is not None
    body = bytearray(log.wal._objects[span.location.key])
    body[7 + 8 : 7 + 12] = length.to_bytes(4, "big", signed=True)
    log.wal._objects[span.location.key] = bytes(body)
    with pytest.raises(CorruptData):
        await log.reader.read_batches(log.partition, 0, 1000)


# ---- offsets -------------------------------------------------------------------------------------------------


def test_batches_get_their_offsets() -> None:
    parts = [of_size(10, 2), of_size(20, 3), of_size(5)]
    view = memoryview(bytearray(b"".join(parts)))
    assert give_offsets(view, 40, 45) == len(view)
    headers = []
    position = 0
    while position < len(view):
        headers.append(parse_header(view, position))
        position += headers[-1].size_bytes
    assert [header.base_offset for header in headers] == [40, 42, 45]
    assert [header.partition_leader_epoch for header in headers] == [0, 0, 0]
