"""Guards of configuration: each resource by itself. Brokers, their loggers and client metrics belong to the cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from penstock.authorization.guards.access import (
    CLUSTER,
    GROUP,
    NO_CLUSTER,
    NO_GROUP,
    NO_TOPIC,
    TOPIC,
    Access,
    Ask,
    Refusal,
)
from penstock.base.acls import CLUSTER_NAME, Operation, ResourceType
from penstock.base.portions import breathe, counted
from penstock.wire.messages import alter_configs as altering
from penstock.wire.messages import describe_configs as describing
from penstock.wire.messages import incremental_alter_configs as incremental

_TOPIC, _GROUP = 2, 32
_OF_CLUSTER = frozenset((4, 8, 16))
"""Numbers of configuration resources: of topics, of groups; of brokers, loggers and client metrics."""


def _needed(kind: int, name: str) -> tuple[ResourceType, str, Refusal] | None:
    """On what something must be allowed; None for a kind there is not, which the handler refuses."""
    if kind == _TOPIC:
        return TOPIC, name, NO_TOPIC
    if kind == _GROUP:
        return GROUP, name, NO_GROUP
    return (CLUSTER, CLUSTER_NAME, NO_CLUSTER) if kind in _OF_CLUSTER else None


def _refusal(access: Access, operation: Operation, kind: int, name: str) -> Refusal | None:
    needed = _needed(kind, name)
    if needed is None:
        return None
    resource_type, resource_name, refusal = needed
    return None if access.may(operation, resource_type, resource_name) else refusal


class _Resource(Protocol):
    """What requests about configuration name."""

    resource_type: int
    resource_name: str


R = TypeVar("R", bound=_Resource)
A = TypeVar("A")


async def _divide(
    access: Access, operation: Operation, resources: Sequence[R], refused_by: Callable[..., A]
) -> tuple[list[R], list[A]]:
    """What may be asked for, and the answers about the rest. A change of what is named twice is refused by others."""
    seen = await counted((resource.resource_type, resource.resource_name) for resource in resources)
    allowed, refused = [], []
    for number, resource in enumerate(resources):
        await breathe(number)
        kind, name = resource.resource_type, resource.resource_name
        is_ambiguous = operation is Operation.ALTER_CONFIGS and seen[kind, name] > 1
        refusal = None if is_ambiguous else _refusal(access, operation, kind, name)
        if refusal is None:
            allowed.append(resource)
        else:
            refused.append(
                refused_by(
                    error_code=refusal.code, error_message=refusal.message, resource_type=kind, resource_name=name
                )
            )
    return allowed, refused


async def describe_configs(
    access: Access, request: describing.DescribeConfigsRequest, ask: Ask
) -> describing.DescribeConfigsResponse:
    """DESCRIBE_CONFIGS on each resource, else 29, 30 or 31."""
    request.resources, refused = await _divide(
        access, Operation.DESCRIBE_CONFIGS, request.resources, describing.DescribeConfigsResult
    )
    response: describing.DescribeConfigsResponse = await ask(request)
    response.results.extend(refused)
    return response


async def alter_configs(
    access: Access, request: altering.AlterConfigsRequest, ask: Ask
) -> altering.AlterConfigsResponse:
    """ALTER_CONFIGS on each resource, else 29, 30 or 31."""
    request.resources, refused = await _divide(
        access, Operation.ALTER_CONFIGS, request.resources, altering.AlterConfigsResourceResponse
    )
    response: altering.AlterConfigsResponse = await ask(request)
    response.responses.extend(refused)
    return response


async def incremental_alter_configs(
    access: Access, request: incremental.IncrementalAlterConfigsRequest, ask: Ask
) -> incremental.IncrementalAlterConfigsResponse:
    """ALTER_CONFIGS on each resource, else 29, 30 or 31."""
    request.resources, refused = await _divide(
        access, Operation.ALTER_CONFIGS, request.resources, incremental.AlterConfigsResourceResponse
    )
    response: incremental.IncrementalAlterConfigsResponse = await ask(request)
    response.responses.extend(refused)
    return response
