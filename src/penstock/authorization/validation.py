"""Kafka's validation of the ACLs in CreateAcls and of the filters in DeleteAcls. Pure."""

from __future__ import annotations

from penstock.base.acls import (
    CLUSTER_NAME,
    Acl,
    AclFilter,
    Operation,
    PatternType,
    Permission,
    ResourceType,
)

MAX_NAME_CHARS = 1024
"""The longest name of a resource, principal or host. Kafka limits these by the size of a frame only."""


def invalid_acl_reason(acl: Acl) -> str | None:
    """Why this ACL is invalid, or None."""
    if acl.resource_type is ResourceType.CLUSTER and acl.resource_name != CLUSTER_NAME:
        return f"The only valid name for the CLUSTER resource is {CLUSTER_NAME}"
    if not acl.resource_name:
        return "Invalid empty resource name"
    if acl.resource_type in (ResourceType.UNKNOWN, ResourceType.ANY):
        return f"Invalid resourceType {acl.resource_type.name}"
    if acl.pattern_type not in (PatternType.LITERAL, PatternType.PREFIXED):
        return f"Invalid patternType {acl.pattern_type.name}"
    if acl.operation in (Operation.UNKNOWN, Operation.ANY):
        return f"Invalid operation {acl.operation.name}"
    if acl.permission not in (Permission.DENY, Permission.ALLOW):
        return f"Invalid permissionType {acl.permission.name}"
    if ":" not in acl.principal:
        return f"A principal is written Type:name, as in User:alice, not {acl.principal!r}"
    if not acl.host:
        return "Host pattern cannot be null or empty"
    if max(len(acl.resource_name), len(acl.principal), len(acl.host)) > MAX_NAME_CHARS:
        return f"A name of an ACL may have {MAX_NAME_CHARS} characters"
    return None


def has_filter_element(acl: Acl) -> bool:
    """Whether an ACL has an element that is allowed in filters only."""
    return (
        acl.resource_type is ResourceType.ANY
        or acl.pattern_type in (PatternType.ANY, PatternType.MATCH)
        or acl.operation is Operation.ANY
        or acl.permission is Permission.ANY
    )


def invalid_filter_reason(asked: AclFilter) -> str | None:
    """Why this filter is invalid, or None."""
    if asked.resource_type is ResourceType.UNKNOWN or asked.pattern_type is PatternType.UNKNOWN:
        return "Unknown patternFilter."
    if asked.operation is Operation.UNKNOWN or asked.permission is Permission.UNKNOWN:
        return "Unknown entryFilter."
    return None
