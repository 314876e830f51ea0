"""What key compaction keeps: each rule by cases, and random logs against the simplest model there is."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.log.markers import marker
from penstock.log.model import AbortedTransaction, TopicConfig
from penstock.log.segments import SegmentFacts
from penstock.log.upkeep.key_compaction import (
    Cleaning,
    OffsetMap,
    Transactions,
    clean_batch,
    measure,
)
from penstock.wire.compression import Compression
from penstock.wire.records import (
    PREFIX,
    Record,
    TimestampType,
    build_batch,
    iter_batches,
    iter_records,
    parse_header,
    verify_crc,
)

NOW = 1_000_000
HOUR = 3_600_000


def batch_of(base: int, *keys: str, **options) -> bytes:
    """A batch of records with these keys; `-` before a key makes it a tombstone, an empty one has none."""
    records = [
        Record(
            base + n, 1000 + n, key.removeprefix("-").encode() if key else None, None if key.startswith("-") else b"v"
        )
        for n, key in enumerate(keys)
    ]
    return build_batch(records, base_offset=base, last_offset=base + len(keys) - 1, **options)


def keys_of(*batches: bytes, capacity: int = 1000) -> OffsetMap:
    keys = OffsetMap(capacity)
    for batch in batches:
        keys.note(parse_header(batch), batch)
    return keys


def cleaned(batch: bytes, keys: OffsetMap, *, now_ms: int = NOW, wanted: frozenset[int] = frozenset()) -> bytes | None:
    keys.end_offset += 1  # The batch is not the last of the pass.
    cleaning = Cleaning(keys=keys, now_ms=now_ms, delete_retention_ms=HOUR, wanted_headers=wanted)
    left = clean_batch(cleaning, parse_header(batch), batch)
    keys.end_offset -= 1
    return None if left is None else bytes(left)


def found(batch: bytes | None) -> list[tuple[int, str]]:
    if batch is None:
        return []
    verify_crc(batch, 0, parse_header(batch))
    return [
        (record.offset, ("-" if record.value is None else "") + (record.key or b"").decode())
        for record in iter_records(batch)
    ]


def test_the_latest_record_of_a_key_stays() -> None:
    batch = batch_of(0, "a", "b", "a", "c")
    keys = keys_of(batch, batch_of(4, "b", "d"))
    left = cleaned(batch, keys)
    assert found(left) == [(2, "a"), (3, "c")]
    header = parse_header(left)
    assert (header.base_offset, header.last_offset, header.record_count) == (0, 3, 2)


def test_a_batch_that_loses_nothing_is_the_same_object() -> None:
    batch = batch_of(0, "a", "b")
    keys = keys_of(batch)
    cleaning = Cleaning(keys=keys, now_ms=NOW, delete_retention_ms=HOUR)
    assert clean_batch(cleaning, parse_header(batch), batch) is batch


def test_a_batch_that_loses_everything_goes_unless_its_header_is_wanted() -> None:
    batch = batch_of(0, "a", "b", producer_id=7, producer_epoch=1, base_sequence=40)
    keys = keys_of(batch, batch_of(2, "b", "a", "c"))
    assert cleaned(batch, keys) is None
    left = cleaned(batch, keys, wanted=frozenset({1}))
    header = parse_header(left)
    assert (header.record_count, header.producer_id, header.last_sequence, header.last_offset) == (0, 7, 41, 1)
    assert cleaned(left, keys, wanted=frozenset({1})) == left
    assert cleaned(left, keys) is None, "once the producer has written more, the empty batch goes too"


def test_the_last_batch_of_a_pass_keeps_its_header_so_that_consumers_reach_the_end() -> None:
    batch = batch_of(0, "a")
    keys = keys_of(batch)
    keys.latest.put(b"a", 5)
    left = clean_batch(Cleaning(keys=keys, now_ms=NOW, delete_retention_ms=HOUR), parse_header(batch), batch)
    assert parse_header(left).record_count == 0


def test_what_is_beyond_the_map_stays_as_it_is() -> None:
    keys = keys_of(batch_of(0, "a"), batch_of(1, "b"))
    batch = batch_of(2, "a", "a")
    cleaning = Cleaning(keys=keys, now_ms=NOW, delete_retention_ms=HOUR)
    assert clean_batch(cleaning, parse_header(batch), batch) is batch


def test_records_without_a_key_go() -> None:
    batch = batch_of(0, "a", "", "b")
    assert found(cleaned(batch, keys_of(batch))) == [(0, "a"), (2, "b")]


def test_a_tombstone_is_seen_for_the_retention_time_after_it_was_first_met() -> None:
    value, tombstone = batch_of(0, "a", "b"), batch_of(2, "-a", "c")
    keys = keys_of(value, tombstone)
    assert found(cleaned(value, keys)) == [(1, "b")]
    left = cleaned(tombstone, keys)
    assert found(left) == [(2, "-a"), (3, "c")]
    header = parse_header(left)
    assert header.delete_horizon_ms == NOW + HOUR
    assert [record.timestamp for record in iter_records(left)] == [1000, 1001], "times survive the new base"
    assert header.max_timestamp == 1001
    assert found(cleaned(left, keys, now_ms=NOW + HOUR - 1)) == [(2, "-a"), (3, "c")]
    assert parse_header(cleaned(left, keys, now_ms=NOW + 1)).delete_horizon_ms == NOW + HOUR, "set once"
    assert found(cleaned(left, keys, now_ms=NOW + HOUR)) == [(3, "c")]


def test_a_tombstone_that_was_superseded_goes_at_once() -> None:
    batch = batch_of(0, "-a", "b")
    left = cleaned(batch, keys_of(batch, batch_of(2, "a")))
    assert found(left) == [(1, "b")]
    assert parse_header(left).delete_horizon_ms is None


def of_transaction(base: int, *keys: str, producer_id: int = 1) -> bytes:
    """A batch of a transaction."""
    return batch_of(base, *keys, producer_id=producer_id, producer_epoch=0, base_sequence=base, is_transactional=True)


def end_of_transaction(base: int, *, commit: bool, producer_id: int = 1) -> bytes:
    """A marker."""
    batch = marker(producer_id=producer_id, epoch=0, commit=commit, coordinator_epoch=0, now_ms=1000)
    data = bytearray(batch.data)
    data[:16] = PREFIX.pack(base, len(data) - 12, 0)
    return bytes(data)


class Log:
    """Batches of a partition, cleaned again and again."""

    def __init__(self, *batches: bytes, aborted: Sequence[AbortedTransaction] = ()) -> None:
        self.batches, self.aborted = list(batches), list(aborted)

    def clean(self, now_ms: int) -> list[tuple[int, str]]:
        """One pass over all of it; what records are left. Markers count as records without name."""
        keys = OffsetMap(1000)
        keys.transactions = Transactions(self.aborted)
        for batch in self.batches:
            keys.note(parse_header(batch), batch)
        cleaning = Cleaning(keys=keys, transactions=keys.transactions.copy(), now_ms=now_ms, delete_retention_ms=HOUR)
        left = [clean_batch(cleaning, parse_header(batch), batch) for batch in self.batches]
        self.batches = [bytes(batch) for batch in left if batch is not None]
        gone = cleaning.transactions.expired_aborts
        self.aborted = [one for one in self.aborted if one.last_offset not in gone]
        return [one for batch in self.batches for one in ([(parse_header(batch).base_offset, "")] if parse_header(
            batch).is_control else found(batch))]  # fmt: skip


def test_committed_batches_are_like_all_others_and_their_marker_goes_after_its_horizon() -> None:
    log = Log(of_transaction(0, "a"), end_of_transaction(1, commit=True), batch_of(2, "a"), batch_of(3, "z"))
    assert log.clean(NOW) == [(1, ""), (2, "a"), (3, "z")]
    assert log.clean(NOW) == [(1, ""), (2, "a"), (3, "z")], "its horizon is set only now"
    assert log.clean(NOW + HOUR - 1) == [(1, ""), (2, "a"), (3, "z")]
    assert log.clean(NOW + HOUR) == [(2, "a"), (3, "z")]


def test_a_marker_stays_as_long_as_a_record_of_its_transaction() -> None:
    log = Log(of_transaction(0, "a"), end_of_transaction(1, commit=True), batch_of(2, "z"))
    for now_ms in (NOW, NOW + HOUR, NOW + 3 * HOUR):
        assert log.clean(now_ms) == [(0, "a"), (1, ""), (2, "z")]


def test_aborted_batches_go_and_supersede_nothing() -> None:
    log = Log(
        batch_of(0, "a"), of_transaction(1, "a"), of_transaction(2, "b", producer_id=2),
        end_of_transaction(3, commit=False), end_of_transaction(4, commit=True, producer_id=2), batch_of(5, "z"),
        aborted=[AbortedTransaction(1, 1, 3, 2)],
    )  # fmt: skip
    assert log.clean(NOW) == [(0, "a"), (2, "b"), (3, ""), (4, ""), (5, "z")]
    assert log.clean(NOW) == [(0, "a"), (2, "b"), (3, ""), (4, ""), (5, "z")], "its horizon is set only now"
    assert log.aborted, "readers may still be told of it"
    assert log.clean(NOW + HOUR) == [(0, "a"), (2, "b"), (3, ""), (4, ""), (5, "z")], "first it leaves the list"
    assert not log.aborted
    assert log.clean(NOW + HOUR) == [(0, "a"), (2, "b"), (4, ""), (5, "z")]


def test_only_the_aborted_transactions_of_a_producer_go() -> None:
    log = Log(
        of_transaction(0, "a"), end_of_transaction(1, commit=True), of_transaction(2, "b"),
        end_of_transaction(3, commit=False), of_transaction(4, "c"), end_of_transaction(5, commit=True),
        batch_of(6, "z"), aborted=[AbortedTransaction(1, 2, 3, 4)],
    )  # fmt: skip
    assert log.clean(NOW) == [(0, "a"), (1, ""), (3, ""), (4, "c"), (5, ""), (6, "z")]


@pytest.mark.parametrize("codec", list(Compression))
@pytest.mark.parametrize("clock", list(TimestampType))
def test_codec_producer_and_timestamps_survive(codec: Compression, clock: TimestampType) -> None:
    records = [Record(10 + n, 5000 - n, f"k{n % 3}".encode(), b"v" * 50, (("h", b"x"),)) for n in range(9)]
    batch = build_batch(
        records, compression=codec, timestamp_type=clock, producer_id=9, producer_epoch=2, base_sequence=30,
        partition_leader_epoch=0,
    )  # fmt: skip
    before, left = parse_header(batch), cleaned(batch, keys_of(batch))
    after = parse_header(left)
    same = ("base_offset", "last_offset_delta", "producer_id", "producer_epoch", "base_sequence", "base_timestamp")
    assert [getattr(after, name) for name in same] == [getattr(before, name) for name in same]
    assert (after.compression, after.timestamp_type) == (codec, clock)
    assert list(iter_records(left)) == list(iter_records(batch))[6:]
    if clock is TimestampType.CREATE_TIME:
        assert after.max_timestamp == 5000 - 6
    else:
        assert after.max_timestamp == before.max_timestamp


def test_what_cannot_be_decoded_is_kept() -> None:
    batch = bytearray(batch_of(0, "a", "b"))
    batch[61] = 0x7F
    keys = keys_of(batch_of(0, "x"), batch_of(1, "y"), batch_of(2, "a"))
    assert cleaned(bytes(batch), keys) == bytes(batch)


@pytest.mark.parametrize("offsets", [(0, 0), (1, 0), (0, 2), (0, 9)])
def test_records_with_offsets_that_are_not_theirs_supersede_nothing(offsets) -> None:
    records = [Record(offset, 0, b"a", b"lies") for offset in offsets]
    lying = build_batch(records, base_offset=0, last_offset=1)
    honest = batch_of(2, "a", "b")
    keys = keys_of(lying, honest)
    assert cleaned(lying, keys) == lying
    assert cleaned(honest, keys) == honest


KEYS = [f"k{n}" for n in range(6)]
one_batch = st.lists(st.sampled_from([*KEYS, *(f"-{key}" for key in KEYS), ""]), min_size=1, max_size=6)


def lay_out(batches: Sequence[Sequence[str]]) -> list[bytes]:
    laid, offset = [], 0
    for number, keys in enumerate(batches):
        laid.append(batch_of(offset, *keys, compression=Compression(number % 5)))
        offset += len(keys)
    return laid


def clean_log(log: Sequence[bytes], start: int, capacity: int, now_ms: int) -> tuple[list[bytes], int]:
    """A pass: map from an offset on while there is room for keys, then clean everything."""
    keys = OffsetMap(capacity)
    keys.end_offset = start
    for batch in log:
        header = parse_header(batch)
        if header.base_offset >= start and not keys.is_full:
            keys.note(header, batch)
    cleaning = Cleaning(keys=keys, now_ms=now_ms, delete_retention_ms=HOUR)
    left = [clean_batch(cleaning, parse_header(batch), batch) for batch in log]
    return [bytes(batch) for batch in left if batch is not None], keys.end_offset


@settings(deadline=None)
@given(st.lists(one_batch, min_size=1, max_size=12), st.integers(1, 8), st.integers(0, 2 * HOUR))
def test_random_logs(batches: list[list[str]], capacity: int, later_ms: int) -> None:
    """Pass after pass with a map that is too small: what is left is the latest record of each key, in order."""
    log = lay_out(batches)
    original = {record.offset: record for batch in log for record in iter_records(batch)}
    end = max(original) + 1
    cleaned_to = 0
    while cleaned_to < end:
        log, after = clean_log(log, cleaned_to, capacity, NOW)
        assert after > cleaned_to
        cleaned_to = after
        check_cleaned(log, original, cleaned_to, expired=False)
    assert parse_header(log[-1]).last_offset == end - 1, "a consumer reaches the end"
    log, _ = clean_log(log, cleaned_to, capacity, NOW + later_ms)
    check_cleaned(log, original, cleaned_to, expired=later_ms >= HOUR)


def check_cleaned(log: Sequence[bytes], original: dict[int, Record], cleaned_to: int, *, expired: bool) -> None:
    latest: dict[bytes, int] = {}
    for offset, record in sorted(original.items()):
        if record.key is not None and offset < cleaned_to:
            latest[record.key] = offset
    left = [record for batch in log for record in iter_records(batch)]
    assert all(original[record.offset] == record for record in left), "a record changed"
    offsets = [record.offset for record in left]
    assert offsets == sorted(offsets)
    expected = {
        offset
        for offset, record in original.items()
        if offset >= cleaned_to
        or (record.key is not None and latest[record.key] == offset and not (expired and record.value is None))
    }
    assert set(offsets) == expected
    for batch in log:
        for position, header in iter_batches(batch):
            verify_crc(batch, position, header)


def segment(base: int, last: int, size: int, newest: int = 0) -> SegmentFacts:
    return SegmentFacts(base_offset=base, last_offset=last, byte_length=size, min_timestamp=0, max_timestamp=newest)


@pytest.mark.parametrize(
    ("segments", "cleaned_to", "config", "first_dirty_ms", "expected"),
    [
        ([], 0, {}, -1, False),
        ([segment(0, 9, 100)], 0, {}, 0, True),  # Everything is dirty.
        ([segment(0, 9, 100)], 10, {}, -1, False),
        ([segment(0, 9, 100), segment(10, 19, 100)], 10, {}, 0, False),  # Half: not more than 0.5.
        ([segment(0, 9, 100), segment(10, 19, 101)], 10, {}, 0, True),
        ([segment(0, 9, 100), segment(10, 19, 1)], 10, {"min_cleanable_dirty_ratio": 0.0}, 0, True),
        ([segment(0, 9, 100), segment(10, 19, 100)], 10, {"min_cleanable_dirty_ratio": 1.0}, 0, False),
        ([segment(0, 9, 100, NOW)], 0, {"min_compaction_lag_ms": 1}, 0, False),
        ([segment(0, 9, 100, NOW - 1)], 0, {"min_compaction_lag_ms": 1}, 0, True),
        ([segment(0, 9, 1000), segment(10, 19, 1)], 10, {"max_compaction_lag_ms": 100}, NOW - 101, True),
        ([segment(0, 9, 1000), segment(10, 19, 1)], 10, {"max_compaction_lag_ms": 100}, NOW - 100, False),
        (
            [segment(0, 9, 1000)],
            10,
            {"max_compaction_lag_ms": 100},
            NOW - 1000,
            False,
        ),  # Only the WAL is late.
    ],
)
def test_when_a_partition_is_worth_cleaning(segments, cleaned_to, config, first_dirty_ms, expected) -> None:
    config = TopicConfig(compact=True, **config)
    dirt = measure(segments, config, cleaned_to=cleaned_to, first_dirty_ms=first_dirty_ms, now_ms=NOW)
    assert dirt.is_worth_cleaning(config) is expected


def test_young_records_end_what_may_be_cleaned() -> None:
    config = TopicConfig(compact=True, min_compaction_lag_ms=100)
    segments = [segment(0, 9, 10), segment(10, 19, 10, NOW - 99), segment(20, 29, 10)]
    dirt = measure(segments, config, cleaned_to=0, first_dirty_ms=0, now_ms=NOW)
    assert (dirt.start_offset, dirt.end_offset, dirt.dirty_bytes) == (0, 10, 10)
