"""What keeps one request from being worked on for long, and from being answered with more than there is memory for.

A request is bounded in what it names, not in what it is told of that: it may ask a hundred thousand times for a group
that has ten thousand offsets. So an answer has room for so much, and what did not fit is told to be asked for again.
Whatever loops over what a request names, or over all that a cluster has, lets others have their turn in between.
"""

from __future__ import annotations

import asyncio

MAX_PARTS = 200_000
"""Parts of one answer: an offset, a member, a partition. Each is an object of some hundred bytes."""
AT_ONCE = 250
"""How many things are looked at before others have their turn: one or two milliseconds, also where each of them is
denied, and that is told."""


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

    __slots__ = ("_done",)

    def __init__(self) -> None:
        self._done = 0

    async def step(self, weight: int = 1) -> None:
        """So much is done."""
        self._done += weight
        if self._done >= AT_ONCE:
            self._done = 0
            await asyncio.sleep(0)
