"""An agent without sockets, threads and files: the parts of `penstock.agent`, put together in the same order.

What differs: the stores and the database are given and survive the agent; memory is small, so that batches leave it;
requests come as messages.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from fixtures.sim_loop import Host

from penstock.agent.apis import Api, Handlers, apis
from penstock.agent.parts.handlers import config_kinds
from penstock.agent.removal_steps import removal_steps
from penstock.agent.settings import SETTINGS
from penstock.authorization.service import AclService
from penstock.base.clock import Clock
from penstock.base.context import DEFAULT_CLUSTER_ID, RequestContext
from penstock.base.errors import PlatformError
from penstock.base.randomness import Randomness, SeededRandomness
from penstock.base.settings import BrokerSettings, LiveSettings
from penstock.clusters.handlers import VirtualClusterHandlers
from penstock.clusters.model import Cluster, ClusterState
from penstock.clusters.removal import ClusterRemoval
from penstock.clusters.service import Clusters
from penstock.coordination.leases import LeaseHolder
from penstock.coordination.timers import Scheduler
from penstock.groups.consumer.handlers import ConsumerGroupHandlers
from penstock.groups.handlers import CoordinatorEndpoint, GroupHandlers
from penstock.groups.offset_handlers import OffsetHandlers as GroupOffsetHandlers
from penstock.groups.service import GroupService
from penstock.groups.settings import GroupSettings
from penstock.groups.share.handlers import ShareGroupHandlers
from penstock.groups.share.service import ShareGroups
from penstock.groups.streams.handlers import StreamsGroupHandlers
from penstock.groups.streams.internal_topics import InternalTopics
from penstock.keys.handlers import ClusterKeyHandlers
from penstock.keys.port import KeyService
from penstock.keys.service import DataKeys
from penstock.log.aborted import StoredAborted
from penstock.log.admin.cluster import ClusterHandlers
from penstock.log.admin.configs import ConfigHandlers
from penstock.log.admin.producers import ProducerHandlers
from penstock.log.admin.replicas import ReplicaHandlers
from penstock.log.admin.topics import TopicHandlers
from penstock.log.brokers import SingleBroker
from penstock.log.commit_path import CommitPath, EmbeddedCommitPath
from penstock.log.fetch import FetchHandler
from penstock.log.fetch_sessions import FetchSessions
from penstock.log.follow import Follower
from penstock.log.model import Partition, Topic
from penstock.log.offsets_api import LogOffsetHandlers
from penstock.log.produce import ProduceHandler, response_of
from penstock.log.producer_ids import ProducerIds
from penstock.log.reader import Reader
from penstock.log.record_first import RecordFirstCommitPath
from penstock.log.recovery import load_state
from penstock.log.registry import Registry
from penstock.log.roll_forward import roll_forward
from penstock.log.sealing import Sealing
from penstock.log.segments import SegmentIndex
from penstock.log.shared_commit_path import SharedCommitPath
from penstock.log.timestamps import Timestamps
from penstock.log.topics import Topics
from penstock.log.trailing_rows import TrailingRows
from penstock.log.upkeep.adoption import MIN_BYTES, Adoption
from penstock.log.upkeep.background import Background, Chore
from penstock.log.upkeep.chores import Upkeep
from penstock.log.upkeep.spent_keys import SpentKeys
from penstock.log.upkeep.uploads import Uploads
from penstock.log.upkeep.wal_backlog import Backlog, CompactionPolicy
from penstock.log.upkeep.wal_compaction import WalCompaction
from penstock.log.upkeep.wal_store import waiting
from penstock.log.writer import Writer, forget_views
from penstock.metadata.inline import InlineDatabase
from penstock.share.dead_letters import DeadLetters
from penstock.share.fetch import ShareFetchHandler
from penstock.share.handlers import ShareHandlers
from penstock.share.service import SharePartitions
from penstock.share.sessions import ShareSessions
from penstock.share.settings import ShareConfigs
from penstock.storage.arena import Arena
from penstock.storage.object_store import ObjectStore
from penstock.storage.wal import WalLocation, WalStore
from penstock.transactions import store as transaction_store
from penstock.transactions.chores import TransactionalIdExpiry, TransactionTimeouts
from penstock.transactions.handlers import TransactionHandlers
from penstock.transactions.offset_handlers import TransactionOffsetHandlers
from penstock.transactions.service import TransactionService
from penstock.transactions.settings import TransactionSettings
from penstock.transactions.slots import LeasedSlots
from penstock.wire.api_keys import ApiKey

if TYPE_CHECKING:
    from simulation.links import Link

NODE_ID = 1
SHARD_ID = 1
CLUSTER_ID = "penstock-simulation-00"
TAIL_BYTES = 64 * 1024
COLD_BYTES = 64 * 1024
CHUNK_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class UpkeepPlan:
    """When the background does what."""

    policy: CompactionPolicy
    grace_ms: int
    adopted_bytes: int = MIN_BYTES
    """From how many on what lies in one place of the log becomes an object as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentEnvironment:
    """What an agent finds when it starts."""

    host: Host
    database: InlineDatabase
    wal: WalStore
    objects: ObjectStore
    clock: Clock
    scheduler: Scheduler
    randomness: Randomness
    inline: bool
    """Whether small flushes are committed in line, as they are with `--durability process`."""
    settings: dict[str, str]
    upkeep: UpkeepPlan | None
    """How the background works, or None for an agent without one."""
    agent_id: int = NODE_ID
    key_service: KeyService | None = None
    """Who wraps the keys that everything is sealed by; None: nothing is."""
    epoch: int | None = None
    """Of the shard if other agents commit to it as well, else None."""
    has_tenants: bool = False
    """Whether there are virtual clusters that are made and deleted, for which there have to be keys and a
    background."""


