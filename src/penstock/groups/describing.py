"""Describing what a request names, as far as one answer has room for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

from penstock.base.portions import MADE_AT_ONCE, Pace, Room, breathe
from penstock.wire.error_codes import ErrorCode
from penstock.wire.primitives import Message, parts_of

ALL_GROUP_OPERATIONS = 1 << 3 | 1 << 6 | 1 << 8 | 1 << 10 | 1 << 11
"""READ, DELETE, DESCRIBE, DESCRIBE_CONFIGS and ALTER_CONFIGS: whoever may come here may do all of them."""

Asked = TypeVar("Asked")
Described = TypeVar("Described", bound=Message)


async def described_in_room(
    asked: Iterable[Asked], describe: Callable[[Asked], Awaitable[Described]], put_off: Callable[[Asked], Described]
) -> list[Described]:
    """What is said of each, in that order; `put_off` says of what there is no room for that it is to be asked for
    again. Others have their turn meanwhile.
    """
    found, room = list[Described](), Room()
    for number, one in enumerate(asked):
        await breathe(number)
        if room.is_left:
            described = await describe(one)
            room.fill(await _parts_of(described))
        else:
            described = put_off(one)
        found.append(described)
    return found


async def each_member(members: Iterable[Asked], describe: Callable[[Asked], Described]) -> list[Described]:
    """What is said of each member, while others have their turn, after so much as is said of them: one may have a
    thousand partitions."""
    found, pace = list[Described](), Pace(MADE_AT_ONCE)
    for member in members:
        described = describe(member)
        found.append(described)
        await pace.step(parts_of(described, MADE_AT_ONCE))
    return found


async def grant_all(groups: Iterable[Any]) -> None:
    """Say of each group that was described that everything may be done with it: guards know better, where there are
    any."""
    for number, described in enumerate(groups):
        await breathe(number, MADE_AT_ONCE)
        if described.error_code == ErrorCode.NONE:
            described.authorized_operations = ALL_GROUP_OPERATIONS


async def _parts_of(described: Message) -> int:
    """How much it is, counted while others have their turn where it is much."""
    parts = parts_of(described, MADE_AT_ONCE)
    if parts <= MADE_AT_ONCE:
        return parts
    parts = 1
    for name in described.fields():
        value = getattr(described, name)
        if isinstance(value, Message):
            parts += await _parts_of(value)
        elif isinstance(value, list) and value and isinstance(value[0], Message):
            for number, one in enumerate(value):
                await breathe(number)
                parts += await _parts_of(one)
        elif isinstance(value, list):
            parts += len(value)
    return parts
