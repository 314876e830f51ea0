"""What the doctor says: verdicts by number, probes against this machine."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest
from click.testing import CliRunner

from penstock.agent.settings import SETTINGS
from penstock.base.clock import SystemClock
from penstock.cli.doctor import verdicts
from penstock.cli.doctor.disk import disk_checks, filesystem_of, fsync_latencies_ms, nearest_existing, write_problem
from penstock.cli.doctor.ports import holder_of, listen_problem, port_check, program_name
from penstock.cli.doctor.system import ClockWatch, available_memory, clock_is_synchronized, system_checks
from penstock.cli.doctor.verdicts import GIB, MIB, Check, Holder, Status
from penstock.cli.main import cli
from penstock.cli.text_formats.addresses import Address
from penstock.storage.directory import DataDirectory

KAFKA = Holder(pid=7, command="java")


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (verdicts.port_verdict("kafka", 9092, None, ours=False), Status.OK),
        (verdicts.port_verdict("kafka", 9092, KAFKA, ours=True), Status.WARN),
        (verdicts.port_verdict("kafka", 9092, KAFKA, ours=True, is_running=True), Status.OK),
        (verdicts.port_verdict("kafka", 9092, KAFKA, ours=False, is_running=True), Status.FAIL),
        (verdicts.port_verdict("kafka", 9092, KAFKA, ours=False), Status.FAIL),
        (verdicts.directory_verdict("/data", None), Status.OK),
        (verdicts.directory_verdict("/data", KAFKA), Status.WARN),
        (verdicts.directory_verdict("/data", KAFKA, is_running=True), Status.OK),
        (verdicts.space_verdict(50 * GIB, 100 * GIB), Status.OK),
        (verdicts.space_verdict(4 * GIB, 100 * GIB), Status.WARN),
        (verdicts.space_verdict(100 * MIB, 100 * GIB), Status.FAIL),
        (verdicts.filesystem_verdict("ext4"), Status.OK),
        (verdicts.filesystem_verdict(None), Status.OK),
        (verdicts.filesystem_verdict("tmpfs"), Status.WARN),
        (verdicts.filesystem_verdict("nfs4"), Status.WARN),
        (verdicts.filesystem_verdict("fuse.sshfs"), Status.WARN),
        (verdicts.fsync_verdict([]), Status.OK),
        (verdicts.fsync_verdict([1.0] * 100), Status.OK),
        (verdicts.fsync_verdict([20.0] * 100), Status.WARN),
        (verdicts.fsync_verdict([1.0] * 50 + [200.0] * 50), Status.WARN),
        (verdicts.fsync_verdict([0.005] * 100), Status.WARN),
        (verdicts.fsync_verdict([150.0] * 10), Status.FAIL),
        (verdicts.broker_verdict("broker 1", "host:9092", [0.2] * 50), Status.OK),
        (verdicts.broker_verdict("broker 1", "host:9092", [300.0] * 50), Status.WARN),
        (verdicts.files_verdict(65536, 65536), Status.OK),
        (verdicts.files_verdict(1024, 65536), Status.WARN),
        (verdicts.files_verdict(128, 128), Status.FAIL),
        (verdicts.memory_verdict(GIB), Status.OK),
        (verdicts.memory_verdict(None), Status.OK),
        (verdicts.memory_verdict(704 * MIB), Status.OK),
        (verdicts.memory_verdict(703 * MIB), Status.WARN),
        (verdicts.memory_verdict(256 * MIB), Status.WARN),
        (verdicts.memory_verdict(64 * MIB), Status.FAIL),
        (verdicts.version_verdict("Python", "3.11.7", (3, 11, 7), (3, 11)), Status.OK),
        (verdicts.version_verdict("Python", "3.9.1", (3, 9, 1), (3, 11)), Status.FAIL),
        (verdicts.tools_verdict({"Java": None, "Go": "/usr/bin/go"}), Status.OK),
    ],
)
def test_verdicts(found: Check, expected: Status) -> None:
    assert found.status is expected
    # Whatever is not fine says what to change, and only that.
    assert (found.change is None) == (expected is Status.OK)


@pytest.mark.parametrize(("available_mib", "total_mib"), [(703, 592), (512, 416), (130, 152)])
def test_how_much_memory_clients_may_have_where_there_is_little(available_mib: int, total_mib: int) -> None:
    """As much as there is room for, and never less than an agent can do with."""
    found = verdicts.memory_verdict(available_mib * MIB)
    assert found.change == f"Let them have less: penstock up --set memory.max.bytes={total_mib * MIB}"
    SETTINGS.key("memory.max.bytes").parse(str(total_mib * MIB))


@pytest.mark.parametrize(
    ("version", "database", "expected"),
    [(1, 30, Status.OK), (1, None, Status.OK), (1, 29, Status.WARN), (1, 31, Status.FAIL), (2, 30, Status.FAIL)],
)
def test_versions_of_data(version: int, database: int | None, expected: Status) -> None:
    found = verdicts.data_verdict(
        version=version, newest=1, database=database, newest_database=30, metadata="sqlite"
    )  # fmt: skip
    assert found.status is expected
    known = "" if database is None else f", database {database}"
    assert found.found.startswith(f"format {version}{known}, in sqlite")


@pytest.mark.parametrize(
    ("synchronized", "now_ms", "drift_ms", "expected"),
    [
        (True, 2_000, 0.5, Status.OK),
        (None, 2_000, 0.5, Status.OK),
        (False, 2_000, 0.5, Status.WARN),
        (True, 2_000, -300.0, Status.WARN),
        (True, 500, 0.0, Status.FAIL),
    ],
)
def test_clock_verdicts(synchronized: bool | None, now_ms: int, drift_ms: float, expected: Status) -> None:
    found = verdicts.clock_verdict(synchronized=synchronized, now_ms=now_ms, newest_known_ms=1_000, drift_ms=drift_ms)
    assert found.status is expected


def test_a_taken_port_names_who_has_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = Address("127.0.0.1", listener.getsockname()[1])
        assert listen_problem(address) is not None
        holder = holder_of(address.port)
        found = port_check("kafka", address)
    assert holder.pid == os.getpid()
    assert found.status is Status.FAIL
    assert str(holder.pid) in found.found
    assert port_check("kafka", address).status is Status.OK


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["/usr/bin/java", "-Xmx1G", "kafka.Kafka"], "java"),
        (["python3", "/srv/.venv/bin/penstock", "up"], "penstock"),
        (["/usr/bin/python3.11", "-m", "penstock", "up"], "penstock"),
        (["python3", "-u", "/srv/penstock/tool.py"], "tool.py"),
        (["python3"], "python3"),
        ([], "a process without a command line"),
    ],
)
def test_programs_are_named_by_what_they_run(words: list[str], expected: str) -> None:
    assert program_name(words) == expected


def test_an_address_that_is_not_ours_cannot_be_listened_on() -> None:
    found = port_check("http", Address("203.0.113.1", 8080))
    assert found.status is Status.FAIL
    assert "--http" in (found.change or "")


def test_disk_probes(tmp_path: Path) -> None:
    assert nearest_existing(tmp_path / "not" / "there") == tmp_path
    assert write_problem(tmp_path) is None
    assert write_problem(Path("/proc")) is not None
    assert filesystem_of(Path("/proc/self")) == "proc"
    latencies = fsync_latencies_ms(tmp_path, SystemClock())
    assert latencies
    assert min(latencies) >= 0
    assert list(tmp_path.iterdir()) == []  # It leaves nothing behind.


def test_system_probes() -> None:
    assert {check.name for check in system_checks()} == {
        "open files",
        "memory",
        "Python",
        "SQLite",
        "libraries",
        "compiled twin",
        "toolchains",
    }
    assert (available_memory() or 1) > 0
    assert clock_is_synchronized() in (True, False, None)
    assert ClockWatch(SystemClock()).verdict().status is not Status.FAIL


def test_the_command_fails_if_a_check_does(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken = f"127.0.0.1:{listener.getsockname()[1]}"
        words = ["doctor", "--data-dir", str(tmp_path), "--kafka", taken, "--http", "127.0.0.1:0", "-o", "json"]
        result = CliRunner().invoke(cli, words)
    document = json.loads(result.output)
    assert result.exit_code == 1
    assert document["status"] == "fail"
    assert {tuple(check) for check in document["checks"]} == {("name", "status", "found", "change")}
    assert [check["name"] for check in document["checks"] if check["status"] == "fail"] == [
        f"port {taken.rpartition(':')[2]} (kafka)"
    ]


def test_a_directory_in_use_names_who_has_it(tmp_path: Path) -> None:
    directory = DataDirectory.open(tmp_path)
    first = next(iter(disk_checks(tmp_path, SystemClock())))
    assert (first.status, f"(pid {os.getpid()})" in first.found) == (Status.WARN, True), first
    (tmp_path / "lock").write_text("")  # Who has it is not known, that somebody has it is.
    assert next(iter(disk_checks(tmp_path, SystemClock()))).found.endswith("in use by another process")
    directory.close()
    assert next(iter(disk_checks(tmp_path, SystemClock()))).status is Status.OK
    DataDirectory.open(tmp_path).close()


def test_a_directory_is_to_be_made_only_where_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path)
    seen = [next(iter(disk_checks(Path(name), SystemClock()))).found for name in ("there", "not-there")]
    assert seen == [str(tmp_path / "there"), f"{tmp_path / 'not-there'} (will be created)"]
