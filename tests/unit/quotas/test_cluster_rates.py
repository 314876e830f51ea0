"""Rates of virtual clusters: what a tenant may do at once, and who waits when it was too much."""

from __future__ import annotations

from fixtures.clocks import ManualClock

from penstock.base.context import RequestContext
from penstock.quotas.cluster_rates import ClusterRateLimits, RateLimit
from penstock.quotas.settings import QuotaSettings
from penstock.quotas.throttles import Throttles

NOISY, QUIET = RequestContext(cluster_id=7), RequestContext(cluster_id=8)


def throttles(**limits: float) -> tuple[Throttles, ManualClock]:
    clock = ManualClock()
    made = Throttles(clock=clock, settings=QuotaSettings())
    made.set_cluster_limits(7, limits)
    return made, clock


def test_a_second_s_worth_is_free_and_no_more_is_ever_saved_up() -> None:
    spending = RateLimit(100)
    assert spending.charge(100, 0) == 0
    assert spending.charge(50, 0) == 500
    assert spending.owed_ms(250) == 250
    assert spending.owed_ms(500) == 0
    assert spending.charge(100, 60_000) == 0, "an hour of rest"
    assert spending.charge(1, 60_000) == 10, "is worth a second"


def test_what_is_owed_stays_when_the_limit_changes() -> None:
    before = ClusterRateLimits({"request_rate": 10})
    assert before.requests is not None
    before.requests.charge(20, 0)
    after = ClusterRateLimits({"request_rate": 100}, before)
    assert after.requests is not None
    assert after.requests.owed_ms(0) == 100
    assert ClusterRateLimits({}, after).requests is None


def test_requests_and_their_bytes_count_for_the_cluster_and_nobody_else() -> None:
    limited, clock = throttles(request_rate=2, bytes_in_rate=1000)
    assert limited.limits_clients
    client = limited.client(NOISY)
    assert [limited.on_request(client, 10) for _ in range(3)] == [0, 0, 500]
    other = limited.client(RequestContext(cluster_id=7, principal="User:other", client_id="x"))
    assert limited.on_request(other, 10) == 1000, "they share it"
    assert limited.on_request(limited.client(QUIET), 10**9) == 0
    clock.time_ms += 10_000
    assert limited.on_produce(client, 1500, clock.monotonic() * 1000) == 500
    assert limited.throttled["bytes_in_rate"] == 1


def test_what_the_broker_writes_for_a_cluster_counts_as_its_own() -> None:
    limited, _ = throttles(bytes_in_rate=1000)
    assert limited.on_internal_write(7, 1500) == 500
    assert limited.on_request(limited.client(NOISY), 10) == 510
    assert limited.on_internal_write(8, 10**9) == 0


def test_nothing_is_fetched_while_a_cluster_owes() -> None:
    limited, clock = throttles(bytes_out_rate=1000)
    assert limited.fetch_room(NOISY) == 1000
    assert limited.fetch_room(QUIET) is None
    assert limited.on_fetch(NOISY, 3000) == (2000, True), "one batch is larger than a second allows"
    assert limited.on_fetch(NOISY, 10) == (2000, False)
    assert limited.on_fetch(QUIET, 10**9) == (0, True)
    clock.time_ms += 2_000
    assert limited.on_fetch(NOISY, 10) == (10, True)
    assert limited.on_sent(NOISY, 5000) > 0


def test_limits_go_with_their_cluster() -> None:
    limited, _ = throttles(request_rate=1)
    limited.drop_cluster(7)
    assert not limited.limits_clients
    assert limited.cluster_limits(7) is None
    limited.set_cluster_limits(7, {"connection_rate": 5})
    assert not limited.limits_clients, "requests need not be looked at for that"
    assert limited.cluster_limits(7) is not None
