"""Kafka's validation of the ACLs in CreateAcls and of the filters in DeleteAcls, with Kafka's messages."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from penstock.authorization.validation import (
    MAX_NAME_CHARS,
    has_filter_element,
    invalid_acl_reason,
    invalid_filter_reason,
)
from penstock.base.acls import Acl, AclFilter, Operation, PatternType, Permission, ResourceType

VALID = Acl(resource_type=ResourceType.TOPIC, resource_name="t", principal="User:a", operation=Operation.READ)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"pattern_type": PatternType.PREFIXED}, None),
        ({"resource_type": ResourceType.CLUSTER, "resource_name": "kafka-cluster"}, None),
        ({"resource_type": ResourceType.CLUSTER}, "The only valid name for the CLUSTER resource is kafka-cluster"),
        ({"resource_name": ""}, "Invalid empty resource name"),
        ({"resource_type": ResourceType.ANY}, "Invalid resourceType ANY"),
        ({"resource_type": ResourceType.UNKNOWN}, "Invalid resourceType UNKNOWN"),
        ({"pattern_type": PatternType.MATCH}, "Invalid patternType MATCH"),
        ({"operation": Operation.ANY}, "Invalid operation ANY"),
        ({"operation": Operation.UNKNOWN}, "Invalid operation UNKNOWN"),
        ({"permission": Permission.ANY}, "Invalid permissionType ANY"),
        ({"principal": "alice"}, "A principal is written Type:name, as in User:alice, not 'alice'"),
        ({"host": ""}, "Host pattern cannot be null or empty"),
        ({"resource_name": "x" * MAX_NAME_CHARS}, None),
        ({"resource_name": "x" * (MAX_NAME_CHARS + 1)}, f"A name of an ACL may have {MAX_NAME_CHARS} characters"),
        ({"host": "x" * (MAX_NAME_CHARS + 1)}, f"A name of an ACL may have {MAX_NAME_CHARS} characters"),
    ],
)
def test_an_acl_is_valid_or_has_a_reason(changes: dict[str, Any], reason: str | None) -> None:
    assert invalid_acl_reason(replace(VALID, **changes)) == reason


@pytest.mark.parametrize(
    "changes",
    [
        {"resource_type": ResourceType.ANY}, {"pattern_type": PatternType.ANY}, {"pattern_type": PatternType.MATCH},
        {"operation": Operation.ANY}, {"permission": Permission.ANY},
    ],
)  # fmt: skip
def test_an_acl_with_an_element_of_a_filter_is_recognised(changes: dict[str, Any]) -> None:
    assert has_filter_element(replace(VALID, **changes))
    assert not has_filter_element(VALID)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"resource_type": ResourceType.UNKNOWN}, "Unknown patternFilter."),
        ({"pattern_type": PatternType.UNKNOWN}, "Unknown patternFilter."),
        ({"operation": Operation.UNKNOWN}, "Unknown entryFilter."),
        ({"permission": Permission.UNKNOWN}, "Unknown entryFilter."),
    ],
)
def test_a_filter_with_an_unknown_element_is_invalid(changes: dict[str, Any], reason: str | None) -> None:
    assert invalid_filter_reason(replace(AclFilter(), **changes)) == reason
