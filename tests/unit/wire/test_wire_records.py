"""Record batches: our own round trips, and what the Java client, aiokafka and kafka-python make of them."""

from __future__ import annotations

import warnings
from base64 import b64decode
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any

import pytest
from aiokafka.record.default_records import DefaultRecordBatch as AiokafkaBatch
from aiokafka.record.default_records import DefaultRecordBatchBuilder as AiokafkaBuilder
from fixtures.schema_values import examples
from hypothesis import given
from hypothesis import strategies as st

from penstock.base.errors import CorruptData
from penstock.base.twins import reference
from penstock.wire.compression import Compression
from penstock.wire.primitives import Malformed
from penstock.wire.records import (
    HEADER,
    HEADER_BYTES,
    PREFIX,
    Record,
    RecordSpan,
    TimestampType,
    build_batch,
    contents_within,
    crc_of,
    iter_batches,
    iter_records,
    keep_records,
    parse_header,
    records_section,
    scan_batch,
    scan_records,
    verify_crc,
    with_append_time,
)
from penstock.wire.varints import encode_varint, read_varint, read_varlong

with warnings.catch_warnings():
    # kafka-python reads its schemas with a function that Python 3.11 calls deprecated.
    warnings.simplefilter("ignore")
    from kafka.record.default_records import DefaultRecordBatch as KafkaPythonBatch
    from kafka.record.default_records import DefaultRecordBatchBuilder as KafkaPythonBuilder

# Written by the Java client 4.4: three records, idempotent producer 5 epoch 1 sequence 0.
JAVA_BATCHES = {
    Compression.NONE: (
        "AAAAAAAAAAAAAAFQ/////wJ6GO0FAAAAAAACAAABi8/laAAAAAGLz+Vv0AAAAAAAAAAFAAEAAAAAAAAAA6ICAAAABGsw8AF2YWx1"
        "ZSB2YWx1ZSB2YWx1ZSB2YWx1ZSB2YWx1ZSB2YWx1ZSB2YWx1ZSB2YWx1ZSB2YWx1ZSB2YWx1ZSB2YWx1ZSB2YWx1ZSB2YWx1ZSB2"
        "YWx1ZSB2YWx1ZSB2YWx1ZSB2YWx1ZSB2YWx1ZSB2YWx1ZSB2YWx1ZSAECnRyYWNlBmFiYwhub25lAYACANAPAgHwAXZhbHVlIHZh"
        "bHVlIHZhbHVlIHZhbHVlIHZhbHVlIHZhbHVlIHZhbHVlIHZhbHVlIHZhbHVlIHZhbHVlIHZhbHVlIHZhbHVlIHZhbHVlIHZhbHVl"
        "IHZhbHVlIHZhbHVlIHZhbHVlIHZhbHVlIHZhbHVlIHZhbHVlIAASAKAfBARrMgEA"
    ),
    Compression.GZIP: (
        "AAAAAAAAAAAAAAB9/////wKvUqYCAAEAAAACAAABi8/laAAAAAGLz+Vv0AAAAAAAAAAFAAEAAAAAAAAAAx+LCAAAAAAAAP9bxMTA"
        "wMCSbfCBsSwxpzRVgf4kC1dJUWJyKltiUjJHXn5eKmMDE8MFfibGgXMRgxDDAnkWlmwjRgYACtr6LB8BAAA="
    ),
    Compression.SNAPPY: (
        "AAAAAAAAAAAAAACJ/////wJyNSOZAAIAAAACAAABi8/laAAAAAGLz+Vv0AAAAAAAAAAFAAEAAAAAAAAAA4JTTkFQUFkAAAAAAQAA"
        "AAEAAABEnwI8ogIAAAAEazDwAXZhbHVlIP4GAMYGAFwECnRyYWNlBmFiYwhub25lAYACANAPAgH+kgDmkgAoABIAoB8EBGsyAQA="
    ),
    Compression.LZ4: (
        "AAAAAAAAAAAAAAB+/////wKoKzwRAAMAAAACAAABi8/laAAAAAGLz+Vv0AAAAAAAAAAFAAEAAAAAAAAAAwQiTRhgQII+AAAA/wGi"
        "AgAAAARrMPABdmFsdWUgBgBf/wkECnRyYWNlBmFiYwhub25lAYACANAPAgGSAGewABIAoB8EBGsyAQAAAAAA"
    ),
    Compression.ZSTD: (
        "AAAAAAAAAAAAAAB8/////wLVogqhAAQAAAACAAABi8/laAAAAAGLz+Vv0AAAAAAAAAAFAAEAAAAAAAAAAyi1L/0AWPwBADQDogIA"
        "AAAEazDwAXZhbHVlIAQKdHJhY2UGYWJjCG5vbmUBgAIA0A8CAQASAKAfBARrMgEAAgDcikmHl7SAAQEAAA=="
    ),
}
I64 = 2**63 - 1
JAVA_RECORDS = [
    Record(0, 1700000000000, b"k0", b"value " * 20, (("trace", b"abc"), ("none", None))),
    Record(1, 1700000001000, None, b"value " * 20),
    Record(2, 1700000002000, b"k2", None),
]
EVERY = pytest.mark.parametrize("compression", Compression, ids=lambda item: item.name.lower())

