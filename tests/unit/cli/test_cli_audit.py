"""Events in a line, as people read them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from penstock.audit.events import encoded, event_of
from penstock.audit.model import TOPIC, Attempted, Caller, Changed, Decided, Fact, Lost, Resource
from penstock.authorization.rules import DEFAULT_DENY, SUPER_USER
from penstock.base.acls import Operation, ResourceType
from penstock.cli.audit import _event_of, _is_picked, _line, summary_of
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
}


def event(name: str) -> Any:
    return json.loads(encoded(event_of(FACTS[name], "id", lambda _: "x")))


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
    assert picked(principal="User:alice") == set(FACTS) - {"unknown", "lost"}
    assert picked(principal="User:bob") == set()
    assert picked(principal="User:alice", denied=True) == {"denied", "wrong"}


@pytest.mark.parametrize("value", [None, b"", b"hello", b"[1]", b'{"data": 3}', b"\xff"])
def test_what_is_no_event_is_passed_over(value: bytes | None) -> None:
    assert _event_of(value) is None


def test_a_terminal_is_not_told_what_to_do() -> None:
    summary = summary_of({"type": "x/request", "data": {"resourceName": "crn:///kafka=x/topic=\x1b[2J"}})
    assert "\x1b" not in _line(summary, colours=False)
    assert summary_of({"data": {"authenticationInfo": 3}}).principal == ""
