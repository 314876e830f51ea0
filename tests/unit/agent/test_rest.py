"""Memory goes back after a stretch of time in which nothing happened, and not before."""

from __future__ import annotations

from penstock.agent.rest import REST_S, Rest


async def test_memory_is_dropped_once_nothing_happened_for_a_while() -> None:
    state = {"activity": 0, "held": 0, "dropped": 0}

    def drop() -> None:
        state["held"], state["dropped"] = 0, state["dropped"] + 1

    rest = Rest(activity=lambda: state["activity"], held_bytes=lambda: state["held"], drop=drop)
    assert await rest.run() is None  # Nothing is held: no timer.
    state["held"], state["activity"] = 100, 1
    assert await rest.run() == REST_S
    state["activity"] = 2
    assert await rest.run() == REST_S
    assert state["dropped"] == 0
    assert await rest.run() is None
    assert (state["held"], state["dropped"]) == (0, 1)
