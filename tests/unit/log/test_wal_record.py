"""Commit records: what is written is read, and nothing else is taken for one."""

from __future__ import annotations

import pytest
from crc32c import crc32c
from fixtures.log_world import batch

from penstock.log.commits import CommitEntry, ProducerBatch, pack_bases, pack_entries
from penstock.log.model import LEADER_EPOCH, EntrySeal
from penstock.log.wal_record import (
    COMMITS,
    HEAD_BYTES,
    REFERRED,
    RecordHead,
    is_whole,
    read_head,
    read_record,
    record_bytes_max,
    write_record,
)
from penstock.wire.records import PREFIX


def object_of(*bases: int, kind: int = COMMITS) -> bytearray:
    """An object with one batch of two records for each partition."""
    batches = [bytes(batch(2, mark=number, producer_id=7, epoch=0, sequence=0).data) for number in range(len(bases))]
    front = record_bytes_max(len(bases), len(bases))
    body = bytearray(front + sum(map(len, batches)))
    entries, position = [], front
    for number, (base, data) in enumerate(zip(bases, batches, strict=True)):
        prefix = PREFIX.pack(base, len(data) - 12, LEADER_EPOCH)
        body[position : position + len(data)] = prefix + data[len(prefix) :]
        producer = ProducerBatch(7, 0, 0, 1, 0, 5, 1)
        entries.append(CommitEntry(number, position, len(data), 2, 1, 5, (producer,)))
        position += len(data)
    head = RecordHead(kind, len(body), 0, 0, 3, 9, 1_700_000_000_000, b"i" * 16, 1, 1)
    write_record(memoryview(body), head, pack_entries(entries), pack_bases(bases))
    return body


def test_what_is_written_is_read() -> None:
    body = memoryview(object_of(40, 7))
    record = read_record(body)
    assert record is not None
    assert record.head[4:] == (3, 9, 1_700_000_000_000, b"i" * 16, 1, 1, 0)
    assert record.bases == pack_bases((40, 7))
    assert record.head.object_bytes == len(body)
    assert record.head.record_bytes <= record_bytes_max(2, 2)
    assert is_whole(record, body)


def test_one_that_refers_takes_up_its_place_and_counts_for_nothing() -> None:
    body = memoryview(object_of(1, kind=REFERRED))
    head = read_head(body)
    assert head is not None
    assert head.object_bytes == len(body)
    assert read_record(body) is None


@pytest.mark.parametrize("size", [0, 10, HEAD_BYTES - 1])
def test_too_little_is_none(size: int) -> None:
    assert read_head(memoryview(object_of(1))[:size]) is None
    assert read_record(memoryview(object_of(1))[:size]) is None


def test_every_flipped_byte_is_noticed() -> None:
    """In the record, and in what is read of batches; what is between them means nothing."""
    good = object_of(40, 7)
    record = read_record(memoryview(good))
    assert record is not None
    gap = range(record.head.record_bytes, record_bytes_max(2, 2))
    for at in set(range(len(good))) - set(gap):
        bad = bytearray(good)
        bad[at] ^= 0x41
        found = read_record(memoryview(bad))
        assert found is None or not is_whole(found, memoryview(bad)), f"byte {at}"


def test_whether_a_sealed_entry_is_whole_is_told_without_its_key() -> None:
    body = memoryview(bytearray(1_000))
    sealed = body[400:900]
    sealed[:] = bytes(range(250)) * 2
    seal = EntrySeal(5, bytes(16), 400, 500 - 16, 0, 40, crc32c(sealed))
    head = RecordHead(COMMITS, len(body), 0, 0, 3, 9, 1_700_000_000_000, b"i" * 16, 1, 1)
    write_record(body, head, pack_entries([CommitEntry(1, 300, 500 - 16, 2, 1, 5, (), seal)]), pack_bases([40]))
    record = read_record(body)
    assert record is not None
    assert is_whole(record, body)
    assert not is_whole(record, body[:899])
    for at in (400, 650, 899):
        body[at] ^= 1
        assert not is_whole(record, body)
        body[at] ^= 1


def test_an_object_that_is_cut_short_is_not_whole() -> None:
    body = memoryview(object_of(40, 7))
    record = read_record(body)
    assert record is not None
    for size in range(record.head.record_bytes, len(body), 13):
        assert not is_whole(record, body[:size])
