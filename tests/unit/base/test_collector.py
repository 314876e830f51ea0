"""Where much is made that stays, the collector does not look at it: not while it is made, and not right afterwards."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from penstock.base.collector import without_collector


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
