"""Topics over an in-memory database, with every administrative handler, for tests."""

from __future__ import annotations

import itertools
import re
import sqlite3
from dataclasses import dataclass, field
from typing import Any

from penstock.base.context import RequestContext
from penstock.base.errors import OutcomeUnknown, Unavailable
from penstock.base.randomness import SeededRandomness
from penstock.log.admin.cluster import ClusterHandlers
from penstock.log.admin.configs import ConfigHandlers
from penstock.log.admin.producers import ProducerHandlers
from penstock.log.admin.replicas import ReplicaHandlers
from penstock.log.admin.topics import TopicHandlers
from penstock.log.brokers import SingleBroker
from penstock.log.model import Partition, Topic
from penstock.log.offsets_api import OffsetHandlers
from penstock.log.producer_ids import ProducerIds
from penstock.log.registry import Registry
from penstock.log.settings import BrokerSettings, LiveSettings
from penstock.log.topics import NewTopic, Topics
from penstock.wire.api_keys import ApiKey
from penstock.wire.codec import (
    encode_request,
    encode_response,
    read_request,
    read_request_header,
    read_response,
    read_response_header,
)

SCHEMA = """
CREATE TABLE topic (cluster_id INTEGER NOT NULL, topic_id BLOB NOT NULL, name TEXT NOT NULL,
  replication_factor INTEGER NOT NULL, created_ms INTEGER NOT NULL,
  PRIMARY KEY (cluster_id, topic_id), UNIQUE (cluster_id, name));
CREATE TABLE shard (shard_id INTEGER PRIMARY KEY, commit_seq INTEGER NOT NULL);
CREATE TABLE partition (partition_id INTEGER PRIMARY KEY, cluster_id INTEGER NOT NULL, shard_id INTEGER NOT NULL,
  topic_id BLOB NOT NULL, partition_index INTEGER NOT NULL, next_offset INTEGER NOT NULL DEFAULT 0,
  log_start INTEGER NOT NULL DEFAULT 0, segmented_to INTEGER NOT NULL DEFAULT 0,
  size_bytes INTEGER NOT NULL DEFAULT 0, cleaned_to INTEGER NOT NULL DEFAULT 0,
  UNIQUE (cluster_id, topic_id, partition_index));
CREATE TABLE config (cluster_id INTEGER NOT NULL, kind INTEGER NOT NULL, name TEXT NOT NULL, key TEXT NOT NULL,
  value TEXT NOT NULL, long_name TEXT, PRIMARY KEY (cluster_id, kind, name, key));
CREATE TABLE topic_deletion (partition_id INTEGER PRIMARY KEY, cluster_id INTEGER NOT NULL, topic_id BLOB NOT NULL,
  deleted_ms INTEGER NOT NULL);
CREATE TABLE producer_state (partition_id INTEGER NOT NULL, producer_id INTEGER NOT NULL,
  PRIMARY KEY (partition_id, producer_id));
CREATE TABLE counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
INSERT INTO counter VALUES ('partition', 1), ('producer', 0);
"""


_worlds = itertools.count()


class MemoryDatabase:
    """Scripts on an in-memory SQLite, on the caller's thread; can lose a commit's answer or refuse to work."""

    dialect = "sqlite"

    def __init__(self) -> None:
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        self.connection.executescript(SCHEMA)
        self.lose_answers = 0
        self.down = False

    async def transaction(self, script, *, locking: bool = False):
        if self.down:
            raise Unavailable("the database is away")
        self.connection.execute("BEGIN")
        try:
            answer = self._run(script())
        except BaseException:
            self.connection.execute("ROLLBACK")
            raise
        self.connection.execute("COMMIT")
        if self.lose_answers:
            self.lose_answers -= 1
            raise OutcomeUnknown("the answer of the commit was lost")
        return answer

    async def read(self, script):
        return self._run(script())

    def _run(self, script):
        rows = None
        while True:
            try:
                sql, args = script.send(rows)
            except StopIteration as end:
                return end.value
            # `$1` names a parameter in SQLite as well; its number is its place.
            rows = self.connection.execute(sql, {str(n): arg for n, arg in enumerate(args, 1)}).fetchall()

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
    deleted: list[str] = field(default_factory=list)
    trimmed: list[tuple[str, int, int]] = field(default_factory=list)

    async def on_topic_created(self, topic: Topic) -> None:
        self.created.append(topic.name)

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
        self.settings = LiveSettings(BrokerSettings.started_with(texts))
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
        self.config_api = ConfigHandlers(self.topics, self.brokers)
        self.replica_api = ReplicaHandlers(self.registry, self.brokers)
        self.producer_ids = ProducerIds(self.database)
        self.producer_api = ProducerHandlers(self.registry)
        self.offset_api = OffsetHandlers(self.topics, self.times)

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
