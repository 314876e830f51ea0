"""Sliding windows and token buckets, compared with slow ones that remember everything."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.quotas.meters import MAX_THROTTLE_MS, Rate, SampleWindows, TokenBucket
from penstock.quotas.throttles import Meter

ELEVEN = SampleWindows(samples=11, window_ms=1000)


class SlowRate:
    """Kafka's sampled rate, read literally: a ring of one sample more than are counted, the old ones cleared."""

    def __init__(self, windows: SampleWindows) -> None:
        self.windows = windows
        self.samples: list[list[float]] = []
        self.current = 0

    def record(self, amount: float, now: int) -> None:
        if not self.samples:
            self.samples.append([now, now, 0.0])
        sample = self.samples[self.current]
        if now - sample[0] >= self.windows.window_ms:
            self.current = (self.current + 1) % (self.windows.samples + 1)
            if self.current >= len(self.samples):
                self.samples.append([now, now, 0.0])
            else:
                self.samples[self.current] = [now, now, 0.0]
            sample = self.samples[self.current]
        sample[1], sample[2] = now, sample[2] + amount

    def excess_ms(self, limit: float, now: int) -> float:
        for sample in self.samples:
            if now - sample[1] >= self.windows.samples * self.windows.window_ms:
                sample[:] = [now, now, 0.0]
        elapsed = now - min((sample[0] for sample in self.samples), default=now)
        full = elapsed // self.windows.window_ms
        if full < self.windows.samples - 1:
            elapsed += (self.windows.samples - 1 - full) * self.windows.window_ms
        elapsed = max(elapsed, 1)
        rate = sum(sample[2] for sample in self.samples) / elapsed * 1000
        return max(0.0, (rate - limit) / limit * elapsed)


EVENTS = st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 5000)), max_size=60)
WINDOWS = st.builds(SampleWindows, samples=st.integers(1, 12), window_ms=st.sampled_from([500, 1000, 3000]))


@given(events=EVENTS, windows=WINDOWS, limit=st.integers(1, 2000))
def test_a_rate_is_kafkas_rate(events, windows: SampleWindows, limit: int) -> None:
    rate, slow, now = Rate(windows), SlowRate(windows), 1_000_000
    for pause, amount in events:
        now += pause
        rate.record(amount, now)
        slow.record(amount, now)
        assert rate.excess_ms(limit, now) == pytest.approx(min(slow.excess_ms(limit, now), MAX_THROTTLE_MS), abs=1)


@given(events=EVENTS, windows=WINDOWS, limit=st.integers(1, 2000))
def test_who_is_found_harmless_would_not_have_to_wait(events, windows: SampleWindows, limit: int) -> None:
    """A meter reckons only when it has to, and forgets only then: nobody waits longer or less for that."""
    rate, reckoned, now = Rate(windows), Rate(windows), 1_000_000
    meter = Meter(rate, limit)
    for pause, amount in events:
        now += pause
        reckoned.record(amount, now)
        assert meter.charge(amount, now) == reckoned.excess_ms(limit, now)
        assert len(rate._samples) <= windows.samples + 1


@pytest.mark.parametrize("charge", [True, False])
def test_who_stays_far_below_a_limit_keeps_no_more_samples(charge: bool) -> None:
    rate = Rate(ELEVEN)
    meter = Meter(rate, 10**12)
    for second in range(1_000):
        if charge:
            assert meter.charge(1, second * 1_000) == 0
        else:
            rate.record(1, second * 1_000)
    assert len(rate._samples) <= 12
    assert rate.total <= 12, "what is old is not counted any more"


def test_a_burst_passes_at_once_and_then_the_rate_is_kept() -> None:
    rate, now, sent, burst = Rate(ELEVEN), 0, 0, 0
    while now < 120_000:
        rate.record(100, now)
        sent += 100
        wait_ms = rate.excess_ms(1000, now)
        burst = burst or (sent if wait_ms else 0)
        now += max(wait_ms, 1)
    assert 10_000 <= burst <= 11_000
    assert 1000 * 120 * 0.97 <= sent <= 1000 * (120 + 11)


def test_waiting_as_long_as_told_is_enough() -> None:
    rate = Rate(ELEVEN)
    rate.record(10_500, 5_000)
    wait_ms = rate.excess_ms(1_000, 5_000)
    assert wait_ms == 500
    assert rate.excess_ms(1_000, 5_000 + wait_ms) == 0
    assert rate.excess_ms(1_000, 5_000 + wait_ms - 100) == 100


