"""The APIs of ACLs: what can be one, how they are described and deleted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fixtures import sample_requests
from fixtures.guests import ADMIN_HOST, CLUSTER, GROUP, TOPIC
from fixtures.waiting import eventually
from fixtures.wire import Wire

from penstock.base.acls import Operation, PatternType, Permission, ResourceType
from penstock.wire.api_keys import ApiKey as K
from penstock.wire.error_codes import ErrorCode as E
from penstock.wire.messages import create_acls, delete_acls
from penstock.wire.messages.describe_acls import DescribeAclsRequest


def _creation(**fields: Any) -> create_acls.AclCreation:
    defaults = {
        "resource_type": TOPIC, "resource_name": "t", "resource_pattern_type": PatternType.LITERAL,
        "principal": "User:alice", "host": "*", "operation": Operation.READ, "permission_type": Permission.ALLOW,
    }  # fmt: skip
    return create_acls.AclCreation(**(defaults | fields))


def test_what_cannot_be_an_acl(admin: Wire) -> None:
    bad = [
        _creation(resource_type=CLUSTER, resource_name="my-cluster"),
        _creation(resource_name=""),
        _creation(principal="alice"),
        _creation(host=""),
        _creation(resource_type=77),
        _creation(operation=99),
    ]
    answer = admin.call(K.CREATE_ACLS, 3, create_acls.CreateAclsRequest(creations=[*bad, _creation()]))
    assert [result.error_code for result in answer.results] == [E.INVALID_REQUEST] * len(bad) + [0]
    assert all(result.error_message for result in answer.results[:-1])


@pytest.mark.parametrize(
    "wrong",
    [
        {"resource_type": ResourceType.ANY},
        {"resource_pattern_type": PatternType.ANY},
        {"resource_pattern_type": PatternType.MATCH},
        {"operation": Operation.ANY},
        {"permission_type": Permission.ANY},
    ],
)
def test_what_is_for_filters_fails_a_whole_creation(admin: Wire, wrong: dict[str, int]) -> None:
    answer = admin.call(K.CREATE_ACLS, 3, create_acls.CreateAclsRequest(creations=[_creation(), _creation(**wrong)]))
    assert [result.error_code for result in answer.results] == [E.UNKNOWN_SERVER_ERROR] * 2


def test_filters_that_nobody_knows(admin: Wire) -> None:
    strange = sample_requests.delete_acls("t").filters[0]
    strange.operation = 99
    (result,) = admin.call(K.DELETE_ACLS, 3, delete_acls.DeleteAclsRequest(filters=[strange])).filter_results
    assert (result.error_code, result.matching_acls) == (E.INVALID_REQUEST, [])
    described = sample_requests.describe_acls("t")
    described.resource_type_filter = 77
    answer = admin.call(K.DESCRIBE_ACLS, 3, described)
    assert (answer.error_code, answer.resources) == (0, [])


@pytest.mark.parametrize(
    "field", ["resource_type", "resource_pattern_type", "operation", "permission_type"]
)  # fmt: skip
def test_an_acl_of_unknown_meaning_ends_the_connection(open_at: Callable[[str], Wire], field: str) -> None:
    wire = open_at(ADMIN_HOST)
    wire.send(K.CREATE_ACLS, 3, create_acls.CreateAclsRequest(creations=[_creation(**{field: 0})]))
    assert wire.is_closed_by_broker()


def test_acls_are_described_by_filters_and_deleted_by_filters(admin: Wire, fresh_name: Callable[..., str]) -> None:
    name = fresh_name()
    wanted = [
        _creation(resource_name=name),
        _creation(resource_name=name, operation=Operation.WRITE, permission_type=Permission.DENY),
        _creation(resource_name=name[:6], resource_pattern_type=PatternType.PREFIXED, principal="User:bob"),
        _creation(resource_name=name, resource_type=GROUP, host="10.0.0.1"),
    ]
    for _ in range(2):  # Again is no error.
        answer = admin.call(K.CREATE_ACLS, 2, create_acls.CreateAclsRequest(creations=wanted))
        assert [(result.error_code, result.error_message) for result in answer.results] == [(0, "")] * 4

    def described(**fields: Any) -> set[tuple[Any, ...]]:
        defaults = {
            "resource_type_filter": ResourceType.ANY, "resource_name_filter": None,
            "pattern_type_filter": PatternType.ANY, "principal_filter": None, "host_filter": None,
            "operation": Operation.ANY, "permission_type": Permission.ANY,
        }  # fmt: skip
        answer = admin.call(K.DESCRIBE_ACLS, 3, DescribeAclsRequest(**(defaults | fields)))
        assert answer.error_code == 0
        return {
            (
                about.resource_type,
                about.resource_name,
                acl.principal,
                acl.host,
                acl.operation,
                acl.permission_type,
            )
            for about in answer.resources
            for acl in about.acls
            if acl.host != ADMIN_HOST
        }

    eventually(lambda: len(described(resource_name_filter=name)) == 3, what="the ACLs")
    matching = described(resource_name_filter=name, pattern_type_filter=PatternType.MATCH, resource_type_filter=TOPIC)
    assert {acl[1:3] for acl in matching if acl[2] in ("User:alice", "User:bob")} >= {
        (name, "User:alice"), (name[:6], "User:bob"),
    }  # fmt: skip
    assert described(resource_name_filter=name, operation=Operation.WRITE) == {
        (TOPIC, name, "User:alice", "*", Operation.WRITE, Permission.DENY)
    }
    assert described(resource_name_filter=name, host_filter="10.0.0.1") == {
        (GROUP, name, "User:alice", "10.0.0.1", Operation.READ, Permission.ALLOW)
    }

    def asked(**fields: Any) -> delete_acls.DeleteAclsFilter:
        defaults = {
            "resource_type_filter": ResourceType.ANY, "resource_name_filter": name,
            "pattern_type_filter": PatternType.ANY, "principal_filter": None, "host_filter": None,
            "operation": Operation.ANY, "permission_type": Permission.ANY,
        }  # fmt: skip
        return delete_acls.DeleteAclsFilter(**(defaults | fields))

    request = delete_acls.DeleteAclsRequest(filters=[asked(operation=Operation.READ), asked(), asked(host_filter="?")])
    first, second, none = admin.call(K.DELETE_ACLS, 3, request).filter_results
    assert {acl.resource_type for acl in first.matching_acls} == {TOPIC, GROUP}
    assert {len(first.matching_acls), len(second.matching_acls), len(none.matching_acls)} == {2, 3, 0}
    assert [result.error_code for result in (first, second, none)] == [0, 0, 0]
    eventually(lambda: described(resource_name_filter=name) == set(), what="the ACLs being gone")
