"""A fetch handler over topics that are laid out by hand, and what its tests ask it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from fixtures.clocks import ManualClock
from log_parts import ShelvedLog, batch, new_topic

from penstock.base.context import RequestContext
from penstock.base.randomness import SeededRandomness
from penstock.log.commits import Commit, CommitEntry, apply_entry
from penstock.log.fetch import FetchHandler
from penstock.log.fetch_sessions import FetchSessions
from penstock.log.model import Partition
from penstock.log.registry import Registry
from penstock.storage.wal import WalLocation
from penstock.wire.messages.fetch import FetchPartition, FetchRequest, FetchTopic, ForgottenTopic

ONE = batch(b"v" * 100)


class World:
    """A fetch handler over two topics: `orders` with three partitions unless told otherwise, and `other` with one."""

    def __init__(self, *, slots: int = 2, partitions: int = 3, **memory: int) -> None:
        self.clock = ManualClock()
        self.orders, self.other = new_topic(partitions=partitions), new_topic("other", first_id=1_000)
        self.registry = Registry()
        self.registry.add(self.orders)
        self.registry.add(self.other)
        self.log = ShelvedLog(self.orders.partitions[0], **memory)
        self.sessions = FetchSessions(slots=slots, clock=self.clock, randomness=SeededRandomness("fetch"))
        self.handler = FetchHandler(registry=self.registry, reader=self.log.reader, sessions=self.sessions)
        self._seq = 0

    def append(self, partition: Partition, *batches: bytes) -> None:
        """What a commit does: bytes become visible, then whoever waits is told."""
        self._seq += 1
        log = ShelvedLog(partition)
        base = partition.next_offset
        data = b"".join(log.placed(one) for one in batches)
        partition.next_offset = base
        entry = CommitEntry(partition.partition_id, 0, len(data), sum(map(count_of, batches)), len(batches), 5)
        location = WalLocation("memory/none", 0, len(data))
        commit = Commit(self._seq, b"", location, 0, 1, (entry,), (base,))
        apply_entry(partition, commit, 0, memoryview(bytearray(data)))
        for waiter in list(partition.waiters):
            waiter.on_append(len(data))

    def shelve(self, partition: Partition, *batches: bytes) -> None:
        """Append to a partition what is not in memory."""
        log = ShelvedLog(partition)
        log.wal = self.log.wal
        log.add_commit(*batches, in_memory=False)

    def start(self, request: FetchRequest, *, version: int = 12) -> Poll:
        """Begin a fetch."""
        poll = Poll()
        poll.cancel = self.handler.handle(
            RequestContext(api_version=version), request, lambda response, waited_s: poll.answers.append(response)
        )
        return poll


def count_of(data: bytes) -> int:
    return int.from_bytes(data[57:61], "big")


@dataclass
class Poll:
    """A fetch that was begun."""

    answers: list[Any] = field(default_factory=list)
    cancel: Any = None

    @property
    def answer(self) -> Any:
        (found,) = self.answers
        return found

    @property
    def partitions(self) -> list[Any]:
        return [partition for topic in self.answer.responses for partition in topic.partitions]

    async def wait(self) -> Any:
        for _ in range(100):
            if self.answers:
                return self.answer
            await asyncio.sleep(0)
        raise AssertionError("no answer")


def asking(
    *wanted: tuple[int, int], topic: str | bytes = "orders", max_wait_ms: int = 0, min_bytes: int = 1,
    max_bytes: int = 1 << 20, partition_max_bytes: int = 1 << 20, session_id: int = 0, session_epoch: int = -1,
    isolation_level: int = 0, forgotten: tuple[int, ...] = (), **fields: int,
) -> FetchRequest:  # fmt: skip
    """A fetch of partitions, given by index and offset."""
    partitions = [
        FetchPartition(partition=index, fetch_offset=offset, partition_max_bytes=partition_max_bytes, **fields)
        for index, offset in wanted
    ]
    by_id = isinstance(topic, bytes)
    topics = [FetchTopic(partitions=partitions, **({"topic_id": topic} if by_id else {"topic": topic}))]
    return FetchRequest(
        max_wait_ms=max_wait_ms, min_bytes=min_bytes, max_bytes=max_bytes, session_id=session_id,
        session_epoch=session_epoch, isolation_level=isolation_level, topics=topics if wanted else [],
        forgotten_topics_data=[ForgottenTopic(topic="orders", partitions=list(forgotten))] if forgotten else [],
    )  # fmt: skip


def size_of(partition: Any) -> int:
    return sum(map(len, partition.records or ()))
