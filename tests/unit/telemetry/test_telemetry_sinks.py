"""OTLP, byte by byte; and where metrics go."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter

import pytest
from fixtures.clocks import ManualClock
from hypothesis import given
from hypothesis import strategies as st

from penstock.telemetry import otlp, sinks
from penstock.telemetry.otlp import Point, points, with_labels
from penstock.telemetry.sinks import MetricsPage, OtlpForwarder
from penstock.wire.primitives import Malformed


def field(number: int, data: bytes) -> bytes:
    return otlp._field(number, data)


def attribute(name: str, text: str) -> bytes:
    return field(1, name.encode()) + field(2, field(1, text.encode()))


def metrics(*found: Point, resource: bytes = b"") -> bytes:
    """A `MetricsData` of one resource."""
    encoded = []
    for point in found:
        number = bytes((4 << 3 | 1,)) + otlp._DOUBLE.pack(point.value)
        data_point = b"".join(field(7, attribute(*each)) for each in point.attributes) + number
        shape = field(1, data_point) + (b"\x10\x02\x18\x01" if point.is_sum else b"")
        encoded.append(field(2, field(1, point.name.encode()) + field(7 if point.is_sum else 5, shape)))
    return field(1, field(1, resource) + field(2, b"".join(encoded)))


NAMES = st.text(max_size=8)
POINTS = st.builds(
    Point, name=NAMES, is_sum=st.booleans(), value=st.floats(allow_nan=False),
    attributes=st.lists(st.tuples(NAMES, NAMES), max_size=3).map(tuple),
)  # fmt: skip


@given(found=st.lists(POINTS, max_size=4))
def test_numbers_come_out_as_they_went_in(found: list[Point]) -> None:
    data = metrics(*found)
    assert list(points(data)) == found
    assert list(points(with_labels(data, {"a": "b"}))) == found


def test_labels_are_added_to_the_resource() -> None:
    data = with_labels(metrics(resource=field(1, attribute("mine", "1"))) + metrics(), {"client_id": "ä" * 100})
    (first, second) = list(otlp._messages(memoryview(data), 1))
    added = [
        otlp._read_attribute(one)
        for resource in otlp._messages(first, otlp.RESOURCE)
        for one in otlp._messages(resource, otlp.ATTRIBUTES)
    ]
    assert added == [("mine", "1"), ("client_id", "ä" * 100)]
    assert len(list(otlp._messages(second, otlp.RESOURCE))) == 2


def test_nobody_says_in_their_own_metrics_that_they_are_somebody_else() -> None:
    """A tenant who gives its resource the label of another one would be taken for it, where the first of two counts."""
    forged = [("virtual_cluster", "1"), ("mine", "1"), ("principal", "User:admin"), ("principal", "User:root")]
    resource = b"".join(field(1, attribute(name, text)) for name, text in forged) + b"\x10\x05"
    labels = {"virtual_cluster": "7", "principal": "User:bob"}
    data = with_labels(field(1, field(1, resource) + field(3, b"schema") + field(1, resource)), labels)
    (only,) = otlp._messages(memoryview(data), 1)
    resources = list(otlp._messages(only, otlp.RESOURCE))
    added = [otlp._read_attribute(one) for resource in resources for one in otlp._messages(resource, otlp.ATTRIBUTES)]
    assert added == [("mine", "1"), ("mine", "1"), *labels.items()]
    assert [value for resource in resources for number, value in otlp._fields(resource) if number == 2] == [5, 5]
    assert b"schema" in data


@given(data=st.binary(max_size=60))
def test_anything_else_is_malformed_or_harmless(data: bytes) -> None:
    for read in (lambda: list(points(data)), lambda: with_labels(data, {"a": "b"})):
        with contextlib.suppress(Malformed):
            read()


@given(found=st.lists(POINTS, min_size=1, max_size=3), cut=st.integers(1, 30))
def test_what_is_cut_off_is_not_handed_on(found: list[Point], cut: int) -> None:
    data = metrics(*found)
    with pytest.raises(Malformed):
        with_labels(data[: max(1, len(data) - cut)], {})


# ---- forwarding -----------------------------------------------------------------------------------------------------


class Receiver:
    """Takes what is posted, when it is let."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.open = asyncio.Event()
        self.failures = 0

    async def __call__(self, body: bytes) -> None:
        await self.open.wait()
        if self.failures:
            self.failures -= 1
            raise ConnectionRefusedError("nobody there")
        self.bodies.append(body)


ONE = metrics(Point(name="a", is_sum=True, value=1.0, attributes=()))


async def settle(forwarder: OtlpForwarder) -> None:
    assert forwarder._task is not None
    await forwarder._task


