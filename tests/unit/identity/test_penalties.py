"""What failed attempts cost."""

from __future__ import annotations

from fixtures.clocks import ManualClock

from penstock.identity.penalties import (
    FORGOTTEN_AFTER_S,
    FREE_FAILURES,
    LONGEST_DELAY_S,
    MAX_HOSTS,
    MAX_WAITING_PER_HOST,
    Penalties,
)


def fail(penalties: Penalties, host: str = "a") -> float | None:
    delay = penalties.begin(host)
    penalties.end(host)
    return delay


def test_the_wait_grows_and_is_bounded() -> None:
    penalties = Penalties(ManualClock(), 0.1)
    delays = [fail(penalties) for _ in range(FREE_FAILURES + 10)]
    assert delays[:FREE_FAILURES] == [0.1] * FREE_FAILURES
    assert delays[FREE_FAILURES : FREE_FAILURES + 3] == [0.2, 0.4, 0.8]
    assert delays[-1] == LONGEST_DELAY_S
    assert fail(penalties, "b") == 0.1


def test_failures_are_forgotten() -> None:
    clock = ManualClock()
    penalties = Penalties(clock, 0.1)
    for _ in range(20):
        fail(penalties)
    penalties.succeeded("a")
    assert fail(penalties) == 0.1
    for _ in range(20):
        fail(penalties)
    clock.time_ms += int(FORGOTTEN_AFTER_S * 1000) + 1
    assert fail(penalties) == 0.1


def test_few_wait_at_once() -> None:
    penalties = Penalties(ManualClock(), 0.1)
    delays = [penalties.begin("a") for _ in range(MAX_WAITING_PER_HOST + 1)]
    assert None not in delays[:-1]
    assert delays[-1] is None
    penalties.succeeded("a")  # Somebody else behind the same address: the waiting ones still count.
    assert penalties.begin("a") is None


def test_few_addresses_are_remembered() -> None:
    penalties = Penalties(ManualClock(), 0.1)
    for number in range(MAX_HOSTS + 100):
        fail(penalties, str(number))
    assert len(penalties._hosts) == MAX_HOSTS


def test_no_delay_stays_none() -> None:
    penalties = Penalties(ManualClock(), 0.0)
    assert [fail(penalties) for _ in range(30)] == [0.0] * 30
