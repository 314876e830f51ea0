"""The garbage collector skips long-lived objects: while they are created, and once afterwards."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator

import pytest

from penstock.base import collector
from penstock.base.collector import COLLECT_EVERY, FrozenSurvivors, without_collector


@pytest.fixture(autouse=True)
def enabled() -> Iterator[None]:
    gc.enable()
    yield
    gc.unfreeze()
    gc.enable()


def test_what_is_made_belongs_to_the_oldest_generation() -> None:
    with without_collector():
        assert not gc.isenabled()
        made: list[list[int]] = [[number] for number in range(10_000)]
        young = gc.get_count()[0]
    assert gc.isenabled()
    assert young >= len(made)
    assert gc.get_count()[0] < len(made)
    assert gc.get_freeze_count() == 0  # What nobody holds any more is found, by a collection of everything.


def test_who_has_no_collector_gets_none() -> None:
    gc.disable()
    with without_collector():
        pass
    assert not gc.isenabled()


def test_what_somebody_has_frozen_does_not_thaw() -> None:
    gc.freeze()
    frozen = gc.get_freeze_count()
    with without_collector():
        pass
    assert gc.get_freeze_count() == frozen > 0


class Cycle:
    """Something that its reference count does not free."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture
def soon() -> Iterator[list[Callable[[], object]]]:
    """What is to be done after a collection, where the agent's settings are in force."""
    later, thresholds, callbacks = list[Callable[[], object]](), gc.get_threshold(), list(gc.callbacks)
    FrozenSurvivors(later.append).begin()
    yield later
    gc.set_threshold(*thresholds)
    gc.callbacks[:] = callbacks


def test_no_collection_looks_at_more_than_some_thousand_objects(soon) -> None:
    looked_at = []

    def count(phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            looked_at.append(sum(len(gc.get_objects(generation)) for generation in range(info["generation"] + 1)))

    gc.callbacks.append(count)
    made = [[number] for number in range(300_000)]
    gc.callbacks.remove(count)
    assert len(looked_at) >= len(made) // COLLECT_EVERY - 1
    assert max(looked_at) < 2 * COLLECT_EVERY, max(looked_at)


def test_cycles_go_at_once_or_when_there_are_twice_as_many_objects(soon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collector, "_FULL_AFTER", 0)
    young, old = Cycle(), Cycle()
    gone = [weakref.ref(young), weakref.ref(old)]
    del young
    gc.collect(0)
    assert [one() is None for one in gone] == [True, False]
    del old
    gc.collect()
    assert gone[1]() is not None, "it was frozen"
    before = gc.get_freeze_count()
    made = [[number] for number in range(before)]
    assert not soon
    made += [[number] for number in range(max(before, 2 * collector._LOOK_EVERY * COLLECT_EVERY))]
    assert soon, len(made)
    soon[0]()
    assert gone[1]() is None
