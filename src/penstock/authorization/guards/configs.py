"""Guards of configuration: decided per resource. Those of brokers, loggers and client metrics need an operation on the
cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from penstock.authorization.guards.access import (
    CLUSTER,
    CLUSTER_DENIED,
    GROUP,
    GROUP_DENIED,
    TOPIC,
    TOPIC_DENIED,
    Denial,
    Handler,
    RequestAccess,
)
from penstock.base.acls import CLUSTER_NAME, Operation, ResourceType
from penstock.base.cooperative import count_keys, yield_if_due
from penstock.wire.messages import alter_configs as altering
from penstock.wire.messages import describe_configs as describing
from penstock.wire.messages import incremental_alter_configs as incremental

_TOPIC, _GROUP = 2, 32
_OF_CLUSTER = frozenset((4, 8, 16))
"""Kafka's numbers of configuration resources: topics, groups; brokers, broker loggers and client metrics."""


def _needed(kind: int, name: str) -> tuple[ResourceType, str, Denial] | None:
    """The ACL resource that a configuration resource needs; None for an unknown type, which the handler refuses."""
    if kind == _TOPIC:
        return TOPIC, name, TOPIC_DENIED
    if kind == _GROUP:
        return GROUP, name, GROUP_DENIED
    return (CLUSTER, CLUSTER_NAME, CLUSTER_DENIED) if kind in _OF_CLUSTER else None


def _denial(access: RequestAccess, operation: Operation, kind: int, name: str) -> Denial | None:
    needed = _needed(kind, name)
    if needed is None:
        return None
    resource_type, resource_name, denial = needed
    return None if access.may(operation, resource_type, resource_name) else denial


class _Resource(Protocol):
    """A resource in a configuration request."""

    resource_type: int
    resource_name: str


R = TypeVar("R", bound=_Resource)
A = TypeVar("A")


async def _divide(
    access: RequestAccess, operation: Operation, resources: Sequence[R], refused_by: Callable[..., A]
) -> tuple[list[R], list[A]]:
    """The allowed resources, and the results of the denied ones. Resources that a request alters twice pass: the
    handler refuses them."""
    seen = await count_keys((resource.resource_type, resource.resource_name) for resource in resources)
    allowed, refused = [], []
    for number, resource in enumerate(resources):
        await yield_if_due(number)
        kind, name = resource.resource_type, resource.resource_name
        is_ambiguous = operation is Operation.ALTER_CONFIGS and seen[kind, name] > 1
        denial = None if is_ambiguous else _denial(access, operation, kind, name)
        if denial is None:
            allowed.append(resource)
        else:
            refused.append(
                refused_by(error_code=denial.code, error_message=denial.message, resource_type=kind, resource_name=name)
            )
    return allowed, refused


async def describe_configs(
    access: RequestAccess, request: describing.DescribeConfigsRequest, handle: Handler
) -> describing.DescribeConfigsResponse:
    """DESCRIBE_CONFIGS on each resource, else 29, 30 or 31."""
    request.resources, refused = await _divide(
        access, Operation.DESCRIBE_CONFIGS, request.resources, describing.DescribeConfigsResult
    )
    response: describing.DescribeConfigsResponse = await handle(request)
    response.results.extend(refused)
    return response


async def alter_configs(
    access: RequestAccess, request: altering.AlterConfigsRequest, handle: Handler
) -> altering.AlterConfigsResponse:
    """ALTER_CONFIGS on each resource, else 29, 30 or 31."""
    request.resources, refused = await _divide(
        access, Operation.ALTER_CONFIGS, request.resources, altering.AlterConfigsResourceResponse
    )
    response: altering.AlterConfigsResponse = await handle(request)
    response.responses.extend(refused)
    return response


async def incremental_alter_configs(
    access: RequestAccess, request: incremental.IncrementalAlterConfigsRequest, handle: Handler
) -> incremental.IncrementalAlterConfigsResponse:
    """ALTER_CONFIGS on each resource, else 29, 30 or 31."""
    request.resources, refused = await _divide(
        access, Operation.ALTER_CONFIGS, request.resources, incremental.AlterConfigsResourceResponse
    )
    response: incremental.IncrementalAlterConfigsResponse = await handle(request)
    response.responses.extend(refused)
    return response
