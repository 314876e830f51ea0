"""Running rows: variants in turn, repeat after repeat, and again where the machine was not quiet."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from benchmarks.bench import Bench
from benchmarks.figures import FIGURES
from benchmarks.model import Conditions, Figures, Row, RowResult, Run, Variant
from benchmarks.processes import BenchmarkError


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How often a row is measured, and what noise makes a run worth repeating."""

    repeats: int
    attempts: int
    noise_limit_cores: float


def in_running_order(rows: Sequence[Row]) -> list[Row]:
    """Rows that compare the same servers one after the other, so that few servers are started and warmed."""
    seen = list(dict.fromkeys(row.variants for row in rows))
    return sorted(rows, key=lambda row: seen.index(row.variants))


def run_rows(bench: Bench, rows: Iterable[Row], rules: Rules, note: Callable[[str], None]) -> Iterator[RowResult]:
    """Measure row after row; each result is yielded as soon as it is there."""
    for row in rows:
        note(f"{row.name}: {row.title}")
        bench.fleet.keep_only(set(row.variants))
        yield _run_row(bench, row, rules, note)


def _run_row(bench: Bench, row: Row, rules: Rules, note: Callable[[str], None]) -> RowResult:
    runs: list[Run] = []
    failures: list[str] = []
    broken: set[Variant] = set()
    for repeat in range(rules.repeats):
        for variant in row.variants:
            if variant in broken:
                continue
            begun = time.monotonic()
            try:
                run = _quietest(bench, row, variant, repeat, rules)
            except BenchmarkError as error:
                # One variant that cannot do the work does not spoil the others' figures.
                failures.append(f"{variant.title}: {error}")
                broken.add(variant)
                bench.fleet.discard(variant)
                note(f"  {variant.title}: FAILED: {error}")
                continue
            runs.append(run)
            note(f"  {_describe(row, run)}  ({time.monotonic() - begun:.0f} s)")
    return RowResult(row=row, runs=tuple(runs), failures=tuple(failures))


def _quietest(bench: Bench, row: Row, variant: Variant, repeat: int, rules: Rules) -> Run:
    """Measure until a run was quiet; of none but noisy ones keep the least noisy, marked."""
    best: Run | None = None
    for attempt in range(1, rules.attempts + 1):
        bench.conditions()
        figures = row.measure(bench, variant)
        run = _run(variant, repeat, attempt, bench.conditions(), figures, rules)
        if not run.noisy:
            return run
        if best is None or run.others_cores < best.others_cores:
            best = run
    assert best is not None
    return best


def _run(variant: Variant, repeat: int, attempt: int, conditions: Conditions, figures: Figures, rules: Rules) -> Run:
    return Run(
        variant=variant,
        repeat=repeat,
        attempts=attempt,
        others_cores=conditions.others_cores,
        speed=conditions.speed,
        noisy=conditions.others_cores > rules.noise_limit_cores,
        figures=figures,
    )


def _describe(row: Row, run: Run) -> str:
    shown = (f"{FIGURES[name].title} {FIGURES[name].write(run.figures[name])}" for name in row.shown)
    noise = f"others {run.others_cores:.2f} cores{', NOISY' if run.noisy else ''}; speed {run.speed or 1:.2f}"
    return f"{run.variant.title:<28} {'; '.join(shown)}; {noise}"


def to_terminal(line: str) -> None:
    """Progress goes to standard error, so that standard output is the result's alone."""
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)
