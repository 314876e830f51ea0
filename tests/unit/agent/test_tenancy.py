"""Connections of virtual clusters: when those that were refused are closed."""

from __future__ import annotations

import pytest

from penstock.agent.tenancy import TURNED_AWAY_APART_S, TURNED_AWAY_MAX_S, TURNED_AWAY_S, Tenancy
from tests.fixtures.clocks import ManualClock


def _tenancy(clock: ManualClock) -> Tenancy:
    return Tenancy(limits=lambda cluster_id: {}, tenant=lambda cluster_id: None, is_open=bool, clock=clock)


def test_connections_refused_together_are_closed_one_after_the_other() -> None:
    clock = ManualClock()
    tenancy = _tenancy(clock)
    delays = [tenancy.turn_away_s() for _ in range(5)]
    assert delays == pytest.approx([TURNED_AWAY_S + TURNED_AWAY_APART_S * number for number in range(5)])


def test_none_is_kept_for_longer_than_the_most() -> None:
    tenancy = _tenancy(ManualClock())
    delays = [tenancy.turn_away_s() for _ in range(1000)]
    assert max(delays) == delays[-1] == pytest.approx(TURNED_AWAY_MAX_S)
