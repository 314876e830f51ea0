"""From runs to medians and verdicts. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.model import Goal, Run, Target, Variant


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """The median of a figure and how far its runs lay apart."""

    median: float
    low: float
    high: float
    runs: int
    noisy: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A target against what was measured. `value` is the ratio to the reference, or the figure itself."""

    target: Target
    value: float
    reached: bool

    @property
    def score(self) -> float:
        """1 is exactly the target, 2 twice as good as demanded."""
        return score(self.target, self.value)


MAX_SCORE = 1000.0


def counted(runs: Iterable[Run], variant: Variant) -> list[Run]:
    """The quiet runs of a variant; all of them when none was quiet."""
    mine = [run for run in runs if run.variant is variant]
    return [run for run in mine if not run.noisy] or mine


def spread(runs: Sequence[Run], variant: Variant, figure: str) -> Spread | None:
    """What the counted runs of a variant say about a figure; None when none has it."""
    chosen = [run for run in counted(runs, variant) if figure in run.figures]
    if not chosen:
        return None
    values = [run.figures[figure] for run in chosen]
    noisy = sum(run.noisy for run in chosen)
    return Spread(median=median(values), low=min(values), high=max(values), runs=len(values), noisy=noisy)


def judge(runs: Sequence[Run], target: Target) -> Verdict | None:
    """Compare medians with the target; None when one side was not measured."""
    subject = spread(runs, target.subject, target.figure)
    if subject is None:
        return None
    value = subject.median
    if target.reference is not None:
        reference = spread(runs, target.reference, target.figure)
        if reference is None or reference.median == 0:
            return None
        value /= reference.median
    reached = value >= target.bound if target.goal is Goal.AT_LEAST else value <= target.bound
    return Verdict(target=target, value=value, reached=reached)


def score(target: Target, value: float) -> float:
    """How many times the target was reached, bounded, so that a bound of nothing can be drawn too."""
    good, bad = (value, target.bound) if target.goal is Goal.AT_LEAST else (target.bound, value)
    if bad == 0:
        return MAX_SCORE if good > 0 else 1.0
    return min(MAX_SCORE, max(1 / MAX_SCORE, good / bad))
