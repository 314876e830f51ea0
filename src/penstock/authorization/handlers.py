"""Kafka's ACL APIs over `AclService`. Their guards check whether the caller may use them."""

from __future__ import annotations

from operator import attrgetter

from penstock.authorization.service import EXCESSIVE, MAX_CHANGES, AclService
from penstock.authorization.validation import has_filter_element, invalid_filter_reason
from penstock.base.acls import Acl, AclFilter, Operation, PatternType, Permission, ResourceType, enum_or_unknown
from penstock.base.context import RequestContext
from penstock.base.cooperative import map_each, map_nested, sort_items, yield_if_due
from penstock.base.errors import PlatformError
from penstock.wire.error_codes import ErrorCode
from penstock.wire.failures import change_failure
from penstock.wire.messages.create_acls import (
    AclCreation,
    AclCreationResult,
    CreateAclsRequest,
    CreateAclsResponse,
)
from penstock.wire.messages.delete_acls import (
    DeleteAclsFilter,
    DeleteAclsFilterResult,
    DeleteAclsMatchingAcl,
    DeleteAclsRequest,
    DeleteAclsResponse,
)
from penstock.wire.messages.describe_acls import (
    AclDescription,
    DescribeAclsRequest,
    DescribeAclsResource,
    DescribeAclsResponse,
)
from penstock.wire.primitives import Malformed

DISABLED = "No Authorizer is configured."


class AclHandlers:
    """DescribeAcls, CreateAcls and DeleteAcls."""

    def __init__(self, acls: AclService | None) -> None:
        """Without a service, requests are not authorized, and the APIs answer SECURITY_DISABLED."""
        self._acls = acls

    async def describe_acls(self, context: RequestContext, request: DescribeAclsRequest) -> DescribeAclsResponse:
        """DescribeAcls, key 29, v1-3. v1: prefixed patterns. v2: flexible. v3: users as resources."""
        asked = _filter(
            request.resource_type_filter, request.resource_name_filter, request.pattern_type_filter,
            request.principal_filter, request.host_filter, request.operation, request.permission_type,
        )  # fmt: skip
        if self._acls is None:
            return DescribeAclsResponse(
                error_code=ErrorCode.SECURITY_DISABLED, error_message="No Authorizer is configured on the broker"
            )
        resources: dict[tuple[ResourceType, str, PatternType], DescribeAclsResource] = {}
        found = await sort_items(await self._acls.matching(context.cluster_id, asked), _in_order)
        for number, acl in enumerate(found):
            await yield_if_due(number)
            pattern = (acl.resource_type, acl.resource_name, acl.pattern_type)
            if pattern not in resources:
                resources[pattern] = DescribeAclsResource(
                    resource_type=acl.resource_type, resource_name=acl.resource_name, pattern_type=acl.pattern_type
                )
            resources[pattern].acls.append(
                AclDescription(
                    principal=acl.principal, host=acl.host, operation=acl.operation, permission_type=acl.permission
                )
            )
        return DescribeAclsResponse(error_message=None, resources=list(resources.values()))

    async def create_acls(self, context: RequestContext, request: CreateAclsRequest) -> CreateAclsResponse:
        """CreateAcls, key 30, v1-3. v1: prefixed patterns. v2: flexible. v3: users as resources. Idempotent."""
        if len(request.creations) > MAX_CHANGES:
            return CreateAclsResponse(
                results=[AclCreationResult(error_code=ErrorCode.POLICY_VIOLATION, error_message=EXCESSIVE)]
                * len(request.creations)
            )
        acls = await map_each(request.creations, _acl)
        if self._acls is None:
            disabled = AclCreationResult(error_code=ErrorCode.SECURITY_DISABLED, error_message=DISABLED)
            return CreateAclsResponse(results=[disabled] * len(acls))
        if any(has_filter_element(acl) for acl in acls):
            # Kafka answers every creation with this error, and creates none.
            failed = AclCreationResult(error_code=ErrorCode.UNKNOWN_SERVER_ERROR, error_message=None)
            return CreateAclsResponse(results=[failed] * len(acls))
        try:
            complaints = await self._acls.create(context.cluster_id, acls)
        except PlatformError as problem:
            code, message = change_failure(problem, invalid=ErrorCode.POLICY_VIOLATION)
            failed = AclCreationResult(error_code=code, error_message=message)
            return CreateAclsResponse(results=[failed] * len(acls))
        return CreateAclsResponse(
            results=await map_each(
                complaints,
                lambda complaint: (
                    AclCreationResult()
                    if complaint is None
                    else AclCreationResult(error_code=ErrorCode.INVALID_REQUEST, error_message=complaint)
                ),
            )
        )

    async def delete_acls(self, context: RequestContext, request: DeleteAclsRequest) -> DeleteAclsResponse:
        """DeleteAcls, key 31, v1-3. v1: prefixed patterns. v2: flexible. v3: users as resources."""
        if len(request.filters) > MAX_CHANGES:
            return DeleteAclsResponse(
                filter_results=[DeleteAclsFilterResult(error_code=ErrorCode.POLICY_VIOLATION, error_message=EXCESSIVE)]
                * len(request.filters)
            )
        filters = await map_each(request.filters, _filter_of)
        if self._acls is None:
            disabled = DeleteAclsFilterResult(error_code=ErrorCode.SECURITY_DISABLED, error_message=DISABLED)
            return DeleteAclsResponse(filter_results=[disabled] * len(filters))
        complaints = await map_each(filters, invalid_filter_reason)
        try:
            # An UNKNOWN element matches no ACL.
            picked = await self._acls.delete(context.cluster_id, filters)
        except PlatformError as problem:
            code, message = change_failure(problem, invalid=ErrorCode.POLICY_VIOLATION)
            failed = DeleteAclsFilterResult(error_code=code, error_message=message)
            return DeleteAclsResponse(filter_results=[failed] * len(filters))
        results = await map_nested(
            list(zip(picked, complaints, strict=True)),
            lambda one: one[0],
            _deleted,
            lambda one, deleted: DeleteAclsFilterResult(
                error_code=ErrorCode.NONE if one[1] is None else ErrorCode.INVALID_REQUEST, error_message=one[1],
                matching_acls=deleted,
            ),
        )  # fmt: skip
        return DeleteAclsResponse(filter_results=results)


