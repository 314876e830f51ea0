"""Delays of failed authentications."""

from __future__ import annotations

import pytest
from fixtures.clocks import ManualClock

from penstock.identity.penalties import (
    FORGOTTEN_AFTER_S,
    FREE_FAILURES,
    LONGEST_DELAY_S,
    MAX_RECORDS,
    Penalties,
)

ALICE, MALLORY = b"alice", b"mallory"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def penalties(clock: ManualClock) -> Penalties:
    return Penalties(clock, 0.1)


def pass_s(clock: ManualClock, seconds: float) -> None:
    clock.time_ms += int(seconds * 1000) + 1


def test_the_wait_grows_and_is_bounded(penalties: Penalties) -> None:
    delays = [penalties.failed("10.0.0.1", ALICE) for _ in range(FREE_FAILURES + 10)]
    assert delays[:FREE_FAILURES] == [0.1] * FREE_FAILURES
    assert delays[FREE_FAILURES : FREE_FAILURES + 3] == [0.2, 0.4, 0.8]
    assert delays[-1] == LONGEST_DELAY_S
    assert penalties.failed("10.0.0.2", ALICE) == 0.1


def test_a_network_of_ipv6_counts_as_one(penalties: Penalties) -> None:
    """Whoever has one has 2^64 addresses in it."""
    delays = [penalties.failed(f"2001:db8::{number:x}", ALICE) for number in range(FREE_FAILURES + 1)]
    assert delays[-1] == 0.2
    assert penalties.failed("2001:db8:0:1::1", ALICE) == 0.1


def test_failures_are_forgotten(penalties: Penalties, clock: ManualClock) -> None:
    for _ in range(20):
        penalties.failed("a", ALICE)
    pass_s(clock, FORGOTTEN_AFTER_S / 2)
    assert penalties.failed("a", ALICE) == LONGEST_DELAY_S
    pass_s(clock, FORGOTTEN_AFTER_S)
    assert penalties.failed("a", ALICE) == 0.1


def test_a_success_is_of_nobody_else(penalties: Penalties) -> None:
    for _ in range(20):
        penalties.failed("a", ALICE)
    penalties.succeeded("a", MALLORY)
    penalties.succeeded("b", ALICE)
    assert penalties.failed("a", ALICE) == LONGEST_DELAY_S
    assert penalties.failed("a", MALLORY) == 0.1
    penalties.succeeded("a", ALICE)
    assert penalties.failed("a", ALICE) == 0.1


@pytest.mark.parametrize("spent_s", [0.0, 0.004, 0.016, 0.099])
def test_how_long_a_check_took_is_not_to_be_seen(penalties: Penalties, spent_s: float) -> None:
    assert spent_s + penalties.failed("a", ALICE, spent_s=spent_s) == pytest.approx(0.1)


def test_a_check_that_takes_longer_than_the_delay_is_answered_after_whole_delays(penalties: Penalties) -> None:
    assert 0.13 + penalties.failed("a", ALICE, spent_s=0.13) == pytest.approx(0.2)
    assert 0.27 + penalties.failed("a", ALICE, spent_s=0.27) == pytest.approx(0.3)


def test_little_is_remembered(penalties: Penalties) -> None:
    for number in range(MAX_RECORDS + 100):
        penalties.failed(str(number), ALICE)
    assert len(penalties._records) == MAX_RECORDS


def test_no_delay_stays_none() -> None:
    penalties = Penalties(ManualClock(), 0.0)
    assert [penalties.failed("a", ALICE, spent_s=0.01) for _ in range(300)] == [0.0] * 300
