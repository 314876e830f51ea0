"""ShareFetch with piggybacked acknowledgements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fixtures.compaction_world import LogWorld
from fixtures.log_world import batch

from penstock.agent.settings import SETTINGS
from penstock.base.context import RequestContext
from penstock.coordination.leases import Holder
from penstock.coordination.timers import LoopAlarms
from penstock.log.model import AbortedTransaction, Partition
from penstock.metadata.inline import InlineDatabase
from penstock.share.fetch import ShareFetchHandler
from penstock.share.service import SharePartitions
from penstock.share.sessions import ShareSessions
from penstock.share.settings import ShareConfigs
from penstock.storage.memory import MemoryObjectStore, MemoryWal
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages import share_fetch

ACCEPT = 1


class NoOverrides:
    def overrides(self, cluster_id: int, kind: object, name: str) -> Mapping[str, str]:
        return {}


class FromTheStart:
    async def first_offset(self, group: object, topic_id: bytes, index: int) -> int:
        return 0


class NothingAborted:
    async def between(self, partition: Partition, offset: int, end_offset: int) -> Sequence[AbortedTransaction]:
        return ()


class NotedReader:
    """A reader that notes when it is looked for records."""

    def __init__(self, reader: Any, events: list[str]) -> None:
        self._reader, self._events = reader, events

    def tail(self, *args: Any, **named: Any) -> Any:
        self._events.append("records")
        return self._reader.tail(*args, **named)


async def nowhere(partition: Partition, timestamp: int, *, max_only: bool) -> tuple[int, int] | None:
    raise AssertionError("nobody asks for a time")


async def test_new_records_are_found_while_what_was_said_becomes_durable() -> None:
    events: list[str] = []
    database = InlineDatabase(faults=lambda: events.append("database"))
    world = await LogWorld(database, MemoryWal(1 << 28), MemoryObjectStore()).open()
    (log,) = (await world.topic("jobs")).partitions
    for _ in range(4):
        await world.append((log, batch(1)))
    partitions = SharePartitions(
        database=database, reader=NotedReader(world.reader, events), aborted=NothingAborted(),  # type: ignore[arg-type]
        configs=ShareConfigs(NoOverrides(), SETTINGS.started_with({})), offset_for_timestamp=nowhere,
        holder=Holder(name="here"), clock=world.clock, alarms=LoopAlarms(), writer=world.writer,
    )  # fmt: skip
    await partitions.open()
    handler = ShareFetchHandler(
        registry=world.registry, partitions=partitions, sessions=ShareSessions(9),
        configs=ShareConfigs(NoOverrides(), SETTINGS.started_with({})), groups=FromTheStart(),  # type: ignore[arg-type]
    )  # fmt: skip

    async def fetch(epoch: int, *accepted: int) -> list[int]:
        said = [
            share_fetch.AcknowledgementBatch(first_offset=offset, last_offset=offset, acknowledge_types=[ACCEPT])
            for offset in accepted
        ]
        wanted = share_fetch.FetchPartition(partition_index=0, acknowledgement_batches=said)
        request = share_fetch.ShareFetchRequest(
            group_id="workers", member_id="anna", share_session_epoch=epoch, max_wait_ms=0, min_bytes=1,
            max_bytes=1 << 20, max_records=2, batch_size=2,
            topics=[share_fetch.FetchTopic(topic_id=log.topic.topic_id, partitions=[wanted])],
        )  # fmt: skip
        response = await handler.share_fetch(RequestContext(api_version=1), request)
        assert response.error_code == ErrorCode.NONE
        (found,) = response.responses[0].partitions
        assert (found.error_code, found.acknowledge_error_code) == (ErrorCode.NONE, ErrorCode.NONE)
        return [n for one in found.acquired_records for n in range(one.first_offset, one.last_offset + 1)]

    try:
        assert await fetch(0) == [0, 1]
        events.clear()
        assert await fetch(1, 0, 1) == [2, 3]
        assert events == ["records", "database"]
    finally:
        await partitions.close()
