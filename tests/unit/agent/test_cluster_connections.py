"""Connections of virtual clusters: when those that were refused are closed."""

from __future__ import annotations

import pytest

from penstock.agent.cluster_connections import REJECT_APART_S, REJECT_DELAY_MAX_S, REJECT_DELAY_S, ClusterConnections
from tests.fixtures.clocks import ManualClock


def _of(clock: ManualClock) -> ClusterConnections:
    return ClusterConnections(
        limits=lambda cluster_id: {}, cluster_limits=lambda cluster_id: None, is_open=bool, clock=clock
    )


def test_connections_refused_together_are_closed_one_after_the_other() -> None:
    clock = ManualClock()
    cluster_connections = _of(clock)
    delays = [cluster_connections.reject_delay_s() for _ in range(5)]
    assert delays == pytest.approx([REJECT_DELAY_S + REJECT_APART_S * number for number in range(5)])


def test_none_is_kept_for_longer_than_the_most() -> None:
    cluster_connections = _of(ManualClock())
    delays = [cluster_connections.reject_delay_s() for _ in range(1000)]
    assert max(delays) == delays[-1] == pytest.approx(REJECT_DELAY_MAX_S)
