"""The tree of commands: what it lists, how it ends, how fast it starts."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner, Result

from penstock.cli.lazy import LazyGroup
from penstock.cli.main import cli


def run(*words: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(cli, words, input=stdin)


def commands(group: click.Group = cli, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


ALL = list(commands())


@pytest.mark.parametrize(("path", "command"), ALL, ids=[" ".join(path) for path, _ in ALL])
def test_every_command_explains_itself(path: tuple[str, ...], command: click.Command) -> None:
    shown = run(*path, "--help")
    assert shown.exit_code == 0
    assert shown.output.startswith("Usage: ")
    assert all(parameter.help for parameter in command.params if isinstance(parameter, click.Option))


def test_summaries_are_those_of_the_commands() -> None:
    groups = [cli, *(command for _, command in ALL if isinstance(command, LazyGroup))]
    for group in groups:
        for name, lazy in group.lazy.items():
            first_sentence = re.split(r"(?<=\.)\s", (lazy.load().help or "").strip())[0]
            assert (name, lazy.summary) == (name, first_sentence)


def test_every_command_that_asks_has_the_same_options() -> None:
    local = {"up", "version", "completion"}  # `version` takes a cluster, and needs none.
    for path, command in ALL:
        if isinstance(command, click.Group) or path[0] in local:
            continue
        options = {name for parameter in command.params for name in parameter.opts}
        wanted = {"--output"} if path == ("role", "list") else {"--output", "--bootstrap", "--timeout"}
        if path == ("doctor",):
            wanted.remove("--timeout")
        assert wanted <= options, path


def test_commands_that_destroy_ask_and_can_be_tried() -> None:
    for path, command in ALL:
        options = {name for parameter in command.params for name in parameter.opts}
        if path[-1] in ("delete", "trim", "abort"):
            assert {"--yes", "--dry-run"} <= options, path
        if path[-1] in ("create", "alter", "add-partitions", "seek"):
            assert "--dry-run" in options, path


def test_version_in_every_format() -> None:
    document = json.loads(run("version", "-o", "json").output)
    assert list(document) == ["penstock", "python", "sqlite", "system", "twin"]
    assert f"penstock: {document['penstock']}" in run("version", "-o", "yaml").output
    assert run("version").output.startswith(f"penstock  {document['penstock']}\n")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["topc"], "did you mean 'topic'?"),
        (["topic", "lst"], "did you mean 'list'?"),
        (["consumer-groups", "list"], "did you mean 'group'?"),
        (["group", "reset-offsets", "g"], "did you mean 'seek'?"),
        (["acl", "add"], "did you mean 'allow'?"),
        (["topic", "--list"], "--list is a command here"),
        (["topic", "consume", "orders"], "did you mean 'penstock consume'?"),
        (["topic", "alter-config", "orders"], "did you mean 'alter'?"),
        (["consume", "--topic", "orders"], "topics are named without an option"),
        (["consume", "orders", "--from-beginning"], "that is the default"),
        (["consume", "orders", "--max-messages", "3"], "did you mean '--count'?"),
        (["topic", "list", "--max-messages", "3"], "No such option"),
        (["topic", "list", "--execute"], "No such option"),
        (["group", "seek", "g", "--to-earliest"], "did you mean '--to start'?"),
        (["group", "seek", "g", "--to", "end", "--execute"], "without --dry-run it is done"),
        (["topic", "alter", "orders", "--add-config", "a=b"], "did you mean '--set'?"),
        (["-b", "kafka:9092", "topic", "list"], "-b goes after the command, as in: penstock topic list -b"),
        (["topic", "-o", "json", "list"], "-o goes after the command"),
        (["topic", "list", "--bootstrap-server", "host:x"], "no valid port"),
        (["topic", "list", "--command-config", "."], "Invalid value for '--client-config'"),
        (["topic", "create"], "Missing argument 'TOPIC...'"),
        (["topic", "create", "a", "-c", "novalue"], "write key=value"),
        (["topic", "create", "a", "-c", "k=1", "-c", "k=2"], "k is given twice"),
        (["topic", "alter", "a"], "nothing to change"),
        (["topic", "alter", "a", "--set", "k=1", "--unset", "k"], "k is both set and unset"),
        (["topic", "add-partitions", "a"], "give one of --add and --total"),
        (["topic", "list", "-b", "host:x"], "no valid port"),
        (["topic", "list", "--timeout", "soon"], "is not a duration"),
        (["topic", "list", "--timeout", "0s"], "leaves no time to connect"),
        (["consume", "a", "-f", "%z"], "%z is not a field"),
        (["consume", "a", "-s", "middle"], "is not a position"),
        (["produce", "a", "-f", "%k%v\\n"], "cannot be told apart"),
        (["produce", "a", "-f", "%v\\n", "-K", ":"], "give one of --format and --key-separator"),
        (["produce", "a", "--idempotent", "--acks", "1"], "--idempotent needs --acks all"),
        (["produce", "a", "-H", "=x"], "write name=value"),
        (["produce", "a", "-f", ""], "has no field"),
        (["up", "--kafka", "nowhere"], "has no port"),
        (["up", "--set", "x"], "write key=value"),
        (["up", "--set", "a=1", "--set", "a=2"], "a is given twice"),
        (["up", "--metadata", "mysql://x"], "postgresql://"),
        (["bench", "--size", "8"], "needs 16 bytes"),
        (["topic", "trim", "a", "--before", "lunch"], "is not a position"),
        (["group", "seek", "g", "--to", "file:x", "-t", "a"], "the file names the partitions"),
        (["group", "seek", "g", "--to", "lunch"], "is not a position"),
        (["group", "seek", "g", "--to", "end", "-t", "a:x"], "is not a list of partitions"),
        (["completion", "csh"], "'csh' is not one of"),
    ],
)
def test_wrong_usage_ends_with_2_and_says_what_is_right(words: list[str], sentence: str) -> None:
    result = run(*words)
    assert result.exit_code == 2, result.output
    assert sentence in " ".join(result.output.split())


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_printed(shell: str) -> None:
    result = run("completion", shell)
    assert result.exit_code == 0
    assert "_PENSTOCK_COMPLETE" in result.output


def penstock(*words: str, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "penstock", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **options)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["nosuch"], "error: no command 'nosuch'. See: penstock --help"),
        (["topic", "create"], "error: missing argument 'TOPIC...'. See: penstock topic create --help"),
        (
            ["topic", "create", "a", "-p", "x"],
            "error: invalid value for '-p' / '--partitions': 'x' is not a valid whole number."
            " See: penstock topic create --help",
        ),
        (
            ["config", "describe"],
            "error: whose settings? Give one of --topic, --group, --broker and --client-metrics."
            " See: penstock config describe --help",
        ),
    ],
)
def test_wrong_usage_is_said_in_one_line(words: list[str], line: str) -> None:
    done = penstock(*words)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"{line}\n")


def test_a_locale_without_some_letters_prints_the_others() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "penstock", "topic", "list", "--help"], capture_output=True, timeout=60, check=False,
        env={**os.environ, "PYTHONIOENCODING": "latin-1"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"HOST:PORT[,?]" in done.stdout


def test_exit_codes_of_the_process() -> None:
    assert penstock("version").returncode == 0
    assert penstock("nonsense").returncode == 2
    unreachable = penstock("topic", "list", "-b", "127.0.0.1:1")
    assert unreachable.returncode == 1
    assert unreachable.stdout == ""
    assert unreachable.stderr == (
        "error: cannot reach 127.0.0.1:1: connection refused. Is it running? Try: penstock up\n"
    )


def test_ctrl_c_ends_it_as_it_ends_other_programs() -> None:
    """A shell stops a loop of commands only if one of them dies of the signal."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        place = f"127.0.0.1:{silent.getsockname()[1]}"
        command = [sys.executable, "-m", "penstock", "topic", "list", "-b", place]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            peer, _ = silent.accept()
            process.send_signal(signal.SIGINT)
            out, errors = process.communicate(timeout=30)
            peer.close()
    assert (process.returncode, out, errors.strip()) == (-signal.SIGINT, b"", b"")


