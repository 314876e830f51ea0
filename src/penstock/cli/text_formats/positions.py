"""Where in a log: `start`, `end`, an offset, so many records before the end, or the first record at or after a time.

start | end        the first offset kept | the offset the next record will get
42                 that offset
-10                ten offsets before the end, not before the start
@2026-01-31T12:00Z the first record at or after that time (also @milliseconds, and an age: @1h)
"""

from __future__ import annotations

import re

from penstock.base.dataclasses import dataclass
from penstock.base.errors import InvalidRequest
from penstock.cli.text_formats.times import parse_time_ms

LARGEST_OFFSET = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Start:
    """The first offset kept."""


@dataclass(frozen=True, slots=True)
class End:
    """The offset the next record will get."""


@dataclass(frozen=True, slots=True)
class At:
    """One offset."""

    offset: int


@dataclass(frozen=True, slots=True)
class BeforeEnd:
    """So many offsets before the end."""

    count: int


@dataclass(frozen=True, slots=True)
class Since:
    """The first record at or after a time; the end if there is none."""

    timestamp_ms: int


Position = Start | End | At | BeforeEnd | Since


def parse_position(text: str, *, now_ms: int) -> Position:
    """Read a position; a bare ISO 8601 time needs no `@`."""
    word = text.strip()
    match word.lower():
        case "start" | "beginning" | "earliest":
            return Start()
        case "end" | "latest":
            return End()
    if word.startswith("@"):
        return _since(word[1:], now_ms)
    if re.fullmatch(r"-?[0-9]+", word):
        number = int(word)
        if abs(number) > LARGEST_OFFSET:
            raise InvalidRequest(f"{text!r} is larger than any offset")
        return BeforeEnd(-number) if word.startswith("-") else At(number)
    if re.match(r"\d{4}-\d\d-\d\d", word):
        return _since(word, now_ms)
    raise InvalidRequest(f"{text!r} is not a position; write start, end, an offset, -N, or @TIME")


def _since(text: str, now_ms: int) -> Since:
    # Times before 1970 mean something else where offsets are asked for, and no record has one.
    return Since(max(0, parse_time_ms(text, now_ms=now_ms)))


def place(position: Position, *, start: int, end: int, since: int | None = None) -> int:
    """The offset a position means in a partition that keeps [start, end); `since` answers a time."""
    match position:
        case Start():
            return start
        case End():
            return end
        case At(offset):
            return offset
        case BeforeEnd(count):
            return max(start, end - count)
        case Since():
            return end if since is None else since


def parse_topic_partitions(text: str) -> tuple[str, tuple[int, ...] | None]:
    """Read `topic` or `topic:0,2-4`; None is every partition."""
    topic, colon, partitions = text.partition(":")
    if not topic:
        raise InvalidRequest(f"{text!r} names no topic; write TOPIC or TOPIC:PARTITIONS")
    return topic, parse_partitions(partitions) if colon else None


def parse_partitions(text: str) -> tuple[int, ...]:
    """Read `0`, `0,3`, `0-3,7`."""
    numbers: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,6})\s*(?:-\s*([0-9]{1,6})\s*)?", part)
        if match is None:
            raise InvalidRequest(f"{text!r} is not a list of partitions; write 0, 0,3 or 0-3")
        numbers.update(range(int(match[1]), int(match[2] or match[1]) + 1))
    return tuple(sorted(numbers))
