"""Roles and rules from the command line, against a broker whose users prove who they are."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_session import Session, promised_shape, shape_of
from fixtures import programs
from fixtures.secured import PASSWORD, Secured

Run = Callable[..., Any]
BOB = "bob's secret"


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """Authorization is as it comes: on, because clients have to prove who they are."""
    secured = Secured(tmp_path_factory.mktemp("access"), settings={"authorizer.class.name": ""})
    secured.server.start()
    yield secured
    assert secured.server.stop() == 0


def _login(secured: Secured, name: str, password: str) -> Path:
    module = "org.apache.kafka.common.security.scram.ScramLoginModule"
    jaas = f'{module} required username="{name}" password="{password}";'
    return secured.properties("SASL_PLAINTEXT", "SCRAM-SHA-512", sasl_jaas_config=jaas)


def _runner(secured: Secured, login: Path) -> Run:
    def run(*words: str, stdin: str = "", code: int = 0, as_json: bool = True) -> Any:
        where = ("-b", secured.at("SASL_PLAINTEXT"), "--client-config", str(login))
        command = [sys.executable, "-m", "penstock", *words, *where]
        command += ["-o", "json"] if as_json else []
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == code, done.stdout + done.stderr
        if code:
            return done.stderr
        return json.loads(done.stdout) if as_json else done.stdout

    return run


@pytest.fixture(scope="module")
def alice(secured: Secured) -> Run:
    """The first user, who was made in the data directory."""
    return _runner(secured, _login(secured, "alice", PASSWORD))


@pytest.fixture(scope="module")
def bob(secured: Secured, alice: Run) -> Run:
    """A user whom alice made, and who may do nothing."""
    made = alice("user", "create", "bob", stdin=BOB + "\n")
    assert shape_of(made) == promised_shape("user", "create")
    assert made["role"] is None
    return _runner(secured, _login(secured, "bob", BOB))


def test_the_first_user_may_do_everything_and_the_next_nothing(alice: Run, bob: Run) -> None:
    assert [row["name"] for row in alice("topic", "create", "secret")] == ["secret"]
    assert bob("topic", "list") == []
    assert "not allowed" in bob("topic", "describe", "secret", code=1)
    assert "not allowed" in bob("topic", "create", "mine", code=1)
    assert "not allowed" in bob("acl", "list", code=1)
    assert "not allowed" in bob("role", "grant", "admin", "bob", code=1)
    assert "not allowed" in bob("user", "list", code=1)
    assert "Only platform administrators" in alice("env", "list", code=1), "whatever she may do in her cluster"


def test_a_user_that_was_deleted_is_let_in_no_more(secured: Secured, alice: Run) -> None:
    alice("user", "create", "carol", stdin=BOB + "\n")
    carol = _runner(secured, _login(secured, "carol", BOB))
    assert carol("topic", "list") == []
    assert alice("user", "delete", "carol", "--dry-run") == [{"user": "carol", "deleted": False}]
    gone = alice("user", "delete", "carol", "--yes")
    assert shape_of(gone) == promised_shape("user", "delete")
    assert "carol" not in {row["user"] for row in alice("user", "list")}
    carol("topic", "list", code=1)
    assert "carol" in alice("user", "delete", "carol", "--yes", code=1)


def test_a_role_is_given_and_taken(alice: Run, bob: Run) -> None:
    granted = alice("role", "grant", "developer", "bob", "--prefix", "orders-")
    assert shape_of(granted) == promised_shape("role", "grant")
    assert [row["name"] for row in bob("topic", "create", "orders-1")] == ["orders-1"]
    bob("produce", "orders-1", stdin="hello\n", as_json=False)
    assert [row["name"] for row in bob("topic", "list")] == ["orders-1"]
    assert "not allowed" in bob("topic", "create", "invoices-1", code=1)
    members = alice("role", "members")
    assert shape_of(members) == promised_shape("role", "members")
    assert {(row["principal"], row["role"], row["prefix"]) for row in members} == {
        ("User:alice", "admin", None), ("User:bob", "developer", "orders-"),
    }  # fmt: skip
    taken = alice("role", "revoke", "developer", "bob", "--prefix", "orders-")
    assert shape_of(taken) == promised_shape("role", "revoke")
    assert bob("topic", "list") == []
    assert "is not developer" in alice("role", "revoke", "developer", "bob", "--prefix", "orders-", code=1)


def test_roles_are_listed_without_a_cluster() -> None:
    roles = Session("127.0.0.1:1").json("role", "list")
    assert shape_of(roles) == promised_shape("role", "list")
    assert [role["role"] for role in roles] == ["admin", "developer", "read-only", "metrics"]


def test_rules_one_by_one(alice: Run, bob: Run) -> None:
    made = alice("acl", "allow", "bob", "read", "describe-configs", "--topic", "secret", "--group-prefix", "r-")
    assert shape_of(made) == promised_shape("acl", "allow")
    assert len(made) == 4
    assert [row["name"] for row in bob("topic", "list")] == ["secret"]
    alice("acl", "deny", "*", "Describe", "--topic-prefix", "sec")
    assert bob("topic", "list") == []
    about = alice("acl", "list", "--topic", "secret")
    assert shape_of(about) == promised_shape("acl", "list")
    assert {(row["principal"], row["permission"], row["operation"], row["pattern"]) for row in about} >= {
        ("User:bob", "allow", "read", "literal"), ("User:*", "deny", "describe", "prefixed"),
        ("User:alice", "allow", "all", "literal"),
    }  # fmt: skip
    gone = alice("acl", "remove", "*", "--yes")
    assert [(row["principal"], row["removed"]) for row in gone] == [("User:*", True)]
    assert shape_of(gone) == promised_shape("acl", "remove")
    assert len(alice("acl", "remove", "bob", "read", "--yes")) == 2
    assert len(alice("acl", "remove", "bob", "--yes")) == 2
    assert alice("acl", "list", "-p", "bob") == []


@pytest.mark.timeout(600)
def test_kafka_s_own_tool(secured: Secured, alice: Run, bob: Run) -> None:
    login = _login(secured, "alice", PASSWORD)

    def acls(*words: str, config: Path = login, code: int = 0) -> str:
        command = programs.kafka_tool(
            "org.apache.kafka.tools.AclCommand", "--bootstrap-server", secured.at("SASL_PLAINTEXT"),
            "--command-config", str(config), *words,
        )  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    added = acls("--add", "--allow-principal", "User:bob", "--producer", "--topic", "t-", "--resource-pattern-type",
                 "prefixed", "--transactional-id", "t-")  # fmt: skip
    assert "operation=WRITE, permissionType=ALLOW" in added
    acls("--add", "--allow-principal", "User:bob", "--consumer", "--topic", "t", "--group", "g")
    acls("--add", "--deny-principal", "User:bob", "--deny-host", "10.0.0.1", "--operation", "All", "--cluster")
    listed = acls("--list", "--principal", "User:bob")
    assert "ResourcePattern(resourceType=TOPIC, name=t-, patternType=PREFIXED)" in listed
    assert "(principal=User:bob, host=10.0.0.1, operation=ALL, permissionType=DENY)" in listed
    assert len(alice("acl", "list", "-p", "bob")) == listed.count("principal=User:bob")
    acls("--remove", "--allow-principal", "User:bob", "--consumer", "--topic", "t", "--group", "g", "--force")
    assert "name=g" not in acls("--list", "--principal", "User:bob")
    denied = acls("--list", config=_login(secured, "bob", BOB), code=1)
    assert "ClusterAuthorizationException" in denied
    alice("acl", "remove", "bob", "--yes")
