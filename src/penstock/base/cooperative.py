"""Cooperative scheduling of long loops, and bounds of responses: no request blocks the event loop, or is answered
without limit.

The size of a request bounds what it names, but not how much there is to say about that: it may ask a hundred thousand
times for a group that has ten thousand offsets. So a response has a bounded number of parts (`ResponseBudget`), and
clients are told to ask again for the rest. Whatever loops over what a request names, or over all that a cluster has,
yields to the event loop in between, even where it only counts, sorts or converts: a hundred thousand of the simplest
steps take a tenth of a second. A *turn* is one iteration of the event loop.

Every function here that takes items gives the same result as its plain counterpart, and yields in between.
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

MAX_RESPONSE_PARTS = 200_000
"""The most parts of one response: offsets, members, partitions. Each is an object of some hundred bytes."""
ITEMS_PER_TURN = 250
"""How many items are handled between yields: one or two milliseconds, even if each is denied and audited."""
CHEAP_ITEMS_PER_TURN = 1_000
"""How many items are counted, sorted or converted between yields: about as long."""


class ResponseBudget:
    """How many more parts a response has room for. The first item is always answered whole, so asking again ends."""

    __slots__ = ("_left",)

    def __init__(self, parts: int | None = None) -> None:
        self._left = MAX_RESPONSE_PARTS if parts is None else parts

    @property
    def is_left(self) -> bool:
        """Whether there is room for anything more."""
        return self._left > 0

    def spend(self, parts: int) -> None:
        """Count parts that were added."""
        self._left -= parts


async def yield_if_due(number: int, per_turn: int = ITEMS_PER_TURN) -> None:
    """Call it in a loop with the number of the iteration, from 0: yields to the event loop after every `per_turn`."""
    if number % per_turn == per_turn - 1:
        await asyncio.sleep(0)


class TurnBudget:
    """The same as `yield_if_due`, for nested loops and steps of different weight: yields when a turn's work is done."""

    __slots__ = ("_done", "_per_turn")

    def __init__(self, per_turn: int = ITEMS_PER_TURN) -> None:
        self._per_turn, self._done = per_turn, 0

    async def spend(self, weight: int = 1) -> None:
        """Count what was done; yield if it is enough."""
        self._done += weight
        if self._done >= self._per_turn:
            self._done = 0
            await asyncio.sleep(0)

    async def map_each(self, items: Sequence[T], make: Callable[[T], U]) -> list[U]:
        """Convert each item, yielding in between."""
        if self._done + len(items) < self._per_turn:
            self._done += len(items)
            return list(map(make, items))
        made: list[U] = []
        for first in range(0, len(items), self._per_turn):
            some = items[first : first + self._per_turn]
            made += map(make, some)
            await self.spend(len(some))
        return made


async def map_each(items: Sequence[T], make: Callable[[T], U]) -> list[U]:
    """Convert each item, yielding in between."""
    return await TurnBudget(CHEAP_ITEMS_PER_TURN).map_each(items, make)


async def map_nested(
    outer: Iterable[T], inner: Callable[[T], Sequence[V]], make_inner: Callable[[V], Any],
    make_outer: Callable[[T, list[Any]], U],
) -> list[U]:  # fmt: skip
    """Convert items that have parts: `make_outer` gets an item and its converted parts."""
    return await map_nested_with_outer(outer, inner, lambda _, part: make_inner(part), make_outer)


async def map_nested_with_outer(
    outer: Iterable[T], inner: Callable[[T], Sequence[V]], make_inner: Callable[[T, V], Any],
    make_outer: Callable[[T, list[Any]], U],
) -> list[U]:  # fmt: skip
    """The same, where `make_inner` gets the item as well as the part."""
    made, budget = list[U](), TurnBudget(CHEAP_ITEMS_PER_TURN)
    for one in outer:
        made.append(make_outer(one, await budget.map_each(inner(one), partial(make_inner, one))))
        await budget.spend()
    return made


async def build_dict(items: Sequence[T], pair: Callable[[T], tuple[H, U]]) -> dict[H, U]:
    """A dictionary of the keys and values that items are converted to, yielding in between."""
    found: dict[H, U] = {}
    for first in range(0, len(items), CHEAP_ITEMS_PER_TURN):
        found.update(map(pair, items[first : first + CHEAP_ITEMS_PER_TURN]))
        if len(items) > CHEAP_ITEMS_PER_TURN:
            await asyncio.sleep(0)
    return found


async def free_lists(*lists: list[Any]) -> None:
    """Empty lists that nobody needs any more, yielding in between: freeing objects takes as long as making them."""
    for items in lists:
        while len(items) > CHEAP_ITEMS_PER_TURN:
            del items[-CHEAP_ITEMS_PER_TURN:]
            await asyncio.sleep(0)


async def count_keys(keys: Iterable[H]) -> Counter[H]:
    """Count equal keys, yielding in between."""
    counts, rest = Counter[H](), iter(keys)
    while some := list(islice(rest, CHEAP_ITEMS_PER_TURN)):
        counts.update(some)
        if len(some) == CHEAP_ITEMS_PER_TURN:
            await asyncio.sleep(0)
    return counts


async def distinct(keys: Iterable[H]) -> dict[H, None]:
    """Each key once, in the order of first occurrence, yielding in between."""
    found, rest = dict[H, None](), iter(keys)
    while some := list(islice(rest, CHEAP_ITEMS_PER_TURN)):
        found.update(dict.fromkeys(some))
        if len(some) == CHEAP_ITEMS_PER_TURN:
            await asyncio.sleep(0)
    return found


async def sort_items(items: Sequence[T], key: Callable[[T], Any]) -> list[T]:
    """A sorted list, yielding in between."""
    if len(items) <= CHEAP_ITEMS_PER_TURN:
        return sorted(items, key=key)
    runs = []
    for first in range(0, len(items), CHEAP_ITEMS_PER_TURN):
        runs.append(sorted(items[first : first + CHEAP_ITEMS_PER_TURN], key=key))
        await asyncio.sleep(0)
    merged, rest = list[T](), merge(*runs, key=key)
    while some := list(islice(rest, CHEAP_ITEMS_PER_TURN)):
        merged += some
        await asyncio.sleep(0)
    return merged


async def gather_in_batches(
    items: Iterable[T], work: Callable[[T], Awaitable[U]], at_once: int = ITEMS_PER_TURN
) -> list[U]:
    """Run work for each item concurrently, `at_once` at a time; the results, in order."""
    done, rest = list[U](), iter(items)
    while some := list(islice(rest, at_once)):
        done += await asyncio.gather(*map(work, some))
    return done
