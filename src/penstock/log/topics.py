"""Topics of every virtual cluster: created, altered, trimmed and deleted, first durably, then in memory.

A change runs in three steps that a cancelled caller does not interrupt: one transaction, then the registry and its
objects, then the listeners. Changes are serialized by one lock, so what a change was decided on still holds when it is
applied; reading needs no lock, because the registry is always consistent. Several topics of one request are changed in
one transaction.

When a commit's answer is lost the script runs again: all scripts of `topic_store` allow that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol, TypeVar

from penstock.base.clock import Clock
from penstock.base.config_values import ConfigResource
from penstock.base.cooperative import yield_if_due
from penstock.base.dataclasses import dataclass, field
from penstock.base.errors import InvalidRequest, OutcomeUnknown
from penstock.base.randomness import Randomness, new_uuid
from penstock.base.settings import BrokerSettings, LiveSettings
from penstock.base.shielded import ShieldedTasks
from penstock.log import topic_configs, topic_names, topic_store
from penstock.log.model import Partition, Topic, TopicConfig
from penstock.log.refusals import Refused
from penstock.log.registry import Registry
from penstock.log.topic_store import StoredTopics, TopicRow
from penstock.metadata.database import LockingTransactionRunner, Script
from penstock.wire.error_codes import ErrorCode

T = TypeVar("T")

MAX_NEW_PARTITIONS = 10_000
"""How many partitions one request may create, as in Kafka's controller."""

NEW_AT_ONCE = 50
"""How many topics are processed before the event loop is yielded."""
RESOLVED_MAX = 10_000
"""How many resolved sets of overrides are cached: clients can invent any number."""
MAX_CONFIGURED = {ConfigResource.CLIENT_METRICS: 100}
MAX_CONFIGURED_OF_OTHERS = 10_000
"""How many groups, or client metrics subscriptions, of a virtual cluster may have a configuration. Their names are
chosen by clients, so nothing else bounds their number, and each client is matched against all subscriptions."""

Overrides = Mapping[str, str]
ConfigChange = Callable[[Overrides], Overrides]
"""From a resource's current overrides to its new ones; raises `Refused`."""


class TopicListener(Protocol):
    """Notified of changes, on the event loop, after they are durable and in the registry."""

    async def on_topic_created(self, topic: Topic) -> None:
        """A topic was created, or got more partitions."""

    async def on_topic_altered(self, topic: Topic) -> None:
        """A topic's configuration was changed."""

    async def on_topic_deleted(self, topic: Topic) -> None:
        """A topic was deleted; its name and id are free."""

    async def on_trimmed(self, partition: Partition) -> None:
        """A partition's log start moved forward."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTopic:
    """A topic to create. None leaves a number to the cluster's settings."""

    name: str
    partition_count: int | None = None
    replication_factor: int | None = None
    overrides: Mapping[str, str] = field(default_factory=dict)


class Ensured(NamedTuple):
    """The result of `ensure` for one name."""

    answer: Topic | Refused
    is_new: bool


