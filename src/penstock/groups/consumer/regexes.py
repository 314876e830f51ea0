"""Clients' regular expressions over names, in RE2 syntax, which matches in linear time. Pure.

A pattern must match a whole name. Its cost is bounded by its length, and by the memory that RE2 may use for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from functools import cache
from typing import TYPE_CHECKING

from penstock.base.lazy import lazy_import
from penstock.log.refusals import Refused
from penstock.wire.error_codes import ErrorCode

if TYPE_CHECKING:
    import re2  # type: ignore[import-untyped]
else:
    re2 = lazy_import("re2")

MAX_LENGTH = 4096
"""The longest pattern."""
MAX_NAME_LENGTH = 4096
"""The longest name. A longer one matches nothing: matching time grows with pattern and name."""
AT_ONCE = 2500
"""How many characters of names are matched before the event loop is yielded: patterns can be made that take a
millisecond for each 250."""

_MAX_MEMORY_BYTES = 1 << 18


@cache
def _options() -> re2.Options:
    options = re2.Options()
    options.max_mem = _MAX_MEMORY_BYTES
    options.log_errors = False
    return options


def check(pattern: str) -> None:
    """Raise `Refused` unless this is a valid regular expression."""
    compiled(pattern)


def compiled(pattern: str) -> re2._Regexp:
    """The compiled pattern. Raises `Refused` unless it is a valid regular expression."""
    if len(pattern) > MAX_LENGTH:
        raise _invalid(f"it is longer than {MAX_LENGTH} characters")
    try:
        return re2.compile(pattern, _options())
    except re2.error as error:
        reason = error.args[0] if error.args else ""
        raise _invalid(reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)) from error


async def matching(pattern: str, names: Iterable[str]) -> AsyncIterator[str]:
    """The names that a pattern matches; none if it is invalid, as one stored by an earlier release may be. Yields to
    the event loop."""
    try:
        regex = compiled(pattern)
    except Refused:
        return
    compared = AT_ONCE  # Compiling takes as long.
    for name in names:
        if compared >= AT_ONCE:
            compared = 0
            await asyncio.sleep(0)
        if len(name) <= MAX_NAME_LENGTH:
            compared += len(name)
            if regex.fullmatch(name) is not None:
                yield name


def _invalid(reason: str) -> Refused:
    message = f"SubscribedTopicRegex is not a valid regular expression: {reason}."
    return Refused(ErrorCode.INVALID_REGULAR_EXPRESSION, message)
