"""Roles are what their ACLs make of them."""

from __future__ import annotations

from itertools import product

import pytest

from penstock.authorization.rules import AclIndex, decide
from penstock.authorization.validation import invalid_acl_reason
from penstock.base.acls import SUPPORTED, Operation, ResourceType
from penstock.base.errors import InvalidRequest
from penstock.base.roles import ROLES, Scope, acls_of, granted_roles
from penstock.cli.text_formats.principals import parse_operation, parse_principal

ALICE = "User:alice"


def may(role: str, scope: Scope, operation: Operation, kind: ResourceType, name: str, host: str = "10.0.0.1") -> bool:
    index = AclIndex(acls_of(ROLES[role], ALICE, scope))
    return decide(index, ALICE, host, operation, kind, name).allowed


def test_every_rule_of_every_role_can_be_created() -> None:
    for role, scope in product(ROLES.values(), (Scope(), Scope(prefix="p-"), Scope(host="10.0.0.1"))):
        assert [invalid_acl_reason(acl) for acl in acls_of(role, ALICE, scope)] == [None] * len(
            acls_of(role, ALICE, scope)
        )


def test_admin_may_do_everything() -> None:
    for kind, operations in SUPPORTED.items():
        for operation in operations:
            name = "kafka-cluster" if kind is ResourceType.CLUSTER else "any"
            assert may("admin", Scope(), operation, kind, name)


@pytest.mark.parametrize(
    ("role", "operation", "kind", "allowed"),
    [
        ("developer", Operation.WRITE, ResourceType.TOPIC, True),
        ("developer", Operation.ALTER, ResourceType.CLUSTER, False),
        ("developer", Operation.WRITE, ResourceType.TRANSACTIONAL_ID, True),
        ("read-only", Operation.READ, ResourceType.TOPIC, True),
        ("read-only", Operation.WRITE, ResourceType.TOPIC, False),
        ("read-only", Operation.READ, ResourceType.GROUP, True),
        ("read-only", Operation.DELETE, ResourceType.GROUP, False),
        ("metrics", Operation.DESCRIBE, ResourceType.TOPIC, True),
        ("metrics", Operation.DESCRIBE, ResourceType.CLUSTER, True),
        ("metrics", Operation.READ, ResourceType.TOPIC, False),
        ("metrics", Operation.ALTER_CONFIGS, ResourceType.TOPIC, False),
    ],
)
def test_what_roles_allow(role: str, operation: Operation, kind: ResourceType, allowed: bool) -> None:
    name = "kafka-cluster" if kind is ResourceType.CLUSTER else "any"
    assert may(role, Scope(), operation, kind, name) is allowed


def test_a_role_ends_at_its_prefix_and_its_host() -> None:
    scope = Scope(prefix="orders-", host="10.0.0.1")
    assert may("developer", scope, Operation.WRITE, ResourceType.TOPIC, "orders-1")
    assert not may("developer", scope, Operation.WRITE, ResourceType.TOPIC, "invoices-1")
    assert not may("developer", scope, Operation.WRITE, ResourceType.TOPIC, "orders-1", host="10.0.0.2")
    assert not may("admin", scope, Operation.ALTER, ResourceType.CLUSTER, "kafka-cluster")


def test_roles_are_recognised_by_their_rules() -> None:
    scopes = (Scope(), Scope(prefix="a-"), Scope(host="10.0.0.1"))
    for role, scope in product(ROLES.values(), scopes):
        acls = acls_of(role, ALICE, scope)
        assert granted_roles(acls) == [(ALICE, role, scope)]
        assert granted_roles(acls[1:]) != [(ALICE, role, scope)]
    both = [*acls_of(ROLES["developer"], ALICE, Scope()), *acls_of(ROLES["metrics"], ALICE, Scope(prefix="x"))]
    assert {(role.name, scope.prefix) for _, role, scope in granted_roles(both)} == {
        ("developer", None),
        ("metrics", "x"),
    }


def test_principals_and_operations_as_people_write_them() -> None:
    assert [parse_principal(text) for text in ("alice", "User:alice", "*", "User:CN=a,O=b")] == [
        "User:alice", "User:alice", "User:*", "User:CN=a,O=b",
    ]  # fmt: skip
    for text in ("describe-configs", "DescribeConfigs", "DESCRIBE_CONFIGS"):
        assert parse_operation(text) is Operation.DESCRIBE_CONFIGS
    for text in ("any", "unknown", "fly", ""):
        with pytest.raises(InvalidRequest, match="is not an operation"):
            parse_operation(text)
    with pytest.raises(InvalidRequest, match="needs a name"):
        parse_principal("")
