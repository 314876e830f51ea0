"""From facts to events: CloudEvents 1.0 in JSON, with the names that Confluent's audit log gives their fields. Pure.

The reference (docs/reference/audit-events.md) lists every field beside Confluent's.

Resources are named by Confluent's resource names: `crn:///kafka=CLUSTER/topic=NAME`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple, assert_never
from urllib.parse import quote

from penstock.audit.model import (
    API_KEY,
    CLUSTER,
    DELEGATION_TOKEN,
    ENVIRONMENT,
    GROUP,
    SERVICE_ACCOUNT,
    THE_CLUSTER,
    TOPIC,
    TRANSACTIONAL_ID,
    USER,
    VIRTUAL_CLUSTER,
    Attempted,
    Caller,
    Changed,
    Decided,
    Ended,
    Fact,
    Json,
    Lost,
    Resource,
)
from penstock.authorization.rules import SUPER_USER
from penstock.base.acls import PatternType, ResourceType
from penstock.wire.api_keys import ApiKey
from penstock.wire.error_codes import ErrorCode

AUTHENTICATION = "io.confluent.kafka.server/authentication"
AUTHORIZATION = "io.confluent.kafka.server/authorization"
REQUEST = "io.confluent.kafka.server/request"
LOSS = "io.penstock.audit/loss"
END = "io.penstock.audit/end"
CONTENT_TYPE = "application/cloudevents+json; charset=UTF-8"
"""The media type of a record that contains a whole CloudEvent, for the header `content-type`."""

SUCCESS, FAILURE, UNKNOWN = "SUCCESS", "FAILURE", "UNKNOWN"
UNAUTHENTICATED, UNKNOWN_USER = "UNAUTHENTICATED", "UNKNOWN_USER_DENIED"
NOBODY_KNOWN = "None:UNKNOWN_USER"
"""The principal of a failed authentication."""

_SEGMENTS = {
    TOPIC: "topic", GROUP: "group", USER: "user", TRANSACTIONAL_ID: "transactional-id",
    DELEGATION_TOKEN: "delegation-token", SERVICE_ACCOUNT: "service-account", API_KEY: "api-key",
    VIRTUAL_CLUSTER: "virtual-cluster", ENVIRONMENT: "environment",
}  # fmt: skip

Names = Callable[[int], str]
"""The Kafka cluster id of a virtual cluster."""


class Origin(NamedTuple):
    """The agent and its run, within which facts are numbered."""

    agent: str
    run: str
    """The run of the agent: from its start to its end, however it ends."""


def camel(name: str) -> str:
    """`CREATE_TOPICS` in Kafka's spelling of API names: `CreateTopics`."""
    return "".join(part.capitalize() for part in name.split("_"))


KINDS: Mapping[ResourceType, str] = {kind: camel(kind.name) for kind in ResourceType}
METHODS: Mapping[int, str] = {
    **{int(key): f"kafka.{camel(key.name)}" for key in ApiKey}, int(ApiKey.FETCH): "kafka.FetchConsumer",
}  # fmt: skip
"""Confluent's names: Kafka's, except that a fetch is by a consumer or by a follower."""


def crn(cluster: str, resource: Resource = THE_CLUSTER) -> str:
    """The Confluent resource name of a resource."""
    root = f"crn:///kafka={quote(cluster, safe='')}"
    if resource.kind == CLUSTER:
        return root
    return f"{root}/{_SEGMENTS[resource.kind]}={quote(resource.name, safe='')}"


