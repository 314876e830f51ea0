"""What the README, the tutorial and the how-tos tell people to type, typed: every snippet as it is printed there.

Only the address is another one, for something else may have port 9092 where tests run.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fixtures import programs, toolchains
from fixtures.documents import ROOT, Typed, blocks, typed
from fixtures.server import Server
from fixtures.waiting import eventually
from fixtures.wire import Wire

from penstock.testing import Broker

pytestmark = pytest.mark.timeout(600)  # Includes downloading with cold caches.

ADDRESS = "127.0.0.1:9092"
README = (ROOT / "README.md").read_text()
TUTORIAL = (ROOT / "docs" / "tutorial" / "first-topic.md").read_text()
HOW_TO = ROOT / "docs" / "how-to"
ELSEWHERE = {
    "penstock bench": "test_cli.py, for a second instead of fifteen",
    "penstock doctor": "test_cli_doctor.py: it looks at ports that something else may have here",
    "git clone <this repository> penstock && cd penstock": "whoever runs this has done so",
    "make up": "what it runs is what all other tests run",
}
"""What is run by other tests."""
FOLLOWS = re.compile(r"penstock consume .* -F\b")
RUN_TIMEOUT_S = 60

Shell = Callable[[str], str]


def _environment(bootstrap: str) -> dict[str, str]:
    return {**os.environ, "PENSTOCK_BOOTSTRAP": bootstrap}


def start(command: str, bootstrap: str, directory: Path) -> subprocess.Popen[str]:
    """Begin what somebody types after setting up."""
    set_up = f'penstock() {{ {shlex.quote(sys.executable)} -m penstock "$@"; }}\nset -o pipefail\n'
    return subprocess.Popen(
        ["bash", "-c", set_up + command.replace(ADDRESS, bootstrap)], cwd=directory, env=_environment(bootstrap),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def run(command: str, bootstrap: str, directory: Path) -> str:
    """What a command printed. One that follows a topic is ended by Ctrl-C, as it is said, once it has printed."""
    running = start(command, bootstrap, directory)
    first = ""
    if FOLLOWS.search(command):
        assert running.stdout is not None
        first = running.stdout.readline()
        assert first, f"{command} printed nothing"
        os.killpg(running.pid, signal.SIGINT)
    return first + finish(running, command)


def finish(running: subprocess.Popen[str], command: str) -> str:
    """What it printed. It must not fail."""
    printed, complaints = running.communicate(timeout=RUN_TIMEOUT_S)
    assert running.returncode == 0, f"{command}: exit code {running.returncode}\n{printed}\n{complaints}"
    return printed


@pytest.fixture
def kafka() -> Iterator[Broker]:
    """A broker where nothing was done before."""
    with Broker() as broker:
        yield broker


@pytest.fixture
def shell(kafka: Broker, tmp_path: Path) -> Shell:
    """Types a command; what it printed."""
    return lambda command: run(command, kafka.bootstrap_servers, tmp_path)


def type_in(line: Typed, shell: Shell) -> None:
    """Type a line and see that what the document says it prints is among what it prints."""
    if line.command in ELSEWHERE:
        return
    printed = iter(shell(line.command).splitlines())
    for expected in line.printed:
        assert expected in printed, f"{line.command} did not print {expected!r}"


def run_python(program: str, kafka: Broker, directory: Path) -> str:
    """What a program printed."""
    done = subprocess.run(
        [sys.executable, "-c", program.replace(ADDRESS, kafka.bootstrap_servers)], cwd=directory,
        env=_environment(kafka.bootstrap_servers), capture_output=True, text=True, timeout=RUN_TIMEOUT_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_tour_in_a_shell(shell: Shell) -> None:
    tour, _ = blocks(README, "console")
    for line in typed(tour):
        type_in(line, shell)


def test_the_tour_with_kcat(shell: Shell) -> None:
    toolchains.require("kcat", "kcat")
    _, tour = blocks(README, "console")
    written, read = typed(tour)
    shell(written.command)
    assert "hello" in shell(read.command).splitlines()


def test_the_tour_in_python(kafka: Broker, tmp_path: Path) -> None:
    tour, testing = blocks(README, "python")
    expected = re.findall(r"print\(.*\)  # (.*)", tour)
    assert run_python(tour, kafka, tmp_path).splitlines() == expected == ["b'world' b'hello'"]
    assert re.fullmatch(r"127\.0\.0\.1:\d+\n", run_python(testing, kafka, tmp_path))


def test_the_tour_in_java(kafka: Broker, tmp_path: Path) -> None:
    toolchains.require(programs.JDK, "java", "javac", "mvn")
    jars = programs.maven_jars(programs.PROGRAMS / "java" / "pom.xml")
    (tour,) = blocks(README, "java")
    (tmp_path / "Tour.java").write_text(tour.replace(ADDRESS, kafka.bootstrap_servers))
    toolchains.build(tmp_path, "javac", "-d", str(tmp_path), "-cp", f"{jars}/*", "Tour.java")
    done = subprocess.run(
        programs.jvm(f"{tmp_path}:{jars}/*", "Tour"), capture_output=True, text=True, timeout=RUN_TIMEOUT_S, check=True
    )
    assert done.stdout == "greetings @ 0\n"


@pytest.mark.parametrize("name", ["compact-a-topic", "find-lag", "share-groups"])
def test_how_tos_in_a_shell(shell: Shell, name: str) -> None:
    if name == "find-lag":
        shell("echo order | penstock produce orders")
        shell("penstock group seek billing --to start -t orders")
    for block in blocks((HOW_TO / f"{name}.md").read_text(), "console"):
        for line in typed(block):
            type_in(line, shell)


def test_programs_are_tested_as_it_is_said(tmp_path: Path) -> None:
    """All of the how-to is one file of tests: those after the first say what is imported before."""
    program = "\n\n".join(blocks((HOW_TO / "test-your-program.md").read_text(), "python"))
    (tmp_path / "test_program.py").write_text(program)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:asyncio", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=RUN_TIMEOUT_S, check=False)
    assert re.search(r"^[1-9]\d* passed", done.stdout, re.MULTILINE), done.stdout + done.stderr


# ---- the tutorial --------------------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """What `make up` runs, in the directory that somebody is in who does what the tutorial says."""
    server = Server(tmp_path / "server", durability="disk")
    server.start()
    (tmp_path / "penstock-data").symlink_to(server.data_dir)
    yield server
    server.kill()


def printed_at_start(server: Server) -> str:
    """What the process printed, as if it had been `make up` in a directory with nothing else on its ports."""
    own = {
        server.bootstrap: ADDRESS, f" -b {ADDRESS}": "", str(server.http_port): "8080",
        str(server.data_dir): "…/penstock-data", f"{sys.executable} -m penstock": ".venv/bin/penstock",
    }  # fmt: skip
    eventually(lambda: "Next" in server.log_tail(), what="what the server prints")
    printed = server.log_tail()
    for here, there in own.items():
        printed = printed.replace(here, there)
    return printed


def test_the_tutorial(server: Server, tmp_path: Path) -> None:
    _, first_steps, write, group, plug, less = TUTORIAL.split("\n## ")

    def shell(command: str) -> str:
        return run(command, server.bootstrap, tmp_path)

    def type_all(section: str) -> None:
        for block in blocks(section, "console"):
            for line in typed(block):
                type_in(line, shell)

    assert printed_at_start(server) in first_steps
    type_all(first_steps)
    type_all(write)
    (reader,) = blocks(group, "python")
    (tmp_path / "reader.py").write_text(reader.replace(ADDRESS, server.bootstrap))
    reading = subprocess.Popen([sys.executable, "reader.py"], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    try:
        assert reading.stdout is not None
        assert sorted(reading.stdout.readline().split()[-1] for _ in range(5)) == ["1", "2", "3", "4", "5"]
        type_all(group)
    finally:
        reading.kill()
        reading.communicate()
    pull_the_plug(plug, server, tmp_path, shell)
    type_all(less)


def pull_the_plug(section: str, server: Server, directory: Path, shell: Shell) -> None:
    """The fourth section: the server is killed while 200,000 records are written, and started again."""
    killing, after = blocks(section, "console")
    produce, kill, again = (line.command for line in typed(killing))
    assert (produce[-2:], again) == (" &", "make up")
    producing = start(produce.removesuffix(" &"), server.bootstrap, directory)
    try:
        with Wire(server.bootstrap) as wire:
            eventually(lambda: wire.list_offset("counted", -1).offset > 0, within_s=30, what="records being written")
        shell(kill)
        eventually(lambda: not server.running, what="the end of the server")
        assert server.exit_code() == -signal.SIGKILL
        server.start()
        _, told = producing.communicate(timeout=RUN_TIMEOUT_S)
        assert told.startswith("200,000 records "), told
    finally:
        producing.kill()
        producing.communicate()
    for line in typed(after):
        type_in(line, shell)
