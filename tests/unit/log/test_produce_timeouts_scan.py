"""Time-outs of produce requests: answered before the outcome is known, and what happens afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from fixtures.clocks import ManualClock
from fixtures.fake_commits import FakeCommits
from fixtures.log_world import batch, topic_of

from penstock.base.errors import Unavailable
from penstock.log import produce_timeouts
from penstock.log.answers import Appended, Ticket
from penstock.log.flush import ParticipantTicket
from penstock.log.model import Partition
from penstock.log.produce_timeouts import MIN_SCAN_INTERVAL_S, SCAN_INTERVAL_S, ProduceTimeouts
from penstock.log.writer import Writer, forget_views
from penstock.storage.arena import Arena
from penstock.wire.error_codes import ErrorCode

NONE, TIMED_OUT = ErrorCode.NONE, ErrorCode.REQUEST_TIMED_OUT


class StuckCommits(FakeCommits):
    """A store that does not answer before it is told to."""

    def __init__(self) -> None:
        super().__init__(inline=False)
        self.goes_on = asyncio.Event()
        self.begun = 0

    async def commit(self, *args: Any, **options: Any) -> Any:
        self.begun += 1
        await self.goes_on.wait()
        return await super().commit(*args, **options)


class Request:
    """A produce request, and what it was answered."""

    def __init__(self, writer: Writer, *batches: tuple[Partition, Any], timeout_ms: int | None = 5_000) -> None:
        self.answers: list[list[Appended]] = []
        ticket = Ticket([None] * len(batches), self.answers.append, timeout_ms)
        for position, (partition, accepted) in enumerate(batches):
            writer.submit(partition, accepted, ticket, position)

    @property
    def told(self) -> list[list[tuple[ErrorCode, int]]]:
        return [[(result.error, result.base_offset) for result in results] for results in self.answers]


class Place:
    """A writer whose store is stuck, and a clock that a test moves."""

    def __init__(self) -> None:
        self.commits, self.clock = StuckCommits(), ManualClock()
        self.writer = Writer(
            arena=Arena(1 << 22, on_recycle=forget_views), commit_path=self.commits, clock=self.clock
        )  # fmt: skip
        self.partitions = topic_of(1, 2).partitions

    def look(self, after_ms: int = 0) -> float:
        self.clock.time_ms += after_ms
        waiting = self.writer._unanswered()
        assert waiting is not None
        return self.writer.timeouts.answer(waiting)


@pytest.fixture
async def place() -> Place:
    return Place()


def own(sequence: int) -> Any:
    return batch(producer_id=7, epoch=0, sequence=sequence)


async def turns(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


# ---- what is answered, and when --------------------------------------------------------------------------------


async def test_who_is_written_and_who_waits_are_both_answered_and_nobody_early(place: Place) -> None:
    first, second = place.partitions
    written = Request(place.writer, (first, batch()))
    await turns()
    waiting = Request(place.writer, (second, batch()), timeout_ms=8_000)
    assert place.commits.begun == 1
    assert place.look() == SCAN_INTERVAL_S
    assert place.look(4_999) == pytest.approx(MIN_SCAN_INTERVAL_S)
    assert (written.told, waiting.told) == ([], [])
    place.look(1)
    assert (written.told, waiting.told) == ([[(TIMED_OUT, -1)]], [])
    place.look(2_999)
    assert waiting.told == []
    place.look(1)
    assert waiting.told == [[(TIMED_OUT, -1)]]
    assert place.writer.timeouts.count == 2
    place.look(60_000)
    place.commits.goes_on.set()
    await place.writer.drain()
    assert [len(one.told) for one in (written, waiting)] == [1, 1], "told once"
    assert [partition.next_offset for partition in place.partitions] == [1, 1], "and appended all the same"
    assert place.writer.pending_bytes == 0


async def test_partitions_that_have_their_answer_keep_it(place: Place) -> None:
    """The refusal of one rests on what is durable, and is known at once."""
    first, second = place.partitions
    place.commits.goes_on.set()
    Request(place.writer, (first, own(0)))
    await place.writer.drain()
    place.commits.goes_on.clear()
    request = Request(place.writer, (second, batch()), (first, own(9)), (first, own(0)), (second, batch()))
    await turns()
    place.look()
    place.look(5_000)
    (told,) = request.told
    assert told == [(TIMED_OUT, -1), (ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, -1), (NONE, 0), (TIMED_OUT, -1)]
    place.commits.goes_on.set()
    await place.writer.drain()
    assert request.told == [told]
    assert second.next_offset == 2


async def test_a_retry_is_recognised_whatever_became_of_the_first(place: Place) -> None:
    """An idempotent producer that was told 7 sends the same sequence again."""
    first = place.partitions[0]
    lost = Request(place.writer, (first, own(0)))
    await turns()
    behind = Request(place.writer, (first, own(1)))
    place.look()
    place.look(5_000)
    again = [Request(place.writer, (first, own(sequence))) for sequence in (0, 1, 0)]
    place.commits.goes_on.set()
    await place.writer.drain()
    assert lost.told == behind.told == [[(TIMED_OUT, -1)]]
    assert [one.told for one in again] == [[[(NONE, 0)]], [[(NONE, 1)]], [[(NONE, 0)]]]
    assert first.next_offset == 2


async def test_a_retry_of_what_failed_in_the_end_is_appended(place: Place) -> None:
    first = place.partitions[0]
    place.commits.failures = [Unavailable("the disk is away")]
    lost = Request(place.writer, (first, own(0)))
    await turns()
    place.look()
    place.look(5_000)
    again = Request(place.writer, (first, own(0)))
    place.commits.goes_on.set()
    await place.writer.drain()
    assert lost.told == [[(TIMED_OUT, -1)]]
    assert again.told == [[(NONE, 0)]]
    assert first.next_offset == 1


@pytest.mark.parametrize("timeout_ms", [0, -1])
async def test_who_is_not_ready_to_wait_is_told_at_the_first_look(place: Place, timeout_ms: int) -> None:
    request = Request(place.writer, (place.partitions[0], batch()), timeout_ms=timeout_ms)
    await turns()
    place.look()
    assert request.told == [[(TIMED_OUT, -1)]]


async def test_some_wait_as_long_as_it_takes(place: Place) -> None:
    """Whoever wants no acknowledgement, and whoever is of the house."""
    request = Request(place.writer, (place.partitions[0], batch()), timeout_ms=None)
    await turns()
    place.look()
    place.look(10**9)
    assert request.told == []
    place.commits.goes_on.set()
    await place.writer.drain()
    assert request.told == [[(NONE, 0)]]
    assert ParticipantTicket().timeout_ms is None


# ---- when somebody looks ---------------------------------------------------------------------------------------


async def test_somebody_looks_while_anything_waits_and_not_otherwise(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(produce_timeouts, "SCAN_INTERVAL_S", 0.002)
    monkeypatch.setattr(produce_timeouts, "MIN_SCAN_INTERVAL_S", 0.001)
    looks: list[int] = []
    answer = ProduceTimeouts.answer

    def counted(self: ProduceTimeouts, waiting: Sequence[Any]) -> float:
        looks.append(1)
        return answer(self, waiting)

    monkeypatch.setattr(ProduceTimeouts, "answer", counted)
    request = Request(place.writer, (place.partitions[0], batch()))
    await until(lambda: len(looks) > 2)
    place.clock.time_ms += 5_000
    await until(lambda: request.told)
    assert place.writer.timeouts._timer is not None
    place.commits.goes_on.set()
    await place.writer.drain()
    await until(lambda: place.writer.timeouts._timer is None)
    seen = len(looks)
    assert not place.writer.timeouts._deadlines
    await asyncio.sleep(0.02)
    assert len(looks) == seen
    Request(place.writer, (place.partitions[0], batch()))
    await turns()
    assert place.writer.timeouts._timer is not None
    place.writer.abandon()
    assert place.writer.timeouts._timer is None
