"""Medians, noise and verdicts of the benchmark."""

from __future__ import annotations

import itertools

import pytest

from benchmarks.figures import FIGURES, significant
from benchmarks.model import Goal, Run, Target, Variant
from benchmarks.rows import ROWS
from benchmarks.runner import in_running_order
from benchmarks.summary import MAX_SCORE, judge, score, spread

KAFKA, PENSTOCK = Variant.KAFKA, Variant.PENSTOCK_DISK


def run(variant: Variant, value: float, *, noisy: bool = False) -> Run:
    figures = {"mb_per_s": value}
    return Run(variant=variant, repeat=0, attempts=1, others_cores=1.0 if noisy else 0.0, noisy=noisy, figures=figures)


def test_noisy_runs_count_only_when_there_are_no_others():
    mixed = [run(KAFKA, 1), run(KAFKA, 3), run(KAFKA, 100, noisy=True)]
    found = spread(mixed, KAFKA, "mb_per_s")
    assert (found.median, found.low, found.high, found.noisy) == (2, 1, 3, 0)
    found = spread(mixed[2:], KAFKA, "mb_per_s")
    assert (found.median, found.noisy) == (100, 1)


def test_what_was_not_measured_is_not_judged():
    target = Target(figure="mb_per_s", goal=Goal.AT_LEAST, bound=1.5)
    assert spread([], KAFKA, "mb_per_s") is None
    assert judge([run(KAFKA, 1)], target) is None
    assert judge([run(PENSTOCK, 1)], target) is None
    assert judge([run(PENSTOCK, 1), run(KAFKA, 0)], target) is None


@pytest.mark.parametrize(
    ("goal", "bound", "reference", "value", "reached", "expected_score"),
    [
        (Goal.AT_LEAST, 1.5, KAFKA, 1.6, True, 1.6 / 1.5),
        (Goal.AT_LEAST, 1.5, KAFKA, 1.2, False, 0.8),
        (Goal.AT_MOST, 0.5, KAFKA, 0.25, True, 2.0),
        (Goal.AT_MOST, 0.5, KAFKA, 1.0, False, 0.5),
        (Goal.AT_LEAST, 200, None, 30, True, 1.5),
        (Goal.AT_MOST, 300, None, 30, True, 1.0),
    ],
)
def test_medians_are_judged_against_the_reference_or_absolutely(goal, bound, reference, value, reached, expected_score):
    runs = [run(PENSTOCK, value * 10), run(KAFKA, 10)]
    verdict = judge(runs, Target(figure="mb_per_s", goal=goal, bound=bound, reference=reference))
    assert verdict.value == pytest.approx(value if reference else value * 10)
    assert verdict.reached is reached
    assert verdict.score == pytest.approx(expected_score)


def test_a_bound_of_nothing_can_be_scored():
    nothing = Target(figure="written_bytes", goal=Goal.AT_MOST, bound=0, reference=None)
    assert score(nothing, 0) == 1.0
    assert score(nothing, 4096) == 1 / MAX_SCORE


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (55_123.4, "55,123"), (12.34, "12.3"), (1.5, "1.50"), (0.0271, "0.027")]
)
def test_three_digits_are_written(value, text):
    assert significant(value) == text


def test_every_row_names_figures_and_variants_that_exist():
    assert len({row.name for row in ROWS}) == len(ROWS)
    for row in ROWS:
        assert set(row.shown) <= set(FIGURES)
        for target in row.targets:
            assert target.figure in row.shown
            assert target.subject in row.variants
            assert target.reference is None or target.reference in row.variants


def test_rows_that_share_servers_run_one_after_the_other():
    order = [row.variants for row in in_running_order(list(ROWS))]
    assert len(set(order)) == 1 + sum(one != other for one, other in itertools.pairwise(order))
