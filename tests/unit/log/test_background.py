"""Chores take turns, are woken, fail and recover; with nothing to do nothing is armed."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable

import pytest
from fixtures.clocks import LoopClock
from fixtures.sim_loop import SimLoop

from penstock.base.errors import Unavailable
from penstock.base.randomness import SeededRandomness
from penstock.log.upkeep.background import Background


class Script:
    """A chore that does what a list says: a delay, None, or a failure to raise. None when the list has ended."""

    def __init__(self, name: str, *steps: float | Exception | None, trace: list[tuple[str, float]]) -> None:
        self.name, self._steps, self._trace = name, list(steps), trace
        self.backlog = 7

    async def run(self) -> float | None:
        self._trace.append((self.name, asyncio.get_running_loop().time()))
        await asyncio.sleep(0)
        step = self._steps.pop(0) if self._steps else None
        if isinstance(step, Exception):
            raise step
        return step


def simulate(scenario: Callable[[SimLoop], Awaitable[None]]) -> None:
    for seed in range(5):
        loop = SimLoop(seed)
        loop.run(scenario(loop))


def background(*chores: Script, jitter: bool = False) -> Background:
    randomness = SeededRandomness("background") if jitter else None
    return Background(chores, clock=LoopClock(), randomness=randomness)


def test_chores_that_have_more_to_do_take_turns() -> None:
    async def scenario(loop: SimLoop) -> None:
        trace: list[tuple[str, float]] = []
        runner = background(Script("a", 0, 0, 0, trace=trace), Script("b", 0, 0, 0, trace=trace))
        runner.start()
        await asyncio.sleep(1)
        assert [name for name, _ in trace] == ["a", "b"] * 4
        await runner.stop()

    simulate(scenario)


def test_a_chore_without_work_has_no_timer_and_runs_when_woken() -> None:
    async def scenario(loop: SimLoop) -> None:
        trace: list[tuple[str, float]] = []
        runner = background(Script("idle", trace=trace), Script("later", 100, trace=trace))
        runner.start()
        await asyncio.sleep(1)
        assert loop.pending_timers() == 1  # The one of `later`.
        runner.wake("idle")
        runner.wake("idle")
        await asyncio.sleep(1)
        assert [name for name, _ in trace] == ["idle", "later", "idle"]
        await asyncio.sleep(200)
        assert trace[-1][0] == "later"
        assert trace[-1][1] == pytest.approx(100, abs=0.1)
        assert loop.pending_timers() == 0
        await runner.stop()

    simulate(scenario)


def test_a_wake_during_the_step_counts_for_the_next_turn() -> None:
    async def scenario(loop: SimLoop) -> None:
        trace: list[tuple[str, float]] = []
        runner = background(Script("a", None, None, trace=trace))
        runner.start()
        while not trace:
            await asyncio.sleep(0)
        runner.wake("a")
        await asyncio.sleep(1)
        assert len(trace) == 2
        await runner.stop()

    simulate(scenario)


def test_a_failing_chore_backs_off_alone_and_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(loop: SimLoop) -> None:
        caplog.clear()
        trace: list[tuple[str, float]] = []
        failures = [Unavailable("the disk is full")] * 4
        runner = background(Script("bad", *failures, trace=trace), Script("good", 1, 1, 1, trace=trace), jitter=True)
        runner.start()
        for _ in range(40):
            await asyncio.sleep(1)
            runner.wake("bad")
        times = [at for name, at in trace if name == "bad"][:5]
        gaps = [after - before for before, after in itertools.pairwise(times)]
        for gap, expected in zip(gaps, (1, 2, 4, 8), strict=True):
            assert 0.5 * expected <= gap <= 1.5 * expected + 0.01
        assert len([name for name, _ in trace if name == "good"]) == 4
        assert [record.levelno for record in caplog.records] == [logging.ERROR, logging.INFO]
        stats = runner.stats()["bad"]
        assert (stats.failures, stats.failed_in_a_row, stats.backlog) == (4, 0, 7)
        await runner.stop()

    caplog.set_level(logging.INFO)
    simulate(scenario)


def test_a_bug_is_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(loop: SimLoop) -> None:
        caplog.clear()
        runner = background(Script("bad", KeyError("x"), trace=[]))
        runner.start()
        await asyncio.sleep(0.1)
        assert caplog.records[0].exc_info is not None
        await runner.stop()

    simulate(scenario)


def test_stopping_lets_the_step_end_and_starts_no_other() -> None:
    async def scenario(loop: SimLoop) -> None:
        ended = []

        class Slow:
            name = "slow"

            async def run(self) -> float | None:
                await asyncio.sleep(3)
                ended.append(asyncio.get_running_loop().time())
                return 0

        runner = Background([Slow()], clock=LoopClock())
        runner.start()
        await asyncio.sleep(1)
        await runner.stop()
        assert ended == [3.0]
        await runner.stop()

    simulate(scenario)
