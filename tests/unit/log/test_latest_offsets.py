"""The inner loops of key compaction, compiled and not: the table of keys, and what they make of records."""

from __future__ import annotations

import random
import tracemalloc
from struct import pack_into

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.base import twins
from penstock.base.twins import reference
from penstock.log.upkeep.latest_offsets import (
    FURTHEST_MS,
    KEY_HASH_BYTES,
    LatestOffsets,
    fingerprint,
    kept_records,
    note_keys,
)
from penstock.wire.records import HEADER_BYTES, NO_TIMESTAMP, Record, build_batch, parse_header, records_view

PAIRED = (LatestOffsets, note_keys, kept_records)
TABLES = sorted({LatestOffsets, reference(LatestOffsets)}, key=str)
LONG = b"x" * KEY_HASH_BYTES


def test_all_have_their_twins_or_none() -> None:
    assert {reference(function) is not function for function in PAIRED} == {twins.in_use()}


# ---- the table -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("capacity", [0, 1, 1000, 100_000])
def test_a_table_has_the_latest_offset_of_every_key_however_many_there_are(
    table: type[LatestOffsets], capacity: int
) -> None:
    pick, latest, expected = random.Random(capacity), table(capacity), dict[bytes, int]()
    for offset in range(20_000):
        key = pick.randbytes(1 + offset % 40) if offset % 3 else b"%d" % pick.randrange(4000)
        latest.put(key, offset)
        expected[key] = offset
    assert len(latest) == len(expected)
    assert {key: latest.get(key, -1) for key in expected} == expected
    assert [latest.get(key + bytes(50), -1) for key in expected] == [-1] * len(expected)


@pytest.mark.parametrize("table", TABLES)
def test_keys_that_resemble_each_other_are_told_apart(table: type[LatestOffsets]) -> None:
    keys = [b"", b"\0", b"\0\0", b"\0" * 8, b"\0" * 16, LONG[1:], LONG, LONG + b"y", b"y" + LONG, fingerprint(LONG)]
    latest = table(10)
    for offset, key in enumerate(keys):
        latest.put(key, offset)
    assert [latest.get(key, -1) for key in keys] == list(range(len(keys)))


def test_short_keys_are_their_own_fingerprint() -> None:
    assert fingerprint(LONG[1:]) == LONG[1:]
    assert fingerprint(fingerprint(LONG)) != fingerprint(LONG)


def test_a_key_takes_no_more_memory_than_is_said() -> None:
    table = reference(LatestOffsets)
    keys = [b"%d" % number for number in range(100_000)]
    tracemalloc.start()
    latest = table(len(keys))
    for offset, key in enumerate(keys):
        latest.put(bytes(bytearray(key)), offset)
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken / len(keys) <= table.key_bytes


# ---- what is made of records -----------------------------------------------------------------------------------------

KEYS = (None, b"", b"a", b"b", b"key", LONG[1:], LONG, LONG + b"y", LONG * 20)
TIMES = st.sampled_from((0, 1000, 1001, -5, NO_TIMESTAMP, FURTHEST_MS, FURTHEST_MS - 1, -FURTHEST_MS, -FURTHEST_MS - 1))
RECORDS = st.lists(
    st.builds(
        Record, offset=st.integers(1, 3), timestamp=st.just(1000) | TIMES, key=st.sampled_from(KEYS),
        value=st.sampled_from((None, b"", b"v" * 100)), headers=st.sampled_from(((), (("h", b"x"),))),
    ),
    min_size=1, max_size=8,
)  # fmt: skip
"""Their offsets are distances."""


def laid_out(batches: list[list[Record]]) -> list[bytearray]:
    found, offset = [], 0
    for records in batches:
        placed = []
        for record in records:
            offset += record.offset
            placed.append(record._replace(offset=offset))
        found.append(bytearray(build_batch(placed)))
    return found


def outcomes(table: type[LatestOffsets], note, keep, batches: list[bytearray], end: int, expired: bool) -> list[object]:
    """All that can be seen of noting the keys of batches, and of finding what stays."""
    latest, seen = table(10), []
    sections = [(header := parse_header(batch), records_view(batch, header)) for batch in batches]
    seen += [note(latest, *section) for section in sections]
    seen += [len(latest), *(latest.get(key, -1) for key in KEYS if key is not None)]
    for header, data in sections:
        kept = keep(latest, header, data, end, expired)
        seen.append(kept and (*kept[:3], bytes(kept.data), kept.data is data))
    return seen


@given(
    batches=st.lists(RECORDS, min_size=1, max_size=4), end=st.integers(0, 60), expired=st.booleans(),
    damage=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 200), st.integers(0, 255)), max_size=2),
    lie=st.sampled_from(
        ("", ">57xi 0", ">57xi 9", ">57xi -1", ">23xi 0", ">23xi 1", ">23xi 2147483647", ">21xh 8", ">27xq 5",
         f">27xq {2**63 - 1}", f">27xq {-(2**63)}", f">35xq {2**63 - 1}", f">0xq {2**63 - 1}")
    ),
)  # fmt: skip
def test_compiled_or_not_the_same_records_stay(batches, end, expired, damage, lie) -> None:
    laid = laid_out(batches)
    for number, position, value in damage:
        if number < len(laid) and HEADER_BYTES + position < len(laid[number]):
            laid[number][HEADER_BYTES + position] = value
    if lie:
        layout, value = lie.split()
        before, _, kind = layout[1:].partition("x")
        pack_into(f">{kind}", laid[0], int(before), int(value))
    expected = outcomes(*map(reference, PAIRED), laid, end, expired)
    assert outcomes(*PAIRED, laid, end, expired) == expected
    assert outcomes(reference(LatestOffsets), note_keys, kept_records, laid, end, expired) == expected
    assert outcomes(LatestOffsets, reference(note_keys), reference(kept_records), laid, end, expired) == expected


def test_a_batch_that_claims_offsets_that_no_log_has_is_kept() -> None:
    laid = laid_out([[Record(1, 1000, b"a", b"v", ())] * 2])
    pack_into(">q", laid[0], 0, 2**63 - 1)
    for note, table in ((note_keys, LatestOffsets), (reference(note_keys), reference(LatestOffsets))):
        header = parse_header(laid[0])
        assert note(table(10), header, records_view(laid[0], header)) is False


def test_bytes_of_records_stay_as_they_are() -> None:
    records = [Record(offset, 1000 - offset, b"k%d" % (offset % 3), b"v" * 200) for offset in range(9)]
    batch = build_batch(records)
    header, latest = parse_header(batch), LatestOffsets(10)
    data = records_view(batch, header)
    assert note_keys(latest, header, data)
    kept = kept_records(latest, header, data, 9, False)
    assert kept is not None
    assert (kept.record_count, kept.has_tombstones, kept.max_timestamp) == (3, False, 994)
    assert bytes(kept.data) == bytes(data)[-len(kept.data) :]


def test_a_section_that_loses_nothing_is_the_same_object() -> None:
    batch = build_batch([Record(0, 1000, b"a", None), Record(1, 1000, b"b", b"v")])
    header, latest = parse_header(batch), LatestOffsets(10)
    data = records_view(batch, header)
    note_keys(latest, header, data)
    kept = kept_records(latest, header, data, 2, False)
    assert kept is not None
    assert kept.data is data
    assert kept.has_tombstones
    assert kept_records(latest, header, data, 2, True)[0] == 1, "an expired tombstone goes"  # type: ignore[index]
