"""The report as Markdown. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from benchmarks.figures import FIGURES, significant
from benchmarks.model import RowResult, Target, Variant
from benchmarks.summary import Spread, Verdict, judge, spread

from .store import Measurement

HEAD = """# Results

Written by `python -m benchmarks`; how each figure is taken and what to distrust is in [README.md](README.md).
Medians, with the lowest and the highest run in brackets. CPU is the server's, user and system, by the operating
system's accounting. A ratio is of medians of the same interleaved runs. Runs in which the rest of the machine was
busy were repeated; where none was quiet the figure is marked `~`.

![Reached against demanded](results.png)
"""


def render(measurements: Sequence[Measurement], notes: str) -> str:
    """The whole report."""
    parts = [HEAD, "## Targets", _targets(measurements), "## Figures", _figures(measurements)]
    failures = [failure for each in measurements for failure in _failures(each)]
    if failures:
        parts += ["## Not measured", "\n".join(failures)]
    parts += ["## Circumstances", _circumstances(measurements)]
    if notes:
        parts.append(notes.strip())
    return "\n\n".join(part.strip() for part in parts) + "\n"


def demand(target: Target) -> str:
    """A target in words: `≥ 1.5 x Kafka` or `≤ 3.00 s`."""
    if target.reference is None:
        return f"{target.goal.value} {FIGURES[target.figure].write(target.bound)}"
    return f"{target.goal.value} {significant(target.bound)} x {target.reference.title}"


def verdicts(result: RowResult) -> list[tuple[Target, Verdict | None]]:
    return [(target, judge(result.runs, target)) for target in result.row.targets]


def cell(result: RowResult, variant: Variant, figure: str) -> str:
    """`median [low .. high] unit`, or a dash."""
    found = spread(result.runs, variant, figure)
    return "–" if found is None else _spread(found, figure)


def _spread(found: Spread, figure: str) -> str:
    unit, factor = FIGURES[figure].unit, FIGURES[figure].factor
    middle, low, high = (significant(value * factor) for value in (found.median, found.low, found.high))
    mark = "~ " if found.noisy else ""
    return f"{mark}{middle} [{low} .. {high}] {unit}"


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = ["---"] * len(head)
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *lines))


def _targets(measurements: Sequence[Measurement]) -> str:
    head = ("work", "figure", "compared with", "measured", "reached value", "target", "reached")
    lines = [
        _target_line(each.result, target, verdict) for each in measurements for target, verdict in verdicts(each.result)
    ]
    reached = sum(
        verdict is not None and verdict.reached for each in measurements for _, verdict in verdicts(each.result)
    )
    return f"{reached} of {len(lines)} targets are reached.\n\n{_table(head, lines)}"


def _target_line(result: RowResult, target: Target, verdict: Verdict | None) -> tuple[str, ...]:
    reference = "–"
    if target.reference is not None:
        reference = f"{target.reference.title}: {cell(result, target.reference, target.figure)}"
    measured = f"{target.subject.title}: {cell(result, target.subject, target.figure)}"
    title = FIGURES[target.figure].title
    if verdict is None:
        return result.row.title, title, reference, measured, "–", demand(target), "not measured"
    value = f"{significant(verdict.value)} x" if target.reference else FIGURES[target.figure].write(verdict.value)
    return result.row.title, title, reference, measured, value, demand(target), "yes" if verdict.reached else "**no**"


def _figures(measurements: Sequence[Measurement]) -> str:
    """A table for all rows of the same variants, so that none has a column that says nothing."""
    alike: dict[tuple[Variant, ...], list[RowResult]] = {}
    for each in measurements:
        variants = tuple(variant for variant in Variant if _has(each.result, variant))
        alike.setdefault(variants, []).append(each.result)
    return "\n\n".join(_figures_of(results, variants) for variants, results in alike.items() if variants)


def _has(result: RowResult, variant: Variant) -> bool:
    return any(spread(result.runs, variant, figure) is not None for figure in result.row.shown)


def _figures_of(results: Sequence[RowResult], variants: Sequence[Variant]) -> str:
    head = ("work", "figure", *(variant.title for variant in variants))
    lines = [
        (result.row.title, FIGURES[figure].title, *(cell(result, variant, figure) for variant in variants))
        for result in results
        for figure in result.row.shown
    ]
    return _table(head, lines)


def _failures(measurement: Measurement) -> list[str]:
    title = measurement.result.row.title
    return [f"- {title}: {' '.join(failure.split())[:400]}" for failure in measurement.result.failures]


def _circumstances(measurements: Sequence[Measurement]) -> str:
    head = (
        "work",
        "when (UTC)",
        "commit",
        "scale, repeats",
        "others' CPU, cores (median, worst)",
        "speed of the processors, by variant",
        "fsync p50, p99; synced writes of 512 KiB",
    )
    lines = [_circumstance(each) for each in measurements]
    machines = {_machine(each) for each in measurements}
    return "\n".join(f"- {machine}" for machine in sorted(machines)) + "\n\n" + _table(head, lines)


def _circumstance(measurement: Measurement) -> tuple[str, ...]:
    about, runs = measurement.circumstances, measurement.result.runs
    noise = sorted(run.others_cores for run in runs) or [0.0]
    commit = f"{about['commit']}{' + changes' if about['modified'] == 'yes' else ''}"
    syncs = f"{about['fsync_p50_ms']} ms, {about['fsync_p99_ms']} ms"
    if "synced_mb_per_s" in about:
        syncs += f"; {about['synced_mb_per_s']} MB/s"
    repeats = max((run.repeat for run in runs), default=-1) + 1
    loudness = f"{noise[len(noise) // 2]:.2f}, {noise[-1]:.2f}"
    scale, speeds = f"{about['scale']}, {repeats}", _speeds(measurement.result)
    return measurement.result.row.title, measurement.at, commit, scale, loudness, speeds, syncs


def _speeds(result: RowResult) -> str:
    """The median of each variant: a ratio says less the more these differ."""
    speeds = {variant: [run.speed for run in result.runs if run.variant is variant] for variant in result.row.variants}
    known = {variant: [speed for speed in found if speed is not None] for variant, found in speeds.items()}
    return ", ".join(f"{median(found):.2f}" for found in known.values() if found) or "–"


def _machine(measurement: Measurement) -> str:
    about = measurement.circumstances
    return (
        f"{about['cpu']}, {about['cores']} cores, {about['memory_gib']} GiB, Linux {about['kernel']}, "
        f"Python {about['python']}, Kafka {about['kafka']} on Java {about['java']}, client {about['go']}"
    )