_in_order = attrgetter("resource_type", "resource_name", "pattern_type", "principal", "host", "operation", "permission")
"""The order of `Acl`, ten times faster than its own comparison."""


def _acl(creation: AclCreation) -> Acl:
    _refuse_zero(creation.resource_type, creation.resource_pattern_type, creation.operation, creation.permission_type)
    return Acl(
        resource_type=enum_or_unknown(ResourceType, creation.resource_type),
        resource_name=creation.resource_name,
        pattern_type=enum_or_unknown(PatternType, creation.resource_pattern_type),
        principal=creation.principal,
        host=creation.host,
        operation=enum_or_unknown(Operation, creation.operation),
        permission=enum_or_unknown(Permission, creation.permission_type),
    )


def _refuse_zero(*numbers: int) -> None:
    """Close the connection of a client that sends UNKNOWN, as Kafka does."""
    if 0 in numbers:
        raise Malformed("an ACL, or a filter of ACLs, has an element that is UNKNOWN")


def _filter_of(asked: DeleteAclsFilter) -> AclFilter:
    return _filter(
        asked.resource_type_filter, asked.resource_name_filter, asked.pattern_type_filter, asked.principal_filter,
        asked.host_filter, asked.operation, asked.permission_type,
    )  # fmt: skip


def _filter(
    resource_type: int, resource_name: str | None, pattern_type: int, principal: str | None, host: str | None,
    operation: int, permission: int,
) -> AclFilter:  # fmt: skip
    _refuse_zero(resource_type, pattern_type, operation, permission)
    return AclFilter(
        resource_type=enum_or_unknown(ResourceType, resource_type),
        resource_name=resource_name,
        pattern_type=enum_or_unknown(PatternType, pattern_type),
        principal=principal,
        host=host,
        operation=enum_or_unknown(Operation, operation),
        permission=enum_or_unknown(Permission, permission),
    )


def _deleted(acl: Acl) -> DeleteAclsMatchingAcl:
    return DeleteAclsMatchingAcl(
        error_message=None,
        resource_type=acl.resource_type,
        resource_name=acl.resource_name,
        pattern_type=acl.pattern_type,
        principal=acl.principal,
        host=acl.host,
        operation=acl.operation,
        permission_type=acl.permission,
    )
