"""Every result in every format, to the letter."""

from __future__ import annotations

import io
import json
import re

import pytest

from penstock.cli.errors import Failure
from penstock.cli.output import (
    WRAPPED_LEAST,
    Column,
    Details,
    Listing,
    Notice,
    Result,
    Section,
    emit,
    number,
)
from penstock.cli.text_formats.quantities import count_text, size_text

LISTING = Listing(
    rows=[
        {"name": "orders", "records": 1234567, "size_bytes": 2048, "replicas": [1, 2], "internal": False},
        {"name": "länger", "records": None, "size_bytes": None, "replicas": [], "internal": True},
    ],
    columns=[
        Column("name", "topic"),
        number("records", show=count_text),
        number("size_bytes", "size", size_text),
        Column("replicas"),
        Column("internal"),
    ],
    empty="No topics.",
)
DETAILS = Details(
    document={"name": "orders", "size_bytes": 5, "partitions": [{"partition": 0}, {"partition": 10}], "configs": []},
    fields=[Column("name", "topic"), Column("size_bytes", "size", size_text)],
    sections=[
        Section(key="partitions", title="", columns=[number("partition")]),
        Section(key="configs", title="Settings", columns=[Column("name")], empty="All default."),
    ],
    footer="That is all.",
)
NOTICE = Notice(document={"name": "orders", "changed": True}, sentence="orders was changed.")


def rendered(result: Result, output_format: str) -> str:
    stream = io.StringIO()
    emit(result, output_format, stream)
    return stream.getvalue()


def test_a_listing_is_aligned() -> None:
    assert rendered(LISTING, "table") == (
        "TOPIC     RECORDS     SIZE  REPLICAS  INTERNAL\n"
        "orders  1,234,567  2.0 KiB  1,2       no\n"
        "länger          -        -  -         yes\n"
    )


def test_an_empty_listing_says_so_to_people_only() -> None:
    empty = Listing(rows=[], columns=LISTING.columns, empty="No topics.")
    assert rendered(empty, "table") == "No topics.\n"
    assert rendered(empty, "json") == "[]\n"
    assert rendered(empty, "yaml") == "[]\n"


def test_machines_get_raw_values() -> None:
    assert json.loads(rendered(LISTING, "json")) == LISTING.document
    assert rendered(NOTICE, "json") == '{\n  "name": "orders",\n  "changed": true\n}\n'
    assert rendered(NOTICE, "yaml") == "name: orders\nchanged: true\n"


def test_details_are_fields_then_lists() -> None:
    assert rendered(DETAILS, "table") == (
        "topic  orders\nsize   5 B\n\nPARTITION\n        0\n       10\n\nSettings\nAll default.\n\nThat is all.\n"
    )


def test_a_notice_is_a_sentence() -> None:
    assert rendered(NOTICE, "table") == "orders was changed.\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_terminals_get_colours_unless_they_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    coloured, refused = Terminal(), Terminal()
    emit(LISTING, "table", coloured)
    monkeypatch.setenv("NO_COLOR", "1")
    emit(LISTING, "table", refused)
    assert "\x1b[" in coloured.getvalue()
    assert "orders" in coloured.getvalue()
    assert "\x1b[" not in refused.getvalue()


EVIL = "a\x1b]0;owned\x07\r\nb\x9b2J"


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_names_that_clients_choose_do_not_command_a_terminal(
    stream: type[io.StringIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    listing = Listing(rows=[{"group": EVIL}], columns=[Column("group")], empty="")
    details = Details(document={"group": EVIL}, fields=[Column("group")])
    for result in (listing, details):
        out = stream()
        emit(result, "table", out)
        assert "a?]0;owned???b?2J" in out.getvalue()


WIDE = Listing(
    rows=[
        {"name": "a-name-of-some-length", "what": "so many words that they cannot be in one line", "note": None},
        {"name": "b", "what": "few", "note": ""},
    ],
    columns=[Column("name"), Column("what", wraps=True), Column("note", is_extra=True)],
    empty="None.",
)


@pytest.mark.parametrize("width", [60, 30])
def test_a_narrow_terminal_breaks_sentences_and_no_names(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    emit(WIDE, "table", stream)
    lines = [re.sub(r"\x1b\[[\d;]*m", "", line).rstrip() for line in stream.getvalue().splitlines()]
    assert lines[0].split() == ["Name", "What"], "nobody has a note"
    assert lines[2].startswith("a-name-of-some-length  so many words")
    assert len(lines) > 4, "the sentence takes several lines"
    assert max(map(len, lines)) <= max(width, len("a-name-of-some-length") + 2 + WRAPPED_LEAST)


def test_a_column_that_nobody_has_is_left_out_for_people_only() -> None:
    assert rendered(WIDE, "table").splitlines()[0].split() == ["NAME", "WHAT"]
    assert json.loads(rendered(WIDE, "json"))[0]["note"] is None


REMARKS = Listing(
    rows=[{"name": "clock", "found": "not synchronised", "change": "Turn on a time service, such as chrony"},
          {"name": "disk", "found": "ext4", "change": None}],
    columns=[Column("name", "check"), Column("found", wraps=True), Column("change", is_below=True)],
    empty="",
)  # fmt: skip


def test_a_remark_is_below_its_row() -> None:
    assert rendered(REMARKS, "table") == (
        "CHECK  FOUND\n"
        "clock  not synchronised\n"
        "       → Turn on a time service, such as chrony\n"
        "disk   ext4\n"
    )  # fmt: skip
    assert json.loads(rendered(REMARKS, "json"))[0]["change"].startswith("Turn on")


@pytest.mark.parametrize(("environment", "begin"), [({}, "\x1b[31m"), ({"NO_COLOR": "1"}, "error: ")])
def test_errors_have_colours_where_results_have_them(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], begin: str
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    stream = Terminal()
    Failure("no").show(stream)
    assert stream.getvalue().startswith(begin)


def test_json_is_whole_where_the_locale_has_not_all_letters() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    emit(Notice(document={"name": "€"}, sentence=""), "json", stream)
    stream.seek(0)
    assert json.loads(stream.read()) == {"name": "€"}