def test_a_closed_reader_is_no_failure() -> None:
    program = f"{sys.executable} -m penstock completion bash | true; exit ${{PIPESTATUS[0]}}"
    result = subprocess.run(["bash", "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stderr) == (0, "")


# What costs time to import and has no business in `penstock version` or `penstock --help`.
HEAVY = (
    "asyncio",
    "rich",
    "yaml",
    "penstock.wire",
    "penstock.agent",
    "cramjam",
    "asyncpg",
    "starlette",
    "uvicorn",
    "prometheus_client",
)


@pytest.mark.parametrize("words", [["version"], ["--help"], ["topic", "--help"], ["completion", "fish"]])
def test_nothing_heavy_is_imported_to_start(words: list[str]) -> None:
    program = (
        "import sys; from penstock.cli.main import main; sys.argv = ['penstock', *sys.argv[1:]]\n"
        "try: main()\n"
        "finally: print('\\n'.join(sys.modules), file=sys.stderr)"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, timeout=60, check=True
    )
    loaded = set(result.stderr.split())
    assert not [module for module in HEAVY if module in loaded]


def test_it_starts_quickly() -> None:
    code = (
        "import sys; from penstock.__main__ import main; sys.argv = ['penstock', '--help']; main();"
        "print([name for name in ('asyncio', 'rich', 'sqlite3', 'yaml', 'penstock.agent', 'penstock.wire.codec')"
        " if name in sys.modules], file=sys.stderr)"
    )
    taken_s = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken_s.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert done.stderr.strip() == "[]"
    assert min(taken_s) < 0.3


@pytest.mark.parametrize("words", [["up"], ["doctor"], ["user", "create", "bob"], ["role", "grant", "admin", "bob"]])
def test_an_empty_data_directory_is_not_the_current_one(words: list[str]) -> None:
    """`--data-dir "$DATA"` where nobody has set it."""
    done = subprocess.run(
        [sys.executable, "-m", "penstock", *words, "--data-dir", ""],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert "'--data-dir': it is empty; write . for the current directory. See: penstock " in done.stderr
