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
LOWEST, HIGHEST = 0.05, 20.0


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
    axes.barh(positions, shown, color=[REACHED if yes else MISSED for yes in reached])
    axes.set_yticks(positions, labels, fontsize=8)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlim(LOWEST, HIGHEST * 1.6)
    axes.axvline(1.0, color="black", linewidth=1)
    for position, (score, width) in enumerate(zip(scores, shown, strict=True)):
        axes.text(width * 1.03, position, _amount(score), va="center", fontsize=8)
    axes.set_xlabel("times the target (1 = exactly reached, more is better)")
    axes.set_title("Penstock beside Apache Kafka on one machine", loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def _label(target: Target) -> str:
    subject = target.subject.title.removeprefix("Penstock, ")
    return f"{FIGURES[target.figure].title} {demand(target)} ({subject})"


def _amount(score: float) -> str:
    return f"> {significant(HIGHEST)}" if score > HIGHEST else significant(score)
