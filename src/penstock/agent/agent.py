"""One agent, put together: this is the place where everything meets.

`start` opens the data (or memory), brings the state back, and listens; `stop` takes nothing new, finishes what was
accepted, answers it, and lets go of everything. An agent belongs to the event loop it was started on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from penstock.agent.apis import Api, Handlers, apis, audited, guarded
from penstock.agent.client_metrics import check_destination, open_sink
from penstock.agent.dispatch import Dispatcher
from penstock.agent.following import Following
from penstock.agent.gate import Gate
from penstock.agent.listeners import listeners_of
from penstock.agent.metadata import bring_in_commits, commit_path_of, kind_of, open_metadata
from penstock.agent.removing import removal_steps
from penstock.agent.rest import Rest
from penstock.agent.server import Server
from penstock.agent.tenancy import Tenancy
from penstock.agent.tls import ServerTls
from penstock.agent.turns import at_turn_end
from penstock.agent.web import Web
from penstock.audit.service import QUEUE_MAX, AuditLog
from penstock.audit.settings import AuditSettings
from penstock.audit.topic import TopicAppender
from penstock.authorization.authorizer import Authorizer, is_super_user
from penstock.authorization.guards.table import Guards
from penstock.authorization.handlers import AclHandlers
from penstock.authorization.service import AclService
from penstock.authorization.settings import AuthorizationSettings
from penstock.base.clock import Clock, SystemClock
from penstock.base.context import ANONYMOUS, DEFAULT_CLUSTER_ID, PLATFORM_CLUSTER_ID, RequestContext
from penstock.base.errors import InvalidRequest, Unavailable
from penstock.base.options import UpOptions
from penstock.base.randomness import Randomness, SystemRandomness, new_uuid, uuid_text
from penstock.clusters.handlers import VirtualClusterHandlers
from penstock.clusters.limits import LimitKey
from penstock.clusters.model import Cluster, State
from penstock.clusters.removal import Removal
from penstock.clusters.service import Clusters
from penstock.coordination.leases import Holder
from penstock.coordination.timers import LoopAlarms
from penstock.groups.consumer.handlers import ConsumerGroupHandlers
from penstock.groups.handlers import Endpoint, GroupHandlers
from penstock.groups.offset_handlers import OffsetHandlers as GroupOffsetHandlers
from penstock.groups.service import GroupService
from penstock.groups.settings import GroupSettings
from penstock.groups.share.handlers import ShareGroupHandlers
from penstock.groups.share.service import ShareGroups
from penstock.groups.streams.handlers import StreamsGroupHandlers
from penstock.groups.streams.internal_topics import InternalTopics
from penstock.identity.account_handlers import AccountHandlers
from penstock.identity.authenticator import CHECKS_AT_ONCE, Authenticator
from penstock.identity.handlers import IdentityHandlers
from penstock.identity.issuer import Issuer
from penstock.identity.penalties import Penalties
from penstock.identity.service import Identities
from penstock.identity.token_handlers import TokenHandlers
from penstock.identity.tokens import MIN_KEY_BYTES, TokenRules
from penstock.keys.handlers import ClusterKeyHandlers
from penstock.keys.local_file import LocalKeyFile, check_key_file
from penstock.keys.port import KeyService, NoKeyService
from penstock.keys.service import DataKeys
from penstock.log.aborted import StoredAborted
from penstock.log.admin.cluster import ClusterHandlers
from penstock.log.admin.configs import ConfigHandlers
from penstock.log.admin.producers import ProducerHandlers
from penstock.log.admin.replicas import ReplicaHandlers
from penstock.log.admin.topics import TopicHandlers
from penstock.log.brokers import SingleBroker
from penstock.log.fetch import FetchHandler
from penstock.log.fetch_sessions import FetchSessions
from penstock.log.model import Partition, Topic
from penstock.log.offsets_api import OffsetHandlers
from penstock.log.produce import ProduceHandler
from penstock.log.producer_ids import ProducerIds
from penstock.log.reader import Reader
from penstock.log.recovery import load_state
from penstock.log.registry import Registry
from penstock.log.sealing import Sealing
from penstock.log.segments import SegmentIndex
from penstock.log.settings import BrokerSettings, LiveSettings
from penstock.log.shared_commit_path import SharedCommitPath
from penstock.log.timestamps import Timestamps
from penstock.log.topics import Topics
from penstock.log.upkeep.background import Background, Chore
from penstock.log.upkeep.chores import Upkeep
from penstock.log.upkeep.spent_keys import SpentKeys
from penstock.log.upkeep.uploads import Uploads
from penstock.log.upkeep.wal_backlog import Backlog, CompactionPolicy
from penstock.log.upkeep.wal_compaction import WalCompaction
from penstock.log.upkeep.wal_store import waiting
from penstock.log.writer import Writer, forget_views
from penstock.quotas.handlers import QuotaHandlers
from penstock.quotas.service import Quotas
from penstock.quotas.settings import QuotaSettings
from penstock.quotas.throttles import Throttles
from penstock.share.fetch import ShareFetchHandler
from penstock.share.handlers import ShareHandlers
from penstock.share.service import SharePartitions
from penstock.share.sessions import ShareSessions
from penstock.share.settings import ShareConfigs
from penstock.storage.arena import Arena
from penstock.storage.directory import DataDirectory
from penstock.storage.local import LocalObjectStore
from penstock.storage.memory import MemoryObjectStore, MemoryWal
from penstock.storage.slabs import SLAB_BYTES, SlabWal
from penstock.storage.wal import WalStore
from penstock.telemetry.handlers import TelemetryHandlers
from penstock.telemetry.sinks import Sink, Taken
from penstock.transactions.chores import IdExpiry, TimeOuts
from penstock.transactions.handlers import TransactionHandlers
from penstock.transactions.offset_handlers import TransactionOffsetHandlers
from penstock.transactions.service import TransactionService
from penstock.transactions.slots import AllSlots, LeasedSlots, Slots

_log = logging.getLogger(__name__)
T = TypeVar("T")

NODE_ID = 1
SHARD_ID = 1
TAIL_BYTES = 96 * 1024 * 1024
"""Memory for recent batches."""
TAIL_CHUNK_BYTES = 16 * 1024 * 1024
"""Several full flushes: with two or fewer to a chunk, half of it may stay empty."""
COLD_BYTES = 32 * 1024 * 1024
"""Memory for batches read from files."""
MEMORY_WAL_MAX_BYTES = 1024 * 1024 * 1024
COLD_THREADS = 4
STOP_GRACE_S = 2.0
DRAIN_S = 10.0
"""How long a stop waits for flushes. Only a database that does not answer makes one take that long."""
STORE_ROWS_S = 1.0
"""How long it then waits for the database to have what was committed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """Sizes of the log that nobody has to choose. Tests make them small, so that what is rare happens often."""

    slab_bytes: int = SLAB_BYTES
    tail_bytes: int = TAIL_BYTES
    tail_chunk_bytes: int = TAIL_CHUNK_BYTES
    compaction: CompactionPolicy = CompactionPolicy()  # noqa: RUF009  # frozen
    audit_queue: int = QUEUE_MAX