@cache
def _settings(said: frozenset[tuple[str, str]]) -> BrokerSettings:
    """Settings never change, and are dear to make."""
    return SETTINGS.started_with(dict(said))


class SimAgent:
    """One life of an agent."""

    def __init__(self, around: AgentEnvironment) -> None:
        self.around = around
        self.host = around.host
        self.registry = Registry()
        self.settings = _settings(frozenset(around.settings.items()))
        self._table: dict[int, Api] = {}
        self.server = _Connections()
        self.is_ready = False

    async def start(self) -> None:
        """Bring the state back and serve. Raises a `PlatformError` when that is impossible now."""
        around, live = self.around, LiveSettings(self.settings)
        self.topics = Topics(
            database=around.database, registry=self.registry, settings=live,
            clock=around.clock, randomness=around.randomness, node_id=NODE_ID,
        )  # fmt: skip
        if around.epoch is None:
            self._life = await roll_forward(
                around.database, around.wal, randomness=SeededRandomness("life"), redo=transaction_store.redo
            )
        if around.has_tenants:
            await self._open_clusters()
        await self.topics.load()
        self.sealing = await self._keys()
        seq = await load_state(around.database, self.registry, around.wal)
        self.segments = SegmentIndex(around.database)
        self.reader = Reader(
            segments=self.segments, wal=around.wal, objects=around.objects, executor=None,
            arena=Arena(COLD_BYTES, chunk_bytes=CHUNK_BYTES), sealing=self.sealing,
        )  # fmt: skip
        self.commit_path = self._path(seq)
        self.backlog = Backlog(
            await around.database.read(lambda: waiting(SHARD_ID, seq)), last_seq=seq,
            capacity_bytes=around.wal.capacity_bytes, clock=around.clock,
            policy=None if around.upkeep is None else around.upkeep.policy,
        )  # fmt: skip
        self.writer = Writer(
            arena=Arena(TAIL_BYTES, chunk_bytes=CHUNK_BYTES, on_recycle=forget_views), commit_path=self.commit_path,
            clock=around.clock, on_commit=self.backlog.on_commit, room=self.backlog, sealing=self.sealing,
        )  # fmt: skip
        self.producer_ids = ProducerIds(around.database)
        self.transactions = self._transactions()
        await self.transactions.open()
        if around.upkeep is not None:
            self._open_background(live, around.upkeep)
        if around.epoch is not None:
            self.watching = asyncio.get_running_loop().create_task(self.follower.watch())
        path, database, pending_offset_writer = self.commit_path, around.database, None
        if isinstance(path, RecordFirstCommitPath):
            database, pending_offset_writer = path.up_to_date, self.transactions
        self.groups = GroupService(
            database=database, topics=self.registry, settings=GroupSettings.of(self.settings),
            holder=LeaseHolder(name=f"agent-{NODE_ID}"), clock=around.clock, scheduler=around.scheduler,
            randomness=around.randomness, pending_offset_writer=pending_offset_writer, catch_up=path.store_changes,
            live=self.topics.settings,
        )  # fmt: skip
        await self.groups.open()
        await self._open_share(self.settings)
        self.topics.listen(_GroupsListener(self.groups))
        self.topics.before_deletion = self.transactions.keep_open
        if around.upkeep is not None and around.has_tenants:
            self._remove_clusters()
        self._serve()
        self.is_ready = True

    def admits(self, cluster_id: int) -> bool:
        """Whether a connection may be in that virtual cluster."""
        return not self.around.has_tenants or self.clusters.is_open(cluster_id)

    async def _open_clusters(self) -> None:
        around = self.around
        self.clusters = Clusters(
            database=around.database, clock=around.clock, randomness=around.randomness, shard_id=SHARD_ID
        )
        await self.clusters.open(CLUSTER_ID)
        self.clusters.on_change = self._on_cluster
        self.acls = AclService(around.database)
        await self.acls.open()

    def _on_cluster(self, cluster: Cluster) -> None:
        if cluster.state is ClusterState.DELETING:
            self.background.wake(ClusterRemoval.name)

    def _on_erased(self, cluster_id: int) -> None:
        for partition in list(self.registry.partitions()):
            if partition.topic.cluster_id == cluster_id:
                forget_views([(partition, span) for span in list(partition.spans)])
                partition.wake()

    async def _keys(self) -> Sealing | None:
        around = self.around
        if around.key_service is None:
            return None
        randomness = SeededRandomness(f"keys/{around.randomness.token(8).hex()}")
        self.keys = DataKeys(
            database=around.database, service=around.key_service, clock=around.clock, randomness=randomness
        )
        if around.has_tenants:
            self.keys.stays, self.keys.on_erased = self.clusters.is_open, self._on_erased
        await self.keys.open()
        await self.keys.encrypt(DEFAULT_CLUSTER_ID)
        return Sealing(self.keys, randomness)

    def _path(self, seq: int) -> CommitPath:
        around = self.around

        async def on_thread(work: Callable[[], WalLocation]) -> WalLocation:
            await asyncio.sleep(0)
            return work()

        if around.epoch is None:
            rows = TrailingRows(around.database, around.randomness, transaction_store.redo)
            through_database = EmbeddedCommitPath(
                database=around.database, wal=around.wal, clock=around.clock, randomness=around.randomness, seq=seq,
                inline=around.inline, agent_id=around.agent_id, rows=rows,
            )  # fmt: skip
            return RecordFirstCommitPath(
                through_database, rows, metadata=around.database, wal=around.wal, clock=around.clock,
                randomness=around.randomness, on_thread=on_thread, life=self._life, inline=around.inline,
                agent_id=around.agent_id,
            )  # fmt: skip
        self.follower = Follower(
            database=around.database, registry=self.registry, randomness=around.randomness, seq=seq
        )  # fmt: skip

        return SharedCommitPath(
            database=around.database, wal=around.wal, registry=self.registry, follower=self.follower,
            clock=around.clock, randomness=around.randomness, on_thread=on_thread, epoch=around.epoch,
            agent_id=around.agent_id,
        )  # fmt: skip

    def _transactions(self) -> TransactionService:
        around, slots = self.around, None
        if not self.commit_path.is_alone:
            slots = LeasedSlots(
                around.database, holder=LeaseHolder(name=f"agent-{around.agent_id}"), clock=around.clock
            )
        service = TransactionService(
            database=around.database, registry=self.registry, writer=self.writer, producer_ids=self.producer_ids,
            clock=around.clock, slots=slots,
        )  # fmt: skip
        if slots is not None:
            self.follower.on_transactions = service.began
        return service

    def _open_background(self, live: LiveSettings, plan: UpkeepPlan) -> None:
        around = self.around
        upkeep = self.upkeep = Upkeep(
            database=around.database, registry=self.registry, topics=self.topics, segments=self.segments,
            objects=around.objects, uploads=Uploads(around.randomness), settings=live, clock=around.clock,
            executor=None, shard_id=SHARD_ID, grace_ms=plan.grace_ms, store_rows=self.commit_path.store_rows,
            sealing=self.sealing, pass_flush=self.writer.pass_flush,
        )  # fmt: skip
        self.compaction = WalCompaction(
            upkeep.changes, wal=around.wal, registry=self.registry, backlog=self.backlog,
            on_segments=upkeep.on_segments,
            adoption=Adoption(upkeep.changes, around.wal, min_bytes=plan.adopted_bytes),
        )  # fmt: skip
        chores: list[Chore] = [self.compaction, *upkeep.chores]
        if self.sealing is not None:
            chores.append(SpentKeys(upkeep.changes, self.keys, lambda: self.backlog.last_seq))
        settings = TransactionSettings.of(self.settings)
        time_outs = TransactionTimeouts(self.transactions, settings)
        chores += [time_outs, TransactionalIdExpiry(self.transactions, settings)]
        background = self.background = Background(chores, clock=around.clock, randomness=around.randomness)
        self.transactions.on_begin, time_outs.wake = time_outs.began, background.waker(time_outs.name)
        self.backlog.wake = background.waker(self.compaction.name)
        upkeep.bind(background.wake)
        background.start()

    def _remove_clusters(self) -> None:
        around = self.around
        steps = removal_steps(
            close_connections=self.server.close_cluster, transactions=self.transactions, topics=self.topics,
            groups=self.groups, acls=self.acls, limits=_NoQuotas(), keys=self.keys,
        )  # fmt: skip
        self.background.add(
            ClusterRemoval(self.clusters, around.database, steps, is_ready=lambda: self.is_ready, clock=around.clock)
        )

    async def _open_share(self, settings: BrokerSettings) -> None:
        around = self.around
        self.share_groups = ShareGroups(self.groups, self.registry, self.topics)
        self.share_configs = ShareConfigs(self.topics, settings)
        self.timestamps = Timestamps(self.reader, self.segments)
        self.share_partitions = SharePartitions(
            database=around.database, reader=self.reader, aborted=StoredAborted(around.database),
            configs=self.share_configs, offset_for_timestamp=self.timestamps.offset_for_timestamp,
            holder=LeaseHolder(name=f"agent-{NODE_ID}"), clock=around.clock, scheduler=around.scheduler,
            writer=self.writer, is_alone=self.commit_path.is_alone,
        )  # fmt: skip
        self.dead_letters = DeadLetters(
            partitions=self.share_partitions, topics=self.topics, configs=self.share_configs, reader=self.reader,
            writer=self.writer, clock=around.clock, scheduler=around.scheduler,
        )  # fmt: skip
        await self.share_partitions.open()
        known = self.share_partitions._runtime.states()
        self.found_letters = any(partition is not None and partition.dead_lettered for _, partition in known)
        """Whether the one before died when letters were written, and what they are about was not archived yet."""
        self.groups.before_deletion = self.share_partitions.settle_group
        self.groups.delete_with = self.share_partitions.delete_group

    def _share_handlers(self) -> ShareHandlers:
        sessions = ShareSessions(100)
        fetch = ShareFetchHandler(
            registry=self.registry, partitions=self.share_partitions, sessions=sessions, configs=self.share_configs,
            groups=self.share_groups,
        )  # fmt: skip
        return ShareHandlers(
            registry=self.registry, groups=self.share_groups, partitions=self.share_partitions, sessions=sessions,
            configs=self.share_configs, fetch=fetch,
        )  # fmt: skip

    def _serve(self) -> None:
        around = self.around
        self.share = self._share_handlers()
        self.produce = ProduceHandler(registry=self.registry, writer=self.writer, clock=around.clock)
        self.produce.transactional_ids = service = self.transactions
        sessions = FetchSessions(slots=4, clock=around.clock, randomness=around.randomness)
        self.fetch = FetchHandler(
            registry=self.registry, reader=self.reader, sessions=sessions, aborted=StoredAborted(around.database)
        )
        brokers = SingleBroker(kafka_cluster_id=CLUSTER_ID, node_id=NODE_ID, host="agent", port=9092)
        topic_handlers = TopicHandlers(self.topics, brokers)
        self._table = dict(
            apis(
                Handlers(
                    cluster=ClusterHandlers(self.topics, brokers),
                    topics=topic_handlers,
                    configs=ConfigHandlers(self.topics, brokers, config_kinds()),
                    replicas=ReplicaHandlers(self.registry, brokers),
                    producers=ProducerHandlers(self.registry),
                    offsets=LogOffsetHandlers(self.topics, self.timestamps.offset_for_timestamp),
                    groups=GroupHandlers(self.groups, _OneCoordinator()),
                    group_offsets=GroupOffsetHandlers(self.groups, self.registry),
                    share_groups=ShareGroupHandlers(self.share_groups, self.registry),
                    share=self.share,
                    consumer_groups=ConsumerGroupHandlers(self.groups, self.registry),
                    streams_groups=StreamsGroupHandlers(self.groups, InternalTopics(topic_handlers)),
                    transactions=TransactionHandlers(
                        service, self.registry, self.producer_ids, TransactionSettings.of(self.settings)
                    ),
                    transaction_offsets=TransactionOffsetHandlers(service, self.groups, self.registry),
                    **self._cluster_handlers(),
                )
            )
        )

    def _cluster_handlers(self) -> dict[str, Any]:
        if not self.around.has_tenants:
            return {}

        async def usage(cluster_id: int) -> dict[str, float]:
            return {}

        def directory() -> dict[str, int]:
            return {cluster.name: cluster.cluster_id for cluster in self.clusters.all()}

        return {
            "virtual_clusters": VirtualClusterHandlers(self.clusters, is_admin=lambda context: True, usage=usage),
            "cluster_keys": ClusterKeyHandlers(self.keys, directory, is_admin=lambda context: True),
        }

    # ---- requests ------------------------------------------------------------------------------------------------

    def handle(
        self, context: RequestContext, key: int, request: Any, done: Callable[[Any], None]
    ) -> Callable[[], None] | None:
        """Begin answering; how to give up."""
        if key == ApiKey.PRODUCE:
            self.produce.handle(context, request, lambda results: done(response_of(request, results)))
            return None
        if key == ApiKey.FETCH:
            return self.fetch.handle(context, request, lambda response, _: done(_with_own_bytes(response)))
        if key == ApiKey.SHARE_FETCH:
            answered = done
            done = lambda response: answered(_with_own_bytes(response))  # noqa: E731
        task = asyncio.get_running_loop().create_task(self._run(context, key, request, done))
        return lambda: None if task.done() else _cancel(task)

    def closed(self, connection_id: int) -> None:
        """A connection has ended."""
        self.share.on_connection_closed(connection_id)

    async def _run(self, context: RequestContext, key: int, request: Any, done: Callable[[Any], None]) -> None:
        handle = self._table[key].handle
        assert handle is not None
        try:
            response = await handle(context, request)
        except PlatformError as problem:
            # The real dispatcher closes the connection; clients learn as much from an answer that is none.
            response = problem
        done(response)


