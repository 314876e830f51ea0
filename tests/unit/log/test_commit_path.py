"""The embedded commit: what happened is found out before anyone is answered, and what did not leaves no space taken."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from fixtures.tables import have_tables

from penstock.base.clock import SystemClock
from penstock.base.errors import Conflict, OutcomeUnknown, Unavailable
from penstock.base.randomness import SeededRandomness
from penstock.log.commit_path import EmbeddedCommitPath
from penstock.log.commits import CommitEntry
from penstock.metadata.inline import InlineDatabase
from penstock.storage.memory import MemoryWal

BODY = memoryview(b"x" * 100)
ENTRIES = [CommitEntry(1, 0, 100, 1, 1, 0)]
Fault = Literal["before", "after"]


class World:
    """A commit path over a database that fails as told, one operation after the other."""

    def __init__(self) -> None:
        self.planned: list[Fault | None] = []
        self.database = InlineDatabase(faults=lambda: self.planned.pop(0) if self.planned else None)
        self.wal = MemoryWal(1000)
        self.path = EmbeddedCommitPath(
            database=self.database, wal=self.wal, clock=SystemClock(), randomness=SeededRandomness("commit"), seq=0,
            inline=True,
        )  # fmt: skip

    async def rows(self) -> int:
        def script():
            return (yield "SELECT COUNT(*) FROM wal_commit", ())

        return (await self.database.read(script))[0][0]


@pytest.fixture
async def world() -> World:
    world = World()
    await have_tables(world.database, SystemClock())
    return world


async def test_an_answer_that_was_lost_is_looked_up(world: World) -> None:
    world.planned = ["after"]
    commit = await world.path.commit(BODY, ENTRIES, [0])
    assert commit.seq == 1
    assert await world.rows() == 1
    assert (await world.path.commit(BODY, ENTRIES, [1])).seq == 2


async def test_in_line_too(world: World) -> None:
    world.planned = ["after"]
    assert world.path.commit_now(BODY, ENTRIES, [0]) is None
    assert world.path.commit_now(BODY, ENTRIES, [0]) is None  # Not again while it is unknown what happened.
    commit = await world.path.commit(BODY, ENTRIES, [0])
    assert commit.seq == 1
    assert await world.rows() == 1
    following = world.path.commit_now(BODY, ENTRIES, [1])
    assert following is not None
    assert following.seq == 2


@pytest.mark.parametrize("inline", [False, True])
async def test_what_did_not_happen_takes_no_space(world: World, inline: bool) -> None:
    stale = EmbeddedCommitPath(
        database=world.database, wal=world.wal, clock=SystemClock(), randomness=SeededRandomness("stale"), seq=0,
        inline=True,
    )  # fmt: skip
    await world.path.commit(BODY, ENTRIES, [0])

    async def attempt() -> None:
        if inline:
            stale.commit_now(BODY, ENTRIES, [0])
        else:
            await stale.commit(BODY, ENTRIES, [0])

    for _ in range(30):  # More than the log could hold.
        with pytest.raises(Conflict):
            await attempt()
    assert await world.rows() == 1


async def test_what_a_start_might_find_in_the_log_of_the_database_keeps_its_object(world: World) -> None:
    """A flush that failed leaves a row there, until the next one is in its place."""
    write, failures = world.database._write, [OutcomeUnknown("the disk did not flush")]

    def unflushed(work: Any) -> Any:
        def undone(connection: Any) -> Any:
            answer = work(connection)
            if failures:
                raise failures.pop()
            return answer

        return write(undone)

    world.database._write = unflushed  # type: ignore[method-assign]
    with pytest.raises(Unavailable):
        await world.path.commit(BODY, ENTRIES, [0])
    assert len(world.wal.places()) == 1
    assert world.path.is_uncertain
    commit = await world.path.commit(BODY, ENTRIES, [0])
    assert world.wal.places() == [commit.location.key]
    assert not world.path.is_uncertain


async def test_a_refusal_before_anything_happened(world: World) -> None:
    world.planned = ["before"]
    with pytest.raises(Unavailable):
        await world.path.commit(BODY, ENTRIES, [0])
    assert (await world.path.commit(BODY, ENTRIES, [0])).seq == 1


@pytest.mark.parametrize("happened", [False, True])
async def test_a_failure_that_nobody_foresaw_is_looked_up(
    world: World, monkeypatch: pytest.MonkeyPatch, happened: bool
) -> None:
    submit = world.database.submit

    async def broken(work: Any) -> Any:
        if happened:
            await submit(work)
        raise MemoryError

    monkeypatch.setattr(world.database, "submit", broken)
    if happened:
        assert (await world.path.commit(BODY, ENTRIES, [0])).seq == 1
    else:
        with pytest.raises(Unavailable, match="did not happen"):
            await world.path.commit(BODY, ENTRIES, [0])
    monkeypatch.undo()
    assert (await world.path.commit(BODY, ENTRIES, [1])).seq == 1 + happened
    assert await world.rows() == 1 + happened
