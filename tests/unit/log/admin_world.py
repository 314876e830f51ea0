"""Topics over an in-memory database, with every administrative handler, for tests."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, field
from typing import Any, TypeVar

from fixtures.tables import copy_tables

from penstock.agent.parts.handlers import config_kinds
from penstock.agent.settings import SETTINGS
from penstock.base.context import RequestContext
from penstock.base.errors import OutcomeUnknown, Unavailable
from penstock.base.randomness import SeededRandomness
from penstock.base.settings import LiveSettings
from penstock.log.admin.cluster import ClusterHandlers
from penstock.log.admin.configs import ConfigHandlers
from penstock.log.admin.producers import ProducerHandlers
from penstock.log.admin.replicas import ReplicaHandlers
from penstock.log.admin.topics import TopicHandlers
from penstock.log.brokers import SingleBroker
from penstock.log.model import Partition, Topic
from penstock.log.offsets_api import LogOffsetHandlers
from penstock.log.producer_ids import ProducerIds
from penstock.log.registry import Registry
from penstock.log.topics import NewTopic, Topics
from penstock.metadata.inline import InlineDatabase
from penstock.metadata.sqlite_engine import Work
from penstock.wire.api_keys import ApiKey
from penstock.wire.codec import (
    encode_request,
    encode_response,
    read_request,
    read_request_header,
    read_response,
    read_response_header,
)

T = TypeVar("T")
_worlds = itertools.count()


class MemoryDatabase(InlineDatabase):
    """The tables of the program in memory; can lose a commit's answer or refuse to write."""

    def __init__(self) -> None:
        super().__init__()
        copy_tables(self._connection)
        self.connection = self._connection
        self.lose_answers = 0
        self.down = False

    def _write(self, work: Work[T]) -> T:
        if self.down:
            raise Unavailable("the database is away")
        answer = super()._write(work)
        if self.lose_answers:
            self.lose_answers -= 1
            raise OutcomeUnknown("the answer of the commit was lost")
        return answer

    def rows(self, sql: str) -> list[tuple]:
        return self.connection.execute(sql).fetchall()


class SteppingClock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.time_ms = 1_700_000_000_000

    def now_ms(self) -> int:
        return self.time_ms

    def monotonic(self) -> float:
        return self.time_ms / 1000


@dataclass
class Recorder:
    """A listener that remembers what it was told."""

    created: list[str] = field(default_factory=list)
    altered: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    trimmed: list[tuple[str, int, int]] = field(default_factory=list)

    async def on_topic_created(self, topic: Topic) -> None:
        self.created.append(topic.name)

    async def on_topic_altered(self, topic: Topic) -> None:
        self.altered.append(topic.name)

    async def on_topic_deleted(self, topic: Topic) -> None:
        self.deleted.append(topic.name)

    async def on_trimmed(self, partition: Partition) -> None:
        self.trimmed.append((partition.topic.name, partition.index, partition.log_start))


@dataclass
class Times:
    """Look-ups by timestamp over records that a test lays down: partition to (offset, timestamp) pairs."""

    records: dict[Partition, list[tuple[int, int]]] = field(default_factory=dict)
    failure: Exception | None = None

    async def __call__(self, partition: Partition, timestamp: int, *, max_only: bool) -> tuple[int, int] | None:
        if self.failure is not None:
            raise self.failure
        records = self.records.get(partition, [])
        if max_only:
            return max(records, key=lambda record: (record[1], -record[0]), default=None)
        return next((record for record in records if record[1] >= timestamp), None)


class World:
    """One agent's topics and handlers."""

    def __init__(self, database: MemoryDatabase | None = None, **settings: str) -> None:
        self.database = database or MemoryDatabase()
        self.registry = Registry()
        texts = {name.replace("_", "."): value for name, value in settings.items()}
        self.settings = LiveSettings(SETTINGS.started_with(texts))
        self.clock = SteppingClock()
        self.topics = Topics(
            database=self.database, registry=self.registry, settings=self.settings, clock=self.clock,
            randomness=SeededRandomness(f"world {next(_worlds)}"),
        )  # fmt: skip
        self.heard = Recorder()
        self.topics.listen(self.heard)
        self.brokers = SingleBroker(kafka_cluster_id="4L6g3nShT-eMCtK--X86sw", node_id=1, host="localhost", port=9092)
        self.times = Times()
        self.cluster_api = ClusterHandlers(self.topics, self.brokers)
        self.topic_api = TopicHandlers(self.topics, self.brokers)
        self.config_api = ConfigHandlers(self.topics, self.brokers, config_kinds())
        self.replica_api = ReplicaHandlers(self.registry, self.brokers)
        self.producer_ids = ProducerIds(self.database)
        self.producer_api = ProducerHandlers(self.registry)
        self.offset_api = LogOffsetHandlers(self.topics, self.times)

    async def topic(self, name: str, partitions: int = 1, **options: object) -> Topic:
        """Create a topic."""
        (topic,) = await self.topics.create(1, [NewTopic(name=name, partition_count=partitions, **options)])
        assert isinstance(topic, Topic), topic
        return topic

    async def restarted(self, **settings: str) -> World:
        """Another agent on the same database, as after a restart."""
        world = World(self.database, **settings)
        await world.topics.load()
        return world


async def ask(handler: Any, request: Any, version: int, cluster_id: int = 1) -> Any:
    """What a client gets: the request and the response pass through the codec in that version."""
    name = type(request).__name__.removesuffix("Request")
    key = ApiKey[re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).upper()]
    frame = b"".join(bytes(part) for part in encode_request(key, version, 1, "test", request))
    header = read_request_header(frame, 4)
    asked = read_request(key, version, frame, header.body)
    answer = await handler(context(version, cluster_id), asked)
    frame = b"".join(bytes(part) for part in encode_response(key, version, 1, answer))
    _, body = read_response_header(key, version, frame, 4)
    return read_response(key, version, frame, body)


def context(version: int, cluster_id: int = 1) -> RequestContext:
    """The context of a request of that version."""
    return RequestContext(api_version=version, cluster_id=cluster_id)
