"""Throttle times, with a clock that the test controls."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest
from fixtures.clocks import ManualClock
from hypothesis import given
from hypothesis import strategies as st

from penstock.base.context import RequestContext
from penstock.base.twins import reference
from penstock.log.quota import UNLIMITED
from penstock.log.refusals import Refused
from penstock.quotas import throttles as module
from penstock.quotas.meters import Rate, SampleWindows
from penstock.quotas.model import Entity, QuotaKey, entity
from penstock.quotas.settings import QuotaSettings
from penstock.quotas.throttles import ClientMeters, Meter, Throttles, count_time, count_within_limits
from penstock.quotas.transitions import AlterationBatch, QuotaAlteration
from penstock.wire.error_codes import ErrorCode


class World:
    """Limits, a clock, and clients who do things."""

    def __init__(self, limits: dict[Entity, dict[str, float]]) -> None:
        self.clock = ManualClock()
        self.throttles = Throttles(clock=self.clock, settings=QuotaSettings())
        self.throttles.set_quotas(1, limits)

    def produce(self, size: int, user: str = "alice", client_id: str | None = "app", cluster_id: int = 1) -> int:
        client = self.throttles.client(who(user, client_id, cluster_id))
        return self.throttles.on_produce(client, size, self.clock.monotonic() * 1000)

    def spend_time(self, spent_s: float, client_id: str = "app") -> int:
        return self.throttles.on_time(self.throttles.client(who("alice", client_id)), spent_s)

    def count_time(self, client: ClientMeters, spent_s: float) -> None:
        now_ms = self.clock.monotonic() * 1000
        count_time(client, now_ms - spent_s * 1000, now_ms)

    def fetch(self, size: int) -> tuple[int, bool]:
        return self.throttles.on_fetch(who("alice"), size)


def who(user: str, client_id: str | None = "app", cluster_id: int = 1) -> RequestContext:
    return RequestContext(cluster_id=cluster_id, principal=f"User:{user}", client_id=client_id)


def limits(**values: float) -> dict[str, float]:
    return values


class Closed(dict[Entity, dict[str, float]]):
    """A table at all of which nobody may look: it may have a hundred thousand entities, and be changed all the time."""

    def __iter__(self) -> Iterator[Entity]:
        raise AssertionError("all of it is looked at")

    keys = values = items = __iter__  # type: ignore[assignment]


def test_of_many_limits_only_those_are_looked_at_that_change() -> None:
    alice, bob, address = entity(user="alice"), entity(user="bob"), entity(ip="10.0.0.1")
    byte_rate, connections = limits(producer_byte_rate=1), limits(connection_creation_rate=1)
    throttles = World({}).throttles

    def after(table: dict[Entity, dict[str, float]], *changed: Entity) -> tuple[bool, bool]:
        throttles.set_quotas(7, Closed(table), changed)
        return throttles.limits_clients, throttles.limits_addresses

    assert after({alice: byte_rate, bob: byte_rate}, alice, bob) == (True, False)
    assert after({bob: byte_rate, address: connections}, alice, address) == (True, True)
    assert after({bob: limits(producer_byte_rate=2), address: connections}, bob) == (True, True)
    assert after({address: connections}, bob) == (False, True)
    throttles.set_quotas(1, {alice: byte_rate})
    assert after({}, address) == (True, False)
    throttles.drop_cluster(1)
    assert after({bob: byte_rate}, bob) == (True, False)
    throttles.drop_cluster(7)
    assert after({}, bob) == (False, False)
    altering = AlterationBatch(Closed({alice: byte_rate}))
    altering.add(QuotaAlteration(entity=[("user", "bob")], limits=[("producer_byte_rate", 5.0)]))
    assert altering.decision().refusals == [None]


def test_nobody_is_measured_for_whom_no_limit_counts() -> None:
    world = World({entity(user="bob"): limits(producer_byte_rate=1)})
    assert world.produce(10**9) == 0
    assert world.throttles.meter_count == 0
    assert world.throttles.limits_clients
    world.throttles.set_quotas(1, {})
    assert not world.throttles.limits_clients


def test_a_producer_waits_for_what_is_too_much() -> None:
    world = World({entity(user="alice"): limits(producer_byte_rate=1000)})
    assert world.produce(10_000) == 0
    assert world.produce(500) == 500
    world.clock.time_ms += 500
    assert world.produce(100) == 100
    assert world.throttles.throttled[QuotaKey.PRODUCER_BYTE_RATE] == 2


def test_clients_of_a_user_share_the_users_limit_and_pairs_have_their_own() -> None:
    shared = World({entity(user="alice"): limits(producer_byte_rate=1000)})
    assert shared.produce(10_000, client_id="one") == 0
    assert shared.produce(1_000, client_id="two") == 1_000
    own = World({entity(user=None, client_id=None): limits(producer_byte_rate=1000)})
    assert own.produce(10_000, client_id="one") == 0
    assert own.produce(10_000, client_id="two") == own.produce(10_000, user="bob", client_id="one") == 0
    of_clients = World({entity(client_id=None): limits(producer_byte_rate=1000)})
    assert of_clients.produce(10_000) == 0
    assert of_clients.produce(1_000, user="bob") == 1_000


def test_virtual_clusters_share_nothing() -> None:
    world = World({entity(user=None): limits(producer_byte_rate=1000)})
    assert world.produce(10**6, cluster_id=2) == 0
    world.throttles.set_quotas(2, {entity(user=None): limits(producer_byte_rate=1000)})
    assert world.produce(10_500) == 500
    assert world.produce(10_000, cluster_id=2) == 0


def test_a_changed_limit_counts_at_once_for_what_was_measured_before() -> None:
    world = World({entity(user="alice"): limits(producer_byte_rate=1000)})
    assert world.produce(10_500) == 500
    world.throttles.set_quotas(1, {entity(user="alice"): limits(producer_byte_rate=2000)})
    assert world.produce(0) == 0
    world.throttles.set_quotas(1, {entity(user="alice"): limits(producer_byte_rate=500)})
    assert world.produce(0) == 11_000


# ---- time -----------------------------------------------------------------------------------------------------------


def test_time_is_a_percentage_and_nobody_waits_longer_than_a_window_for_it() -> None:
    world = World({entity(client_id="app"): limits(request_percentage=10)})
    assert world.spend_time(1.0) == 0  # A tenth of ten seconds.
    assert world.spend_time(0.05) == 500
    assert world.spend_time(5.0) == 1_000
    assert world.spend_time(5.0, client_id="another") == 0


def test_the_time_of_a_produce_request_counts_for_the_next_one() -> None:
    world = World({entity(client_id="app"): limits(request_percentage=10)})
    client = world.throttles.client(who("alice"))
    assert world.produce(1) == 0
    world.count_time(client, 1.05)
    assert world.produce(1) == 500
    assert world.throttles.throttled[QuotaKey.REQUEST_PERCENTAGE] == 1
    world.count_time(client, 5.0)
    assert world.produce(1) == 1_000


# ---- fetch ----------------------------------------------------------------------------------------------------------


def test_what_is_too_much_is_not_sent_and_not_counted() -> None:
    world = World({entity(user="alice"): limits(consumer_byte_rate=1000)})
    assert world.throttles.fetch_room(who("alice")) == 10_000
    assert world.throttles.fetch_room(who("bob")) is None
    assert world.fetch(9_000) == (0, True)
    assert world.fetch(2_000) == (1_000, False)
    assert world.fetch(1_000) == (0, True)


def test_a_batch_larger_than_a_small_limit_ever_allows_is_sent_and_paid_for() -> None:
    world = World({entity(user="alice"): limits(consumer_byte_rate=1000)})
    assert world.fetch(50_000) == (40_000, True)
    world.clock.time_ms += 10_000
    throttle_ms, allowed = world.fetch(1)
    assert throttle_ms > 0
    assert not allowed


def test_what_was_sent_anyway_is_paid_for() -> None:
    world = World({entity(user="alice"): limits(consumer_byte_rate=1000)})
    assert world.throttles.on_sent(who("alice"), 10_500) == 500
    assert world.throttles.on_sent(who("bob"), 10_500) == 0


# ---- changes --------------------------------------------------------------------------------------------------------

MUTATIONS = {entity(user="alice"): limits(controller_mutation_rate=5)}
"""A bucket of 55."""


def test_strictly_nothing_is_changed_while_credits_are_owed() -> None:
    world = World(MUTATIONS)
    first = world.throttles.allowance(who("alice"), strict=True)
    first.spend(60)
    assert first.throttle_time_ms() == 0
    for _ in range(2):
        with pytest.raises(Refused) as refusal:
            first.spend(1)
        assert refusal.value.code is ErrorCode.THROTTLING_QUOTA_EXCEEDED
    assert first.throttle_time_ms() == 1_000
    world.clock.time_ms += 400
    assert first.throttle_time_ms() == 600
    world.clock.time_ms += 600
    second = world.throttles.allowance(who("alice"), strict=True)
    second.spend(1)
    assert second.throttle_time_ms() == 0


def test_clients_that_do_not_know_the_error_wait_afterwards() -> None:
    world = World(MUTATIONS)
    allowance = world.throttles.allowance(who("alice"), strict=False)
    allowance.spend(60)
    assert allowance.throttle_time_ms() == 1_000
    allowance.spend(5)
    assert allowance.throttle_time_ms() == 2_000


def test_without_a_limit_anything_may_be_changed() -> None:
    assert World(MUTATIONS).throttles.allowance(who("bob"), strict=True) is UNLIMITED


# ---- connections ----------------------------------------------------------------------------------------------------


def test_connections_beyond_the_rate_of_an_address_are_turned_away() -> None:
    world = World({entity(ip="10.0.0.1"): limits(connection_creation_rate=2)})
    waits = [world.throttles.on_connection("10.0.0.1") for _ in range(22)]
    assert waits[:20] == [0] * 20
    assert waits[20:] == [500, 500]
    assert world.throttles.on_connection("10.0.0.2") == 0
    assert world.throttles.on_connection("::ffff:10.0.0.1") == 500
    assert world.throttles.on_connection("") == 0


def test_every_address_has_the_default_for_itself() -> None:
    world = World({entity(ip=None): limits(connection_creation_rate=1)})
    for number in range(3):
        assert [world.throttles.on_connection(f"10.0.0.{number}") for _ in range(10)] == [0] * 10
    assert world.throttles.on_connection("10.0.0.1") == 1_000


# ---- memory ---------------------------------------------------------------------------------------------------------


def test_meters_nobody_uses_make_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_MIN", 16)
    monkeypatch.setattr(module, "CLIENTS_MAX", 16)
    world = World({entity(client_id=None): limits(producer_byte_rate=1000, controller_mutation_rate=1)})
    world.throttles._keep = 16
    for number in range(1_000):
        world.clock.time_ms += 1_000
        assert world.produce(1, client_id=f"client-{number}") == 0
        assert world.throttles.meter_count <= 64
        assert len(world.throttles._clients) <= 16


def test_who_was_looked_up_is_looked_up_again_when_that_may_have_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of the same version the same is found: what counts for a client can be held on to until it goes up."""
    monkeypatch.setattr(module, "KEPT_MIN", 8)
    monkeypatch.setattr(module, "CLIENTS_MAX", 8)
    world, randomness = World({}), Random(7)
    world.throttles._keep = 8
    held: dict[int, tuple[int, ClientMeters]] = {}
    kept = outdated = 0
    for _ in range(2_000):
        match randomness.randrange(200):
            case 0:
                world.throttles.set_quotas(
                    1, {entity(client_id=None): limits(producer_byte_rate=randomness.randint(1, 9))}
                )
            case 1:
                world.throttles.set_quotas(1, {})
            case 2:
                world.throttles.set_cluster_limits(1, limits(request_rate=5) if randomness.random() < 0.5 else {})
            case 3:
                world.throttles.drop_cluster(1)
            case 4:
                world.clock.time_ms += 20_000
        number = randomness.randrange(12)
        version, client = held.get(number, (-1, None))
        found = world.throttles.client(who("alice", f"client-{number}"))
        if client is not None and version == world.throttles.version:
            assert found is client
            kept += 1
        elif client is not None:
            outdated += 1
        held[number] = world.throttles.version, found
        world.throttles.on_produce(found, 1, world.clock.monotonic() * 1000)
    assert kept > 100
    assert outdated > 100


