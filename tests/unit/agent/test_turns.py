"""Ends of turns: when they come, and that the loop never sleeps through what they have left to do."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from agent_world import Setup

from penstock.agent.listeners import Listener
from penstock.agent.turns import NEWCOMERS_PER_TURN, TurnLoop, at_turn_end, newcomers_of, turn_of
from penstock.base.clock import SystemClock
from penstock.identity.model import ANONYMOUS_IDENTITY


def run(main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    with asyncio.Runner(loop_factory=TurnLoop) as runner:
        return runner.run(asyncio.wait_for(main(), 10))


@contextlib.contextmanager
def arrived(loop: TurnLoop, count: int) -> Iterator[list[socket.socket]]:
    """Sockets with a byte to read each; their readers are removed at the end."""
    pairs = [socket.socketpair() for _ in range(count)]
    for _, theirs in pairs:
        theirs.send(b"x")
    yield [ours for ours, _ in pairs]
    for ours, theirs in pairs:
        loop.remove_reader(ours)
        ours.close()
        theirs.close()


def test_it_comes_after_all_events_of_the_turn() -> None:
    seen: list[str] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, TurnLoop)
        done = loop.create_future()

        def readable(number: int, sock: socket.socket) -> None:
            sock.recv(1)
            seen.append(f"event {number}")
            if len(seen) == 1:
                loop.at_turn_end(lambda: seen.append("end"))
                loop.at_turn_end(lambda: done.set_result(None))

        with arrived(loop, 3) as sockets:
            for number, sock in enumerate(sockets):
                loop.add_reader(sock, readable, number, sock)
            await done

    run(main)
    assert sorted(seen[:3]) == ["event 0", "event 1", "event 2"]
    assert seen[3:] == ["end"]


def test_what_an_end_makes_due_comes_in_the_same_end() -> None:
    async def main() -> list[int]:
        loop, seen = asyncio.get_running_loop(), []
        assert isinstance(loop, TurnLoop)

        def first() -> None:
            seen.append(1)
            loop.at_turn_end(lambda: seen.append(2))

        loop.at_turn_end(first)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return seen

    assert run(main) == [1, 2]


@pytest.mark.parametrize("delay_s", [None, 0.02])
def test_the_loop_does_not_wait_for_longer_than_an_end_says(delay_s: float | None) -> None:
    """It had nothing to do and no timer before; it would wait for ever."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, TurnLoop)
        done = loop.create_future()

        def end() -> None:
            if delay_s is None:
                loop.call_soon(done.set_result, None)
            else:
                loop.call_later(delay_s, done.set_result, None)

        loop.at_turn_end(end)
        await done

    run(main)


def test_a_bug_in_one_is_told_and_keeps_nobody_else_from_anything() -> None:
    told: list[str] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, TurnLoop)
        loop.set_exception_handler(lambda _, context: told.append(str(context["exception"])))
        done = loop.create_future()
        loop.at_turn_end(lambda: [][0])
        loop.at_turn_end(lambda: done.set_result(None))
        await done

    run(main)
    assert told == ["list index out of range"]


def test_other_loops_have_another_way() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        at_turn_end(loop)(lambda: done.set_result(None))
        await done

    asyncio.run(main())


def test_turns_are_timed() -> None:
    async def main() -> tuple[int, float]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, TurnLoop)
        before = loop.turn_durations.count
        for _ in range(5):
            await asyncio.sleep(0)
        return loop.turn_durations.count - before, loop.turn_durations.total_s

    count, total_s = run(main)
    assert count == 5
    assert total_s > 0


def test_when_a_turn_began_is_known_without_the_clock() -> None:
    async def main() -> list[float]:
        turn = turn_of(asyncio.get_running_loop(), SystemClock.monotonic)
        seen = [turn.began_s, turn.began_s]
        await asyncio.sleep(0)
        return [*seen, turn.began_s, SystemClock().monotonic()]

    first, again, following, now = run(main)
    assert first == again < following <= now


@pytest.mark.parametrize("loop_factory", [TurnLoop, asyncio.SelectorEventLoop])
def test_with_another_clock_or_loop_it_is_now(loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    loop, times = loop_factory(), iter((5.0, 6.0))
    turn = turn_of(loop, lambda: next(times))
    assert [turn.began_s, turn.began_s] == [5.0, 6.0]
    loop.close()


def test_a_turn_serves_a_few_newcomers_and_everybody_else() -> None:
    turns: list[list[str]] = [[]]

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, TurnLoop)
        done = loop.create_future()

        def readable(name: str, sock: socket.socket) -> None:
            sock.recv(1)
            if not turns[-1]:
                loop.at_turn_end(lambda: turns.append([]))
            turns[-1].append(name)
            if sum(map(len, turns)) == 9 and not done.done():
                done.set_result(None)

        with arrived(loop, 9) as sockets:
            for number, sock in enumerate(sockets):
                is_newcomer = number < 7
                if is_newcomer:
                    newcomers_of(loop).add(sock.fileno())
                loop.add_reader(sock, readable, f"newcomer {number}" if is_newcomer else f"known {number}", sock)
            await done

    run(main)
    assert {name for name in turns[0] if name.startswith("known")} == {"known 7", "known 8"}
    newcomers = [[name for name in turn if name.startswith("newcomer")] for turn in turns]
    assert [len(turn) for turn in newcomers if turn] == [NEWCOMERS_PER_TURN] * 3 + [1]
    assert sorted(name for turn in newcomers for name in turn) == [f"newcomer {number}" for number in range(7)]


def test_a_newcomer_that_keeps_sending_does_not_keep_others_waiting() -> None:
    served: list[int] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, TurnLoop)
        done = loop.create_future()

        def readable(number: int, sock: socket.socket) -> None:
            served.append(number)  # And there is always more to read.
            if len(served) == 30 and not done.done():
                done.set_result(None)

        with arrived(loop, 6) as sockets:
            for number, sock in enumerate(sockets):
                newcomers_of(loop).add(sock.fileno())
                loop.add_reader(sock, readable, number, sock)
            await done

    run(main)
    assert {number: served[:30].count(number) for number in range(6)} == dict.fromkeys(range(6), 5)


def test_a_connection_is_a_newcomer_until_it_has_authenticated() -> None:
    async def main() -> list[bool]:
        setup = Setup()
        newcomers = newcomers_of(asyncio.get_running_loop())
        seen = []
        listener = Listener(protocol="SASL_PLAINTEXT", mechanisms=("PLAIN",))
        for ends in (
            lambda connection: connection.belongs_to(ANONYMOUS_IDENTITY),
            lambda connection: connection.close(),
        ):
            ours, theirs = socket.socketpair()
            setup.server._accept(theirs, "10.0.0.1", listener)
            seen.append(bool(newcomers))
            ends(setup.server.connections[-1])
            seen.append(bool(newcomers))
            ours.close()
        setup.connect()
        seen.append(bool(newcomers))
        await setup.close()
        return seen

    assert run(main) == [True, False, True, False, False]
