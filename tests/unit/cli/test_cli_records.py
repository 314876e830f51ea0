"""Format strings, both ways."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.base.errors import InvalidRequest
from penstock.cli.text_formats.input_records import (
    InputRecord,
    Splitter,
    json_splitter,
    parse_header,
    template_splitter,
)
from penstock.cli.text_formats.output_records import ShownRecord, as_text, compile_format, to_json

RECORD = ShownRecord(
    "orders", 3, 42, 1_769_860_800_123, b"user-1", b"hello", (("trace", b"abc"), ("empty", b""), ("null", None))
)
NULLS = ShownRecord("orders", 0, 0, -1, None, None)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("%t %p %o\\n", b"orders 3 42\n"),
        ("%k=%v", b"user-1=hello"),
        ("%s", b"hello"),
        ("%K/%S", b"6/5"),
        ("%R%s", b"\0\0\0\5hello"),
        ("%T|%D", b"1769860800123|2026-01-31T12:00:00.123Z"),
        ("%h", b"trace=abc,empty=,null="),
        ("100%%\\t\\x41\\\\", b"100%\tA\\"),
        ("\\q", b"\\q"),
        ("ünï", "ünï".encode()),
        ("trailing\\", b"trailing\\"),
        ("", b""),
    ],
)
def test_records_are_printed_by_template(template: str, expected: bytes) -> None:
    assert compile_format(template)(RECORD) == expected


def test_nulls_are_printed_as_nothing_and_size_minus_one() -> None:
    assert compile_format("[%k][%v]%K%S%R%D")(NULLS) == b"[][]-1-1\xff\xff\xff\xff-"


@pytest.mark.parametrize("template", ["%x", "%", "a%"])
def test_wrong_templates_are_refused(template: str) -> None:
    with pytest.raises(InvalidRequest, match="%"):
        compile_format(template)


def test_json_has_text_where_it_is_text() -> None:
    assert to_json(RECORD).decode() == (
        '{"topic":"orders","partition":3,"offset":42,"timestamp":"2026-01-31T12:00:00.123Z","key":"user-1",'
        '"value":"hello","headers":[{"name":"trace","value":"abc"},{"name":"empty","value":""},'
        '{"name":"null","value":null}]}\n'
    )


def test_json_has_base64_where_it_is_not() -> None:
    record = ShownRecord("t", 0, 0, -1, b"\xff", b"\0\xfe", (("h", b"\x80"),))
    assert json.loads(to_json(record)) == {
        "topic": "t",
        "partition": 0,
        "offset": 0,
        "timestamp": None,
        "key": "/w==",
        "key_encoding": "base64",
        "value": "AP4=",
        "value_encoding": "base64",
        "headers": [{"name": "h", "value": "gA==", "value_encoding": "base64"}],
    }


def parse(template: str, *chunks: bytes) -> list[InputRecord]:
    splitter = template_splitter(template)
    return [record for chunk in chunks for record in splitter.feed(chunk)] + list(splitter.finish())


def test_lines_are_values() -> None:
    assert [record.value for record in parse("%v\\n", b"a\nb", b"c\n\nd")] == [b"a", b"bc", b"", b"d"]


def test_keys_take_as_little_as_they_can() -> None:
    (record,) = parse("%k:%v\\n", b"user:1:hello\n")
    assert (record.key, record.value) == (b"user", b"1:hello")


def test_every_field_can_be_given() -> None:
    (record,) = parse("%p %T %h %k %v;", b"2 1000 a=1,b k v v;")
    assert record == InputRecord(
        key=b"k", value=b"v v", headers=(("a", b"1"), ("b", None)), timestamp_ms=1000, partition=2
    )


def test_the_separator_may_be_long_and_split_over_chunks() -> None:
    assert [record.value for record in parse("%v--\\n", b"a-", b"-\nb--", b"\n")] == [b"a", b"b"]


@pytest.mark.parametrize("template", ["", "\\n", "%v", "%k%v\\n", "%o\\n"])
def test_wrong_input_templates_are_refused(template: str) -> None:
    with pytest.raises(InvalidRequest):
        template_splitter(template)


@pytest.mark.parametrize(
    ("template", "data"), [("%k:%v\\n", b"no separator\n"), ("%p %v\\n", b"x y\n"), ("<%v>\\n", b"a>\n")]
)
def test_input_that_does_not_fit_is_shown(template: str, data: bytes) -> None:
    with pytest.raises(InvalidRequest, match="'"):
        parse(template, data)


NAMES = st.binary(max_size=5).map(as_text)


@given(st.binary(max_size=20), st.binary(max_size=20), st.lists(st.tuples(NAMES, st.binary(max_size=5))))
def test_json_reads_back_as_it_is_printed(key: bytes, value: bytes, headers: list[tuple[str, bytes]]) -> None:
    shown = ShownRecord("t", 0, 7, 1_000, key, value, tuple(headers))
    splitter = json_splitter()
    (record,) = splitter.feed(to_json(shown))
    assert record == InputRecord(key=key, value=value, headers=tuple(headers), timestamp_ms=1_000)


def test_json_values_may_be_objects() -> None:
    (record,) = json_splitter().feed(b'{"key":"k","value":{"a":[1, 2]}}\n')
    assert (record.key, record.value) == (b"k", b'{"a":[1,2]}')


@pytest.mark.parametrize(
    "line",
    [
        b"{\n", b"[1]\n", b"7\n", b"[" * 100_000 + b"\n", b'{"headers": [1]}\n', b'{"headers": {"a": 1}}\n',
        b'{"headers": 7}\n', b'{"value": "!", "value_encoding": "base64"}\n', b'{"value": "\\ud800"}\n',
    ],
)  # fmt: skip
def test_json_that_is_no_record_is_refused(line: bytes) -> None:
    with pytest.raises(InvalidRequest, match="JSON"):
        list(json_splitter().feed(line))


@pytest.mark.parametrize("line", [b'{"timestamp": 99999999999999999999}\n', b'{"timestamp": 1.5}\n'])
def test_times_that_are_none_are_refused(line: bytes) -> None:
    with pytest.raises(InvalidRequest, match="time"):
        list(json_splitter().feed(line))


@pytest.mark.parametrize(("template", "data"), [("%T\n", b"9223372036854775808\n"), ("%p\n", b"2147483648\n")])
def test_numbers_that_no_record_can_have_are_refused(template: str, data: bytes) -> None:
    with pytest.raises(InvalidRequest, match="larger than any"):
        parse(template, data)


def test_names_of_headers_that_are_no_text_come_back() -> None:
    (record,) = parse("%h\n", b"caf\xe9=1\n")
    shown = ShownRecord("t", 0, 0, 0, None, None, record.headers)
    assert compile_format("%h")(shown) == b"caf\xe9=1"
    assert json.loads(to_json(shown))["headers"] == [{"name": "Y2Fm6Q==", "name_encoding": "base64", "value": "1"}]


def test_a_record_in_many_pieces_is_looked_through_once() -> None:
    """A minute's work if not, for a record of 64 MiB that comes as a pipe gives it."""
    splitter, piece = template_splitter("%v--\n"), b"-" * 65_536
    began = time.process_time()
    for _ in range(1_024):
        assert list(splitter.feed(piece)) == []
    (record,) = splitter.feed(b"\n")
    assert len(record.value or b"") == 1_024 * 65_536 - 2
    assert time.process_time() - began < 2


def test_a_record_without_an_end_is_not_collected_for_ever() -> None:
    splitter = Splitter(b"\n", lambda line: InputRecord(value=line), largest_bytes=1_000)
    assert list(splitter.feed(bytes(1_000))) == []
    with pytest.raises(InvalidRequest, match="larger than"):
        splitter.feed(b"x")


def test_headers_are_read() -> None:
    assert parse_header("a=b=c") == ("a", b"b=c")
    assert parse_header("a") == ("a", None)
    with pytest.raises(InvalidRequest):
        parse_header("=b")


def test_a_line_of_another_format_is_shown_beside_it() -> None:
    with pytest.raises(InvalidRequest) as refused:
        list(template_splitter("%k:%v\\n").feed(b"a:1\nb:2\na1\n"))
    assert str(refused.value) == r"record 3: this input does not look like '%k:%v\n': 'a1'"
