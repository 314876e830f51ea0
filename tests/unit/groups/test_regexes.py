"""Regular expressions of clients: which names they match, and that nobody waits long while they do."""

from __future__ import annotations

import asyncio

import pytest

from penstock.groups.consumer import regexes
from penstock.log.refusals import Refused

NAMES = ["people", "places", "pears", "x" * 4096, "x" * 4097]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [("p.*", ["people", "places", "pears"]), ("pea", []), ("", []), ("x+", ["x" * 4096]), ("(", [])],
)
async def test_names_that_match(pattern: str, found: list[str]) -> None:
    """All of a name, which has no more than so many characters; nothing matches what is no expression."""
    assert [name async for name in regexes.matching(pattern, NAMES)] == found


async def test_others_have_their_turn() -> None:
    """A pattern can be made so that each of these names takes a millisecond."""
    names = ["ab" * 120 + str(number) for number in range(1_000)]
    matching = asyncio.ensure_future(collected("(.*)a.{200}x", names))
    turns = 0
    while not matching.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 80
    assert matching.result() == []


async def collected(pattern: str, names: list[str]) -> list[str]:
    return [name async for name in regexes.matching(pattern, names)]


def test_what_a_pattern_costs_is_bounded() -> None:
    regexes.check("|".join(f"topic-{number}" for number in range(400)))
    with pytest.raises(Refused):
        regexes.check("|".join(f".*a.{{{400 + number}}}" for number in range(9)))
