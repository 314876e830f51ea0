"""The house style, as far as a program can see it and no linter of ours does.

tools/tidy.py    print what is out of order; exit code 1 if anything is

Clocks, randomness, threads' sleeps and mocks in `src` are ruff's (banned-api), arrows between folders import-linter's.
Here: how large files and functions become, tasks that nobody keeps, mocks and sleeps in tests, and line numbers in
documents, which are wrong with the next change.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
FILE_LINES, FUNCTION_LINES = 500, 60
A_LITTLE_LINES = 25
"""A file that has an exception keeps it until it is so much shorter: not to and fro."""
SLEEP_MAX_S = 0.3
"""What a unit test may let pass in real time to see that nothing happens."""
FOLDERS = ("src", "tests", "tools", "benchmarks")
GENERATED = "src/penstock/wire/messages/"
DOCUMENTS = ("README.md", "ARCHITECTURE.md", "CHANGELOG.md", "docs/**/*.md")


class Allowed(NamedTuple):
    """What may be larger: up to where, and why."""

    lines: int
    why: str


_SUITE = "one suite of one port or API: what its tests share is longer than what they differ in"
ALLOWED: Mapping[str, Allowed] = {
    "src/penstock/agent/connection.py": Allowed(575, "one socket's state machine: every method touches its fields"),
    "src/penstock/groups/streams/transitions.py": Allowed(550, "the rules of one kind of group are read together"),
    "src/penstock/log/segment_store.py": Allowed(575, "the statements of one set of tables, which change together"),
    "src/penstock/log/fetch.py": Allowed(600, "one request's way, from what it names to what it waits for"),
    "src/penstock/log/topics.py": Allowed(525, "what can be done to topics, each in one transaction"),
    "src/penstock/log/upkeep/compaction_output.py": Allowed(
        525, "one pass's object, from what is read to what is written"
    ),
    "src/penstock/log/writer.py": Allowed(825, "one flush's way: what does not depend on its state has files already"),
    "src/penstock/share/service.py": Allowed(525, "what members do with share partitions, by one runtime"),
    "src/penstock/storage/slabs.py": Allowed(650, "one file format, its writer and its reader"),
    "src/penstock/wire/records.py": Allowed(575, "one file format, its writer and its readers"),
    "tests/conformance/test_client_confluent.py": Allowed(550, _SUITE),
    "tests/conformance/test_client_kafka_python.py": Allowed(525, _SUITE),
    "tests/conformance/test_wire_groups.py": Allowed(575, _SUITE),
    "tests/conformance/test_wire_isolation.py": Allowed(675, "a row for each API there is"),
    "tests/conformance/test_wire_share.py": Allowed(750, _SUITE),
    "tests/conformance/test_wire_transactions.py": Allowed(675, _SUITE),
    "tests/contract/test_commit_paths.py": Allowed(1000, "the contract of three commit paths, PostgreSQL's included"),
    "tests/contract/test_wal.py": Allowed(600, "the contract of the write-ahead logs there are"),
    "tests/simulation/agents.py": Allowed(525, "an agent's parts, put together as in agent.py"),
    "tests/simulation/test_sim_ablations.py": Allowed(875, "a table of safeguards, each with how it is switched off"),
    "tests/unit/audit/test_audit_changes.py": Allowed(600, "a row for each change there is"),
    "tests/unit/audit/test_audit_service.py": Allowed(600, _SUITE),
    "tests/unit/groups/test_group_handlers.py": Allowed(625, _SUITE),
    "tests/unit/groups/test_group_rules.py": Allowed(625, "tables of rules"),
    "tests/unit/groups/test_streams_rules.py": Allowed(700, "tables of rules"),
    "tests/unit/log/test_fetch.py": Allowed(650, _SUITE),
    "tests/unit/log/test_record_first.py": Allowed(725, _SUITE),
    "tests/unit/log/test_sealed_log.py": Allowed(625, _SUITE),
    "tests/unit/log/test_cleaner.py": Allowed(525, _SUITE),
    "tests/unit/log/test_wal_compaction.py": Allowed(625, _SUITE),
    "tests/unit/coordination/test_runtime.py": Allowed(625, _SUITE),
    "tests/unit/share/test_dead_letters.py": Allowed(575, _SUITE),
    # Functions.
    "src/penstock/wire/hot.py:_read_produce": Allowed(70, "one pass over a frame"),
    "src/penstock/agent/connection.py:__init__": Allowed(62, "a field a line, with what it means"),
    "tests/contract/test_commit_paths.py:test_agents_that_write_the_same_lose_nothing_and_repeat_nothing": Allowed(
        62, "one history from its first write to its check"
    ),
    "tests/crash/test_exactly_once.py:write_and_check": Allowed(66, "one run from its first kill to its check"),
}
"""An exception that is no longer needed, or that its file has outgrown, is out of order as well."""
SLEEPS_IN_EARNEST = {"tests/unit/test_benchmarks_accounting.py": "it measures what the operating system accounts"}
LINE_NUMBER = re.compile(r"\.(?:py|pyx|sql):\d+|\blines? \d+\b")


def main() -> int:
    complaints = [*of_code(), *of_documents(), *of_exceptions()]
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    return int(bool(complaints))


def of_code() -> Iterator[str]:
    """Of every file of Python that people write."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = str(path.relative_to(ROOT))
            if not name.startswith(GENERATED):
                yield from complaints_about(name, path.read_text())