blobs = st.none() | st.binary(max_size=40) | st.sampled_from([b"", b"x" * 63, b"x" * 64, b"x" * 9000])
headers = st.lists(st.tuples(st.text(max_size=10), blobs), max_size=3).map(tuple)
timestamps = st.sampled_from([-1, 0, 1, 1_700_000_000_000]) | st.integers(0, 2**62)


@st.composite
def record_lists(draw: Any, *, first: int | None = None) -> list[Record]:
    """Records with rising offsets and gaps between them."""
    offset = draw(st.integers(0, 2**60)) if first is None else first
    records = []
    for _ in range(draw(st.integers(1, 8))):
        records.append(Record(offset, draw(timestamps), draw(blobs), draw(blobs), draw(headers)))
        offset += draw(st.sampled_from([1, 1, 1, 2, 70, 20000]))
    return records


@EVERY
@examples(15, 1000)
@given(records=record_lists())
def test_a_batch_reads_back_as_it_was_built(compression: Compression, records: list[Record]) -> None:
    batch = build_batch(records, compression=compression, producer_id=9, producer_epoch=2, base_sequence=4)
    header = parse_header(batch)
    verify_crc(batch, 0, header)
    assert header.crc == crc_of(batch)
    assert header.size_bytes == len(batch)
    assert (header.producer_id, header.producer_epoch, header.base_sequence) == (9, 2, 4)
    assert (header.base_offset, header.last_offset) == (records[0].offset, records[-1].offset)
    assert header.max_timestamp == max(record.timestamp for record in records)
    assert list(iter_records(batch)) == records
    assert list(iter_records(memoryview(bytearray(batch)))) == records


@EVERY
def test_batches_of_the_java_client(compression: Compression) -> None:
    batch = b64decode(JAVA_BATCHES[compression])
    header = parse_header(batch)
    verify_crc(batch, 0, header)
    assert header.compression is compression
    assert (header.producer_id, header.producer_epoch, header.base_sequence) == (5, 1, 0)
    assert list(iter_records(batch)) == JAVA_RECORDS
    if compression is Compression.NONE:
        assert build_batch(JAVA_RECORDS, producer_id=5, producer_epoch=1, base_sequence=0) == batch


def flatten(records: Any) -> list[Record]:
    return [
        Record(item.offset, item.timestamp, item.key, item.value, tuple((key, value) for key, value in item.headers))
        for item in records
    ]