async def test_pushes_that_wait_travel_together() -> None:
    receiver = Receiver()
    forwarder = OtlpForwarder(receiver, ManualClock())
    for _ in range(5):
        forwarder.read((1, b"c"), {}, ONE, 60)()
    receiver.open.set()
    await settle(forwarder)
    assert sum(len(list(points(body))) for body in receiver.bodies) == 5
    assert len(receiver.bodies) == 1
    assert (forwarder.dropped, forwarder._waiting_bytes) == (0, 0)


async def test_a_receiver_that_is_away_costs_metrics_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    receiver = Receiver()
    receiver.failures = 2
    receiver.open.set()
    forwarder = OtlpForwarder(receiver, ManualClock())
    for dropped in (1, 2, 2):
        forwarder.read((1, b"c"), {}, ONE, 60)()
        await settle(forwarder)
        assert forwarder.dropped == dropped
    assert len(receiver.bodies) == 1
    assert caplog.text.count("could not be sent to the OTLP receiver") == 1


async def test_what_waits_for_a_slow_receiver_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks, "WAITING_MAX_BYTES", 3 * len(with_labels(ONE, {})))
    forwarder = OtlpForwarder(Receiver(), ManualClock())
    for _ in range(10):
        forwarder.read((1, b"c"), {}, ONE, 60)()
        await asyncio.sleep(0)
    assert forwarder.dropped == 7
    await forwarder.close()


# ---- the page -------------------------------------------------------------------------------------------------------


def test_the_page_shows_the_latest_numbers_until_they_are_old() -> None:
    clock = ManualClock()
    page = MetricsPage(clock)
    point = Point(name="org.apache.kafka.x", is_sum=False, value=1.5, attributes=(("topic-name", "t"),))
    page.read((1, b"c1"), {"client_id": "app"}, metrics(point), 60)()
    page.read((1, b"c1"), {"client_id": "app"}, metrics(Point(**{**_dict(point), "value": 2.5})), 60)()
    (series,) = page.series()
    assert (series.name, series.value) == ("org_apache_kafka_x", 2.5)
    assert series.labels == {"topic_name": "t", "client_id": "app"}
    clock.time_ms += 60_000
    assert list(page.series()) == []


def _dict(point: Point) -> dict[str, object]:
    return {name: getattr(point, name) for name in ("name", "is_sum", "value", "attributes")}


def test_the_page_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks, "SERIES_MAX", 25)
    monkeypatch.setattr(sinks, "SERIES_MAX_PER_CLIENT", 10)
    page = MetricsPage(ManualClock())
    many = metrics(*(Point(name=f"m{number}", is_sum=True, value=1.0, attributes=()) for number in range(15)))
    for number in range(4):
        page.read((1, b"%d" % number), {}, many, 60)()
    assert len(list(page.series())) == 25
    assert page.dropped == 4, "pushes, whatever is left of them"


def test_no_tenant_keeps_others_from_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """By an id of its own for each push, and a subscription that has its numbers last for hours."""
    monkeypatch.setattr(sinks, "SERIES_MAX", 30)
    clock = ManualClock()
    page = MetricsPage(clock)
    many = metrics(*(Point(name=f"m{number}", is_sum=True, value=1.0, attributes=()) for number in range(5)))
    for number in range(20):
        page.read((7, b"%d" % number), {"virtual_cluster": "7"}, many, 10_000)()
    for cluster_id in (8, 9):
        for number in range(2):
            page.read((cluster_id, b"%d" % number), {"virtual_cluster": str(cluster_id)}, many, 60)()
    for number in range(20):
        page.read((7, b"x%d" % number), {"virtual_cluster": "7"}, many, 10_000)()
    shown = Counter(series.labels["virtual_cluster"] for series in page.series())
    assert shown == {"7": 10, "8": 10, "9": 10}
    assert page.dropped == 38, "pushes that others had to make room for, and that found none"
    clock.time_ms += 60_000
    page.read((7, b"y"), {"virtual_cluster": "7"}, many, 60)()
    assert len(list(page.series())) == 15


def test_what_the_page_keeps_of_a_client_is_bounded() -> None:
    page = MetricsPage(ManualClock())
    long = "x" * sinks.SERIES_MAX_CHARS
    page.read((1, b"c1"), {}, metrics(Point(name="m", is_sum=True, value=1.0, attributes=(("topic", long),))), 60)()
    page.read((1, b"c2"), {}, metrics(Point(name=long + "x", is_sum=True, value=1.0, attributes=())), 60)()
    page.read((1, b"c3"), {"client_id": long}, metrics(Point(name="m", is_sum=True, value=1.0, attributes=())), 60)()
    page.read((1, b"c4"), {}, metrics(), 60)()
    assert list(page.series()) == []
    assert page.dropped == 3
    assert not page._clients
