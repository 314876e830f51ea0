"""Regular expressions that clients send, over names: in the syntax of RE2, which takes time linear in the name. Pure.

A pattern has to match a whole name. What a pattern may cost is bounded: by its length, and by the memory that RE2 may
take for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
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
MAX_NAME_LENGTH = 4096
"""Characters of a name. A longer one, which no topic has, matches nothing: how long that takes is a product of both."""
AT_ONCE = 2500
"""Characters of names that are compared with a pattern before others have their turn: patterns can be made so that each
250 take a millisecond."""

_MAX_MEMORY_BYTES = 1 << 18


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


async def matching(pattern: str, names: Iterable[str]) -> AsyncIterator[str]:
    """Those of the names that match a pattern; none, if it is no regular expression, as one that was taken by a former
    release may be. Others have their turn meanwhile."""
    try:
        regex = compiled(pattern)
    except Refused:
        return
    compared = AT_ONCE  # Compiling it has taken as long.
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
