"""Describing groups, as many as fit into one response."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

from penstock.base.cooperative import CHEAP_ITEMS_PER_TURN, ResponseBudget, TurnBudget, yield_if_due
from penstock.wire.error_codes import ErrorCode
from penstock.wire.primitives import Message, parts_of

ALL_GROUP_OPERATIONS = 1 << 3 | 1 << 6 | 1 << 8 | 1 << 10 | 1 << 11
"""READ, DELETE, DESCRIBE, DESCRIBE_CONFIGS and ALTER_CONFIGS: all operations on groups. Guards narrow it."""

Asked = TypeVar("Asked")
Described = TypeVar("Described", bound=Message)


async def describe_within_budget(
    asked: Iterable[Asked], describe: Callable[[Asked], Awaitable[Described]], defer: Callable[[Asked], Described]
) -> list[Described]:
    """The description of each, in order; `defer` makes the answer for those that no longer fit, which clients have to
    request again. Yields to the event loop.
    """
    found, budget = list[Described](), ResponseBudget()
    for number, one in enumerate(asked):
        await yield_if_due(number)
        if budget.is_left:
            described = await describe(one)
            budget.spend(await _parts_of(described))
        else:
            described = defer(one)
        found.append(described)
    return found


async def each_member(members: Iterable[Asked], describe: Callable[[Asked], Described]) -> list[Described]:
    """The description of each member. Yields according to the size of descriptions: one may have a thousand
    partitions."""
    found, budget = list[Described](), TurnBudget(CHEAP_ITEMS_PER_TURN)
    for member in members:
        described = describe(member)
        found.append(described)
        await budget.spend(parts_of(described, CHEAP_ITEMS_PER_TURN))
    return found


async def grant_all(groups: Iterable[Any]) -> None:
    """Set all operations as authorized for each described group; where ACLs apply, guards narrow them."""
    for number, described in enumerate(groups):
        await yield_if_due(number, CHEAP_ITEMS_PER_TURN)
        if described.error_code == ErrorCode.NONE:
            described.authorized_operations = ALL_GROUP_OPERATIONS


async def _parts_of(described: Message) -> int:
    """The size of a description; yields while counting a large one."""
    parts = parts_of(described, CHEAP_ITEMS_PER_TURN)
    if parts <= CHEAP_ITEMS_PER_TURN:
        return parts
    parts = 1
    for name in described.fields():
        value = getattr(described, name)
        if isinstance(value, Message):
            parts += await _parts_of(value)
        elif isinstance(value, list) and value and isinstance(value[0], Message):
            for number, one in enumerate(value):
                await yield_if_due(number)
                parts += await _parts_of(one)
        elif isinstance(value, list):
            parts += len(value)
    return parts
