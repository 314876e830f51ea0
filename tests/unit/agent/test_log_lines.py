"""A line of the log is one line, whatever clients call themselves."""

from __future__ import annotations

import logging

import pytest

from penstock.agent.main import OneLineFormatter


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("orders", "group orders"),
        ("größe", "group größe"),
        ("a\n2026-01-01 INFO all is well", "group a\\n2026-01-01 INFO all is well"),
        ("\x1b[2J\r\x9b", "group \\x1b[2J\\r\\x9b"),
        ("\u2028", "group \\u2028"),
    ],
)
def test_names_stay_in_their_line(name: str, shown: str) -> None:
    record = logging.LogRecord("penstock", logging.WARNING, "", 0, "group %s", (name,), None)
    assert OneLineFormatter("%(message)s").format(record) == shown


def test_what_is_traced_has_its_own_lines() -> None:
    try:
        raise ZeroDivisionError
    except ZeroDivisionError as problem:
        traced = (type(problem), problem, problem.__traceback__)
    record = logging.LogRecord("penstock", logging.ERROR, "", 0, "a bug", (), traced)
    lines = OneLineFormatter("%(message)s").format(record).splitlines()
    assert (lines[0], lines[-1]) == ("a bug", "ZeroDivisionError")
