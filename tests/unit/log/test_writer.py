"""The writer: what one flush takes, what becomes of repeats and refusals, and that a failed flush changes nothing."""

from __future__ import annotations

import asyncio

import pytest
from fixtures.clocks import ManualClock
from fixtures.fake_commits import FakeCommits
from fixtures.log_world import append, batch, batches_in, topic_of

from penstock.base.errors import Unavailable
from penstock.log.answers import Appended, Ticket
from penstock.log.model import Partition
from penstock.log.writer import AWAITED_MAX, Writer, forget_views
from penstock.storage.arena import Arena
from penstock.wire.error_codes import ErrorCode

NONE, STORAGE = ErrorCode.NONE, ErrorCode.KAFKA_STORAGE_ERROR
OUT_OF_ORDER, FENCED = ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, ErrorCode.INVALID_PRODUCER_EPOCH
AWAY = Unavailable("the disk is away")


def writer_over(commits: FakeCommits, **options) -> Writer:
    return Writer(arena=Arena(1 << 22, on_recycle=forget_views), commit_path=commits, clock=ManualClock(), **options)


def own(sequence: int, count: int = 1, *, producer_id: int = 7, epoch: int = 0, mark: int = 0):
    return batch(count, producer_id=producer_id, epoch=epoch, sequence=sequence, mark=mark)


def stored(partition: Partition) -> list[tuple[int, int, int]]:
    return [found for span in partition.spans for found in batches_in(span.view)]


@pytest.fixture(params=[True, False], ids=["in line", "awaited"])
def commits(request: pytest.FixtureRequest) -> FakeCommits:
    return FakeCommits(inline=request.param)


@pytest.fixture
def partition() -> Partition:
    return topic_of(1).partitions[0]


# ---- flushes -------------------------------------------------------------------------------------------------


async def test_a_flush_takes_everything_that_waits(commits: FakeCommits) -> None:
    first, second = topic_of(1, 2).partitions
    writer = writer_over(commits)
    answers = await append(
        writer, (first, batch(2, mark=1)), (second, batch(mark=2)), (first, batch(3, mark=3)), (first, batch(mark=4))
    )
    assert [(answer.error, answer.base_offset) for answer in answers] == [(NONE, 0), (NONE, 0), (NONE, 2), (NONE, 5)]
    assert len(commits.commits) == 1
    assert stored(first) == [(0, 2, 1), (2, 3, 3), (5, 1, 4)]
    assert stored(second) == [(0, 1, 2)]
    assert (first.next_offset, second.next_offset) == (6, 1)
    assert (writer.pending_bytes, writer.stats.commits, writer.stats.batches) == (0, 1, 4)


async def test_what_comes_during_a_flush_is_the_next_one(partition: Partition) -> None:
    commits = FakeCommits(inline=False)
    writer = writer_over(commits)
    requests = [asyncio.ensure_future(append(writer, (partition, batch(mark=mark)))) for mark in range(3)]
    await asyncio.sleep(0)
    requests.append(asyncio.ensure_future(append(writer, (partition, batch(mark=3)))))
    answers = await asyncio.gather(*requests)
    assert [answer[0].base_offset for answer in answers] == [0, 1, 2, 3]
    assert len(commits.commits) == 2
    await writer.drain()


async def test_drain_waits_for_what_was_submitted(commits: FakeCommits, partition: Partition) -> None:
    writer = writer_over(commits)
    answers: list[Appended] = []
    for mark in range(3):
        writer.submit(partition, batch(mark=mark), Ticket([None], answers.extend), 0)
    await writer.drain()
    assert [answer.base_offset for answer in answers] == [0, 1, 2]
    await writer.drain()


async def test_offsets_are_where_others_left_them(partition: Partition) -> None:
    """Another agent appended ten records meanwhile: only the commit knows where ours went."""
    commits = FakeCommits()
    commits.moved = 10
    (answer,) = await append(writer_over(commits), (partition, batch(2, mark=5)))
    assert answer.base_offset == 10
    assert stored(partition) == [(10, 2, 5)]
    assert partition.next_offset == 12


async def test_batches_of_a_deleted_topic_go_nowhere(commits: FakeCommits) -> None:
    gone, kept = topic_of(1, name="gone"), topic_of(2, name="kept")
    gone.deleted = True
    writer = writer_over(commits)
    answers = await append(writer, (gone.partitions[0], batch()), (kept.partitions[0], batch()))
    assert [answer.error for answer in answers] == [ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, NONE]
    assert writer.pending_bytes == 0


async def test_waiters_hear_of_bytes(commits: FakeCommits, partition: Partition) -> None:
    heard: list[int] = []

    class Waiter:
        def on_append(self, size_bytes: int) -> None:
            assert partition.next_offset == 2, "told when it can be read"
            heard.append(size_bytes)

        def on_change(self) -> None:
            raise AssertionError

    partition.waiters[Waiter()] = None
    await append(writer_over(commits), (partition, batch(size_bytes=100)), (partition, batch(size_bytes=200)))
    assert heard == [300]


