"""What the command line says of versions: of a cluster, and of what lies in a data directory."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from penstock.cli.main import cli
from penstock.metadata.migrate import known_migrations, version_in_file
from penstock.storage.directory import FORMAT_VERSION
from penstock.testing import Broker

NEWEST = known_migrations()[-1].version


def printed(*words: str, code: int = 0) -> Any:
    result = CliRunner().invoke(cli, (*words, "-o", "json"))
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def seen(directory: Path) -> dict[str, str] | None:
    """What the doctor says of a directory's version."""
    words = ("doctor", "--data-dir", str(directory), "--kafka", "127.0.0.1:0", "--http", "127.0.0.1:0", "-o", "json")
    checks = json.loads(CliRunner().invoke(cli, words).stdout)["checks"]
    return next((check for check in checks if check["name"] == "data version"), None)


def test_a_cluster_says_what_it_is(tmp_path: Path) -> None:
    alone = printed("version")
    with Broker(data_dir=tmp_path / "data") as kafka:
        found = printed("version", "-b", kafka.bootstrap_servers)
        assert {key: found[key] for key in alone} == alone
        info = printed("cluster", "info", "-b", kafka.bootstrap_servers)
        assert (found["cluster"], found["software"]) == (info["id"], "Penstock")
        assert found["features"] == info["features"]
        assert {"name": "transaction.version", "level": 2} in found["features"]
        assert found["apis"] > 60
        shown = CliRunner().invoke(cli, ("version", "-b", kafka.bootstrap_servers)).stdout
        assert "transaction.version" in shown
    nobody = CliRunner().invoke(cli, ("version", "-b", "127.0.0.1:1"))
    assert (nobody.exit_code, nobody.stdout) == (1, "")


def test_the_doctor_says_which_release_has_written_what_is_there(tmp_path: Path) -> None:
    data = tmp_path / "data"
    assert seen(data) is None
    with Broker(data_dir=data, durability="process"):
        assert (seen(data) or {})["status"] == "ok", "in use or not"
    file, format_file = data / "metadata.db", data / "format"
    there = sorted(data.iterdir())
    assert (seen(data) or {})["found"] == f"format {FORMAT_VERSION}, database {NEWEST}, in sqlite"
    assert sorted(data.iterdir()) == there, "nothing is left behind"
    with sqlite3.connect(file) as database:
        database.execute("DELETE FROM migration WHERE version = ?", (NEWEST,))
    database.close()
    older = seen(data) or {}
    assert (older["status"], older["found"]) == ("warn", f"format {FORMAT_VERSION}, database {NEWEST - 1}, in sqlite")
    with sqlite3.connect(file) as database:
        database.execute("INSERT INTO migration (version, name, applied_ms) VALUES (9999, 'later', 0)")
    database.close()
    assert (seen(data) or {})["status"] == "fail"
    format_file.write_text("{}")
    damaged = seen(data) or {}
    assert damaged["status"] == "fail"
    assert "is damaged" in damaged["change"]


def test_a_file_that_is_no_database_has_no_version(tmp_path: Path) -> None:
    (tmp_path / "metadata.db").write_bytes(b"not a database at all" * 100)
    assert version_in_file(tmp_path / "metadata.db") is None
    assert version_in_file(tmp_path / "nothing.db") is None
    assert not (tmp_path / "nothing.db").exists()
