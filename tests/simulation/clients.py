"""Clients that do what Kafka's do: reconnect, try again where that is safe, and remember what they were promised.

All of them write down what they ask and what they are told; none of them judges.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from simulation.history import Append, Fetched, OffsetCommit, OffsetLook, Outcome, PartitionKey, Trim
from simulation.links import ConnectionLost, Link
from simulation.places import Place
from simulation.world import World

from penstock.base.context import DEFAULT_CLUSTER_ID
from penstock.base.errors import PlatformError
from penstock.wire.api_keys import ApiKey
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages import create_topics as creation
from penstock.wire.messages import delete_records, delete_topics, fetch, offset_commit, offset_fetch, produce
from penstock.wire.messages.init_producer_id import InitProducerIdRequest
from penstock.wire.records import Record, build_batch

REQUEST_TIMEOUT_S = 30.0
TRY_AGAIN = frozenset(
    {
        ErrorCode.KAFKA_STORAGE_ERROR, ErrorCode.NOT_LEADER_OR_FOLLOWER, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        ErrorCode.REQUEST_TIMED_OUT, ErrorCode.COORDINATOR_NOT_AVAILABLE, ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
        ErrorCode.NOT_COORDINATOR, ErrorCode.NOT_CONTROLLER, ErrorCode.UNKNOWN_TOPIC_ID,
    }
)  # fmt: skip


class Client:
    """A client with one connection, made anew when it ends."""

    def __init__(
        self, world: World, name: str, *, place: Place | None = None, cluster_id: int = DEFAULT_CLUSTER_ID
    ) -> None:
        self.world, self.name, self.place, self.cluster_id = world, name, place, cluster_id
        self._link: Link | None = None

    async def link(self) -> Link:
        """The connection."""
        if self._link is None or self._link.lost:
            self._link = await self.world.connect(self.name, self.place, self.cluster_id)
        return self._link

    def give_up(self) -> None:
        """Leave the connection; the next one may be to another agent."""
        if self._link is not None:
            self._link.lose()

    async def call(self, key: ApiKey, version: int, request: Any) -> Any:
        """Ask and wait. Raises `ConnectionLost`, and gives the connection up when nothing is heard for long."""
        link = await self.link()
        return await self.reply(link, link.send(key, version, request))

    async def reply(self, link: Link, answer: asyncio.Future[Any]) -> Any:
        """What a request sent earlier is answered."""
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                response = await answer
        except TimeoutError:
            self.world.marks.reach("request timed out")
            link.lose()
            raise ConnectionLost from None
        if isinstance(response, PlatformError):
            link.lose()
            raise ConnectionLost
        return response

    def now(self) -> float:
        """Simulated seconds."""
        return self.world.loop.time()


class Admin(Client):
    """Creates, trims and deletes."""

    async def create_topic(self, name: str, *, partitions: int = 1, **configs: str) -> bytes:
        """A topic's id; trying again until it is there."""
        request = creation.CreateTopicsRequest(
            topics=[
                creation.CreatableTopic(
                    name=name, num_partitions=partitions, replication_factor=1,
                    configs=[
                        creation.CreatableTopicConfig(name=key.replace("_", "."), value=value)
                        for key, value in configs.items()
                    ],
                )
            ],
            timeout_ms=20_000,
        )  # fmt: skip

        async def attempt() -> bytes | None:
            (result,) = (await self.call(ApiKey.CREATE_TOPICS, 7, request)).topics
            if result.error_code == ErrorCode.TOPIC_ALREADY_EXISTS:
                agent = self.world.agent
                topic = None if agent is None else agent.registry.by_name(1, name)
                return None if topic is None else topic.topic_id
            assert result.error_code in (0, *TRY_AGAIN), (result.error_code, result.error_message)
            return None if result.error_code else bytes(result.topic_id)

        return await self.world.eventually(attempt, f"topic {name} being created")

    async def delete_records(self, name: str, partition: PartitionKey, offset: int) -> Trim:
        """Trim once; what became of it is in the history."""
        trim = Trim(partition=partition, offset=offset, invoked_at=self.now())
        self.world.history.trims.append(trim)
        request = delete_records.DeleteRecordsRequest(
            topics=[
                delete_records.DeleteRecordsTopic(
                    name=name,
                    partitions=[
                        delete_records.DeleteRecordsPartition(partition_index=partition.index, offset=offset)
                    ],
                )
            ],
            timeout_ms=20_000,
        )  # fmt: skip
        try:
            response = await self.call(ApiKey.DELETE_RECORDS, 2, request)
        except ConnectionLost:
            return trim
        (result,) = response.topics[0].partitions
        trim.answered_at = self.now()
        if result.error_code == ErrorCode.NONE:
            trim.outcome, trim.low_watermark = Outcome.ACKNOWLEDGED, result.low_watermark
        elif result.error_code != ErrorCode.REQUEST_TIMED_OUT:
            trim.outcome = Outcome.REFUSED
        return trim

    async def delete_topic(self, name: str) -> None:
        """Delete, trying again until it is gone."""
        request = delete_topics.DeleteTopicsRequest(
            topics=[delete_topics.DeleteTopicState(name=name)], topic_names=[name], timeout_ms=20_000
        )  # fmt: skip

        async def attempt() -> bool | None:
            (result,) = (await self.call(ApiKey.DELETE_TOPICS, 6, request)).responses
            gone = result.error_code in (ErrorCode.NONE, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
            return True if gone else None

        await self.world.eventually(attempt, f"topic {name} being deleted")


class Producer(Client):
    """Produces one batch at a time and never again: what it does not know, it does not know."""

    def __init__(self, world: World, name: str, topic: str, *, timeout_ms: int = 20_000) -> None:
        super().__init__(world, name)
        self.topic, self.timeout_ms = topic, timeout_ms
        self._number = 0

    def batch(
        self, partition: PartitionKey, *, records: int, size: int = 20, keys: Sequence[bytes] | None = None,
        tombstones: float = 0.0, **options: Any,
    ) -> Append:  # fmt: skip
        """A new batch of records that nobody else produces, as an operation that has not begun. With keys, some of
        the records may be tombstones."""
        now_ms, choose = self.world.clock.now_ms(), self.world.workload
        built = []
        for offset in range(records):
            self._number += 1
            key = None if keys is None else choose.choice(keys)
            value: bytes | None = f"{self.name}-{self._number}".encode().ljust(size, b".")
            if tombstones and choose.random() < tombstones:
                value = None
            built.append(Record(offset=offset, timestamp=now_ms, key=key, value=value))
        append = Append(
            partition=partition, data=build_batch(built, **options), values=tuple(record.value for record in built),
            keys=tuple(record.key for record in built), invoked_at=self.now(), timestamp=now_ms,
            producer_id=options.get("producer_id", -1), sequence=options.get("base_sequence", -1),
        )  # fmt: skip
        self.world.history.appends.append(append)
        return append

    def request(self, append: Append) -> produce.ProduceRequest:
        """The request for a batch."""
        data = produce.PartitionProduceData(index=append.partition.index, records=append.data)
        return produce.ProduceRequest(
            transactional_id=None, acks=-1, timeout_ms=self.timeout_ms,
            topic_data=[produce.TopicProduceData(name=self.topic, partition_data=[data])],
        )  # fmt: skip

    async def append(self, append: Append) -> None:
        """Send it, and note what became of it."""
        try:
            response = await self.call(ApiKey.PRODUCE, 9, self.request(append))
        except ConnectionLost:
            return
        self.settle(append, response)

    def settle(self, append: Append, response: Any) -> ErrorCode:
        """Note an answer."""
        result = response.responses[0].partition_responses[0]
        error = ErrorCode(result.error_code)
        if error is ErrorCode.NONE:
            append.outcome, append.answered_at, append.base_offset = (
                Outcome.ACKNOWLEDGED, self.now(), result.base_offset,
            )  # fmt: skip
        elif error is ErrorCode.REQUEST_TIMED_OUT:
            self.world.marks.reach("told before it was known")
        elif append.producer_id < 0:
            append.outcome, append.answered_at = Outcome.REFUSED, self.now()
        return error


class IdempotentProducer(Producer):
    """Keeps up to five batches under way and sends them again, in order, until each is acknowledged."""

    IN_FLIGHT = 5

    def __init__(
        self, world: World, name: str, topic: str, partition: PartitionKey, *, keys: Sequence[bytes] | None = None,
        tombstones: float = 0.0, timeout_ms: int = 20_000,
    ) -> None:  # fmt: skip
        super().__init__(world, name, topic, timeout_ms=timeout_ms)
        self.partition = partition
        self.producer_id = -1
        self._keys, self._tombstones = keys, tombstones
        self._sequence = 0

    async def open(self) -> None:
        """Get a producer id."""
        request = InitProducerIdRequest(transactional_id=None, transaction_timeout_ms=60_000)

        async def attempt() -> int | None:
            response = await self.call(ApiKey.INIT_PRODUCER_ID, 4, request)
            return None if response.error_code else int(response.producer_id)

        self.producer_id = await self.world.eventually(attempt, "getting a producer id")

    async def produce(self, batches: int, *, pause_s: float = 0.0) -> None:
        """Append so many batches."""
        window: list[tuple[Append, asyncio.Future[Any] | None]] = []
        sent_on = await self.link()
        while batches or window:
            link = await self.link()
            if link is not sent_on:
                # The connection ended meanwhile: all that it did not answer goes first, and in order.
                window = await self._unanswered(sent_on, window)
                sent_on = link
                continue
            while batches and len(window) < self.IN_FLIGHT:
                window.append((self._next(), None))
                batches -= 1
            window = [
                (append, link.send(ApiKey.PRODUCE, 9, self.request(append)) if answer is None else answer)
                for append, answer in window
            ]
            append, answer = window[0]
            assert answer is not None
            try:
                error = self.settle(append, await self.reply(link, answer))
            except ConnectionLost:
                error = ErrorCode.NETWORK_EXCEPTION
            if error is ErrorCode.NONE:
                window.pop(0)
                if pause_s:
                    await asyncio.sleep(self.world.workload.uniform(0, pause_s))
                continue
            assert error in TRY_AGAIN or error is ErrorCode.NETWORK_EXCEPTION, (
                f"{self.name}: {error!r} for sequence {append.sequence}, after all before it were acknowledged"
            )
            window = [window[0], *await self._unanswered(link, window[1:])]
            window[0] = (window[0][0], None)
            await asyncio.sleep(self.world.source.between(0.005, 0.1))

    def _next(self) -> Append:
        count = self.world.workload.randint(1, 3)
        append = self.batch(
            self.partition, records=count, size=self.world.workload.choice((20, 20, 300, 3000)),
            keys=self._keys, tombstones=self._tombstones, producer_id=self.producer_id, producer_epoch=0,
            base_sequence=self._sequence,
        )  # fmt: skip
        self._sequence += count
        return append

    async def _unanswered(
        self, link: Link, window: list[tuple[Append, asyncio.Future[Any] | None]]
    ) -> list[tuple[Append, asyncio.Future[Any] | None]]:
        """Hear what became of batches that are under way; those that are to be sent again."""
        for append, answer in window:
            if answer is None:
                continue
            try:
                error = self.settle(append, await self.reply(link, answer))
            except ConnectionLost:
                continue
            if error is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER:
                self.world.marks.reach("batches behind a failed one refused")
        return [(append, None) for append, _ in window if append.outcome is not Outcome.ACKNOWLEDGED]


class Consumer(Client):
    """Reads one partition from some offset on, one fetch after the other."""

    def __init__(
        self, world: World, name: str, topic: str, partition: PartitionKey, *, place: Place | None = None
    ) -> None:
        super().__init__(world, name, place=place)
        self.topic, self.partition = topic, partition
        self.position = 0
        self.read_committed = False

    async def fetch(self, *, max_wait_ms: int = 0, max_bytes: int = 64 * 1024) -> Fetched:
        """One fetch from the position on."""
        invoked_at, offset = self.now(), self.position
        wanted = fetch.FetchPartition(
            partition=self.partition.index, fetch_offset=offset, partition_max_bytes=max_bytes
        )  # fmt: skip
        request = fetch.FetchRequest(
            max_wait_ms=max_wait_ms, min_bytes=1, max_bytes=max_bytes, session_id=0, session_epoch=-1,
            isolation_level=int(self.read_committed),
            topics=[fetch.FetchTopic(topic_id=self.partition.topic_id, partitions=[wanted])],
        )  # fmt: skip
        response = await self.call(ApiKey.FETCH, 13, request)
        data = response.responses[0].partitions[0]
        fetched = Fetched(
            partition=self.partition, fetch_offset=offset, invoked_at=invoked_at, answered_at=self.now(),
            error=ErrorCode(data.error_code), high_watermark=data.high_watermark, log_start=data.log_start_offset,
            records=bytes(data.records or b""), place=0 if self.place is None else self.place.number,
            read_committed=self.read_committed, last_stable_offset=data.last_stable_offset,
            aborted=tuple((one.producer_id, one.first_offset) for one in data.aborted_transactions or ()),
        )  # fmt: skip
        self.world.history.fetches.append(fetched)
        self.world.loop.mark(fetched.records)
        return fetched


class Committer(Client):
    """A consumer group without members that commits offsets, as Flink does."""

    def __init__(self, world: World, group_id: str, topic: str, partition: PartitionKey) -> None:
        super().__init__(world, f"committer-{group_id}")
        self.group_id, self.topic, self.partition = group_id, topic, partition

    async def commit(self, offset: int) -> OffsetCommit:
        """Commit once."""
        commit = OffsetCommit(
            group_id=self.group_id, partition=self.partition, offset=offset, invoked_at=self.now()
        )  # fmt: skip
        self.world.history.commits.append(commit)
        request = offset_commit.OffsetCommitRequest(
            group_id=self.group_id, generation_id_or_member_epoch=-1, member_id="",
            topics=[
                offset_commit.OffsetCommitRequestTopic(
                    name=self.topic,
                    partitions=[
                        offset_commit.OffsetCommitRequestPartition(
                            partition_index=self.partition.index, committed_offset=offset, committed_metadata=""
                        )
                    ],
                )
            ],
        )  # fmt: skip
        try:
            response = await self.call(ApiKey.OFFSET_COMMIT, 8, request)
        except ConnectionLost:
            return commit
        commit.answered_at = self.now()
        error = response.topics[0].partitions[0].error_code
        if error == ErrorCode.NONE:
            commit.outcome = Outcome.ACKNOWLEDGED
        return commit

    async def look_on(self, stop: asyncio.Event) -> None:
        """Look at the committed offset again and again."""
        while not stop.is_set():
            await asyncio.sleep(self.world.workload.uniform(0.05, 1.0))
            try:
                await self.fetch()
            except ConnectionLost:
                continue

    async def fetch(self) -> int | None:
        """The committed offset, or None while the coordinator cannot say."""
        invoked_at = self.now()
        request = offset_fetch.OffsetFetchRequest(
            group_id=self.group_id,
            topics=[
                offset_fetch.OffsetFetchRequestTopic(name=self.topic, partition_indexes=[self.partition.index])
            ],
        )  # fmt: skip
        response = await self.call(ApiKey.OFFSET_FETCH, 7, request)
        (found,) = response.topics[0].partitions
        if response.error_code or found.error_code:
            if response.error_code == ErrorCode.NOT_COORDINATOR:
                self.give_up()
            return None
        offset = int(found.committed_offset)
        self.world.history.looks.append(
            OffsetLook(
                group_id=self.group_id, partition=self.partition.index, offset=offset, invoked_at=invoked_at,
                answered_at=self.now(),
            )
        )  # fmt: skip
        return offset
