"""Facts that are worth an event. What is kept of them is short, and nothing of it is a secret.

A fact is taken in the middle of a request, so it is a few references and short texts; the event is made of it later.
Clients choose many of these texts: each is cut, and what waits is bounded in bytes and not only in number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from sys import getsizeof
from typing import NamedTuple, assert_never

from penstock.authorization.rules import Verdict
from penstock.base.acls import Operation, ResourceType
from penstock.base.context import RequestContext

Json = None | bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"]

TEXT_MAX = 512
"""Characters of a text that somebody else has chosen. No topic, user or key has a longer name."""

CLUSTER, TOPIC, GROUP, USER = "Cluster", "Topic", "Group", "User"
TRANSACTIONAL_ID, DELEGATION_TOKEN = "TransactionalId", "DelegationToken"
SERVICE_ACCOUNT, API_KEY = "ServiceAccount", "ApiKey"
VIRTUAL_CLUSTER, ENVIRONMENT = "VirtualCluster", "Environment"
"""These two are not in a cluster, but of the deployment; they are told of the cluster that the caller was in."""


class Resource(NamedTuple):
    """A thing in a virtual cluster."""

    kind: str
    name: str = ""


THE_CLUSTER = Resource(CLUSTER)


class Caller(NamedTuple):
    """Who asked, from where, and in which request."""

    cluster_id: int
    principal: str
    client_id: str | None
    client_address: str
    connection_id: int
    correlation_id: int | None = None


class Attempted(NamedTuple):
    """Somebody tried to prove who they are. `caller.principal` is empty if that failed."""

    at_ms: int
    caller: Caller
    mechanism: str
    identifier: str | None
    """The name that was claimed, where there is one of that name."""
    status: str
    message: str
    number: int = 0
    """In the count of everything that the agent has heard since it started; so in all that are heard."""


class Decided(NamedTuple):
    """It was decided whether somebody may do something."""

    at_ms: int
    caller: Caller
    api_key: int
    operation: Operation
    resource_type: ResourceType
    resource_name: str
    verdict: Verdict
    number: int = 0


class Changed(NamedTuple):
    """Somebody changed something, or tried to."""

    at_ms: int
    caller: Caller
    api_key: int
    resource: Resource
    error: int | None
    """Kafka's code; None where nobody was left to be answered, or the answer was lost."""
    details: Mapping[str, Json]
    number: int = 0


class Lost(NamedTuple):
    """There are facts of a cluster that no event tells of."""

    at_ms: int
    since_ms: int
    number: int
    cluster_id: int


class Ended(NamedTuple):
    """The agent stops, and has told what it heard."""

    at_ms: int
    cluster_id: int
    number: int


Heard = Attempted | Decided | Changed
Fact = Heard | Lost | Ended
_TUPLES_BYTES = 400
"""A fact without its texts: its own tuple, its caller's, and their numbers."""


def cut(text: str) -> str:
    """A text that is not too long."""
    return text if len(text) <= TEXT_MAX else text[:TEXT_MAX]


def size_of(fact: Heard) -> int:
    """About how many bytes a fact takes. What it shares with others counts for each."""
    caller = fact.caller
    size = _TUPLES_BYTES + getsizeof(caller.principal) + getsizeof(caller.client_id) + getsizeof(caller.client_address)
    match fact:
        case Decided():
            return size + getsizeof(fact.resource_name)
        case Changed():
            return size + getsizeof(fact.resource.name) + _size_of(fact.details)
        case Attempted():
            return size + getsizeof(fact.identifier) + getsizeof(fact.message)
        case _:
            assert_never(fact)


def _size_of(value: Json) -> int:
    size = getsizeof(value)
    match value:
        case str():
            return size
        case Mapping():
            return size + sum(getsizeof(name) + _size_of(item) for name, item in value.items())
        case Sequence():
            return size + sum(map(_size_of, value))
        case _:
            return size


def caller_of(context: RequestContext, correlation_id: int | None) -> Caller:
    """What is kept of who asks."""
    client_id = context.client_id
    return Caller(
        context.cluster_id, cut(context.principal), None if client_id is None else cut(client_id), context.client_host,
        context.connection_id, correlation_id,
    )  # fmt: skip
