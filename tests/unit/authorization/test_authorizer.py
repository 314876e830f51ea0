"""Super users, what is remembered, what is told to listeners, and that no API goes without a guard."""

from __future__ import annotations

import pytest

from penstock.agent.settings import SETTINGS
from penstock.authorization import authorizer as module
from penstock.authorization.authorizer import READ_TOPIC, WRITE_TOPIC, Authorizer, Decision, action
from penstock.authorization.guards.table import GUARDS, SELF_AUTHORIZING, UNRESTRICTED
from penstock.authorization.rules import AclIndex
from penstock.authorization.settings import STANDARD_AUTHORIZER, AuthorizationSettings, parse_super_users
from penstock.base.acls import Acl, Operation, Permission, ResourceType
from penstock.base.context import RequestContext
from penstock.base.errors import InvalidRequest
from penstock.wire.api_keys import ApiKey

ALICE = RequestContext(principal="User:alice", client_host="10.0.0.1")
FETCH = int(ApiKey.FETCH)


class Clusters:
    """ACLs by virtual cluster."""

    def __init__(self) -> None:
        self.indexes: dict[int, AclIndex] = {}

    def index(self, cluster_id: int) -> AclIndex:
        return self.indexes.setdefault(cluster_id, AclIndex())


class Heard:
    """A listener."""

    def __init__(self) -> None:
        self.decisions: list[Decision] = []

    def on_decision(self, context: RequestContext, decision: Decision) -> None:
        self.decisions.append(decision)


def acl(operation: Operation = Operation.READ, name: str = "t", **more: object) -> Acl:
    fields = {"resource_type": ResourceType.TOPIC, "principal": "User:alice"} | more
    return Acl(resource_name=name, operation=operation, **fields)  # type: ignore[arg-type]


def test_every_api_has_one_guard() -> None:
    assert set(GUARDS) | SELF_AUTHORIZING == set(ApiKey)
    assert not set(GUARDS) & SELF_AUTHORIZING
    assert set(UNRESTRICTED) <= set(GUARDS)


async def test_super_users_are_those_of_the_default_cluster() -> None:
    authorizer = Authorizer(Clusters(), super_users=frozenset({"User:alice"}))
    assert authorizer.allows(ALICE, FETCH, READ_TOPIC, "t")
    assert await authorizer.allows_any(ALICE, WRITE_TOPIC)
    tenant = RequestContext(principal="User:alice", cluster_id=7)
    assert not authorizer.allows(tenant, FETCH, READ_TOPIC, "t"), "a tenant may call its users what it likes"
    assert not authorizer.allows(RequestContext(principal="User:bob"), FETCH, READ_TOPIC, "t")


def test_who_administers_the_platform_may_do_everything_everywhere() -> None:
    authorizer = Authorizer(Clusters(), super_users=frozenset({"User:alice"}))
    admin = RequestContext(principal="PlatformAdmin:alice", cluster_id=7, is_platform_admin=True)
    assert authorizer.allows(admin, FETCH, READ_TOPIC, "t")
    assert authorizer.allows(RequestContext(principal="User:alice", cluster_id=0), FETCH, READ_TOPIC, "t")
    same_name = RequestContext(principal="PlatformAdmin:alice", cluster_id=7)
    assert not authorizer.allows(same_name, FETCH, READ_TOPIC, "t"), "a token of theirs, say"


def test_clusters_do_not_meet() -> None:
    clusters = Clusters()
    clusters.index(1).add(acl())
    authorizer = Authorizer(clusters)
    assert authorizer.allows(ALICE, FETCH, READ_TOPIC, "t")
    assert not authorizer.allows(RequestContext(principal="User:alice", cluster_id=2), FETCH, READ_TOPIC, "t")


async def test_nothing_is_remembered_beyond_a_change() -> None:
    clusters = Clusters()
    authorizer = Authorizer(clusters)
    clusters.index(1).add(acl())
    assert authorizer.allows(ALICE, FETCH, READ_TOPIC, "t")
    assert await authorizer.allows_any(ALICE, READ_TOPIC)
    clusters.index(1).add(acl(permission=Permission.DENY))
    before = authorizer.generation, authorizer.version(1)
    authorizer.forget(1)
    assert authorizer.generation > before[0]
    assert authorizer.version(1) > before[1]
    assert not authorizer.allows(ALICE, FETCH, READ_TOPIC, "t")
    clusters.index(1).remove(acl(permission=Permission.DENY))
    clusters.index(1).remove(acl())
    authorizer.forget()
    assert not await authorizer.allows_any(ALICE, READ_TOPIC)


