"""Client telemetry: combined subscriptions, rate limits of clients, and the error codes of pushes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.base.randomness import uuid_text
from penstock.telemetry import transitions
from penstock.telemetry.model import ClientState, TelemetryClient, combined_subscription, subscription_matches
from penstock.wire.error_codes import ErrorCode

ID = bytes(range(16))
CLIENT = TelemetryClient(
    instance_id=ID, client_id="orders-app", software_name="apache-kafka-java", software_version="4.3.1",
    address="10.0.0.7", port=54321,
)  # fmt: skip
LATER = 1_000_000


def asked(*subscriptions: dict[str, str], client: TelemetryClient = CLIENT):
    return combined_subscription(client, [one for one in subscriptions if subscription_matches(client, one)])


def test_without_subscriptions_no_metrics_are_requested() -> None:
    found = asked()
    assert (found.metrics, found.interval_ms) == ((), 300_000)


def test_matching_subscriptions_are_combined() -> None:
    found = asked(
        {"metrics": "a.,b.", "interval.ms": "60000"}, {"metrics": "b.,c."}, {"metrics": "z.", "match": "client_id=no"}
    )
    assert (found.metrics, found.interval_ms) == (("a.", "b.", "c."), 60_000)
    assert asked({"metrics": "a."}, {"metrics": "*"}).metrics == ("*",)


@pytest.mark.parametrize(
    ("match", "matches"),
    [
        ("", True),
        ("client_id=orders-.*", True),
        ("client_id=orders", False),
        ("client_software_name=apache-kafka-java,client_software_version=4\\..*", True),
        ("client_software_name=apache-kafka-java,client_software_version=3\\..*", False),
        (f"client_instance_id={uuid_text(ID)}", True),
        ("client_source_address=10\\.0\\.0\\..*,client_source_port=54321", True),
    ],
)
def test_a_subscription_matches_client_attributes(match: str, matches: bool) -> None:
    assert bool(asked({"metrics": "a.", "match": match}).metrics) is matches


def test_attributes_longer_than_the_limit_match_nothing() -> None:
    """Matching time grows with pattern and value, which users and clients choose."""
    for length, matches in ((512, True), (513, False)):
        assert subscription_matches(replace(CLIENT, client_id="x" * length), {"match": "client_id=x*"}) is matches


def test_a_missing_attribute_matches_nothing() -> None:
    silent = TelemetryClient(instance_id=ID)
    assert asked({"metrics": "a.", "match": "client_software_name=.*"}, client=silent).metrics == ()


def test_the_subscription_id_depends_on_metrics_interval_and_client() -> None:
    other = replace(CLIENT, instance_id=bytes(16))
    found = {
        asked({"metrics": "a."}).subscription_id, asked({"metrics": "b."}).subscription_id,
        asked({"metrics": "a.", "interval.ms": "1000"}).subscription_id,
        asked({"metrics": "a."}, client=other).subscription_id,
    }  # fmt: skip
    assert len(found) == 4
    assert all(-(2**31) <= number < 2**31 for number in found)
    assert asked({"metrics": "a."}).subscription_id == asked({"metrics": "a."}, {"metrics": "a."}).subscription_id


# ---- asking and pushing ---------------------------------------------------------------------------------------------

WANTED = asked({"metrics": "a.", "interval.ms": "1000"})
NEW = transitions.current(None, WANTED)


def push(instance: ClientState, now_ms: int, **options: object) -> tuple[ClientState, ErrorCode]:
    return transitions.push(
        instance, now_ms,
        **{
            "subscription_id": WANTED.subscription_id, "compression": 4, "size_bytes": 10, "max_bytes": 100,
            "terminating": False, **options,
        },
    )  # fmt: skip


def test_a_client_may_get_and_push_once_per_interval() -> None:
    instance, error = transitions.get(NEW, LATER)
    assert error is ErrorCode.NONE
    assert transitions.get(instance, LATER + 999) == (instance, ErrorCode.THROTTLING_QUOTA_EXCEEDED)
    assert transitions.get(instance, LATER + 1000)[1] is ErrorCode.NONE
    # The first push comes as soon as the client likes, because clients spread theirs.
    instance, error = push(instance, LATER + 1)
    assert error is ErrorCode.NONE
    assert push(instance, LATER + 1000)[1] is ErrorCode.THROTTLING_QUOTA_EXCEEDED
    assert push(instance, LATER + 1001)[1] is ErrorCode.NONE


def test_a_terminating_client_may_push_at_once_but_not_again() -> None:
    instance, _ = push(NEW, LATER)
    instance, error = push(instance, LATER + 1, terminating=True)
    assert error is ErrorCode.NONE
    assert instance.last_push_ms == LATER, "a push out of turn does not move the interval"
    assert push(instance, LATER + 5_000)[1] is ErrorCode.INVALID_REQUEST


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"subscription_id": WANTED.subscription_id + 1}, ErrorCode.UNKNOWN_SUBSCRIPTION_ID),
        ({"compression": 5}, ErrorCode.UNSUPPORTED_COMPRESSION_TYPE),
        ({"compression": -1}, ErrorCode.UNSUPPORTED_COMPRESSION_TYPE),
        ({"compression": 0}, ErrorCode.NONE),
        ({"size_bytes": 101}, ErrorCode.TELEMETRY_TOO_LARGE),
    ],
)
def test_pushes_that_are_refused(options: dict[str, object], code: ErrorCode) -> None:
    instance, error = push(NEW, LATER, **options)
    assert error is code
    again = transitions.get(instance, LATER + 1)[1]
    may_ask = code in transitions.MAY_GET_AT_ONCE
    assert again is (ErrorCode.NONE if may_ask else ErrorCode.THROTTLING_QUOTA_EXCEEDED)


def test_who_is_asked_for_something_else_begins_anew() -> None:
    instance, _ = transitions.get(NEW, LATER)
    assert transitions.current(instance, WANTED) is instance
    other = asked({"metrics": "b.", "interval.ms": "1000"})
    renewed = transitions.current(instance, other)
    assert push(renewed, LATER + 1)[1] is ErrorCode.UNKNOWN_SUBSCRIPTION_ID
    assert transitions.get(renewed, LATER + 1)[1] is ErrorCode.NONE


@given(pauses=st.lists(st.integers(0, 3_000), max_size=30))
def test_nobody_pushes_more_often_than_once_per_interval(pauses: list[int]) -> None:
    instance, now, accepted = NEW, LATER, 0
    for pause in pauses:
        now += pause
        instance, error = push(instance, now)
        accepted += error is ErrorCode.NONE
    assert accepted <= 1 + (now - LATER) // 1000
