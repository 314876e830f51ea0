"""What people type and read: addresses, times, sizes, positions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.base.errors import InvalidRequest
from penstock.cli.text_formats.addresses import Address, parse_address, parse_addresses
from penstock.cli.text_formats.positions import (
    At,
    BeforeEnd,
    End,
    Since,
    Start,
    parse_partitions,
    parse_position,
    parse_topic_partitions,
    place,
)
from penstock.cli.text_formats.quantities import (
    amount_text,
    count_text,
    milliseconds_text,
    parse_size,
    percentile,
    plural,
    size_text,
)
from penstock.cli.text_formats.times import duration_text, iso, parse_duration_ms, parse_time_ms, to_the_second

NOW_MS = 1_769_860_800_000  # 2026-01-31T12:00:00Z


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:9092", Address("127.0.0.1", 9092)),
        ("[::1]:9092", Address("::1", 9092)),
        ("kafka.example:1", Address("kafka.example", 1)),
        ("host", Address("host", 9092)),
        ("[::1]", Address("::1", 9092)),
        ("::1", Address("::1", 9092)),
    ],
)
def test_addresses_are_read(text: str, expected: Address) -> None:
    assert parse_address(text, default_port=9092) == expected


@pytest.mark.parametrize("text", ["", ":9092", "host:", "host:x", "host:70000", "host:-1", "host:٣"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="write"):
        parse_address(text)


def test_a_port_is_needed_where_there_is_no_default() -> None:
    with pytest.raises(InvalidRequest, match="has no port"):
        parse_address("host")


def test_lists_of_addresses_tolerate_spaces_and_commas() -> None:
    assert parse_addresses("a:1, b ,") == (Address("a", 1), Address("b", 9092))
    with pytest.raises(InvalidRequest):
        parse_addresses(" , ")


def test_ipv6_addresses_are_printed_in_brackets() -> None:
    assert str(Address("::1", 9092)) == "[::1]:9092"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1769860800000", NOW_MS),
        ("2026-01-31T12:00:00Z", NOW_MS),
        ("2026-01-31T12:00", NOW_MS),
        ("2026-01-31T14:00:00+02:00", NOW_MS),
        ("2026-01-31", NOW_MS - 12 * 3_600_000),
        ("1h30m", NOW_MS - 5_400_000),
        ("500ms", NOW_MS - 500),
    ],
)
def test_times_are_read(text: str, expected: int) -> None:
    assert parse_time_ms(text, now_ms=NOW_MS) == expected


@pytest.mark.parametrize("text", ["", "yesterday", "1x", "2026-13-01", "-5", "9" * 19, "9" * 5_000])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="is not a time"):
        parse_time_ms(text, now_ms=NOW_MS)


@given(st.integers(min_value=0, max_value=250_000_000_000_000))
def test_times_read_back_as_they_are_printed(timestamp_ms: int) -> None:
    assert parse_time_ms(iso(timestamp_ms) or "", now_ms=0) == timestamp_ms


def test_times_that_are_not_there_print_as_nothing() -> None:
    assert iso(-1) is None
    assert iso(None) is None
    assert iso(2**62) is None


def test_durations_are_read() -> None:
    assert [parse_duration_ms(text) for text in ("10", "1.5", "250ms", "1h1m1s")] == [10_000, 1_500, 250, 3_661_000]
    for wrong in ("soon", "9" * 400, "9" * 400 + "h", "1001w" * 60):
        with pytest.raises(InvalidRequest):
            parse_duration_ms(wrong)


def test_sizes_are_read() -> None:
    assert [parse_size(text) for text in ("100", "1k", "16KiB", "1.5M", "2 GiB")] == [
        100,
        1024,
        16384,
        1_572_864,
        2_147_483_648,
    ]
    for wrong in ("big", "9" * 400, "9" * 400 + "GiB", "1e400"):
        with pytest.raises(InvalidRequest):
            parse_size(wrong)


def test_quantities_are_printed_for_people() -> None:
    assert [size_text(value) for value in (0, 1023, 1024, 1536, 1024**3, None)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "1.5 KiB",
        "1.0 GiB",
        "-",
    ]
    assert size_text(1024**2 - 1) == "1.0 MiB"
    assert count_text(1234567) == "1,234,567"
    assert [milliseconds_text(value) for value in (0.4, 12.34, 1500, None)] == ["0.40 ms", "12.3 ms", "1.50 s", "-"]
    assert plural(1, "record") == "1 record"
    assert plural(2000, "record") == "2,000 records"


@pytest.mark.parametrize("text", ["@1969-12-31T23:59:59.999Z", "@1969-12-31T23:59:59.998Z", "@900w", "1960-01-01"])
def test_times_before_all_records_are_no_special_offsets(text: str) -> None:
    """Kafka's -1 and -2 are the end and the start of a log."""
    assert parse_position(text, now_ms=1_000) == Since(0)


def test_percentiles_are_nearest_ranks() -> None:
    values = list(range(1, 101))
    assert [percentile(values, percent) for percent in (50, 99, 99.9, 100)] == [50, 99, 100, 100]
    assert percentile([7], 1) == 7


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("start", Start()),
        ("earliest", Start()),
        ("END", End()),
        ("42", At(42)),
        ("-10", BeforeEnd(10)),
        ("-0", BeforeEnd(0)),
        ("@1769860800000", Since(NOW_MS)),
        ("@1h", Since(NOW_MS - 3_600_000)),
        ("2026-01-31T12:00Z", Since(NOW_MS)),
    ],
)
def test_positions_are_read(text: str, expected: object) -> None:
    assert parse_position(text, now_ms=NOW_MS) == expected


@pytest.mark.parametrize("text", ["", "middle", "1.5", "@", "--1", str(2**63)])
def test_what_is_no_position_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_position(text, now_ms=NOW_MS)


def test_positions_are_placed_in_a_partition() -> None:
    def placed(text: str, since: int | None = None) -> int:
        return place(parse_position(text, now_ms=NOW_MS), start=100, end=200, since=since)

    assert placed("start") == 100
    assert placed("end") == 200
    assert placed("150") == 150
    assert placed("-10") == 190
    assert placed("-500") == 100  # Not before what is kept.
    assert placed("@0", since=120) == 120
    assert placed("@0") == 200  # No record is that young.


def test_partitions_are_read() -> None:
    assert parse_partitions("0,2-4, 3") == (0, 2, 3, 4)
    assert parse_topic_partitions("orders") == ("orders", None)
    assert parse_topic_partitions("orders:1") == ("orders", (1,))
    for wrong in ("", "a", "1-", "-1"):
        with pytest.raises(InvalidRequest):
            parse_partitions(wrong)


def test_amounts_are_shown_as_they_were_set() -> None:
    assert [amount_text(number) for number in (None, 10485760.0, 12.5, 0)] == ["-", "10,485,760", "12.5", "0"]


def test_people_get_times_to_the_second() -> None:
    assert to_the_second("2026-01-31T12:00:00.123Z") == "2026-01-31T12:00:00Z"
    assert to_the_second(None) == "-"


@pytest.mark.parametrize(
    ("duration_ms", "text"),
    [
        (None, "-"), (0, "0 ms"), (350, "350 ms"), (12_400, "12 s"), (200_000, "3 m 20 s"), (3_600_000, "1 h"),
        (7_500_000, "2 h 5 m"), (86_460_000, "1 d"), (97_200_000, "1 d 3 h"),
    ],
)  # fmt: skip
def test_durations_are_written_in_two_units(duration_ms: int | None, text: str) -> None:
    assert duration_text(duration_ms) == text
