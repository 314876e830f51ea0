"""What goes with flushes: how many of them with one."""

from __future__ import annotations

from fixtures.log_world import append, batch, topic_of, writer_over
from test_writer_flush_limit import Path

from penstock.base.errors import PlatformError
from penstock.log.flush import Flush
from penstock.log.model import Partition
from penstock.log.writer import MAX_PASSENGERS


class Passenger:
    """Ends a transaction in a partition, and wants to know nothing of it."""

    def __init__(self, partition: Partition, producer_id: int) -> None:
        self.partition, self.producer_id = partition, producer_id

    def board(self, flush: Flush) -> bool:
        flush.end_transaction(
            (self.partition,), producer_id=self.producer_id, epoch=0, commit=True, coordinator_epoch=0
        )
        return True

    def landed(self) -> None:
        raise AssertionError("it has not joined")

    def failed(self, problem: PlatformError) -> None:
        raise AssertionError(problem)


async def test_more_markers_than_a_commit_can_count_go_with_several_flushes() -> None:
    path, (partition,) = Path(), topic_of(1).partitions
    writer = writer_over(path)
    for number in range(MAX_PASSENGERS + 2):
        writer.take_along(Passenger(partition, number))
    await append(writer, (partition, batch()))
    await writer.drain()
    markers = [[one.producer_id for one in commit.entries[0].producer_batches] for commit in path.commits]
    assert list(map(len, markers)) == [MAX_PASSENGERS, 2]
    assert [producer_id for one in markers for producer_id in one] == list(range(MAX_PASSENGERS + 2))
