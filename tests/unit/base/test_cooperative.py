"""Loops that yield to the event loop give the same results as plain ones."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import Any

import pytest

from penstock.base.cooperative import (
    CHEAP_ITEMS_PER_TURN,
    ITEMS_PER_TURN,
    TurnBudget,
    count_keys,
    distinct,
    gather_in_batches,
    map_each,
    map_nested,
    sort_items,
)

SIZES = (
    0,
    1,
    100,
    CHEAP_ITEMS_PER_TURN - 1,
    CHEAP_ITEMS_PER_TURN,
    CHEAP_ITEMS_PER_TURN + 1,
    10 * CHEAP_ITEMS_PER_TURN + 7,
)
Loop = Callable[[Sequence[int]], Awaitable[Any]]


async def _nested(numbers: Sequence[int]) -> Any:
    """Each alone, and all of them in one."""
    return await map_nested((numbers, *([one] for one in numbers)), list, str, lambda one, made: (len(one), made))


LOOPS: dict[str, tuple[Loop, Callable[[Sequence[int]], Any]]] = {
    "map_each": (lambda numbers: map_each(numbers, str), lambda numbers: [str(one) for one in numbers]),
    "count_keys": (count_keys, Counter),
    "distinct": (distinct, dict.fromkeys),
    "sort_items": (lambda numbers: sort_items(numbers, int.__neg__), lambda numbers: sorted(numbers, reverse=True)),
    "map_nested": (
        _nested, lambda numbers: [(len(numbers), list(map(str, numbers))), *((1, [str(one)]) for one in numbers)],
    ),
    "gather_in_batches": (
        lambda numbers: gather_in_batches(numbers, _doubled), lambda numbers: [2 * one for one in numbers],
    ),
}  # fmt: skip


async def _doubled(number: int) -> int:
    return 2 * number


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", LOOPS)
async def test_results_are_those_of_plain_loops_and_other_tasks_run_in_between(name: str, size: int) -> None:
    loop, plain = LOOPS[name]
    numbers = [Random(size).randrange(max(size // 3, 1)) for _ in range(size)]
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    others = asyncio.create_task(count())
    assert await loop(numbers) == plain(numbers)
    others.cancel()
    if size > CHEAP_ITEMS_PER_TURN:
        assert turns >= size // CHEAP_ITEMS_PER_TURN


async def test_sorting_is_stable() -> None:
    items = [(number % 3, number) for number in range(3 * CHEAP_ITEMS_PER_TURN)]
    assert await sort_items(items, lambda one: one[0]) == sorted(items)


async def test_small_inputs_take_one_turn() -> None:
    others = asyncio.create_task(asyncio.sleep(0))
    few = list(range(100))
    for name, (loop, plain) in LOOPS.items():
        if name != "gather_in_batches":
            assert await loop(few) == plain(few)
    budget = TurnBudget()
    for _ in range(ITEMS_PER_TURN - 1):
        await budget.spend()
    assert not others.done()
    await budget.spend()
    await asyncio.sleep(0)
    assert others.done()
