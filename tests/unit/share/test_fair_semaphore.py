"""Fair turns among virtual clusters for writing dead letters."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from penstock.share.fair_semaphore import FairSemaphore

ONE, OTHER, THIRD = 1, 2, 3


class Office:
    """Work of clusters, that ends when it is told to."""

    def __init__(self, at_once: int, of_cluster: int) -> None:
        self.semaphore = FairSemaphore(at_once, of_cluster)
        self.at_work: list[int] = []
        self._ends: list[asyncio.Event] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def come(self, *cluster_ids: int) -> None:
        self.tasks += [asyncio.ensure_future(self._work(cluster_id)) for cluster_id in cluster_ids]
        await settle()

    async def _work(self, cluster_id: int) -> None:
        async with self.semaphore.acquire(cluster_id):
            end = asyncio.Event()
            self.at_work.append(cluster_id)
            self._ends.append(end)
            await end.wait()

    async def end(self, number: int = 0) -> None:
        self._ends.pop(number).set()
        self.at_work.pop(number)
        await settle()


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_one_cluster_never_has_all_turns() -> None:
    office = Office(4, 2)
    await office.come(*[ONE] * 10)
    assert office.at_work == [ONE] * 2
    await office.come(OTHER)
    assert office.at_work == [ONE, ONE, OTHER]


async def test_clusters_take_turns_however_many_one_of_them_waits_for() -> None:
    office = Office(2, 2)
    await office.come(*[ONE] * 10, *[OTHER] * 2, THIRD)
    seen = list(office.at_work)
    for _ in range(6):
        await office.end()
        seen.append(office.at_work[-1])
    assert seen == [ONE, ONE, ONE, OTHER, THIRD, ONE, OTHER, ONE]


@pytest.mark.parametrize("when", ["waiting", "as it comes", "at it"])
async def test_who_goes_away_leaves_its_turn_to_others(when: str) -> None:
    office = Office(1, 1)
    await office.come(ONE, ONE, OTHER)
    assert office.at_work == [ONE]
    if when == "at it":
        office.tasks[0].cancel()
        office.at_work.clear()
    elif when == "waiting":
        office.tasks[1].cancel()
        await settle()
        await office.end()
    else:
        office._ends[0].set()
        office.at_work.clear()
        await asyncio.sleep(0)  # It is the next one's turn, which does not know yet.
        office.tasks[1].cancel()
    await settle()
    assert office.at_work == ([ONE] if when == "at it" else [OTHER])
    for task in office.tasks:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    await office.come(THIRD)
    assert office.at_work[-1] == THIRD, "nothing is lost"
    assert not office.semaphore._waiters
