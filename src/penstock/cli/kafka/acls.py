"""ACLs over the Kafka protocol: shown, created, deleted."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.base.acls import Acl, AclFilter, Operation, PatternType, Permission, ResourceType, enum_or_unknown
from penstock.cli.kafka.client import Client
from penstock.cli.kafka.failures import check
from penstock.wire.api_keys import ApiKey
from penstock.wire.messages.create_acls import AclCreation, CreateAclsRequest, CreateAclsResponse
from penstock.wire.messages.delete_acls import DeleteAclsFilter, DeleteAclsRequest, DeleteAclsResponse
from penstock.wire.messages.describe_acls import DescribeAclsRequest, DescribeAclsResponse

ABOUT = "ACLs"


def describe_acls(client: Client, asked: AclFilter) -> list[Acl]:
    """The ACLs that a filter picks, in order."""
    request = DescribeAclsRequest(
        resource_type_filter=asked.resource_type, resource_name_filter=asked.resource_name,
        pattern_type_filter=asked.pattern_type, principal_filter=asked.principal, host_filter=asked.host,
        operation=asked.operation, permission_type=asked.permission,
    )  # fmt: skip

    def attempt() -> list[Acl]:
        response = client.any_node().call(ApiKey.DESCRIBE_ACLS, request, DescribeAclsResponse)
        check(response.error_code, ABOUT, response.error_message)
        return sorted(
            Acl(
                resource_type=enum_or_unknown(ResourceType, resource.resource_type),
                resource_name=resource.resource_name,
                pattern_type=enum_or_unknown(PatternType, resource.pattern_type),
                principal=acl.principal,
                host=acl.host,
                operation=enum_or_unknown(Operation, acl.operation),
                permission=enum_or_unknown(Permission, acl.permission_type),
            )
            for resource in response.resources
            for acl in resource.acls
        )

    return client.retry(attempt)


def create_acls(client: Client, acls: Sequence[Acl]) -> None:
    """Add ACLs; one that is there already is no error."""
    request = CreateAclsRequest(
        creations=[
            AclCreation(
                resource_type=acl.resource_type, resource_name=acl.resource_name,
                resource_pattern_type=acl.pattern_type, principal=acl.principal, host=acl.host,
                operation=acl.operation, permission_type=acl.permission,
            )
            for acl in acls
        ]
    )  # fmt: skip

    def attempt() -> None:
        response = client.call_controller(ApiKey.CREATE_ACLS, request, CreateAclsResponse)
        for result in response.results:
            check(result.error_code, ABOUT, result.error_message)

    client.retry(attempt)


def delete_acls(client: Client, acls: Sequence[Acl]) -> list[Acl]:
    """Remove exactly these ACLs; those that were there."""
    request = DeleteAclsRequest(
        filters=[
            DeleteAclsFilter(
                resource_type_filter=acl.resource_type, resource_name_filter=acl.resource_name,
                pattern_type_filter=acl.pattern_type, principal_filter=acl.principal, host_filter=acl.host,
                operation=acl.operation, permission_type=acl.permission,
            )
            for acl in acls
        ]
    )  # fmt: skip

    def attempt() -> list[Acl]:
        response = client.call_controller(ApiKey.DELETE_ACLS, request, DeleteAclsResponse)
        removed = []
        for acl, result in zip(acls, response.filter_results, strict=True):
            check(result.error_code, ABOUT, result.error_message)
            if result.matching_acls:
                removed.append(acl)
        return removed

    return client.retry(attempt)