@EVERY
@examples(10, 300)
@given(records=record_lists())
def test_other_clients_read_our_batches(compression: Compression, records: list[Record]) -> None:
    batch = build_batch(records, compression=compression)
    assert flatten(AiokafkaBatch(batch)) == records
    if compression in (Compression.NONE, Compression.GZIP):
        theirs = KafkaPythonBatch(batch)
        assert theirs.validate_crc()
        assert flatten(theirs) == records


@EVERY
@examples(10, 300)
@given(records=record_lists(first=0))
def test_batches_of_other_clients(compression: Compression, records: list[Record]) -> None:
    # aiokafka's builder uses -1 for "no timestamp yet", so a first record at -1 confuses it.
    records = [record._replace(timestamp=max(record.timestamp, 0)) for record in records]
    builders = [AiokafkaBuilder(2, int(compression), 0, 7, 1, 3, 1 << 20)]
    if compression in (Compression.NONE, Compression.GZIP):
        builders.append(KafkaPythonBuilder(2, int(compression), False, 7, 1, 3, 1 << 20))
    for builder in builders:
        for record in records:
            builder.append(record.offset, record.timestamp, record.key, record.value, list(record.headers))
        batch = bytes(builder.build())
        header = parse_header(batch)
        verify_crc(batch, 0, header)
        assert (header.producer_id, header.producer_epoch, header.base_sequence) == (7, 1, 3)
        assert list(iter_records(batch)) == records


def test_several_batches_are_walked_and_a_cut_tail_ignored() -> None:
    first = build_batch([Record(5, 1, b"a"), Record(6, 1, b"b")])
    second = build_batch([Record(9, 2, b"c")])
    buffer = first + second + first[:-1]
    found = [(position, header.base_offset, header.last_offset) for position, header in iter_batches(buffer)]
    assert found == [(0, 5, 6), (len(first), 9, 9)]
    assert [position for position, _ in iter_batches(first + second)] == [0, len(first)], "nothing follows the last one"
    assert list(iter_batches(first[:60])) == []
    with pytest.raises(Malformed):
        parse_header(first[:60])


def test_offsets_are_patched_without_touching_the_checksum() -> None:
    batch = build_batch([Record(0, 10, b"a"), Record(1, 11, b"b")])
    header = parse_header(batch)
    moved = PREFIX.pack(1000, header.length, 3) + batch[PREFIX.size :]
    changed = parse_header(moved)
    verify_crc(moved, 0, changed)
    assert (changed.base_offset, changed.partition_leader_epoch) == (1000, 3)
    assert [record.offset for record in iter_records(moved)] == [1000, 1001]


@EVERY
def test_append_time_replaces_every_timestamp(compression: Compression) -> None:
    batch = with_append_time(build_batch(JAVA_RECORDS, compression=compression), 1234)
    header = parse_header(batch)
    verify_crc(batch, 0, header)
    assert header.timestamp_type is TimestampType.LOG_APPEND_TIME
    assert [record.timestamp for record in iter_records(batch)] == [1234] * 3
    assert [record.value for record in iter_records(batch)] == [record.value for record in JAVA_RECORDS]


def test_names_of_headers_are_any_bytes() -> None:
    """Clients in C do not look whether they are text, nor does Kafka."""
    name = b"caf\xe9".decode("utf-8", "surrogateescape")
    batch = build_batch([Record(0, 5, b"k", b"v", ((name, b"1"),))])
    assert b"\x08caf\xe9\x021" in batch
    (record,) = iter_records(batch)
    assert build_batch([record]) == batch


def test_flags_are_kept_in_the_attributes() -> None:
    marker = Record(7, 5, bytes(4), bytes(6))
    header = parse_header(build_batch([marker], is_control=True, is_transactional=True, delete_horizon_ms=99))
    assert header.is_control
    assert header.is_transactional
    assert header.delete_horizon_ms == 99
    assert parse_header(build_batch([marker])).delete_horizon_ms is None


