"""Guards of configuration: each resource by itself. Brokers, their loggers and client metrics belong to the cluster."""

from __future__ import annotations

from collections import Counter

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


async def describe_configs(
    access: Access, request: describing.DescribeConfigsRequest, ask: Ask
) -> describing.DescribeConfigsResponse:
    """DESCRIBE_CONFIGS on each resource, else 29, 30 or 31."""
    allowed, refused = [], []
    for resource in request.resources:
        kind, name = resource.resource_type, resource.resource_name
        refusal = _refusal(access, Operation.DESCRIBE_CONFIGS, kind, name)
        if refusal is None:
            allowed.append(resource)
        else:
            refused.append(
                describing.DescribeConfigsResult(
                    error_code=refusal.code, error_message=refusal.message, resource_type=kind, resource_name=name
                )
            )
    request.resources = allowed
    response: describing.DescribeConfigsResponse = await ask(request)
    response.results.extend(refused)
    return response


async def alter_configs(
    access: Access, request: altering.AlterConfigsRequest, ask: Ask
) -> altering.AlterConfigsResponse:
    """ALTER_CONFIGS on each resource, else 29, 30 or 31."""
    seen = Counter((resource.resource_type, resource.resource_name) for resource in request.resources)
    allowed, refused = [], []
    for resource in request.resources:
        kind, name = resource.resource_type, resource.resource_name
        refusal = None if seen[kind, name] > 1 else _refusal(access, Operation.ALTER_CONFIGS, kind, name)
        if refusal is None:
            allowed.append(resource)
        else:
            refused.append(
                altering.AlterConfigsResourceResponse(
                    error_code=refusal.code, error_message=refusal.message, resource_type=kind, resource_name=name
                )
            )
    request.resources = allowed
    response: altering.AlterConfigsResponse = await ask(request)
    response.responses.extend(refused)
    return response


async def incremental_alter_configs(
    access: Access, request: incremental.IncrementalAlterConfigsRequest, ask: Ask
) -> incremental.IncrementalAlterConfigsResponse:
    """ALTER_CONFIGS on each resource, else 29, 30 or 31."""
    seen = Counter((resource.resource_type, resource.resource_name) for resource in request.resources)
    allowed, refused = [], []
    for resource in request.resources:
        kind, name = resource.resource_type, resource.resource_name
        refusal = None if seen[kind, name] > 1 else _refusal(access, Operation.ALTER_CONFIGS, kind, name)
        if refusal is None:
            allowed.append(resource)
        else:
            refused.append(
                incremental.AlterConfigsResourceResponse(
                    error_code=refusal.code, error_message=refusal.message, resource_type=kind, resource_name=name
                )
            )
    request.resources = allowed
    response: incremental.IncrementalAlterConfigsResponse = await ask(request)
    response.responses.extend(refused)
    return response