def timestamp(at_ms: int) -> str:
    """A time in RFC 3339."""
    seconds, millis = divmod(at_ms, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{millis:03d}Z"


def event_of(fact: Fact, event_id: str, names: Names, origin: Origin) -> dict[str, Json]:
    """The event for a fact."""
    return _event_of(fact, event_id, names) | _place_of(fact, origin)


def _event_of(fact: Fact, event_id: str, names: Names) -> dict[str, Json]:
    match fact:
        case Attempted():
            return _event(event_id, fact.at_ms, AUTHENTICATION, names(fact.caller.cluster_id), _attempt(fact))
        case Decided():
            return _event(event_id, fact.at_ms, AUTHORIZATION, names(fact.caller.cluster_id), _decision(fact))
        case Changed():
            return _event(event_id, fact.at_ms, REQUEST, names(fact.caller.cluster_id), _change(fact))
        case Lost():
            cluster = names(fact.cluster_id)
            return _event(event_id, fact.at_ms, LOSS, cluster, _loss(fact, cluster))
        case Ended():
            told = {"result": {"status": SUCCESS, "message": "The agent stops; all captured events are logged."}}
            return _event(event_id, fact.at_ms, END, names(fact.cluster_id), ("audit.End", THE_CLUSTER, told))
        case _:
            assert_never(fact)


def _place_of(fact: Fact, origin: Origin) -> dict[str, Json]:
    """The position of a fact among all facts of its run. CloudEvents' name for it is `sequence`, a text."""
    place: dict[str, Json] = {"agent": origin.agent, "run": origin.run}
    return place if isinstance(fact, Lost) else {**place, "sequence": f"{fact.number:012d}"}


def encoded(event: Mapping[str, Json]) -> bytes:
    """The event as stored. Raises `ValueError` for a number that JSON does not have."""
    return json.dumps(event, separators=(",", ":"), allow_nan=False).encode("ascii")


def _event(
    event_id: str, at_ms: int, kind: str, cluster: str, told: tuple[str, Resource, dict[str, Any]]
) -> dict[str, Json]:
    method, resource, more = told
    name = crn(cluster, resource)
    return {
        "specversion": "1.0",
        "id": event_id,
        "source": crn(cluster),
        "type": kind,
        "datacontenttype": "application/json",
        "subject": name,
        "time": timestamp(at_ms),
        "data": {"serviceName": crn(cluster), "methodName": method, "resourceName": name, **more},
    }


def _attempt(fact: Attempted) -> tuple[str, Resource, dict[str, Any]]:
    metadata = {"mechanism": fact.mechanism}
    if fact.identifier is not None:
        metadata["identifier"] = fact.identifier
    return "kafka.Authentication", THE_CLUSTER, {
        "authenticationInfo": {"principal": fact.caller.principal or NOBODY_KNOWN, "metadata": metadata},
        "requestMetadata": _metadata(fact.caller),
        "result": {"status": fact.status, "message": fact.message},
    }  # fmt: skip


def _decision(fact: Decided) -> tuple[str, Resource, dict[str, Any]]:
    verdict, kind = fact.verdict, KINDS[fact.resource_type]
    info: dict[str, Json] = {
        "granted": verdict.allowed,
        "operation": camel(fact.operation.name),
        "resourceType": kind,
        "resourceName": fact.resource_name,
        "patternType": PatternType.LITERAL.name,
    }
    if verdict.acl is not None:
        acl = verdict.acl
        info["aclAuthorization"] = {
            "permissionType": acl.permission.name, "host": acl.host, "actingPrincipal": acl.principal,
        }  # fmt: skip
    elif verdict == SUPER_USER:
        info["superUserAuthorization"] = True
    return METHODS.get(fact.api_key, "kafka.Unknown"), _resource(kind, fact.resource_name), {
        "authenticationInfo": {"principal": fact.caller.principal},
        "authorizationInfo": info,
        "request": _request(fact.caller),
        "requestMetadata": _metadata(fact.caller),
    }  # fmt: skip


def _change(fact: Changed) -> tuple[str, Resource, dict[str, Any]]:
    status, message = UNKNOWN, "The request was not answered; it may have been carried out."
    if fact.error is not None:
        status, message = (FAILURE, error_name(fact.error)) if fact.error else (SUCCESS, "")
    request: dict[str, Json] = {**_request(fact.caller), "accessType": "MODIFICATION"}
    if fact.details:
        request["data"] = fact.details
    return METHODS[fact.api_key], fact.resource, {
        "authenticationInfo": {"principal": fact.caller.principal},
        "request": request,
        "requestMetadata": _metadata(fact.caller),
        "result": {"status": status, "message": message},
    }  # fmt: skip


def _loss(fact: Lost, cluster: str) -> tuple[str, Resource, dict[str, Any]]:
    return "audit.Loss", THE_CLUSTER, {
        "loss": {"count": fact.number, "since": timestamp(fact.since_ms), "until": timestamp(fact.at_ms)},
        "result": {"status": FAILURE, "message": f"{fact.number} events of {cluster} were lost."},
    }  # fmt: skip


def _resource(kind: str, name: str) -> Resource:
    return THE_CLUSTER if kind == CLUSTER else Resource(kind, name)


def _request(caller: Caller) -> dict[str, Json]:
    request: dict[str, Json] = {}
    if caller.correlation_id is not None:
        request["correlation_id"] = str(caller.correlation_id)
    if caller.client_id is not None:
        request["client_id"] = caller.client_id
    return request


def _metadata(caller: Caller) -> dict[str, Json]:
    metadata: dict[str, Json] = {"client_address": caller.client_address}
    if caller.connection_id:
        metadata["connection_id"] = str(caller.connection_id)
    return metadata


def error_name(code: int) -> str:
    """Kafka's name of an error. The message may repeat what the client has sent, so it is not logged."""
    return ErrorCode(code).name if code in ErrorCode._value2member_map_ else str(code)
