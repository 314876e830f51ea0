"""Memory is released after an idle period, and not before."""

from __future__ import annotations

from penstock.agent.idle_memory import IDLE_S, IdleMemory


class World:
    """What the chore looks at."""

    def __init__(self) -> None:
        self.activity, self.held, self.drops, self.now = 0, 0, 0, 1000.0
        self.rest = IdleMemory(
            activity=lambda: self.activity, held_bytes=lambda: self.held, drop=self._drop, now=lambda: self.now
        )

    def _drop(self) -> None:
        self.held, self.drops = 0, self.drops + 1


async def test_memory_is_dropped_once_nothing_happened_for_a_while() -> None:
    world = World()
    assert await world.rest.run() is None  # Nothing is held: no timer.
    world.held, world.activity = 100, 1
    assert await world.rest.run() == IDLE_S
    world.now, world.activity = world.now + IDLE_S, 2
    assert await world.rest.run() == IDLE_S
    assert world.drops == 0
    world.now += IDLE_S
    assert await world.rest.run() is None
    assert (world.held, world.drops) == (0, 1)


async def test_looking_more_often_drops_nothing_sooner() -> None:
    world = World()
    world.held, world.activity = 100, 1
    assert await world.rest.run() == IDLE_S
    world.now += 1
    assert await world.rest.run() == IDLE_S - 1  # Compaction has woken it.
    assert world.drops == 0
    world.now += IDLE_S - 1
    assert await world.rest.run() is None
    assert world.drops == 1


async def test_what_is_taken_after_that_is_kept_for_a_while_again() -> None:
    world = World()
    world.held, world.activity = 100, 1
    await world.rest.run()
    world.now += 100 * IDLE_S
    await world.rest.run()
    world.held, world.activity = 50, 2
    assert await world.rest.run() == IDLE_S
    assert world.drops == 1