def of_documents() -> Iterator[str]:
    """Of what people read."""
    for pattern in DOCUMENTS:
        for path in sorted(ROOT.glob(pattern)):
            for found in LINE_NUMBER.findall(path.read_text()):
                yield f"{path.relative_to(ROOT)}: {found!r} is wrong with the next change: name the function"


def of_exceptions() -> Iterator[str]:
    """Exceptions whose reason has gone."""
    for key, allowed in ALLOWED.items():
        name, _, function = key.partition(":")
        path = ROOT / name
        if not path.exists():
            yield f"tools/tidy.py: there is no {name}"
        elif not function and line_count(path.read_text()) <= FILE_LINES - A_LITTLE_LINES:
            yield f"tools/tidy.py: {name} needs no exception ({allowed.why})"
        elif function and all(
            found.name != function or length(found) <= FUNCTION_LINES
            for found in functions(ast.parse(path.read_text()))
        ):
            yield f"tools/tidy.py: {function} of {name} needs no exception ({allowed.why})"


def complaints_about(name: str, text: str) -> Iterator[str]:
    """What is out of order in one file."""
    tree = ast.parse(text)
    yield from too_long(name, line_count(text), FILE_LINES)
    for function in functions(tree):
        yield from too_long(f"{name}:{function.name}", length(function), FUNCTION_LINES)
    in_real_time = name.startswith("tests/unit/") and name not in SLEEPS_IN_EARNEST
    is_simulated = "sim_loop" in text or "SimLoop" in text
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom) and _imports_mock(node):
            yield f"{name}: a mock: write a fake that passes the contract suite of its port"
        elif name.startswith("src/") and isinstance(node, ast.Expr) and _starts_task(node.value):
            yield f"{name}: {ast.unparse(node)}: nobody keeps this task, and it may end at any time"
        elif in_real_time and isinstance(node, ast.Call) and _sleeps_long(node, is_simulated=is_simulated):
            yield f"{name}: {ast.unparse(node)}: wait for what is to happen"


def too_long(name: str, lines: int, most: int) -> Iterator[str]:
    """Whether it is longer than may be."""
    allowed = ALLOWED.get(name, Allowed(most, "")).lines
    if lines > allowed:
        yield f"{name} has {lines} lines, of {allowed}: divide it, or give tools/tidy.py a reason"


def line_count(text: str) -> int:
    """Lines of a file."""
    return text.count("\n")


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function."""
    return (function.end_lineno or function.lineno) - function.lineno + 1


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function in a file."""
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def _imports_mock(node: ast.Import | ast.ImportFrom) -> bool:
    names = [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        names.append(node.module or "")
    return any("mock" in name.split(".") for name in names)


def _starts_task(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in ("create_task", "ensure_future")


def _sleeps_long(node: ast.Call, *, is_simulated: bool) -> bool:
    """Whether a call stops the thread, or waits long in real time."""
    called = ast.unparse(node.func)
    if called == "time.sleep":
        return True
    if called != "asyncio.sleep" or is_simulated or not node.args:
        return False
    seconds = node.args[0]
    return (
        isinstance(seconds, ast.Constant)
        and isinstance(seconds.value, int | float)
        and (
            # A minute is for ever: such a task is cancelled.
            SLEEP_MAX_S < seconds.value < 60
        )
    )


if __name__ == "__main__":
    sys.exit(main())