async def test_the_writer_waits_for_room_in_the_log(partition: Partition) -> None:
    class Room:
        is_short, waits = True, 0

        async def wait(self) -> None:
            self.waits += 1
            await asyncio.sleep(0)
            self.is_short = False

    room, commits = Room(), FakeCommits()
    (answer,) = await append(writer_over(commits, room=room), (partition, batch()))
    assert answer.error is NONE
    assert room.waits == 1


# ---- failures ------------------------------------------------------------------------------------------------


async def test_a_failed_flush_changes_nothing(commits: FakeCommits, partition: Partition) -> None:
    writer, drained = writer_over(commits), []
    writer.on_drained = lambda: drained.append(writer.pending_bytes)
    commits.failures = [AWAY]
    answers = await append(writer, (partition, batch(2)), (partition, own(0)))
    assert [(answer.error, answer.base_offset) for answer in answers] == [(STORAGE, -1)] * 2
    assert answers[0].message == "the disk is away"
    assert (partition.next_offset, partition.spans, partition.producers, partition.size_bytes) == (0, [], {}, 0)
    assert drained == [0]
    assert writer.stats.failures == 1
    (answer,) = await append(writer, (partition, own(0)))
    assert (answer.error, answer.base_offset) == (NONE, 0)


async def test_a_known_producer_goes_on_after_a_failure(commits: FakeCommits, partition: Partition) -> None:
    writer = writer_over(commits)
    await append(writer, (partition, own(0)))
    commits.failures = [AWAY]
    await append(writer, (partition, own(1)))
    answers = await append(writer, (partition, own(2)), (partition, own(1)), (partition, own(2)))
    assert [answer.error for answer in answers] == [OUT_OF_ORDER, NONE, NONE]
    assert [answer.base_offset for answer in answers] == [-1, 1, 2]


async def test_an_unknown_producer_begins_again_with_what_failed(commits: FakeCommits, partition: Partition) -> None:
    """Otherwise the batches sent behind the failed one would be accepted before it."""
    writer = writer_over(commits)
    commits.failures = [AWAY]
    await append(writer, (partition, own(3)), (partition, own(4)))
    late, other = await append(writer, (partition, own(5)), (partition, own(9, producer_id=8)))
    assert (late.error, other.error) == (STORAGE, NONE), "to be tried again"
    answers = await append(writer, *[(partition, own(sequence)) for sequence in (3, 4, 5)])
    assert [answer.error for answer in answers] == [NONE] * 3
    assert partition.awaited == {}


async def test_an_unknown_producer_may_begin_again_with_a_new_epoch(commits: FakeCommits, partition: Partition) -> None:
    writer = writer_over(commits)
    commits.failures = [AWAY]
    await append(writer, (partition, own(3)))
    (answer,) = await append(writer, (partition, own(0, epoch=1)))
    assert answer.error is NONE
    assert partition.awaited == {}


async def test_awaited_producers_are_bounded(partition: Partition) -> None:
    commits = FakeCommits()
    commits.failures = [AWAY]
    many = [(partition, own(0, producer_id=number)) for number in range(AWAITED_MAX + 5)]
    await append(writer_over(commits), *many)
    assert len(partition.awaited) == AWAITED_MAX
    assert 0 not in partition.awaited


# ---- idempotent producers ------------------------------------------------------------------------------------


async def test_a_repeat_gets_the_first_answer(commits: FakeCommits, partition: Partition) -> None:
    writer = writer_over(commits)
    await append(writer, (partition, own(0, 2, mark=1)), (partition, own(2, mark=2)))
    answers = await append(writer, (partition, own(2)), (partition, own(0, 2)))
    assert [(answer.error, answer.base_offset, answer.append_time_ms) for answer in answers] == [
        (NONE, 2, 5), (NONE, 0, 5),
    ]  # fmt: skip
    assert stored(partition) == [(0, 2, 1), (2, 1, 2)]
    assert len(commits.commits) == 1


async def test_a_repeat_within_a_flush_is_answered_with_it(commits: FakeCommits, partition: Partition) -> None:
    writer = writer_over(commits)
    answers = await append(writer, (partition, own(0)), (partition, own(0)), (partition, own(1)))
    assert [answer.base_offset for answer in answers] == [0, 0, 1]
    assert len(stored(partition)) == 2
    commits.failures = [AWAY]
    answers = await append(writer, (partition, own(2)), (partition, own(2)))
    assert [answer.error for answer in answers] == [STORAGE, STORAGE]
    assert len(stored(partition)) == 2


async def test_refusals_do_not_wait(partition: Partition) -> None:
    commits = FakeCommits()
    writer = writer_over(commits)
    await append(writer, (partition, own(0, epoch=1)))
    answers = await append(writer, (partition, own(5, epoch=1)), (partition, own(1)))
    assert [answer.error for answer in answers] == [OUT_OF_ORDER, FENCED]
    assert len(commits.commits) == 1
    assert writer.pending_bytes == 0