class Topics:
    """The only writer of topics, their partitions' log starts and all configuration."""

    def __init__(
        self, *, database: LockingTransactionRunner, registry: Registry, settings: LiveSettings, clock: Clock,
        randomness: Randomness, shard_id: int = 1, node_id: int = 1,
    ) -> None:  # fmt: skip
        self.registry = registry
        self.settings = settings
        self._database = database
        self._clock = clock
        self._randomness = randomness
        self._shard_id = shard_id
        self._node_id = node_id
        self._lock = asyncio.Lock()
        self._listeners: list[TopicListener] = []
        self.before_deletion: Callable[[Topic], Awaitable[None]] = _nothing_to_do
        """Called before a topic is deleted; the deletion waits for it, and does not happen if it fails."""
        self.partition_limit: Callable[[int], float | None] = lambda cluster_id: None
        """The limit on partitions of a virtual cluster; None: no limit."""
        self._changes = ShieldedTasks()
        self._other_configs: dict[tuple[int, int], dict[str, Overrides]] = {}
        """By virtual cluster and kind, then by name. Only resources that have overrides."""
        self._resolved_with = settings.start
        self._resolved: dict[tuple[tuple[str, str], ...], TopicConfig] = {}

    def listen(self, listener: TopicListener) -> None:
        """Call a listener after every change from now on."""
        self._listeners.append(listener)

    async def close(self) -> None:
        """Wait for changes in flight, whose callers may be gone."""
        await self._changes.close()

    # ---- start ------------------------------------------------------------------------------------------------

    async def load(self) -> None:
        """Load the registry and the settings from the database. Call it first."""
        stored = await self._database.read(topic_store.load)
        topic_overrides = self._load_configs(stored)
        partitions: dict[bytes, list[Sequence[int]]] = {}
        for topic_id, *facts in stored.partitions:
            partitions.setdefault(bytes(topic_id), []).append(facts)
        for cluster_id, topic_id, name, replication_factor, created_ms in stored.topics:
            row = TopicRow(
                topic_id=bytes(topic_id), name=name, partition_count=0, replication_factor=replication_factor,
                overrides=topic_overrides.get((cluster_id, name), {}), created_ms=created_ms,
            )  # fmt: skip
            topic = self._topic(cluster_id, row)
            for partition_id, index, next_offset, log_start, segmented_to, size_bytes, cleaned_to in partitions.get(
                row.topic_id, ()
            ):
                topic.partitions.append(
                    Partition(
                        partition_id=partition_id, topic=topic, index=index, next_offset=next_offset,
                        log_start=log_start, segmented_to=segmented_to, size_bytes=size_bytes, cleaned_to=cleaned_to,
                    )
                )  # fmt: skip
            self.registry.add(topic)

    def _load_configs(self, stored: StoredTopics) -> dict[tuple[int, str], dict[str, str]]:
        resources: dict[tuple[int, int, str], dict[str, str]] = {}
        for cluster_id, kind, name, key, value in stored.configs:
            resources.setdefault((cluster_id, kind, name), {})[key] = value
        topics = {}
        for (cluster_id, kind, name), overrides in resources.items():
            if kind == ConfigResource.TOPIC:
                topics[cluster_id, name] = overrides
            else:
                self._other_configs.setdefault((cluster_id, kind), {})[name] = overrides
        for cluster_id in {cluster_id for cluster_id, kind, _ in resources if kind == ConfigResource.BROKER}:
            self.settings.replace(cluster_id, self._settings_with(cluster_id))
        return topics

    def _settings_with(
        self, cluster_id: int, changed: str | None = None, to: Overrides | None = None
    ) -> BrokerSettings:
        def texts(name: str) -> Overrides:
            if name == changed and to is not None:
                return to
            return self.overrides(cluster_id, ConfigResource.BROKER, name)

        return self.settings.preview(cluster_id, cluster_wide=texts(""), this_broker=texts(str(self._node_id)))

    def _topic(self, cluster_id: int, row: TopicRow) -> Topic:
        return Topic(
            cluster_id=cluster_id, topic_id=row.topic_id, name=row.name, replication_factor=row.replication_factor,
            created_ms=row.created_ms, overrides=dict(row.overrides),
            config=self._resolve(row.overrides, self.settings.of(cluster_id)),
        )  # fmt: skip

    def _resolve(self, overrides: Overrides, settings: BrokerSettings) -> TopicConfig:
        # Among thousands of topics most have the same few overrides; they share one object.
        if settings is not self._resolved_with or len(self._resolved) >= RESOLVED_MAX:
            self._resolved_with, self._resolved = settings, {}
        key = tuple(sorted(overrides.items()))
        config = self._resolved.get(key)
        if config is None:
            config = self._resolved[key] = topic_configs.resolve(overrides, settings)
        return config

    # ---- topics come --------------------------------------------------------------------------------------------

    async def create(self, cluster_id: int, wanted: Sequence[NewTopic]) -> list[Topic | Refused]:
        """Create topics in one transaction; for each the topic, or why not. One that is refused does not affect
        others."""
        return await self._changes.run(self._create(cluster_id, wanted))

    async def ensure(self, cluster_id: int, names: Iterable[str]) -> list[Ensured]:
        """The topics of these names; missing ones are created with the cluster's defaults.

        Concurrent requests for the same new topic all get the one that the first of them created.
        """
        return await self._changes.run(self._ensure(cluster_id, list(names)))

    def check_new(self, cluster_id: int, wanted: NewTopic) -> None:
        """Raise `Refused` unless such a topic could be created now."""
        topic_names.check(wanted.name)
        if self.registry.by_name(cluster_id, wanted.name) is not None:
            raise _exists(wanted.name)
        twin = self.registry.metric_twin(cluster_id, wanted.name)
        if twin is not None:
            raise _collides(wanted.name, twin)
        if wanted.replication_factor is not None and wanted.replication_factor < 1:
            raise Refused(ErrorCode.INVALID_REPLICATION_FACTOR, "Replication factor must be larger than 0.")
        if wanted.partition_count is not None and wanted.partition_count < 1:
            raise Refused(ErrorCode.INVALID_PARTITIONS, "Number of partitions was set to a non-positive value.")
        check_overrides(wanted.overrides, self.settings.of(cluster_id))
        self._check_room(cluster_id, self.counts(cluster_id, wanted)[0])

    def _check_room(self, cluster_id: int, added: int) -> None:
        """Raise `Refused` unless a cluster may have so many more partitions."""
        limit = self.partition_limit(cluster_id)
        if limit is not None and self.registry.partition_total(cluster_id) + added > limit:
            raise Refused(
                ErrorCode.POLICY_VIOLATION, f"This cluster may have {limit:.0f} partitions, and has not so many left."
            )

    def counts(self, cluster_id: int, wanted: NewTopic) -> tuple[int, int]:
        """The number of partitions and the replication factor of a new topic."""
        settings, partitions, factor = self.settings.of(cluster_id), wanted.partition_count, wanted.replication_factor
        return (
            settings.whole("num.partitions") if partitions is None else partitions,
            settings.whole("default.replication.factor") if factor is None else factor,
        )

    async def _ensure(self, cluster_id: int, names: Sequence[str]) -> list[Ensured]:
        async with self._lock:
            missing = [name for name in names if self.registry.by_name(cluster_id, name) is None]
            created = await self._create_locked(cluster_id, [NewTopic(name=name) for name in missing])
            answers = dict(zip(missing, created, strict=True))
            found = [(name, self.registry.by_name(cluster_id, name)) for name in names]
            return [Ensured(topic or answers[name], topic is not None and name in answers) for name, topic in found]

    async def _create(self, cluster_id: int, wanted: Sequence[NewTopic]) -> list[Topic | Refused]:
        async with self._lock:
            return await self._create_locked(cluster_id, wanted)

    async def _create_locked(self, cluster_id: int, wanted: Sequence[NewTopic]) -> list[Topic | Refused]:
        answers: dict[int, Topic | Refused] = {}
        rows: dict[int, TopicRow] = {}
        budget = MAX_NEW_PARTITIONS
        twins: dict[str, str] = {}
        added = 0
        for position, new in enumerate(wanted):
            await yield_if_due(position, NEW_AT_ONCE)
            try:
                self.check_new(cluster_id, new)
                twin = twins.setdefault(topic_names.metric_name(new.name), new.name)
                if twin != new.name:
                    raise _collides(new.name, twin)
                row = self._row(cluster_id, new)
                self._check_room(cluster_id, added + row.partition_count)
                budget = _spend(budget, row.partition_count)
            except Refused as refusal:
                answers[position] = refusal
            else:
                rows[position] = row
                added += row.partition_count
        if rows:
            written = await self._write_topics(cluster_id, list(rows.values()))
            answers.update(zip(rows, written, strict=True))
        return [answers[position] for position in range(len(wanted))]

    def _row(self, cluster_id: int, wanted: NewTopic) -> TopicRow:
        partition_count, replication_factor = self.counts(cluster_id, wanted)
        return TopicRow(
            topic_id=new_uuid(self._randomness), name=wanted.name, partition_count=partition_count,
            replication_factor=replication_factor, overrides=wanted.overrides, created_ms=self._clock.now_ms(),
        )  # fmt: skip

    async def _write_topics(self, cluster_id: int, rows: Sequence[TopicRow]) -> list[Topic | Refused]:
        firsts = await self._durably(lambda: topic_store.create(cluster_id, self._shard_id, rows))
        answers: list[Topic | Refused] = []
        for number, (row, first) in enumerate(zip(rows, firsts, strict=True)):
            await yield_if_due(number, NEW_AT_ONCE)
            if first is None:
                answers.append(_exists(row.name))
                continue
            topic = self._topic(cluster_id, row)
            topic.partitions.extend(
                Partition(partition_id=first + index, topic=topic, index=index) for index in range(row.partition_count)
            )
            self.registry.add(topic)
            answers.append(topic)
        for number, answer in enumerate(answers):
            await yield_if_due(number, NEW_AT_ONCE)
            if isinstance(answer, Topic):
                await self._tell_created(answer)
        return answers

    async def _tell_created(self, topic: Topic) -> None:
        for listener in self._listeners:
            await listener.on_topic_created(topic)

    # ---- topics change --------------------------------------------------------------------------------------------

    async def add_partitions(self, topic: Topic, count: int) -> None:
        """Extend a topic to `count` partitions; raise `Refused` when it does not have fewer."""
        await self._changes.run(self._add_partitions(topic, count))

    def check_partition_count(self, topic: Topic, count: int) -> None:
        """Raise `Refused` unless a topic could be extended to that many partitions now."""
        present = len(topic.partitions)
        if topic.deleted:
            raise unknown_topic(topic.name)
        if count == present:
            raise Refused(ErrorCode.INVALID_PARTITIONS, f"Topic already has {present} partition(s).")
        if count < present:
            raise Refused(
                ErrorCode.INVALID_PARTITIONS,
                f"The topic {topic.name} currently has {present} partition(s); {count} would not be an increase.",
            )
        self._check_room(topic.cluster_id, count - present)
        _spend(MAX_NEW_PARTITIONS, count - present)

    async def _add_partitions(self, topic: Topic, count: int) -> None:
        async with self._lock:
            self.check_partition_count(topic, count)
            rows = await self._durably(
                lambda: topic_store.add_partitions(topic.cluster_id, self._shard_id, topic.topic_id, count)
            )
            if rows is None:
                raise unknown_topic(topic.name)
            for index, partition_id in rows[len(topic.partitions) :]:
                topic.partitions.append(Partition(partition_id=partition_id, topic=topic, index=index))
            self.registry.add(topic)
            await self._tell_created(topic)

    async def trim(self, cluster_id: int, marks: Mapping[Partition, int]) -> None:
        """Remove the records below each offset: log starts move forward, first durably, and never back."""
        await self._changes.run(self._trim(cluster_id, marks))

    async def _trim(self, cluster_id: int, marks: Mapping[Partition, int]) -> None:
        async with self._lock:
            forward = {partition: offset for partition, offset in marks.items() if offset > partition.log_start}
            if not forward:
                return
            pairs = [(partition.partition_id, offset) for partition, offset in forward.items()]
            await self._durably(lambda: topic_store.trim(cluster_id, pairs), locking=True)
            for number, (partition, offset) in enumerate(forward.items()):
                await yield_if_due(number)
                partition.log_start = max(partition.log_start, offset)
                partition.wake()
            for number, partition in enumerate(forward):
                await yield_if_due(number)
                for listener in self._listeners:
                    await listener.on_trimmed(partition)

    # ---- topics go ------------------------------------------------------------------------------------------------

    async def delete(self, cluster_id: int, topics: Sequence[Topic]) -> None:
        """Delete topics in one transaction. One that is already gone is no error."""
        await self._changes.run(self._delete(cluster_id, topics))

    async def _delete(self, cluster_id: int, topics: Sequence[Topic]) -> None:
        # Not under the lock: it may wait for room in the log, which a chore makes after others that take the lock.
        for number, topic in enumerate(topics):
            await yield_if_due(number, NEW_AT_ONCE)
            if not topic.deleted:
                await self.before_deletion(topic)
        async with self._lock:
            present = [topic for topic in topics if not topic.deleted]
            if not present:
                return
            keys = [(topic.topic_id, topic.name) for topic in present]
            now_ms = self._clock.now_ms()
            await self._durably(lambda: topic_store.delete(cluster_id, keys, now_ms), locking=True)
            for number, topic in enumerate(present):
                await yield_if_due(number, NEW_AT_ONCE)
                topic.deleted = True
                self.registry.remove(topic)
                for partition in topic.partitions:
                    partition.wake()
            for number, topic in enumerate(present):
                await yield_if_due(number, NEW_AT_ONCE)
                for listener in self._listeners:
                    await listener.on_topic_deleted(topic)

    def forget_cluster(self, cluster_id: int) -> None:
        """Drop the configuration of a deleted virtual cluster from memory."""
        for key in [key for key in self._other_configs if key[0] == cluster_id]:
            del self._other_configs[key]
        self.settings.forget(cluster_id)

    # ---- configuration --------------------------------------------------------------------------------------------

    async def alter_topic(self, topic: Topic, change: ConfigChange, *, validate_only: bool = False) -> None:
        """Change a topic's overrides; raise `Refused` and change nothing if the result is invalid."""
        await self._changes.run(self._alter_topic(topic, change, validate_only))

    async def _alter_topic(self, topic: Topic, change: ConfigChange, validate_only: bool) -> None:
        async with self._lock:
            if topic.deleted:
                raise unknown_topic(topic.name)
            settings = self.settings.of(topic.cluster_id)

            def checked(before: Overrides) -> Overrides:
                after = change(before)
                check_overrides(after, settings)
                return after

            if validate_only:
                checked(topic.overrides)
                return
            after = await self._store_configs(topic.cluster_id, ConfigResource.TOPIC, topic.name, checked)
            topic.overrides = dict(after)
            topic.config = self._resolve(after, settings)
            for listener in self._listeners:
                await listener.on_topic_altered(topic)

    def overrides(self, cluster_id: int, kind: ConfigResource, name: str) -> Overrides:
        """The overrides of a broker (`""`: all brokers), a group or a client metrics subscription."""
        return self._other_configs.get((cluster_id, kind), {}).get(name, {})

    def configured(self, cluster_id: int, kind: ConfigResource) -> list[str]:
        """The names of groups or client metrics subscriptions that have overrides."""
        return sorted(self._other_configs.get((cluster_id, kind), ()))

    def group_overrides(self, cluster_id: int, group_id: str) -> Overrides:
        """The overrides of a group."""
        return self.overrides(cluster_id, ConfigResource.GROUP, group_id)

    async def alter_broker(
        self, cluster_id: int, name: str, change: ConfigChange, *, validate_only: bool = False
    ) -> None:
        """Change the dynamic settings of all brokers (`""`) or of one, and thereby the defaults of topics."""
        await self._changes.run(self._alter_broker(cluster_id, name, change, validate_only))

    async def _alter_broker(self, cluster_id: int, name: str, change: ConfigChange, validate_only: bool) -> None:
        def checked(before: Overrides) -> Overrides:
            after = change(before)
            try:
                altered = [one for one in after if after[one] != before.get(one)]
                self._settings_with(cluster_id, name, after).check_altered(altered)
            except InvalidRequest as error:
                raise Refused(ErrorCode.INVALID_REQUEST, str(error)) from error
            return after

        async with self._lock:
            await self._alter_other_locked(cluster_id, ConfigResource.BROKER, name, checked, validate_only)
            settings = self._settings_with(cluster_id)
            self.settings.replace(cluster_id, settings)
            for number, topic in enumerate(self.registry.all(cluster_id)):
                await yield_if_due(number)
                topic.config = self._resolve(topic.overrides, settings)

    async def alter_other(
        self, cluster_id: int, kind: ConfigResource, name: str, change: ConfigChange, *, validate_only: bool = False
    ) -> None:
        """Change the overrides of a group or a client metrics subscription."""
        await self._changes.run(self._alter_other(cluster_id, kind, name, change, validate_only))

    async def _alter_other(
        self, cluster_id: int, kind: ConfigResource, name: str, change: ConfigChange, validate_only: bool
    ) -> None:
        async with self._lock:
            await self._alter_other_locked(cluster_id, kind, name, change, validate_only)

    async def _alter_other_locked(
        self, cluster_id: int, kind: ConfigResource, name: str, change: ConfigChange, validate_only: bool
    ) -> None:
        configured = self._other_configs.get((cluster_id, kind), {})
        if name not in configured and len(configured) >= MAX_CONFIGURED.get(kind, MAX_CONFIGURED_OF_OTHERS):
            raise Refused(ErrorCode.POLICY_VIOLATION, f"There are {len(configured)} configured already.")
        if validate_only:
            change(self.overrides(cluster_id, kind, name))
            return
        after = await self._store_configs(cluster_id, kind, name, change)
        configured = {**configured, name: dict(after)}
        if not after:
            del configured[name]
        self._other_configs[cluster_id, kind] = configured
        if not configured:
            del self._other_configs[cluster_id, kind]

    async def _store_configs(self, cluster_id: int, kind: ConfigResource, name: str, change: ConfigChange) -> Overrides:
        return await self._durably(lambda: topic_store.alter_configs(cluster_id, kind, name, change))

    # ---- how a change is run --------------------------------------------------------------------------------------

    async def _durably(self, script: Callable[[], Script[T]], *, locking: bool = False) -> T:
        try:
            return await self._database.transaction(script, locking=locking)
        except OutcomeUnknown:
            return await self._database.transaction(script, locking=locking)


async def _nothing_to_do(topic: Topic) -> None:
    pass


def unknown_topic(name: str) -> Refused:
    """The refusal for an unknown topic."""
    return Refused(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"This server does not host the topic {name}.")


def check_overrides(overrides: Overrides, settings: BrokerSettings) -> None:
    """Raise `Refused` unless a topic may have these overrides."""
    try:
        topic_configs.check(overrides, settings)
    except InvalidRequest as error:
        raise Refused(ErrorCode.INVALID_CONFIG, str(error)) from error


def _exists(name: str) -> Refused:
    return Refused(ErrorCode.TOPIC_ALREADY_EXISTS, f"Topic '{name}' already exists.")


def _collides(name: str, twin: str) -> Refused:
    return Refused(ErrorCode.INVALID_TOPIC_EXCEPTION, f"Topic '{name}' collides with existing topic: {twin}")


def _spend(budget: int, partitions: int) -> int:
    if partitions > budget:
        raise Refused(
            ErrorCode.POLICY_VIOLATION, f"One request may ask for {MAX_NEW_PARTITIONS} new partitions at most."
        )
    return budget - partitions
