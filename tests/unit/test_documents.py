"""Documents are checked: links resolve, files, commands and options exist."""

from __future__ import annotations

import inspect
import re
import shlex
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import click
import pytest
import yaml
from fixtures.documents import DOCUMENTS, ROOT, blocks, prose, typed

from penstock.cli.main import cli
from penstock.wire.api_keys import FIRST_OWN_API

_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
_INLINE = re.compile(r"`penstock ([^`]+)`")
_BEFORE_A_COMMAND, _ENDS_A_COMMAND = re.compile(r"[|&;(]+"), re.compile(r"[|&;<>()]+")
HELP = {"-h", "--help", "--version"}


def _id(document: Path) -> str:
    return str(document.relative_to(ROOT))


def anchors(document: Path) -> set[str]:
    """What can be linked to in a document."""
    headings = (re.sub(r"[^\w\- ]", "", heading.lower().strip()) for heading in _HEADING.findall(document.read_text()))
    return {heading.replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=_id)
def test_links_lead_somewhere(document: Path) -> None:
    for link in _LINK.findall(prose(document.read_text())):
        if link.startswith(("https://", "http://")):
            continue
        place, _, anchor = link.partition("#")
        target = document.parent / place if place else document
        assert target.exists(), link
        assert not anchor or target.suffix != ".md" or anchor in anchors(target), link


def test_the_map_names_what_is_there() -> None:
    named = re.findall(r"`([\w/.]+\.(?:pyx?|json|toml|md)|\w+(?:/\w+)*/)`", (ROOT / "ARCHITECTURE.md").read_text())
    assert len(named) > 50
    places = (ROOT, ROOT / "src" / "penstock")
    missing = [
        name for name in named
        if not any((place / name).exists() for place in places) and not list(places[1].glob(f"**/{name}"))
    ]  # fmt: skip
    assert missing == []


def test_documents_that_the_code_refers_to_are_there() -> None:
    """A reader of the code has this repository, and nothing that was beside it when it was written."""
    named = {
        (path.name, name)
        for path in (ROOT / "src").rglob("*.py")
        for name in re.findall(r"[\w/.-]+\.md\b", path.read_text())
    }
    assert named
    assert [(where, name) for where, name in named if not (ROOT / name).exists()] == []


def test_as_many_apis_are_promised_as_there_are() -> None:
    reference = (ROOT / "docs" / "reference" / "protocol.md").read_text().partition("## Not served")[0]
    served = [int(key) for key in re.findall(r"^\| (\d+) \|", reference, re.MULTILINE)]
    count = sum(key < FIRST_OWN_API for key in served)
    assert f"[{count} APIs](docs/reference/protocol.md)" in (ROOT / "README.md").read_text()
    assert f"- {count} Kafka APIs in all versions" in (ROOT / "CHANGELOG.md").read_text()


def test_metrics_that_are_named_are_counted() -> None:
    reference = (ROOT / "docs" / "reference" / "metrics.md").read_text()
    there = set(re.findall(r"^\| `(\w+)` \|", reference, re.MULTILINE))
    histograms = re.findall(r"^\| `(\w+)` \| histogram \|", reference, re.MULTILINE)
    there |= {f"{name}_{part}" for name in histograms for part in ("bucket", "count", "sum")}
    named = {
        (_id(document), name)
        for document in DOCUMENTS
        for name in re.findall(r"\bpenstock_[a-z_]+\b(?![./])", document.read_text())
    }
    assert len(named) > 30
    assert [(where, name) for where, name in sorted(named) if name not in there] == []


def test_alerts_are_rules_of_prometheus() -> None:
    """As far as that can be seen without it: their shape, and the labels they ask for."""
    found = [yaml.safe_load(block) for block in blocks((ROOT / "docs/how-to/monitor.md").read_text(), "yaml")]
    rules = [rule for document in found for group in document.get("groups", ()) for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules) > 5
    assert all({"alert", "expr"} <= set(rule) <= {"alert", "expr", "for"} for rule in rules)


def commands(line: str) -> Iterator[list[str]]:
    """What is said to `penstock` in a line for a shell, word by word."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words = list(lexer)
    for number, word in enumerate(words):
        begins = number == 0 or _BEFORE_A_COMMAND.fullmatch(words[number - 1]) or "=" in words[number - 1]
        if begins and word.rpartition("/")[2] == "penstock":
            yield list(takewhile(lambda word: not _ENDS_A_COMMAND.fullmatch(word), words[number + 1 :]))


def find(words: list[str]) -> tuple[click.Command, click.Context, list[str]]:
    """The command that words name, and the words left."""
    command: click.Command = cli
    context = click.Context(cli, info_name="penstock")
    rest = list(words)
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        found = command.get_command(context, rest[0])
        assert found is not None, f"there is no penstock {' '.join(words)}"
        command, context = found, click.Context(found, parent=context, info_name=rest.pop(0))
    return command, context, rest


def lines(document: Path) -> Iterator[str]:
    """Lines for a shell, at a prompt or without one."""
    text = document.read_text()
    for block in blocks(text, "console"):
        yield from (line.command for line in typed(block))
    for block in blocks(text, "sh"):
        yield from block.replace("\\\n", "").splitlines()


def check_that_it_can_be_typed(words: list[str], where: str) -> None:
    """What follows `penstock` names a command and options that it has."""
    command, context, rest = find(words)
    try:
        command.make_context(context.info_name, rest, parent=context.parent)
    except click.ClickException as problem:
        raise AssertionError(f"{where}: {problem.format_message()}") from problem


def test_commands_in_blocks_can_be_typed() -> None:
    checked = 0
    for document in DOCUMENTS:
        for line in lines(document):
            for words in commands(line):
                check_that_it_can_be_typed(words, f"{_id(document)}: {line}")
                checked += 1
    assert checked > 50


def test_commands_in_sentences_exist_with_their_options() -> None:
    checked = 0
    for document in DOCUMENTS:
        for text in _INLINE.findall(prose(document.read_text())):
            if "|" in text:
                continue  # Several commands in one.
            words = text.split()
            command, _, _ = find(list(takewhile(re.compile(r"[a-z][a-z-]*").fullmatch, words)))
            options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
            given = {word.partition("=")[0] for word in words if word.startswith("-") and not word[1:].isdigit()}
            assert given <= options | HELP, f"{_id(document)}: penstock {text}"
            checked += 1
    assert checked > 20


def leaves(group: click.Group = cli, path: str = "penstock") -> Iterator[tuple[str, click.Command]]:
    """Every command that is no group of others."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from leaves(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def examples(command: click.Command) -> list[str]:
    """Of its help what is laid out by hand. Two spaces part an example from what is said of it."""
    laid_out = [text for text in inspect.cleandoc(command.help or "").split("\n\n") if text.startswith("\b")]
    parts = (part for text in laid_out for line in text.splitlines()[1:] for part in re.split(r"\s{2,}", line))
    return [part for part in parts if "penstock" in part]


def test_examples_in_help_can_be_typed() -> None:
    for name, command in leaves():
        shown = examples(command)
        takes_arguments = any(isinstance(parameter, click.Argument) for parameter in command.params)
        assert shown or not takes_arguments, f"{name} has no example"
        for line in shown:
            for words in commands(line):
                check_that_it_can_be_typed(words, f"{name} --help: {line}")
        assert not shown or any(f"{name} " in f"{line} " for line in shown), f"no example of {name} is one of it"