async def test_producers_are_told_apart_by_partition(commits: FakeCommits) -> None:
    first, second = topic_of(1, 2).partitions
    answers = await append(writer_over(commits), (first, own(0)), (second, own(0)), (first, own(1)))
    assert [answer.error for answer in answers] == [NONE] * 3


async def test_the_row_says_what_producers_sent(partition: Partition) -> None:
    commits = FakeCommits()
    await append(writer_over(commits), (partition, batch(2)), (partition, own(5, 3)), (partition, own(8)))
    ((entry,),) = [commit.entries for commit in commits.commits]
    assert (entry.offset_count, entry.batch_count, entry.byte_length) == (6, 3, 300)
    assert [found[:5] for found in entry.producer_batches] == [(7, 0, 5, 2, 2), (7, 0, 8, 0, 5)]


# ---- the tail ------------------------------------------------------------------------------------------------


async def test_memory_is_used_again_when_nobody_looks(partition: Partition) -> None:
    commits = FakeCommits()
    arena = Arena(64 * 1024, chunk_bytes=16 * 1024, on_recycle=forget_views)
    writer = Writer(arena=arena, commit_path=commits, clock=ManualClock())
    for mark in range(20):
        await append(writer, (partition, batch(size_bytes=6_000, mark=mark)))
    in_memory = [span.view is not None for span in partition.spans]
    assert len(in_memory) == 20
    assert in_memory == sorted(in_memory), "the newest stay"
    assert 0 < sum(in_memory) <= 11
    assert arena.size_bytes <= 64 * 1024
    await append(writer, (partition, batch(size_bytes=6_000)))
    assert [span.base_offset for span in partition.spans] == list(range(21))


async def test_spans_that_are_nowhere_else_go_with_their_memory(partition: Partition) -> None:
    commits = FakeCommits()
    writer = Writer(
        arena=Arena(64 * 1024, chunk_bytes=16 * 1024, on_recycle=forget_views), commit_path=commits, clock=ManualClock()
    )
    for _ in range(8):
        await append(writer, (partition, batch(size_bytes=6_000)))
    for span in partition.spans:
        span.location = None  # Compaction put them into segments.
    for _ in range(8):
        await append(writer, (partition, batch(size_bytes=6_000)))
    assert partition.spans[0].base_offset > 0
    offsets = [span.base_offset for span in partition.spans]
    assert offsets == list(range(offsets[0], 16)), "without gaps from the first one on"


# ---- bugs ----------------------------------------------------------------------------------------------------


async def test_a_bug_in_a_flush_stops_the_writer_and_is_told(commits: FakeCommits, partition: Partition) -> None:
    """Neither durable nor refused: nobody is answered, nothing follows, and stopping does not wait for it."""
    writer = writer_over(commits)
    told: list[bool] = []
    writer.on_broken = lambda: told.append(writer.broken)
    answers: list[list[Appended]] = []
    partition.waiters[_Buggy()] = None
    writer.submit(partition, batch(mark=1), Ticket([None], answers.append), 0)
    await asyncio.wait_for(writer.drain(), 5)
    writer.submit(partition, batch(mark=2), Ticket([None], answers.append), 0)
    await asyncio.wait_for(writer.drain(), 5)
    await asyncio.sleep(0)
    assert told == [True]
    assert answers == []
    assert len(commits.commits) == 1


class _Buggy:
    """A waiter that is wrong."""

    def on_append(self, size_bytes: int) -> None:
        raise RuntimeError("a bug")

    def on_stable(self, size_bytes: int) -> None:
        raise RuntimeError("a bug")

    def on_change(self) -> None:
        raise RuntimeError("a bug")


# ---- waiting for what is being written ---------------------------------------------------------------------------


async def test_a_flush_that_is_being_written_can_be_waited_for() -> None:
    """And only that one: others may follow for ever."""
    held: list[asyncio.Future[None]] = []

    class Held(FakeCommits):
        async def commit(self, *args, **options):
            held.append(asyncio.get_running_loop().create_future())
            await held[-1]
            return await super().commit(*args, **options)

    writer = writer_over(Held(inline=False))
    partition = topic_of(1).partitions[0]
    await writer.pass_flush()
    first = asyncio.ensure_future(append(writer, (partition, batch())))
    while not held:
        await asyncio.sleep(0)
    second = asyncio.ensure_future(append(writer, (partition, batch())))
    passed = asyncio.ensure_future(writer.pass_flush())
    await asyncio.sleep(0.01)
    assert not passed.done()
    held[0].set_result(None)
    await first
    await asyncio.wait_for(passed, 5)
    while len(held) < 2:
        await asyncio.sleep(0)
    assert not second.done()
    passed = asyncio.ensure_future(writer.pass_flush())
    await asyncio.sleep(0.01)
    assert not passed.done()
    held[1].set_exception(AWAY)
    ((error, *_),) = await second
    assert error is STORAGE
    await asyncio.wait_for(passed, 5)
    await writer.pass_flush()