class Agent:
    """The data plane of one process."""

    def __init__(
        self, options: UpOptions, *, clock: Clock | None = None, randomness: Randomness | None = None,
        tuning: Tuning | None = None,
    ) -> None:  # fmt: skip
        self.options = options
        self.tuning = tuning or Tuning()
        self.clock: Clock = clock or SystemClock()
        self.randomness: Randomness = randomness or SystemRandomness()
        self.settings = checked_settings(options)
        self.listeners = listeners_of(options)
        self.token_rules = token_rules(options, self.settings)
        self.registry = Registry()
        self.kafka_port = 0
        """The port of the first listener."""
        self.ports: dict[str, int] = {}
        """The ports of all listeners, by name."""
        self.ready = False
        self.on_broken: Callable[[], None] = lambda: None
        """Called when a bug has stopped the writer: stop the agent, and start another."""
        self._closing = AsyncExitStack()

    async def start(self) -> None:
        """Open, recover, listen. Raises a `PlatformError` with a sentence for the user when that is impossible."""
        try:
            await self._start()
        except BaseException:
            await self._closing.aclose()
            raise

    async def stop(self) -> None:
        """Stop cleanly: nothing acknowledged is lost, and clients are told by the end of their connections."""
        self.ready = False
        await self._closing.aclose()

    async def _start(self) -> None:
        options, clock, randomness = self.options, self.clock, self.randomness
        wal, objects = await self._open_stores()
        live = LiveSettings(self.settings)
        self.topics = Topics(
            database=self.database, registry=self.registry, settings=live, clock=clock, randomness=randomness,
            node_id=NODE_ID,
        )  # fmt: skip
        self._closing.push_async_callback(self.topics.close)
        await bring_in_commits(self.metadata, wal, randomness=randomness, shard_id=SHARD_ID)
        await self._open_clusters()
        await self.topics.load()
        await self._open_keys()
        seq = await load_state(self.database, self.registry, wal)
        self.segments = SegmentIndex(self.database)
        self.cold = Arena(COLD_BYTES)
        self.reader = Reader(
            segments=self.segments, wal=wal, objects=objects, executor=self._executor, arena=self.cold,
            sealing=self.sealing,
        )  # fmt: skip
        tuning = self.tuning
        self.timestamps = Timestamps(self.reader, self.segments)
        self.tail = Arena(tuning.tail_bytes, chunk_bytes=tuning.tail_chunk_bytes, on_recycle=forget_views)
        self.backlog = Backlog(
            await self.database.read(lambda: waiting(SHARD_ID, seq)), last_seq=seq, capacity_bytes=wal.capacity_bytes,
            clock=clock, policy=tuning.compaction,
        )  # fmt: skip
        self.commit_path = commit_path_of(
            self.metadata, wal, self.registry, clock=clock, randomness=randomness, seq=seq,
            inline=options.durability == "process" or options.data_dir is None, executor=self._wal_executor,
            shard_id=SHARD_ID, agent_id=NODE_ID, on_commit=self.backlog.on_commit,
        )  # fmt: skip
        self._closing.callback(self.commit_path.close)
        self.writer = Writer(
            arena=self.tail, commit_path=self.commit_path, clock=clock, on_commit=self.backlog.on_commit,
            room=self.backlog, soon=at_turn_end(asyncio.get_running_loop()), sealing=self.sealing,
        )  # fmt: skip
        self.producer_ids = ProducerIds(self.database)
        self.identities = Identities(database=self.database, clock=self.clock, randomness=self.randomness)
        self.transactions = self._transactions()
        self._open_background(live)
        await self._open_authorization()
        await self._open_groups()
        await self._open_quotas()
        self._open_telemetry()
        self._open_audit()
        await self.transactions.open()
        self._listen()
        self.ready = True

    def _transactions(self) -> TransactionService:
        slots: Slots = AllSlots()
        if not self.commit_path.is_alone:
            slots = LeasedSlots(self.database, holder=Holder(name=f"agent-{NODE_ID}"), clock=self.clock)
        service = TransactionService(
            database=self.database, registry=self.registry, writer=self.writer, producer_ids=self.producer_ids,
            clock=self.clock, slots=slots,
        )  # fmt: skip
        if isinstance(self.commit_path, SharedCommitPath):
            self.commit_path.follower.on_transactions = service.began
        return service

    async def _open_stores(self) -> tuple[WalStore, LocalObjectStore | MemoryObjectStore]:
        options = self.options
        self._executor = ThreadPoolExecutor(COLD_THREADS, thread_name_prefix="cold-read")
        self._closing.callback(self._executor.shutdown)
        self._wal_executor = ThreadPoolExecutor(1, thread_name_prefix="wal-writer")
        wal: WalStore
        path: Path | None = None
        objects: LocalObjectStore | MemoryObjectStore
        if options.data_dir is None:
            self.kafka_cluster_id = uuid_text(new_uuid(self.randomness))
            wal, objects = MemoryWal(MEMORY_WAL_MAX_BYTES), MemoryObjectStore()
        else:
            directory = DataDirectory.open(options.data_dir, metadata=kind_of(options), randomness=self.randomness)
            self._closing.callback(directory.close)
            self.kafka_cluster_id = directory.cluster_id
            path = directory.database
            wal = SlabWal(directory.slabs, durability=options.durability, slab_bytes=self.tuning.slab_bytes)
            objects = LocalObjectStore(directory.segments, sync=options.durability == "disk")
        self.wal, self.objects = wal, objects
        self._closing.callback(wal.close)
        # Before its files are closed: what a stop has given up may still be writing to them.
        self._closing.callback(self._wal_executor.shutdown)
        self.metadata = await open_metadata(
            options, path, self.kafka_cluster_id, clock=self.clock, randomness=self.randomness, shard_id=SHARD_ID
        )
        self._closing.push_async_callback(self.metadata.close)
        self.database = self.metadata.database
        return wal, objects

    async def _open_keys(self) -> None:
        """The keys of encrypted clusters. One that cannot be had keeps its cluster from writing, and nobody else."""
        options, loop = self.options, asyncio.get_running_loop()

        async def on_thread(work: Callable[[], None]) -> None:
            await loop.run_in_executor(self._executor, work)

        service: KeyService = NoKeyService()
        path = master_key_file(options)
        if path is not None:
            service = LocalKeyFile(path, self.randomness, on_thread)
        self.keys = DataKeys(database=self.database, service=service, clock=self.clock, randomness=self.randomness)
        self._closing.push_async_callback(self.keys.close)
        self.sealing = Sealing(self.keys, self.randomness)
        self.keys.on_erased = self._on_erased
        self.keys.stays = self.clusters.is_open
        await self.keys.open()
        if options.encrypt:
            await self.keys.encrypt(DEFAULT_CLUSTER_ID)

    def _on_erased(self, cluster_id: int) -> None:
        """Nothing of a cluster may be read any more, not even what is in memory."""
        for partition in list(self.registry.partitions()):
            if partition.topic.cluster_id == cluster_id:
                forget_views([(partition, span) for span in list(partition.spans)])
                partition.wake()

    def _open_background(self, live: LiveSettings) -> None:
        executor = ThreadPoolExecutor(1, thread_name_prefix="background")
        self._closing.callback(executor.shutdown)
        upkeep = self.upkeep = Upkeep(
            database=self.database, registry=self.registry, topics=self.topics, segments=self.segments,
            objects=self.objects, uploads=Uploads(self.randomness), settings=live, clock=self.clock,
            executor=executor, shard_id=SHARD_ID, store_rows=self.commit_path.store_rows, sealing=self.sealing,
            pass_flush=self.writer.pass_flush,
        )  # fmt: skip
        self.compaction = WalCompaction(
            upkeep.changes, wal=self.wal, registry=self.registry, backlog=self.backlog, on_segments=self._on_segments
        )
        rest = Rest(activity=self._activity, held_bytes=lambda: self.tail.size_bytes, drop=self._drop_memory)
        chores: list[Chore] = [self.compaction, *upkeep.chores, rest]
        time_outs = TimeOuts(self.transactions, self.settings)
        chores.append(SpentKeys(upkeep.changes, self.keys, lambda: self.backlog.last_seq))
        chores += [time_outs, IdExpiry(self.transactions, self.settings)]
        chores.append(
            Removal(
                self.clusters, self.database, removal_steps(self), is_ready=lambda: self.ready, clock=self.clock
            )
        )  # fmt: skip
        background = self.background = Background(chores, clock=self.clock, randomness=self.randomness)
        self.transactions.on_begin = background.waker(time_outs.name)
        self.keys.on_replaced = lambda key_id: background.wake(SpentKeys.name)
        self.backlog.wake = background.waker(self.compaction.name)
        upkeep.bind(background.wake)
        self._closing.callback(upkeep.close)
        self._closing.push_async_callback(background.stop)
        background.start()

    def _on_segments(self, partition_ids: Iterable[int]) -> None:
        self.upkeep.on_segments(partition_ids)
        self.background.wake(Rest.name)

    def _activity(self) -> int:
        """Changes with everything that is written or read from files."""
        return self.writer.stats.bytes + self.reader.cold_bytes

    def _drop_memory(self) -> None:
        self.tail.drop()
        self.cold.drop()
        self.sealing.drop_memory()
        self.server.drop_memory()

    async def _open_clusters(self) -> None:
        clusters = self.clusters = Clusters(
            database=self.database, clock=self.clock, randomness=self.randomness, shard_id=SHARD_ID
        )
        await clusters.open(self.kafka_cluster_id)
        self._closing.push_async_callback(clusters.close)
        self.topics.partition_limit = self._limit(LimitKey.PARTITIONS)

    def _limit(self, key: LimitKey) -> Callable[[int], float | None]:
        return lambda cluster_id: self.clusters.limits(cluster_id).get(key)

    def _limit_rates(self, cluster: Cluster) -> None:
        """A virtual cluster is new, or going, or has other limits."""
        if cluster.state is State.DELETING:
            self.background.wake(Removal.name)
        self.throttles.limit(cluster.cluster_id, cluster.limits)
        self.quotas.on_change()

    def _administers_platform(self, context: RequestContext) -> bool:
        """Whether somebody may do everything in every virtual cluster. Where credentials are asked for anywhere,
        nobody is it who has none."""
        if context.is_platform_admin or is_super_user(context.cluster_id, context.principal, self.super_users):
            return True
        return (
            not self.asks_for_credentials
            and self.authorizer is None
            and (context.cluster_id, context.principal) == (DEFAULT_CLUSTER_ID, ANONYMOUS)
        )

    def _may_change_proofs(self, context: RequestContext, principal: str) -> bool:
        """Whether somebody may decide how a principal of their cluster is proven, as far as ACLs let them: whoever can
        prove to be an administrator of the platform is one, and no ACL makes one."""
        is_reserved = is_super_user(context.cluster_id, principal, self.super_users)
        return not is_reserved or self._administers_platform(context)

    async def _open_authorization(self) -> None:
        asks = self.asks_for_credentials = any(listener.asks_for_credentials for listener in self.listeners)
        settings = AuthorizationSettings.of(self.settings, asks_for_credentials=asks)
        self.super_users = settings.super_users
        self.acls = AclService(self.database)
        await self.acls.open()
        self.authorizer: Authorizer | None = None
        if settings.is_on:
            self.authorizer = Authorizer(
                self.acls, super_users=settings.super_users, allow_everyone=settings.allow_everyone
            )
            self.acls.listen(self.authorizer.forget)

    async def _open_groups(self) -> None:
        self.groups = GroupService(
            database=self.database, topics=self.registry, settings=GroupSettings.of(self.settings), configs=self.topics,
            holder=Holder(name=f"agent-{NODE_ID}"), clock=self.clock, alarms=LoopAlarms(), randomness=self.randomness,
        )  # fmt: skip
        self.groups.limit = self._limit(LimitKey.GROUPS)
        await self.groups.open()
        self._closing.push_async_callback(self.groups.close)
        self.share_groups = ShareGroups(self.groups, self.registry, self.topics)
        self.share_configs = ShareConfigs(self.topics, self.settings)
        self.share_partitions = SharePartitions(
            database=self.database, reader=self.reader, aborted=StoredAborted(self.database),
            configs=self.share_configs, offset_for_timestamp=self.timestamps.offset_for_timestamp,
            holder=Holder(name=f"agent-{NODE_ID}"), clock=self.clock, alarms=LoopAlarms(),
        )  # fmt: skip
        await self.share_partitions.open()
        self._closing.push_async_callback(self.share_partitions.close)
        self.groups.on_deleted = self.share_partitions.forget_group
        self.topics.listen(_GroupsListener(self.groups, self.share_groups, self.share_partitions))
        self.topics.before_deletion = self.transactions.keep_open

    def _share_handlers(self) -> ShareHandlers:
        sessions = ShareSessions(self.settings.whole("group.share.max.share.sessions"))
        fetch = ShareFetchHandler(
            registry=self.registry, partitions=self.share_partitions, sessions=sessions, configs=self.share_configs,
            groups=self.share_groups, max_bytes=self.settings.fetch_max_bytes,
        )  # fmt: skip
        fetch.authorizer = self.authorizer
        return ShareHandlers(
            registry=self.registry, groups=self.share_groups, partitions=self.share_partitions, sessions=sessions,
            configs=self.share_configs, fetch=fetch,
        )  # fmt: skip

    async def _open_quotas(self) -> None:
        self.throttles = Throttles(clock=self.clock, settings=QuotaSettings.of(self.settings))
        self.quotas = Quotas(database=self.database, throttles=self.throttles)
        await self.quotas.load()
        self._closing.push_async_callback(self.quotas.close)
        self.tenancy = Tenancy(
            limits=self.clusters.limits, tenant=self.throttles.tenant, is_open=self.clusters.is_open, clock=self.clock
        )
        for cluster in self.clusters.all():
            self._limit_rates(cluster)
        self.clusters.on_change = self._limit_rates
        if not self.commit_path.is_alone:
            self._follow()

    def _follow(self) -> None:
        """Let what other agents change count here as well."""
        following = Following(
            self.database,
            {
                "acl": self.acls.refresh,
                "quota": self.quotas.refresh,
                "clusters": self.clusters.refresh,
                "cluster keys": self.keys.refresh,
            },
        )
        task = asyncio.get_running_loop().create_task(following.watch())

        async def stop() -> None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        self._closing.push_async_callback(stop)

    def _open_telemetry(self) -> None:
        self.client_metrics: Sink | None = open_sink(self.options.client_metrics, self.clock, self._closing)
        self.telemetry: TelemetryHandlers | None = None
        if self.client_metrics is not None:
            executor = ThreadPoolExecutor(1, thread_name_prefix="client-metrics-read")
            self._closing.callback(executor.shutdown, wait=False, cancel_futures=True)
            loop = asyncio.get_running_loop()

            async def on_thread(work: Callable[[], Taken]) -> Taken:
                return await loop.run_in_executor(executor, work)

            self.telemetry = TelemetryHandlers(
                self.topics, self.client_metrics, on_thread=on_thread, clock=self.clock, randomness=self.randomness,
                max_bytes=self.settings.whole("telemetry.max.bytes"), broker_id=NODE_ID,
            )  # fmt: skip

    def _open_audit(self) -> None:
        settings = AuditSettings.of(self.settings, asks_for_credentials=self.asks_for_credentials)
        self.audit: AuditLog | None = None
        if not settings.is_on:
            return
        appender = TopicAppender(
            topics=self.topics, writer=self.writer, clock=self.clock, cluster_id=PLATFORM_CLUSTER_ID,
            retention_ms=settings.retention_ms,
        )  # fmt: skip
        self.audit = AuditLog(
            policy=settings.policy, appender=appender, names=self._name_of_cluster,
            home_cluster_id=PLATFORM_CLUSTER_ID, correlation_id=lambda of: self.server.correlation_id(of),
            clock=self.clock, randomness=self.randomness, agent=str(NODE_ID), queue_max=self.tuning.audit_queue,
        )  # fmt: skip
        # When there are no more requests that it could hear of.
        self._closing.push_async_callback(self._finish_audit, self.audit)
        if self.authorizer is not None:
            self.authorizer.listener = self.audit

    def _name_of_cluster(self, cluster_id: int) -> str:
        """What a virtual cluster is called where Kafka calls clusters something, also when it has just gone."""
        cluster = self.clusters.by_id(cluster_id)
        return str(cluster_id) if cluster is None else cluster.kafka_id

    async def _finish_audit(self, audit: AuditLog) -> None:
        await audit.close()
        await self._drain()

    def _enforce_quotas(self) -> None:
        """Ask about limits while there are any, and not otherwise."""
        throttles = self.throttles
        self.dispatcher.throttles = throttles if throttles.limits_clients else None
        self.fetch.quota = throttles if throttles.limits_clients else None

    def _listen(self) -> None:
        options, settings = self.options, self.settings
        self.brokers = SingleBroker(
            kafka_cluster_id=self.kafka_cluster_id, node_id=NODE_ID, host=options.kafka_host, port=options.kafka_port
        )
        self.brokers.kafka_id_of = self.clusters.kafka_id
        sessions = FetchSessions(slots=settings.fetch_session_slots, clock=self.clock, randomness=self.randomness)
        produce = ProduceHandler(registry=self.registry, writer=self.writer, clock=self.clock)
        produce.transactional_ids = self.transactions
        self.fetch = FetchHandler(
            registry=self.registry, reader=self.reader, sessions=sessions, max_bytes=settings.fetch_max_bytes,
            aborted=StoredAborted(self.database), locked=self.keys.locked,
        )  # fmt: skip
        dispatcher = self.dispatcher = Dispatcher(produce=produce, fetch=self.fetch, clock=self.clock)
        self.quotas.on_change = self._enforce_quotas
        self._enforce_quotas()
        handlers = self._handlers()
        table = self._guarded(apis(handlers), produce)
        dispatcher.serve(table if self.audit is None else audited(table, self.audit))
        self.gate = self._gate(dispatcher)
        self.gate.listener = self.audit
        server = self.server = Server(
            clock=self.clock,
            dispatch=dispatcher,
            throttled_ms=self.throttles.on_connection,
            admit=self.gate.admit,
            tenancy=self.tenancy,
            pending_bytes=lambda: self.writer.pending_bytes,
            pinned_bytes=self._pinned_bytes,
            max_frame_bytes=settings.socket_request_max_bytes,
            max_connections=settings.max_connections,
            max_connections_per_host=settings.max_connections_per_ip,
            idle_s=settings.connections_max_idle_ms / 1000,
        )
        server.listener = self.audit
        if handlers.share is not None:
            server.on_closed = handlers.share.on_connection_closed
        self.writer.on_drained = server.make_room
        self.writer.on_broken = self._on_writer_broken
        self._closing.push_async_callback(server.close, STOP_GRACE_S)
        self._closing.push_async_callback(self._drain)
        self._closing.callback(server.stop_listening)
        for listener in self.listeners:
            tls = (
                ServerTls(listener.tls, self.clock, domain=listener.sni_domain, cluster_named=self.clusters.id_of)
                if listener.tls is not None
                else None
            )
            port = self.ports[listener.name] = server.listen(listener, tls)
            host, advertised_port = listener.advertised or (listener.host, port)
            self.brokers.advertise(host, advertised_port, listener.name)
        self.kafka_port = next(iter(self.ports.values()))

    def _guarded(self, table: Mapping[int, Api], produce: ProduceHandler) -> Mapping[int, Api]:
        """The table, behind guards if not everybody who can connect may do everything."""
        if self.authorizer is None:
            return table
        produce.authorizer = self.fetch.authorizer = self.authorizer
        self.consumer_groups.authorizer = self.streams_groups.authorizer = self.authorizer
        return guarded(
            table, Guards(authorizer=self.authorizer, topics=self.registry, settings=self.topics.settings.of)
        )

    def _gate(self, dispatch: Dispatcher) -> Gate:
        settings, clock = self.settings, self.clock
        checks = ThreadPoolExecutor(CHECKS_AT_ONCE, thread_name_prefix="password-check")
        self._closing.callback(checks.shutdown)
        loop = asyncio.get_running_loop()

        async def on_thread(work: Callable[[], T], /) -> T:
            return await loop.run_in_executor(checks, work)

        issuer = None
        if self.options.oauth is not None:
            # Not the threads of passwords: an issuer that does not answer must not keep others from proving theirs.
            fetches = ThreadPoolExecutor(1, thread_name_prefix="token-issuer")
            self._closing.callback(fetches.shutdown)
            issuer = Issuer(self.options.oauth, fetch=Web(fetches, self.options.oauth.ca).get, clock=clock)
        return Gate(
            authenticator=Authenticator(
                database=self.database,
                clock=clock,
                randomness=self.randomness,
                on_thread=on_thread,
                bearer_tokens=issuer,
                token_rules=self.token_rules,
                cluster_named=self.clusters.id_of,
            ),
            dispatch=dispatch,
            clock=clock,
            penalties=Penalties(clock, settings.whole("connection.failed.authentication.delay.ms") / 1000),
            max_receive_bytes=settings.whole("sasl.server.max.receive.size"),
            max_session_ms=settings.whole("connections.max.reauth.ms"),
            tenancy=self.tenancy,
        )

    async def _usage_of(self, cluster_id: int) -> Mapping[str, float]:
        return {
            LimitKey.CONNECTIONS: self.tenancy.counts[cluster_id],
            LimitKey.PARTITIONS: self.registry.partition_total(cluster_id),
            LimitKey.GROUPS: self.groups.count(cluster_id),
            LimitKey.PRODUCER_IDS: self.registry.producer_total(cluster_id),
        }

    def _on_writer_broken(self) -> None:
        self.ready = False
        self.on_broken()

    async def _drain(self) -> None:
        """Finish what was accepted. What a lost database keeps from being finished is not acknowledged."""
        try:
            await asyncio.wait_for(self.writer.drain(), DRAIN_S)
        except TimeoutError:
            _log.warning("stopping although the last flush has no outcome: its producers will try it again")
            self.writer.abandon()
        # The next start would do it as well.
        with contextlib.suppress(TimeoutError, Unavailable):
            await asyncio.wait_for(self.commit_path.store_rows(), STORE_ROWS_S)

    def _pinned_bytes(self) -> int:
        """Memory beyond the budgets of the tail and of cold reads, which only unread responses keep."""
        self.tail.trim()
        self.cold.trim()
        return self.tail.pinned_bytes + self.cold.pinned_bytes

    def _handlers(self) -> Handlers:
        topics, brokers, registry = self.topics, self.brokers, self.registry
        service, producer_ids = self.transactions, self.producer_ids
        self.consumer_groups = ConsumerGroupHandlers(self.groups, registry)
        self.transaction_handlers = TransactionHandlers(service, registry, producer_ids, self.settings)
        self.transaction_handlers.producer_limit = self._limit(LimitKey.PRODUCER_IDS)
        topic_handlers = TopicHandlers(topics, brokers, self.throttles)
        internal_topics = InternalTopics(topic_handlers)
        self.streams_groups = StreamsGroupHandlers(self.groups, internal_topics)
        cluster = ClusterHandlers(topics, brokers, self.throttles)
        if self.audit is not None:
            cluster.on_created = partial(self.audit.on_topic_made, because="auto.create.topics.enable")
            internal_topics.on_created = partial(self.audit.on_topic_made, because="streams group")
        return Handlers(
            cluster=cluster,
            topics=topic_handlers,
            configs=ConfigHandlers(topics, brokers),
            replicas=ReplicaHandlers(registry, brokers),
            producers=ProducerHandlers(registry),
            virtual_clusters=VirtualClusterHandlers(
                self.clusters, is_admin=self._administers_platform, usage=self._usage_of
            ),
            cluster_keys=ClusterKeyHandlers(
                self.keys,
                lambda: {cluster.name: cluster.cluster_id for cluster in self.clusters.all()},
                is_admin=self._administers_platform,
            ),
            quotas=QuotaHandlers(self.quotas),
            telemetry=self.telemetry,
            acls=AclHandlers(self.acls if self.authorizer is not None else None),
            offsets=OffsetHandlers(topics, self.timestamps.offset_for_timestamp),
            identities=IdentityHandlers(self.identities, may_change=self._may_change_proofs),
            accounts=AccountHandlers(self.identities, may_change=self._may_change_proofs),
            tokens=TokenHandlers(
                database=self.database,
                rules=self.token_rules,
                clock=self.clock,
                randomness=self.randomness,
                may_change=self._may_change_proofs,
                is_guarded=self.authorizer is not None,
            ),
            groups=GroupHandlers(self.groups, _OneCoordinator(brokers)),
            group_offsets=GroupOffsetHandlers(self.groups, registry),
            consumer_groups=self.consumer_groups,
            streams_groups=self.streams_groups,
            share_groups=ShareGroupHandlers(self.share_groups, registry),
            share=self._share_handlers(),
            transactions=self.transaction_handlers,
            transaction_offsets=TransactionOffsetHandlers(service, self.groups, registry),
        )


