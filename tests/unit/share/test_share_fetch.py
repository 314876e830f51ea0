"""ShareFetch: piggybacked acknowledgements, and what it waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import pytest
from fixtures.compaction_world import LogWorld
from fixtures.log_world import batch

from penstock.agent.settings import SETTINGS
from penstock.base.context import RequestContext
from penstock.coordination.leases import LeaseHolder
from penstock.coordination.timers import LoopScheduler
from penstock.log.model import AbortedTransaction, Partition
from penstock.log.reader import Reader
from penstock.metadata.inline import InlineDatabase
from penstock.share.fetch import ShareFetchHandler
from penstock.share.model import Acquire
from penstock.share.service import SharePartitions
from penstock.share.sessions import SessionKey, ShareSessions
from penstock.share.settings import ShareConfigs
from penstock.share.store import PartitionName
from penstock.storage.arena import Arena
from penstock.storage.memory import MemoryObjectStore, MemoryWal
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages import share_fetch

ACCEPT, RELEASE = 1, 2
ANNA, BERT = "anna", "bert"
Said = tuple[int, int, int]
"""First and last offset, and acknowledge type."""
Delivery = tuple[int, int, int]
"""Partition, offset, delivery count."""


class Fetched(NamedTuple):
    """What a fetch was answered."""

    acquired: list[Delivery]
    acknowledgements: dict[int, ErrorCode]
    """Of the partitions in the response."""
    errors: dict[int, ErrorCode]
    """Why nothing was acquired from partitions."""


class Overrides:
    def __init__(self, overrides: Mapping[str, str]) -> None:
        self._overrides = overrides

    def overrides(self, cluster_id: int, kind: object, name: str) -> Mapping[str, str]:
        return self._overrides


class StartingAt:
    """Groups that begin at an offset; None: by their reset policy, which is the end of the log."""

    def __init__(self, offset: int | None) -> None:
        self._offset = offset

    async def first_offset(self, group: object, topic_id: bytes, index: int) -> int | None:
        return self._offset


class NothingAborted:
    async def between(self, partition: Partition, offset: int, end_offset: int) -> Sequence[AbortedTransaction]:
        return ()


class NotedReader:
    """A reader that notes when it is looked for records."""

    def __init__(self, reader: Any, events: list[str]) -> None:
        self._reader, self._events = reader, events

    def tail(self, *args: Any, **named: Any) -> Any:
        return self._reader.tail(*args, **named)

    def at_hand(self, *args: Any) -> Any:
        self._events.append("records")
        return self._reader.at_hand(*args)

    async def read_batches(self, *args: Any, **named: Any) -> Any:
        self._events.append("waiting for records")
        return await self._reader.read_batches(*args, **named)


async def nowhere(partition: Partition, timestamp: int, *, max_only: bool) -> tuple[int, int] | None:
    raise AssertionError("nobody asks for a time")


async def nowhere_yet(name: PartitionName) -> int | None:
    return None


class Agent:
    """A coordinator of share groups."""

    def __init__(
        self, world: World, *, is_alone: bool, starts_at: int | None = 0, overrides: Mapping[str, str] = {}
    ) -> None:
        log, configs = world.log, ShareConfigs(Overrides(overrides), SETTINGS.started_with({}))
        self._world = world
        self.partitions = SharePartitions(
            database=world.database, reader=NotedReader(log.reader, world.events), aborted=NothingAborted(),  # type: ignore[arg-type]
            configs=configs, offset_for_timestamp=nowhere, holder=LeaseHolder(name="here"), clock=log.clock,
            scheduler=LoopScheduler(), writer=log.writer, is_alone=is_alone,
        )  # fmt: skip
        self._handler = ShareFetchHandler(
            registry=log.registry, partitions=self.partitions, sessions=ShareSessions(9), configs=configs,
            groups=StartingAt(starts_at),  # type: ignore[arg-type]
        )  # fmt: skip

    async def fetch(
        self, epoch: int, said: Mapping[int, Sequence[Said]] = {}, *, max_records: int = 2, member: str = ANNA,
        max_bytes: int = 1 << 20,
    ) -> Fetched:  # fmt: skip
        """Fetch from all partitions without waiting."""
        wanted = [
            share_fetch.FetchPartition(
                partition_index=index,
                acknowledgement_batches=[
                    share_fetch.AcknowledgementBatch(first_offset=first, last_offset=last, acknowledge_types=[kind])
                    for first, last, kind in said.get(index, ())
                ],
            )
            for index in range(self._world.count)
        ]
        request = share_fetch.ShareFetchRequest(
            group_id="workers", member_id=member, share_session_epoch=epoch, max_wait_ms=0, min_bytes=1,
            max_bytes=max_bytes, max_records=max_records, batch_size=max_records,
            topics=[share_fetch.FetchTopic(topic_id=self._world.topic.topic_id, partitions=wanted)],
        )  # fmt: skip
        response = await self._handler.share_fetch(RequestContext(api_version=1), request)
        assert response.error_code == ErrorCode.NONE
        found = [one for topic in response.responses for one in topic.partitions]
        acquired = [
            (one.partition_index, offset, taken.delivery_count)
            for one in found for taken in one.acquired_records
            for offset in range(taken.first_offset, taken.last_offset + 1)
        ]  # fmt: skip
        return Fetched(
            sorted(acquired), {one.partition_index: ErrorCode(one.acknowledge_error_code) for one in found},
            {one.partition_index: ErrorCode(one.error_code) for one in found if one.error_code},
        )  # fmt: skip

    async def wait_for(self, *, min_bytes: int, max_bytes: int) -> share_fetch.ShareFetchResponse:
        """The first fetch of a session, which waits for so many bytes of the first partition for a minute."""
        wanted = share_fetch.FetchPartition(partition_index=0)
        request = share_fetch.ShareFetchRequest(
            group_id="workers", member_id=ANNA, share_session_epoch=0, max_wait_ms=60_000, min_bytes=min_bytes,
            max_bytes=max_bytes, max_records=100, batch_size=100,
            topics=[share_fetch.FetchTopic(topic_id=self._world.topic.topic_id, partitions=[wanted])],
        )  # fmt: skip
        return await asyncio.wait_for(self._handler.share_fetch(RequestContext(api_version=1), request), 10)

    async def expire(self, index: int) -> None:
        """The locks of a partition expire."""
        name = PartitionName(1, "workers", self._world.topic.topic_id, index)
        await self.partitions.release(name, SessionKey(1, "workers", ANNA).holder)


class World:
    """A topic with some records in each of its partitions, and agents."""

    def __init__(self, partitions: int, *, records: int, is_alone: bool = True) -> None:
        self.count, self._records, self._is_alone = partitions, records, is_alone
        self.events: list[str] = []
        """What happened: records were looked for, or the database was asked."""
        self.faults: list[str | None] = []
        """Of the next operations of the database."""
        self._agents: list[Agent] = []

    async def __aenter__(self) -> World:
        self.database = InlineDatabase(faults=self._fault)
        self.log = await LogWorld(self.database, MemoryWal(1 << 28), MemoryObjectStore()).open()
        self.topic = await self.log.topic("jobs", partitions=self.count)
        await self.append(self._records)
        return self

    async def __aexit__(self, *_: object) -> None:
        for agent in self._agents:
            await agent.partitions.close()

    def _fault(self) -> str | None:
        self.events.append("database")
        return self.faults.pop(0) if self.faults else None

    async def agent(self, *, starts_at: int | None = 0, **overrides: str) -> Agent:
        """Start an agent, which takes over."""
        group = {name.replace("_", "."): value for name, value in overrides.items()}
        agent = Agent(self, is_alone=self._is_alone, starts_at=starts_at, overrides=group)
        await agent.partitions.open()
        self._agents.append(agent)
        return agent

    async def append(self, records: int) -> None:
        """Append batches of one record to every partition."""
        for partition in self.topic.partitions:
            for _ in range(records):
                await self.log.append((partition, batch(1)))


async def test_acknowledgements_are_with_the_database_before_records_are_looked_for() -> None:
    async with World(1, records=4) as world:
        agent = await world.agent()
        assert (await agent.fetch(0)).acquired == [(0, 0, 1), (0, 1, 1)]
        world.events.clear()
        assert await agent.fetch(1, {0: [(0, 1, ACCEPT)]}) == ([(0, 2, 1), (0, 3, 1)], {0: ErrorCode.NONE}, {})
        assert world.events == ["database", "records"]


@pytest.mark.parametrize("is_cached", [True, False])
async def test_records_of_segments_are_waited_for_only_where_the_store_does_not_have_them_at_once(
    is_cached: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with World(1, records=4) as world:
        await world.log.compaction.compact_everything()
        world.log.forget_tail()
        if not is_cached:
            monkeypatch.setattr(world.log.objects, "read_cached", lambda *_: 0)
        agent = await world.agent()
        assert (await agent.fetch(0)).acquired == [(0, 0, 1), (0, 1, 1)]
        world.events.clear()
        assert (await agent.fetch(1, {0: [(0, 1, ACCEPT)]})).acquired == [(0, 2, 1), (0, 3, 1)]
        assert ("waiting for records" in world.events) == (not is_cached)


# --- Acknowledgements come first ---


@pytest.mark.parametrize("count", [1, 2, 5, 300])
async def test_what_a_fetch_releases_it_may_acquire_again(count: int) -> None:
    async with World(count, records=1) as world:
        agent = await world.agent()
        assert (await agent.fetch(0, max_records=count)).acquired == [(index, 0, 1) for index in range(count)]
        released = {index: [(0, 0, RELEASE)] for index in range(count)}
        again = await agent.fetch(1, released, max_records=count)
        assert again.acknowledgements == dict.fromkeys(range(count), ErrorCode.NONE)
        assert again.acquired == [(index, 0, 2) for index in range(count)]


@pytest.mark.parametrize("count", [1, 2, 5, 300])
async def test_what_a_fetch_acquires_it_does_not_acknowledge(count: int) -> None:
    """When the acknowledgements come, the locks have expired. They are refused, and the same member gets the records
    again: of this delivery it has said nothing yet."""
    async with World(count, records=1) as world:
        agent = await world.agent()
        await agent.fetch(0, max_records=count)
        for index in range(count):
            await agent.expire(index)
        accepted = {index: [(0, 0, ACCEPT)] for index in range(count)}
        again = await agent.fetch(1, accepted, max_records=count)
        assert again.acquired == [(index, 0, 2) for index in range(count)]
        assert again.acknowledgements == dict.fromkeys(range(count), ErrorCode.INVALID_RECORD_STATE)
        assert (await agent.fetch(2, accepted)).acknowledgements == dict.fromkeys(range(count), ErrorCode.NONE)


async def test_acknowledgements_of_several_partitions_are_one_transaction() -> None:
    async with World(3, records=1) as world:
        agent = await world.agent()
        await agent.fetch(0, max_records=3)
        world.events.clear()
        await agent.fetch(1, {index: [(0, 0, ACCEPT)] for index in range(3)})
        assert world.events.count("database") == 1


@pytest.mark.parametrize("count", [1, 3])
async def test_acknowledgements_that_cannot_be_written_are_not_in_force(count: int) -> None:
    async with World(count, records=1) as world:
        agent = await world.agent()
        await agent.fetch(0, max_records=count)
        accepted = {index: [(0, 0, ACCEPT)] for index in range(count)}
        world.faults = ["before"]
        failed = await agent.fetch(1, accepted)
        assert failed.acknowledgements == dict.fromkeys(range(count), ErrorCode.COORDINATOR_NOT_AVAILABLE)
        assert (await agent.fetch(0, member=BERT)).acquired == []
        assert (await agent.fetch(2, accepted)).acknowledgements == dict.fromkeys(range(count), ErrorCode.NONE)


@pytest.mark.parametrize("count", [1, 3])
async def test_acknowledgements_whose_lost_answer_is_looked_up_are_in_force(count: int) -> None:
    async with World(count, records=1) as world:
        agent = await world.agent()
        await agent.fetch(0, max_records=count)
        world.faults = ["after"]
        accepted = await agent.fetch(1, {index: [(0, 0, ACCEPT)] for index in range(count)})
        assert accepted == ([], dict.fromkeys(range(count), ErrorCode.NONE), {})
        assert (await (await world.agent()).fetch(0)).acquired == []


async def test_acknowledgements_of_a_client_that_hangs_up_stand() -> None:
    async with World(2, records=1) as world:
        agent = await world.agent()
        await agent.fetch(0)
        fetch = asyncio.ensure_future(agent.fetch(1, {0: [(0, 0, ACCEPT)], 1: [(0, 0, ACCEPT)]}))
        await asyncio.sleep(0)
        fetch.cancel()
        with pytest.raises(asyncio.CancelledError):
            await fetch
        await agent.expire(0)
        await agent.expire(1)
        assert (await agent.fetch(0, member=BERT)).acquired == []


# --- Agents that were replaced ---


async def test_an_agent_that_was_replaced_gives_nothing_out() -> None:
    """It writes nothing when records are acquired, so no fenced write tells it that others have accepted these."""
    async with World(2, records=0, is_alone=False) as world:
        old = await world.agent()
        assert (await old.fetch(0)).acquired == []
        new = await world.agent()
        await world.append(1)
        assert (await new.fetch(0, member=BERT)).acquired == [(0, 0, 1), (1, 0, 1)]
        accepted = await new.fetch(1, {0: [(0, 0, ACCEPT)], 1: [(0, 0, ACCEPT)]}, member=BERT)
        assert accepted.acknowledgements == {0: ErrorCode.NONE, 1: ErrorCode.NONE}
        late = await old.fetch(1)
        assert late.acquired == []
        assert late.errors == dict.fromkeys(range(2), ErrorCode.NOT_LEADER_OR_FOLLOWER)
        assert (await new.fetch(0)).acquired == []


async def test_an_agent_that_cannot_tell_whether_it_was_replaced_gives_nothing_out() -> None:
    async with World(1, records=1, is_alone=False) as world:
        agent = await world.agent()
        world.faults = ["before"]
        unsure = await agent.fetch(0)
        assert unsure.acquired == []
        assert unsure.errors == {0: ErrorCode.KAFKA_STORAGE_ERROR}
        assert (await agent.fetch(1)).acquired == [(0, 0, 1)]


# --- Waiting ---


@pytest.mark.parametrize("min_bytes", [10_000_000, 1_050])
async def test_records_that_fill_the_response_are_not_waited_with(min_bytes: int) -> None:
    """Whatever the minimum is: more than a response may contain never comes, and batches do not fill it exactly."""
    async with World(1, records=20) as world:
        response = await (await world.agent()).wait_for(min_bytes=min_bytes, max_bytes=1_050)
        (found,) = response.responses[0].partitions
        assert 0 < sum(map(len, found.records)) <= 1_050


async def test_a_group_that_begins_at_the_end_does_so_with_its_first_fetch_however_much_that_waits_for() -> None:
    async with World(1, records=1) as world:
        agent = await world.agent(starts_at=None)
        fetching = asyncio.ensure_future(agent.wait_for(min_bytes=100, max_bytes=100_000))
        while not world.topic.partitions[0].waiters:
            await asyncio.sleep(0)
        await world.append(2)
        (found,) = (await fetching).responses[0].partitions
        assert [one.first_offset for one in found.acquired_records] == [1]


async def test_what_is_acquired_of_many_partitions_is_bounded_like_other_responses() -> None:
    """Each gives whole batches, but not once there is enough. They take turns."""
    async with World(10, records=1) as world:
        agent = await world.agent()
        first = await agent.fetch(0, max_records=50, max_bytes=250)
        assert len(first.acquired) == 3
        second = await agent.fetch(1, max_records=50, max_bytes=10_000)
        assert sorted(first.acquired + second.acquired) == [(index, 0, 1) for index in range(10)]


async def test_who_holds_records_waits_neither_for_memory_nor_for_those_who_wait_for_it() -> None:
    async with World(1, records=2) as world:
        log, parts = world.topic.partitions[0], world.log
        small = Reader(
            segments=parts.segments, wal=parts.wal, objects=parts.objects, executor=None, arena=Arena(4096),
            pinned_max_bytes=0,
        )  # fmt: skip
        parts.reader = small
        agent = await world.agent()
        await agent.fetch(0, max_records=1)
        parts.tail.drop()
        held = [await small.read_batches(log, 0, 1) for _ in range(2)]
        acquire = partial(
            agent.partitions.acquire, PartitionName(1, "workers", world.topic.topic_id, 0), log,
            Acquire(BERT, 1, 1, exact=True), 1 << 20, nowhere_yet,
        )  # fmt: skip
        waiting = asyncio.ensure_future(acquire())
        for _ in range(20):
            await asyncio.sleep(0)
        assert (await asyncio.wait_for(acquire(gives_up=lambda: True), 5)).ranges == ()
        assert not waiting.done()
        held.clear()
        assert [one.first for one in (await asyncio.wait_for(waiting, 5)).ranges] == [1]


async def test_who_holds_records_does_not_look_for_where_others_begin() -> None:
    """That reads as well."""
    async with World(1, records=1) as world:
        agent = await world.agent(starts_at=None, share_auto_offset_reset="by_duration:PT1H")
        taken = await agent.partitions.acquire(
            PartitionName(1, "workers", world.topic.topic_id, 0), world.topic.partitions[0],
            Acquire(BERT, 1, 1, exact=True), 1 << 20, nowhere_yet, gives_up=lambda: True,
        )  # fmt: skip
        assert taken.ranges == ()
