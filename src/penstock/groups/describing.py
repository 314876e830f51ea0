"""Describing groups, as many as fit into one response."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

from penstock.base.portions import MADE_AT_ONCE, Pace, Room, breathe
from penstock.wire.error_codes import ErrorCode
from penstock.wire.primitives import Message, parts_of

ALL_GROUP_OPERATIONS = 1 << 3 | 1 << 6 | 1 << 8 | 1 << 10 | 1 << 11
"""READ, DELETE, DESCRIBE, DESCRIBE_CONFIGS and ALTER_CONFIGS: all operations on groups. Guards narrow it."""

Asked = TypeVar("Asked")
Described = TypeVar("Described", bound=Message)


async def described_in_room(
    asked: Iterable[Asked], describe: Callable[[Asked], Awaitable[Described]], put_off: Callable[[Asked], Described]
) -> list[Described]:
    """The description of each, in order; `put_off` makes the answer for those that no longer fit, which clients have to
    request again. Yields to the event loop.
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
    """The description of each member. Yields according to the size of descriptions: one may have a thousand
    partitions."""
    found, pace = list[Described](), Pace(MADE_AT_ONCE)
    for member in members:
        described = describe(member)
        found.append(described)
        await pace.step(parts_of(described, MADE_AT_ONCE))
    return found


async def grant_all(groups: Iterable[Any]) -> None:
    """Set all operations as authorized for each described group; where ACLs apply, guards narrow them."""
    for number, described in enumerate(groups):
        await breathe(number, MADE_AT_ONCE)
        if described.error_code == ErrorCode.NONE:
            described.authorized_operations = ALL_GROUP_OPERATIONS


async def _parts_of(described: Message) -> int:
    """The size of a description; yields while counting a large one."""
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
