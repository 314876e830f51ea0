"""Participants of flushes: how many join one flush, and with which batches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from fixtures.log_world import append, batch, topic_of, writer_over
from test_writer_flush_limit import Path

from penstock.base.errors import PlatformError
from penstock.log.answers import Ticket
from penstock.log.fair_queue import SHORT_QUOTA
from penstock.log.flush import Flush
from penstock.log.model import Partition
from penstock.log.writer import MAX_PARTICIPANTS


class Participant:
    """Ends a transaction in a partition, and wants to know nothing of it."""

    def __init__(self, partition: Partition, producer_id: int) -> None:
        self.partition, self.producer_id = partition, producer_id

    def prepare(self, flush: Flush) -> bool:
        flush.end_transaction(
            (self.partition,), producer_id=self.producer_id, epoch=0, commit=True, coordinator_epoch=0
        )
        return True

    def committed(self) -> None:
        raise AssertionError("it has not joined")

    def failed(self, problem: PlatformError) -> None:
        raise AssertionError(problem)


async def test_more_markers_than_a_commit_can_count_go_with_several_flushes() -> None:
    path, (partition,) = Path(), topic_of(1).partitions
    writer = writer_over(path)
    for number in range(MAX_PARTICIPANTS + 2):
        writer.enlist(Participant(partition, number))
    await append(writer, (partition, batch()))
    await writer.drain()
    markers = [[one.producer_id for one in commit.entries[0].producer_batches] for commit in path.commits]
    assert list(map(len, markers)) == [MAX_PARTICIPANTS, 2]
    assert [producer_id for one in markers for producer_id in one] == list(range(MAX_PARTICIPANTS + 2))


class Joining(Participant):
    """One that hears of its flush."""

    def __init__(self, partition: Partition, hear: Callable[[], None]) -> None:
        super().__init__(partition, 7)
        self.committed = hear

    def prepare(self, flush: Flush) -> bool:
        flush.join(self)
        return super().prepare(flush)


async def test_a_participant_does_not_wait_for_all_the_records_there_are() -> None:
    path, (partition,) = Path(), topic_of(1).partitions
    writer, flushes = writer_over(path), list[int]()
    records = append(writer, *((partition, batch(mark=mark)) for mark in range(3 * SHORT_QUOTA.batches)))
    records = asyncio.ensure_future(records)
    await asyncio.sleep(0)
    writer.enlist(Joining(partition, lambda: flushes.append(len(path.commits))))
    answers = await records
    assert flushes == [1]
    assert [entry.batch_count for commit in path.commits for entry in commit.entries] == [
        SHORT_QUOTA.batches + 1, SHORT_QUOTA.batches, SHORT_QUOTA.batches
    ]  # fmt: skip
    # The marker has its place behind the batches that it came with.
    assert [answer.base_offset for answer in answers] == [
        mark + (mark >= SHORT_QUOTA.batches) for mark in range(3 * SHORT_QUOTA.batches)
    ]


async def test_participants_hear_of_their_flush_first_and_find_it_applied() -> None:
    path, (partition,) = Path(), topic_of(1).partitions
    writer, heard = writer_over(path), list[object]()
    writer.submit(partition, batch(), Ticket([None], lambda results: heard.append(results[0].base_offset)), 0)
    writer.enlist(Joining(partition, lambda: heard.append(("participant", partition.next_offset))))
    await writer.drain()
    assert heard == [("participant", 2), 0]
