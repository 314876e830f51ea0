"""Durations in buckets: nothing is lost, each is where it belongs, and they grow as histograms do."""

from __future__ import annotations

import gc
from bisect import bisect_right
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.base.durations import BOUNDS_S, CollectorPauses, Durations, SharedDurations

DURATIONS = st.lists(st.floats(0, 1e9, allow_nan=False), max_size=50)


@given(DURATIONS)
def test_every_duration_is_in_its_bucket(added: list[float]) -> None:
    durations = Durations()
    for duration_s in added:
        durations.add(duration_s)
    cumulative = durations.cumulative()
    assert len(cumulative) == len(BOUNDS_S) + 1
    assert durations.count == cumulative[-1] == len(added)
    assert all(below <= above for below, above in pairwise(cumulative))
    assert durations.total_s == pytest.approx(sum(added))
    # Within a rounding of the bound itself.
    for bound_s, count in zip(BOUNDS_S, cumulative, strict=False):
        assert sum(one < bound_s * 0.999999 for one in added) <= count <= sum(one < bound_s * 1.000001 for one in added)


def test_bounds_double_from_a_tenth_of_a_millisecond_to_ten_seconds() -> None:
    assert BOUNDS_S[0] == 0.0001
    assert all(above == 2 * below for below, above in pairwise(BOUNDS_S))
    assert BOUNDS_S[bisect_right(BOUNDS_S, 10.0)] == BOUNDS_S[-1]


def test_a_clock_that_goes_astray_breaks_nothing() -> None:
    """Two clocks that drift, as in a simulation, may disagree about what came first."""
    durations = Durations()
    durations.add(-0.5)
    durations.add(1e9)
    assert durations.count == 2


def test_several_threads_count_the_same() -> None:
    durations = SharedDurations()
    durations.add(0.5)
    assert (durations.count, durations.total_s) == (1, 0.5)


def test_collections_are_timed_by_generation() -> None:
    times = iter((1.0, 1.5, 2.0, 2.25))
    collections = CollectorPauses(lambda: next(times))
    for generation in (2, 0):
        collections("start", {"generation": generation})
        collections("stop", {"generation": generation})
    assert [one.total_s for one in collections.by_generation] == [0.25, 0.0, 0.5]


def test_python_calls_it() -> None:
    collections = CollectorPauses(lambda: 0.0)
    gc.callbacks.append(collections)
    try:
        gc.collect()
    finally:
        gc.callbacks.remove(collections)
    assert collections.by_generation[2].count >= 1
