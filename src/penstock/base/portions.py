"""What keeps one request from being worked on for long, and from being answered with more than there is memory for.

A request is bounded in what it names, not in what it is told of that: it may ask a hundred thousand times for a group
that has ten thousand offsets. So an answer has room for so much, and what did not fit is told to be asked for again.
Whatever loops over what a request names, or over all that a cluster has, lets others have their turn in between; also
where it only counts, sorts or makes one thing of another: a hundred thousand of the simplest steps are a tenth of a
second.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence
from functools import partial
from heapq import merge
from itertools import islice
from typing import Any, TypeVar

H = TypeVar("H", bound=Hashable)
T = TypeVar("T")
U = TypeVar("U")
V = TypeVar("V")

MAX_PARTS = 200_000
"""Parts of one answer: an offset, a member, a partition. Each is an object of some hundred bytes."""
AT_ONCE = 250
"""How many things are looked at before others have their turn: one or two milliseconds, also where each of them is
denied, and that is told."""
MADE_AT_ONCE = 1_000
"""How many things are counted, sorted, or made of others: about as long."""


class Room:
    """How much one answer has room for still. What comes first is answered whole: asking again leads to an end."""

    __slots__ = ("_left",)

    def __init__(self, parts: int | None = None) -> None:
        self._left = MAX_PARTS if parts is None else parts

    @property
    def is_left(self) -> bool:
        """Whether there is room for anything more."""
        return self._left > 0

    def fill(self, parts: int) -> None:
        """The answer has so much more."""
        self._left -= parts


async def breathe(number: int, at_once: int = AT_ONCE) -> None:
    """Let others have their turn after every so many of a loop, whose number this is."""
    if number % at_once == at_once - 1:
        await asyncio.sleep(0)


class Pace:
    """The same for loops in loops, and for steps of different length."""

    __slots__ = ("_at_once", "_done")

    def __init__(self, at_once: int = AT_ONCE) -> None:
        self._at_once, self._done = at_once, 0

    async def step(self, weight: int = 1) -> None:
        """So much is done."""
        self._done += weight
        if self._done >= self._at_once:
            self._done = 0
            await asyncio.sleep(0)

    async def each(self, items: Sequence[T], make: Callable[[T], U]) -> list[U]:
        """What is made of each."""
        if self._done + len(items) < self._at_once:
            self._done += len(items)
            return list(map(make, items))
        made: list[U] = []
        for first in range(0, len(items), self._at_once):
            some = items[first : first + self._at_once]
            made += map(make, some)
            await self.step(len(some))
        return made


async def each(items: Sequence[T], make: Callable[[T], U]) -> list[U]:
    """What is made of each, while others have their turn."""
    return await Pace(MADE_AT_ONCE).each(items, make)


async def nested(
    outer: Iterable[T], inner: Callable[[T], Sequence[V]], make_inner: Callable[[V], Any],
    make_outer: Callable[[T, list[Any]], U],
) -> list[U]:  # fmt: skip
    """The same for what has parts: what is made of each is made with what is made of its parts."""
    return await nested_with(outer, inner, lambda _, part: make_inner(part), make_outer)


async def nested_with(
    outer: Iterable[T], inner: Callable[[T], Sequence[V]], make_inner: Callable[[T, V], Any],
    make_outer: Callable[[T, list[Any]], U],
) -> list[U]:  # fmt: skip
    """The same where parts are made of what they are parts of as well."""
    made, pace = list[U](), Pace(MADE_AT_ONCE)
    for one in outer:
        made.append(make_outer(one, await pace.each(inner(one), partial(make_inner, one))))
        await pace.step()
    return made


async def keyed(items: Sequence[T], pair: Callable[[T], tuple[H, U]]) -> dict[H, U]:
    """What is made of each, as keys and values."""
    found: dict[H, U] = {}
    for first in range(0, len(items), MADE_AT_ONCE):
        found.update(map(pair, items[first : first + MADE_AT_ONCE]))
        if len(items) > MADE_AT_ONCE:
            await asyncio.sleep(0)
    return found


async def forget(*lists: list[Any]) -> None:
    """Let go of what is in lists that nobody needs any more: that takes as long as making it."""
    for items in lists:
        while len(items) > MADE_AT_ONCE:
            del items[-MADE_AT_ONCE:]
            await asyncio.sleep(0)


async def counted(keys: Iterable[H]) -> Counter[H]:
    """How often there is each of them."""
    counts, rest = Counter[H](), iter(keys)
    while some := list(islice(rest, MADE_AT_ONCE)):
        counts.update(some)
        if len(some) == MADE_AT_ONCE:
            await asyncio.sleep(0)
    return counts


async def distinct(keys: Iterable[H]) -> dict[H, None]:
    """Each of them once, in the order in which they came first."""
    found, rest = dict[H, None](), iter(keys)
    while some := list(islice(rest, MADE_AT_ONCE)):
        found.update(dict.fromkeys(some))
        if len(some) == MADE_AT_ONCE:
            await asyncio.sleep(0)
    return found


async def in_order(items: Sequence[T], key: Callable[[T], Any]) -> list[T]:
    """Sorted."""
    if len(items) <= MADE_AT_ONCE:
        return sorted(items, key=key)
    runs = []
    for first in range(0, len(items), MADE_AT_ONCE):
        runs.append(sorted(items[first : first + MADE_AT_ONCE], key=key))
        await asyncio.sleep(0)
    merged, rest = list[T](), merge(*runs, key=key)
    while some := list(islice(rest, MADE_AT_ONCE)):
        merged += some
        await asyncio.sleep(0)
    return merged


async def together(items: Iterable[T], work: Callable[[T], Awaitable[U]], at_once: int = AT_ONCE) -> list[U]:
    """What comes of each, of so many at the same time: each of them is a task."""
    done, rest = list[U](), iter(items)
    while some := list(islice(rest, at_once)):
        done += await asyncio.gather(*map(work, some))
    return done
