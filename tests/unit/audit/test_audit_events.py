"""What events say, field by field."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from penstock.audit.events import METHODS, Origin, crn, encoded, event_of, timestamp
from penstock.audit.model import (
    API_KEY,
    GROUP,
    TEXT_MAX,
    THE_CLUSTER,
    TOPIC,
    Attempted,
    Caller,
    Changed,
    Decided,
    Ended,
    Lost,
    Resource,
    caller_of,
)
from penstock.authorization.rules import DEFAULT_DENY, SUPER_USER, Verdict
from penstock.base.acls import Acl, Operation, Permission, ResourceType
from penstock.base.context import RequestContext
from penstock.wire.api_keys import ApiKey
from penstock.wire.error_codes import ErrorCode

AT_MS = 1_609_504_496_789
ALICE = Caller(1, "User:alice", "client-1", "10.0.0.7", 5, 42)
EVENT_ID = "e5ababff-c6b5-4f19-9e03-be3f12e81643"


def told(fact):
    event = event_of(fact, EVENT_ID, lambda cluster_id: f"lkc-{cluster_id}", Origin("1", "a1b2"))
    assert json.loads(encoded(event)) == event
    return event


def test_a_denial_has_the_fields_of_confluents_events() -> None:
    acl = Acl(
        resource_type=ResourceType.TOPIC, resource_name="pay", principal="User:*", host="*", operation=Operation.WRITE,
        permission=Permission.DENY,
    )  # fmt: skip
    verdict = Verdict(False, acl)
    fact = Decided(AT_MS, ALICE, ApiKey.PRODUCE, Operation.WRITE, ResourceType.TOPIC, "pay rolls", verdict, 17)
    assert told(fact) == {
        "specversion": "1.0",
        "id": EVENT_ID,
        "source": "crn:///kafka=lkc-1",
        "type": "io.confluent.kafka.server/authorization",
        "datacontenttype": "application/json",
        "subject": "crn:///kafka=lkc-1/topic=pay%20rolls",
        "time": "2021-01-01T12:34:56.789Z",
        "agent": "1",
        "run": "a1b2",
        "sequence": "000000000017",
        "data": {
            "serviceName": "crn:///kafka=lkc-1",
            "methodName": "kafka.Produce",
            "resourceName": "crn:///kafka=lkc-1/topic=pay%20rolls",
            "authenticationInfo": {"principal": "User:alice"},
            "authorizationInfo": {
                "granted": False,
                "operation": "Write",
                "resourceType": "Topic",
                "resourceName": "pay rolls",
                "patternType": "LITERAL",
                "aclAuthorization": {"permissionType": "DENY", "host": "*", "actingPrincipal": "User:*"},
            },
            "request": {"correlation_id": "42", "client_id": "client-1"},
            "requestMetadata": {"client_address": "10.0.0.7", "connection_id": "5"},
        },
    }


def test_what_decided_when_no_rule_did() -> None:
    def info(verdict: Verdict):
        asked = ApiKey.CREATE_ACLS, Operation.ALTER_CONFIGS, ResourceType.CLUSTER, "kafka-cluster"
        event = told(Decided(AT_MS, ALICE, *asked, verdict))
        assert event["subject"] == "crn:///kafka=lkc-1"
        return event["data"]["authorizationInfo"]

    assert info(SUPER_USER)["superUserAuthorization"] is True
    denied = info(DEFAULT_DENY)
    assert "superUserAuthorization" not in denied
    assert "aclAuthorization" not in denied
    assert (denied["operation"], denied["resourceType"]) == ("AlterConfigs", "Cluster")


@pytest.mark.parametrize(
    ("principal", "identifier", "status", "shown"),
    [
        ("User:alice", "KEY", "SUCCESS", "User:alice"),
        ("", "alice", "UNAUTHENTICATED", "None:UNKNOWN_USER"),
        ("", None, "UNKNOWN_USER_DENIED", "None:UNKNOWN_USER"),
    ],
)
def test_attempts(principal: str, identifier: str | None, status: str, shown: str) -> None:
    caller = Caller(1, principal, None, "10.0.0.7", 5)
    event = told(Attempted(AT_MS, caller, "SASL_SSL/PLAIN", identifier, status, "because"))
    assert (event["type"], event["subject"]) == ("io.confluent.kafka.server/authentication", "crn:///kafka=lkc-1")
    metadata = {"mechanism": "SASL_SSL/PLAIN"} | ({} if identifier is None else {"identifier": identifier})
    assert event["data"] == {
        "serviceName": "crn:///kafka=lkc-1",
        "methodName": "kafka.Authentication",
        "resourceName": "crn:///kafka=lkc-1",
        "authenticationInfo": {"principal": shown, "metadata": metadata},
        "requestMetadata": {"client_address": "10.0.0.7", "connection_id": "5"},
        "result": {"status": status, "message": "because"},
    }


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (0, "SUCCESS", ""),
        (ErrorCode.TOPIC_ALREADY_EXISTS, "FAILURE", "TOPIC_ALREADY_EXISTS"),
        (12345, "FAILURE", "12345"),
        (None, "UNKNOWN", "The request was not answered; it may have been carried out."),
    ],
)
def test_changes(error: int | None, status: str, message: str) -> None:
    event = told(Changed(AT_MS, ALICE, ApiKey.CREATE_TOPICS, Resource(TOPIC, "x"), error, {"num_partitions": 3}))
    assert (event["type"], event["subject"]) == ("io.confluent.kafka.server/request", "crn:///kafka=lkc-1/topic=x")
    data = event["data"]
    assert data["methodName"] == "kafka.CreateTopics"
    assert data["authenticationInfo"] == {"principal": "User:alice"}
    assert data["request"] == {
        "correlation_id": "42", "client_id": "client-1", "accessType": "MODIFICATION", "data": {"num_partitions": 3},
    }  # fmt: skip
    assert data["result"] == {"status": status, "message": message}


def test_a_loss_names_the_cluster_of_the_dropped_events() -> None:
    event = told(Lost(AT_MS + 5, AT_MS, 17, 7))
    assert "sequence" not in event  # What was lost has the numbers.
    assert (event["type"], event["source"]) == ("io.penstock.audit/loss", "crn:///kafka=lkc-7")
    assert event["data"]["result"]["message"] == "17 events of lkc-7 were lost."
    assert event["data"]["loss"] == {
        "count": 17, "since": "2021-01-01T12:34:56.789Z", "until": "2021-01-01T12:34:56.794Z",
    }  # fmt: skip


def test_names_of_resources_and_methods() -> None:
    assert crn("a/b") == "crn:///kafka=a%2Fb"
    assert crn("c", Resource(GROUP, "g/1=ä")) == "crn:///kafka=c/group=g%2F1%3D%C3%A4"
    assert crn("c", Resource(API_KEY, "K")) == "crn:///kafka=c/api-key=K"
    assert crn("c", THE_CLUSTER) == "crn:///kafka=c"
    assert METHODS[ApiKey.FETCH] == "kafka.FetchConsumer"
    assert METHODS[ApiKey.ALTER_USER_SCRAM_CREDENTIALS] == "kafka.AlterUserScramCredentials"
    assert timestamp(-1) == "1969-12-31T23:59:59.999Z"


def test_what_a_client_chooses_is_cut() -> None:
    context = RequestContext(principal="User:" + "x" * 9999, client_id="y" * 32767, connection_id=3)
    caller = caller_of(context, 1)
    assert len(caller.principal) == len(caller.client_id or "") == TEXT_MAX
    assert caller_of(RequestContext(), None).client_id is None


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_what_json_has_no_number_for_is_no_event(number: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        encoded({"data": number})


OF_CLOUDEVENTS = {"specversion", "id", "source", "type", "datacontenttype", "subject", "time"}
EXTENSIONS = {"agent", "run", "sequence"}
OF_EVERY_EVENT = {"data.serviceName", "data.methodName", "data.resourceName"}
RESULT = {"data.result.status", "data.result.message"}
WHO = {"data.authenticationInfo.principal"}
WHENCE = {"data.requestMetadata.client_address", "data.requestMetadata.connection_id"}
REQUEST = {"data.request.correlation_id", "data.request.client_id"}
VERDICT = {
    f"data.authorizationInfo.{name}"
    for name in (
        "granted", "operation", "resourceType", "resourceName", "patternType", "aclAuthorization.permissionType",
        "aclAuthorization.host", "aclAuthorization.actingPrincipal", "superUserAuthorization",
    )
}  # fmt: skip
METADATA = {f"data.authenticationInfo.metadata.{name}" for name in ("mechanism", "identifier")}
CHANGE = {"data.request.accessType", "data.request.data.num_partitions"}
LOSS = {"data.loss.count", "data.loss.since", "data.loss.until"}
FIELDS = {
    "io.confluent.kafka.server/authentication": WHO | METADATA | WHENCE | RESULT,
    "io.confluent.kafka.server/authorization": WHO | VERDICT | REQUEST | WHENCE,
    "io.confluent.kafka.server/request": WHO | REQUEST | CHANGE | WHENCE | RESULT,
    "io.penstock.audit/loss": LOSS | RESULT,
    "io.penstock.audit/end": RESULT,
}
"""Every field of every type. Those of Confluent's types have Confluent's names; nobody may rename them."""


def paths(value: object, before: str = "") -> set[str]:
    if not isinstance(value, dict):
        return {before}
    return {path for name, one in value.items() for path in paths(one, f"{before}.{name}" if before else name)}


def test_the_schema() -> None:
    acl = Acl(
        resource_type=ResourceType.TOPIC, resource_name="pay", principal="User:*", host="*", operation=Operation.WRITE,
        permission=Permission.DENY,
    )  # fmt: skip
    asked = ApiKey.PRODUCE, Operation.WRITE, ResourceType.TOPIC, "pay"
    facts = [
        Attempted(AT_MS, ALICE, "SASL_SSL/PLAIN", "alice", "UNAUTHENTICATED", "because"),
        Decided(AT_MS, ALICE, *asked, Verdict(False, acl)),
        Decided(AT_MS, ALICE, *asked, SUPER_USER),
        Changed(AT_MS, ALICE, ApiKey.CREATE_TOPICS, Resource(TOPIC, "x"), 0, {"num_partitions": 3}),
        Lost(AT_MS + 5, AT_MS, 17, 7),
        Ended(AT_MS, 0, 18),
    ]
    found: dict[str, set[str]] = {}
    for fact in facts:
        event = told(fact)
        found.setdefault(event["type"], set()).update(paths(event))
    for kind, fields in FIELDS.items():
        extensions = EXTENSIONS - ({"sequence"} if kind == "io.penstock.audit/loss" else set())
        assert found.pop(kind) == OF_CLOUDEVENTS | extensions | OF_EVERY_EVENT | fields, kind
    assert not found


def test_every_field_is_in_the_reference() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "reference" / "audit-events.md").read_text()
    fields = OF_CLOUDEVENTS | EXTENSIONS | OF_EVERY_EVENT | set().union(*FIELDS.values())
    documented = set(re.findall(r"`([\w.]+)`", page))
    missing = {name for name in fields if name not in documented and f".{name.rpartition('.')[2]}" not in documented}
    assert missing == {"data.request.data.num_partitions"}, "the details of each API have a table of their own"
