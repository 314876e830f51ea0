"""Records as text: format strings in the manner of kcat, and one JSON document per record.

    %t topic   %p partition   %o offset   %T timestamp in ms   %D timestamp as ISO 8601
    %k key     %K its size    %v or %s value   %S its size (-1: null)   %R its size as 4 big-endian bytes
    %h headers as name=value,…   %% a percent sign   \\n \\t \\r \\0 \\xHH \\\\ characters

A template is compiled once to a list of functions from a record to bytes.
"""

from __future__ import annotations

import base64
import json
import re
import struct
from collections.abc import Callable

from penstock.base.dataclasses import dataclass
from penstock.base.errors import InvalidRequest
from penstock.cli.text_formats.times import iso


@dataclass(frozen=True, slots=True)
class ShownRecord:
    """One record as read from a partition."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()


Piece = Callable[[ShownRecord], bytes]


def as_bytes(text: str) -> bytes:
    """What stands for a text: of one that was none, what it was read from."""
    return text.encode("utf-8", "surrogateescape")


def as_text(data: bytes) -> str:
    """A text that `as_bytes` makes the same bytes of, whatever they are."""
    return data.decode("utf-8", "surrogateescape")


_FIELDS: dict[str, Piece] = {
    "t": lambda record: record.topic.encode(),
    "p": lambda record: b"%d" % record.partition,
    "o": lambda record: b"%d" % record.offset,
    "T": lambda record: b"%d" % record.timestamp_ms,
    "D": lambda record: (iso(record.timestamp_ms) or "-").encode(),
    "k": lambda record: record.key or b"",
    "K": lambda record: b"%d" % (-1 if record.key is None else len(record.key)),
    "v": lambda record: record.value or b"",
    "s": lambda record: record.value or b"",
    "S": lambda record: b"%d" % (-1 if record.value is None else len(record.value)),
    "R": lambda record: struct.pack(">i", -1 if record.value is None else len(record.value)),
    "h": lambda record: b",".join(as_bytes(name) + b"=" + (value or b"") for name, value in record.headers),
}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", "\\": "\\", "a": "\a", "e": "\x1b"}
_TOKEN = re.compile(r"%(.)|%\Z|\\x([0-9A-Fa-f]{2})|\\(.)|([^%\\]+|\\\Z)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Literal:
    """Bytes that stand for themselves."""

    text: bytes


@dataclass(frozen=True, slots=True)
class Field:
    """One `%x`."""

    letter: str


def parse_template(template: str, *, letters: str) -> list[Literal | Field]:
    """Split a template into literals and fields; neighbouring literals are joined."""
    tokens: list[Literal | Field] = []
    for match in _TOKEN.finditer(template):
        letter, hexadecimal, escape, text = match.groups()
        if letter is not None and letter != "%":
            if letter not in letters:
                known = " ".join(f"%{known}" for known in letters)
                raise InvalidRequest(f"%{letter} is not a field of a format string; known are {known} and %%")
            tokens.append(Field(letter))
            continue
        literal = _literal(letter, hexadecimal, escape, text)
        last = tokens[-1] if tokens else None
        if isinstance(last, Literal):
            tokens[-1] = Literal(last.text + literal)
        else:
            tokens.append(Literal(literal))
    return tokens


def _literal(percent: str | None, hexadecimal: str | None, escape: str | None, text: str | None) -> bytes:
    if percent is not None:
        return b"%"
    if hexadecimal is not None:
        return bytes.fromhex(hexadecimal)
    if escape is not None:
        return as_bytes(_ESCAPES.get(escape, "\\" + escape))
    if text is None:
        raise InvalidRequest("the format string ends in a lone %; write %% for a percent sign")
    return as_bytes(text)


def compile_format(template: str) -> Callable[[ShownRecord], bytes]:
    """Make a function that prints a record by a template."""
    pieces = [
        (lambda record, text=token.text: text) if isinstance(token, Literal) else _FIELDS[token.letter]
        for token in parse_template(template, letters="".join(_FIELDS))
    ]
    return lambda record: b"".join([piece(record) for piece in pieces])


def to_document(record: ShownRecord) -> dict[str, object]:
    """A record as JSON would have it; what is not UTF-8 is base64 and says so beside it."""
    return {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": iso(record.timestamp_ms),
        **_text("key", record.key),
        **_text("value", record.value),
        "headers": [{**_text("name", as_bytes(name)), **_text("value", value)} for name, value in record.headers],
    }


def to_json(record: ShownRecord) -> bytes:
    """One line of JSON."""
    return json.dumps(to_document(record), ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _text(name: str, value: bytes | None) -> dict[str, object]:
    if value is None:
        return {name: None}
    try:
        return {name: value.decode()}
    except UnicodeDecodeError:
        return {name: base64.b64encode(value).decode("ascii"), f"{name}_encoding": "base64"}
