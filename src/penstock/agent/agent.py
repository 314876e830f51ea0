"""One agent, put together: this is the place where everything meets.

`start` opens the data (or memory), recovers the state, and listens; `stop` accepts nothing new, finishes and answers
what was accepted, and closes everything. An agent belongs to the event loop it was started on. How each part is built
is in `parts`; here is the order, and which part notifies which.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING

from penstock.agent.apis import Api, apis, audited, guarded
from penstock.agent.checks import checked_settings, memory_bounds, slow_request_s, token_rules
from penstock.agent.client_metrics import open_sink, open_telemetry
from penstock.agent.dispatch import Dispatcher
from penstock.agent.following import FOLLOW_S, Following
from penstock.agent.listeners import listeners_of, needing_users
from penstock.agent.metadata import bring_in_commits
from penstock.agent.parts.access import open_access
from penstock.agent.parts.coordinators import open_groups, transactions_of
from penstock.agent.parts.handlers import handlers_of
from penstock.agent.parts.keys import open_keys
from penstock.agent.parts.log import forget_cluster, open_log
from penstock.agent.parts.stores import open_stores
from penstock.agent.removing import removal_steps
from penstock.agent.request_times import RequestTimes
from penstock.agent.rest import Rest
from penstock.agent.server import Server
from penstock.agent.tenancy import Tenancy
from penstock.agent.tls import ServerTls
from penstock.agent.tuning import NODE_ID, SHARD_ID, Tuning
from penstock.audit.switch import is_audited
from penstock.base.clock import Clock, SystemClock
from penstock.base.durations import Collections
from penstock.base.errors import InvalidRequest
from penstock.base.later import later
from penstock.base.options import UpOptions
from penstock.base.randomness import Randomness, SystemRandomness
from penstock.base.settings import LiveSettings
from penstock.base.threads import OnThread, on_thread_of
from penstock.clusters.limits import LimitKey
from penstock.clusters.model import Cluster, State
from penstock.clusters.removal import SETTLE_S, Removal
from penstock.clusters.service import Clusters
from penstock.groups.expiry import OffsetExpiry
from penstock.groups.settings import GroupSettings
from penstock.log.aborted import StoredAborted
from penstock.log.brokers import SingleBroker
from penstock.log.fetch import FetchHandler
from penstock.log.fetch_sessions import FetchSessions
from penstock.log.produce import ProduceHandler
from penstock.log.producer_ids import ProducerIds
from penstock.log.registry import Registry
from penstock.log.sealing import Sealing
from penstock.log.topics import Topics
from penstock.log.upkeep.background import Background, Chore
from penstock.log.upkeep.chores import Upkeep
from penstock.log.upkeep.spent_keys import SpentKeys
from penstock.log.upkeep.uploads import Uploads
from penstock.log.upkeep.wal_compaction import WalCompaction
from penstock.quotas.service import Quotas
from penstock.quotas.settings import QuotaSettings
from penstock.quotas.throttles import Throttles
from penstock.transactions.chores import IdExpiry, TimeOuts
from penstock.transactions.settings import TransactionSettings

if TYPE_CHECKING:
    from penstock.agent.gate import Gate
    from penstock.agent.parts import audit as audit_part
    from penstock.agent.parts import gate as gate_part
    from penstock.audit.service import AuditLog
    from penstock.authorization.guards import table as guard_table
else:
    audit_part, gate_part = later("penstock.agent.parts.audit"), later("penstock.agent.parts.gate")
    guard_table = later("penstock.authorization.guards.table")

STOP_GRACE_S = 2.0


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
        self.memory = memory_bounds(options, self.settings)
        self.listeners = listeners_of(options)
        self.token_rules = token_rules(options, self.settings)
        self.registry = Registry()
        self.kafka_port = 0
        """The port of the first listener."""
        self.ports: dict[str, int] = {}
        """The ports of all listeners, by name."""
        self.ready = False
        self.gate: Gate | None = None
        """Where clients authenticate, once it listens; None if nobody has to."""
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
        options, tuning, settings, closing = self.options, self.tuning, self.settings, self._closing
        clock, randomness, registry = self.clock, self.randomness, self.registry
        self._watch_collections()
        stores = self.stores = await open_stores(options, tuning, closing, clock=clock, randomness=randomness)
        live = LiveSettings(settings)
        self.topics = Topics(
            database=stores.database, registry=registry, settings=live, clock=clock, randomness=randomness,
            node_id=NODE_ID,
        )  # fmt: skip
        closing.push_async_callback(self.topics.close)
        await bring_in_commits(stores.metadata, stores.wal, randomness=randomness, shard_id=SHARD_ID)
        await self._open_clusters()
        await self.topics.load()
        self.keys = await open_keys(
            stores, self.clusters, partial(forget_cluster, registry), options=options, clock=clock,
            randomness=randomness, closing=closing,
        )  # fmt: skip
        self.log = await open_log(
            stores, registry, Sealing(self.keys, randomness), options=options, tuning=tuning, memory=self.memory,
            clock=clock, randomness=randomness, closing=closing,
        )  # fmt: skip
        self.producer_ids = ProducerIds(stores.database)
        self.transactions = transactions_of(stores, self.log, self.producer_ids, clock=clock)
        self._open_background(live)
        self.access = await open_access(
            stores, settings, self.listeners, clock=clock, randomness=randomness, revoked=self._on_revoked
        )
        closing.push_async_callback(self.access.acls.close)
        closing.push_async_callback(self.access.changes.close)
        await self._check_somebody_gets_in()
        self.coordinators = await open_groups(
            stores, self.log, self.topics, self.clusters, self.transactions, settings=settings, clock=clock,
            randomness=randomness, closing=closing,
        )  # fmt: skip
        self.topics.before_deletion = self.transactions.keep_open
        await self._open_quotas()
        self.client_metrics = open_sink(options.client_metrics, clock, closing)
        self.telemetry = open_telemetry(
            self.client_metrics, self.topics, settings, broker_id=NODE_ID, clock=clock, randomness=randomness,
            closing=closing,
        )  # fmt: skip
        self.audit: AuditLog | None = None
        if is_audited(settings, asks_for_credentials=self.access.asks_for_credentials):
            self.audit = audit_part.open_audit(self, closing)
        await self.transactions.open()
        # Before groups: they finish what they have begun.
        closing.callback(self.transactions.close)
        self._listen()
        self.ready = True

    def _watch_collections(self) -> None:
        self.collections = Collections(self.clock.monotonic)
        gc.callbacks.append(self.collections)
        self._closing.callback(gc.callbacks.remove, self.collections)

    async def _check_somebody_gets_in(self) -> None:
        """Refuse to start if other machines are asked for credentials and nobody has any. (With data in memory, users
        can only be created while the agent runs.)"""
        listener, data_dir = needing_users(self.listeners), self.options.data_dir
        if listener is None or data_dir is None or await self.access.identities.anybody():
            return
        also = "" if self.options.metadata_url is None else ", with the same PENSTOCK_METADATA"
        raise InvalidRequest(
            f"listener {listener.name} at {listener.host} can be reached from other machines, and there is no user yet"
            f" who could log in. Create the first one, then start: penstock user create NAME --data-dir {data_dir}"
            f"{also}"
        )

    async def _open_clusters(self) -> None:
        clusters = self.clusters = Clusters(
            database=self.stores.database, clock=self.clock, randomness=self.randomness, shard_id=SHARD_ID
        )
        await clusters.open(self.stores.kafka_cluster_id)
        self._closing.push_async_callback(clusters.close)
        self.topics.partition_limit = clusters.limit(LimitKey.PARTITIONS)

    # ---- background ------------------------------------------------------------------------------------------

    def _open_background(self, live: LiveSettings) -> None:
        executor = ThreadPoolExecutor(1, thread_name_prefix="background")
        self._closing.callback(executor.shutdown)
        log, stores, settings = self.log, self.stores, self.settings
        upkeep = self.upkeep = Upkeep(
            database=stores.database, registry=self.registry, topics=self.topics, segments=log.segments,
            objects=stores.objects, uploads=Uploads(self.randomness), settings=live, clock=self.clock,
            executor=executor, shard_id=SHARD_ID, store_rows=log.commit_path.store_rows, sealing=log.sealing,
            pass_flush=log.writer.pass_flush,
        )  # fmt: skip
        self.compaction = WalCompaction(
            upkeep.changes, wal=stores.wal, registry=self.registry, backlog=log.backlog, on_segments=self._on_segments
        )
        of_transactions = TransactionSettings.of(settings)
        time_outs = TimeOuts(self.transactions, of_transactions)
        chores: list[Chore] = [
            self.compaction,
            *upkeep.chores,
            Rest(
                activity=log.activity, held_bytes=lambda: log.tail.size_bytes, drop=self._drop_memory,
                now=self.clock.monotonic,
            ),
            SpentKeys(upkeep.changes, self.keys, lambda: log.backlog.last_seq),
            time_outs,
            IdExpiry(self.transactions, of_transactions),
            OffsetExpiry(
                lambda: self.coordinators.expire(), GroupSettings.of(settings), is_ready=lambda: self.ready
            ),
            Removal(
                self.clusters, stores.database, removal_steps(self), is_ready=lambda: self.ready, clock=self.clock,
                settle_s=SETTLE_S if log.commit_path.is_alone else 2 * FOLLOW_S,
            ),
        ]  # fmt: skip
        background = self.background = Background(chores, clock=self.clock, randomness=self.randomness)
        self.transactions.on_begin, time_outs.wake = time_outs.began, background.waker(time_outs.name)
        self.keys.on_replaced = lambda key_id: background.wake(SpentKeys.name)
        log.backlog.wake = background.waker(self.compaction.name)
        upkeep.bind(background.wake)
        self._closing.callback(upkeep.close)
        self._closing.push_async_callback(background.stop)
        background.start()

    def _on_segments(self, partition_ids: Iterable[int]) -> None:
        self.upkeep.on_segments(partition_ids)
        self.background.wake(Rest.name)

    def _drop_memory(self) -> None:
        self.log.drop_memory()
        self.server.drop_memory()

    # ---- limits, and what other agents change ----------------------------------------------------------------

    async def _open_quotas(self) -> None:
        self.throttles = Throttles(clock=self.clock, settings=QuotaSettings.of(self.settings))
        self.quotas = Quotas(database=self.stores.database, throttles=self.throttles)
        await self.quotas.load()
        self.coordinators.dead_letters.charge = self.throttles.on_own_write
        self._closing.push_async_callback(self.quotas.close)
        self.tenancy = Tenancy(
            limits=self.clusters.limits, tenant=self.throttles.tenant, is_open=self.clusters.is_open, clock=self.clock
        )
        for cluster in self.clusters.all():
            self._limit_rates(cluster)
        self.clusters.on_change = self._limit_rates
        if not self.log.commit_path.is_alone:
            self._follow()

    def _limit_rates(self, cluster: Cluster) -> None:
        """A virtual cluster is new, or being deleted, or has other limits."""
        if cluster.state is State.DELETING:
            self.background.wake(Removal.name)
        self.throttles.limit(cluster.cluster_id, cluster.limits)
        self.quotas.on_change()

    def _enforce_quotas(self) -> None:
        """Have requests check limits only while there are any."""
        throttles = self.throttles
        self.dispatcher.throttles = throttles if throttles.limits_clients else None
        self.fetch.quota = throttles if throttles.limits_clients else None

    def _follow(self) -> None:
        """Apply here what other agents change."""
        following = Following(
            self.stores.database,
            {
                "acl": self.access.acls.refresh,
                "quota": self.quotas.refresh,
                "clusters": self.clusters.refresh,
                "cluster keys": self.keys.refresh,
                "revoked credentials": self._drop_revoked,
            },
        )
        task = asyncio.get_running_loop().create_task(following.watch())

        async def stop() -> None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        self._closing.push_async_callback(stop)

    # ---- clients ---------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        options, settings, log = self.options, self.settings, self.log
        self.brokers = SingleBroker(
            kafka_cluster_id=self.stores.kafka_cluster_id, node_id=NODE_ID, host=options.kafka_host,
            port=options.kafka_port,
        )  # fmt: skip
        self.brokers.kafka_id_of = self.clusters.kafka_id
        sessions = FetchSessions(
            slots=settings.whole("max.incremental.fetch.session.cache.slots"),
            clock=self.clock,
            randomness=self.randomness,
        )
        produce = ProduceHandler(registry=self.registry, writer=log.writer, clock=self.clock)
        produce.transactional_ids = self.transactions
        self.fetch = FetchHandler(
            registry=self.registry, reader=log.reader, sessions=sessions, max_bytes=settings.whole("fetch.max.bytes"),
            aborted=StoredAborted(self.stores.database), locked=self.keys.locked,
        )  # fmt: skip
        dispatcher = self.dispatcher = Dispatcher(produce=produce, fetch=self.fetch, clock=self.clock)
        dispatcher.beside, produce.beside = self._thread("long-requests"), self._thread("record-checks")
        self.quotas.on_change = self._enforce_quotas
        self._enforce_quotas()
        table = self._guarded(apis(handlers_of(self)), produce)
        dispatcher.serve(table if self.audit is None else audited(table, self.audit))
        self.gate = self._open_gate()
        server = self.server = Server(
            clock=self.clock,
            dispatch=dispatcher,
            throttled_ms=self.throttles.on_connection,
            times=RequestTimes(self.clock, slow_s=slow_request_s(settings), last_flush=log.writer.stages.told),
            admit=None if self.gate is None else self.gate.admit,
            tenancy=self.tenancy,
            pending_bytes=lambda: log.writer.pending_bytes + produce.looked_at_bytes,
            pinned_bytes=log.pinned_bytes,
            memory=self.memory,
            max_frame_bytes=settings.whole("socket.request.max.bytes"),
            max_connections=settings.whole("max.connections"),
            max_connections_per_host=settings.whole("max.connections.per.ip"),
            idle_s=settings.whole("connections.max.idle.ms") / 1000,
        )
        server.listener = self.audit
        log.writer.on_drained = server.make_room
        log.writer.on_broken = self._on_writer_broken
        self._closing.push_async_callback(server.close, STOP_GRACE_S)
        self._closing.push_async_callback(log.drain)
        self._closing.push_async_callback(self.coordinators.dead_letters.close)
        self._closing.push_async_callback(produce.drain)
        self._closing.push_async_callback(dispatcher.drain)
        self._closing.callback(server.stop_listening)
        self._open_ports(server)

    def _open_gate(self) -> Gate | None:
        if not any(listener.uses_sasl for listener in self.listeners):
            return None
        gate = gate_part.open_gate(
            self.stores, self.dispatcher, self.clusters, self.tenancy, settings=self.settings,
            listeners=self.listeners, token_rules=self.token_rules, clock=self.clock, randomness=self.randomness,
            closing=self._closing,
        )  # fmt: skip
        gate.listener = self.audit
        return gate

    def _on_revoked(self, credential_ids: Collection[str], asked_by: int) -> None:
        if self.gate is not None:
            self.gate.revoke(self.server.connections, credential_ids, asked_by)

    async def _drop_revoked(self) -> None:
        """Close connections whose API key or token another agent has removed."""
        gate = self.gate
        if gate is not None:
            await self.access.identities.drop_revoked(lambda: gate.credentials_in_use(self.server.connections))

    def _thread(self, name: str) -> OnThread:
        """A thread for work that clients can make long, one piece after the other, so that nobody else waits for it."""
        executor = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._closing.callback(executor.shutdown, wait=False, cancel_futures=True)
        return on_thread_of(executor)

    def _open_ports(self, server: Server) -> None:
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
        """The table, behind guards if ACLs decide what clients may do."""
        authorizer = self.access.authorizer
        if authorizer is None:
            return table
        produce.authorizer = self.fetch.authorizer = authorizer
        guards = guard_table.Guards(authorizer=authorizer, topics=self.registry, settings=self.topics.settings.of)
        return guarded(table, guards)

    def _on_writer_broken(self) -> None:
        self.ready = False
        self.on_broken()
