"""What may become an ACL, and what may pick some: Kafka's checks of CreateAcls and DeleteAcls, pure."""

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
from penstock.base.errors import InvalidRequest

MAX_NAME_CHARS = 1024
"""Of a resource, a principal and a host. Kafka has no limit but a frame's; nothing real is longer."""


def complaint_about(acl: Acl) -> str | None:
    """Why this cannot be an ACL, or None."""
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


def parse_super_users(text: str) -> frozenset[str]:
    """Principals as `super.users` lists them: `User:alice;User:bob`."""
    users = frozenset(part.strip() for part in text.split(";") if part.strip())
    for user in users:
        kind, colon, name = user.partition(":")
        if not (kind and colon and name):
            raise InvalidRequest(f"super.users: a principal is written Type:name, as in User:alice, not {user!r}")
    return users


def is_pattern_of_acls(acl: Acl) -> bool:
    """Whether this stands for more than one ACL: fit for a filter, and for nothing else."""
    return (
        acl.resource_type is ResourceType.ANY
        or acl.pattern_type in (PatternType.ANY, PatternType.MATCH)
        or acl.operation is Operation.ANY
        or acl.permission is Permission.ANY
    )


def complaint_about_filter(asked: AclFilter) -> str | None:
    """Why nothing can be deleted by this, or None."""
    if asked.resource_type is ResourceType.UNKNOWN or asked.pattern_type is PatternType.UNKNOWN:
        return "Unknown patternFilter."
    if asked.operation is Operation.UNKNOWN or asked.permission is Permission.UNKNOWN:
        return "Unknown entryFilter."
    return None
