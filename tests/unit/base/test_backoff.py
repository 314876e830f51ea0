"""Trying again, in virtual time: how long is waited, what is tried again, and what is not."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import cycle

import pytest
from fixtures.sim_loop import SimLoop

from penstock.base.backoff import Backoff, retry_until_answered
from penstock.base.errors import Conflict, OutcomeUnknown, PlatformError, Unavailable


class Chance:
    """What is drawn, in turns: 0 is the low end of a range, 1 the high one."""

    def __init__(self, *drawn: float) -> None:
        self._drawn = cycle(drawn or (0.5,))

    def token(self, size_bytes: int) -> bytes:
        raise NotImplementedError

    def uniform(self, low: float, high: float) -> float:
        return low + next(self._drawn) * (high - low)


def lengths(backoff: Backoff, count: int) -> list[float]:
    """How long so many waits are."""
    loop, found = SimLoop(1), []

    async def main() -> None:
        for _ in range(count):
            began = loop.time()
            await backoff.wait()
            found.append(loop.time() - began)

    loop.run(main())
    return found


class Failing:
    """Fails in these ways, then answers. Knows when it was asked."""

    def __init__(self, loop: SimLoop, *failures: PlatformError) -> None:
        self._loop, self._left, self.asked_s = loop, list(failures), list[float]()

    async def __call__(self) -> str:
        self.asked_s.append(self._loop.time())
        if self._left:
            raise self._left.pop(0)
        return "done"


def test_pauses_double_up_to_the_longest() -> None:
    assert lengths(Backoff(Chance(), 0.05, 0.3), 5) == pytest.approx([0.05, 0.1, 0.2, 0.3, 0.3])


def test_pauses_may_grow_faster() -> None:
    assert lengths(Backoff(Chance(), 0.05, 100.0, growth=4.0), 3) == pytest.approx([0.05, 0.2, 0.8])


def test_chance_makes_a_pause_longer_or_shorter_by_half_and_not_those_after_it() -> None:
    assert lengths(Backoff(Chance(0, 1), 0.1, 10.0), 4) == pytest.approx([0.05, 0.3, 0.2, 1.2])


def simulated(scenario: Callable[[SimLoop], Awaitable[None]]) -> None:
    loop = SimLoop(1)

    async def main() -> None:
        await scenario(loop)

    loop.run(main())


def test_it_is_tried_until_there_is_an_answer() -> None:
    async def scenario(loop: SimLoop) -> None:
        complaints: list[str] = []
        attempt = Failing(loop, Unavailable("away"), OutcomeUnknown("lost"), Unavailable("away again"))
        backoff = Backoff(Chance(), 0.1)
        assert await retry_until_answered(attempt, backoff, lambda problem: complaints.append(str(problem))) == "done"
        assert complaints == ["away", "lost", "away again"]
        assert attempt.asked_s == pytest.approx([0.0, 0.1, 0.3, 0.7])

    simulated(scenario)


def test_who_goes_on_with_the_same_pauses_waits_longer() -> None:
    async def scenario(loop: SimLoop) -> None:
        backoff = Backoff(Chance(), 0.1)
        await retry_until_answered(Failing(loop, Unavailable("away")), backoff)
        await retry_until_answered(Failing(loop, Unavailable("away")), backoff)
        assert loop.time() == pytest.approx(0.3)

    simulated(scenario)


def test_what_trying_again_does_not_help_is_raised_at_once() -> None:
    async def scenario(loop: SimLoop) -> None:
        attempt = Failing(loop, Conflict("somebody was faster"))
        with pytest.raises(Conflict):
            await retry_until_answered(attempt, Backoff(Chance()))
        assert attempt.asked_s == [0.0]

    simulated(scenario)
