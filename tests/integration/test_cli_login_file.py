"""`--write` against a broker: whoever is given the file connects with it, from anywhere, and with Java."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fixtures import programs
from fixtures.secured import PASSWORD, USER, Secured

Run = Callable[..., str]


@pytest.fixture
def run(secured: Secured, tmp_path: Path) -> Run:
    """Runs commands as somebody, in an empty directory."""

    def penstock(*words: str, login: Path | str = "") -> str:
        if not login:
            module = "org.apache.kafka.common.security.scram.ScramLoginModule"
            jaas = f'{module} required username="{USER}" password="{PASSWORD}";'
            login = secured.properties("SASL_SSL", "SCRAM-SHA-512", sasl_jaas_config=jaas)
            words = (*words, "-b", secured.at("SASL_SSL"))
        command = [sys.executable, "-m", "penstock", *words, "--client-config", str(login)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return penstock


@pytest.mark.timeout(300)
def test_what_a_key_needs_is_in_its_file(secured: Secured, run: Run, tmp_path: Path) -> None:
    run("service-account", "create", "billing")
    run("role", "grant", "developer", "billing")
    run("api-key", "create", "billing", "--write", "billing.properties")
    (elsewhere := tmp_path / "elsewhere").mkdir()
    moved = (tmp_path / "billing.properties").rename(elsewhere / "billing.properties")
    assert json.loads(run("topic", "create", "bills", "-o", "json", login=moved))[0]["created"]
    command = programs.kafka_tool(
        "org.apache.kafka.tools.TopicCommand", "--list", "--bootstrap-server", secured.at("SASL_SSL"),
        "--command-config", str(moved),
    )  # fmt: skip
    listed = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (listed.returncode, listed.stdout.split()) == (0, ["bills"]), listed.stdout + listed.stderr


def test_users_of_other_clusters_are_told_how_to_log_in(run: Run) -> None:
    run("cluster", "create", "acme")
    said = run("user", "create", "bob", "--role", "developer", "--write", "bob.properties", "--cluster", "acme")
    assert "bob@acme" in said
    run("topic", "create", "theirs", login="bob.properties")
    listed = json.loads(run("topic", "list", "--cluster", "acme", "-o", "json"))
    assert [row["name"] for row in listed] == ["theirs"]
    said = run("user", "password", "bob", "--write", "again.properties", "--cluster", "acme")
    assert "bob@acme" in said
    assert run("topic", "list", login="again.properties").startswith("TOPIC")
