"""Events in a line, as people read them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from penstock.audit.events import Origin, encoded, event_of
from penstock.audit.model import TOPIC, Attempted, Caller, Changed, Decided, Ended, Fact, Lost, Resource
from penstock.authorization.rules import DEFAULT_DENY, SUPER_USER
from penstock.base.acls import Operation, ResourceType
from penstock.cli.audit import Runs, _event_of, _is_picked, _line, summary_of
from penstock.wire.api_keys import ApiKey

ALICE, NOBODY = Caller(1, "User:alice", "c", "10.0.0.7", 5, 1), Caller(1, "", None, "10.0.0.7", 5)
WRITE = ApiKey.PRODUCE, Operation.WRITE, ResourceType.TOPIC, "t"
FACTS: dict[str, Fact] = {
    "denied": Decided(0, ALICE, *WRITE, DEFAULT_DENY),
    "allowed": Decided(0, ALICE, *WRITE, SUPER_USER),
    "login": Attempted(0, ALICE, "SASL_SSL/PLAIN", "alice", "SUCCESS", ""),
    "wrong": Attempted(0, NOBODY, "SASL_SSL/PLAIN", "alice", "UNAUTHENTICATED", "no"),
    "unknown": Attempted(0, NOBODY, "SASL_SSL/PLAIN", None, "UNKNOWN_USER_DENIED", "no"),
    "done": Changed(0, ALICE, ApiKey.CREATE_TOPICS, Resource(TOPIC, "t"), 0, {}),
    "failed": Changed(0, ALICE, ApiKey.CREATE_TOPICS, Resource(TOPIC, "t"), 36, {}),
    "open": Changed(0, ALICE, ApiKey.CREATE_TOPICS, Resource(TOPIC, "t"), None, {}),
    "lost": Lost(0, 0, 3, 1),
    "end": Ended(0, 0, 9),
}


def as_read(fact: Fact, run: str = "r", agent: str = "1") -> Any:
    return json.loads(encoded(event_of(fact, "id", lambda _: "x", Origin(agent, run))))


def event(name: str) -> Any:
    return as_read(FACTS[name])


@pytest.mark.parametrize(
    ("name", "outcome", "who", "what"),
    [
        ("denied", "denied", "User:alice", "Write topic=t"),
        ("allowed", "allowed", "User:alice", "Write topic=t"),
        ("login", "allowed", "User:alice", "SASL_SSL/PLAIN"),
        ("wrong", "denied", "(alice)", "SASL_SSL/PLAIN: no"),
        ("unknown", "denied", "(unknown)", "SASL_SSL/PLAIN: no"),
        ("done", "done", "User:alice", "topic=t"),
        ("failed", "failed", "User:alice", "topic=t: TOPIC_ALREADY_EXISTS"),
        ("open", "unknown", "User:alice", "topic=t: The request was not answered; it may have been carried out."),
        ("lost", "lost", "", "cluster: 3 events of x were lost."),
        ("end", "done", "", "cluster: The agent stops; all captured events are logged."),
    ],
)
def test_lines(name: str, outcome: str, who: str, what: str) -> None:
    summary = summary_of(event(name))
    assert (summary.outcome, summary.what) == (outcome, what)
    line = _line(summary, colours=False)
    assert who in line
    assert line.endswith(what + "\n")
    assert ("\x1b" in _line(summary, colours=True)) == (outcome in ("denied", "failed", "lost"))


def test_what_is_picked() -> None:
    events = {name: event(name) for name in FACTS}

    def picked(**asked: Any) -> set[str]:
        asked = {"denied": False, "principal": None, **asked}
        return {name for name, one in events.items() if _is_picked(one, **asked)}

    assert picked() == set(FACTS)
    assert picked(denied=True) == {"denied", "wrong", "unknown", "lost"}
    assert picked(principal="User:alice") == set(FACTS) - {"unknown", "lost", "end"}
    assert picked(principal="User:bob") == set()
    assert picked(principal="User:alice", denied=True) == {"denied", "wrong"}


@pytest.mark.parametrize("value", [None, b"", b"hello", b"[1]", b'{"data": 3}', b"\xff"])
def test_what_is_no_event_is_passed_over(value: bytes | None) -> None:
    assert _event_of(value) is None


def test_a_terminal_is_not_told_what_to_do() -> None:
    summary = summary_of({"type": "x/request", "data": {"resourceName": "crn:///kafka=x/topic=\x1b[2J"}})
    assert "\x1b" not in _line(summary, colours=False)
    assert summary_of({"data": {"authenticationInfo": 3}}).principal == ""


def numbered(number: int, run: str = "r", agent: str = "1") -> Any:
    return as_read(Decided(0, ALICE, *WRITE, DEFAULT_DENY, number), run, agent)


def ended(number: int, run: str = "r") -> Any:
    return as_read(Ended(0, 0, number), run)


CUT_SHORT = "the agent ended without a stop, and what it had heard last may be missing"


@pytest.mark.parametrize(
    ("events", "missing"),
    [
        ([numbered(7), numbered(8), event("lost"), numbered(9), ended(10)], None),
        ([numbered(7), numbered(9)], "1 event is missing"),
        ([numbered(7), numbered(12)], "4 events are missing"),
        ([numbered(7), ended(10)], "2 events are missing"),
        ([numbered(7), numbered(8), numbered(7), numbered(8), numbered(9)], None),
        ([numbered(7), ended(8), numbered(1, "s")], None),
        ([numbered(7), ended(8), numbered(3, "s")], "2 events are missing"),
        ([numbered(7), numbered(1, "s")], CUT_SHORT),
        ([numbered(7), numbered(2, "s")], f"{CUT_SHORT}; 1 event is missing"),
        ([numbered(7), numbered(1, "s", agent="2"), numbered(8), numbered(2, "s", agent="2")], None),
        ([{"sequence": "x"}, {"run": 3}, {}, {"run": "r", "sequence": "-1"}], None),
    ],
)
def test_what_is_missing_is_seen_by_the_numbers(events: list[Any], missing: str | None) -> None:
    runs = Runs()
    found = [note for one in events if (note := runs.missing_before(one)) is not None]
    assert found == ([] if missing is None else [f"Before 1970-01-01T00:00:00.000Z: {missing}."])
