"""Epochs of consumer groups and generations of classic ones are one row of numbers, which only rises."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple


class Told(NamedTuple):
    """A member was told its epoch, or the generation."""

    member_id: str
    epoch: int
    asked_at: float
    answered_at: float
    joins: bool
    """It was not a member before."""


def check_epochs(told: Sequence[Told]) -> None:
    """A member's epoch never goes back, and whoever joins is told no less than anybody had been told before it asked.

    That holds while the group is not without members, whichever protocol it is of by then. Whoever is told 0 takes the
    place of another member, and has to join again.
    """
    told = [one for one in told if one.epoch]
    of_member: dict[str, int] = {}
    for one in told:
        before = of_member.get(one.member_id, 0)
        assert one.epoch >= before, f"{one.member_id} was told {one.epoch} after {before}"
        of_member[one.member_id] = one.epoch
    answered = sorted(told, key=lambda one: one.answered_at)
    times = [one.answered_at for one in answered]
    highest = list(accumulate((one.epoch for one in answered), max, initial=0))
    for one in told:
        least = highest[bisect_left(times, one.asked_at)]
        assert not one.joins or one.epoch >= least, f"{one.member_id} joined in {one.epoch}, and {least} had been"
