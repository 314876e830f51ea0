"""Virtual clusters from the command line, on a broker that asks for no credentials."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_session import Session, promised_shape, shape_of
from click.shell_completion import BashComplete
from fixtures.server import Server
from fixtures.waiting import eventually

from penstock.cli.main import cli


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    server = Server(tmp_path_factory.mktemp("clusters"))
    server.start()
    yield Session(server.bootstrap)
    assert server.stop() == 0


def test_environments_come_and_go(session: Session) -> None:
    assert shape_of(session.json("env", "create", "prod")) == promised_shape("env", "create")
    assert "exists already" in session.run("env", "create", "prod", code=1).stderr
    assert "is not a valid name" in session.run("env", "create", "Prod", code=1).stderr
    session.run("cluster", "create", "in-prod", "--env", "prod")
    found = session.json("env", "list")
    assert shape_of(found) == promised_shape("env", "list")
    assert {row["environment"]: row["clusters"] for row in found}["prod"] == ["in-prod"]
    assert "has clusters: in-prod" in session.run("env", "delete", "prod", "--yes", code=1).stderr
    assert session.json("env", "delete", "default", "--dry-run")[0]["deleted"] is False
    session.run("env", "create", "empty")
    gone = session.json("env", "delete", "empty", "--yes")
    assert shape_of(gone) == promised_shape("env", "delete")
    assert "empty" not in {row["environment"] for row in session.json("env", "list")}


def test_a_cluster_is_a_kafka_cluster_of_its_own(session: Session) -> None:
    made = session.json("cluster", "create", "acme", "--description", "ours", "--limit", "partitions=3")
    assert shape_of(made) == promised_shape("cluster", "create")
    listed = session.json("cluster", "list")
    assert shape_of(listed) == promised_shape("cluster", "list")
    assert {row["cluster"] for row in listed} >= {"platform", "default", "acme"}
    assert len({row["id"] for row in listed}) == len(listed)
    assert session.json("cluster", "info", "--cluster", "acme")["id"] == made["id"]
    for where, text in (("acme", "theirs"), ("default", "ours")):
        session.run("produce", "orders", "--cluster", where, stdin=f"{text}\n")
    for where, text in (("acme", "theirs"), ("default", "ours")):
        assert [record["value"] for record in session.records("orders", "--cluster", where)] == [text]
    session.run("topic", "create", "only-here", "--cluster", "acme")
    assert "only-here" not in {row["name"] for row in session.json("topic", "list")}
    assert "does not exist" in session.run("topic", "describe", "only-here", code=1).stderr


def test_limits(session: Session) -> None:
    session.run("cluster", "create", "small", "--limit", "partitions=3")
    session.run("topic", "create", "a", "-p", "2", "--cluster", "small")
    assert (
        "may have 3 partitions" in session.run("topic", "create", "b", "-p", "2", "--cluster", "small", code=1).stderr
    )
    assert "may have 3" in session.run("topic", "add-partitions", "a", "-t", "4", "--cluster", "small", code=1).stderr
    assert session.json("cluster", "alter", "small", "--limit", "partitions=4", "--dry-run")["changed"] is False
    changed = session.json("cluster", "alter", "small", "--limit", "partitions=4", "--description", "not so small")
    assert shape_of(changed) == promised_shape("cluster", "alter")
    session.run("topic", "create", "b", "-p", "2", "--cluster", "small")
    found = session.json("cluster", "describe", "small")
    assert shape_of(found) == promised_shape("cluster", "describe")
    assert found["description"] == "not so small"
    assert {"limit": "partitions", "value": 4.0, "used": 4.0} in found["limits"]
    own = session.json("cluster", "describe", "--cluster", "small")
    assert {**own, "limits": []} == {**found, "limits": []}
    assert [row["limit"] for row in own["limits"]] == ["connections", "groups", "partitions", "producer_ids"]
    session.run("cluster", "alter", "small", "--no-limit", "partitions")
    session.run("topic", "create", "c", "-p", "9", "--cluster", "small")
    assert "there is no limit" in session.run("cluster", "alter", "small", "--limit", "joy=1", code=1).stderr


def test_a_cluster_goes_with_everything_in_it(session: Session) -> None:
    session.run("cluster", "create", "gone")
    before = {row["cluster"]: row["id"] for row in session.json("cluster", "list")}["gone"]
    session.run("produce", "orders", "--cluster", "gone", stdin="a\n")
    session.run("service-account", "create", "app", "--cluster", "gone")
    session.run("api-key", "create", "app", "--cluster", "gone")
    session.run("quota", "set", "--user", "app", "producer_byte_rate=1000", "--cluster", "gone")
    assert session.json("cluster", "delete", "gone", "--dry-run")[0]["deleted"] is False
    going = session.json("cluster", "delete", "gone", "--yes")
    assert shape_of(going) == promised_shape("cluster", "delete")
    assert "cluster 'gone'" in session.run("topic", "list", "--cluster", "gone", code=1).stderr

    def is_gone() -> bool:
        return "gone" not in {row["cluster"] for row in session.json("cluster", "list")}

    eventually(is_gone, what="the cluster being gone", within_s=60)
    session.run("cluster", "create", "gone")
    again = {row["cluster"]: row["id"] for row in session.json("cluster", "list")}["gone"]
    assert again != before
    for what in ("topic", "group", "service-account", "api-key", "quota"):
        assert session.json(what, "list", "--cluster", "gone") == [], what
    for name in ("default", "platform"):
        assert "cannot be deleted" in session.run("cluster", "delete", name, "--yes", code=1).stderr


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("topic", "list", "--cluster", "nobody"), "there is no cluster 'nobody'"),
        (("cluster", "create", "default"), "exists already"),
        (("cluster", "create", "UPPER"), "is not a valid name"),
        (("cluster", "create", "fine", "--env", "nowhere"), "there is no environment"),
        (("cluster", "describe", "nobody"), "cluster 'nobody' does not exist"),
        (("cluster", "alter", "nobody", "--description", "x"), "there is no cluster 'nobody'"),
    ],
)
def test_what_cannot_be(session: Session, words: tuple[str, ...], complaint: str) -> None:
    assert complaint in session.run(*words, code=1).stderr


def test_what_is_in_a_cluster_works_there(session: Session) -> None:
    session.run("cluster", "create", "tenant")
    session.run("service-account", "create", "app", "--cluster", "tenant")
    key = session.json("api-key", "create", "app", "--cluster", "tenant")
    assert [row["key"] for row in session.json("api-key", "list", "--cluster", "tenant")] == [key["key"]]
    assert session.json("api-key", "list") == []
    session.run("quota", "set", "--user", "app", "producer_byte_rate=1000", "--cluster", "tenant")
    assert len(session.json("quota", "list", "--cluster", "tenant")) == 1
    assert session.json("quota", "list") == []
    session.run("user", "create", "bob", "--cluster", "tenant", stdin="a secret of bob\n")
    assert session.json("user", "list") == []


def test_encryption(session: Session) -> None:
    session.run("cluster", "create", "sealed", "--encrypt")
    session.run("cluster", "create", "later")
    assert shape_of(session.json("cluster", "encrypt", "later")) == promised_shape("cluster", "encrypt")
    found = session.json("cluster", "keys")
    assert shape_of(found) == promised_shape("cluster", "keys")
    before = {row["cluster"]: row for row in found}
    assert {name: row["state"] for name, row in before.items()} == {"sealed": "on", "later": "on"}
    assert shape_of(session.json("cluster", "rotate-key", "sealed")) == promised_shape("cluster", "rotate-key")
    session.run("cluster", "rotate-key", "later", "--master")
    after = {row["cluster"]: row for row in session.json("cluster", "keys")}
    assert after["sealed"]["master_key"] == before["sealed"]["master_key"]
    assert after["later"]["master_key"] != before["later"]["master_key"]
    assert "is not encrypted" in session.run("cluster", "rotate-key", "default", code=1).stderr
    assert "is not encrypted" in session.run("cluster", "erase", "default", "--yes", code=1).stderr
    assert "no cluster" in session.run("cluster", "encrypt", "nobody", code=1).stderr
    session.run("produce", "t", "--cluster", "sealed", stdin="x\n")
    session.run("cluster", "erase", "sealed", code=2)  # Nobody is there to be asked.
    erased = session.json("cluster", "erase", "sealed", "--yes")
    assert shape_of(erased) == promised_shape("cluster", "erase")
    assert erased["state"] == "erased"
    session.run("consume", "t", "--cluster", "sealed", code=1)
    assert "erased" in session.run("cluster", "encrypt", "sealed", code=1).stderr


def test_names_of_every_kind_are_completed(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    session.run("env", "create", "named-env")
    session.run("cluster", "create", "named-cluster", "--env", "named-env")
    session.run("user", "create", "named-user", stdin="a password\n")
    session.run("service-account", "create", "named-account")
    key = session.json("api-key", "create", "named-account")["key"]
    assert "no service account 'nobody'" in session.run("api-key", "create", "nobody", "--dry-run", code=1).stderr
    config = tmp_path / "client.properties"
    config.write_text(f"bootstrap.servers={session.bootstrap}\n")
    monkeypatch.delenv("PENSTOCK_BOOTSTRAP", raising=False)
    monkeypatch.setenv("PENSTOCK_CLIENT_CONFIG", str(config))
    completer = BashComplete(cli, {}, "penstock", "_PENSTOCK_COMPLETE")

    def completed(*words: str, begun: str = "named-") -> list[str]:
        return [item.value for item in completer.get_completions([*words], begun)]

    assert completed("topic", "list", "--cluster") == completed("cluster", "describe") == ["named-cluster"]
    assert completed("env", "delete") == completed("cluster", "create", "x", "--env") == ["named-env"]
    assert completed("user", "password") == ["named-user"]
    assert completed("api-key", "create") == completed("service-account", "delete") == ["named-account"]
    assert completed("role", "grant", "developer") == ["named-account", "named-user"]
    assert completed("api-key", "delete", begun=key[:4]) == [key]
    config.write_text("bootstrap.servers=127.0.0.1:1\n")
    assert completed("user", "password") == [], "nobody is there"
