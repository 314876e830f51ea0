"""Who may change credentials of which principals."""

from __future__ import annotations

from typing import Any, cast

import pytest

from penstock.agent.parts.access import AccessControl
from penstock.base.context import DEFAULT_CLUSTER_ID, RequestContext
from penstock.base.shielded import ShieldedTasks

SUPER = "User:root"
ACCESS = AccessControl(
    identities=cast(Any, None), changes=ShieldedTasks(), acls=cast(Any, None), authorizer=None,
    super_users=frozenset({SUPER}), asks_for_credentials=True,
)  # fmt: skip
PLATFORM = RequestContext(principal="PlatformAdmin:alice", cluster_id=7, is_platform_admin=True)


@pytest.mark.parametrize("principal", ["PlatformAdmin:alice", "PlatformAdmin:", "Group:x", "alice", ""])
def test_nobody_is_made_who_is_no_user(principal: str) -> None:
    """An administrator of the platform who enters a tenant's cluster is none of it, and nobody there can be them."""
    tenant = RequestContext(principal="User:owner", cluster_id=7)
    assert ACCESS.may_change_proofs(tenant, "User:alice")
    assert ACCESS.may_change_proofs(tenant, SUPER), "that name is nothing special in a tenant's cluster"
    assert not ACCESS.may_change_proofs(tenant, principal)
    assert ACCESS.may_change_proofs(PLATFORM, principal)


def test_super_users_are_made_by_super_users() -> None:
    somebody = RequestContext(principal="User:alice", cluster_id=DEFAULT_CLUSTER_ID)
    assert ACCESS.may_change_proofs(somebody, "User:bob")
    assert not ACCESS.may_change_proofs(somebody, SUPER)
    assert ACCESS.may_change_proofs(RequestContext(principal=SUPER, cluster_id=DEFAULT_CLUSTER_ID), SUPER)