class _OneCoordinator:
    """The only agent coordinates everything."""

    def __init__(self, brokers: SingleBroker) -> None:
        self._brokers = brokers

    def coordinator(self, context: RequestContext, key_type: int, key: str) -> Endpoint:
        (broker,) = self._brokers.alive(context)
        return Endpoint(broker.node_id, broker.host, broker.port)


class _GroupsListener:
    """Tells groups what became of topics."""

    def __init__(self, groups: GroupService, share: ShareGroups, partitions: SharePartitions) -> None:
        self._groups, self._share, self._partitions = groups, share, partitions

    async def on_topic_created(self, topic: Topic) -> None:
        """Groups may subscribe it, or have more partitions to assign."""
        self._groups.topics_changed(topic.cluster_id)

    async def on_topic_deleted(self, topic: Topic) -> None:
        """A topic's committed offsets go with it."""
        self._groups.topics_changed(topic.cluster_id)
        await self._groups.forget_topic(topic.cluster_id, topic.topic_id)
        await self._partitions.forget_topic(topic.cluster_id, topic.topic_id)
        await self._share.forget_topic(topic.cluster_id, topic.topic_id)

    async def on_trimmed(self, partition: Partition) -> None:
        """Nothing to do."""


def checked_settings(options: UpOptions) -> BrokerSettings:
    """The broker's settings, once nothing is wrong with the options: raise `InvalidRequest` with the cure."""
    listeners_of(options)
    check_destination(options.client_metrics)
    settings = BrokerSettings.started_with(options.settings)
    token_rules(options, settings)
    key_file = master_key_file(options)
    if key_file is not None:
        check_key_file(key_file)
    elif options.encrypt:
        raise InvalidRequest("what is encrypted in memory needs a file of master keys as well: --master-key-file")
    return settings


def master_key_file(options: UpOptions) -> Path | None:
    """Where master keys are; None if there is no place for any."""
    if options.master_key_file is not None:
        return options.master_key_file
    return None if options.data_dir is None else options.data_dir / "keys" / "master-keys"


def token_rules(options: UpOptions, settings: BrokerSettings) -> TokenRules | None:
    """How delegation tokens are made, if there are any. Raises `InvalidRequest` if their key cannot be had."""
    file = options.delegation_token_key_file
    if file is None:
        return None
    try:
        key = file.read_bytes().strip()
    except OSError as error:
        raise InvalidRequest(f"the key of delegation tokens cannot be read in {file}") from error
    if len(key) < MIN_KEY_BYTES:
        raise InvalidRequest(f"the key of delegation tokens in {file} needs {MIN_KEY_BYTES} bytes or more")
    return TokenRules(
        key=key, max_lifetime_ms=settings.whole("delegation.token.max.lifetime.ms"),
        expiry_time_ms=settings.whole("delegation.token.expiry.time.ms"),
    )  # fmt: skip
