"""Results on disk: one JSON file per day, in which a row measured again replaces itself.

The report shows each row by its newest measurement over all files, with the machine and the commit it was made with.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.model import Row, RowResult, Run, Variant

Document = dict[str, Any]  # what is parsed from JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """A row's result with the circumstances it belongs to."""

    at: str
    circumstances: Mapping[str, str | int | float]
    result: RowResult


def to_document(measurement: Measurement) -> Document:
    result = measurement.result
    return {
        "at": measurement.at,
        "circumstances": dict(measurement.circumstances),
        "title": result.row.title,
        "runs": [{**asdict(run), "variant": run.variant.value, "figures": dict(run.figures)} for run in result.runs],
        "failures": list(result.failures),
    }


def from_document(row: Row, document: Document) -> Measurement:
    runs = tuple(Run(**{**run, "variant": Variant(run["variant"])}) for run in document["runs"])
    result = RowResult(row=row, runs=runs, failures=tuple(document["failures"]))
    return Measurement(at=document["at"], circumstances=document["circumstances"], result=result)


def save(directory: Path, day: str, measurement: Measurement) -> Path:
    """Put one row into the day's file, replacing the file whole, so that a crash leaves the old one."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{day}.json"
    documents = _read(path)
    documents[measurement.result.row.name] = to_document(measurement)
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(documents, indent=1) + "\n")
    fresh.replace(path)
    return path


def newest(directory: Path, rows: tuple[Row, ...]) -> list[Measurement]:
    """The newest measurement of each row, in the order of the rows."""
    documents: dict[str, Document] = {}
    for path in sorted(directory.glob("*.json")):
        documents |= _read(path)
    return [from_document(row, documents[row.name]) for row in rows if row.name in documents]


def _read(path: Path) -> dict[str, Document]:
    if not path.exists():
        return {}
    documents: dict[str, Document] = json.loads(path.read_text())
    return documents
