"""One agent, put together: this is the place where everything meets.

`start` opens the data (or memory), recovers the state, and listens; `stop` accepts nothing new, finishes and answers
what was accepted, and closes everything. An agent belongs to the event loop it was started on. How each part is built,
and what it tells which other, is in `parts`, one file each; here is their order.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING

from penstock.agent.change_poller import poll_changes, watch_epoch
from penstock.agent.parts.access import open_access
from penstock.agent.parts.backend import Backend
from penstock.agent.parts.coordinators import open_groups, transactions_of
from penstock.agent.parts.keys import open_keys
from penstock.agent.parts.limits import open_limits
from penstock.agent.parts.log import open_log
from penstock.agent.parts.maintenance import open_maintenance
from penstock.agent.parts.removal import removal_of
from penstock.agent.parts.requests import open_requests
from penstock.agent.parts.runtime import Runtime
from penstock.agent.parts.server import brokers_of, listen, open_server
from penstock.agent.parts.stores import open_stores
from penstock.agent.parts.telemetry import open_sink, open_telemetry
from penstock.agent.parts.topics import open_topics
from penstock.agent.tuning import Tuning
from penstock.audit.switch import is_audited
from penstock.base.clock import Clock, SystemClock
from penstock.base.durations import CollectorPauses
from penstock.base.lazy import lazy_import
from penstock.base.options import UpOptions
from penstock.base.randomness import Randomness, SystemRandomness
from penstock.clusters.model import Cluster, ClusterState
from penstock.clusters.removal import ClusterRemoval
from penstock.log.producer_ids import ProducerIds
from penstock.log.record_first import RecordFirstCommitPath

if TYPE_CHECKING:
    from penstock.agent.parts import audit as audit_part
    from penstock.agent.parts import sasl as sasl_part
    from penstock.agent.sasl import SaslServer
    from penstock.audit.service import AuditLog
else:  # Of features that have to be asked for.
    audit_part, sasl_part = lazy_import("penstock.agent.parts.audit"), lazy_import("penstock.agent.parts.sasl")


NOT_YET = "starting or stopping"


class Agent:
    """The data plane of one process."""

    def __init__(
        self, options: UpOptions, *, clock: Clock | None = None, randomness: Randomness | None = None,
        tuning: Tuning | None = None,
    ) -> None:  # fmt: skip
        self.runtime = Runtime.of(
            options, tuning or Tuning(), clock or SystemClock(), randomness or SystemRandomness(), lambda: self.ready
        )
        self.ports: Mapping[str, int] = {}
        """The ports of all listeners, by name."""
        self.why_not_ready: str | None = NOT_YET
        """Why requests are not served, for whoever asks `/readyz`; None while they are."""
        self.sasl: SaslServer | None = None
        """Where clients authenticate, once it listens; None if nobody has to."""
        self.on_broken: Callable[[], None] = lambda: None
        """Called when nothing will be written any more, because of a bug or because another process has taken over the
        log: stop the agent."""

    @property
    def ready(self) -> bool:
        """Whether requests are served."""
        return self.why_not_ready is None

    @property
    def has_failed(self) -> bool:
        """Whether it has stopped by itself."""
        return self.log.writer.broken or self.log.writer.fenced is not None

    @property
    def kafka_port(self) -> int:
        """The port of the first listener."""
        return next(iter(self.ports.values()), 0)

    async def start(self) -> None:
        """Open, recover, listen. Raises a `PlatformError` with a sentence for the user when that is impossible."""
        try:
            await self._start()
        except BaseException:
            await self.runtime.closing.aclose()
            raise

    async def stop(self) -> None:
        """Stop cleanly: nothing acknowledged is lost, and clients are told by the end of their connections."""
        self.why_not_ready = self.why_not_ready or NOT_YET
        await self.runtime.closing.aclose()

    async def _start(self) -> None:
        """Build the parts, each from those before it."""
        runtime = self.runtime
        self.collections = self._watch_collections()
        stores = self.stores = await open_stores(runtime)
        clusters, topics = self.clusters, self.topics = await open_topics(runtime, stores)
        registry = self.registry = topics.registry
        keys = self.keys = await open_keys(runtime, stores, clusters, registry)
        log = self.log = await open_log(runtime, stores, registry, keys)
        self.maintenance = open_maintenance(runtime, stores, topics, keys, log)
        background = self.maintenance.background
        self.producer_ids = ProducerIds(stores.database)
        self.transactions = transactions_of(runtime, stores, topics, log, self.producer_ids, background)
        self.access = await open_access(runtime, stores, self._on_revoked)
        self.coordinators = await open_groups(runtime, stores, clusters, topics, log, self.transactions, background)
        self.limits = await open_limits(runtime, stores, clusters, self.coordinators.dead_letters)
        self.client_metrics = open_sink(runtime)
        self.telemetry = open_telemetry(runtime, self.client_metrics, topics)
        self.audit: AuditLog | None = None
        if is_audited(runtime.settings, asks_for_credentials=self.access.asks_for_credentials):
            self.audit = audit_part.open_audit(
                runtime, clusters, topics, log, self.access, lambda of: self.server.correlation_id(of)
            )
        await self.transactions.open()
        runtime.closing.callback(self.transactions.close)  # Before groups: they finish what they have begun.
        self.brokers = brokers_of(runtime, stores, clusters)
        backend = Backend(
            runtime=runtime, stores=stores, clusters=clusters, topics=topics, keys=keys, log=log, brokers=self.brokers,
            producer_ids=self.producer_ids, transactions=self.transactions, access=self.access,
            coordinators=self.coordinators, limits=self.limits, telemetry=self.telemetry, audit=self.audit,
            on_closed=[],
        )  # fmt: skip
        self.requests = open_requests(backend)
        if any(listener.uses_sasl for listener in runtime.listeners):
            self.sasl = sasl_part.open_sasl(
                runtime, stores, clusters, self.limits.cluster_connections, self.requests.dispatcher, self.audit
            )
        self.server = open_server(backend, self.requests, self.sasl)
        self.maintenance.idle_memory.drops.append(self.server.shared.drop_memory)
        background.add(removal_of(backend, self.server))
        clusters.on_change = self._on_cluster
        log.writer.on_broken, log.writer.on_fenced = self._on_broken, self._on_fenced
        if not isinstance(log.commit_path, RecordFirstCommitPath):
            self._poll_changes()
            watch_epoch(runtime.closing, log.commit_path.check_epoch, log.writer.fence)
        self.ports = listen(runtime, self.server, self.brokers, clusters)
        self.why_not_ready = None

    def _poll_changes(self) -> None:
        """Apply what other agents change."""
        refreshes = {
            "acl": self.access.acls.refresh,
            "quota": self.limits.quotas.refresh,
            "clusters": self.clusters.refresh,
            "cluster keys": self.keys.refresh,
            "revoked credentials": self._drop_revoked,
        }
        poll_changes(self.runtime.closing, self.stores.database, refreshes)

    def _watch_collections(self) -> CollectorPauses:
        collections = CollectorPauses(self.runtime.clock.monotonic)
        gc.callbacks.append(collections)
        self.runtime.closing.callback(gc.callbacks.remove, collections)
        return collections

    # ---- what parts are told that were built before -----------------------------------------------------------

    def _on_cluster(self, cluster: Cluster) -> None:
        """A virtual cluster is new, or being deleted, or has other limits."""
        if cluster.state is ClusterState.DELETING:
            self.maintenance.background.wake(ClusterRemoval.name)
        self.limits.throttles.set_cluster_limits(cluster.cluster_id, cluster.limits)
        self.limits.quotas.on_change()

    def _on_revoked(self, credential_ids: Collection[str], asked_by: int) -> None:
        if self.sasl is not None:
            self.sasl.revoke(self.server.connections, credential_ids, asked_by)

    async def _drop_revoked(self) -> None:
        """Close connections whose API key or token another agent has removed."""
        sasl = self.sasl
        if sasl is not None:
            await self.access.identities.drop_revoked(lambda: sasl.credentials_in_use(self.server.connections))

    def _on_broken(self) -> None:
        self.why_not_ready = "a bug has interrupted a flush; the log says which"
        self.on_broken()

    def _on_fenced(self) -> None:
        self.why_not_ready = str(self.log.writer.fenced)
        self.on_broken()
