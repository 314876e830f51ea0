"""A person at the command line of a running broker, and the shapes the help promises."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import click
from click.testing import CliRunner, Result

from penstock.cli.main import cli


@dataclass(frozen=True)
class Session:
    """Runs commands against one cluster."""

    bootstrap: str

    def run(self, *words: str, stdin: str | bytes | None = None, code: int = 0) -> Result:
        """Run a command in this process; its exit code must be as expected."""
        result = CliRunner(env={"PENSTOCK_BOOTSTRAP": self.bootstrap}).invoke(cli, words, input=stdin)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return result

    def json(self, *words: str, stdin: str | bytes | None = None) -> Any:
        """Run a command that prints one document."""
        return json.loads(self.run(*words, "-o", "json", stdin=stdin).stdout)

    def records(self, topic: str, *words: str) -> list[dict[str, Any]]:
        """What `consume -o json` prints."""
        return [json.loads(line) for line in self.run("consume", topic, *words, "-o", "json").stdout.splitlines()]

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Start a command as a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "penstock", *words, "-b", self.bootstrap],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )


def promised_shape(*path: str) -> Any:
    """The shape in a command's help: `{a, b: [{c}]}` as nested dicts and one-element lists, leaves None."""
    command: click.Command = cli
    for name in path:
        assert isinstance(command, click.Group)
        found = command.get_command(click.Context(command), name)
        assert found is not None
        command = found
    text = (command.epilog or "").partition("JSON: ")[2]
    text = text[re.search(r"[{[]", text).start() :]  # type: ignore[union-attr]  # Every such command promises one.
    tokens = re.findall(r"[{}\[\],:]|\w+", text[: _end_of_shape(text)])
    shape, rest = _parse(tokens)
    assert not rest
    return shape


def shape_of(document: Any) -> Any:
    """The shape of a document; a list is as its first element."""
    if isinstance(document, dict):
        return {key: shape_of(value) for key, value in document.items()}
    if isinstance(document, list) and document and isinstance(document[0], dict | list):
        return [shape_of(document[0])]
    return None


def _end_of_shape(text: str) -> int:
    depth = 0
    for index, character in enumerate(text):
        depth += (character in "{[") - (character in "}]")
        if depth == 0:
            return index + 1
    raise AssertionError(f"no shape in {text!r}")


def _parse(tokens: list[str]) -> tuple[Any, list[str]]:
    first, rest = tokens[0], tokens[1:]
    if first == "[":
        inner, rest = _parse(rest)
        assert rest[0] == "]"
        return [inner], rest[1:]
    assert first == "{", tokens
    shape: dict[str, Any] = {}
    while rest[0] != "}":
        name, rest = rest[0], rest[1:]
        if rest[0] == ":":
            shape[name], rest = _parse(rest[1:])
        else:
            shape[name] = None
        rest = rest[1:] if rest[0] == "," else rest
    return shape, rest[1:]
