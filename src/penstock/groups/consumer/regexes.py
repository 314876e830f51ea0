"""Regular expressions that clients send, over names: in the syntax of RE2, which takes time linear in the name. Pure.

A pattern has to match a whole name. What a pattern may cost is bounded: by its length, and by the memory that RE2 may
take for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from typing import TYPE_CHECKING

from penstock.base.later import later
from penstock.log.refusals import Refused
from penstock.wire.error_codes import ErrorCode

if TYPE_CHECKING:
    import re2  # type: ignore[import-untyped]
else:
    re2 = later("re2")

MAX_LENGTH = 4096
"""Characters of a pattern."""

_MAX_MEMORY_BYTES = 1 << 20


@cache
def _options() -> re2.Options:
    options = re2.Options()
    options.max_mem = _MAX_MEMORY_BYTES
    options.log_errors = False
    return options


def check(pattern: str) -> None:
    """Raise `Refused` unless this is a regular expression."""
    compiled(pattern)


def compiled(pattern: str) -> re2._Regexp:
    """A pattern to match names with. Raises `Refused` unless it is a regular expression."""
    if len(pattern) > MAX_LENGTH:
        raise _invalid(f"it is longer than {MAX_LENGTH} characters")
    try:
        return re2.compile(pattern, _options())
    except re2.error as error:
        reason = error.args[0] if error.args else ""
        raise _invalid(reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)) from error


def matching(patterns: Iterable[str], names: Iterable[str]) -> Iterator[list[str]]:
    """For one name after the other, the patterns that match it."""
    regexes = {pattern: compiled(pattern) for pattern in patterns}
    for name in names:
        yield [pattern for pattern, regex in regexes.items() if regex.fullmatch(name) is not None]


def _invalid(reason: str) -> Refused:
    message = f"SubscribedTopicRegex is not a valid regular expression: {reason}."
    return Refused(ErrorCode.INVALID_REGULAR_EXPRESSION, message)