def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()


def _with_own_bytes(response: Any) -> Any:
    """Copy what an answer shows of the agent's memory, as a socket would."""
    if isinstance(response, PlatformError):
        return response
    for topic in response.responses:
        for partition in topic.partitions:
            if partition.records:
                partition.records = b"".join(bytes(piece) for piece in partition.records)
    return response


class _Connections:
    """The connections of virtual clusters other than the default one, as `penstock.agent.server` knows them."""

    def __init__(self) -> None:
        self._links: dict[int, list[Link]] = {}

    def enter(self, cluster_id: int, link: Link) -> None:
        """A connection is in a virtual cluster."""
        self._links.setdefault(cluster_id, []).append(link)

    def close_cluster(self, cluster_id: int) -> int:
        """Close every connection of a virtual cluster; how many there were."""
        inside = self._links.pop(cluster_id, [])
        for link in inside:
            link.hang_up()
        return len(inside)


class _NoQuotas:
    """Limits are not asked about here; of those that are stored nothing is kept in memory."""

    def forget(self, cluster_id: int) -> None:
        """Nothing to do."""


class _OneCoordinator:
    """The only agent coordinates everything."""

    def coordinator(self, context: RequestContext, key_type: int, key: str) -> CoordinatorEndpoint:
        """Where a group is coordinated."""
        return CoordinatorEndpoint(NODE_ID, "agent", 9092)


class _GroupsListener:
    """Tells groups what became of topics."""

    def __init__(self, groups: GroupService) -> None:
        self._groups = groups

    async def on_topic_created(self, topic: Topic) -> None:
        """Groups may have more partitions to assign."""
        self._groups.topics_changed(topic.cluster_id)

    async def on_topic_altered(self, topic: Topic) -> None:
        """Nothing to do."""

    async def on_topic_deleted(self, topic: Topic) -> None:
        """A topic's committed offsets go with it."""
        self._groups.topics_changed(topic.cluster_id)
        await self._groups.forget_topic(topic.cluster_id, topic.topic_id)

    async def on_trimmed(self, partition: Partition) -> None:
        """Nothing to do."""