@EVERY
@examples(15, 500)
@given(records=record_lists(), seed=st.integers(0, 999), horizon=st.none() | st.integers(0, 2**41))
def test_compaction_keeps_records_as_they_were(
    compression: Compression, records: list[Record], seed: int, horizon: int | None
) -> None:
    random = Random(seed)
    keep = {record.offset for record in records if random.random() < 0.6}
    batch = build_batch(records, compression=compression, producer_id=3, producer_epoch=1, base_sequence=0)
    data, spans = scan_batch(batch)
    assert [(span.offset, span.timestamp, span.key, span.is_tombstone) for span in spans] == [
        (record.offset, record.timestamp, record.key, record.value is None) for record in records
    ]
    kept_spans = [span for span in spans if span.offset in keep]
    smaller = keep_records(parse_header(batch), batch, data, kept_spans, delete_horizon_ms=horizon)
    kept = [record for record in records if record.offset in keep]
    if not kept:
        assert smaller is None
        smaller = keep_records(parse_header(batch), batch, data, [], delete_horizon_ms=horizon, keep_empty=True)
    assert smaller is not None
    before, after = parse_header(batch), parse_header(smaller)
    verify_crc(smaller, 0, after)
    assert list(iter_records(smaller)) == kept
    assert after.last_offset == before.last_offset
    assert after.last_sequence == before.last_sequence
    assert after.delete_horizon_ms == horizon


@EVERY
@examples(15, 500)
@given(records=record_lists(), seed=st.integers(0, 999))
def test_keys_and_values_are_found_within_stretches(compression: Compression, records: list[Record], seed: int) -> None:
    random = Random(seed)
    wanted = [record.offset for record in records if random.random() < 0.4] or [records[-1].offset]
    batch = build_batch(records, compression=compression)
    header = parse_header(batch)
    found = contents_within(header, records_section(batch, header), [(offset, offset) for offset in wanted])
    assert list(found) == [(one.offset, one.key, one.value) for one in records if one.offset in wanted]
    first, last = wanted[0], wanted[-1]
    found = contents_within(header, records_section(batch, header), [(first, last), (last + 5, last + 6)])
    assert [offset for offset, _, _ in found if offset <= last] == [
        one.offset for one in records if first <= one.offset <= last
    ]


def contents(batch: bytes) -> list[tuple[int, bytes | None, bytes | None]]:
    header = parse_header(batch)
    return list(contents_within(header, records_section(batch, header, max_bytes=1 << 20), [(0, 1 << 40)]))


def resealed(batch: bytes, **changes: int) -> bytes:
    """The batch with other header fields; iter_records does not look at the CRC."""
    return HEADER.pack(*parse_header(batch)._replace(**changes)) + batch[HEADER_BYTES:]


@pytest.mark.parametrize("changes", [{"record_count": 2}, {"record_count": 4}, {"magic": 1}, {"attributes": 7}])
def test_headers_that_do_not_fit_their_records_are_malformed(changes: dict[str, int]) -> None:
    with pytest.raises(Malformed):
        list(iter_records(resealed(build_batch(JAVA_RECORDS), **changes)))


def test_offset_deltas_must_rise_and_stay_inside_unless_told_otherwise() -> None:
    outside = resealed(build_batch(JAVA_RECORDS), last_offset_delta=1)
    falling = build_batch([Record(0), Record(2), Record(1)], last_offset=2)
    repeated = build_batch([Record(0), Record(1), Record(1)], last_offset=2)
    for batch in (outside, falling, repeated):
        with pytest.raises(Malformed):
            list(iter_records(batch))
        assert len(list(iter_records(batch, check_offsets=False))) == 3


def test_sequences_wrap_from_the_largest_int32_to_zero() -> None:
    records = [Record(0), Record(1), Record(2)]
    for base, last in ((0, 2), (2**31 - 3, 2**31 - 1), (2**31 - 2, 0), (2**31 - 1, 1), (-1, -1)):
        assert (
            parse_header(build_batch(records, producer_id=1, producer_epoch=0, base_sequence=base)).last_sequence
            == last
        )