@pytest.mark.parametrize("change", ["set_quotas", "set_cluster_limits", "drop_cluster"])
def test_every_change_of_limits_has_clients_looked_up_again(change: str) -> None:
    world = World({})
    before = world.throttles.version
    arguments = {"set_quotas": ({},), "set_cluster_limits": ({},), "drop_cluster": ()}[change]
    getattr(world.throttles, change)(1, *arguments)
    assert world.throttles.version > before


def test_a_debt_is_not_forgotten_to_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_MIN", 16)
    world = World({entity(client_id=None): limits(producer_byte_rate=1000)})
    world.throttles._keep = 16
    world.produce(20_000, client_id="debtor")
    for number in range(200):
        world.produce(1, client_id=f"client-{number}")
    assert world.produce(0, client_id="debtor") == 10_000


def test_made_up_names_share_a_meter_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "METERS_MAX", 16)
    world = World({entity(client_id=None): limits(producer_byte_rate=1000, controller_mutation_rate=5)})
    for number in range(100):
        world.produce(400, client_id=f"client-{number}")
        assert world.throttles.meter_count <= 16 + 2
    assert world.produce(400, client_id="one more") > 0
    assert world.produce(0, client_id="client-1") == 0


def test_names_that_one_tenant_makes_up_cost_another_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "METERS_MAX", 16)
    table = {entity(client_id=None): limits(producer_byte_rate=1000)}
    world = World(table)
    world.throttles.set_quotas(2, table)
    for number in range(100):
        world.produce(400, client_id=f"client-{number}")
    for number in range(5):
        assert world.produce(10_000, client_id=f"client-{number}", cluster_id=2) == 0
    assert world.throttles.meter_count <= 2 * 16
    assert world.produce(400, client_id="one more") > 0


