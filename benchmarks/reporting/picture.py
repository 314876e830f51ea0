"""The targets as bars: how many times each was reached, 1 being just so."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot

from benchmarks.figures import FIGURES, significant
from benchmarks.model import Target

from .store import Measurement
from .table import demand, verdicts

REACHED, MISSED = "#2a7f62", "#c8553d"
LOWEST, HIGHEST = 0.05, 20.0  # Beyond these a bar is cut and its number tells.


def draw(measurements: Sequence[Measurement], path: Path) -> None:
    """One bar per target on a logarithmic scale; longer is better, for rates and for costs alike."""
    bars = [
        (f"{each.result.row.name}: {_label(target)}", verdict.score, verdict.reached)
        for each in measurements
        for target, verdict in verdicts(each.result)
        if verdict is not None
    ]
    if not bars:
        return
    figure, axes = pyplot.subplots(figsize=(11, 1.5 + 0.32 * len(bars)), layout="constrained")
    labels, scores, reached = zip(*bars, strict=True)
    shown = [min(HIGHEST, max(LOWEST, score)) for score in scores]
    positions = range(len(bars))
    widths = [end - 1 for end in shown]
    axes.barh(positions, widths, left=1, color=[REACHED if yes else MISSED for yes in reached])
    axes.set_yticks(positions, labels, fontsize=8)
    axes.set_ylim(len(bars) - 0.4, -0.6)
    axes.set_xscale("log")
    axes.set_xlim(LOWEST / 1.6, HIGHEST * 1.6)
    axes.xaxis.set_major_formatter(lambda value, _: significant(value))
    axes.axvline(1.0, color="black", linewidth=1)
    for position, (score, end) in enumerate(zip(scores, shown, strict=True)):
        where, side = (end * 1.04, "left") if end >= 1 else (end * 0.96, "right")
        axes.text(where, position, _amount(score), ha=side, va="center", fontsize=8)
    axes.set_xlabel("times the target (1 = exactly reached, more is better)")
    axes.set_title("Penstock beside Apache Kafka on one machine", loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def _label(target: Target) -> str:
    subject = target.subject.title.removeprefix("Penstock, ")
    return f"{FIGURES[target.figure].title} {demand(target)} ({subject})"


def _amount(score: float) -> str:
    if score > HIGHEST:
        return f"> {significant(HIGHEST)}"
    return f"< {significant(LOWEST)}" if score < LOWEST else significant(score)
