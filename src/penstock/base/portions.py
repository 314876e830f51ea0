"""Cooperative yielding, and bounds of responses: no request holds up the event loop, or is answered without limit.

The size of a request bounds what it names, but not how much there is to say about that: it may ask a hundred thousand
times for a group that has ten thousand offsets. So a response has a bounded number of parts (`Room`), and clients are
told to ask again for the rest. Whatever loops over what a request names, or over all that a cluster has, yields to the
event loop in between, even where it only counts, sorts or converts: a hundred thousand of the simplest steps take a
tenth of a second.
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
"""The most parts of one response: offsets, members, partitions. Each is an object of some hundred bytes."""
AT_ONCE = 250
"""How many items are handled between yields: one or two milliseconds, even if each is denied and audited."""
MADE_AT_ONCE = 1_000
"""How many items are counted, sorted or converted between yields: about as long."""


class Room:
    """How many more parts a response has room for. The first item is always answered whole, so asking again ends."""

    __slots__ = ("_left",)

    def __init__(self, parts: int | None = None) -> None:
        self._left = MAX_PARTS if parts is None else parts

    @property
    def is_left(self) -> bool:
        """Whether there is room for anything more."""
        return self._left > 0

    def fill(self, parts: int) -> None:
        """Count parts that were added."""
        self._left -= parts


async def breathe(number: int, at_once: int = AT_ONCE) -> None:
    """Call it in a loop with the number of the iteration: yields after every `at_once` of them."""
    if number % at_once == at_once - 1:
        await asyncio.sleep(0)


class Pace:
    """The same as `breathe`, for nested loops and for steps of different weight."""

    __slots__ = ("_at_once", "_done")

    def __init__(self, at_once: int = AT_ONCE) -> None:
        self._at_once, self._done = at_once, 0

    async def step(self, weight: int = 1) -> None:
        """Count what was done; yield if it is enough."""
        self._done += weight
        if self._done >= self._at_once:
            self._done = 0
            await asyncio.sleep(0)

    async def each(self, items: Sequence[T], make: Callable[[T], U]) -> list[U]:
        """Convert each item, yielding in between."""
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
    """Convert each item, yielding in between."""
    return await Pace(MADE_AT_ONCE).each(items, make)


async def nested(
    outer: Iterable[T], inner: Callable[[T], Sequence[V]], make_inner: Callable[[V], Any],
    make_outer: Callable[[T, list[Any]], U],
) -> list[U]:  # fmt: skip
    """Convert items that have parts: `make_outer` gets an item and its converted parts."""
    return await nested_with(outer, inner, lambda _, part: make_inner(part), make_outer)


async def nested_with(
    outer: Iterable[T], inner: Callable[[T], Sequence[V]], make_inner: Callable[[T, V], Any],
    make_outer: Callable[[T, list[Any]], U],
) -> list[U]:  # fmt: skip
    """The same, where `make_inner` gets the item as well as the part."""
    made, pace = list[U](), Pace(MADE_AT_ONCE)
    for one in outer:
        made.append(make_outer(one, await pace.each(inner(one), partial(make_inner, one))))
        await pace.step()
    return made


async def keyed(items: Sequence[T], pair: Callable[[T], tuple[H, U]]) -> dict[H, U]:
    """A dictionary of the keys and values that items are converted to, yielding in between."""
    found: dict[H, U] = {}
    for first in range(0, len(items), MADE_AT_ONCE):
        found.update(map(pair, items[first : first + MADE_AT_ONCE]))
        if len(items) > MADE_AT_ONCE:
            await asyncio.sleep(0)
    return found


async def forget(*lists: list[Any]) -> None:
    """Empty lists that nobody needs any more, yielding in between: freeing objects takes as long as making them."""
    for items in lists:
        while len(items) > MADE_AT_ONCE:
            del items[-MADE_AT_ONCE:]
            await asyncio.sleep(0)


async def counted(keys: Iterable[H]) -> Counter[H]:
    """Count equal keys, yielding in between."""
    counts, rest = Counter[H](), iter(keys)
    while some := list(islice(rest, MADE_AT_ONCE)):
        counts.update(some)
        if len(some) == MADE_AT_ONCE:
            await asyncio.sleep(0)
    return counts


async def distinct(keys: Iterable[H]) -> dict[H, None]:
    """Each key once, in the order of first occurrence, yielding in between."""
    found, rest = dict[H, None](), iter(keys)
    while some := list(islice(rest, MADE_AT_ONCE)):
        found.update(dict.fromkeys(some))
        if len(some) == MADE_AT_ONCE:
            await asyncio.sleep(0)
    return found


async def in_order(items: Sequence[T], key: Callable[[T], Any]) -> list[T]:
    """A sorted list, yielding in between."""
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
    """Run work for each item concurrently, `at_once` at a time; the results, in order."""
    done, rest = list[U](), iter(items)
    while some := list(islice(rest, at_once)):
        done += await asyncio.gather(*map(work, some))
    return done
