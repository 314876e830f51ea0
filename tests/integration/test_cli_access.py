"""Users, service accounts and API keys, at the command line of a broker that asks for credentials."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_session import promised_shape, shape_of
from click.testing import CliRunner
from fixtures.secured import PASSWORD, USER, Secured

from penstock.cli.main import cli


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    secured = Secured(tmp_path_factory.mktemp("access"))
    secured.server.start()
    yield secured
    assert secured.server.stop() == 0


class Person:
    """Somebody who runs commands with their own way to connect."""

    def __init__(self, bootstrap: str, config: Path | None) -> None:
        self._bootstrap, self._config = bootstrap, config

    def run(self, *words: str, stdin: str | None = None, code: int = 0) -> str:
        words = (*words, "-b", self._bootstrap)
        if self._config is not None:
            words = (*words, "--client-config", str(self._config))
        result = CliRunner().invoke(cli, words, input=stdin)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return result.output

    def json(self, *words: str, stdin: str | None = None) -> Any:
        return json.loads(self.run(*words, "-o", "json", stdin=stdin))


@pytest.fixture(scope="module")
def alice(secured: Secured) -> Person:
    return Person(secured.at("SASL_SSL"), secured.properties("SASL_SSL", "SCRAM-SHA-512"))


def as_(secured: Secured, file: Path, protocol: str = "SASL_SSL") -> Person:
    """Whoever has this file, and knows the authority."""
    with file.open("a") as properties:
        properties.write(f"ssl.truststore.type=PEM\nssl.truststore.location={secured.authority.ca}\n")
    return Person(secured.at(protocol), file)


def test_a_user_from_making_to_deleting(secured: Secured, alice: Person, tmp_path: Path) -> None:
    assert USER in [row["user"] for row in alice.json("user", "list")]
    file = tmp_path / "bob.properties"
    made = alice.json("user", "create", "bob", "--write", str(file))
    assert shape_of(made) == promised_shape("user", "create")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    bob = as_(secured, file)
    assert shape_of(bob.json("user", "list")) == promised_shape("user", "list")
    assert "exists already" in alice.run("user", "create", "bob", stdin="x\n", code=1)
    changed = alice.json("user", "password", "bob", stdin="another one\n")
    assert shape_of(changed) == promised_shape("user", "password")
    assert "refuses bob" in bob.run("user", "list", code=1)
    deleted = alice.json("user", "delete", "bob", "--yes")
    assert shape_of(deleted) == promised_shape("user", "delete")
    assert "there is no user" in alice.run("user", "delete", "bob", "--yes", code=1)
    assert "there is no user" in alice.run("user", "password", "bob", stdin="x\n", code=1)


def test_nothing_is_done_for_trial(alice: Person) -> None:
    alice.run("user", "create", "ghost", "--dry-run")
    alice.run("service-account", "create", "ghost", "--dry-run")
    alice.run("api-key", "create", "ghost", "--dry-run")
    assert "ghost" not in alice.run("user", "list") + alice.run("service-account", "list")


def test_a_service_account_and_its_keys(secured: Secured, alice: Person, tmp_path: Path) -> None:
    made = alice.json("service-account", "create", "billing", "--description", "makes invoices")
    assert shape_of(made) == promised_shape("service-account", "create")
    assert "exists already" in alice.run("service-account", "create", "billing", code=1)
    assert "no name for a service account" in alice.run("service-account", "create", "a b", code=1)
    file = tmp_path / "billing.properties"
    key = alice.json("api-key", "create", "billing", "--write", str(file))
    assert shape_of(key) == promised_shape("api-key", "create")
    assert key["secret"] is None
    billing = as_(secured, file)
    billing.run("topic", "create", "invoices")
    shown = alice.json("api-key", "create", "billing", "--lifetime", "1h")
    assert shown["secret"]
    assert shown["expires_at"]
    keys = alice.json("api-key", "list", "--owner", "billing")
    assert shape_of(keys) == promised_shape("api-key", "list")
    assert shown["secret"] not in json.dumps(keys)
    assert {row["key"] for row in keys} == {key["key"], shown["key"]}
    [account] = alice.json("service-account", "list")
    assert shape_of([account]) == promised_shape("service-account", "list")
    assert account["keys"] == 2
    deleted = alice.json("api-key", "delete", key["key"], "--yes")
    assert shape_of(deleted) == promised_shape("api-key", "delete")
    assert "Invalid username or password" in billing.run("topic", "list", code=1)
    gone = alice.json("service-account", "delete", "billing", "--yes")
    assert shape_of(gone) == promised_shape("service-account", "delete")
    assert alice.json("api-key", "list") == []
    assert "there is no service account" in alice.run("api-key", "create", "billing", code=1)


def test_an_api_key_ends(secured: Secured, alice: Person) -> None:
    alice.run("service-account", "create", "brief")
    key = alice.json("api-key", "create", "brief", "--lifetime", "1ms")
    login = {"PENSTOCK_USER": key["key"], "PENSTOCK_PASSWORD": key["secret"]}
    config = secured.properties("SASL_SSL", sasl_mechanism="PLAIN")
    words = ["topic", "list", "-b", secured.at("SASL_SSL"), "--client-config", str(config)]
    done = CliRunner(env=login).invoke(cli, words)
    assert done.exit_code == 1
    assert "Invalid username or password" in done.output


def test_what_is_said_to_who_comes_without_credentials(secured: Secured) -> None:
    for protocol in ("SASL_PLAINTEXT", "SASL_SSL", "SSL"):
        output = Person(secured.at(protocol), None).run("topic", "list", code=1)
        assert output.startswith("error: ")
    certificate, key = secured.authority.client("carol")
    file = secured.properties("SSL", ssl_certificate_location=str(certificate), ssl_key_location=str(key))
    Person(secured.at("SSL"), file).run("topic", "list")
    untrusting = secured.server.data_dir.parent / "untrusting.properties"
    untrusting.write_text(f"security.protocol=SASL_SSL\nsasl.username={USER}\nsasl.password={PASSWORD}\n")
    assert "not trusted" in Person(secured.at("SASL_SSL"), untrusting).run("topic", "list", code=1)


def test_a_password_in_a_directory_that_is_served(secured: Secured) -> None:
    command = [sys.executable, "-m", "penstock", "user", "create", "eve", "--data-dir", str(secured.server.data_dir)]
    done = subprocess.run(command, input="x\n", capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "in use by another process" in done.stderr


def test_the_way_back_in(tmp_path: Path) -> None:
    words = ["user", "password", USER, "--data-dir", str(tmp_path / "data")]
    done = CliRunner().invoke(cli, words, input="new\n")
    assert done.exit_code == 0, done.output
    again = CliRunner().invoke(cli, ["user", "create", USER, "--data-dir", str(tmp_path / "data")], input="x\n")
    assert again.exit_code == 1
    assert "exists already" in again.output
    empty = CliRunner().invoke(cli, words, input="")
    assert empty.exit_code == 2
