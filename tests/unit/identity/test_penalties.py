"""What failed attempts cost."""

from __future__ import annotations

import pytest
from fixtures.clocks import ManualClock

from penstock.identity.penalties import (
    FORGOTTEN_AFTER_S,
    FREE_FAILURES,
    LONGEST_DELAY_S,
    MAX_HOSTS,
    MAX_WAITING_PER_HOST,
    PATIENCE_S,
    Penalties,
)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def penalties(clock: ManualClock) -> Penalties:
    return Penalties(clock, 0.1)


def pass_s(clock: ManualClock, seconds: float) -> None:
    clock.time_ms += int(seconds * 1000) + 1


def test_the_wait_grows_and_is_bounded(penalties: Penalties) -> None:
    delays = [penalties.failed("a") for _ in range(FREE_FAILURES + 10)]
    assert delays[:FREE_FAILURES] == [0.1] * FREE_FAILURES
    assert delays[FREE_FAILURES : FREE_FAILURES + 3] == [0.2, 0.4, 0.8]
    assert delays[-1] == LONGEST_DELAY_S
    assert penalties.failed("b") == 0.1


def test_failures_are_forgotten(penalties: Penalties, clock: ManualClock) -> None:
    for _ in range(20):
        penalties.failed("a")
    penalties.succeeded("a")  # Somebody else behind the same address: those that wait still count.
    assert penalties.failed("a") == LONGEST_DELAY_S
    pass_s(clock, LONGEST_DELAY_S)
    penalties.succeeded("a")
    assert penalties.failed("a") == 0.1
    for _ in range(20):
        penalties.failed("a")
    pass_s(clock, FORGOTTEN_AFTER_S)
    assert penalties.failed("a") == 0.1


@pytest.mark.parametrize("spent_s", [0.0, 0.004, 0.016, 0.099])
def test_how_long_a_check_took_is_not_to_be_seen(penalties: Penalties, spent_s: float) -> None:
    assert spent_s + penalties.failed("a", spent_s=spent_s) == pytest.approx(0.1)


def test_a_check_that_takes_longer_than_the_delay_is_answered_after_whole_delays(penalties: Penalties) -> None:
    assert 0.13 + penalties.failed("a", spent_s=0.13) == pytest.approx(0.2)
    assert 0.27 + penalties.failed("a", spent_s=0.27) == pytest.approx(0.3)


def test_who_comes_while_many_wait_waits_before_anything_is_looked_at(penalties: Penalties, clock: ManualClock) -> None:
    """So no guess gets its answer for less, on however many connections, whether their clients hang up or not."""
    for _ in range(MAX_WAITING_PER_HOST - 1):
        penalties.failed("a")
    assert penalties.before("a") == 0.0
    penalties.failed("a")
    assert penalties.before("a") == PATIENCE_S
    assert penalties.before("b") == 0.0
    penalties.succeeded("a")
    assert penalties.before("a") == PATIENCE_S
    pass_s(clock, LONGEST_DELAY_S)
    assert penalties.before("a") == 0.0


def test_what_waits_is_bounded_and_what_is_beyond_waits_no_shorter(penalties: Penalties) -> None:
    delays = [penalties.failed("a") for _ in range(50 * MAX_WAITING_PER_HOST)]
    assert len(penalties._hosts["a"].waiting) == MAX_WAITING_PER_HOST
    assert set(delays[MAX_WAITING_PER_HOST:]) == {LONGEST_DELAY_S}


def test_few_addresses_are_remembered(penalties: Penalties) -> None:
    for number in range(MAX_HOSTS + 100):
        penalties.failed(str(number))
    assert len(penalties._hosts) == MAX_HOSTS


def test_no_delay_stays_none() -> None:
    penalties = Penalties(ManualClock(), 0.0)
    assert [penalties.failed("a", spent_s=0.01) for _ in range(3 * MAX_WAITING_PER_HOST)] == [0.0] * 300
    assert penalties.before("a") == 0.0
