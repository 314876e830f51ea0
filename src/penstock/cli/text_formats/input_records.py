"""Bytes of standard input as records to produce: split by a template such as `%k:%v\\n`, or read as lines of JSON.

A template ends in a literal, which separates records, and has a literal between any two fields; each field takes as
little as it can. The last record need not be terminated. JSON lines are those `consume -o json` prints, so one
topic's output is another's input.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise

from penstock.base.dataclasses import dataclass, field
from penstock.base.errors import InvalidRequest
from penstock.cli.text_formats.output_records import Field, Literal, as_bytes, as_text, parse_template
from penstock.cli.text_formats.times import parse_time_ms

Headers = tuple[tuple[str, bytes | None], ...]

LARGEST_BYTES = 256 * 1024 * 1024
"""Of a record: no broker takes a larger one."""
_LARGEST_TIMESTAMP, _LARGEST_PARTITION = 2**63 - 1, 2**31 - 1
_LOOKS_LIKE = "write objects with key, value and headers, as consume -o json prints them"


@dataclass(frozen=True, slots=True, kw_only=True)
class InputRecord:
    """One record to produce; None leaves the choice to the producer."""

    key: bytes | None = None
    value: bytes | None = None
    headers: Headers = ()
    timestamp_ms: int | None = None
    partition: int | None = None


@dataclass(slots=True)
class Splitter:
    """Turns a stream of bytes into records, keeping what is not yet complete.

    Raises `InvalidRequest` with the number of the record that cannot be read, counted from 1.
    """

    delimiter: bytes
    parse: Callable[[bytes], InputRecord]
    largest_bytes: int = LARGEST_BYTES
    _rest: bytearray = field(default_factory=bytearray, init=False)
    _count: int = field(default=0, init=False)

    def feed(self, data: bytes) -> Iterator[InputRecord]:
        """Records that are complete now."""
        rest = self._rest
        seen = max(0, len(rest) - len(self.delimiter) + 1)  # Before that there is none.
        rest += data
        whole: list[bytes] = []
        if rest.find(self.delimiter, seen) >= 0:
            *whole, left = bytes(rest).split(self.delimiter)
            self._rest = bytearray(left)
        if len(self._rest) > self.largest_bytes:
            raise InvalidRequest(
                f"a record is larger than {self.largest_bytes:,} bytes. Is {self.delimiter!r} what separates them?"
            )
        return self._parsed(whole)

    def finish(self) -> Iterator[InputRecord]:
        """The last record, if the input did not end in a delimiter."""
        rest, self._rest = bytes(self._rest), bytearray()
        return self._parsed([rest] if rest else [])

    def _parsed(self, records: list[bytes]) -> Iterator[InputRecord]:
        for record in records:
            self._count += 1
            try:
                yield self.parse(record)
            except InvalidRequest as error:
                raise InvalidRequest(f"record {self._count}: {error}") from error


def template_splitter(template: str) -> Splitter:
    """Records by a format string."""
    tokens = parse_template(template, letters="kvsTph")
    if not any(isinstance(token, Field) for token in tokens):
        raise InvalidRequest(f"'{template}' has no field; write something like '%k:%v\\n'")
    last = tokens[-1]
    if not isinstance(last, Literal):
        raise InvalidRequest(f"'{template}' must end in what separates records, usually \\n")
    inner = tokens[:-1]
    for first, second in pairwise(inner):
        if isinstance(first, Field) and isinstance(second, Field):
            raise InvalidRequest(f"%{first.letter}%{second.letter} cannot be told apart; put something between them")
    return Splitter(last.text, lambda line: _parse_line(line, inner, template))


def json_splitter() -> Splitter:
    """Records as lines of JSON."""
    return Splitter(b"\n", _parse_json)


def _parse_line(line: bytes, tokens: list[Literal | Field], template: str) -> InputRecord:
    fields: dict[str, bytes] = {}
    position = 0
    for index, token in enumerate(tokens):
        if isinstance(token, Literal):
            if not line.startswith(token.text, position):
                raise _mismatch(line, template)
            position += len(token.text)
            continue
        following = tokens[index + 1] if index + 1 < len(tokens) else None
        end = line.find(following.text, position) if isinstance(following, Literal) else len(line)
        if end < 0:
            raise _mismatch(line, template)
        fields[token.letter] = line[position:end]
        position = end
    if position != len(line):
        raise _mismatch(line, template)
    return _from_fields(fields)


def _mismatch(line: bytes, template: str) -> InvalidRequest:
    shown = line[:60].decode("utf-8", "replace") + ("…" if len(line) > 60 else "")
    return InvalidRequest(f"this input does not look like '{template}': {shown!r}")


def _from_fields(fields: Mapping[str, bytes]) -> InputRecord:
    return InputRecord(
        key=fields.get("k"),
        value=fields.get("v", fields.get("s")),
        headers=tuple(parse_header(as_text(part)) for part in fields.get("h", b"").split(b",") if part),
        timestamp_ms=_number("timestamp", fields["T"], _LARGEST_TIMESTAMP) if "T" in fields else None,
        partition=_number("partition", fields["p"], _LARGEST_PARTITION) if "p" in fields else None,
    )


def _number(name: str, text: bytes, largest: int) -> int:
    shown = text[:60].decode("utf-8", "replace")
    try:
        number = int(text)
    except ValueError as error:
        raise InvalidRequest(f"{shown!r} is not a {name}") from error
    if abs(number) > largest:
        raise InvalidRequest(f"{shown!r} is larger than any {name}")
    return number


def parse_header(text: str) -> tuple[str, bytes | None]:
    """Read `name=value`; `name` alone is a header whose value is null."""
    name, equals, value = text.partition("=")
    if not name:
        raise InvalidRequest(f"{text!r} is not a header; write name=value")
    return name, as_bytes(value) if equals else None


def _parse_json(line: bytes) -> InputRecord:
    try:
        document = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"this input is not a line of JSON: {_start_of(line)}") from error
    if not isinstance(document, dict):
        raise InvalidRequest(f"this line of JSON is not a record; {_LOOKS_LIKE}: {_start_of(line)}")
    timestamp = document.get("timestamp")
    try:
        return InputRecord(
            key=_bytes("key", document),
            value=_bytes("value", document),
            headers=tuple(map(_header, document.get("headers") or ())),
            timestamp_ms=None if timestamp is None else parse_time_ms(str(timestamp), now_ms=0),
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:  # Of all the shapes that JSON can have.
        raise InvalidRequest(f"this line of JSON is not a record; {_LOOKS_LIKE}: {_start_of(line)}") from error


def _start_of(line: bytes) -> str:
    return repr(line[:60].decode("utf-8", "replace"))


def _header(header: Mapping[str, object]) -> tuple[str, bytes | None]:
    return as_text(_bytes("name", header) or b""), _bytes("value", header)


def _bytes(name: str, document: Mapping[str, object]) -> bytes | None:
    value = document.get(name)
    if value is None:
        return None
    if document.get(f"{name}_encoding") == "base64":
        return base64.b64decode(str(value), validate=True)
    if isinstance(value, str):
        return value.encode()
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
