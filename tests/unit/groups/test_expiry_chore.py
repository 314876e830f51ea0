"""When the chore that drops offsets looks at groups, and how long it then waits."""

from __future__ import annotations

import pytest

from penstock.groups.expiry import FIRST_AFTER_S, OffsetExpiry
from penstock.groups.settings import GroupSettings


@pytest.mark.parametrize(("interval_s", "again_s"), [(600, FIRST_AFTER_S), (5, 5)])
async def test_groups_are_looked_at_once_they_have_been_read(interval_s: int, again_s: float) -> None:
    looks, is_ready = 0, False

    async def expire() -> int:
        nonlocal looks
        looks += 1
        return 0

    chore = OffsetExpiry(expire, GroupSettings(offsets_check_interval_ms=interval_s * 1000), is_ready=lambda: is_ready)
    assert (await chore.run(), looks) == (again_s, 0)
    assert (await chore.run(), looks) == (again_s, 0), "it is not the number of turns that counts"
    is_ready = True
    assert (await chore.run(), looks) == (interval_s, 1)
    assert (await chore.run(), looks) == (interval_s, 2)