def test_long_names_cost_no_more_than_short_ones() -> None:
    world = World({entity(client_id=None): limits(producer_byte_rate=1000)})
    assert world.produce(10_500, client_id="x" * 30_000) == 500
    assert world.produce(0, client_id="x" * 29_999 + "y") == 0
    assert all(len(name or "") < 100 for _, _, name in world.throttles._clients)


def test_settings_are_kafkas() -> None:
    assert QuotaSettings().windows == SampleWindows(samples=11, window_ms=1000)


@given(
    steps=st.lists(st.tuples(st.sampled_from((0.0, 0.5, 400.0, 1000.0, 12_000.0)), st.integers(0, 6000)), max_size=12),
    limits=st.tuples(st.sampled_from((None, 1000.0)), st.sampled_from((None, 0.5))),
)
def test_the_quick_way_counts_the_same_compiled_or_not(
    steps: list[tuple[float, int]], limits: tuple[float | None, float | None]
) -> None:
    seen = []
    for within, spend in (
        (count_within_limits, count_time), (reference(count_within_limits), reference(count_time)),
    ):  # fmt: skip
        client, now_ms = ClientMeters(), 1000.0
        client.produce, client.request_time = (
            None if one is None else Meter(Rate(SampleWindows()), one) for one in limits
        )
        meters = [meter for meter in (client.produce, client.request_time) if meter is not None]
        told = []
        for wait_ms, size in steps:
            now_ms += wait_ms
            before = [meter.rate.total for meter in meters]
            is_within = within(client, size, now_ms)
            if not is_within:
                assert [meter.rate.total for meter in meters] == before
                if client.produce is not None:
                    client.produce.charge(size, now_ms)
            spend(client, now_ms, now_ms + size / 1000)
            told.append(
                (is_within, [(meter.rate.total, meter.rate.last_ms, meter.rate.sample_ends_ms) for meter in meters])
            )
        seen.append(told)
    assert seen[0] == seen[1]
    assert seen[0] == [] or not client.produce or not seen[0][0][0]  # A sample has to be begun.
