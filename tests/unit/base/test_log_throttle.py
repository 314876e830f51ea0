"""Rate-limited log messages about lasting failures."""

from __future__ import annotations

from fixtures.clocks import ManualClock

from penstock.base.log_throttle import LogThrottle


def test_it_is_said_at_once_and_then_seldom() -> None:
    clock = ManualClock()
    complaints = LogThrottle(clock, 10.0)
    assert complaints.is_due()
    clock.time_ms += 9_999
    assert not complaints.is_due()
    clock.time_ms += 1
    assert complaints.is_due()
    assert not complaints.is_due()


def test_what_is_new_is_said_at_once_and_counts() -> None:
    clock = ManualClock()
    complaints = LogThrottle(clock, 10.0)
    assert complaints.is_due()
    clock.time_ms += 5_000
    assert complaints.is_due(is_new=True)
    clock.time_ms += 5_000
    assert not complaints.is_due()