def test_a_record_shorter_than_its_fixed_fields_is_malformed() -> None:
    """A length of 5: attributes, two deltas, key and value lengths, and no room for the header count."""
    short = bytes.fromhex("0a 00 00 00 01 01")
    batch = resealed(build_batch([Record(0)])[:HEADER_BYTES] + short, length=HEADER_BYTES - 12 + len(short))
    with pytest.raises(Malformed, match="length does not fit"):
        list(iter_records(batch))


def test_a_wrong_checksum_is_corrupt_data() -> None:
    batch = bytearray(build_batch(JAVA_RECORDS))
    batch[-1] ^= 1
    with pytest.raises(CorruptData):
        verify_crc(batch, 0, parse_header(batch))


@EVERY
@examples(40, 3000)
@given(seed=st.integers(0, 2**32))
def test_damaged_batches_raise_nothing_but_malformed(compression: Compression, seed: int) -> None:
    random = Random(seed)
    batch = bytearray(build_batch(JAVA_RECORDS, compression=compression))
    for _ in range(random.choice((1, 1, 2, 5))):
        batch[random.randrange(len(batch))] = random.randrange(256)
    if random.random() < 0.3:
        del batch[random.randrange(len(batch)) :]
    reads: list[Callable[[], Any]] = [
        lambda: list(iter_records(batch, max_bytes=1 << 20)), lambda: scan_batch(batch, max_bytes=1 << 20),
        lambda: contents(bytes(batch)),
    ]  # fmt: skip
    for read in reads:
        with suppress(Malformed):
            read()


@examples(100, 5000)
@given(records=record_lists(), seed=st.integers(0, 2**32), damages=st.integers(0, 3))
def test_records_are_found_compiled_as_they_are_without(records: list[Record], seed: int, damages: int) -> None:
    random = Random(seed)
    batch = build_batch(records)
    header, data = parse_header(batch), bytearray(batch[HEADER_BYTES:])
    for _ in range(damages):
        data[random.randrange(len(data))] = random.choice((0, 1, 127, 128, 255, random.randrange(256)))
    changed = ({}, {"record_count": len(records) + 1}, {"attributes": 8}, {"base_timestamp": I64}, {"base_offset": I64})
    changes: dict[str, int] = random.choice(changed)
    found: list[Any] = []
    for way in (scan_records, reference(scan_records)):
        try:
            found.append([(type(span), *span) for span in way(header._replace(**changes), bytes(data))])
        except Malformed as problem:
            found.append(str(problem))
    assert found[0] == found[1]
    assert isinstance(found[0], str) or {one[0] for one in found[0]} <= {RecordSpan}


@examples(200, 5000)
@given(value=st.integers(-(2**63), 2**63 - 1) | st.integers(-9000, 9000))
def test_varints_round_trip(value: int) -> None:
    encoded = encode_varint(value)
    assert read_varlong(encoded, 0) == (value, len(encoded))
    if -(2**31) <= value < 2**31:
        assert read_varint(encoded, 0) == (value, len(encoded))
    else:
        with pytest.raises(Malformed):
            read_varint(encoded, 0)


@pytest.mark.parametrize("encoded", ["ffffffffffffffffff02", "ffffffffffffffffffff01", "80808080808080808080"])
def test_a_varint_of_more_than_64_bits_is_malformed(encoded: str) -> None:
    with pytest.raises(Malformed, match="64 bits"):
        read_varlong(bytes.fromhex(encoded), 0)


@pytest.mark.parametrize("encoded", ["ffffffff1f", "ffffffffff01", "8080808080"])
def test_a_varint_of_more_than_32_bits_is_malformed(encoded: str) -> None:
    with pytest.raises(Malformed, match="32 bits"):
        read_varint(bytes.fromhex(encoded), 0)