def test_what_is_taken_back_was_never_there() -> None:
    rate = Rate(ELEVEN)
    rate.record(50_000, 0)
    rate.record(-50_000, 0)
    assert rate.excess_ms(1, 0) == 0


def test_a_rate_is_as_good_as_new_after_all_its_windows() -> None:
    rate = Rate(ELEVEN)
    assert rate.is_idle(0)
    rate.record(7, 500)
    assert not rate.is_idle(11_499)
    assert rate.is_idle(11_500)


def test_nobody_waits_for_ever() -> None:
    rate, bucket = Rate(ELEVEN), TokenBucket(ELEVEN)
    rate.record(10**12, 0)
    bucket.record(10**12, 1, 0)
    assert rate.excess_ms(1, 0) == bucket.excess_ms(1, 0) == MAX_THROTTLE_MS


@pytest.mark.parametrize("limit", [5e-324, 1e-310, 1e-9])
def test_so_small_a_limit_that_no_number_says_how_long_it_takes_is_one_like_others(limit: float) -> None:
    rate, bucket = Rate(ELEVEN), TokenBucket(ELEVEN)
    rate.record(1, 0)
    bucket.record(1, limit, 0)
    assert rate.excess_ms(limit, 0) == bucket.excess_ms(limit, 0) == MAX_THROTTLE_MS
    assert bucket.charge(1, limit, 1_000) == MAX_THROTTLE_MS


def test_a_limit_without_end_is_none() -> None:
    rate, bucket = Rate(ELEVEN), TokenBucket(ELEVEN)
    for now_ms in (0, 0, 1_000, 60_000):
        rate.record(10**15, now_ms)
        assert rate.excess_ms(inf, now_ms) == bucket.charge(10**15, inf, now_ms) == 0
    assert bucket.charge(60, 5, 61_000) == 1_000  # It is finite from now on.


# ---- token bucket ---------------------------------------------------------------------------------------------------


def test_a_bucket_starts_full_may_be_overdrawn_and_fills_up() -> None:
    bucket = TokenBucket(ELEVEN)
    assert bucket.excess_ms(5, 0) == 0
    bucket.record(55, 5, 0)  # All of it: 5 a second, for eleven seconds.
    assert bucket.excess_ms(5, 0) == 0
    bucket.record(10, 5, 0)
    assert bucket.excess_ms(5, 0) == 2_000
    assert bucket.excess_ms(5, 1_500) == 500
    assert bucket.excess_ms(5, 2_000) == 0
    assert not bucket.is_idle(2_000)
    assert bucket.excess_ms(5, 60_000) == 0
    bucket.record(55, 5, 60_000)
    bucket.record(1, 5, 60_000)
    assert bucket.excess_ms(5, 60_000) == 200  # It held no more than it can.


def test_a_burst_that_kip_599_reckons_with() -> None:
    """560 mutations at 5 a second over 100 seconds: 12 seconds, not the 100 that a sampled rate would take."""
    bucket = TokenBucket(SampleWindows(samples=100, window_ms=1000))
    bucket.record(560, 5, 0)
    assert bucket.excess_ms(5, 0) == 12_000


@given(spends=EVENTS, limit=st.integers(1, 5000))
def test_a_charge_is_credits_taken_and_the_time_to_wait(spends, limit: int) -> None:
    at_once, by_steps, now = TokenBucket(ELEVEN), TokenBucket(ELEVEN), 0
    for pause, amount in spends:
        now += pause
        by_steps.record(amount, limit, now)
        assert at_once.charge(amount, limit, now) == by_steps.excess_ms(limit, now)


def test_a_bucket_nobody_owes_is_as_good_as_new_once_full() -> None:
    bucket = TokenBucket(ELEVEN)
    assert bucket.is_idle(0)
    bucket.record(60, 5, 0)
    assert not bucket.is_idle(11_000)
    assert bucket.excess_ms(5, 11_000) == 0
    assert bucket.is_idle(22_000)


@given(spends=st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 200)), max_size=60), limit=st.integers(1, 100))
def test_no_more_is_spent_than_came_in(spends, limit: int) -> None:
    """Strictly: who owes spends nothing. Over any time that is the bucket, what came in, and one overdraft."""
    bucket, now, spent, largest = TokenBucket(ELEVEN), 0, 0, 0
    for pause, amount in spends:
        now += pause
        if not bucket.excess_ms(limit, now):
            bucket.record(amount, limit, now)
            spent, largest = spent + amount, max(largest, amount)
    assert spent <= limit * (11 + now / 1000) + largest + 1
