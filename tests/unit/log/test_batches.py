"""What may be appended, case by case: every row of the table of Kafka's produce validation that is decided here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from struct import pack_into

import pytest
from crc32c import crc32c
from hypothesis import given
from hypothesis import strategies as st

from penstock.log.batches import Accepted, Rejected, accept, inspect, limits_of_plain
from penstock.log.model import TopicConfig
from penstock.wire.compression import Compression
from penstock.wire.error_codes import ErrorCode
from penstock.wire.records import (
    NO_TIMESTAMP,
    BatchHeader,
    Record,
    TimestampType,
    build_batch,
    crc_of,
    iter_records,
    parse_header,
)

NOW_MS = 1_700_000_000_000
HOUR_MS = 3_600_000
PLAIN = TopicConfig()
INVALID, CORRUPT = ErrorCode.INVALID_RECORD, ErrorCode.CORRUPT_MESSAGE
# Positions in a batch's header.
BASE_OFFSET, LENGTH, MAGIC, CRC, ATTRIBUTES, LAST_DELTA = 0, 8, 16, 17, 21, 23
PRODUCER_ID, SEQUENCE, COUNT = 43, 53, 57


def batch(*values: bytes | None, key: bytes | None = b"k", at: Iterable[int] | None = None, **options) -> bytes:
    times = [NOW_MS] * len(values) if at is None else list(at)
    records = [Record(number, times[number], key, value) for number, value in enumerate(values)]
    return build_batch(records, **options)


def patched(data: bytes, position: int, layout: str, *values: int, fix_crc: bool = True) -> bytes:
    changed = bytearray(data)
    pack_into(layout, changed, position, *values)
    if fix_crc:
        pack_into(">I", changed, CRC, crc32c(bytes(changed[ATTRIBUTES:])))
    return bytes(changed)


def judge(
    data: bytes | None, config: TopicConfig = PLAIN, *, version: int = 9, transactional: bool = False
) -> Accepted | Rejected:
    view = None if data is None else memoryview(data)
    return inspect(view, config, NOW_MS, version=version, transactional=transactional)


GOOD = batch(b"one", b"two")
COMPRESSED = batch(b"one", b"two", compression=Compression.ZSTD)


@pytest.mark.parametrize("compression", Compression)
def test_a_good_batch_is_stored_as_it_came(compression: Compression) -> None:
    data = batch(b"one", b"two", compression=compression, producer_id=7, producer_epoch=3, base_sequence=11)
    accepted = judge(data)
    assert isinstance(accepted, Accepted)
    assert bytes(accepted.data) == data
    assert accepted[1:] == (2, 7, 3, 11, NOW_MS, NO_TIMESTAMP, 0)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        pytest.param(None, INVALID, id="null records"),
        pytest.param(b"", INVALID, id="no bytes"),
        pytest.param(GOOD[:60], INVALID, id="less than a header"),
        pytest.param(GOOD[:-1], INVALID, id="only a truncated batch"),
        pytest.param(GOOD + GOOD, INVALID, id="two batches"),
        pytest.param(patched(GOOD, LENGTH, ">i", 10), INVALID, id="length below the header"),
        pytest.param(patched(GOOD, LENGTH, ">i", -5), INVALID, id="negative length"),
        pytest.param(patched(GOOD, LENGTH, ">i", 2**31 - 1), INVALID, id="huge length"),
        pytest.param(patched(GOOD, BASE_OFFSET, ">q", 1), INVALID, id="base offset"),
        pytest.param(patched(GOOD, COUNT, ">i", 1), INVALID, id="count below"),
        pytest.param(patched(GOOD, COUNT, ">i", 3), INVALID, id="count above"),
        pytest.param(patched(patched(GOOD, COUNT, ">i", 0), LAST_DELTA, ">i", -1), INVALID, id="no records"),
        pytest.param(patched(patched(GOOD, COUNT, ">i", -1), LAST_DELTA, ">i", -2), INVALID, id="negative count"),
        pytest.param(patched(GOOD, LAST_DELTA, ">i", 2), INVALID, id="last offset delta"),
        pytest.param(batch(b"x", is_control=True), INVALID, id="control batch"),
        pytest.param(patched(GOOD, PRODUCER_ID, ">qhi", 7, 0, -1), INVALID, id="producer without sequence"),
        pytest.param(patched(GOOD, PRODUCER_ID, ">qhi", 7, -1, 0), INVALID, id="producer without epoch"),
        pytest.param(patched(GOOD, MAGIC, ">b", 0), INVALID, id="message set 0"),
        pytest.param(patched(GOOD, MAGIC, ">b", 1), INVALID, id="message set 1"),
        pytest.param(patched(GOOD, MAGIC, ">b", 3), CORRUPT, id="magic 3"),
        pytest.param(patched(GOOD, MAGIC, ">b", -1), CORRUPT, id="magic -1"),
        pytest.param(patched(GOOD, CRC, ">I", 1, fix_crc=False), CORRUPT, id="crc"),
        pytest.param(patched(GOOD, len(GOOD) - 2, ">b", 9, fix_crc=False), CORRUPT, id="bit flip"),
        *(
            pytest.param(
                patched(GOOD, ATTRIBUTES, ">h", codec), ErrorCode.UNSUPPORTED_COMPRESSION_TYPE, id=f"codec {codec}"
            )
            for codec in (5, 6, 7)
        ),
        pytest.param(
            batch(b"x", producer_id=7, producer_epoch=0, base_sequence=0, is_transactional=True),
            ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
            id="transactional without an id",
        ),
    ],
)  # fmt: skip
def test_what_is_refused(data: bytes | None, error: ErrorCode) -> None:
    verdict = judge(data)
    assert isinstance(verdict, Rejected)
    assert verdict.error is error
    assert verdict.message
    assert verdict.records == ()


def test_a_transactional_batch_of_a_transaction_is_accepted() -> None:
    data = batch(b"x", producer_id=7, producer_epoch=0, base_sequence=0, is_transactional=True)
    assert isinstance(judge(data, transactional=True), Accepted)


@pytest.mark.parametrize(("version", "allowed"), [(3, False), (6, False), (7, True), (13, True)])
def test_zstd_needs_version_7(version: int, allowed: bool) -> None:
    verdict = judge(COMPRESSED, version=version)
    assert isinstance(verdict, Accepted) is allowed
    assert allowed or verdict.error is ErrorCode.UNSUPPORTED_COMPRESSION_TYPE
    assert isinstance(judge(batch(b"x", compression=Compression.LZ4), version=version), Accepted)


@pytest.mark.parametrize("rest", [GOOD[:70], GOOD[:61], GOOD[:12], b"\0"], ids=len)
def test_what_is_cut_short_behind_a_batch_is_ignored(rest: bytes) -> None:
    accepted = judge(GOOD + rest)
    assert isinstance(accepted, Accepted)
    assert bytes(accepted.data) == GOOD


@pytest.mark.parametrize(("spare", "error"), [(0, None), (1, None), (-1, ErrorCode.MESSAGE_TOO_LARGE)])
def test_the_largest_batch(spare: int, error: ErrorCode | None) -> None:
    verdict = judge(GOOD, TopicConfig(max_message_bytes=len(GOOD) + spare))
    assert (verdict.error if isinstance(verdict, Rejected) else None) is error


# ---- timestamps ----------------------------------------------------------------------------------------------

DAY_BACK = TopicConfig(timestamp_before_max_ms=24 * HOUR_MS)


@pytest.mark.parametrize(
    ("times", "config", "wrong"),
    [
        pytest.param([NOW_MS + HOUR_MS, NOW_MS], PLAIN, [], id="an hour ahead"),
        pytest.param([NOW_MS, NOW_MS + HOUR_MS + 1], PLAIN, [1], id="more than an hour ahead"),
        pytest.param([0, NOW_MS], PLAIN, [], id="any past"),
        pytest.param([NOW_MS - 24 * HOUR_MS], DAY_BACK, [], id="a day back"),
        pytest.param([NOW_MS, NOW_MS - 24 * HOUR_MS - 1], DAY_BACK, [1], id="more than a day back"),
        pytest.param([NOW_MS + 2 * HOUR_MS, NOW_MS, 5], DAY_BACK, [0, 2], id="both sides"),
        pytest.param([NO_TIMESTAMP, NO_TIMESTAMP], DAY_BACK, [], id="none"),
        pytest.param([NO_TIMESTAMP, 0], DAY_BACK, [1], id="none and too old"),
    ],
)
@pytest.mark.parametrize("compression", [Compression.NONE, Compression.GZIP])
def test_timestamps_out_of_bounds(
    times: list[int], config: TopicConfig, wrong: list[int], compression: Compression
) -> None:
    verdict = judge(batch(*[b"v"] * len(times), at=times, compression=compression), config)
    if not wrong:
        assert isinstance(verdict, Accepted)
        return
    assert isinstance(verdict, Rejected)
    assert verdict.error is ErrorCode.INVALID_TIMESTAMP
    assert [index for index, _ in verdict.records] == wrong
    assert verdict.message


@pytest.mark.parametrize("compression", Compression)
def test_log_append_time(compression: Compression) -> None:
    data = batch(b"one", b"two", at=[NOW_MS + 9 * HOUR_MS, 0], compression=compression)
    accepted = judge(data, TopicConfig(log_append_time=True))
    assert isinstance(accepted, Accepted)
    assert (accepted.max_timestamp, accepted.append_time_ms) == (NOW_MS, NOW_MS)
    header = parse_header(accepted.data)
    assert header.timestamp_type is TimestampType.LOG_APPEND_TIME
    assert header.crc == crc_of(accepted.data)
    assert [(record.timestamp, record.value) for record in iter_records(accepted.data)] == [
        (NOW_MS, b"one"), (NOW_MS, b"two"),
    ]  # fmt: skip


def test_a_claimed_append_time_is_rewritten() -> None:
    data = batch(b"one", at=[NOW_MS - 5], timestamp_type=TimestampType.LOG_APPEND_TIME)
    accepted = judge(data)
    assert isinstance(accepted, Accepted)
    header = parse_header(accepted.data)
    assert header.timestamp_type is TimestampType.CREATE_TIME
    assert header.crc == crc_of(accepted.data)
    assert accepted.append_time_ms == NO_TIMESTAMP
    assert [record.timestamp for record in iter_records(accepted.data)] == [NOW_MS - 5]


# ---- topics that look inside ---------------------------------------------------------------------------------

COMPACT = TopicConfig(compact=True)


@pytest.mark.parametrize("compression", [Compression.NONE, Compression.SNAPPY])
def test_a_compacted_topic_needs_keys(compression: Compression) -> None:
    good = judge(batch(b"one", None, compression=compression), COMPACT)
    assert isinstance(good, Accepted)
    keyed, keyless = Record(0, NOW_MS, b"k", b"one"), Record(1, NOW_MS, None, b"two")
    verdict = judge(build_batch([keyed, keyless, keyless._replace(offset=2)], compression=compression), COMPACT)
    assert isinstance(verdict, Rejected)
    assert verdict.error is INVALID
    assert [index for index, _ in verdict.records] == [1, 2]
    assert verdict.message


def test_an_empty_key_is_a_key() -> None:
    assert isinstance(judge(batch(b"v", key=b""), COMPACT), Accepted)


@pytest.mark.parametrize(
    "lie",
    [
        pytest.param(patched(patched(COMPRESSED, COUNT, ">i", 3), LAST_DELTA, ">i", 2), id="more records"),
        pytest.param(patched(patched(COMPRESSED, COUNT, ">i", 1), LAST_DELTA, ">i", 0), id="fewer records"),
        pytest.param(patched(COMPRESSED, 66, ">q", -1), id="undecodable"),
        pytest.param(patched(patched(GOOD, COUNT, ">i", 3), LAST_DELTA, ">i", 2), id="more, not compressed"),
        pytest.param(patched(GOOD, 61, ">b", 0x7F), id="a record longer than its batch"),
    ],
)
def test_lies_about_records_are_found_where_a_topic_looks_inside(lie: bytes) -> None:
    for config in (COMPACT, TopicConfig(compression=int(Compression.GZIP))):
        verdict = judge(lie, config)
        assert isinstance(verdict, Rejected)
        assert verdict.error is INVALID


@pytest.mark.parametrize("wanted", Compression)
@pytest.mark.parametrize("sent", Compression)
def test_the_topics_own_compression(sent: Compression, wanted: Compression) -> None:
    data = batch(b"one" * 50, b"two", compression=sent, producer_id=7, producer_epoch=1, base_sequence=4)
    accepted = judge(data, TopicConfig(compression=int(wanted)))
    assert isinstance(accepted, Accepted)
    header = parse_header(accepted.data)
    assert header.compression is wanted
    assert header.crc == crc_of(accepted.data)
    assert (header.producer_id, header.producer_epoch, header.base_sequence) == (7, 1, 4)
    assert list(iter_records(accepted.data)) == list(iter_records(data))
    if sent is wanted:
        assert bytes(accepted.data) == data


def test_the_topics_own_compression_keeps_names_of_headers_whatever_they_are() -> None:
    name = b"caf\xe9".decode("utf-8", "surrogateescape")
    data = build_batch([Record(0, NOW_MS, b"k", b"v", ((name, b"1"),))])
    accepted = judge(data, TopicConfig(compression=int(Compression.GZIP)))
    assert isinstance(accepted, Accepted), accepted
    assert list(iter_records(accepted.data)) == list(iter_records(data))


def test_a_batch_fits_into_a_segment() -> None:
    config = TopicConfig(segment_bytes=len(GOOD))
    assert isinstance(judge(GOOD, config), Accepted)
    assert accept(GOOD, 0, len(GOOD), *limits_of_plain(config, NOW_MS)) is not None
    smaller = replace(config, segment_bytes=len(GOOD) - 1)
    for one in (smaller, replace(smaller, compact=True), replace(smaller, log_append_time=True)):
        assert judge(GOOD, one).error is ErrorCode.RECORD_LIST_TOO_LARGE
    assert accept(GOOD, 0, len(GOOD), *limits_of_plain(smaller, NOW_MS)) is None
    # What is wrong with the batch itself is said first.
    assert judge(batch(b"a", key=None), replace(smaller, compact=True, segment_bytes=1)).error is INVALID


def test_what_is_too_large_in_the_topics_own_compression() -> None:
    data = batch(b"x" * 1_000, compression=Compression.GZIP)
    stored = len(batch(b"x" * 1_000))
    assert len(data) < 200
    config = TopicConfig(compression=int(Compression.NONE), max_message_bytes=stored - 1)
    assert judge(data, config).error is ErrorCode.MESSAGE_TOO_LARGE
    assert len(judge(data, replace(config, max_message_bytes=stored)).data) == stored
    assert len(judge(data, replace(config, compression=int(Compression.SNAPPY))).data) < 200


def test_compression_and_append_time_together() -> None:
    config = TopicConfig(compression=int(Compression.LZ4), log_append_time=True)
    accepted = judge(batch(b"one", at=[5]), config)
    assert isinstance(accepted, Accepted)
    header = parse_header(accepted.data)
    assert (header.compression, header.max_timestamp, header.crc) == (Compression.LZ4, NOW_MS, crc_of(accepted.data))


# ---- anything at all -----------------------------------------------------------------------------------------

CONFIGS = [PLAIN, COMPACT, DAY_BACK, TopicConfig(log_append_time=True), TopicConfig(compression=2)]


@given(st.binary(max_size=120), st.sampled_from(CONFIGS))
def test_arbitrary_bytes_get_an_answer(data: bytes, config: TopicConfig) -> None:
    assert isinstance(judge(data, config), Rejected)


@given(
    st.sampled_from([GOOD, COMPRESSED, batch(b"v", producer_id=1, producer_epoch=0, base_sequence=0)]),
    st.integers(0, 60), st.integers(0, 255), st.booleans(), st.sampled_from(CONFIGS),
)  # fmt: skip
def test_one_wrong_byte_gets_an_answer_and_never_a_broken_batch(
    data: bytes, position: int, byte: int, fix_crc: bool, config: TopicConfig
) -> None:
    changed = patched(data, position, ">B", byte, fix_crc=fix_crc and not CRC <= position < ATTRIBUTES)
    verdict = judge(changed, config)
    if isinstance(verdict, Accepted):
        header: BatchHeader = parse_header(verdict.data)
        assert header.size_bytes == len(verdict.data)
        assert header.crc == crc_of(verdict.data)
        assert (header.record_count, header.last_offset_delta + 1) == (verdict.offset_count,) * 2
        assert header.base_offset == 0


def test_the_largest_batch_is_judged_before_its_checksum_is_worked_out() -> None:
    damaged = patched(GOOD, CRC, ">I", 1, fix_crc=False)
    verdict = judge(damaged, replace(PLAIN, max_message_bytes=len(GOOD) - 1))
    assert isinstance(verdict, Rejected)
    assert verdict.error is ErrorCode.MESSAGE_TOO_LARGE


def test_a_topic_may_take_times_as_late_as_there_are() -> None:
    """Kafka's default before 4.0, which is still written out in many configurations."""
    config = replace(PLAIN, timestamp_after_max_ms=2**63 - 1)
    data = batch(b"one", b"two", at=[NOW_MS, 2**62])
    found = accept(data, 0, len(data), *limits_of_plain(config, NOW_MS))
    assert isinstance(found, Accepted)
    assert found == judge(data, config)
