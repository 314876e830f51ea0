"""ShareFetch with piggybacked acknowledgements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from fixtures.compaction_world import LogWorld
from fixtures.log_world import batch

from penstock.agent.settings import SETTINGS
from penstock.base.context import RequestContext
from penstock.coordination.leases import Holder
from penstock.coordination.timers import LoopAlarms
from penstock.log.model import AbortedTransaction, Partition
from penstock.metadata.inline import InlineDatabase
from penstock.share.acknowledging import Acknowledging
from penstock.share.fetch import ShareFetchHandler
from penstock.share.service import SharePartitions
from penstock.share.sessions import SessionKey, ShareSessions, TopicIdPartition
from penstock.share.settings import ShareConfigs
from penstock.share.store import PartitionName
from penstock.storage.memory import MemoryObjectStore, MemoryWal
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages import share_fetch

ACCEPT, RELEASE = 1, 2
MEMBER = "anna"
Said = tuple[int, int, int]
"""First and last offset, and acknowledge type."""
Place = tuple[int, int, int]
"""Partition, offset, delivery count."""


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


class World:
    """A topic, and share groups that read it from the start."""

    def __init__(self, partitions: int, events: list[str] | None = None) -> None:
        self.events: list[str] = [] if events is None else events
        self.count = partitions

    async def __aenter__(self) -> World:
        database = InlineDatabase(faults=lambda: self.events.append("database"))
        log = self.log = await LogWorld(database, MemoryWal(1 << 28), MemoryObjectStore()).open()
        self.topic = await log.topic("jobs", partitions=self.count)
        configs = ShareConfigs(NoOverrides(), SETTINGS.started_with({}))
        self.partitions = SharePartitions(
            database=database, reader=NotedReader(log.reader, self.events), aborted=NothingAborted(),  # type: ignore[arg-type]
            configs=configs, offset_for_timestamp=nowhere, holder=Holder(name="here"), clock=log.clock,
            alarms=LoopAlarms(), writer=log.writer,
        )  # fmt: skip
        await self.partitions.open()
        self.handler = ShareFetchHandler(
            registry=log.registry, partitions=self.partitions, sessions=ShareSessions(9), configs=configs,
            groups=FromTheStart(),  # type: ignore[arg-type]
        )  # fmt: skip
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.partitions.close()

    async def append(self, batches: int) -> None:
        """Append batches of one record each to every partition."""
        for partition in self.topic.partitions:
            for _ in range(batches):
                await self.log.append((partition, batch(1)))

    async def fetch(
        self, epoch: int, said: Mapping[int, Sequence[Said]] = {}, *, max_records: int = 2
    ) -> tuple[list[Place], dict[int, int]]:
        """One fetch that does not wait: what was acquired, and the errors of acknowledgements by partition."""
        wanted = [
            share_fetch.FetchPartition(
                partition_index=index,
                acknowledgement_batches=[
                    share_fetch.AcknowledgementBatch(first_offset=first, last_offset=last, acknowledge_types=[kind])
                    for first, last, kind in said.get(index, ())
                ],
            )
            for index in range(self.count)
        ]
        request = share_fetch.ShareFetchRequest(
            group_id="workers", member_id=MEMBER, share_session_epoch=epoch, max_wait_ms=0, min_bytes=1,
            max_bytes=1 << 20, max_records=max_records, batch_size=max_records,
            topics=[share_fetch.FetchTopic(topic_id=self.topic.topic_id, partitions=wanted)],
        )  # fmt: skip
        response = await self.handler.share_fetch(RequestContext(api_version=1), request)
        assert response.error_code == ErrorCode.NONE
        found = [one for topic in response.responses for one in topic.partitions]
        assert [one.error_code for one in found] == [ErrorCode.NONE] * len(found)
        acquired = [
            (one.partition_index, offset, taken.delivery_count)
            for one in found for taken in one.acquired_records
            for offset in range(taken.first_offset, taken.last_offset + 1)
        ]  # fmt: skip
        return sorted(acquired), {one.partition_index: one.acknowledge_error_code for one in found}

    async def let_go(self, index: int) -> None:
        """The locks of a partition expire."""
        name = PartitionName(1, "workers", self.topic.topic_id, index)
        await self.partitions.release(name, SessionKey(1, "workers", MEMBER).holder)


async def test_new_records_are_found_while_what_was_said_becomes_durable() -> None:
    async with World(1) as world:
        await world.append(4)
        assert await world.fetch(0) == ([(0, 0, 1), (0, 1, 1)], {0: 0})
        world.events.clear()
        assert await world.fetch(1, {0: [(0, 1, ACCEPT)]}) == ([(0, 2, 1), (0, 3, 1)], {0: 0})
        assert world.events == ["records", "database"]


@pytest.mark.parametrize("count", [1, 2, 5])
async def test_what_a_request_releases_it_may_acquire_again(count: int) -> None:
    async with World(count) as world:
        await world.append(1)
        assert (await world.fetch(0, max_records=9))[0] == [(index, 0, 1) for index in range(count)]
        said = {index: [(0, 0, RELEASE)] for index in range(count)}
        acquired, errors = await world.fetch(1, said, max_records=9)
        assert errors == dict.fromkeys(range(count), ErrorCode.NONE)
        assert acquired == [(index, 0, 2) for index in range(count)]


@pytest.mark.parametrize("count", [1, 2, 5])
async def test_what_a_request_acquires_it_does_not_acknowledge(count: int) -> None:
    """The locks have expired when the acknowledgements come: these are refused, and the records are given out again."""
    async with World(count) as world:
        await world.append(1)
        await world.fetch(0, max_records=9)
        for index in range(count):
            await world.let_go(index)
        said = {index: [(0, 0, ACCEPT)] for index in range(count)}
        acquired, errors = await world.fetch(1, said, max_records=9)
        assert acquired == [(index, 0, 2) for index in range(count)]
        assert errors == dict.fromkeys(range(count), ErrorCode.INVALID_RECORD_STATE)
        _, errors = await world.fetch(2, said, max_records=9)
        assert errors == dict.fromkeys(range(count), ErrorCode.NONE)


@pytest.mark.parametrize("count", [1, 3])
async def test_acknowledgements_that_are_not_written_are_answered_so(count: int) -> None:
    async with World(count) as world:
        await world.append(2)
        await world.fetch(0, max_records=count)
        await world.partitions.close()
        key = SessionKey(1, "workers", MEMBER)
        said = {
            TopicIdPartition(world.topic.topic_id, index): [
                share_fetch.AcknowledgementBatch(first_offset=0, last_offset=0, acknowledge_types=[ACCEPT])
            ]
            for index in range(count)
        }
        outcomes = await Acknowledging(world.log.registry, world.partitions).acknowledge(
            key, said, version=1, is_renewal=False
        )
        assert {one.error for one in outcomes.values()} == {ErrorCode.COORDINATOR_NOT_AVAILABLE}
        assert len(outcomes) == count
