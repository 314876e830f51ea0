"""Facts: what is captured during a request, to make an event of later. They are short and contain no secrets.

Capturing happens in the middle of a request, so a fact is a few references and short texts. Clients choose many of
these texts: each is cut, and the queue of facts is bounded in bytes as well as in number.
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
"""The longest text chosen by clients that is kept. No topic, user or key has a longer name."""

CLUSTER, TOPIC, GROUP, USER = "Cluster", "Topic", "Group", "User"
TRANSACTIONAL_ID, DELEGATION_TOKEN = "TransactionalId", "DelegationToken"
SERVICE_ACCOUNT, API_KEY = "ServiceAccount", "ApiKey"
VIRTUAL_CLUSTER, ENVIRONMENT = "VirtualCluster", "Environment"
"""These two belong to the deployment, not to a cluster; events name the cluster that the caller was in."""


class Resource(NamedTuple):
    """A resource in a virtual cluster."""

    kind: str
    name: str = ""


THE_CLUSTER = Resource(CLUSTER)


class Caller(NamedTuple):
    """Who sent a request, from where, and which one."""

    cluster_id: int
    principal: str
    client_id: str | None
    client_address: str
    connection_id: int
    correlation_id: int | None = None


class Attempted(NamedTuple):
    """An authentication. `caller.principal` is empty if it failed."""

    at_ms: int
    caller: Caller
    mechanism: str
    identifier: str | None
    """The claimed name, if there is a principal of that name."""
    status: str
    message: str
    number: int = 0
    """Number among all facts of this run of the agent; the same in the other facts."""


class Decided(NamedTuple):
    """An authorization decision."""

    at_ms: int
    caller: Caller
    api_key: int
    operation: Operation
    resource_type: ResourceType
    resource_name: str
    verdict: Verdict
    number: int = 0


class Changed(NamedTuple):
    """An administrative change, or an attempt at one."""

    at_ms: int
    caller: Caller
    api_key: int
    resource: Resource
    error: int | None
    """Kafka's error code; None if the client disconnected, or the response was lost."""
    details: Mapping[str, Json]
    number: int = 0


class Lost(NamedTuple):
    """A number of facts of a cluster that were dropped."""

    at_ms: int
    since_ms: int
    number: int
    cluster_id: int


class Ended(NamedTuple):
    """The agent stops, after logging everything it captured."""

    at_ms: int
    cluster_id: int
    number: int


CapturedFact = Attempted | Decided | Changed
Fact = CapturedFact | Lost | Ended
_TUPLES_BYTES = 400
"""Memory of a fact without its texts: its own tuple, its caller's, and their numbers."""


def cut(text: str) -> str:
    """A text, cut to the limit."""
    return text if len(text) <= TEXT_MAX else text[:TEXT_MAX]


def size_of(fact: CapturedFact) -> int:
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
    """What is kept of a caller."""
    client_id = context.client_id
    return Caller(
        context.cluster_id, cut(context.principal), None if client_id is None else cut(client_id), context.client_host,
        context.connection_id, correlation_id,
    )  # fmt: skip
