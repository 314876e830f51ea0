"""Outcomes of changes, read from responses; and denials in responses that no authorization decision has logged. Pure.

A guard's denial is a decision, and is logged as one. Some handlers deny as well, where no ACL could allow it: that has
to be recognised in the response.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from types import MappingProxyType
from typing import Any, NamedTuple

from penstock.audit.changes import CHANGES, ChangeResult, RequestedChange
from penstock.audit.details import shortened
from penstock.audit.model import Json, Resource
from penstock.authorization.guards.table import PLATFORM_ADMIN_ONLY
from penstock.base.acls import Operation, ResourceType
from penstock.wire.api_keys import ApiKey
from penstock.wire.error_codes import ErrorCode

_K = ApiKey

DENIALS: Mapping[int, frozenset[ResourceType]] = MappingProxyType(
    {
        ErrorCode.TOPIC_AUTHORIZATION_FAILED: frozenset({ResourceType.TOPIC}),
        ErrorCode.GROUP_AUTHORIZATION_FAILED: frozenset({ResourceType.GROUP}),
        ErrorCode.CLUSTER_AUTHORIZATION_FAILED: frozenset({ResourceType.CLUSTER}),
        ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: frozenset({ResourceType.TRANSACTIONAL_ID}),
        ErrorCode.DELEGATION_TOKEN_AUTHORIZATION_FAILED: frozenset({ResourceType.DELEGATION_TOKEN, ResourceType.USER}),
    }
)
"""Errors of denials, with the resource type. If the authorizer decided, the decision is already logged."""

DENIED = ErrorCode.CLUSTER_AUTHORIZATION_FAILED
"""Errors of denials on the cluster, or on the platform."""

DENYING_HANDLERS: Mapping[int, Operation] = MappingProxyType(
    {
        **dict.fromkeys(PLATFORM_ADMIN_ONLY, Operation.ALTER),
        _K.DESCRIBE_CONFIGS: Operation.DESCRIBE_CONFIGS,
        _K.ALTER_CONFIGS: Operation.ALTER_CONFIGS,
        _K.INCREMENTAL_ALTER_CONFIGS: Operation.ALTER_CONFIGS,
    }
)
"""APIs whose handlers deny some changes that ACLs allow, with the denied operation: those of resources of the platform,
such as log levels."""


def error_codes_of(api_key: int, response: Any) -> Iterator[int]:
    """The codes of a response, one by one: `DENIED` where a handler denied something."""
    if api_key in CHANGES:
        yield from (answer.error for answer in CHANGES[api_key].results(response))
    else:
        yield getattr(response, "error_code", 0)
        yield from (one.error_code for one in getattr(response, "results", ()))


class ChangeOutcome(NamedTuple):
    """The outcome of one requested change."""

    resource: Resource
    error: int | None
    details: Mapping[str, Json]


def outcome_of(
    asked: RequestedChange, answer: ChangeResult | None, denied: Set[ResourceType] = frozenset()
) -> ChangeOutcome | None:  # fmt: skip
    """The outcome of one requested change; unknown without an answer. None if a decision has logged it already, on a
    resource type in `denied`."""
    if answer is None:
        return ChangeOutcome(asked.resource, None, shortened(asked.details))
    if denied & DENIALS.get(answer.error, frozenset()):
        return None
    details = {**asked.details, **answer.details} if answer.details else asked.details
    return ChangeOutcome(answer.resource or asked.resource, answer.error, shortened(details))
