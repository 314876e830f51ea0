"""What became of what a request asked for, by its answer; and whether that was a denial which nobody has told of. Pure.

A guard's denial is a decision, and told as one. Some handlers refuse as well, what no ACL can allow: that has to be
found in the answer.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence, Set
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

JUDGES: Mapping[int, Operation] = MappingProxyType(
    {
        **dict.fromkeys(PLATFORM, Operation.ALTER),
        _K.DESCRIBE_CONFIGS: Operation.DESCRIBE_CONFIGS,
        _K.ALTER_CONFIGS: Operation.ALTER_CONFIGS,
        _K.INCREMENTAL_ALTER_CONFIGS: Operation.ALTER_CONFIGS,
    }
)
"""APIs whose handlers refuse some things to those whom ACLs allow them: what is the platform's, log levels among it."""


def denies(api_key: int, response: Any) -> bool:
    """Whether an answer says that the caller may not do this to the cluster, or to the platform."""
    codes: Iterable[int]
    if api_key in CHANGES:
        codes = (answer.error for answer in CHANGES[api_key].answered(response))
    else:
        codes = (getattr(response, "error_code", 0), *(one.error_code for one in getattr(response, "results", ())))
    return ErrorCode.CLUSTER_AUTHORIZATION_FAILED in codes


class Outcome(NamedTuple):
    """One thing that was, or was not, changed."""

    resource: Resource
    error: int | None
    details: Mapping[str, Json]


def outcomes(
    api_key: int, asked: Sequence[Asked], response: Any | None, denied: Set[ResourceType] = frozenset()
) -> Iterator[Outcome]:
    """What became of it; without a response nobody knows. Not again what a decision has told of, on the kinds of
    resources in `denied`."""
    answers: dict[Hashable, Answered] = {}
    if response is not None:
        answers = {answer.key: answer for answer in CHANGES[api_key].answered(response)}
    for one in asked:
        answer = answers.get(one.key)
        if answer is None:
            yield Outcome(one.resource, None, shortened(one.details))
        elif not denied & DENIALS.get(answer.error, frozenset()):
            details = {**one.details, **answer.details} if answer.details else one.details
            yield Outcome(answer.resource or one.resource, answer.error, shortened(details))
