"""Loops that yield to the event loop give the same results as plain ones."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import Any

import pytest

from penstock.base.portions import AT_ONCE, MADE_AT_ONCE, Pace, counted, distinct, each, in_order, nested, together

SIZES = (0, 1, 100, MADE_AT_ONCE - 1, MADE_AT_ONCE, MADE_AT_ONCE + 1, 10 * MADE_AT_ONCE + 7)
Loop = Callable[[Sequence[int]], Awaitable[Any]]


async def _nested(numbers: Sequence[int]) -> Any:
    """Each alone, and all of them in one."""
    return await nested((numbers, *([one] for one in numbers)), list, str, lambda one, made: (len(one), made))


LOOPS: dict[str, tuple[Loop, Callable[[Sequence[int]], Any]]] = {
    "each": (lambda numbers: each(numbers, str), lambda numbers: [str(one) for one in numbers]),
    "counted": (counted, Counter),
    "distinct": (distinct, dict.fromkeys),
    "in order": (lambda numbers: in_order(numbers, lambda one: -one), lambda numbers: sorted(numbers, reverse=True)),
    "nested": (
        _nested, lambda numbers: [(len(numbers), list(map(str, numbers))), *((1, [str(one)]) for one in numbers)],
    ),
    "together": (lambda numbers: together(numbers, _doubled), lambda numbers: [2 * one for one in numbers]),
}  # fmt: skip


async def _doubled(number: int) -> int:
    return 2 * number


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", LOOPS)
async def test_they_make_the_same_and_let_others_run(name: str, size: int) -> None:
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
    if size > MADE_AT_ONCE:
        assert turns >= size // MADE_AT_ONCE


async def test_sorting_keeps_the_order_of_what_is_alike() -> None:
    items = [(number % 3, number) for number in range(3 * MADE_AT_ONCE)]
    assert await in_order(items, lambda one: one[0]) == sorted(items)


async def test_what_is_small_takes_one_turn() -> None:
    others = asyncio.create_task(asyncio.sleep(0))
    few = list(range(100))
    for name, (loop, plain) in LOOPS.items():
        if name != "together":
            assert await loop(few) == plain(few)
    pace = Pace()
    for _ in range(AT_ONCE - 1):
        await pace.step()
    assert not others.done()
    await pace.step()
    await asyncio.sleep(0)
    assert others.done()
