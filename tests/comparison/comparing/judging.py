"""Differences of two brokers' answers, and which of them are declared."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from .running import Answer
from .sequences import Sequence_

DECLARED = Path(__file__).resolve().parents[1] / "differences.yaml"
ABSENT = "<absent>"
ANYTHING = "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One field of one answer that is not the same."""

    sequence: str
    step: str
    number: int
    path: str
    kafka: Any
    penstock: Any

    def __str__(self) -> str:
        where = f"{self.step} (step {self.number + 1})"
        return f"{where} {self.path or 'the answer'}: Kafka {self.kafka!r}, Penstock {self.penstock!r}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """A kind of difference that is known, and why it is so."""

    name: str
    api: str
    sequences: tuple[str, ...]
    fields: tuple[str, ...]
    kafka: Any
    penstock: Any
    reason: str

    def covers(self, difference: Difference) -> bool:
        """Whether this is one of them."""
        return (
            _like(self.api, difference.step.partition(" ")[0])
            and any(_like(pattern, difference.sequence) for pattern in self.sequences)
            and any(_like(pattern, difference.path) for pattern in self.fields)
            and _is(self.kafka, difference.kafka)
            and _is(self.penstock, difference.penstock)
        )


def declared() -> list[Declared]:
    """The file of declared differences."""
    entries = yaml.safe_load(DECLARED.read_text()) or {}
    return [
        Declared(
            name=name,
            api=words.get("api", ANYTHING),
            sequences=tuple(_list(words.get("sequences", ANYTHING))),
            fields=tuple(_list(words.get("fields", ANYTHING))),
            kafka=words.get("kafka", ANYTHING),
            penstock=words.get("penstock", ANYTHING),
            reason=" ".join(words["reason"].split()),
        )
        for name, words in entries.items()
    ]


def differences(sequence: Sequence_, kafka: Sequence[Answer], penstock: Sequence[Answer]) -> Iterator[Difference]:
    """Field by field. An answer that only one of them gave is one difference, not one for each of its fields."""
    for number, (theirs, ours) in enumerate(zip(kafka, penstock, strict=True)):
        paths = {*theirs.flat, *ours.flat}
        if "" in paths and theirs.flat != ours.flat:
            paths = {""}
        for path in sorted(paths):
            left, right = theirs.flat.get(path, ABSENT), ours.flat.get(path, ABSENT)
            if path == "":
                left, right = theirs.flat.get("", "answered"), ours.flat.get("", "answered")
            if left != right or type(left) is not type(right):
                yield Difference(
                    sequence=sequence.title, step=theirs.step.title, number=number, path=path, kafka=left, penstock=right
                )


def _list(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


@cache
def _pattern(glob: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, glob.split("*"))))


def _like(glob: str, text: str) -> bool:
    return _pattern(glob).fullmatch(text) is not None


def _is(wanted: Any, value: Any) -> bool:
    if isinstance(wanted, list):
        return any(_is(one, value) for one in wanted)
    if isinstance(wanted, str) and isinstance(value, str):
        return _like(wanted, value)
    return wanted == ANYTHING or (wanted == value and type(wanted) is type(value))
