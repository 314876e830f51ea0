"""Runs a scenario under many seeds, and says how to replay the one that failed.

    PENSTOCK_SIM_SEED=17      this seed only
    PENSTOCK_SIM_SEEDS=5000   so many seeds instead of the scenario's own number
    PENSTOCK_SIM_FROM=100000  beginning with this one

Seeds that failed once are kept in `failed_seeds.toml`, by scenario, and always run first.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import logging
import os
import tomllib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path

from fixtures.sim_loop import SimLoop
from simulation.marks import Marks
from simulation.world import World

Scenario = Callable[[World], Awaitable[None]]
STEP_S = 1e-6
MAX_STEPS = 200_000
"""Many times what a run takes: whoever needs more goes round in circles."""
_FAILED = Path(__file__).with_name("failed_seeds.toml")


def run(scenario: Scenario, seed: int) -> World:
    """One run; the world as it was at the end."""
    loop = SimLoop(seed, step_s=STEP_S)
    worlds: list[World] = []

    async def main() -> None:
        world = World(seed, loop)
        worlds.append(world)
        await _watched(world, scenario)

    # Collecting garbage runs what is left of dead tasks; nothing of a run may depend on when that happens.
    gc.disable()
    # What goes wrong is the scenario's doing, and is not news.
    logging.disable(logging.CRITICAL)
    try:
        loop.run(main(), max_steps=MAX_STEPS)
    finally:
        logging.disable(logging.NOTSET)
        gc.enable()
    return worlds[0]


async def _watched(world: World, scenario: Scenario) -> None:
    """Run the scenario, unless an agent fails in a way that agents must not."""
    story = asyncio.ensure_future(scenario(world))
    while not story.done():
        if not world.supervisors:
            await asyncio.sleep(0)
            continue
        await asyncio.wait((story, *world.supervisors), return_when=asyncio.FIRST_COMPLETED, timeout=60.0)
        for supervisor in [supervisor for supervisor in world.supervisors if supervisor.done()]:
            world.supervisors.remove(supervisor)
            if supervisor.exception() is not None:
                story.cancel()
                supervisor.result()
    for supervisor in world.supervisors:
        supervisor.cancel()
    story.result()


def simulate(*, seeds: int = 200, reach: Sequence[str] = ()) -> Callable[[Scenario], Callable[[], None]]:
    """Make a test of a scenario; `reach` names what must have happened under some of its seeds."""

    def wrap(scenario: Scenario) -> Callable[[], None]:
        @functools.wraps(scenario)
        def test() -> None:
            marks = Marks()
            chosen = list(_seeds(scenario.__name__, seeds))
            for seed in chosen:
                try:
                    marks.add(run(scenario, seed).marks)
                except BaseException as problem:
                    problem.add_note(_how_to_replay(scenario, seed))
                    raise
            if len(chosen) >= seeds:
                marks.expect(*reach)

        # Pytest must not see the scenario's argument as a fixture.
        del test.__wrapped__
        test.scenario = scenario
        return test

    return wrap


def _seeds(name: str, count: int) -> Iterator[int]:
    single = os.environ.get("PENSTOCK_SIM_SEED")
    if single is not None:
        yield int(single)
        return
    yield from tomllib.loads(_FAILED.read_text()).get(name, ())
    first = int(os.environ.get("PENSTOCK_SIM_FROM", "0"))
    yield from range(first, first + int(os.environ.get("PENSTOCK_SIM_SEEDS", count)))


def _how_to_replay(scenario: Scenario, seed: int) -> str:
    path = Path(scenario.__code__.co_filename).name
    return f"replay: PENSTOCK_SIM_SEED={seed} .venv/bin/pytest tests/simulation/{path} -k {scenario.__name__}"
