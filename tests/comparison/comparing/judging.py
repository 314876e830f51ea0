"""Differences of two brokers' answers, and which of them are declared."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from .normalising import Flat
from .running import Answer
from .sequences import Sequence_

DECLARED = Path(__file__).resolve().parents[1] / "differences.yaml"
ABSENT, PRESENT, ANSWERED = "<absent>", "<present>", "answered"
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
    apis: tuple[str, ...]
    sequences: tuple[str, ...]
    fields: tuple[str, ...]
    kafka: Any
    penstock: Any
    reason: str
    shown: tuple[str, str] | None = None
    """What the page says of both sides, where the values themselves say little."""

    def covers(self, difference: Difference) -> bool:
        """Whether this is one of them."""
        return (
            any(_like(api, difference.step.partition(" ")[0]) for api in self.apis)
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
            apis=tuple(_list(words.get("api", ANYTHING))),
            sequences=tuple(_list(words.get("sequences", ANYTHING))),
            fields=tuple(_list(words.get("fields", ANYTHING))),
            kafka=words.get("kafka", ANYTHING),
            penstock=words.get("penstock", ANYTHING),
            reason=" ".join(words["reason"].split()),
            shown=tuple(words["shown"]) if "shown" in words else None,
        )
        for name, words in entries.items()
    ]


def differences(sequence: Sequence_, kafka: Sequence[Answer], penstock: Sequence[Answer]) -> Iterator[Difference]:
    """Field by field. An answer that only one of them gave is one difference, not one for each of its fields."""
    for number, (theirs, ours) in enumerate(zip(kafka, penstock, strict=True)):
        for path, left, right in _unlike(theirs.flat, ours.flat):
            yield Difference(
                sequence=sequence.title, step=theirs.step.title, number=number, path=path, kafka=left, penstock=right
            )


def _unlike(kafka: Flat, penstock: Flat) -> Iterator[tuple[str, Any, Any]]:
    """Paths and both values. An element of a list that one of them lacks is one difference, not each of its fields."""
    if "" in kafka or "" in penstock:
        left, right = kafka.get("", ANSWERED), penstock.get("", ANSWERED)
        if left != right:
            yield "", left, right
        return
    told: set[str] = set()
    for path in sorted({*kafka, *penstock}):
        left, right = kafka.get(path, ABSENT), penstock.get(path, ABSENT)
        if left == right and type(left) is type(right):
            continue
        if ABSENT in (left, right):
            other = kafka if left == ABSENT else penstock
            path = _missing(path, other)
            if path in told:
                continue
            told.add(path)
            if path.endswith("]"):
                left, right = (ABSENT if side == ABSENT else PRESENT for side in (left, right))
        elif path.endswith(".count") and _elements(kafka, path) != _elements(penstock, path):
            continue  # Told by the elements.
        yield path, left, right


def _missing(path: str, other: Flat) -> str:
    """The outermost element on the way to `path` that the other answer does not have; else the path itself."""
    for found in re.finditer(r"\]", path):
        element = path[: found.end()]
        if not any(known.startswith(element) for known in other):
            return element
    return path


def _elements(flat: Flat, count: str) -> set[str]:
    prefix = count.removesuffix(".count") + "["
    return {path[: path.index("]", len(prefix))] for path in flat if path.startswith(prefix)}


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
