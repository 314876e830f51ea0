"""What became of what a request asked for, by its answer; and whether that was a denial which nobody has told of. Pure.

A guard's denial is a decision, and told as one. Some handlers refuse as well, what no ACL can allow: that has to be
found in the answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from types import MappingProxyType
from typing import Any, NamedTuple

from penstock.audit.changes import CHANGES, Answered, Asked
from penstock.audit.details import shortened
from penstock.audit.model import Json, Resource
from penstock.authorization.guards.table import PLATFORM
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
"""Errors that say that something is not allowed, and on what. The decision itself has told of it, if one was made."""

DENIED = ErrorCode.CLUSTER_AUTHORIZATION_FAILED
"""What an answer says to those who may not do something to the cluster, or to the platform."""

JUDGES: Mapping[int, Operation] = MappingProxyType(
    {
        **dict.fromkeys(PLATFORM, Operation.ALTER),
        _K.DESCRIBE_CONFIGS: Operation.DESCRIBE_CONFIGS,
        _K.ALTER_CONFIGS: Operation.ALTER_CONFIGS,
        _K.INCREMENTAL_ALTER_CONFIGS: Operation.ALTER_CONFIGS,
    }
)
"""APIs whose handlers refuse some things to those whom ACLs allow them: what is the platform's, log levels among it."""


def codes_of(api_key: int, response: Any) -> Iterator[int]:
    """What an answer says of each thing that was asked for, one by one: `DENIED` where a handler has refused it."""
    if api_key in CHANGES:
        yield from (answer.error for answer in CHANGES[api_key].answered(response))
    else:
        yield getattr(response, "error_code", 0)
        yield from (one.error_code for one in getattr(response, "results", ()))


class Outcome(NamedTuple):
    """One thing that was, or was not, changed."""

    resource: Resource
    error: int | None
    details: Mapping[str, Json]


def outcome_of(
    asked: Asked, answer: Answered | None, denied: Set[ResourceType] = frozenset()
) -> Outcome | None:  # fmt: skip
    """What became of one thing; without an answer nobody knows. None if a decision has told of it already, on one of
    the kinds of resources in `denied`."""
    if answer is None:
        return Outcome(asked.resource, None, shortened(asked.details))
    if denied & DENIALS.get(answer.error, frozenset()):
        return None
    details = {**asked.details, **answer.details} if answer.details else asked.details
    return Outcome(answer.resource or asked.resource, answer.error, shortened(details))