def test_changes_of_one_cluster_are_nothing_to_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each fetch session of a cluster looks at all of its partitions anew after them."""
    monkeypatch.setattr(module, "MAX_CALLERS", 5)
    authorizer = Authorizer(Clusters())
    before = authorizer.version(1)
    for _ in range(3):
        authorizer.forget(7)
    assert authorizer.version(1) == before
    seen = authorizer.version(7)
    authorizer.forget()
    assert authorizer.version(1) > before
    assert authorizer.version(7) > seen
    seen = authorizer.version(7)
    for cluster_id in range(7, 20):
        authorizer.forget(cluster_id)
    assert authorizer.version(7) > seen
    assert len(authorizer._changed) <= 5


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_GRANTS", 10)
    monkeypatch.setattr(module, "MAX_CALLERS", 10)
    clusters = Clusters()
    clusters.index(1).add(acl(name="*", principal="User:*"))
    authorizer = Authorizer(clusters)
    for number in range(100):
        context = RequestContext(principal=f"User:{number % 25}")
        assert authorizer.allows(context, FETCH, READ_TOPIC, f"topic-{number}")
        assert authorizer.allows(context, FETCH, READ_TOPIC, "long" * 1000)
    assert authorizer.generation > 5, "whoever remembers anything has to ask again"
    assert len(authorizer._callers) <= 10
    assert sum(len(names) for caller in authorizer._callers.values() for names in caller.granted.values()) <= 10


def test_every_denial_is_reported_and_a_permission_once() -> None:
    clusters, heard = Clusters(), Heard()
    clusters.index(1).add(acl())
    authorizer = Authorizer(clusters, listener=heard)
    for _ in range(3):
        assert authorizer.allows(ALICE, FETCH, READ_TOPIC, "t")
        assert not authorizer.allows(ALICE, FETCH, WRITE_TOPIC, "t")
    told = [(one.operation, one.resource_name, one.verdict.allowed) for one in heard.decisions]
    assert told.count((Operation.READ, "t", True)) == 1
    assert told.count((Operation.WRITE, "t", False)) == 3
    assert heard.decisions[0].verdict.acl == acl()
    heard.decisions.clear()
    describe = action(Operation.DESCRIBE, ResourceType.TOPIC)
    assert not authorizer.allows(ALICE, FETCH, describe, "hidden", is_quiet=True)
    authorizer.operations(ALICE, ResourceType.TOPIC, "t")
    assert heard.decisions == [], "quiet denials are not reported"


def test_authorized_operations_are_kafkas_bit_field() -> None:
    clusters = Clusters()
    clusters.index(1).add(acl(Operation.ALL, name="*"))
    clusters.index(1).add(acl(Operation.DELETE, permission=Permission.DENY))
    authorizer = Authorizer(clusters)
    assert authorizer.operations(ALICE, ResourceType.TOPIC, "u") == 3576
    assert authorizer.operations(ALICE, ResourceType.TOPIC, "t") == 3576 - (1 << 6)
    assert authorizer.operations(ALICE, ResourceType.CLUSTER, "kafka-cluster") == 0


@pytest.mark.parametrize(
    ("asked", "asks_for_credentials", "is_on"),
    [("", False, False), ("", True, True), ("none", True, False), (STANDARD_AUTHORIZER, False, True)],
)
def test_authorization_is_on_by_default_with_credentials(asked: str, asks_for_credentials: bool, is_on: bool) -> None:
    settings = SETTINGS.started_with(
        {"authorizer.class.name": asked, "super.users": " User:a; User:CN=b,O=c ;"}
    )  # fmt: skip
    made = AuthorizationSettings.of(settings, asks_for_credentials=asks_for_credentials)
    assert made.is_on is is_on
    assert made.super_users == {"User:a", "User:CN=b,O=c"}


@pytest.mark.parametrize("text", ["alice", "User:", ":alice", "User:a;bob"])
def test_super_users_must_be_principals(text: str) -> None:
    with pytest.raises(InvalidRequest, match="Type:name"):
        parse_super_users(text)
    with pytest.raises(InvalidRequest, match=r"super\.users"):
        SETTINGS.started_with({"super.users": text})


def test_another_authorizer_class_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="String must be one of"):
        SETTINGS.started_with({"authorizer.class.name": "com.example.Authorizer"})
