"""All sequences at both brokers, and what came of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from .brokers import Addresses, both, install_kafka
from .generated import generated
from .judging import Declared, Difference, declared, differences
from .running import Answer, Run
from .sequences import Sequence_, load

BESIDE_EACH_OTHER = 8
BEFORE_NOW_MS = 3_600_000
"""Record timestamps count from an hour ago, so that they cannot be taken for the clock's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What one sequence showed."""

    sequence: Sequence_
    undeclared: list[Difference] = field(default_factory=list)
    declared: list[tuple[Difference, Declared]] = field(default_factory=list)
    failure: str | None = None

    @property
    def passed(self) -> bool:
        return not self.undeclared and self.failure is None

    def __str__(self) -> str:
        return self.failure or "\n".join(map(str, self.undeclared))


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A whole run."""

    verdicts: Sequence[Verdict]
    entries: Sequence[Declared]

    def occurrences(self, entry: Declared) -> list[Difference]:
        """Where a declared difference was seen."""
        return [seen for verdict in self.verdicts for seen, known in verdict.declared if known is entry]

    @property
    def stale(self) -> list[Declared]:
        """Declared, and not seen any more."""
        return [entry for entry in self.entries if not self.occurrences(entry)]


def every_sequence() -> list[Sequence_]:
    """Those of the files and those of every version; those that need a broker for themselves first."""
    sequences = [*generated(), *load()]
    titles = [sequence.title for sequence in sequences]
    assert len(set(titles)) == len(titles), "two sequences have one name"
    return sorted(sequences, key=lambda sequence: not sequence.alone)


def compare(
    directory: Path, sequences: Sequence[Sequence_], progress: Callable[[Verdict], None] = lambda _: None
) -> Comparison:
    """Run these sequences at both brokers, which are started in `directory`."""
    install_kafka()
    entries = declared()
    now_ms = int(time.time() * 1000) - BEFORE_NOW_MS
    with both(directory) as (kafka, penstock), ThreadPoolExecutor(2 * BESIDE_EACH_OTHER) as threads:

        def judge(sequence: Sequence_) -> Verdict:
            theirs = threads.submit(_run, kafka, sequence, now_ms, reencode=True)
            ours = _run(penstock, sequence, now_ms)
            verdict = _verdict(sequence, theirs.result(), ours, entries)
            progress(verdict)
            return verdict

        first = [judge(sequence) for sequence in sequences if sequence.alone]
        with ThreadPoolExecutor(BESIDE_EACH_OTHER) as judges:
            rest = list(judges.map(judge, [sequence for sequence in sequences if not sequence.alone]))
    return Comparison(verdicts=[*first, *rest], entries=entries)


def _run(broker: Addresses, sequence: Sequence_, now_ms: int, *, reencode: bool = False) -> list[Answer] | str:
    """The answers, or why there are none."""
    try:
        return Run(broker, sequence, now_ms, reencode=reencode).answers()
    except Exception as problem:
        return f"{type(problem).__name__}: {problem}"


def _verdict(
    sequence: Sequence_, kafka: list[Answer] | str, penstock: list[Answer] | str, entries: Sequence[Declared]
) -> Verdict:
    if isinstance(kafka, str) or isinstance(penstock, str):
        both_said = {"Kafka": kafka, "Penstock": penstock}
        broken = [f"{name}: {said}" for name, said in both_said.items() if isinstance(said, str)]
        return Verdict(sequence=sequence, failure="could not be run; " + "; ".join(broken))
    undeclared, known = [], []
    for difference in differences(sequence, kafka, penstock):
        entry = next((entry for entry in entries if entry.covers(difference)), None)
        if entry is None:
            undeclared.append(difference)
        else:
            known.append((difference, entry))
    return Verdict(sequence=sequence, undeclared=undeclared, declared=known)
