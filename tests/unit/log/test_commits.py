"""The packed row of a commit: round trips, damage, and what applying it does to a partition."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from log_parts import NOW_MS, new_topic

from penstock.base.errors import CorruptData
from penstock.log.commits import (
    Commit,
    CommitEntry,
    ProducerBatch,
    apply_entry,
    pack_bases,
    pack_entries,
    unpack_bases,
    unpack_entries,
)
from penstock.log.model import EntrySeal, ProducerState, SequenceBatch
from penstock.storage.wal import WalLocation

I32, I64 = st.integers(0, 2**31 - 1), st.integers(0, 2**63 - 1)
PRODUCER_BATCHES = st.builds(
    ProducerBatch, producer_id=I64, epoch=st.integers(0, 2**15 - 1), first_sequence=I32, last_offset_delta=I32,
    offset_delta=I32, timestamp=st.integers(-1, 2**63 - 1), flags=st.sampled_from([0, 0, 1, 3, 7]),
)  # fmt: skip
SEALS = st.builds(
    EntrySeal, key_id=st.integers(1, 2**63 - 1), salt=st.binary(min_size=16, max_size=16), start=I32, length=I32,
    skipped=I32, base_offset=I64, crc=st.integers(0, 2**32 - 1),
)  # fmt: skip
ENTRIES = st.builds(
    CommitEntry, partition_id=I64, byte_start=I32, byte_length=I32, offset_count=I32, batch_count=I32,
    max_timestamp=st.integers(-1, 2**63 - 1), producer_batches=st.lists(PRODUCER_BATCHES, max_size=6).map(tuple),
    seal=st.none() | SEALS,
)  # fmt: skip
SAMPLE = [
    CommitEntry(7, 0, 200, 3, 2, NOW_MS, (ProducerBatch(1, 0, 5, 1, 0, NOW_MS), ProducerBatch(2, 3, 0, 0, 2, -1))),
    CommitEntry(8, 200, 100, 1, 1, -1),
]
SEALED = [SAMPLE[0], SAMPLE[1]._replace(seal=EntrySeal(9, bytes(16), 4_000, 100, 0, 77, 5))]


@given(st.lists(ENTRIES, max_size=8))
def test_entries_come_back(entries: list[CommitEntry]) -> None:
    assert unpack_entries(pack_entries(entries)) == entries


@given(st.lists(I64, max_size=20))
def test_bases_come_back(bases: list[int]) -> None:
    assert unpack_bases(pack_bases(bases)) == tuple(bases)


@pytest.mark.parametrize("sample", [SAMPLE, SEALED[::-1]], ids=["open", "sealed"])
def test_what_is_cut_is_damage(sample: list[CommitEntry]) -> None:
    """Every prefix that does not end with a whole entry; those that do are shorter rows of their own."""
    whole = {1, *(len(pack_entries(sample[:count])) for count in range(1, len(sample) + 1))}
    blob = pack_entries(sample)
    for end in range(len(blob)):
        if end in whole:
            assert unpack_entries(blob[:end]) == sample[: sorted(whole).index(end)]
        else:
            with pytest.raises(CorruptData):
                unpack_entries(blob[:end])


@pytest.mark.parametrize("blob", [b"", b"\0", b"\2" + pack_entries(SAMPLE)[1:], pack_entries(SAMPLE) + b"\0"])
def test_what_we_did_not_pack_is_damage(blob: bytes) -> None:
    with pytest.raises(CorruptData):
        unpack_entries(blob)


@pytest.mark.parametrize("size", [1, 7, 9, 15])
def test_bases_that_are_cut_are_damage(size: int) -> None:
    with pytest.raises(CorruptData):
        unpack_bases(bytes(size))


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_read_or_refused(blob: bytes) -> None:
    try:
        entries = unpack_entries(b"\1" + blob)
    except CorruptData:
        return
    assert pack_entries(entries) == b"\1" + blob


# ---- applied -------------------------------------------------------------------------------------------------


def commit(entry: CommitEntry, base: int, *, seq: int = 1, committed_ms: int = NOW_MS) -> Commit:
    return Commit(seq, seq.to_bytes(16), WalLocation("wal", 0, 4096), committed_ms, 1, (entry,), (base,))


ENTRY = CommitEntry(1, 100, 300, 4, 2, NOW_MS + 5, (ProducerBatch(9, 1, 50, 1, 0, 1), ProducerBatch(9, 1, 52, 1, 2, 2)))


def test_applying_moves_everything_on() -> None:
    partition = new_topic().partitions[0]
    partition.next_offset = partition.segmented_to = 10
    span = apply_entry(partition, commit(ENTRY, 10, seq=3), 0)
    assert span is not None
    assert partition.spans == [span]
    assert (span.base_offset, span.last_offset, span.seq, span.byte_start, span.byte_length) == (10, 13, 3, 100, 300)
    assert (span.max_timestamp, span.batch_count, span.view) == (NOW_MS + 5, 2, None)
    assert (partition.next_offset, partition.size_bytes, partition.first_dirty_ms) == (14, 300, NOW_MS)
    assert list(partition.producers[9].batches) == [SequenceBatch(50, 51, 10, 11, 1), SequenceBatch(52, 53, 12, 13, 2)]


def test_what_is_in_segments_changes_nothing() -> None:
    partition = new_topic().partitions[0]
    partition.next_offset = partition.segmented_to = 14
    assert apply_entry(partition, commit(ENTRY, 10), 0) is None
    assert (partition.next_offset, partition.size_bytes, partition.spans) == (14, 0, [])
    assert partition.producers == {}


def test_the_first_dirty_time_is_the_oldest() -> None:
    partition = new_topic().partitions[0]
    apply_entry(partition, commit(ENTRY, 0), 0)
    apply_entry(partition, commit(replaced(ENTRY), 4, seq=2, committed_ms=NOW_MS + 1000), 0)
    assert partition.first_dirty_ms == NOW_MS
    assert [span.base_offset for span in partition.spans] == [0, 4]


def test_a_batch_that_is_known_is_not_remembered_twice() -> None:
    """States are stored per pass of compaction, and may be ahead of the commits that are replayed over them."""
    partition = new_topic().partitions[0]
    apply_entry(partition, commit(ENTRY, 0), 0)
    before = list(partition.producers[9].batches)
    partition.spans.clear()
    apply_entry(partition, commit(ENTRY, 0), 0)
    assert list(partition.producers[9].batches) == before


def test_states_that_were_worked_out_are_taken_as_they_are() -> None:
    partition = new_topic().partitions[0]
    state = ProducerState(9, 1, 77)
    apply_entry(partition, commit(ENTRY, 0), 0, None, {9: state})
    assert partition.producers == {9: state}


def replaced(entry: CommitEntry) -> CommitEntry:
    return entry._replace(producer_batches=())


def test_a_commit_is_a_value() -> None:
    first = commit(ENTRY, 0)
    assert replace(first) == first
