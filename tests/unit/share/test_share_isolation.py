"""What share groups that read committed records do not see, whatever becomes of the log while they look."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from fixtures.compaction_world import LogWorld
from fixtures.log_world import batch

from penstock.agent.settings import SETTINGS
from penstock.base.errors import PlatformError
from penstock.coordination.leases import LeaseHolder
from penstock.coordination.timers import LoopScheduler
from penstock.log.batches import IMPLICIT, Accepted
from penstock.log.commit_path import Outdated
from penstock.log.commits import TRANSACTIONAL
from penstock.log.flush import Flush
from penstock.log.model import NO_TIMESTAMP, AbortedTransaction, Partition
from penstock.metadata.inline import InlineDatabase
from penstock.share.model import Acquire
from penstock.share.service import SharePartitions
from penstock.share.settings import ShareConfigs
from penstock.share.store import PartitionName
from penstock.storage.memory import MemoryObjectStore, MemoryWal
from penstock.wire.error_codes import ErrorCode
from penstock.wire.records import Record, build_batch


class ReadCommitted:
    def overrides(self, cluster_id: int, kind: object, name: str) -> Mapping[str, str]:
        return {"share.isolation.level": "read_committed"}


class AnyProducer:
    """Whoever writes may."""

    def refusal(self, partition: Partition, accepted: Accepted) -> ErrorCode:
        return ErrorCode.NONE

    def on_outdated(self, problem: Outdated) -> None:
        raise AssertionError

    def began(self, partition: Partition, producers: Iterable[int]) -> None:
        """Nobody keeps count."""


class Abort:
    """The end of a transaction."""

    def __init__(self, partition: Partition) -> None:
        self.partition = partition

    def prepare(self, flush: Flush) -> bool:
        flush.end_transaction((self.partition,), producer_id=7, epoch=0, commit=False, coordinator_epoch=0)
        flush.join(self)
        return True

    def committed(self) -> None:
        """It is durable."""

    def failed(self, problem: PlatformError) -> None:
        raise problem


class StoredMeanwhile:
    """Looked into before an aborted transaction is stored, which then leaves memory, as there are many of them."""

    async def between(self, partition: Partition, offset: int, end_offset: int) -> Sequence[AbortedTransaction]:
        partition.aborted.clear()
        return ()


async def nowhere(partition: Partition, timestamp: int, *, max_only: bool) -> tuple[int, int] | None:
    raise AssertionError("nobody asks for a time")


async def test_an_aborted_transaction_that_leaves_memory_meanwhile_stays_unseen() -> None:
    world = await LogWorld(InlineDatabase(), MemoryWal(1 << 28), MemoryObjectStore()).open()
    world.writer.transactions = AnyProducer()
    (log,) = (await world.topic("jobs")).partitions
    sent = build_batch(
        [Record(0, 5, None, b"aborted")], producer_id=7, producer_epoch=0, base_sequence=0, is_transactional=True
    )
    await world.append((log, Accepted(sent, 1, 7, 0, 0, 5, NO_TIMESTAMP, TRANSACTIONAL | IMPLICIT)))
    world.writer.enlist(Abort(log))
    await world.append((log, batch(1)))
    assert len(log.aborted) == 1
    log.aborted_from = 1  # Others have left before.
    world.forget_tail()
    partitions = SharePartitions(
        database=world.database, reader=world.reader, aborted=StoredMeanwhile(),
        configs=ShareConfigs(ReadCommitted(), SETTINGS.started_with({})), offset_for_timestamp=nowhere,
        holder=LeaseHolder(name="here"), clock=world.clock, scheduler=LoopScheduler(), writer=world.writer,
    )  # fmt: skip
    await partitions.open()

    async def begins(name: PartitionName) -> int:
        return 0

    try:
        name = PartitionName(1, "workers", log.topic.topic_id, 0)
        taken = await partitions.acquire(name, log, Acquire("anna", 10, 10, exact=True), 1 << 20, begins)
        acquired = {offset for one in taken.ranges for offset in range(one.first, one.last + 1)}
        assert acquired
        assert 0 not in acquired
    finally:
        await partitions.close()
