"""Roles: names for sets of ACLs. Granting a role creates its ACLs and stores nothing else, so that Kafka's
tools see everything."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from penstock.base.acls import CLUSTER_NAME, WILDCARD, Acl, Operation, PatternType, ResourceType
from penstock.base.dataclasses import dataclass

_O, _R = Operation, ResourceType


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """A set of permissions."""

    name: str
    summary: str
    named: Mapping[ResourceType, tuple[Operation, ...]]
    """Operations on named resources, by type: on all of them, or on those that begin with the prefix of the scope."""
    cluster: tuple[Operation, ...] = ()
    """Operations on the cluster. Not granted if the scope has a prefix."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """The scope of a granted role: all names, or those with a prefix; from any host, or from one."""

    prefix: str | None = None
    host: str = WILDCARD


ROLES: Mapping[str, Role] = MappingProxyType(
    {
        role.name: role
        for role in (
            Role(
                name="admin",
                summary="Everything: topics, groups, settings, users, and who may do what.",
                named=dict.fromkeys(
                    (_R.TOPIC, _R.GROUP, _R.TRANSACTIONAL_ID, _R.DELEGATION_TOKEN, _R.USER), (_O.ALL,)
                ),
                cluster=(_O.ALL,),
            ),
            Role(
                name="developer",
                summary="Make, change and delete topics; write and read them, in groups and transactions.",
                named={
                    _R.TOPIC: (
                        _O.READ, _O.WRITE, _O.CREATE, _O.DELETE, _O.ALTER, _O.DESCRIBE, _O.DESCRIBE_CONFIGS,
                        _O.ALTER_CONFIGS,
                    ),
                    _R.GROUP: (_O.READ, _O.DELETE, _O.DESCRIBE, _O.DESCRIBE_CONFIGS, _O.ALTER_CONFIGS),
                    _R.TRANSACTIONAL_ID: (_O.WRITE, _O.DESCRIBE),
                },
            ),
            Role(
                name="read-only",
                summary="Read topics, alone or in groups, and see their settings.",
                named={_R.TOPIC: (_O.READ, _O.DESCRIBE, _O.DESCRIBE_CONFIGS), _R.GROUP: (_O.READ, _O.DESCRIBE)},
            ),
            Role(
                name="metrics",
                summary="See sizes, offsets, lag and settings, but no records.",
                named={
                    _R.TOPIC: (_O.DESCRIBE, _O.DESCRIBE_CONFIGS),
                    _R.GROUP: (_O.DESCRIBE, _O.DESCRIBE_CONFIGS),
                    _R.TRANSACTIONAL_ID: (_O.DESCRIBE,),
                },
                cluster=(_O.DESCRIBE, _O.DESCRIBE_CONFIGS),
            ),
        )
    }
)  # fmt: skip
"""Every role by name, the most powerful first."""


def acls_of(role: Role, principal: str, scope: Scope) -> list[Acl]:
    """The ACLs of a role."""
    pattern = PatternType.LITERAL if scope.prefix is None else PatternType.PREFIXED
    acls = [
        Acl(
            resource_type=kind, resource_name=scope.prefix or WILDCARD, pattern_type=pattern, principal=principal,
            host=scope.host, operation=operation,
        )
        for kind, operations in role.named.items()
        for operation in operations
    ]  # fmt: skip
    if scope.prefix is None:
        acls += [
            Acl(
                resource_type=ResourceType.CLUSTER, resource_name=CLUSTER_NAME, principal=principal, host=scope.host,
                operation=operation,
            )
            for operation in role.cluster
        ]  # fmt: skip
    return acls


def granted_roles(acls: Iterable[Acl]) -> list[tuple[str, Role, Scope]]:
    """Principals with the roles whose ACLs are all present, without roles that are part of another one they have."""
    present = set(acls)
    places = {
        (acl.principal, Scope(prefix=None if acl.resource_name == WILDCARD else acl.resource_name, host=acl.host))
        for acl in present
        if acl.resource_type is ResourceType.TOPIC
        and (acl.pattern_type is PatternType.PREFIXED) != (acl.resource_name == WILDCARD)
    }
    found: list[tuple[str, Role, Scope]] = []
    for principal, scope in sorted(places, key=lambda place: (place[0], place[1].prefix or "", place[1].host)):
        taken: set[Acl] = set()
        for role in ROLES.values():
            needed = set(acls_of(role, principal, scope))
            if needed <= present and not needed <= taken:
                found.append((principal, role, scope))
                taken |= needed
    return found
