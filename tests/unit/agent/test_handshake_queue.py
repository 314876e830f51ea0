"""How many TLS handshakes compute in one turn of the loop."""

from __future__ import annotations

import asyncio
import itertools

from penstock.agent.tls import STEPS_AT_ONCE, HandshakeQueue


async def test_others_have_their_turn_between_many_handshakes() -> None:
    queue, done, seen = HandshakeQueue(asyncio.get_running_loop()), [], []
    for number in range(3 * STEPS_AT_ONCE):
        queue.run(lambda number=number: done.append(number))
    while len(done) < 3 * STEPS_AT_ONCE:
        seen.append(len(done))
        await asyncio.sleep(0)
    assert seen[0] == STEPS_AT_ONCE
    assert all(later - earlier <= STEPS_AT_ONCE for earlier, later in itertools.pairwise(seen))
    assert done == sorted(done), "in the order they came"


async def test_few_handshakes_do_not_wait() -> None:
    queue, done = HandshakeQueue(asyncio.get_running_loop()), []
    for turn in range(3):
        for number in range(STEPS_AT_ONCE):
            queue.run(lambda number=number: done.append(number))
        assert len(done) == STEPS_AT_ONCE * (turn + 1)
        await asyncio.sleep(0)


async def test_what_a_step_asks_for_comes_after_the_others() -> None:
    queue, done = HandshakeQueue(asyncio.get_running_loop()), []

    def again(number: int) -> None:
        done.append(number)
        if number < 100:
            queue.run(lambda: again(number + 1))

    again(0)
    while len(done) < 101:
        await asyncio.sleep(0)
    assert done == list(range(101))
