"""Roles: names for sets of ACLs. Granting one creates its ACLs; nothing else is kept, so Kafka's tools see it all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from penstock.base.acls import CLUSTER_NAME, WILDCARD, Acl, Operation, PatternType, ResourceType
from penstock.base.dataclasses import dataclass

_O, _R = Operation, ResourceType


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """What somebody may do."""

    name: str
    summary: str
    named: Mapping[ResourceType, tuple[Operation, ...]]
    """On resources with names of their own: all of them, or those that begin in some way."""
    cluster: tuple[Operation, ...] = ()
    """On the cluster as a whole. Not for those whose role ends at a prefix."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Where a role holds: for everything, or for what begins with a prefix; from any host, or from one."""

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
"""Every role by name, the mightiest first."""


def acls_of(role: Role, principal: str, scope: Scope) -> list[Acl]:
    """The ACLs that a role consists of."""
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


def held(acls: Iterable[Acl]) -> list[tuple[str, Role, Scope]]:
    """Who has which role, as far as all of its ACLs are there. A role that is part of another one held is left out."""
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
